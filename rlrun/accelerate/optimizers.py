"""torch's optimisers on one vector, instead of on one tensor after the other.

The torch optimiser stays: its learning rate is read at every step, and the tensors in its ``state`` are views of the
vectors here, so ``optimizer.state_dict()`` is what torch would have saved, and torch goes on from it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

from rlrun.accelerate.flat import Array, FlatParameters, aligned_zeros, split

# One call for all of Adam's sums, without and with decoupled weight decay. Not public, so it may be absent.
_FUSED: Any = (
    (torch._fused_adam_, torch._fused_adamw_)
    if hasattr(torch, "_fused_adam_") and hasattr(torch, "_fused_adamw_")
    else None
)


class FlatOptimizer:
    """An optimiser that works in place on flat parameters.

    :param optimizer: whose settings and state are used; one group with the parameters of ``flat``
    """

    moments: tuple[str, ...]  # names of the state that has a parameter's shape
    initial_moment = 0.0
    counts_in_tensors = True  # whether state["step"] is a tensor, or an int

    def __init__(self, optimizer: torch.optim.Optimizer, flat: FlatParameters) -> None:
        self.optimizer, self.flat = optimizer, flat
        self._vectors = {name: aligned_zeros(len(flat.values)) for name in self.moments}
        self._views = {name: split(vector, flat.parameters) for name, vector in self._vectors.items()}
        self._addresses = [view.ctypes.data for view in self._views[self.moments[0]]]
        self._counts = np.zeros(len(flat.parameters), dtype=np.float32)
        self._scratch = aligned_zeros(len(flat.values))
        self.bind()

    def bind(self) -> None:
        """Make the optimiser's state views of the vectors, with the values that it has now."""
        for index, parameter in enumerate(self.flat.parameters):
            state = self.optimizer.state[parameter]
            count = float(state.get("step", 0))
            self._counts[index] = count
            step = torch.from_numpy(self._counts[index : index + 1]).reshape(())
            state["step"] = step if self.counts_in_tensors else int(count)
            for name in self.moments:
                values = self._views[name][index]
                values[...] = state[name].numpy() if name in state else self.initial_moment
                state[name] = torch.from_numpy(values)

    def is_bound(self) -> bool:
        """Whether the optimiser's state still is a view of the vectors; loading a state ends that."""
        name, state = self.moments[0], self.optimizer.state
        tensors = [state[parameter].get(name) for parameter in self.flat.parameters]
        return [None if tensor is None else tensor.data_ptr() for tensor in tensors] == self._addresses

    def step(self) -> None:
        """One step along the gradients of the flat parameters, which it may overwrite."""
        group = self.optimizer.param_groups[0]
        self._counts += 1
        if not self.counts_in_tensors:
            for parameter in self.flat.parameters:
                self.optimizer.state[parameter]["step"] += 1
        self._update(group)

    def _update(self, group: dict[str, Any]) -> None:
        raise NotImplementedError


