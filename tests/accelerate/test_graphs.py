"""What a GPU replays, called on the CPU: SB3's updates up to rounding. Recording itself needs a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sb3_contrib import TQC
from stable_baselines3 import DQN, PPO, SAC
from test_off_policy import (
    CASES,
    DISCRETE,
    SMALL,
    _fill,
    assert_equal_updates,
    copy_state,
    differences,
    make,
    update,
    vec,
)

from rlrun.accelerate.graphs import Recorded, graphed, make_capturable, why_not

pytestmark = pytest.mark.usefixtures("one_thread")
OF_THE_GPU = [name for name, (cls, _, _) in CASES.items() if cls in (DQN, SAC, TQC)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def pair(cls: Any, env_kwargs: dict[str, Any], **kwargs: Any) -> tuple[Any, Any]:
    """SB3's model and the one that replays its updates, in the same state after some updates."""
    models = [make(kind, vec(**env_kwargs), False, **kwargs) for kind in (cls, graphed(cls))]
    for model in models:
        _fill(model)
    for _ in range(5):
        update(models[0], 1, seed=1)
    copy_state(*models)
    return models[0], models[1]


@pytest.mark.parametrize("name", OF_THE_GPU)
def test_updates_equal_those_of_sb3(name: str) -> None:
    cls, env, kwargs = CASES[name]
    assert_equal_updates(*pair(cls, env, **kwargs))


@pytest.mark.parametrize("cls", [DQN, SAC, TQC])
def test_a_saved_model_is_a_plain_one(cls: Any, tmp_path: Path) -> None:
    plain, ours = pair(cls, DISCRETE if cls is DQN else {})
    update(ours, 2)
    ours.save(tmp_path / "model.zip")
    loaded = cls.load(tmp_path / "model.zip", device="cpu")
    assert loaded.__dict__.keys() <= plain.__dict__.keys()
    for name, value in ours.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name]), name


def test_what_cannot_be_replayed_is_said() -> None:
    assert why_not(SAC, {}, "cuda:1") == ""
    assert "gSDE" in why_not(SAC, {"use_sde": True}, "cuda")
    assert "PPO has no updates" in why_not(PPO, {}, "cuda")
    assert "the device is cpu" in why_not(SAC, {}, "cpu")


def test_an_optimizer_that_cannot_be_recorded_leaves_the_model_plain() -> None:
    _, ours = pair(DQN, DISCRETE, policy_kwargs={**SMALL, "optimizer_class": torch.optim.SGD})
    assert ours.acceleration == "off: the optimizer is SGD"
    update(ours, 1)


def test_a_layer_that_is_frozen_stays_as_it_is() -> None:
    plain, ours = pair(SAC, {})
    for model in (plain, ours):
        model.actor.latent_pi[0].weight.requires_grad_(False)
    before = ours.actor.latent_pi[0].weight.clone()
    assert_equal_updates(plain, ours)
    assert torch.equal(before, ours.actor.latent_pi[0].weight)


def test_what_a_capturable_optimizer_saves_is_what_a_plain_one_saves() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    plain, ours = (torch.optim.Adam([parameter], lr=3e-4) for _ in range(2))
    forgotten: list[int] = []
    make_capturable(ours, lambda: forgotten.append(1))
    assert isinstance(ours.param_groups[0]["lr"], torch.Tensor)
    assert ours.state_dict()["param_groups"] == plain.state_dict()["param_groups"]
    ours.load_state_dict(plain.state_dict())
    assert ours.param_groups[0]["capturable"]
    assert len(forgotten) == 2


def test_elsewhere_than_on_a_gpu_a_function_is_called() -> None:
    calls = []
    recorded = Recorded(lambda inputs: calls.append(1) or {"twice": 2 * inputs["x"]})  # type: ignore[func-returns-value]
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert float(recorded({"x": torch.tensor(value)})["twice"]) == 2 * value
    assert len(calls) == 5


@needs_gpu
def test_on_a_gpu_a_replay_does_what_a_call_does() -> None:
    total = torch.zeros((), device="cuda")

    def add(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        total.add_(inputs["x"])
        return {"total": total.clone()}

    recorded = Recorded(add)
    found = [float(recorded({"x": torch.tensor(float(value), device="cuda")})["total"]) for value in range(8)]
    assert found == [0, 1, 3, 6, 10, 15, 21, 28]


@needs_gpu
@pytest.mark.parametrize("name", OF_THE_GPU)
def test_on_a_gpu_replayed_updates_equal_those_of_sb3(name: str) -> None:
    cls, env, kwargs = CASES[name]
    kwargs = {**kwargs, "device": "cuda", "learning_rate": lambda remaining: 1e-3 * remaining}
    plain, ours = pair(cls, env, **kwargs)
    for step in range(10):
        for model in (plain, ours):
            model._current_progress_remaining = 1 - step / 10
        if cls is DQN:  # SAC and TQC draw actions, and a graph draws them from other numbers
            update(plain, 1, seed=step)
        update(ours, 1, seed=step)
        if step == 5:
            ours.set_parameters(ours.get_parameters())
    if cls is DQN:
        assert max(differences(plain, ours).values()) < 1e-3
    assert all(torch.isfinite(value).all() for value in ours.policy.state_dict().values())
