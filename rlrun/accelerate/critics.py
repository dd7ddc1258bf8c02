"""Several critics of states and actions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import nn

from rlrun.accelerate.flat import Array, FlatParameters
from rlrun.accelerate.mlp import Mlp


class Critics:
    """Networks that take a state and an action; each returns the same number of values.

    :param networks: in the order of the critics
    :param flat: holds their parameters
    """

    def __init__(self, networks: Sequence[nn.Module], flat: FlatParameters) -> None:
        self._nets = [Mlp(network, flat) for network in networks]
        self._n_actions = 0

    def forward(self, observations: Array, actions: Array, first_only: bool = False) -> Array:
        """Values, (batch, critics, out).

        :param observations: (batch, features)
        :param actions: (batch, actions)
        :param first_only: ask only the first critic
        """
        self._n_actions = actions.shape[1]
        inputs = np.concatenate([observations, actions], axis=1)
        nets = self._nets[:1] if first_only else self._nets
        return np.stack([net.forward(inputs) for net in nets], axis=1)

    def backward(self, gradient: Array) -> None:
        """Write the gradients of the parameters.

        :param gradient: of a loss by the values, (batch, critics, out)
        """
        for index, net in enumerate(self._nets):
            net.backward(np.ascontiguousarray(gradient[:, index]))

    def by_actions(self, gradient: Array) -> Array:
        """The gradient by the actions, (batch, actions), without those of the parameters.

        :param gradient: of a loss by the values, (batch, critics or 1, out)
        """
        parts = []
        for index in range(gradient.shape[1]):
            by_outputs = np.ascontiguousarray(gradient[:, index])
            by_inputs = cast(Array, self._nets[index].backward(by_outputs, parameters=False, inputs=True))
            parts.append(by_inputs[:, -self._n_actions :])
        return np.add.reduce(parts)


def squared_errors(values: Array, targets: Array) -> tuple[float, Array]:
    """The mean squared error of each critic, summed over the critics.

    :param values: (batch, critics, 1)
    :param targets: (batch,)
    :return: the loss, and its gradient by the values
    """
    errors = values - targets[:, None, None]
    loss = float(np.dot(errors.ravel(), errors.ravel())) / len(values)
    return loss, errors * np.float32(2 / len(values))
