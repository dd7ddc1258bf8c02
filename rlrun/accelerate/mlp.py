"""An ``nn.Sequential`` of linear layers and activations: forward, and backward by the chain rule, in NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from rlrun.accelerate.flat import Array, FlatParameters


class Activation:
    """An elementwise function, and its derivative in terms of what it returned."""

    keeps = False  # whether the derivative needs more than the output

    def forward(self, y: Array, kept: Array) -> None:
        """Replace ``y`` by the function's value; what ``backward`` needs besides goes to ``kept``, zeros at first."""

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        """Multiply ``gradient`` by the derivative at the point that gave ``y``; ``kept`` may be overwritten."""


class Tanh(Activation):
    """1 - y²"""

    def forward(self, y: Array, kept: Array) -> None:
        np.tanh(y, out=y)

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        np.multiply(y, y, out=kept)
        np.subtract(1, kept, out=kept)
        np.multiply(gradient, kept, out=gradient)


class ReLU(Activation):
    """1 where y > 0, else 0"""

    def forward(self, y: Array, kept: Array) -> None:
        np.maximum(y, kept, out=y)  # zeros, as they were made: with the number 0 NumPy takes seven times as long

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        np.multiply(gradient, y > 0, out=gradient)


class LeakyReLU(Activation):
    """1 where y > 0, else the slope"""

    slope = 0.01

    def forward(self, y: Array, kept: Array) -> None:
        np.multiply(y, self.slope, out=kept)
        np.maximum(y, kept, out=y)

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        np.multiply(y > 0, np.float32(1 - self.slope), out=kept)
        np.add(kept, np.float32(self.slope), out=kept)
        np.multiply(gradient, kept, out=gradient)


class ELU(Activation):
    """1 where y > 0, else y + 1 (alpha is 1)"""

    def forward(self, y: Array, kept: Array) -> None:
        np.minimum(y, 0, out=kept)
        np.expm1(kept, out=kept)
        np.maximum(y, 0, out=y)
        np.add(y, kept, out=y)

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        np.minimum(y, 0, out=kept)
        np.add(kept, 1, out=kept)
        np.multiply(gradient, kept, out=gradient)


class Sigmoid(Activation):
    """y (1 - y)"""

    def forward(self, y: Array, kept: Array) -> None:
        _sigmoid(y, out=y)

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        np.subtract(1, y, out=kept)
        np.multiply(kept, y, out=kept)
        np.multiply(gradient, kept, out=gradient)


class SiLU(Activation):
    """s + y (1 - s), where s is the sigmoid of the input"""

    keeps = True

    def forward(self, y: Array, kept: Array) -> None:
        _sigmoid(y, out=kept)
        np.multiply(y, kept, out=y)

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        scratch = 1 - kept
        np.multiply(scratch, y, out=scratch)
        np.add(scratch, kept, out=scratch)
        np.multiply(gradient, scratch, out=gradient)


class GELU(Activation):
    """P(z) + z p(z), where p and P are the standard normal density and distribution function"""

    keeps = True

    def forward(self, y: Array, kept: Array) -> None:
        kept[...] = y
        np.multiply(y, _normal_distribution(y), out=y)

    def backward(self, gradient: Array, y: Array, kept: Array) -> None:
        density = np.multiply(kept, kept)
        np.multiply(density, -0.5, out=density)
        np.exp(density, out=density)
        np.multiply(density, np.float32(1 / np.sqrt(2 * np.pi)), out=density)
        np.multiply(density, kept, out=density)
        np.add(density, _normal_distribution(kept), out=density)
        np.multiply(gradient, density, out=gradient)


def _sigmoid(z: Array, out: Array) -> None:
    np.maximum(z, -88, out=out)  # exp(88) is still finite
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.reciprocal(out, out=out)


def _normal_distribution(z: Array) -> Array:
    scaled = torch.from_numpy(np.multiply(z, np.float32(1 / np.sqrt(2))))  # NumPy has no error function
    return torch.erf_(scaled).add_(1).mul_(0.5).numpy()


_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: Tanh(),
    nn.ReLU: ReLU(),
    nn.LeakyReLU: LeakyReLU(),
    nn.ELU: ELU(),
    nn.Sigmoid: Sigmoid(),
    nn.SiLU: SiLU(),
    nn.GELU: GELU(),
}


def why_not(module: nn.Module) -> str:
    """Why a network cannot be computed here; empty when it can."""
    after_linear = False
    for layer in _layers(module):
        if type(layer) is nn.Linear:
            if layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu":
                return "its parameters are not float32 on the CPU"
            after_linear = True
        elif type(layer) in _ACTIVATIONS and after_linear:
            if repr(layer) != repr(type(layer)()):
                return f"{layer!r} has settings of its own"
            after_linear = False
        else:
            return f"its layer {type(layer).__name__} is none of Linear, {', '.join(c.__name__ for c in _ACTIVATIONS)}"
    return ""


