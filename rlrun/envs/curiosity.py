"""Curiosity: an intrinsic reward for what the agent cannot predict yet, added to the env's own.

Two kinds, both of which learn from each rollout after it was played:

- ``rnd``, random network distillation (Burda et al. 2018, https://arxiv.org/abs/1810.12894): a network learns what a
  fixed random network makes of the next observation; where it errs, the agent has seldom been.
- ``icm``, the intrinsic curiosity module (Pathak et al. 2017, https://arxiv.org/abs/1705.05363): features that tell
  which action was taken, and a network that predicts the next observation's features from this one's and the action.

Either may be episodic: an observation pays only the first time that its episode sees it, the restriction of Zhang et
al. 2020, https://arxiv.org/abs/2012.08621. It helps most where episodes share little (Henaff et al. 2023,
https://arxiv.org/abs/2306.03236): in rooms that are laid out anew no turn can be predicted, so that turning on the spot
would pay for ever.

While a rollout is played nothing is learnt, and one that is played again is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN, create_mlp
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import nn

from rlrun.config.schema import CuriosityConfig
from rlrun.envs.seeding import Stream, draw_seeds
from rlrun.errors import UsageError
from rlrun.spaces import leaves_of

State = dict[str, np.ndarray]
_FEATURES, _HIDDEN = 64, 128
_CLIP = 5.0  # of normalised observations, as in the paper on RND, and of normalised intrinsic rewards
_SMALLEST_IMAGE = 36  # that NatureCNN takes
_MEMORY = 40_000  # timesteps after which a third of an average of squares is left
_MEMORY_OF_USUAL = 200  # and of an average of errors
_SMALLEST = 1e-16  # what keeps it above 0
_CHUNK = 1_024  # observations that are taken into the moments at a time


class Observations:
    """Observations as tensors by key: preprocessed as SB3 does, and then normalised by running moments.

    :param space: of one env's observations
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.spaces = leaves_of(space)
        self.moments = {
            key: RunningMeanStd(shape=tensor.shape[1:]) for key, tensor in self._tensors(_zeros(space)).items()
        }

    def update(self, observations: Any) -> None:
        """Take observations, (batch, *shape) of each key, into the moments."""
        for key, tensor in self._tensors(observations).items():
            self.moments[key].update(tensor.numpy())

    def __call__(self, observations: Any) -> dict[str, torch.Tensor]:
        """(batch, *shape) of float32 for each key."""
        found = {}
        for key, tensor in self._tensors(observations).items():
            moments = self.moments[key]
            mean, deviation = moments.mean.astype(np.float32), np.sqrt(moments.var + 1e-8).astype(np.float32)
            found[key] = torch.clamp((tensor - torch.from_numpy(mean)) / torch.from_numpy(deviation), -_CLIP, _CLIP)
        return found

    def _tensors(self, observations: Any) -> dict[str, torch.Tensor]:
        parts = observations if isinstance(observations, dict) else {"": observations}
        tensors = {}
        for key, space in self.spaces.items():
            made: Any = preprocess_obs(torch.as_tensor(np.asarray(parts[key])), space)
            tensors[key] = made if _is_large_image(space) else made.flatten(1)
        return tensors


def _zeros(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part) for key, part in space.spaces.items()}
    return np.zeros((1, *(space.shape or ())), dtype=space.dtype)


def _is_large_image(space: spaces.Space[Any]) -> bool:
    return is_image_space(space) and min(sorted(space.shape or (0,))[1:]) >= _SMALLEST_IMAGE


