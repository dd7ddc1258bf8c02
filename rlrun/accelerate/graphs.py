"""Updates of DQN, SAC and TQC on a GPU, recorded once as a CUDA graph and replayed.

On a GPU an update of a small network is hundreds of kernels of a few microseconds, each of which Python has to launch,
and SB3 waits for the GPU after every loss. A graph is one launch, and losses are read once for each call of ``train``.
What is computed is SB3's update, in PyTorch, without gradients for networks that a step does not train.

On other devices the same functions are called as they are, which is how they are tested. They have not been measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sb3_contrib import TQC
from sb3_contrib.common.utils import quantile_huber_loss
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import polyak_update
from torch.nn import functional

Tensors = dict[str, torch.Tensor]
_WARM_UP = 3  # calls before recording: they choose kernels, and make the states of optimisers


class Recorded:
    """A function of tensors that is recorded at its fourth call with inputs of one shape, and replayed from then on.

    It must do the same with the same memory every time: read its inputs, parameters and states, change those in place.
    """

    def __init__(self, function: Callable[[Tensors], Tensors]) -> None:
        self._function = function
        self._calls: dict[Any, int] = {}
        self._graphs: dict[Any, tuple[Any, Tensors, Tensors]] = {}

    def __call__(self, inputs: Tensors) -> Tensors:
        """Call or replay; what comes back is overwritten by the next call."""
        if next(iter(inputs.values())).device.type != "cuda":
            return self._function(inputs)
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in inputs.items())
        if shapes not in self._graphs:
            self._calls[shapes] = self._calls.get(shapes, 0) + 1
            if self._calls[shapes] <= _WARM_UP:
                return self._aside(inputs)
            self._graphs[shapes] = self._record(inputs)
        graph, memory, outputs = self._graphs[shapes]
        for name, tensor in inputs.items():
            memory[name].copy_(tensor, non_blocking=True)
        graph.replay()
        return outputs

    def _aside(self, inputs: Tensors) -> Tensors:
        """Call it on another stream, as recording wants its first calls to have been."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self._function(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _record(self, inputs: Tensors) -> tuple[Any, Tensors, Tensors]:
        """Nothing is computed while it is recorded."""
        memory = {name: tensor.clone() for name, tensor in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._function(memory)
        return graph, memory, outputs


class GraphedUpdates:
    """Mixin of SB3's DQN, SAC and TQC: ``train`` replays :meth:`update`.

    :ivar acceleration: see rlrun.accelerate.choose.Accelerated
    """

    acceleration = "in CUDA graphs"

    def update(self, batch: Any) -> Tensors:
        """One step along the gradients, but for target networks.

        :param batch: has the fields of SB3's ReplayBufferSamples, ``discounts`` always
        :return: what is logged, by name
        """
        raise NotImplementedError

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All that :meth:`update` uses."""
        raise NotImplementedError

    def follow(self, gradient_step: int) -> None:
        """Let target networks follow."""

    def _setup_model(self) -> None:
        super()._setup_model()  # type: ignore[misc]
        model: Any = self
        self._recorded = Recorded(self._update)
        for optimizer in self.optimizers() if model.device.type == "cuda" else ():
            _make_capturable(optimizer)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_recorded", "acceleration"]  # type: ignore[misc]

    def _update(self, inputs: Tensors) -> Tensors:
        with _unvalidated_distributions():
            return self.update(_batch_of(inputs))

    def _update_learning_rate(self, optimizers: Any) -> None:
        """See BaseAlgorithm; a graph reads the rate from memory."""
        model: Any = self
        rate = float(model.lr_schedule(model._current_progress_remaining))
        model.logger.record("train/learning_rate", rate)
        for group in (group for optimizer in self.optimizers() for group in optimizer.param_groups):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """See OffPolicyAlgorithm."""
        model: Any = self
        model.policy.set_training_mode(True)
        self._update_learning_rate(None)
        totals: Tensors = {}
        for step in range(gradient_steps):
            samples = model.replay_buffer.sample(batch_size, env=model._vec_normalize_env)
            for name, value in self._recorded(_inputs_of(samples, model.gamma)).items():
                totals[name] = totals[name] + value if name in totals else value.clone()
            self.follow(step)
        model._n_updates += gradient_steps
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        for name, total in totals.items():
            model.logger.record(f"train/{name}", np.float32(float(total) / gradient_steps))


class GraphedDQN(GraphedUpdates, DQN):
    """DQN (Mnih et al. 2015)."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """See GraphedUpdates."""
        return [self.policy.optimizer]

    def update(self, batch: Any) -> Tensors:
        """See GraphedUpdates."""
        with torch.no_grad():
            following = self.q_net_target(batch.next_observations).max(dim=1, keepdim=True).values
            targets = batch.rewards + (1 - batch.dones) * batch.discounts * following
        values = self.q_net(batch.observations).gather(1, batch.actions.long())
        loss = functional.smooth_l1_loss(values, targets)
        self.policy.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return {"loss": loss.detach()}


class _GraphedSoft(GraphedUpdates):
    """What SAC and TQC share: they differ in what a critic is."""

    def targets(self, batch: Any, next_actions: torch.Tensor, bonus: torch.Tensor) -> torch.Tensor:
        """What the critics should say.

        :param bonus: for the entropy of the next actions, (batch, 1)
        """
        raise NotImplementedError

    def critic_loss(self, batch: Any, targets: torch.Tensor) -> torch.Tensor:
        """Of the critics' values of the batch."""
        raise NotImplementedError

    def judged(self, batch: Any, actions: torch.Tensor) -> torch.Tensor:
        """The critics' value of actions, (batch, 1)."""
        raise NotImplementedError

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """See GraphedUpdates."""
        model: Any = self
        found = [model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer]
        return [optimizer for optimizer in found if optimizer is not None]

    def update(self, batch: Any) -> Tensors:
        """See GraphedUpdates (Haarnoja et al. 2018)."""
        model: Any = self
        actions, log_prob = model.actor.action_log_prob(batch.observations)
        log_prob = log_prob.reshape(-1, 1)
        logged, coefficient = self._entropy_coefficient(log_prob)
        with torch.no_grad():
            next_actions, next_log_prob = model.actor.action_log_prob(batch.next_observations)
            targets = self.targets(batch, next_actions, -coefficient * next_log_prob.reshape(-1, 1))
        critic_loss = self.critic_loss(batch, targets)
        model.critic.optimizer.zero_grad()
        critic_loss.backward()
        model.critic.optimizer.step()
        actor_loss = (coefficient * log_prob - self.judged(batch, actions)).mean()
        parameters = [p for group in model.actor.optimizer.param_groups for p in group["params"]]
        for parameter, gradient in zip(parameters, torch.autograd.grad(actor_loss, parameters), strict=True):
            parameter.grad = gradient
        model.actor.optimizer.step()
        return {**logged, "actor_loss": actor_loss.detach(), "critic_loss": critic_loss.detach()}

    def _entropy_coefficient(self, log_prob: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        """What is logged, and the coefficient before its own step."""
        model: Any = self
        if model.ent_coef_optimizer is None:
            return {"ent_coef": model.ent_coef_tensor}, model.ent_coef_tensor
        coefficient = model.log_ent_coef.detach().exp()
        loss = -(model.log_ent_coef * (log_prob + model.target_entropy).detach()).mean()
        model.ent_coef_optimizer.zero_grad()
        loss.backward()
        model.ent_coef_optimizer.step()
        return {"ent_coef": coefficient, "ent_coef_loss": loss.detach()}, coefficient

    def follow(self, gradient_step: int) -> None:
        """See GraphedUpdates: Polyak averaging, all parameters at once."""
        model: Any = self
        if gradient_step % model.target_update_interval == 0:
            with torch.no_grad():
                targets, sources = (list(net.parameters()) for net in (model.critic_target, model.critic))
                torch._foreach_mul_(targets, 1 - model.tau)
                torch._foreach_add_(targets, sources, alpha=model.tau)
            polyak_update(model.batch_norm_stats, model.batch_norm_stats_target, 1.0)


class GraphedSAC(_GraphedSoft, SAC):
    """SAC (Haarnoja et al. 2018)."""

    def targets(self, batch: Any, next_actions: torch.Tensor, bonus: torch.Tensor) -> torch.Tensor:
        """See _GraphedSoft: the least of the critics, (batch, 1)."""
        following = torch.cat(self.critic_target(batch.next_observations, next_actions), dim=1)
        return batch.rewards + (1 - batch.dones) * batch.discounts * (following.amin(dim=1, keepdim=True) + bonus)

    def critic_loss(self, batch: Any, targets: torch.Tensor) -> torch.Tensor:
        """See _GraphedSoft."""
        values = self.critic(batch.observations, batch.actions)
        return 0.5 * torch.stack([functional.mse_loss(value, targets) for value in values]).sum()

    def judged(self, batch: Any, actions: torch.Tensor) -> torch.Tensor:
        """See _GraphedSoft."""
        return torch.cat(self.critic(batch.observations, actions), dim=1).min(dim=1, keepdim=True).values


class GraphedTQC(_GraphedSoft, TQC):
    """TQC (Kuznetsov et al. 2020)."""

    def targets(self, batch: Any, next_actions: torch.Tensor, bonus: torch.Tensor) -> torch.Tensor:
        """See _GraphedSoft: the lower quantiles of all critics together, (batch, 1, quantiles)."""
        kept = self.critic.quantiles_total - self.top_quantiles_to_drop_per_net * self.critic.n_critics
        following = self.critic_target(batch.next_observations, next_actions)
        lowest = following.flatten(1).sort().values[:, :kept]
        return (batch.rewards + (1 - batch.dones) * batch.discounts * (lowest + bonus)).unsqueeze(1)

    def critic_loss(self, batch: Any, targets: torch.Tensor) -> torch.Tensor:
        """See _GraphedSoft."""
        quantiles = self.critic(batch.observations, batch.actions)
        return quantile_huber_loss(quantiles, targets, sum_over_quantiles=False)

    def judged(self, batch: Any, actions: torch.Tensor) -> torch.Tensor:
        """See _GraphedSoft."""
        return self.critic(batch.observations, actions).mean(dim=2).mean(dim=1, keepdim=True)


_FORMS: dict[type[BaseAlgorithm], type[BaseAlgorithm]] = {DQN: GraphedDQN, SAC: GraphedSAC, TQC: GraphedTQC}


def graphed(cls: type[BaseAlgorithm], settings: dict[str, Any]) -> type[BaseAlgorithm]:
    """The form of an algorithm's class that replays its updates; the class itself where there is none.

    :param settings: the algorithm's keyword arguments; gSDE draws its noise outside of an update
    """
    return cls if settings.get("use_sde") else _FORMS.get(cls, cls)


def _make_capturable(optimizer: Any) -> None:
    """Let an optimiser keep its step count and learning rate on the GPU; its saved state is as SB3's."""

    def adjust(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
                group["lr"] = torch.as_tensor(float(group["lr"]), device=group["params"][0].device)

    def plain(_: Any, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            if "capturable" in group:
                group["capturable"], group["lr"] = False, float(group["lr"])

    adjust(optimizer)
    optimizer.register_load_state_dict_post_hook(adjust)
    optimizer.register_state_dict_post_hook(plain)


@contextmanager
def _unvalidated_distributions() -> Iterator[None]:
    """Without checks of distributions' parameters, which wait for the GPU."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def _inputs_of(samples: Any, gamma: float) -> Tensors:
    """A batch as plain tensors; the parts of a Dict are ``observations/<key>``."""
    found: Tensors = {}
    for name, value in samples._asdict().items():
        if isinstance(value, dict):
            found |= {f"{name}/{key}": part for key, part in value.items()}
        elif value is not None:
            found[name] = value
    if "discounts" not in found:
        found["discounts"] = torch.full_like(found["rewards"], gamma)
    return found


def _batch_of(inputs: Tensors) -> Any:
    """The other way round."""
    found: dict[str, Any] = {}
    for name, tensor in inputs.items():
        field, slash, key = name.partition("/")
        if slash:
            found.setdefault(field, {})[key] = tensor
        else:
            found[field] = tensor
    return SimpleNamespace(**found)
