"""A commented config for an env and an algorithm, made from the env's spaces: what ``rlrun init`` writes.

It is a start and not a tuned config: only what the env demands is set, and the defaults stand beside it as comments.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gymnasium import spaces
from pydantic import BaseModel

from rlrun.algorithms.registry import get_algorithm
from rlrun.config.classes import make_importable
from rlrun.config.loading import Source
from rlrun.config.locate import folder_name
from rlrun.config.schema import CheckpointConfig, Config, EnvConfig, EvaluationConfig
from rlrun.config.yaml import parse_yaml
from rlrun.runs.files import to_yaml
from rlrun.training.json_schema import parameter_docs, plain_default
from rlrun.training.plan import make_plan, user_folders
from rlrun.training.suggestions import CHECKPOINTS, Suggestions, suggest

_EPISODES = 10_000
_COLUMN, _WIDTH = 34, 118  # where comments begin and lines end


def config_template(env: str, algo: str, path: Path | None = None) -> str:
    """A config that ``rlrun check`` accepts without a warning.

    :param env: a registered id, ``module:Id-v0`` or ``module:Class``
    :param path: where it will lie, for the command in its head; None: ``configs/<env id>/<algo>.yaml``
    :raises UsageError: when there is no such env or algorithm, or the algorithm cannot act in the env
    """
    algorithm = get_algorithm(algo)
    make_importable(user_folders(None))
    suggested = suggest(env, algorithm)
    path = path or Path("configs", folder_name(env), f"{algo}.yaml")
    lines = [*_head(env, suggested, path), *_env(env, suggested), *_training(suggested), *_recording(suggested)]
    text = "\n".join(lines) + "\n"
    make_plan(Source(parse_yaml(text, str(path)).value))
    return text


def _head(env: str, suggested: Suggestions, path: Path) -> Iterator[str]:
    yield f"# {suggested.algorithm.load().__name__} on {env}: a config to start from, not a tuned one."
    yield f"# Train:  rlrun train --config {path.as_posix()}"
    yield "# Every key: rlrun schema. The hyperparameters in comments show their defaults."
    yield _line("algo", suggested.algorithm.name)
    yield _field(Config, "seed")


def _env(env: str, suggested: Suggestions) -> Iterator[str]:
    yield "env:"
    seen, acts = _described(suggested.observation_space), _described(suggested.action_space)
    yield from _commented(f"The agent sees {seen} and acts with {acts}.", "  ")
    yield _line("id", env, indent="  ")
    why_one = "One fills the replay buffer; more are faster, and learn less per timestep."
    why = _description(EnvConfig, "n_envs") if suggested.n_envs > 1 or suggested.buffer_size is None else why_one
    yield _line("n_envs", suggested.n_envs, why, "  ")
    yield _field(EnvConfig, "kwargs", "  # ")
    yield from _commented(suggested.why_wrapped, "  ")
    for key, value in suggested.wrapping.items():
        yield _line(key, value, "" if key == "wrappers" else _description(EnvConfig, key), "  ")
    if suggested.episode_steps is None:
        limited = [{"TimeLimit": {"max_episode_steps": 1_000}}, *suggested.wrapping.get("wrappers", [])]
        yield from _commented("No time limit was found. If an episode may never end, give it one:", "  ")
        yield _line("wrappers", limited, indent="  # ")
    if suggested.is_normalized:
        why = "Observations and rewards come in the env's own units; a network learns faster when all are near 1."
        yield from _commented(f"{why} Each checkpoint holds the running means and deviations.")
    if not suggested.algorithm.observations:  # a table has nothing to normalize
        yield _line("normalize", True, _description(Config, "normalize"), "" if suggested.is_normalized else "# ")


def _training(suggested: Suggestions) -> Iterator[str]:
    if suggested.algorithm.is_episodic:
        yield _line("total_episodes", _EPISODES, "Training budget, in episodes.")
    else:
        yield _line("total_timesteps", suggested.budget, _description(Config, "total_timesteps"))
    if suggested.solved_at is not None:
        stop = {"mean_return": suggested.solved_at}
        yield _line("early_stop", stop, "The env counts as solved at this return.", "# ")
    cls: Any = suggested.algorithm.load()
    yield f"{'hyperparameters:':{_COLUMN}}# {_description(Config, 'hyperparameters')}"
    yield _line("policy", suggested.policy, f"{', '.join(cls.policy_aliases)}, or `module:Class`.", "  ")
    chosen, docs = suggested.chosen_keywords(), parameter_docs(cls)
    for name, (value, why) in chosen.items():
        yield _line(name, value, why, "  ")
    for name, parameter in suggested.keywords.items():
        default = plain_default(parameter)
        if name not in chosen and default not in ((), (None,)):
            yield _line(name, default[0], docs.get(name, ""), "  # ")
    if "policy_kwargs" in suggested.keywords:
        yield _line("policy_kwargs", {"net_arch": [256, 256]}, "For instance: two layers of 256 units.", "  # ")


def _recording(suggested: Suggestions) -> Iterator[str]:
    yield "evaluation:"
    if suggested.algorithm.is_episodic:  # how many timesteps episodes take is not known
        yield _field(EvaluationConfig, "every", "  # ")
    else:
        yield _line("every", suggested.budget // CHECKPOINTS, _description(EvaluationConfig, "every"), "  ")
    yield _field(EvaluationConfig, "episodes", "  ")
    yield _field(EvaluationConfig, "deterministic", "  # ")
    yield "checkpoint:"
    if suggested.algorithm.is_episodic:
        yield _field(CheckpointConfig, "every", "  # ")
    else:
        yield _line("every", suggested.checkpoint_every, _description(CheckpointConfig, "every"), "  ")
    if suggested.buffer_size is not None and suggested.buffer_bytes(suggested.buffer_size) > 2**30:
        yield _line("keep", 1, "Each holds the replay buffer.", "  ")
    else:
        yield _field(CheckpointConfig, "keep", "  ")
    yield _line("trackers", ["tensorboard"], _description(Config, "trackers"), "# ")


def _described(space: spaces.Space[Any]) -> str:
    """A space in few words: the bounds of a Box can fill pages."""
    if isinstance(space, spaces.Dict):
        return "a dict (" + ", ".join(f"{name}: {_described(part)}" for name, part in space.spaces.items()) + ")"
    return f"Box{space.shape} of {space.dtype}" if isinstance(space, spaces.Box) else str(space)


def _description(section: type[BaseModel], name: str) -> str:
    return section.model_fields[name].description or ""


def _field(section: type[BaseModel], name: str, indent: str = "") -> str:
    """A field with its default and its description."""
    return _line(name, section.model_fields[name].default, _description(section, name), indent)


def _line(key: str, value: Any, comment: str = "", indent: str = "") -> str:
    """``key: value  # comment``; of a long comment the first sentence, or what fits on the line."""
    text = f"{indent}{key}: {flow(value)}  "
    room = _WIDTH - max(_COLUMN, len(text)) - len("# ")
    if len(comment) > room:
        comment = re.split(r"(?<=\.)\s+(?=[A-Z`])", comment)[0]
    comment = textwrap.shorten(comment, max(room, 20), placeholder=" ...").replace(". ...", ".")
    return f"{text:{_COLUMN}}# {comment}" if comment else text.rstrip()


def _commented(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def flow(value: Any) -> str:
    """A value on one line of YAML, large whole numbers with underscores."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:_}"
    return to_yaml([value]).removeprefix("- ").strip()
