"""The model card: what the agent reached, how to have it act, and how to train it again.

Its metadata is what the Hub and the deep-RL course's leaderboard read: ``mean_reward`` as "x +/- y".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_sb3 import EnvironmentName, ModelName

from rlrun.config.classes import is_class_path
from rlrun.config.schema import Config
from rlrun.envs.families import family_of
from rlrun.runs.files import to_yaml

# The envs that the course's leaderboard ranks, by the ids under which it looks for them.
LEADERBOARD = frozenset(
    (
        *("LunarLander-v2", "CartPole-v1", "MountainCar-v0", "Acrobot-v1", "BipedalWalker-v3", "CarRacing-v0"),
        *("CarRacing-v2", "Taxi-v3", "FrozenLake-v1-4x4-no_slippery", "FrozenLake-v1-8x8-no_slippery"),
        *("FrozenLake-v1-4x4", "FrozenLake-v1-8x8", "SpaceInvadersNoFrameskip-v4", "PongNoFrameskip-v4"),
        *("BreakoutNoFrameskip-v4", "QbertNoFrameskip-v4", "AntBulletEnv-v0", "HalfCheetahBulletEnv-v0"),
        *("HopperBulletEnv-v0", "Walker2DBulletEnv-v0", "PandaReachDense-v2", "PandaReachDense-v3"),
        *("PandaReach-v3", "PandaPickAndPlace-v3", "Pixelcopter-PLE-v0"),
    )
)
# Newer versions of envs that the board knows, of the same task.
BOARD_IDS = {"Taxi-v4": "Taxi-v3"}
VIDEO, CURVE, MODEL_CARD = "replay.mp4", "learning_curve.png", "README.md"


@dataclass(frozen=True)
class CardFacts:
    """What the card says.

    :ivar result: the evaluation, as ``rlrun eval --json`` gives it
    :ivar episode_seeds: the reset seed of each evaluated episode
    :ivar repo: ``user/name``; None when it is not known yet
    :ivar revision: the branch it will be on; None: main
    :ivar has_parent: training began from other weights
    """

    config: Config
    result: Mapping[str, Any]
    episode_seeds: Sequence[int]
    versions: Mapping[str, str]
    timesteps: int
    repo: str | None
    revision: str | None
    has_parent: bool
    has_video: bool
    has_curve: bool
    has_statistics: bool

    @property
    def model_file(self) -> str:
        """``ppo-CartPole-v1.zip``, as module huggingface_sb3 names it."""
        return model_file(self.config)

    @property
    def mean_reward(self) -> str:
        """``500.00 +/- 0.00``, as the leaderboard reads it."""
        return mean_reward_of(self.result)


def mean_reward_of(result: Mapping[str, Any]) -> str:
    """``500.00 +/- 0.00`` of an evaluation's plain values."""
    return f"{result['mean_return']:.2f} +/- {result['std_return']:.2f}"


def model_file(config: Config) -> str:
    """The name of the zip: algorithm and env, as module huggingface_sb3 joins them."""
    return str(ModelName(config.algo, EnvironmentName(_last_part(config.env.id))).filename)


def _last_part(env_id: str) -> str:
    """``module:Id-v0`` without its module."""
    return env_id.rpartition(":")[2]


def leaderboard_score(result: Mapping[str, Any]) -> float:
    """What the course's leaderboard ranks by: the mean minus the standard deviation."""
    return float(result["mean_return"] - result["std_return"])


def leaderboard_words(config: Config, result: Mapping[str, Any]) -> str:
    """The score, and whether the leaderboard has the env under this id."""
    score, env = f"mean - standard deviation = {leaderboard_score(result):.2f}", board_id(config)
    if env in LEADERBOARD:
        return f"Score on the course's leaderboard, as {env}: {score}."
    return f"The course's leaderboard has no {env}, so it will not list this ({score})."


def board_id(config: Config) -> str:
    """The id under which the course publishes agents of an env, which for FrozenLake says map and ice."""
    env, kwargs = config.env.id, config.evaluation_kwargs
    if env != "FrozenLake-v1" or not kwargs.keys() <= {"map_name", "is_slippery", "max_episode_steps"}:
        return BOARD_IDS.get(env, env)
    ice = "" if kwargs.get("is_slippery", True) else "-no_slippery"
    return f"{env}-{kwargs.get('map_name', '4x4')}{ice}"


def model_card(facts: CardFacts) -> str:
    """The README.md of the repository."""
    return f"---\n{_metadata(facts)}\n---\n\n{_body(facts)}"


