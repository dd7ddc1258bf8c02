"""Networks with convolutions on the CPU: channels last, the order in which oneDNN computes, Adam in one pass over
memory, and on request bfloat16.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


def speed_up(policy: nn.Module, *, bfloat16: bool = False) -> None:
    """Rearrange a policy's convolutions in place; the names and shapes of its parameters, and what is saved, stay.

    :param bfloat16: let features extractors compute in it; what comes out, parameters and gradients are float32
    """
    for convolution in convolutions_of(policy):
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        convolution.register_forward_pre_hook(_channels_last)
    for module in policy.modules() if convolutions_of(policy) else ():
        if type(getattr(module, "optimizer", None)) is torch.optim.Adam:
            _step_in_one_pass(module.optimizer)
    for module in policy.modules() if bfloat16 else ():
        if isinstance(module, BaseFeaturesExtractor) and convolutions_of(module):
            _compute_in_bfloat16(module)


def convolutions_of(module: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that can be made faster: those of images, on the CPU."""
    found = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    return [part for part in found if part.weight.device.type == "cpu"]


def _channels_last(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    if not inputs or inputs[0].dim() != 4:
        return inputs
    return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])


def _compute_in_bfloat16(extractor: Any) -> None:
    extractor.forward = types.MethodType(_forward_in_bfloat16, extractor)


def _forward_in_bfloat16(extractor: Any, observations: Any) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        features: torch.Tensor = type(extractor).forward(extractor, observations)
    return features.float()


def _step_in_one_pass(optimizer: torch.optim.Optimizer) -> None:
    """Let Adam use torch's fused kernel; its saved state says nothing of it.

    The kernel goes through memory from one end to the other, so a parameter, its gradient and its moments must lie in
    the same order.
    """

    def fuse(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            group["fused"] = True
        for parameter, state in optimizer.state.items():
            state |= {name: _in_the_order_of(parameter, state[name]) for name in ("exp_avg", "exp_avg_sq")}

    def order(optimizer: Any, *_: Any) -> None:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if parameter.grad is not None:
                parameter.grad = _in_the_order_of(parameter, parameter.grad)

    def unfused(_: Any, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            group["fused"] = None

    fuse(optimizer)
    optimizer.register_load_state_dict_post_hook(fuse)
    optimizer.register_step_pre_hook(order)
    optimizer.register_state_dict_post_hook(unfused)


def _in_the_order_of(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)
