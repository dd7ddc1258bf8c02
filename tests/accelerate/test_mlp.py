"""Forward and backward passes equal torch's."""

import numpy as np
import pytest
import torch
from torch import nn

from rlrun.accelerate.flat import FlatParameters
from rlrun.accelerate.mlp import Mlp, why_not

pytestmark = pytest.mark.usefixtures("one_thread")

ACTIVATIONS = [nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.SiLU, nn.GELU]


def network(activation: type[nn.Module], last: type[nn.Module] | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(5, 32), activation(), nn.Linear(32, 16), activation(), nn.Linear(16, 3)]
    return nn.Sequential(*layers, *([last()] if last else []))


def relative(ours: np.ndarray, torchs: torch.Tensor) -> float:
    theirs = torchs.detach().numpy()
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("batch", [1, 8, 200])
@pytest.mark.parametrize("last", [None, nn.Tanh])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_and_gradients_are_torchs(
    activation: type[nn.Module], last: type[nn.Module] | None, batch: int
) -> None:
    net = network(activation, last)
    inputs = (torch.randn(batch, 5) * 3).requires_grad_()
    outputs = net(inputs)
    loss_gradient = torch.randn_like(outputs)
    outputs.backward(loss_gradient)
    flat = FlatParameters(list(net.parameters()))
    mlp = Mlp(net, flat)
    ours = mlp.forward(inputs.detach().numpy())
    assert relative(ours, outputs) < 1e-6
    input_gradient = mlp.backward(loss_gradient.numpy().copy(), inputs=True)
    assert input_gradient is not None
    assert relative(input_gradient, inputs.grad) < 2e-6
    for parameter in net.parameters():
        assert relative(flat.view(parameter)[1], parameter.grad) < 2e-6


def test_gradients_of_inputs_alone_leave_those_of_parameters() -> None:
    net = network(nn.ReLU)
    flat = FlatParameters(list(net.parameters()))
    mlp = Mlp(net, flat)
    outputs = mlp.forward(np.ones((4, 5), dtype=np.float32))
    assert mlp.backward(np.ones_like(outputs), parameters=False, inputs=True).shape == (4, 5)
    assert not flat.gradients.any()


def test_two_tapes_keep_two_passes_apart() -> None:
    net = network(nn.Tanh)
    mlp = Mlp(net, FlatParameters(list(net.parameters())))
    one, other = mlp.tape(4), mlp.tape(4)
    first = mlp.forward(np.ones((4, 5), dtype=np.float32), one)
    before = first.copy()
    mlp.forward(np.zeros((4, 5), dtype=np.float32), other)
    assert np.array_equal(first, before)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Softplus()), "Softplus"),
        (nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.3)), "settings of its own"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout()), "Dropout"),
        (nn.Linear(2, 2).double(), "float32"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()), nn.Identity()), ""),
        (nn.Sequential(), ""),
    ],
)
def test_what_it_cannot_compute_has_a_reason(module: nn.Module, reason: str) -> None:
    assert reason in why_not(module)
    assert bool(reason) == bool(why_not(module))