def _metadata(facts: CardFacts) -> str:
    env = board_id(facts.config)
    score = EvalResult(
        task_type="reinforcement-learning",
        task_name="reinforcement-learning",
        dataset_type=env,
        dataset_name=env,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=facts.mean_reward,
        verified=False,
    )
    data = ModelCardData(
        library_name="stable-baselines3",
        model_name=_class_of(facts.config.algo)[1],
        tags=[
            *dict.fromkeys((env, facts.config.env.id)),
            *_kind(facts.config.algo),
            *("reinforcement-learning", "stable-baselines3", "rlrun"),
        ],
        eval_results=[score],
    )
    return str(data.to_yaml()).strip()


def _kind(algo: str) -> list[str]:
    """Tags by which people look for an algorithm's agents."""
    own = {"q_learning": ["q-learning"], "reinforce": ["reinforce", "deep-reinforcement-learning"]}
    return own.get(algo, ["deep-reinforcement-learning"])


def _body(facts: CardFacts) -> str:
    config = facts.config
    parts = [
        f"# {_class_of(config.algo)[1]} on {config.env.id}",
        f"An agent trained for {facts.timesteps:,} timesteps with stable-baselines3 by rlrun.",
        f'<video src="{VIDEO}" controls muted loop width="480"></video>' if facts.has_video else "",
        _figures(facts),
        f"![mean return against timesteps]({CURVE})" if facts.has_curve else "",
        _usage(facts),
        _reproduction(facts),
        "## Hyperparameters\n\n```yaml\n" + to_yaml(config.model_dump(by_alias=True)) + "```",
        "## Versions\n\n" + "\n".join(f"- {name} {version}" for name, version in facts.versions.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(facts: CardFacts) -> str:
    result = facts.result
    rows = [
        ("mean return", facts.mean_reward),
        ("95 % bootstrap interval", "[{:.2f}, {:.2f}]".format(*result["ci95"]) if result["ci95"] else "-"),
        ("episodes", str(result["episodes"])),
        ("mean episode length", f"{result['mean_length']:.1f}"),
        *([("success rate", f"{result['success_rate']:.2f}")] if result["success_rate"] is not None else []),
        ("actions", "deterministic" if result["deterministic"] else "stochastic"),
        ("seed of the episodes", str(result["seed"])),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    listed = json.dumps(list(facts.episode_seeds))
    seeds = f"<details><summary>reset seeds of the episodes</summary>{listed}</details>"
    return f"## Evaluation\n\n| | |\n|---|---|\n{table}\n\n{seeds}"


def _usage(facts: CardFacts) -> str:
    config, repo = facts.config, facts.repo or "<user>/<name>"
    branch = f" --revision {facts.revision}" if facts.revision else ""
    rlrun_lines = f"rlrun pull {repo}{branch}\nrlrun eval latest{_episodes(facts)}"
    return (
        f"## Use it\n\nWith rlrun, which reads it without running anything of it:\n\n```bash\n{rlrun_lines}\n```\n\n"
        f"{_library(config)}. `load_from_hub` wants `TRUST_REMOTE_CODE=True`, because loading a zip of "
        "stable-baselines3 unpickles what is in it:\n\n```python\n" + sb3_code(facts) + "```"
    )


def _library(config: Config) -> str:
    """What the code for those without rlrun needs."""
    is_plain = _class_of(config.algo)[0].startswith(("stable_baselines3", "sb3_contrib"))
    if is_plain and not config.hyperparameters.get("dueling"):  # whose policy a saved model names
        return "With plain stable-baselines3"
    return "With stable-baselines3, and rlrun for the class"


def _episodes(facts: CardFacts) -> str:
    """The flag for the number of episodes, where the config has no list of seeds."""
    return "" if facts.config.evaluation.seeds else f" --episodes {facts.result['episodes']}"


def sb3_code(facts: CardFacts) -> str:
    """Python that evaluates the agent with stable-baselines3 and huggingface_sb3 alone."""
    config, repo = facts.config, facts.repo or "<user>/<name>"
    module, name = _class_of(config.algo)
    built, imports = _env_in_sb3(config)
    if facts.has_statistics:
        imports.append(f"from {_VEC_ENV} import VecNormalize")
        if str(config.hyperparameters.get("policy")).startswith("Cnn"):  # SB3 does this by itself, but not inside
            imports.append(f"from {_VEC_ENV} import VecTransposeImage")
            built.append("env = VecTransposeImage(env)")
    fetch, source = "load_from_hub", "from huggingface_sb3 import load_from_hub"
    end = ""
    if facts.revision:  # of which load_from_hub knows nothing
        fetch, source = "hf_hub_download", "from huggingface_hub import hf_hub_download"
        end = f', revision="{facts.revision}"'
    lines = [
        "import os",
        "",
        'os.environ["TRUST_REMOTE_CODE"] = "True"  # loading unpickles what is in the zip',
        *sorted({f"from {module} import {name}", source, *imports}, key=_order),
        f"from {_evaluating(config.algo)} import evaluate_policy",
        "",
        *built,
    ]
    if facts.has_statistics:
        lines += [f'env = VecNormalize.load({fetch}("{repo}", "vec_normalize.pkl"{end}), env)']
        lines += ["env.training, env.norm_reward = False, False"]
    play = f"n_eval_episodes={facts.result['episodes']}, deterministic={facts.result['deterministic']}"
    lines += [
        f'model = {name}.load({fetch}("{repo}", "{facts.model_file}"{end}), device="cpu")',
        f"print(evaluate_policy(model, env, {play}))",
    ]
    return "\n".join(lines) + "\n"


_VEC_ENV = "stable_baselines3.common.vec_env"


def _order(line: str) -> tuple[bool, str]:
    """Where a line stands among the imports: whole modules first."""
    return line.startswith("from "), line


def _env_in_sb3(config: Config) -> tuple[list[str], list[str]]:
    """Lines that build the evaluation env, and what they import."""
    env_id, kwargs = config.env.id, config.evaluation_kwargs
    module = family_of(env_id).module
    # Box2D and MuJoCo have no ids of their own: Gymnasium registers what needs them.
    registering = [module] if module and module not in ("Box2D", "mujoco") else []
    imports = [f"import {name}  # registers the env" for name in (*registering, *config.env.imports)]
    wrappers = config.env.wrappers
    stack = [f"env = VecFrameStack(env, {config.env.frame_stack})"] if config.env.frame_stack else []
    if stack:
        imports.append(f"from {_VEC_ENV} import VecFrameStack")
    if [wrapper.name for wrapper in wrappers] == ["AtariWrapper"]:
        settings = {**wrappers[0].kwargs, "terminal_on_life_loss": False, "clip_reward": False}
        imports.append("from stable_baselines3.common.env_util import make_atari_env")
        return [
            f'env = make_atari_env("{env_id}", env_kwargs={kwargs!r}, wrapper_kwargs={settings!r})',
            *stack,
        ], imports
    imports += ["from stable_baselines3.common.monitor import Monitor", f"from {_VEC_ENV} import DummyVecEnv"]
    arguments = [f"{key}={value!r}" for key, value in kwargs.items()]
    if is_class_path(env_id):
        place, _, cls = env_id.partition(":")
        imports.append(f"from {place} import {cls}  # the author's own env")
        built = f"{cls}({', '.join(arguments)})"
    else:
        imports.append("import gymnasium as gym")
        built = f"gym.make({', '.join([json.dumps(env_id), *arguments])})"
    note = ["# The config's own wrappers must be put around the env here; see config.yaml."] if wrappers else []
    return [*note, f"env = DummyVecEnv([lambda: Monitor({built})])", *stack], imports


def _class_of(algo: str) -> tuple[str, str]:
    """Where the class is imported from: plain SB3 or sb3-contrib if they have it."""
    from rlrun.algorithms.registry import get_algorithm

    cls = get_algorithm(algo).load()
    for base in cls.__mro__:
        package = base.__module__.partition(".")[0]
        if package in ("stable_baselines3", "sb3_contrib") and base.__name__ == cls.__name__:
            return package, cls.__name__
    return cls.__module__, cls.__name__  # one of rlrun's own


def _evaluating(algo: str) -> str:
    """The module whose ``evaluate_policy`` plays the algorithm's agents."""
    masked = algo == "maskable_ppo"
    return "sb3_contrib.common.maskable.evaluation" if masked else "stable_baselines3.common.evaluation"


def _reproduction(facts: CardFacts) -> str:
    seed = "" if facts.config.evaluation.seeds else f" --seed {facts.result['seed']}"
    commands = (
        f"rlrun train --config config.yaml\nrlrun eval latest --checkpoint {facts.timesteps}{_episodes(facts)}{seed}"
    )
    if facts.has_parent:
        return (
            "## Train it again\n\nTraining began from other weights, which are not in this repository. "
            f"From fresh ones, `config.yaml` gives another agent:\n\n```bash\n{commands}\n```"
        )
    return (
        "## Train it again\n\n`config.yaml` is in this repository; on the same type of CPU and with the same versions "
        f"it gives the same weights.\n\n```bash\n{commands}\n```"
    )
