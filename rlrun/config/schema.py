"""The config: frozen models in which every field says its unit. Unknown keys are errors everywhere.

``hyperparameters`` are the algorithm class's own keyword arguments and are checked against its signature
(:mod:`rlrun.algorithms.hyperparameters`), so they are not restated here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator


def whole_number(value: Any) -> Any:
    """``1e6`` is a float in YAML; where a whole number is meant, it is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Int = Annotated[int, BeforeValidator(whole_number)]
Float = Annotated[float, BeforeValidator(_as_float)]
Positive = Annotated[Int, Field(gt=0)]
NotNegative = Annotated[Int, Field(ge=0)]
Budget = Annotated[Positive, Field(le=10**12)]  # more is a slip of the finger
# How often a thing is done in a budget whose config leaves that open.
EVALUATIONS, CHECKPOINTS, LOG_ROWS = 10, 5, 200
Copies = Annotated[Positive, Field(le=4096)]  # of an env: many more are a slip of the finger, and take hours to build


BUDGETS = ("total_timesteps", "total_episodes")
NO_BUDGET = '"total_timesteps" is missing'


class Section(BaseModel):
    """A part of the config: immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class WrapperConfig(Section):
    """One env wrapper: an allow-listed name or ``module:Class``, with its keyword arguments."""

    name: str = Field(description="An allow-listed name, or `module:Class`.")
    kwargs: dict[str, Any] = Field({}, description="Its keyword arguments.")


class EnvConfig(Section):
    """The env and how it is wrapped and vectorised. Every role (train, eval, video) uses all of it."""

    id: str = Field(description="Registered Gymnasium id, `module:Id-v0`, or `module:Class`.", min_length=1)
    n_envs: Copies = Field(1, description="Number of env copies stepped together when training.")
    vec: Literal["auto", "serial", "workers"] = Field(
        "auto",
        description="Where the copies run: `serial` in this process, `workers` in as many processes as there are "
        "cores, `auto` where they are faster. They do the same in both.",
    )
    worker_timeout: Annotated[Float, Field(gt=0)] = Field(
        300.0,
        description="Seconds that a worker process may take for a step, a reset or to start, before it is given up.",
    )
    kwargs: dict[str, Any] = Field(
        {}, description="Keyword arguments of `gymnasium.make` (or of the class), for every role."
    )
    imports: list[str] = Field([], description="Modules to import first, because importing them registers the env.")
    wrappers: list[WrapperConfig] = Field(
        [], description="Gymnasium wrappers, innermost first: names, `module:Class`, or `{name: {keyword: value}}`."
    )
    frame_stack: Positive | None = Field(None, description="Number of successive observations stacked into one.")
    seed_every_reset: bool | None = Field(
        None,
        description="Seed every reset and not only the first; for envs that draw fresh entropy at each reset. "
        "null: what the env's family needs.",
    )

    @field_validator("wrappers", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        return [_wrapper_from_short_form(item) for item in value] if isinstance(value, list) else value


def _wrapper_from_short_form(item: Any) -> Any:
    """``Name`` and ``{Name: {kwargs}}`` are short for ``{name: Name, kwargs: {kwargs}}``."""
    if isinstance(item, str):
        return {"name": item}
    if isinstance(item, dict) and len(item) == 1 and "name" not in item:
        ((name, kwargs),) = item.items()
        return {"name": name, "kwargs": {} if kwargs is None else kwargs}
    return item


class NormalizeConfig(Section):
    """VecNormalize's own keyword arguments."""

    norm_obs: bool = Field(True, description="Normalize observations by their running mean and standard deviation.")
    norm_reward: bool = Field(
        True, description="Divide training rewards by the running deviation of the discounted return."
    )
    clip_obs: Annotated[Float, Field(gt=0)] = Field(10.0, description="Largest absolute normalized observation.")
    clip_reward: Annotated[Float, Field(gt=0)] = Field(10.0, description="Largest absolute normalized reward.")
    gamma: Annotated[Float, Field(ge=0, le=1)] | None = Field(
        None, description="Discount for the return's deviation. null: the algorithm's gamma."
    )
    epsilon: Annotated[Float, Field(gt=0)] = Field(1e-8, description="Added to the variance before dividing.")
    norm_obs_keys: list[str] | None = Field(None, description="Keys of a Dict observation to normalize. null: all.")


