"""SB3's NatureCNN on the CPU: channels last, the order in which oneDNN computes, Adam in one pass over memory, and on
request bfloat16.

Networks of other people's keep their order: `view` of what a convolution returns is an error in another one.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer, DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn

from rlrun.accelerate.frames import FrameBuffer

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def speed_up(model: BaseAlgorithm, *, bfloat16: bool = False) -> None:
    """Rearrange a model's NatureCNNs in place; names and shapes of its parameters, and what is saved, stay.

    :param bfloat16: let them compute in it; what comes out, parameters and gradients are float32
    """
    extractors = extractors_of(model.policy)
    if not extractors:
        return
    for extractor in extractors:
        for part in extractor.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
            elif isinstance(part, nn.ReLU):
                part.inplace = True
            elif type(part) is nn.Linear and not bfloat16 and _has_products():
                part.__class__ = _Linear
        extractor.__class__ = _InBfloat16 if bfloat16 else ChannelsLast
    for module in model.policy.modules():
        optimizer = getattr(module, "optimizer", None)
        if type(optimizer) is torch.optim.Adam and OnePassAdam.can_step_for(optimizer):
            OnePassAdam.take_over(optimizer)
    rollouts: Any = getattr(model, "rollout_buffer", None)
    if type(rollouts) in _BUFFERS:
        rollouts.__class__ = _BUFFERS[type(rollouts)]
    replay = getattr(model, "replay_buffer", None)
    if isinstance(replay, FrameBuffer):
        replay.channels_last = True
    _keep_memory()


def extractors_of(module: nn.Module) -> list[nn.Module]:
    """The networks that can be made faster, or have been: those of images, on the CPU."""
    kinds = (NatureCNN, ChannelsLast, _InBfloat16)
    found = [part for part in module.modules() if type(part) in kinds]
    return [part for part in found if next(part.parameters()).device.type == "cpu"]


class ChannelsLast(NatureCNN):
    """NatureCNN whose weights have their channels last."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """See NatureCNN."""
        return super().forward(observations.contiguous(memory_format=torch.channels_last))


class _InBfloat16(ChannelsLast):
    """The same, computed with 8 bits of precision."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """See NatureCNN."""
        with torch.autocast("cpu", torch.bfloat16):
            features = super().forward(observations)
        return features.float()


class _Linear(nn.Linear):
    """Linear by oneDNN, which has kernels for every processor; MKL, which torch asks, has slow ones for AMD's."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """See Linear."""
        product: torch.Tensor = _Product.apply(rows, self.weight, self.bias)
        return product


class _Product(torch.autograd.Function):
    """rows @ weight.T + bias."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, weight = ctx.saved_tensors
        (gradient,) = gradients
        return _product(gradient, weight.t()), _product(gradient.t(), rows.t()), gradient.sum(0)


@cache
def _has_products() -> bool:
    """Whether this build of torch has oneDNN, and its operator is what it was."""
    try:
        return _product(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)).tolist() == [[4.0] * 4] * 2
    except Exception:  # the operator is torch's own affair
        return False


def _product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def _images_in_order(self: BaseBuffer, array: np.ndarray, copy: bool = True) -> torch.Tensor:
    """See BaseBuffer.to_torch: images get their order while a number of theirs is a byte and not yet four.

    What is sampled is a copy already.
    """
    tensor = BaseBuffer.to_torch(self, array, copy=False)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


class _Rollouts(RolloutBuffer):
    to_torch = _images_in_order


class _DictRollouts(DictRolloutBuffer):
    to_torch = _images_in_order


_BUFFERS: dict[type, type] = {RolloutBuffer: _Rollouts, DictRolloutBuffer: _DictRollouts}


class OnePassAdam(torch.optim.Adam):
    """Adam by torch's fused kernel; its saved state says nothing of it.

    The kernel goes through memory from one end to the other, so a parameter, its gradient and its moments must lie in
    the same order.
    """

    # Without the wrapper that imports torch's compiler, which takes a second.
    _plain_step: Callable[..., None] = staticmethod(inspect.unwrap(torch.optim.Adam.step))

    @staticmethod
    def can_step_for(optimizer: torch.optim.Adam) -> bool:
        """Whether the user left the choice of the kernel to torch."""
        return all(group["fused"] is None and group["foreach"] is None for group in optimizer.param_groups)

    @classmethod
    def take_over(cls, optimizer: torch.optim.Adam) -> None:
        """Make one of an Adam, or bring its state in order."""
        optimizer.__class__ = cls
        for group in optimizer.param_groups:
            group["fused"] = True
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    state[name] = _in_the_order_of(parameter, value)

    def step(self, closure: Any = None) -> Any:
        """See Adam."""
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if parameter.grad is not None:
                parameter.grad = _in_the_order_of(parameter, parameter.grad)
        if closure is not None or self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks:
            return super().step(closure)
        with torch.no_grad():
            return self._plain_step(self)

    step.hooked = True  # type: ignore[attr-defined]  # torch need not wrap it: it calls hooks by Adam's own

    def state_dict(self) -> dict[str, Any]:
        """See Optimizer."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group["fused"] = None
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See Optimizer."""
        super().load_state_dict(state_dict)
        self.take_over(self)


def _in_the_order_of(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _keep_memory() -> None:
    """Let glibc keep what a batch of images takes, instead of giving it back and asking for it at every update."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        adjust = ctypes.CDLL(None).mallopt
        adjust(_M_MMAP_THRESHOLD, 32 * 2**20)  # its largest
        adjust(_M_TRIM_THRESHOLD, 256 * 2**20)
