"""Networks with convolutions on the CPU: channels last, the order in which oneDNN computes, Adam in one pass over
memory, and on request bfloat16.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import types
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def speed_up(model: BaseAlgorithm, *, bfloat16: bool = False) -> None:
    """Rearrange a model's convolutions in place; names and shapes of its parameters, and what is saved, stay.

    :param bfloat16: let features extractors compute in it; what comes out, parameters and gradients are float32
    """
    if not convolutions_of(model.policy):
        return
    for convolution in convolutions_of(model.policy):
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        convolution.register_forward_pre_hook(_channels_last)
    for module in model.policy.modules():
        if type(getattr(module, "optimizer", None)) is torch.optim.Adam:
            _step_in_one_pass(module.optimizer)
        if bfloat16 and isinstance(module, BaseFeaturesExtractor) and convolutions_of(module):
            module.forward = types.MethodType(_forward_in_bfloat16, module)
    for name in ("rollout_buffer", "replay_buffer"):
        buffer: Any = getattr(model, name, None)
        if buffer is not None:
            buffer.to_torch = types.MethodType(_batch_with_channels_last, buffer)
    _keep_memory()


def convolutions_of(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that can be made faster: those of images, on the CPU."""
    found = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    return [part for part in found if part.weight.device.type == "cpu"]


def _channels_last(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if not inputs or inputs[0].dim() != 4:
        return inputs
    return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])


def _forward_in_bfloat16(extractor: Any, observations: Any) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        features: torch.Tensor = type(extractor).forward(extractor, observations)
    return features.float()


def _batch_with_channels_last(buffer: BaseBuffer, array: np.ndarray, copy: bool = True) -> torch.Tensor:
    """See BaseBuffer.to_torch: images are put in order while a number of theirs is a byte and not yet four."""
    tensor = BaseBuffer.to_torch(buffer, array, copy=False)  # what is sampled is a copy already
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _step_in_one_pass(optimizer: Any) -> None:
    """Let Adam use torch's fused kernel; its saved state says nothing of it.

    The kernel goes through memory from one end to the other, so a parameter, its gradient and its moments must lie in
    the same order.
    """
    # Without the wrapper that imports torch's compiler, which takes a second.
    step = inspect.unwrap(type(optimizer).step)

    def fuse(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            group["fused"] = True
        for parameter, state in optimizer.state.items():
            state |= {name: _in_the_order_of(parameter, state[name]) for name in ("exp_avg", "exp_avg_sq")}

    @torch.no_grad()
    def step_in_order(optimizer: Any) -> None:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if parameter.grad is not None:
                parameter.grad = _in_the_order_of(parameter, parameter.grad)
        step(optimizer)

    def unfused(_: Any, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            group["fused"] = None

    fuse(optimizer)
    optimizer.step = types.MethodType(step_in_order, optimizer)
    optimizer.register_load_state_dict_post_hook(fuse)
    optimizer.register_state_dict_post_hook(unfused)


def _in_the_order_of(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _keep_memory() -> None:
    """Let glibc keep what a batch of images takes, instead of giving it back and asking for it at every update."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        adjust = ctypes.CDLL(None).mallopt
        adjust(_M_MMAP_THRESHOLD, 32 * 2**20)  # its largest
        adjust(_M_TRIM_THRESHOLD, 512 * 2**20)