class FlatAdam(FlatOptimizer):
    """``torch.optim.Adam`` and ``AdamW`` (Kingma and Ba 2015; Loshchilov and Hutter 2019), in torch's arithmetic."""

    moments = ("exp_avg", "exp_avg_sq")

    def __init__(self, optimizer: torch.optim.Optimizer, flat: FlatParameters) -> None:
        super().__init__(optimizer, flat)
        vectors = (flat.values, flat.gradients, *self._vectors.values())
        self._tensors = [[torch.from_numpy(vector)] for vector in vectors]
        self._count = [torch.zeros(())]

    def _update(self, group: dict[str, Any]) -> None:
        """By torch's one pass over all vectors, which is what ``Adam(fused=True)`` calls."""
        if _FUSED is None:
            self._update_in_steps(group)
            return
        values, gradients, mean, square = self._tensors
        self._count[0].fill_(float(self._counts[0]))
        beta1, beta2 = group["betas"]
        step = _FUSED[bool(group.get("decoupled_weight_decay"))]
        step(
            values,
            gradients,
            mean,
            square,
            [],
            self._count,
            lr=float(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _update_in_steps(self, group: dict[str, Any]) -> None:
        """The same in NumPy, for a torch without that function."""
        values, gradients, scratch = self.flat.values, self.flat.gradients, self._scratch
        mean, square = self._vectors["exp_avg"], self._vectors["exp_avg_sq"]
        rate, (beta1, beta2) = float(group["lr"]), group["betas"]
        count = float(self._counts[0])
        if group["weight_decay"]:
            _decay(group, rate, values, gradients, scratch)
        np.subtract(gradients, mean, out=scratch)
        np.multiply(scratch, 1 - beta1, out=scratch)
        np.add(mean, scratch, out=mean)
        np.multiply(gradients, gradients, out=scratch)
        np.multiply(scratch, 1 - beta2, out=scratch)
        np.multiply(square, beta2, out=square)
        np.add(square, scratch, out=square)
        np.sqrt(square, out=scratch)
        np.divide(scratch, math.sqrt(1 - beta2**count), out=scratch)
        np.add(scratch, group["eps"], out=scratch)
        np.divide(mean, scratch, out=scratch)
        np.multiply(scratch, rate / (1 - beta1**count), out=scratch)
        np.subtract(values, scratch, out=values)


class FlatRMSprop(FlatOptimizer):
    """``torch.optim.RMSprop``, which adds epsilon to the root."""

    moments = ("square_avg",)

    def _update(self, group: dict[str, Any]) -> None:
        values, gradients, scratch = self.flat.values, self.flat.gradients, self._scratch
        square, alpha = self._vectors["square_avg"], group["alpha"]
        if group["weight_decay"]:
            _decay(group, 0.0, values, gradients, scratch)
        np.multiply(gradients, gradients, out=scratch)
        np.multiply(scratch, 1 - alpha, out=scratch)
        np.multiply(square, alpha, out=square)
        np.add(square, scratch, out=square)
        self._root(group["eps"], square, scratch)
        np.divide(gradients, scratch, out=scratch)
        np.multiply(scratch, float(group["lr"]), out=scratch)
        np.subtract(values, scratch, out=values)

    def _root(self, epsilon: float, square: Array, out: Array) -> None:
        np.sqrt(square, out=out)
        np.add(out, epsilon, out=out)


class FlatRMSpropTFLike(FlatRMSprop):
    """SB3's RMSpropTFLike: epsilon under the root, and moments that begin at one."""

    initial_moment = 1.0
    counts_in_tensors = False

    def _root(self, epsilon: float, square: Array, out: Array) -> None:
        np.add(square, epsilon, out=out)
        np.sqrt(out, out=out)


def _decay(group: dict[str, Any], rate: float, values: Array, gradients: Array, scratch: Array) -> None:
    """Weight decay: AdamW shrinks the values, the others add to the gradients."""
    if group.get("decoupled_weight_decay"):
        np.multiply(values, 1 - rate * group["weight_decay"], out=values)
    else:
        np.multiply(values, group["weight_decay"], out=scratch)
        np.add(gradients, scratch, out=gradients)


_KNOWN: dict[type, type[FlatOptimizer]] = {
    torch.optim.Adam: FlatAdam,
    torch.optim.AdamW: FlatAdam,
    torch.optim.RMSprop: FlatRMSprop,
    RMSpropTFLike: FlatRMSpropTFLike,
}
_PLAIN = ("amsgrad", "maximize", "centered", "momentum", "differentiable", "capturable", "fused")


def why_not(optimizer: torch.optim.Optimizer) -> str:
    """Why an optimiser has no flat form; empty when it has one."""
    name = type(optimizer).__name__
    if type(optimizer) not in _KNOWN:
        return f"the optimiser {name} is none of {', '.join(cls.__name__ for cls in _KNOWN)}"
    if len(optimizer.param_groups) != 1:
        return "the optimiser has several groups of parameters"
    if not optimizer.param_groups[0]["eps"]:
        return "the optimiser's eps is zero"  # which the gaps between parameters are divided by
    used = [setting for setting in _PLAIN if optimizer.param_groups[0].get(setting)]
    return f"{name} with {', '.join(used)} has no flat form" if used else ""


def flat_optimizer(optimizer: torch.optim.Optimizer, flat: FlatParameters) -> FlatOptimizer:
    """The flat form of an optimiser that :func:`why_not` has nothing against."""
    return _KNOWN[type(optimizer)](optimizer, flat)


def clip_gradient_norm(gradients: Array, max_norm: float) -> float:
    """Scale gradients down to a Euclidean norm of at most ``max_norm``, as ``clip_grad_norm_`` does.

    :param gradients: (n,), changed in place
    :return: the norm before
    """
    norm = math.sqrt(float(np.dot(gradients, gradients)))
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:  # as in torch, a norm of NaN spoils every gradient
        np.multiply(gradients, factor, out=gradients)
    return norm