class CuriosityConfig(Section):
    """An intrinsic reward for what the agent cannot predict yet; for on-policy algorithms, in training only."""

    kind: Literal["rnd", "icm"] = Field(
        "rnd",
        description="`rnd`: random network distillation (Burda et al. 2018); `icm`: prediction of the next state's "
        "features (Pathak et al. 2017).",
    )
    weight: Annotated[Float, Field(ge=0)] = Field(
        0.1, description="What the normalised intrinsic reward is multiplied by before it is added to the env's."
    )
    learning_rate: Annotated[Float, Field(gt=0)] = Field(1e-3, description="Adam's, for the networks that predict.")
    batch_size: Positive = Field(256, description="Timesteps of one of their updates; each rollout is passed once.")
    gamma: Annotated[Float, Field(ge=0, lt=1)] = Field(
        0.99, description="Discount of the sums of intrinsic rewards, by whose size these are divided."
    )
    episodic: bool = Field(
        False,
        description="Pay for an observation only the first time that its episode sees it, as Zhang et al. 2020.",
    )

    @property
    def steps_before_bonus(self) -> int:
        """Steps of each env, in whole rollouts, that are learnt from before the first bonus: 1 / (1 - gamma)."""
        return math.ceil(round(1 / (1 - self.gamma), 6))


class EvaluationConfig(Section):
    """How the agent is evaluated, during training and by `rlrun eval`."""

    every: NotNegative | None = Field(
        None,
        description="Timesteps between evaluations during training; 0: only at its end. null: a tenth of the budget.",
    )
    episodes: NotNegative = Field(20, description="Number of episodes of one evaluation; 0: never evaluate.")
    n_envs: Copies | None = Field(None, description="Number of env copies. null: up to 8, at most one an episode.")
    deterministic: bool | None = Field(
        None, description="Take the policy's most likely action. null: what is usual for the env's family."
    )
    env_kwargs: dict[str, Any] = Field({}, description="Override `env.kwargs` in evaluation, openly.")
    seeds: list[NotNegative] | None = Field(
        None,
        description="One reset seed for each episode of the final evaluation and of `rlrun eval`, which has as many "
        "then; null: drawn from the run's seed. Evaluations during training draw `episodes` others.",
        min_length=1,
    )


class CheckpointConfig(Section):
    """When the whole state of training is saved. The spacing is part of the seed: each save restarts the envs."""

    every: NotNegative | None = Field(
        None, description="Timesteps between checkpoints; 0: only the final one. null: a fifth of the budget."
    )
    keep: Positive = Field(3, description="Number of newest checkpoints to keep, besides the best and the final one.")
    exact: bool = Field(
        True,
        description="Restart the envs at each checkpoint, so that a resumed run ends with the same weights as one left "
        "alone. false: leave them running; then a resumed run goes on as well as it can.",
    )


class VideoConfig(Section):
    """Films of the agent in training: `videos/<timesteps>.mp4` in the run. They change nothing that is learnt."""

    every: NotNegative = Field(0, description="Timesteps between films; 0: none.")
    episodes: Positive = Field(1, description="Number of episodes of one film.")
    length: Positive = Field(
        1_000, description="The agent's steps in all after which a film ends, also in the middle of an episode."
    )


class EarlyStopConfig(Section):
    """Reasons to end training before the budget."""

    mean_return: Float | None = Field(
        None, description="Stop when the mean training return of the window reaches this."
    )
    window: Positive = Field(100, description="Number of last training episodes the mean is taken over.")
    patience: Positive | None = Field(None, description="Stop after this many evaluations in a row without a new best.")

    @model_validator(mode="after")
    def _has_a_reason(self) -> EarlyStopConfig:
        if self.mean_return is None and self.patience is None:
            raise ValueError("early_stop needs mean_return or patience")
        return self


class CallbackConfig(Section):
    """A callback of the user's own."""

    model_config = ConfigDict(**{**Section.model_config, "populate_by_name": True})

    cls: str = Field(alias="class", description="`module:Class`, a subclass of SB3's BaseCallback.")
    kwargs: dict[str, Any] = Field({}, description="Its keyword arguments.")


class TrackerConfig(Section):
    """Where logged numbers go besides the run directory."""

    name: str = Field(description="`tensorboard`, `wandb`, `mlflow`, `trackio`, or a plug-in's.")
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the tracker's own start function.")


