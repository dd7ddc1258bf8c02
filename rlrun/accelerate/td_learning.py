"""DQN's update in PyTorch (Mnih et al. 2015): of images, of dueling networks and with returns of several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional


def train(model: Any, gradient_steps: int, batch_size: int, one_update: Callable[[int], float]) -> None:
    """DQN's ``train``.

    :param one_update: from the size of its batch to the loss before
    """
    model.policy.set_training_mode(True)
    model._update_learning_rate(model.policy.optimizer)
    losses = [one_update(batch_size) for _ in range(gradient_steps)]
    model._n_updates += gradient_steps
    model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
    model.logger.record("train/loss", np.mean(losses))


def update(
    model: Any, batch: Any, *, double_q: bool = False, weights: torch.Tensor | None = None
) -> tuple[float, torch.Tensor]:
    """One step along the gradient of the Huber loss of the temporal-difference errors.

    With the defaults it has the bits of SB3's DQN.

    :param model: a DQN
    :param batch: ReplayBufferSamples
    :param double_q: let the trained network choose the next action and the target only value it (van Hasselt et al.
        2016)
    :param weights: of the transitions, (batch, 1); without them each weighs 1
    :return: the loss before, and the errors, (batch, 1)
    """
    with torch.no_grad():
        following = model.q_net_target(batch.next_observations)
        if double_q:
            best = model.q_net(batch.next_observations).argmax(dim=1, keepdim=True)
            following = following.gather(1, best)
        else:
            following = following.max(dim=1, keepdim=True).values
        discounts = model.gamma if batch.discounts is None else batch.discounts
        targets = batch.rewards + (1 - batch.dones) * discounts * following
    values = model.q_net(batch.observations).gather(1, batch.actions.long())
    if weights is None:
        loss = functional.smooth_l1_loss(values, targets)
    else:
        loss = (weights * functional.smooth_l1_loss(values, targets, reduction="none")).mean()
    model.policy.optimizer.zero_grad()
    loss.backward()
    clip_gradients(model.policy.parameters(), model.max_grad_norm)
    model.policy.optimizer.step()
    return loss.item(), values.detach() - targets


def clip_gradients(parameters: Any, max_norm: float | None) -> None:
    """``clip_grad_norm_``, which multiplies every gradient by 1 where there is nothing to clip; this does not."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if max_norm is None or not gradients:
        return
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:  # nan, too
        torch._foreach_mul_(gradients, torch.clamp(factor, max=1.0))
