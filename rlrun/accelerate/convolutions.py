"""Convolutions on the CPU with channels last, the order in which oneDNN computes, and on request in bfloat16."""

from __future__ import annotations

import types
from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


def speed_up(policy: nn.Module, *, bfloat16: bool = False) -> None:
    """Rearrange a policy's convolutions in place; the names and shapes of its parameters stay.

    :param bfloat16: let features extractors compute in it; what comes out, parameters and gradients are float32
    """
    for convolution in convolutions_of(policy):
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        convolution.register_forward_pre_hook(_channels_last)
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