def _layers(module: nn.Module) -> Iterable[nn.Module]:
    """The layers of a Sequential, of Sequentials in it, or of one layer."""
    if type(module) is nn.Sequential:
        for child in module:
            yield from _layers(child)
    elif type(module) not in (nn.Identity, nn.Flatten):
        yield module


@dataclass
class _Stage:
    """A linear layer and the activation after it: y = f(x Wᵀ + b)."""

    weight: Array  # (out, in)
    weight_gradient: Array
    bias: Array | None  # (out,)
    bias_gradient: Array | None
    activation: Activation | None = None
    transposed: Array = field(init=False)  # (in, out), a view

    def __post_init__(self) -> None:
        self.transposed = self.weight.T


class Tape:
    """What a forward pass over one batch leaves for the backward pass.

    :ivar inputs: (batch, in) of the last forward pass
    :ivar outputs: of each stage, (batch, out)
    """

    def __init__(self, batch: int, stages: list[_Stage]) -> None:
        widths = [stage.weight.shape[0] for stage in stages]
        self.inputs = np.empty((batch, 0), dtype=np.float32)
        self.outputs = [np.empty((batch, width), dtype=np.float32) for width in widths]
        self.kept = [np.zeros((batch, width), dtype=np.float32) for width in widths]
        self.gradients = [np.empty((batch, stage.weight.shape[1]), dtype=np.float32) for stage in stages]
        self.ones = np.ones(batch, dtype=np.float32)


class Mlp:
    """Linear layers and activations, whose parameters lie in a flat vector.

    :param module: a network that :func:`why_not` has nothing against
    :param flat: holds its parameters
    """

    def __init__(self, module: nn.Module, flat: FlatParameters) -> None:
        self._stages: list[_Stage] = []
        self._tapes: dict[int, Tape] = {}
        for layer in _layers(module):
            if isinstance(layer, nn.Linear):
                weight: Any = layer.weight
                bias: Any = layer.bias
                views = (None, None) if bias is None else flat.view(bias)
                self._stages.append(_Stage(*flat.view(weight), *views))
            else:
                self._stages[-1].activation = _ACTIVATIONS[type(layer)]

    def tape(self, batch: int) -> Tape:
        """New arrays for batches of this size. Needed only where two passes over one size are alive at once."""
        return Tape(batch, self._stages)

    def forward(self, inputs: Array, tape: Tape | None = None) -> Array:
        """The network's output.

        :param inputs: (batch, in); must stay as it is until the backward pass is over
        :param tape: None: this network's own for the batch's size
        :return: (batch, out); overwritten by the next pass on the same tape
        """
        tape = self._own_tape(len(inputs)) if tape is None else tape
        tape.inputs = x = inputs
        for stage, y, kept in zip(self._stages, tape.outputs, tape.kept, strict=True):
            np.dot(x, stage.transposed, out=y)
            if stage.bias is not None:
                np.add(y, stage.bias, out=y)
            if stage.activation is not None:
                stage.activation.forward(y, kept)
            x = y
        return x

    def backward(
        self, gradient: Array, tape: Tape | None = None, *, parameters: bool = True, inputs: bool = False
    ) -> Array | None:
        """Gradients of a loss, after a forward pass.

        :param gradient: of the loss with respect to the output, (batch, out); may be overwritten
        :param tape: of that forward pass; None: this network's own for the batch's size
        :param parameters: write (not add) the parameters' gradients to the flat vector
        :param inputs: also find the gradient with respect to the inputs
        :return: that gradient, (batch, in), overwritten by the next pass on the same tape; None when not asked for
        """
        tape = self._own_tape(len(gradient)) if tape is None else tape
        for index in reversed(range(len(self._stages))):
            stage = self._stages[index]
            if stage.activation is not None:
                stage.activation.backward(gradient, tape.outputs[index], tape.kept[index])
            if parameters:
                x = tape.outputs[index - 1] if index else tape.inputs
                np.dot(gradient.T, x, out=stage.weight_gradient)
                if stage.bias_gradient is not None:
                    np.dot(tape.ones, gradient, out=stage.bias_gradient)
            if index or inputs:
                gradient = np.dot(gradient, stage.weight, out=tape.gradients[index])
        return gradient if inputs else None

    def _own_tape(self, batch: int) -> Tape:
        tape = self._tapes.get(batch)
        if tape is None:
            tape = self._tapes[batch] = Tape(batch, self._stages)
        return tape
