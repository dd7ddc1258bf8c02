"""A wrong config or command line exits 2 with a sentence and a way out, and leaves the folder as it was."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlrun.errors import install_hint

PLAIN = """\
algo: ppo
env: {id: CartPole-v1}
total_timesteps: 1000
"""
DQN = PLAIN.replace("ppo", "dqn")
ATARI = "algo: a2c\nenv:\n  id: ALE/Pong-v5\n  wrappers: [AtariWrapper]\n  frame_stack: 4\ntotal_timesteps: 1000\n"


def with_keywords(text: str, base: str = PLAIN) -> str:
    """The plain config with hyperparameters, in line 4."""
    return f"{base}hyperparameters: {text}\n"


@pytest.fixture
def refused(folder: Path, rlrun_command: Callable[..., object]) -> Callable[..., str]:
    """Trains a config that must be refused; gives what stderr said, without its line ends."""

    def refuse(config: str | bytes | None, *arguments: str, command: str = "train") -> str:
        if config is not None:
            Path("c.yaml").write_bytes(config.encode() if isinstance(config, str) else config)
            arguments = ("c.yaml", *arguments)
        before = sorted(folder.rglob("*"))
        outcome = rlrun_command(command, *arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert outcome.err.startswith("error: ")
        assert "Traceback" not in outcome.err
        assert "bug" not in outcome.err
        assert sorted(folder.rglob("*")) == before
        return " ".join(outcome.err.split())

    return refuse


REFUSED = {
    "a misspelled schedule": (
        with_keywords("{learning_rate: cosnt_3e-4}"),
        "c.yaml:4: hyperparameters.learning_rate: 'cosnt_3e-4' is not a schedule",
        'Did you mean "const_..."?',
    ),
    "a misspelled keyword": (
        with_keywords("{n_step: 5}"),
        'c.yaml:4: hyperparameters.n_step: PPO has no keyword "n_step".',
        'Did you mean "n_steps"?',
    ),
    "a misspelled section": (
        PLAIN + "normalise: true\n",
        'c.yaml:4: normalise: there is no key "normalise".',
        'Did you mean "normalize"?',
    ),
    "a misspelled algorithm": (
        PLAIN.replace("ppo", "pp0"),
        'c.yaml:1: algo: there is no algorithm "pp0".',
        'Did you mean "ppo"?',
    ),
    "a tab": (PLAIN + "hyperparameters:\n\tn_steps: 5\n", "c.yaml:5: a tab cannot indent YAML.", "Use spaces."),
    "an empty file": ("", "c.yaml: is empty.", "`rlrun init` writes a config to start from."),
    "only comments": ("# later\n", "c.yaml: is empty.", "`rlrun init` writes a config to start from."),
    "a list at the top": ("- algo: ppo\n", "c.yaml: holds a list at the top, not keys.", "Begin with `algo: ppo`."),
    "a word": ("ppo\n", "c.yaml: holds a single value at the top, not keys.", "Begin with `algo: ppo`."),
    "a duplicate key": (
        PLAIN + "algo: a2c\n",
        'c.yaml:4: the key "algo" stands twice (first in line 1).',
        "Keep one.",
    ),
    "an anchor bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{k}: &{k} [{', '.join([f'*{chr(ord(k) - 1)}'] * 9)}]\n" for k in "bcdefghi"),
        "holds more values than a config can need.",
        "Take out the anchors",
    ),
    "an anchor inside itself": ("algo: &a [*a]\n", "c.yaml:1: is nested too deeply.", "Check the brackets"),
    "brackets without end": ("algo: " + "[" * 3000, "c.yaml: is nested too deeply.", "Check the brackets"),
    "deep indentation": (
        "".join(f"{' ' * depth}a:\n" for depth in range(60)),
        "c.yaml:42: is nested too deeply.",
        "Check the brackets and the indentation.",
    ),
    "a tag that would run a command": (
        "algo: !!python/object/apply:os.system ['touch pwned']\n",
        "c.yaml:1: the tag !!python/object/apply:os.system is not allowed.",
        "Leave it out: reading a config never runs code.",
    ),
    "an unclosed bracket": (
        "algo: ppo\nenv: {id: CartPole-v1\n",
        "c.yaml:3: is not valid YAML: expected ',' or '}'",
        "Look at this line and the one above it.",
    ),
    "bytes that are no text": (b"algo: \xff\xfe\n", "c.yaml: is not UTF-8 text.", "Save it as UTF-8."),
    "a removed env": (
        PLAIN.replace("CartPole-v1", "LunarLander-v2"),
        "c.yaml:2: env.id: LunarLander-v2 was removed from its package; its successor is LunarLander-v3.",
        "Use id: LunarLander-v3",
    ),
    "another removed env": (
        PLAIN.replace("CartPole-v1", "Taxi-v3"),
        "c.yaml:2: env.id: Taxi-v3 was removed from its package; its successor is Taxi-v4.",
        "Use id: Taxi-v4",
    ),
    "a misspelled env": (
        PLAIN.replace("CartPole-v1", "CartPool-v1"),
        'c.yaml:2: env.id: there is no env "CartPool-v1".',
        'Did you mean "CartPole-v1"?',
    ),
    "an unknown env": (
        PLAIN.replace("CartPole-v1", "Zzyzx"),
        'c.yaml:2: env.id: there is no env "Zzyzx".',
        "A module that registers it goes into `env.imports`, or as `module:Id-v0`.",
    ),
    "a keyword of another algorithm": (
        with_keywords("{n_epochs: 4}", DQN),
        'c.yaml:4: hyperparameters.n_epochs: DQN has no keyword "n_epochs".',
        "It is a keyword of ppo, recurrent_ppo, maskable_ppo.",
    ),
    "a minibatch larger than a rollout": (
        with_keywords("{n_steps: 16, batch_size: 64}"),
        "c.yaml:4: hyperparameters.batch_size: batch_size 64 is larger than a whole rollout "
        "(n_steps x n_envs = 16 x 1 = 16).",
        "Lower it.",
    ),
    "HER without goals": (
        "algo: sac\nenv: {id: Pendulum-v1}\ntotal_timesteps: 1000\n"
        "hyperparameters: {replay_buffer_class: HerReplayBuffer}\n",
        "c.yaml:4: hyperparameters.replay_buffer_class: HerReplayBuffer needs a goal env",
        "Leave it out for this env.",
    ),
    "DQN on continuous actions": (
        DQN.replace("CartPole", "Pendulum"),
        "c.yaml:1: algo: dqn cannot act in a continuous action space (Box(-2.0, 2.0, (1,), float32)).",
        "For continuous actions: ppo, sac or tqc.",
    ),
    "a CnnPolicy on a vector": (
        with_keywords("{policy: CnnPolicy}"),
        "c.yaml:4: hyperparameters.policy: CnnPolicy reads images, and this env gives Box of shape (4,).",
        'Use "MlpPolicy".',
    ),
    "frames skipped twice": (
        ATARI,
        "c.yaml:4: env.wrappers.0: AtariWrapper would skip frames again: ALE/Pong-v5 already skips 4.",
        "Write {AtariWrapper: {frame_skip: 1}}, or env.kwargs: {frameskip: 1}.",
    ),
    "a word for a number": (
        PLAIN.replace("{id: CartPole-v1}", "{id: CartPole-v1, n_envs: two}"),
        "c.yaml:2: env.n_envs: must be a whole number,",
        "not 'two'.",
    ),
    "half a timestep": (
        PLAIN.replace("1000", "1.5"),
        "c.yaml:3: total_timesteps: must be a whole number,",
        "not 1.5.",
    ),
    "a boolean for a number": (PLAIN + "seed: true\n", "c.yaml:4: seed: must be a whole number,", "not true."),
    "a number for a boolean": (
        PLAIN + "normalize: {norm_obs: 1}\n",
        "c.yaml:4: normalize.norm_obs: must be true or false,",
        "not 1.",
    ),
    "yes for true": (PLAIN + "normalize: yes\n", "c.yaml:4: normalize: must be a section", "not 'yes'."),
    "an unknown wrapper": (
        PLAIN.replace("{id: CartPole-v1}", "{id: CartPole-v1, wrappers: [TimeLimt]}"),
        'c.yaml:2: env.wrappers.0: there is no wrapper "TimeLimt".',
        'Did you mean "TimeLimit"?',
    ),
    "an unknown keyword of a wrapper": (
        PLAIN.replace("{id: CartPole-v1}", "{id: CartPole-v1, wrappers: [{TimeLimit: {max_step: 9}}]}"),
        'c.yaml:2: env.wrappers.0: TimeLimit has no keyword "max_step".',
        'Did you mean "max_episode_steps"?',
    ),
    "an unknown keyword of the env": (
        PLAIN.replace("{id: CartPole-v1}", "{id: CartPole-v1, kwargs: {gravity: 3}}"),
        'c.yaml:2: env.kwargs.gravity: CartPole-v1 has no keyword "gravity".',
        "It takes: sutton_barto_reward, render_mode.",
    ),
    "an unknown tracker": (
        PLAIN + "trackers: [tensorbord]\n",
        'c.yaml:4: trackers.0: there is no tracker "tensorbord".',
        'Did you mean "tensorboard"?',
    ),
    "a function for a class": (
        PLAIN + "callbacks: [{class: 'os:system', kwargs: {command: touch pwned}}]\n",
        'c.yaml:4: callbacks.0: "os:system" is not a subclass of BaseCallback.',
        "Name a class that is one.",
    ),
    "a function for an env": (
        PLAIN.replace("CartPole-v1", "'os:system'"),
        'c.yaml:2: env.id: "os:system" is not a subclass of Env.',
        "Name a class that is one.",
    ),
    "what only SB3's constructor finds": (
        with_keywords("{policy_kwargs: {features_extractor_class: NatureCNN}}"),
        "c.yaml:4: hyperparameters: PPO refuses this config:",
        "NatureCNN only with images",
    ),
}


@pytest.mark.parametrize(("config", "what", "way_out"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_config_is_refused_with_its_place_and_a_way_out(
    config: str | bytes, what: str, way_out: str, refused: Callable[..., str]
) -> None:
    said = refused(config)
    assert what in said
    assert way_out in said.partition(what)[2]
    assert said.count("error: ") == 1


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_a_policy_that_cannot_read_a_dict_is_refused(policy: str, refused: Callable[..., str]) -> None:
    pytest.importorskip("panda_gym")
    config = f"algo: sac\nenv: {{id: PandaReach-v3}}\ntotal_timesteps: 1000\nhyperparameters: {{policy: {policy}}}\n"
    said = refused(config)
    assert f"c.yaml:4: hyperparameters.policy: {policy} cannot read a Dict observation" in said
    assert 'Use "MultiInputPolicy".' in said


@pytest.mark.parametrize(("n_envs", "starts", "needed"), [(1, 10, 50), (4, 100, 200)])
def test_hindsight_before_an_episode_can_have_ended_is_refused(
    n_envs: int, starts: int, needed: int, refused: Callable[..., str]
) -> None:
    pytest.importorskip("panda_gym")
    said = refused(
        f"algo: sac\nenv: {{id: PandaReach-v3, n_envs: {n_envs}}}\ntotal_timesteps: 1000\n"
        f"hyperparameters: {{replay_buffer_class: HerReplayBuffer, learning_starts: {starts}}}\n"
    )
    assert f"learning would start after {starts} timesteps" in said
    assert f"Set it to at least {needed}." in said


def test_a_replay_buffer_that_cannot_fit_is_refused_with_both_numbers(refused: Callable[..., str]) -> None:
    said = refused(with_keywords("{buffer_size: 1e12}", DQN))
    numbers = re.search(r"1,000,000,000,000 timesteps needs ([\d,.]+) GiB, and ([\d,.]+) GiB is free\.", said)
    assert numbers is not None, said
    needed, free = (float(number.replace(",", "")) for number in numbers.groups())
    assert needed == pytest.approx(1e12 * (2 * 4 * 4 + 8 + 12) / 2**30, rel=1e-3)
    assert 0 < free < needed
    assert re.search(r"About [\d,]+ would fit\.", said)


def test_every_error_of_a_config_is_reported_at_once_in_the_order_of_the_file(refused: Callable[..., str]) -> None:
    said = refused(
        "algo: dqn\n"
        "env:\n"
        "  id: LunarLander-v2\n"
        "  n_env: 3\n"
        "normalise: true\n"
        "total_timesteps: 1.5\n"
        "hyperparameters:\n"
        "  n_epochs: 5\n"
        "  learning_rate: cosnt_3e-4\n"
        "evaluation: {every: never}\n"
        "callbacks:\n"
        "  - class: os:system\n"
        "trackers: [tensorbord]\n"
        "device: gpu\n"
    )
    places = re.findall(r"error: c\.yaml:(\d+): ([\w.]+): ", said)
    assert places == [
        ("3", "env.id"),
        ("4", "env.n_env"),
        ("5", "normalise"),
        ("6", "total_timesteps"),
        ("8", "hyperparameters.n_epochs"),
        ("9", "hyperparameters.learning_rate"),
        ("10", "evaluation.every"),
        ("12", "callbacks.0"),
        ("13", "trackers.0"),
        ("14", "device"),
    ]
    assert said.endswith("10 problems; nothing was created.")


def test_errors_of_the_env_are_reported_beside_those_of_the_hyperparameters(refused: Callable[..., str]) -> None:
    said = refused(with_keywords("{n_step: 5}", DQN.replace("CartPole", "Pendulum")))
    assert "dqn cannot act in a continuous action space" in said
    assert 'DQN has no keyword "n_step"' in said
    assert said.endswith("2 problems; nothing was created.")


def test_what_must_be_given_is_named_with_an_example(refused: Callable[..., str]) -> None:
    said = refused("seed: 1\n")
    assert '"algo" is missing. For instance `algo: ppo`.' in said
    assert '"env" is missing. For instance `env: {id: CartPole-v1}`.' in said
    assert '"total_timesteps" is missing. For instance `total_timesteps: 100_000`.' in said


def test_a_file_of_100_megabytes_is_not_read(refused: Callable[..., str]) -> None:
    with Path("big.yaml").open("wb") as stream:
        stream.truncate(100 * 2**20)
    said = refused(None, "big.yaml")
    assert "big.yaml: is larger than 256 KiB, so it is no config. Check the path." in said


@pytest.mark.parametrize("size", [256 * 1024, 256 * 1024 + 1])
def test_the_size_limit_is_exact(size: int, refused: Callable[..., str]) -> None:
    said = refused(b"#" * size)
    assert ("is empty" in said) == (size == 256 * 1024)
    assert ("is larger" in said) == (size > 256 * 1024)


@pytest.mark.parametrize("option", [(), ("--config",)])
def test_a_missing_file_is_named(option: tuple[str, ...], refused: Callable[..., str]) -> None:
    said = refused(None, *option, "nothere.yaml")
    assert "nothere.yaml: there is no such file." in said
    assert "`rlrun configs` lists" in said


def test_a_name_that_is_neither_file_nor_shipped_gets_the_nearest(refused: Callable[..., str]) -> None:
    said = refused(None, "CartPole-v1/pp0")
    assert 'There is no config file and no shipped config "CartPole-v1/pp0".' in said
    assert 'Did you mean "CartPole-v1/ppo"?' in said


@pytest.mark.parametrize("name", ["configs", "configs.yaml", "."])
def test_a_directory_is_no_config(name: str, refused: Callable[..., str]) -> None:
    Path(name).mkdir(exist_ok=True)
    assert f"{name}: is a directory, not a config. Name a YAML file in it." in refused(None, name)


@pytest.mark.parametrize("name", ["loop.yaml", "x" * 300 + ".yaml"])
def test_a_file_that_cannot_be_opened_is_said_in_words(name: str, refused: Callable[..., str]) -> None:
    Path("loop.yaml").symlink_to("loop.yaml")
    said = refused(None, name)
    assert f"{name}: cannot be read: " in said
    assert said.endswith("Check the path.")


@pytest.mark.parametrize(
    ("env", "module", "extra"),
    [
        ("PandaReach-v3", "panda_gym", "panda"),
        ("AntBulletEnv-v0", "pybullet_envs_gymnasium", "bullet"),
        ("Ant-v5", "mujoco", "mujoco"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("LunarLander-v3", "Box2D", ""),
        ("ALE/Pong-v5", "ale_py", ""),
    ],
)
def test_a_missing_env_package_is_named_with_what_installs_it(
    env: str, module: str, extra: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = refused(PLAIN.replace("CartPole-v1", env))
    assert f"c.yaml:2: env.id: {env} needs the module {module}, which cannot be imported" in said
    assert said.endswith(install_hint(extra))


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "trackio"])
def test_a_missing_tracker_package_is_named_with_its_extra(
    tracker: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    said = refused(PLAIN + f"trackers: [tensorboard, {{{tracker}: {{}}}}]\n")
    assert f"c.yaml:4: trackers.1: the package of the tracker {tracker} is not installed." in said
    in_a_clone = f"Install rlrun's extra \"{tracker}\": pip install '.[{tracker}]' in a clone,"
    assert said.endswith(f"{in_a_clone} or pip install 'rlrun[{tracker}]'.")


@pytest.mark.parametrize(
    ("pair", "what", "way_out"),
    [
        (
            "learning_rate=1e-3",
            '--set learning_rate=1e-3: learning_rate: there is no key "learning_rate".',
            'Did you mean "hyperparameters.learning_rate"?',
        ),
        ("seeed=1", '--set seeed=1: seeed: there is no key "seeed".', 'Did you mean "seed"?'),
        ("hyperparameters.n_step=5", 'PPO has no keyword "n_step".', 'Did you mean "n_steps"?'),
        ("seed=two", "--set seed=two: seed: must be a whole number,", "not 'two'."),
        ("total_timesteps=null", '"total_timesteps" is missing.', "For instance `total_timesteps: 100_000`"),
        ("seed=[3", "--set seed=[3: is not valid YAML", "Look at this line"),
        ("seed=!!python/name:os.system", "the tag !!python/name:os.system is not allowed.", "Leave it out"),
        ("env..x=3", '--set env..x=3: "env..x" is no key', "Write it like hyperparameters.gamma."),
        (".seed=3", '--set .seed=3: ".seed" is no key', "Write it like hyperparameters.gamma."),
        ("algo.name=ppo", '"algo.name" goes into "algo", which is not a section.', "Set the whole value instead."),
        ("seed", '--set takes key=value, not "seed".', "For instance --set hyperparameters.gamma=0.99"),
        ("=1", '--set takes key=value, not "=1".', "For instance --set hyperparameters.gamma=0.99"),
    ],
)
def test_a_wrong_override_is_refused_by_the_same_checks(
    pair: str, what: str, way_out: str, refused: Callable[..., str]
) -> None:
    said = refused(PLAIN, "--set", pair)
    assert what in said
    assert way_out in said


@pytest.mark.parametrize(
    ("arguments", "both"),
    [
        (("--seed", "1", "--set", "seed=2"), '"seed" is named twice: --set seed=2 and --seed.'),
        (("--timesteps", "9", "--set", "total_timesteps=8"), "named twice: --set total_timesteps=8 and --timesteps."),
        (("--set", "seed=1", "--set", "seed=1"), "named twice: --set seed=1 and --set seed=1."),
        (("--device", "cpu", "--set", "device=cpu"), "named twice: --set device=cpu and --device."),
        (("--set", "env.n_envs=2", "--set", "env={id: CartPole-v1}"), "named twice: --set env.n_envs=2 and --set env"),
    ],
)
def test_naming_one_key_twice_is_refused(arguments: tuple[str, ...], both: str, refused: Callable[..., str]) -> None:
    said = refused(PLAIN, *arguments)
    assert both in said
    assert said.endswith("Name it once.")


@pytest.mark.parametrize(
    ("arguments", "way_out"),
    [
        (("-n", "500"), "rlrun calls it --timesteps."),
        (("-n500",), "rlrun calls it --timesteps."),
        (("--n-timesteps", "500"), "rlrun calls it --timesteps."),
        (("-f", "logs"), "rlrun calls it --run-dir."),
        (("-params", "gamma:0.9"), "rlrun writes --set hyperparameters.gamma=0.99"),
        (("-i", "agent.zip"), "To start from its weights: --init RUN."),
        (("--eval-freq", "500"), "rlrun writes --set evaluation.every=N, in timesteps."),
        (("--env-kwargs", "x:1"), "rlrun writes --set env.kwargs.x=1"),
        (("--conf-file", "x.yml"), "rlrun calls it --config."),
        (("--sed", "1"), 'Did you mean "--seed"?'),
        (("--seed", "one"), "`rlrun train --help` shows what there is."),
        (("--set",), "Option '--set' requires an argument."),
    ],
)
def test_flags_of_other_tools_and_typing_errors_get_a_hint(
    arguments: tuple[str, ...], way_out: str, refused: Callable[..., str]
) -> None:
    assert way_out in refused(PLAIN, *arguments)


@pytest.mark.parametrize(
    ("arguments", "what", "way_out"),
    [
        ("train", "a config is missing.", "For instance: rlrun train --config CartPole-v1/ppo"),
        ("train --algo ppo", "--env is missing.", "For instance: rlrun train"),
        ("train --env CartPole-v1", "--algo is missing.", "For instance: rlrun train"),
        ("train CartPole-v1/ppo --config CartPole-v1/a2c", "Two configs are named", "Name one."),
        ("train CartPole-v1/ppo --algo ppo", "and one is named already.", "Leave them out."),
        ("train --algo ppo --env CartPool-v1", "no shipped config for ppo on CartPool-v1.", "`rlrun init --env"),
        ("train CartPole-v1/ppo --resume", "--resume needs --name", "Or `rlrun resume RUN`."),
        ("train CartPole-v1/ppo --max-time soon", "--max-time: max_time: must be seconds", 'such as "3h50m".'),
        (
            "train CartPole-v1/ppo --init nothere",
            'init_from: There is no run "nothere" in runs.',
            "`rlrun runs` lists them",
        ),
        ("train CartPole-v1/ppo --device gpu", "--device: device: must be", "auto, cpu, mps, cuda or cuda:N."),
        ("trian CartPole-v1/ppo", "No such command 'trian'.", "Did you mean 'train'?"),
        ("configs nothing-like-it", 'No shipped config has "nothing-like-it"', "`rlrun configs` lists them all."),
        ("show latest", "There are no runs in runs.", "Train one: rlrun train"),
        ("resume some", 'There is no run "some" in runs.', "`rlrun runs` lists them"),
        ("eval some", 'There is no run "some" in runs.', "`rlrun runs` lists them"),
        ("eval CartPole-v1/ppo --untrained --checkpoint best", "has no checkpoint.", "Leave --checkpoint out."),
        ("eval some --episodes 0", "'--episodes': it must be 1 or more, not 0.", "`rlrun eval --help`"),
        ("eval some --episodes 1.5", "it must be a whole number, not '1.5'.", "`rlrun eval --help`"),
        ("eval some --episodes 1e1", 'There is no run "some" in runs.', "`rlrun runs` lists them"),
        ("eval some --fail-under nan", "'--fail-under': it must be a number, not 'nan'.", "`rlrun eval --help`"),
        ("eval some --fail-under inf", "'--fail-under': it must be a number, not 'inf'.", "`rlrun eval --help`"),
        ("eval some --fail-under x", "'--fail-under': it must be a number, not 'x'.", "`rlrun eval --help`"),
        ("train CartPole-v1/ppo --timesteps 1.5", "it must be a whole number, not '1.5'.", "`rlrun train --help`"),
        ("train CartPole-v1/ppo --timesteps many", "it must be a whole number, not 'many'.", "`rlrun train --help`"),
        ("train CartPole-v1/ppo --timesteps 0", "--timesteps: total_timesteps: must be greater than 0", "not 0."),
        ("train CartPole-v1/ppo --timesteps -1e3", "total_timesteps: must be greater than 0", "not -1000."),
        ("init", "--env and --algo are missing.", "For instance: rlrun init --env CartPole-v1 --algo ppo"),
        ("init --env X", "--algo is missing.", "For instance: rlrun init --env X --algo ppo"),
        ("init --algo dqn", "--env is missing.", "For instance: rlrun init --env CartPole-v1 --algo dqn"),
        ("prune some", 'There is no run "some" in runs.', "`rlrun runs` lists them"),
        ("init --env CartPool-v1 --algo ppo", 'there is no env "CartPool-v1".', 'Did you mean "CartPole-v1"?'),
        ("init --env CartPole-v1 --algo sac", "sac cannot act in a Discrete action space", "ppo, dqn or a2c."),
        ("smoke nothing", 'no config file and no shipped config "nothing".', "`rlrun configs` lists"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_and_what_to_do(
    arguments: str, what: str, way_out: str, refused: Callable[..., str]
) -> None:
    command, *rest = arguments.split()
    said = refused(None, *rest, command=command)
    assert what in said
    assert way_out in said.partition(what)[2]


def test_an_unknown_algorithm_hides_no_wrong_hyperparameter(refused: Callable[..., str]) -> None:
    said = refused(with_keywords("{n_step: 5, learning_rate: cosnt_3e-4}", PLAIN.replace("ppo", "pp0")))
    assert 'c.yaml:1: algo: there is no algorithm "pp0". Did you mean "ppo"?' in said
    assert 'PPO has no keyword "n_step". Did you mean "n_steps"?' in said
    assert "'cosnt_3e-4' is not a schedule" in said
    assert said.endswith("3 problems; nothing was created.")


def test_a_rollout_that_cannot_fit_is_refused_with_both_numbers(refused: Callable[..., str]) -> None:
    said = refused(with_keywords("{n_steps: 1e12}"))
    assert "c.yaml:4: hyperparameters.n_steps: a rollout of n_steps x n_envs = 1,000,000,000,000 timesteps" in said
    assert "GiB is free. About " in said


def test_check_says_the_same_as_train(refused: Callable[..., str]) -> None:
    config = with_keywords("{n_step: 5, gamma: 3}")
    assert refused(config, command="check") == refused(config, command="train")


def test_with_json_stdout_stays_empty_when_the_config_is_wrong(refused: Callable[..., str]) -> None:
    assert 'Did you mean "ppo"?' in refused(PLAIN.replace("ppo", "pp0"), "--json")
