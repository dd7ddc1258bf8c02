"""Flat optimisers take torch's steps, and torch goes on from their state."""

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from rlrun.accelerate import optimizers
from rlrun.accelerate.flat import FlatParameters
from rlrun.accelerate.optimizers import clip_gradient_norm, flat_optimizer, why_not

pytestmark = pytest.mark.usefixtures("one_thread")

MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "Adam, epsilon and decay": lambda p: torch.optim.Adam(p, lr=1e-2, eps=1e-5, betas=(0.8, 0.9), weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, weight_decay=0.1),
    "RMSpropTFLike": lambda p: RMSpropTFLike(p, lr=1e-3, alpha=0.99, eps=1e-5),
}


def step_in_torch(net: nn.Module, optimizer: torch.optim.Optimizer, gradients: list[torch.Tensor]) -> None:
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def step_flat(flat: FlatParameters, optimizer: object, gradients: list[torch.Tensor]) -> None:
    for parameter, gradient in zip(flat.parameters, gradients, strict=True):
        flat.view(parameter)[1][...] = gradient.numpy()
    optimizer.step()


def random_gradients(net: nn.Module) -> list[torch.Tensor]:
    return [torch.randn_like(p) for p in net.parameters()]


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().norm() / b.detach().norm()) for a, b in pairs)


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_steps_are_torchs_and_each_goes_on_from_the_others_state(
    kind: str, is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_fused:
        monkeypatch.setattr(optimizers, "_FUSED", None)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    net = copy.deepcopy(plain)
    theirs, torch_ours = MAKERS[kind](plain.parameters()), MAKERS[kind](net.parameters())
    gradients = random_gradients(net)
    step_in_torch(plain, theirs, gradients)
    step_in_torch(net, torch_ours, gradients)  # torch begins
    flat = FlatParameters(list(net.parameters()))
    ours = flat_optimizer(torch_ours, flat)
    for _ in range(20):
        gradients = random_gradients(net)
        step_in_torch(plain, theirs, gradients)
        step_flat(flat, ours, gradients)
    assert difference(net, plain) < 1e-6

    saved = io.BytesIO()
    torch.save(torch_ours.state_dict(), saved)
    saved.seek(0)
    continued = copy.deepcopy(plain)
    continued.load_state_dict(net.state_dict())
    optimizer = MAKERS[kind](continued.parameters())
    optimizer.load_state_dict(torch.load(saved, weights_only=True))
    gradients = random_gradients(net)
    step_in_torch(plain, theirs, gradients)
    step_in_torch(continued, optimizer, gradients)  # torch goes on
    assert difference(continued, plain) < 1e-6


def test_the_saved_state_has_torchs_names_types_and_sizes() -> None:
    states = []
    for is_flat in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(net.parameters())
        gradients = random_gradients(net)
        if is_flat:
            flat = FlatParameters(list(net.parameters()))
            step_flat(flat, flat_optimizer(optimizer, flat), gradients)
        else:
            step_in_torch(net, optimizer, gradients)
        states.append(optimizer.state_dict())
    plain, ours = states
    assert plain["param_groups"] == ours["param_groups"]
    for index, entries in plain["state"].items():
        for name, tensor in entries.items():
            mine = ours["state"][index][name]
            assert (mine.dtype, mine.shape) == (tensor.dtype, tensor.shape)
            assert mine.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
            assert torch.allclose(mine, tensor)


def test_binding_again_takes_over_what_was_loaded() -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    flat = FlatParameters(list(net.parameters()))
    ours = flat_optimizer(optimizer, flat)
    step_flat(flat, ours, random_gradients(net))
    state = copy.deepcopy(optimizer.state_dict())
    step_flat(flat, ours, random_gradients(net))
    optimizer.load_state_dict(state)
    assert not ours.is_bound()
    ours.bind()
    assert ours.is_bound()
    for index, entries in state["state"].items():
        for name, tensor in entries.items():
            assert torch.equal(optimizer.state_dict()["state"][index][name], tensor)


def test_parameters_are_views_until_they_get_other_data() -> None:
    net = nn.Linear(3, 2)
    weights = net.weight.detach().clone()
    flat = FlatParameters(list(net.parameters()))
    assert torch.equal(net.weight, weights)
    flat.values += 1
    assert torch.equal(net.weight, weights + 1)
    net.load_state_dict({"weight": weights, "bias": torch.zeros(2)})
    assert flat.is_bound()
    assert np.array_equal(flat.view(net.weight)[0], weights.numpy())
    net.weight.data = weights + 2
    assert not flat.is_bound()
    flat.bind()
    assert flat.is_bound()
    assert np.array_equal(flat.view(net.weight)[0], weights.numpy() + 2)


@pytest.mark.parametrize("scale", [0.01, 100.0, float("nan")])
def test_gradients_are_clipped_as_torch_clips_them(scale: float) -> None:
    net = nn.Linear(30, 20)
    gradients = [g * scale for g in random_gradients(net)]
    vector = torch.cat([g.flatten() for g in gradients]).numpy()
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    assert clip_gradient_norm(vector, 0.5) == pytest.approx(float(norm), rel=1e-6, nan_ok=True)
    clipped = torch.cat([p.grad.flatten() for p in net.parameters()]).numpy()
    np.testing.assert_allclose(vector, clipped, rtol=1e-6)


def test_what_has_no_flat_form_has_a_reason() -> None:
    net = nn.Linear(3, 2)
    assert "SGD" in why_not(torch.optim.SGD(net.parameters()))
    assert "amsgrad" in why_not(torch.optim.Adam(net.parameters(), amsgrad=True))
    groups = [{"params": [net.weight]}, {"params": [net.bias]}]
    assert "groups" in why_not(torch.optim.Adam(groups))
    assert why_not(torch.optim.Adam(net.parameters())) == ""


def test_every_parameter_lies_where_torch_would_put_it() -> None:
    flat = FlatParameters(list(nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).parameters()))
    assert [parameter.data_ptr() % 64 for parameter in flat.parameters] == [0, 0, 0, 0]
