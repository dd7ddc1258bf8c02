"""Convolutions with channels last and in bfloat16: the same values, the same parameters, plain models when saved."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from comparing import assert_same, killed_and_resumed, train_on_pixels
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.dqn.policies import CnnPolicy

from rlrun.accelerate.convolutions import speed_up
from rlrun.runs.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def policies(cls: Any, **settings: Any) -> tuple[Any, Any]:
    """The same policy twice, the second one made faster."""
    both = []
    for _ in range(2):
        torch.manual_seed(1)
        both.append(cls(SPACE, spaces.Discrete(6), lambda _: 1e-4))
    speed_up(SimpleNamespace(policy=both[1]), **settings)  # type: ignore[arg-type]
    return both[0], both[1]


def step(policy: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """One update towards larger outputs."""
    torch.manual_seed(2)
    images = torch.randint(0, 256, (32, *SPACE.shape), dtype=torch.uint8)
    if isinstance(policy, ActorCriticCnnPolicy):
        values, log_prob, _ = policy.evaluate_actions(images, torch.zeros(32))
        outputs = torch.cat([values.flatten(), log_prob])
    else:
        outputs = policy.q_net(images)
    policy.optimizer.zero_grad()
    outputs.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    policy.optimizer.step()
    return outputs.detach(), gradients


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative to the largest value."""
    return float((one - other).detach().abs().max() / one.detach().abs().max())


@pytest.mark.parametrize("cls", [CnnPolicy, ActorCriticCnnPolicy])
def test_an_update_is_that_of_plain_sb3_up_to_rounding(cls: Any) -> None:
    plain, faster = policies(cls)
    for _ in range(2):
        (outputs, gradients), (ours, our_gradients) = step(plain), step(faster)
        assert largest_difference(outputs, ours) < 1e-5
        assert gradients.keys() == our_gradients.keys()
        for name, gradient in gradients.items():
            assert largest_difference(gradient, our_gradients[name]) < 1e-5, name
    assert next(p for p in faster.parameters() if p.dim() == 4).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("settings", [{}, {"amsgrad": True}, {"weight_decay": 0.1}])
def test_adam_in_one_pass_steps_as_adam_does_and_goes_on_from_what_either_saved(settings: dict[str, Any]) -> None:
    plain, faster = policies(CnnPolicy)
    for policy in (plain, faster):
        for group in policy.optimizer.param_groups:
            group |= settings
    for update in range(4):
        if update == 2:  # what the other one saved lies in another order in memory
            states = [policy.optimizer.state_dict() for policy in (plain, faster)]
            assert states[0]["param_groups"] == states[1]["param_groups"]
            plain.optimizer.load_state_dict(states[1])
            faster.optimizer.load_state_dict(states[0])
        torch.manual_seed(update)
        for one, other in zip(plain.parameters(), faster.parameters(), strict=True):
            one.grad = torch.randn_like(one, memory_format=torch.contiguous_format)
            other.grad = one.grad.clone()
        for policy in (plain, faster):
            policy.optimizer.step()
        for (name, parameter), ours in zip(plain.named_parameters(), faster.parameters(), strict=True):
            assert largest_difference(parameter, ours) < 1e-6, name


@pytest.mark.parametrize("cls", [CnnPolicy, ActorCriticCnnPolicy])
def test_bfloat16_keeps_parameters_and_outputs_in_float32(cls: Any) -> None:
    plain, faster = policies(cls, bfloat16=True)
    (outputs, gradients), (ours, our_gradients) = step(plain), step(faster)
    assert 1e-5 < largest_difference(outputs, ours) < 0.05
    assert {tensor.dtype for tensor in (ours, *faster.parameters(), *our_gradients.values())} == {torch.float32}
    assert gradients.keys() == our_gradients.keys()


def test_networks_without_convolutions_are_left_alone() -> None:
    from stable_baselines3.dqn.policies import MlpPolicy

    policy = MlpPolicy(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), lambda _: 1e-3)
    speed_up(SimpleNamespace(policy=policy), bfloat16=True)  # type: ignore[arg-type]
    assert not any(type(module).__module__.startswith("rlrun") for module in policy.modules())
    assert type(policy.optimizer) is torch.optim.Adam


class Viewing(BaseFeaturesExtractor):
    """A network that counts on the order in which torch lays out what a convolution returns."""

    def __init__(self, space: Any) -> None:
        super().__init__(space, 8)
        self.convolution = torch.nn.Conv2d(4, 8, 84)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(batch, 8)."""
        return self.convolution(observations).view(len(observations), -1)


def test_networks_of_the_users_own_are_left_alone() -> None:
    policy = CnnPolicy(SPACE, spaces.Discrete(6), lambda _: 1e-4, features_extractor_class=Viewing)
    speed_up(SimpleNamespace(policy=policy))  # type: ignore[arg-type]
    step(policy)
    assert type(policy.optimizer) is torch.optim.Adam


def test_copies_of_a_policy_step_as_it_does() -> None:
    _, faster = policies(CnnPolicy, bfloat16=True)
    step(faster)
    both = [copy.deepcopy(faster), pickle.loads(pickle.dumps(faster))]
    for one in (faster, *both):
        step(one)
    for other in both:
        assert all(torch.equal(a, b) for a, b in zip(faster.parameters(), other.parameters(), strict=True))


def test_hooks_and_closures_of_adam_are_called() -> None:
    _, faster = policies(CnnPolicy)
    called: list[str] = []
    step(faster)
    faster.optimizer.register_step_post_hook(lambda *_: called.append("hook"))
    step(faster)
    faster.optimizer.step(lambda: called.append("closure"))
    assert called == ["hook", "closure", "hook"]


def test_who_chose_a_kernel_of_adam_keeps_it() -> None:
    torch.manual_seed(1)
    policy = CnnPolicy(SPACE, spaces.Discrete(6), lambda _: 1e-4, optimizer_kwargs={"foreach": True})
    speed_up(SimpleNamespace(policy=policy))  # type: ignore[arg-type]
    assert type(policy.optimizer) is torch.optim.Adam


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_rollouts_of_images_come_in_the_order_of_the_convolutions(algo: str, tmp_path: Path) -> None:
    seen = []
    forward = NatureCNN.forward

    def look(self: Any, observations: torch.Tensor) -> torch.Tensor:
        seen.append((len(observations), observations.is_contiguous(memory_format=torch.channels_last)))
        return forward(self, observations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NatureCNN, "forward", look)
        hyper = {"policy": "CnnPolicy", "n_steps": 16, **({"batch_size": 16} if algo == "ppo" else {})}
        train_on_pixels(tmp_path, algo=algo, hyperparameters=hyper, total_timesteps=32)
    assert {16} <= {size for size, _ in seen}
    assert all(in_order for _, in_order in seen)


@pytest.mark.parametrize("accelerate", ["auto", "bfloat16"])
def test_a_killed_run_ends_with_the_same_bytes_and_its_model_is_a_plain_one(
    accelerate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_on_pixels(tmp_path / "ours", accelerate=accelerate)
    assert "with channels last" in run.description()["notes"]
    assert ("bfloat16" in run.description()["notes"]) == (accelerate == "bfloat16")
    resumed = killed_and_resumed(partial(train_on_pixels, accelerate=accelerate), tmp_path / "killed", 300, monkeypatch)
    assert_same(run, resumed)
    steps = run.directory.pointer("final")
    assert steps is not None
    model = DQN.load(read_checkpoint(run.directory, steps).model_path, device="cpu")
    assert model.predict(np.zeros(SPACE.shape, np.uint8), deterministic=True)[0] in range(6)
