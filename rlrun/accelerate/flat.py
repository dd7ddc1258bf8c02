"""All parameters of a network in one vector, which the torch parameters are views of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

Array = np.ndarray  # of float32, unless a docstring says otherwise


class FlatParameters:
    """One contiguous vector of values and one of gradients, both in the order of the parameters.

    Building it binds the parameters: their ``data`` become views of :attr:`values`, so that whatever changes the one
    changes the other. Loading in place keeps them bound; what gives a parameter new ``data`` (moving it to another
    device, say) does not, and :meth:`bind` then takes over the values of that moment.

    Each parameter begins at a multiple of 64 bytes, as torch's own tensors do: a matrix product of torch's rounds
    differently elsewhere, and the loaded model should act as it did here. The gaps in between stay zero.

    :param parameters: float32, on the CPU; one that occurs twice is laid down once
    :ivar values: (n,), gaps included
    :ivar gradients: (n,); zero until written to. ``grad`` of the torch parameters is left alone
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = tuple(dict.fromkeys(parameters))
        self.values = aligned_zeros(sum(_room(parameter) for parameter in self.parameters))
        self.gradients = aligned_zeros(len(self.values))
        self._values = split(self.values, self.parameters)
        self._gradients = split(self.gradients, self.parameters)
        self._addresses = [values.ctypes.data for values in self._values]
        self._index = {parameter: index for index, parameter in enumerate(self.parameters)}
        self.bind()

    def bind(self) -> None:
        """Make the parameters views of the vector, with the values that they have now."""
        for parameter, values, address in zip(self.parameters, self._values, self._addresses, strict=True):
            if parameter.data_ptr() != address:
                values[...] = parameter.detach().numpy()
                parameter.data = torch.from_numpy(values)

    def is_bound(self) -> bool:
        """Whether every parameter still is a view of the vector."""
        return [parameter.data_ptr() for parameter in self.parameters] == self._addresses

    def view(self, parameter: torch.nn.Parameter) -> tuple[Array, Array]:
        """A parameter's part of the vectors, in its shape: values and gradients."""
        index = self._index[parameter]
        return self._values[index], self._gradients[index]


_UNIT = 16  # floats in 64 bytes


def _room(parameter: torch.nn.Parameter) -> int:
    return -(-parameter.numel() // _UNIT) * _UNIT


def aligned_zeros(size: int) -> Array:
    """A vector of zeros that begins at a multiple of 64 bytes."""
    block = np.zeros(size + _UNIT, dtype=np.float32)
    start = -block.ctypes.data % (_UNIT * block.itemsize) // block.itemsize
    return block[start : start + size]


def split(vector: Array, parameters: Sequence[torch.nn.Parameter]) -> list[Array]:
    """A vector's views in the shapes of the parameters, one after the other, each at a multiple of 64 bytes."""
    ends = np.cumsum([_room(parameter) for parameter in parameters])
    parts = np.split(vector, ends[:-1])
    return [
        part[: parameter.numel()].reshape(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)
    ]