class Config(Section):
    """One file, one complete run."""

    algo: str = Field(description="The algorithm's registry name, such as `ppo`.")
    seed: Annotated[NotNegative, Field(lt=2**31)] = Field(0, description="The one seed all random streams derive from.")
    env: EnvConfig
    normalize: NormalizeConfig | None = Field(
        None, description="Wrap in VecNormalize: `true`, or its keyword arguments. false or null: off."
    )
    curiosity: CuriosityConfig | None = Field(
        None, description="Add an intrinsic reward: `{kind: rnd, weight: 0.1}`. null: none."
    )
    total_timesteps: Budget | None = Field(
        None,
        description="Training budget, in timesteps (one transition in one env). Either this or `total_episodes`.",
    )
    total_episodes: Budget | None = Field(
        None,
        description="Training budget, in episodes; for `q_learning` and `reinforce`, which play one after the other. "
        "Fields named `every` count timesteps all the same, but their defaults are shares of these episodes.",
    )
    schedule_timesteps: Positive | None = Field(
        None, description="Timesteps over which schedules run; after them they keep their end value. null: the budget."
    )
    schedule_episodes: Positive | None = Field(
        None, description="The same in episodes, where the budget is `total_episodes`. null: the budget."
    )
    hyperparameters: dict[str, Any] = Field({}, description="Keyword arguments of the algorithm's class.")
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    video: VideoConfig = VideoConfig()
    early_stop: EarlyStopConfig | None = Field(None, description="Reasons to end training before the budget.")
    callbacks: list[CallbackConfig] = Field([], description="The user's own SB3 callbacks.")
    trackers: list[TrackerConfig] = Field(
        [TrackerConfig(name="tensorboard")],
        description="`tensorboard`, `wandb`, `mlflow`, `trackio`, or `{wandb: {project: mine}}`; `[]`: none.",
    )
    log_every: NotNegative | None = Field(
        None, description="Timesteps between rows of metrics.csv. null: a two-hundredth of the budget."
    )
    device: str = Field("auto", description="`cpu`, `cuda`, `cuda:1`, or `auto`.")
    threads: Positive | None = Field(
        None, description="Torch threads. null: 2 for images and for batches of 1,024 or more, else 1."
    )
    accelerate: Literal["auto", "bfloat16", "cuda_graphs", "off"] = Field(
        "auto",
        description="`auto`: faster rollouts and updates where they are known to be equal up to rounding; "
        "`bfloat16`: besides, convolutions on the CPU with 8 bits of precision; `cuda_graphs`: besides, on a GPU, "
        "updates of DQN, SAC and TQC recorded once and replayed; `off`: plain Stable-Baselines3.",
    )
    init_from: str | None = Field(
        None,
        description="Start from the weights of this run or SB3 zip, with its normalization statistics and, of the same "
        "kind and as episodic, its curiosity.",
    )
    max_time: Annotated[Float, Field(gt=0)] | None = Field(
        None, description="Stop cleanly after this long: seconds, or a string such as `3h50m`."
    )

    search: dict[str, dict[str, Any]] | None = Field(
        None,
        description="What `rlrun tune` searches, instead of the algorithm's own table: "
        "`{learning_rate: {log: [1e-5, 1e-2]}}`. Training passes over it.",
    )

    @property
    def evaluation_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of the env outside training."""
        return {**self.env.kwargs, **self.evaluation.env_kwargs}

    @property
    def budget(self) -> int:
        """How much to train, in :attr:`budget_unit`."""
        return self.total_timesteps or self.total_episodes or 0

    @property
    def budget_unit(self) -> Literal["timesteps", "episodes"]:
        """What the budget counts."""
        return "timesteps" if self.total_episodes is None else "episodes"

    @property
    def horizon(self) -> int:
        """Where schedules end, in :attr:`budget_unit`; a run that goes on beyond its budget keeps it."""
        return (self.schedule_timesteps if self.total_episodes is None else self.schedule_episodes) or self.budget

    @model_validator(mode="after")
    def _has_one_budget(self) -> Config:
        if found := budget_error({key: getattr(self, key) for key in BUDGETS}):
            raise ValueError(found)
        return self

    @field_validator("normalize", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @field_validator("trackers", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        return [_wrapper_from_short_form(item) for item in value] if isinstance(value, list) else value

    @field_validator("max_time", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", value):
            raise ValueError("must be auto, cpu, mps, cuda or cuda:N")
        return value


def budget_error(values: Mapping[str, Any]) -> str:
    """What is wrong with the budget of a config's values; empty when exactly one is given."""
    given = [key for key in BUDGETS if values.get(key) is not None]
    if len(given) == 1:
        return ""
    return "a budget is total_timesteps or total_episodes, and both are given" if given else NO_BUDGET


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``3h50m``, ``1d12h``.

    :raises ValueError: for anything else
    """
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    if not match or not any(match.groups()):
        raise ValueError('must be seconds or a duration such as "3h50m"')
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


_MOST_SEEDS = 10_000


def parse_seeds(text: str) -> list[int]:
    """Seeds as ranges and numbers: ``0-4,10``.

    :raises ValueError: for anything else
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f'"{text}" names no seeds')
        begin, end = int(first), int(last) if dash else int(first)
        if end < begin:
            raise ValueError(f'"{part.strip()}" is no range of seeds')
        if end - begin >= _MOST_SEEDS:
            raise ValueError(f'"{part.strip()}" is {end - begin + 1:,} seeds, and more than {_MOST_SEEDS:,}')
        found += range(begin, end + 1)
    return list(dict.fromkeys(found))