class Encoder(nn.Module):
    """From observations by key to features: convolutions for images, then layers of 128.

    :param hidden: how many such layers
    """

    def __init__(self, observations: Observations, hidden: int) -> None:
        super().__init__()
        self.keys = list(observations.spaces)
        parts: list[Any] = [
            NatureCNN(space, normalized_image=False)
            if _is_large_image(space)
            else FlattenExtractor(spaces.Box(-np.inf, np.inf, observations.moments[key].mean.shape))
            for key, space in observations.spaces.items()
        ]
        self.parts = nn.ModuleList(parts)
        size = sum(part.features_dim for part in parts)
        self.layers = nn.Sequential(*create_mlp(size, _FEATURES, [_HIDDEN] * hidden))

    def forward(self, observations: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(batch, 64)."""
        found = [part(observations[key]) for key, part in zip(self.keys, self.parts, strict=True)]
        features: torch.Tensor = self.layers(torch.cat(found, dim=1))
        return features


class Distillation(nn.Module):
    """Random network distillation."""

    reads_before = False

    def __init__(self, observations: Observations, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.target = Encoder(observations, hidden=1).requires_grad_(False)
        self.predictor = Encoder(observations, hidden=2)

    def errors(self, before: Any, actions: torch.Tensor, after: Any) -> torch.Tensor:
        """What each next observation is worth, (batch,)."""
        return (self.predictor(after) - self.target(after)).square().mean(dim=1)

    def losses(self, before: Any, actions: torch.Tensor, after: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """To minimise; and the mean error."""
        error = self.errors(before, actions, after).mean()
        return error, error


class NextState(nn.Module):
    """The intrinsic curiosity module."""

    reads_before = True

    def __init__(self, observations: Observations, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.action_space = action_space
        size = _codes(action_space, torch.zeros((1, *(action_space.shape or ())))).shape[1]
        self.encoder = Encoder(observations, hidden=1)
        self.inverse = nn.Sequential(*create_mlp(2 * _FEATURES, size, [_HIDDEN]))
        self.forward_model = nn.Sequential(*create_mlp(_FEATURES + size, _FEATURES, [_HIDDEN]))

    def errors(self, before: Any, actions: torch.Tensor, after: Any) -> torch.Tensor:
        """How far each next observation's features are from what was predicted, (batch,)."""
        return self._forward_errors(self.encoder(before), actions, self.encoder(after))

    def losses(self, before: Any, actions: torch.Tensor, after: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """To minimise; and the mean error."""
        here, there = self.encoder(before), self.encoder(after)
        guesses = self.inverse(torch.cat([here, there], dim=1))
        inverse = _guessing_loss(self.action_space, guesses, actions)
        # The features serve the inverse model; were they trained to be predictable too, as in the paper's code, they
        # could all become one. So the two losses share no parameter, and need no weights.
        error = self._forward_errors(here.detach(), actions, there.detach()).mean()
        return inverse + error, error

    def _forward_errors(self, here: torch.Tensor, actions: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        predicted = self.forward_model(torch.cat([here, _codes(self.action_space, actions)], dim=1))
        return 0.5 * (predicted - there).square().mean(dim=1)


def _codes(space: spaces.Space[Any], actions: torch.Tensor) -> torch.Tensor:
    """Actions as numbers for a network: one-hot where they are choices, else in [-1, 1]; (batch, size).

    :param actions: as SB3's policies give them: choices count from 0
    """
    if isinstance(space, spaces.Box):
        low, high = torch.as_tensor(space.low).float(), torch.as_tensor(space.high).float()
        bounded = torch.isfinite(high - low)
        middle, half = torch.where(bounded, (low + high) / 2, 0.0), torch.where(bounded, (high - low) / 2, 1.0)
        return ((actions.float().clamp(low, high) - middle) / half.clamp_min(1e-6)).flatten(1)
    codes: Any = preprocess_obs(actions, space)
    flat: torch.Tensor = codes.flatten(1)
    return flat


def _guessing_loss(space: spaces.Space[Any], guesses: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """How badly an inverse model guesses actions: cross-entropy where they are choices, else squared error."""
    if isinstance(space, spaces.Discrete):
        return nn.functional.cross_entropy(guesses, actions.long().flatten())
    if isinstance(space, spaces.MultiDiscrete):
        sizes = [int(size) for size in space.nvec.flatten()]
        columns = actions.long().flatten(1).unbind(dim=1)
        losses = [
            nn.functional.cross_entropy(part, column)
            for part, column in zip(guesses.split(sizes, dim=1), columns, strict=True)
        ]
        return torch.stack(losses).mean()
    if isinstance(space, spaces.MultiBinary):
        return nn.functional.binary_cross_entropy_with_logits(guesses, _codes(space, actions))
    return (guesses - _codes(space, actions)).square().mean()


_KINDS: dict[str, type[Distillation | NextState]] = {"rnd": Distillation, "icm": NextState}


class _Step(NamedTuple):
    """A step of all envs.

    :ivar before: observations; None where the model does not read them
    :ivar is_new: (n_envs,), whether the next observation is its episode's first such one; looked at if episodic
    :ivar errors: (n_envs,); 0 until there is a bonus
    :ivar worth: the errors, less what was usual; if episodic those of new observations, and 0 for the others
    :ivar bonus: what was added to the rewards
    """

    before: Any
    actions: np.ndarray
    after: Any
    is_new: np.ndarray
    errors: np.ndarray
    worth: np.ndarray
    bonus: np.ndarray


class Curiosity(VecEnvWrapper):
    """Adds ``weight`` times the normalised intrinsic reward to every reward.

    Normalised: first, what is usual is taken off, a moving average of errors over some 200 timesteps, which goes on
    while a rollout is played and while it is learnt from. An error is never below 0: with less taken off, each further
    step of an episode would be paid for, and the agent would learn not to reach a goal that ends it; with more, it
    would learn to end episodes. (The paper on RND has a value network for the bonus alone, which no wrapper can give.)
    Then it is divided by the size of the discounted sums of what is left, which go on from one episode to the next: the
    root of a moving average of their squares over some 40,000 timesteps. (A mean over all of training would keep the
    large errors of its beginning, and nothing would be left of the small ones that tell new states from known ones.)
    The quotient is cut at 5 and -5. The bonus is 0 until the first rollouts, of 1 / (1 - gamma) steps together, have
    given the moments. Computed on the CPU.

    Episodic: nothing is taken off, so that what is new in its episode pays, and what is not pays 0. (With what is usual
    of new observations taken off, these would pay 0 on average too, and no more of them would be looked for.) An
    episode's observations are kept as 16 bytes each until it ends.

    :param venv: whose episodes are recorded already, so that logged returns are the env's own
    :param settings: the config's section
    :param seed: of the run
    """

    def __init__(self, venv: VecEnv, settings: CuriosityConfig, seed: int) -> None:
        super().__init__(venv)
        self.settings = settings
        self.observations = Observations(self.observation_space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seeds(seed, Stream.CURIOSITY, 1)[0])
            self.model = _KINDS[settings.kind](self.observations, self.action_space)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, settings.learning_rate)
        self.usual = 0.0  # error, at the beginning of a rollout
        self._usual_now = 0.0
        self.square = 0.0  # of the discounted sums, averaged
        self._seen = 0  # steps of each env that were learnt from
        self._returns = np.zeros(self.num_envs)
        self._before: Any = None
        self._actions = np.zeros(0)
        self._steps: list[_Step] = []
        self._visited: list[set[bytes]] = []  # what each env's episode has seen

    @property
    def is_ready(self) -> bool:
        """Whether enough was learnt from for sums and moments to mean something."""
        return self._seen >= self.settings.steps_before_bonus

    def reset(self) -> Any:
        """See VecEnv."""
        observations = self.venv.reset()
        self._before, self._usual_now = _copied(observations), self.usual
        self._visited = [{_key(observations, index)} for index in range(self.num_envs)]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """See VecEnv."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """See VecEnv."""
        observations, rewards, dones, infos = self.venv.step_wait()
        after = _copied(observations)
        for index in np.flatnonzero(dones):
            _put(after, int(index), infos[index]["terminal_observation"])
        is_new = self._visit(after, observations, dones) if self.settings.episodic else np.ones(self.num_envs, bool)
        errors = worth = bonus = np.zeros(self.num_envs)
        if self.is_ready:
            errors = self._errors(self._before, self._actions, after)
            worth = self._worth(errors, is_new, self._usual_now)
            bonus = self.settings.weight * np.clip(worth / np.sqrt(self.square), -_CLIP, _CLIP)
            seen = (self._seen + len(self._steps)) * self.num_envs
            self._usual_now = _averaged(self._usual_now, seen, float(errors.mean()), self.num_envs, _MEMORY_OF_USUAL)
        before = self._before if self.model.reads_before else None
        self._steps.append(_Step(before, self._actions, after, is_new, errors, worth, bonus))
        self._before = _copied(observations)
        return observations, (rewards + bonus).astype(np.float32), dones, infos

    def _visit(self, after: Any, observations: Any, dones: np.ndarray) -> np.ndarray:
        """Whether each next observation is new in its episode, (n_envs,); an episode that ends is forgotten."""
        keys = [_key(after, index) for index in range(self.num_envs)]
        is_new = np.array([key not in visited for key, visited in zip(keys, self._visited, strict=True)])
        for index, key in enumerate(keys):
            self._visited[index].add(key)
            if dones[index]:
                self._visited[index] = {_key(observations, index)}
        return is_new

    def learn(self) -> dict[str, float]:
        """Learn from the steps since the last call.

        :return: numbers to log; none where there was no step
        """
        if not self._steps:
            return {}
        steps, self._steps = self._steps, []
        before = _joined([step.before for step in steps]) if self.model.reads_before else None
        after = _joined([step.after for step in steps])
        count = len(steps) * self.num_envs
        for start in range(0, count, _CHUNK):
            self.observations.update(_rows(after, np.arange(start, min(start + _CHUNK, count))))
        if self.is_ready:
            errors, worths = np.stack([step.errors for step in steps]), np.stack([step.worth for step in steps])
        else:
            errors = np.stack([self._errors(step.before, step.actions, step.after) for step in steps])
            worths = self._worth(errors, np.stack([step.is_new for step in steps]), float(errors.mean()))
        sums = []
        for rewards in worths:
            self._returns = self.settings.gamma * self._returns + rewards
            sums.append(self._returns)
        seen = self._seen * self.num_envs
        self.square = _averaged(self.square, seen, float(np.square(sums).mean()) + _SMALLEST, count, _MEMORY)
        loss = self._fit(before, np.concatenate([step.actions for step in steps]), after)
        self._seen += len(steps)
        self.usual = self._usual_now
        bonus = float(np.mean([step.bonus for step in steps]))
        return {"intrinsic_reward": bonus, "prediction_error": float(errors.mean()), "loss": loss}

    def _worth(self, errors: np.ndarray, is_new: np.ndarray, usual: float) -> np.ndarray:
        return errors * is_new if self.settings.episodic else errors - usual

    def _fit(self, before: Any, actions: np.ndarray, after: Any) -> float:
        """One pass over the steps in batches.

        :return: the mean loss
        """
        order, losses = np.random.permutation(len(actions)), []
        for start in range(0, len(actions), self.settings.batch_size):
            rows = order[start : start + self.settings.batch_size]
            loss, error = self.model.losses(*self._inputs(*_rows((before, actions, after), rows)))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            seen = self._seen * self.num_envs + start
            self._usual_now = _averaged(self._usual_now, seen, error.item(), len(rows), _MEMORY_OF_USUAL)
        return float(np.mean(losses))

    def _errors(self, before: Any, actions: np.ndarray, after: Any) -> np.ndarray:
        with torch.no_grad():
            return self.model.errors(*self._inputs(before, actions, after)).double().numpy()

    def _inputs(self, before: Any, actions: np.ndarray, after: Any) -> tuple[Any, torch.Tensor, Any]:
        first = self.observations(before) if self.model.reads_before else None
        return first, torch.as_tensor(actions), self.observations(after)

    # -- what a checkpoint holds

    def get_state(self) -> State:
        """Networks, optimiser and moments as arrays by name."""
        arrays = {f"model.{name}": tensor.numpy() for name, tensor in self.model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            arrays |= {f"adam.{index}.{name}": np.asarray(value) for name, value in values.items()}
        for name, moments in self._moments().items():
            arrays |= {f"{name}.{part}": np.asarray(getattr(moments, part), np.float64) for part in _MOMENTS}
        numbers = {"usual": np.float64(self.usual), "square": np.float64(self.square), "seen": np.int64(self._seen)}
        return {**arrays, **numbers, "returns": self._returns, "episodic": np.bool_(self.settings.episodic)}

    def is_alike(self, state: Mapping[str, np.ndarray]) -> bool:
        """Whether a state is of the same kind of curiosity, and as episodic."""
        is_same_kind = _part_of(state, "model.").keys() == self.model.state_dict().keys()
        return is_same_kind and bool(state.get("episodic", False)) == self.settings.episodic

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take what :meth:`get_state` gave.

        :raises UsageError: when it is another env's, or of another kind
        """
        try:
            tensors = _part_of(state, "model.")
            self.model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
            adam: dict[int, dict[str, torch.Tensor]] = {}
            for name, array in _part_of(state, "adam.").items():
                index, _, kind = name.partition(".")
                adam.setdefault(int(index), {})[kind] = torch.from_numpy(array.copy())
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": adam})
            for name, moments in self._moments().items():
                moments.mean, moments.var = state[f"{name}.mean"].copy(), state[f"{name}.var"].copy()
                moments.count = float(state[f"{name}.count"])
            self.usual, self.square, self._seen = float(state["usual"]), float(state["square"]), int(state["seen"])
            self._usual_now, self._returns = self.usual, state["returns"].copy()
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UsageError(
                f"What curiosity had learnt does not fit this config: {reason}", "Use the config it was trained with."
            ) from None
        self._steps.clear()

    def _moments(self) -> dict[str, RunningMeanStd]:
        return {f"observation.{key}": moments for key, moments in self.observations.moments.items()}


_MOMENTS = ("mean", "var", "count")


def _averaged(average: float, seen: int, value: float, new: int, memory: int) -> float:
    """A moving average over some ``memory`` timesteps; all count alike until there are as many.

    :param seen: timesteps in the average
    :param value: the mean of the new ones
    """
    kept = min(float(np.exp(-new / memory)), seen / (seen + new))
    return kept * average + (1 - kept) * value


def find_curiosity(venv: VecEnv | None) -> Curiosity | None:
    """The Curiosity around an env, if there is one."""
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, Curiosity):
            return venv
        venv = venv.venv
    return None


def _part_of(state: Mapping[str, np.ndarray], prefix: str) -> State:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _copied(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: np.array(value) for key, value in observations.items()}
    return np.array(observations)


def _put(observations: Any, index: int, one: Any) -> None:
    """Let one env's observation be another."""
    if isinstance(observations, dict):
        for key, value in observations.items():
            value[index] = one[key]
    else:
        observations[index] = one


def _key(observations: Any, index: int) -> bytes:
    """Stands for one env's observation; equal for equal ones."""
    parts = observations.values() if isinstance(observations, dict) else (observations,)
    numbers = ((part[index] + 0).tobytes() for part in parts)  # -0.0 becomes 0.0
    return hashlib.blake2b(b"".join(numbers), digest_size=16).digest()


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)


def _rows(values: Any, rows: np.ndarray) -> Any:
    """Some rows of an array, of each array in a dict or a tuple; None stays None."""
    if values is None:
        return None
    if isinstance(values, tuple):
        return tuple(_rows(value, rows) for value in values)
    if isinstance(values, dict):
        return {key: value[rows] for key, value in values.items()}
    return values[rows]
