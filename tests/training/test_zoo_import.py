"""RL Zoo's sections become configs that say the same, and what cannot be said is skipped with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import rlrun
from rlrun.cli.flags import ZOO_HABITS
from rlrun.config.loading import read_source
from rlrun.config.locate import all_configs, find_config, headline, shipped_folder, zoo_configs
from rlrun.config.yaml import read_yaml
from rlrun.config.zoo import read_zoo_file
from rlrun.envs.zoo import zoo_env, zoo_wrapper
from rlrun.errors import ConfigError, UsageError
from rlrun.training.plan import make_plan
from rlrun.training.zoo import DROPPED, MOVED, REFUSED, ZooEntry, algorithm_of, convert, section_for

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "from-rl-zoo.md"
FILE = """\
default: {n_timesteps: !!float 1e6, policy: MlpPolicy}
atari:
  env_wrapper:
    - stable_baselines3.common.atari_wrappers.AtariWrapper
  frame_stack: 4
  policy: 'CnnPolicy'
  n_timesteps: !!float 1e7
CartPole-v1: &cartpole
  n_envs: 8
  n_timesteps: !!float 1e5
  policy: 'MlpPolicy'
  n_steps: 32
  batch_size: 256
  learning_rate: lin_0.001
  policy_kwargs: "dict(net_arch=[64], activation_fn=nn.ReLU)"
LunarLander-v2:
  <<: *cartpole
  normalize: true
"""


def file(tmp_path: Path, text: str = FILE, name: str = "ppo.yml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def converted(tmp_path: Path, section: str, algo: str = "ppo", env: str = "CartPole-v1") -> dict[str, Any]:
    """A section's settings, without what every config says."""
    lines = "".join(f"  {line}\n" for line in section.splitlines())
    path = file(tmp_path, f"{env}:\n  n_timesteps: 1000\n{lines}")
    values = convert(read_zoo_file(path), env, algo, env).values
    assert (values.pop("algo"), values["env"].pop("id"), values.pop("total_timesteps")) == (algo, env, 1000)
    return {key: value for key, value in values.items() if value != {}}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("n_envs: 8", {"env": {"n_envs": 8}}),
        ("frame_stack: 4", {"env": {"frame_stack": 4}}),
        ("env_kwargs: {x: 1}", {"env": {"kwargs": {"x": 1}}}),
        ("env_kwargs: \"dict(render_mode='rgb_array')\"", {"env": {"kwargs": {"render_mode": "rgb_array"}}}),
        ("normalize: true", {"normalize": True}),
        ("normalize: True", {"normalize": True}),
        ("normalize: false", {}),
        ("normalize: 'dict()'", {"normalize": True}),
        (
            'normalize: "dict(norm_obs=False, norm_reward=True)"',
            {"normalize": {"norm_obs": False, "norm_reward": True}},
        ),
        ("normalize: \"{'norm_obs': True}\"", {"normalize": {"norm_obs": True}}),
        ("normalize: {norm_obs: true}", {"normalize": {"norm_obs": True}}),
        ("gamma: .99\npolicy: MlpPolicy", {"hyperparameters": {"policy": "MlpPolicy", "gamma": 0.99}}),
        ("policy: my.nets.Policy", {"hyperparameters": {"policy": "my.nets:Policy"}}),
        ("learning_rate: lin_7e-4", {"hyperparameters": {"learning_rate": "lin_7e-4"}}),
        ("learning_rate: linear_7e-4", {"hyperparameters": {"learning_rate": "lin_7e-4"}}),
        ("clip_range: const_0.2", {"hyperparameters": {"clip_range": "lin_0.2"}}),
        ("learning_rate: !!float 3e-4", {"hyperparameters": {"learning_rate": 3e-4}}),
        ("ent_coef: auto_0.1", {"hyperparameters": {"ent_coef": "auto_0.1"}}),
        ('train_freq: [1, "episode"]', {"hyperparameters": {"train_freq": [1, "episode"]}}),
        ("use_rms_prop: True", {"hyperparameters": {"use_rms_prop": True}}),
        ("noise_type: normal\nnoise_std: 0.1", {"hyperparameters": {"action_noise": {"normal": {"sigma": 0.1}}}}),
        (
            "noise_type: 'ornstein-uhlenbeck'\nnoise_std: 0.5",
            {"hyperparameters": {"action_noise": {"ornstein_uhlenbeck": {"sigma": 0.5}}}},
        ),
        ("noise_type: null", {"hyperparameters": {"action_noise": None}}),
        (
            'policy_kwargs: "dict(optimizer_class=RMSpropTFLike, optimizer_kwargs=dict(eps=1e-5))"',
            {
                "hyperparameters": {
                    "policy_kwargs": {"optimizer_class": "RMSpropTFLike", "optimizer_kwargs": {"eps": 1e-5}}
                }
            },
        ),
        (
            'policy_kwargs: "dict(activation_fn=th.nn.SiLU)"',
            {"hyperparameters": {"policy_kwargs": {"activation_fn": "SiLU"}}},
        ),
        (
            'policy_kwargs: "dict(optimizer_class=th.optim.Adam)"',
            {"hyperparameters": {"policy_kwargs": {"optimizer_class": "Adam"}}},
        ),
        ("policy_kwargs: {net_arch: [64]}", {"hyperparameters": {"policy_kwargs": {"net_arch": [64]}}}),
        (
            "replay_buffer_class: HerReplayBuffer\n"
            "replay_buffer_kwargs: \"dict(goal_selection_strategy='future', n_sampled_goal=4,)\"",
            {
                "hyperparameters": {
                    "replay_buffer_class": "HerReplayBuffer",
                    "replay_buffer_kwargs": {"goal_selection_strategy": "future", "n_sampled_goal": 4},
                }
            },
        ),
        ("replay_buffer_class: my.Buffer", {"hyperparameters": {"replay_buffer_class": "my:Buffer"}}),
        ("env_wrapper: gymnasium.wrappers.FlattenObservation", {"env": {"wrappers": ["FlattenObservation"]}}),
        ("env_wrapper: null", {}),
        (
            "env_wrapper:\n  - gymnasium.wrappers.time_limit.TimeLimit:\n      max_episode_steps: 500\n"
            "  - sb3_contrib.common.wrappers.TimeFeatureWrapper\n  - my.wrappers.Foo: {x: 1}",
            {
                "env": {
                    "wrappers": [
                        {"TimeLimit": {"max_episode_steps": 500}},
                        "TimeFeatureWrapper",
                        {"my.wrappers:Foo": {"x": 1}},
                    ]
                }
            },
        ),
        ("env_wrapper: {rl_zoo3.wrappers.FrameSkip: {skip: 2}}", {"env": {"wrappers": [{"FrameSkip": {"skip": 2}}]}}),
        ("env_wrapper: stable_baselines3.common.monitor.Monitor", {}),
        (
            "callback:\n  - my.callbacks.One\n  - my.callbacks.Two: {x: 1}",
            {"callbacks": [{"class": "my.callbacks:One"}, {"class": "my.callbacks:Two", "kwargs": {"x": 1}}]},
        ),
        ("monitor_kwargs: \"dict(info_keywords=('is_success',))\"", {}),
        ("optimize_memory_usage: True", {}),
        ("eval_freq: 10000\nn_eval_episodes: 5", {"evaluation": {"every": 10000, "episodes": 5}}),
        ("vec_env_wrapper: null", {}),
        ("n_steps: 8\nbatch_size: 64", {"hyperparameters": {"n_steps": 8, "batch_size": 8}}),
    ],
)
def test_each_key_of_rl_zoos_has_its_place(section: str, expected: dict[str, Any], tmp_path: Path) -> None:
    assert converted(tmp_path, section) == expected


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("policy_kwargs: \"dict(a=__import__('os').system('touch x'))\"", r"x.yml:3: .*is not allowed in it"),
        ('normalize: "eval(1)"', 'the call of "eval" is not allowed'),
        ("vec_env_wrapper: stable_baselines3.common.vec_env.VecMonitor", "no place for a VecEnvWrapper"),
        ("env_wrapper: [3]", "must name classes, not 3"),
        ("env_wrapper: {a.B: 3}", "must name classes"),
        ("callback: nodots", "must name classes"),
        ("noise_type: pink\nnoise_std: 0.1", "no action noise"),
        ("noise_type: normal", "no action noise"),
    ],
)
def test_what_a_config_cannot_say_is_an_error_with_its_line(section: str, message: str, folder: Path) -> None:
    lines = "".join(f"  {line}\n" for line in section.splitlines())
    path = file(folder, f"CartPole-v1:\n  n_timesteps: 1000\n{lines}", "x.yml")
    with pytest.raises(ConfigError, match=message):
        ZooEntry(path, "CartPole-v1", "ppo").source()
    assert [entry.name for entry in folder.iterdir()] == ["x.yml"]


@pytest.mark.parametrize(
    ("env_id", "name", "made"),
    [
        ("CartPole-v1", "CartPole-v1", "CartPole-v1"),
        ("PandaReach-v1", "PandaReach-v3", "PandaReach-v3"),
        ("LunarLander-v2", "LunarLander-v3", "LunarLander-v3"),
        ("Reacher-v2", "Reacher-v4", "Reacher-v4"),
        ("Ant-v2", "Ant-v2", "Ant-v2"),  # v4 observes something else
        ("CarRacing-v0", "CarRacing-v0", "CarRacing-v0"),
        ("CartPoleNoVel-v1", "CartPoleNoVel-v1", "CartPole-v1"),
        ("LunarLanderNoVel-v2", "LunarLanderNoVel-v3", "LunarLander-v3"),
        ("MineNoVel-v2", "MineNoVel-v2", "MineNoVel-v2"),
    ],
)
def test_a_removed_id_becomes_its_successor_only_where_the_task_is_the_same(env_id: str, name: str, made: str) -> None:
    env = zoo_env(env_id)
    assert (env.name, env.id) == (name, made)
    assert bool(env.note) == (env_id != made)


@pytest.mark.parametrize(
    ("entry", "env_id", "expected"),
    [
        ("stable_baselines3.common.atari_wrappers.AtariWrapper", "PongNoFrameskip-v4", "AtariWrapper"),
        (
            "stable_baselines3.common.atari_wrappers.AtariWrapper",
            "ALE/Pong-v5",
            {"AtariWrapper": {"frame_skip": 1}},
        ),
        ("gym_minigrid.wrappers.FlatObsWrapper", "", "FlatObsWrapper"),
        ("utils.wrappers.TimeFeatureWrapper", "", "TimeFeatureWrapper"),
        ("rl_zoo3.wrappers.HistoryWrapper", "", "rl_zoo3.wrappers:HistoryWrapper"),
        ("rl_zoo3.wrappers.MaskVelocityWrapper", "CartPole-v1", {"MaskObservation": {"indices": [1, 3]}}),
        (
            {"rl_zoo3.wrappers.YAMLCompatResizeObservation": {"shape": [64, 64]}},
            "",
            {"ResizeObservation": {"shape": [64, 64]}},
        ),
        ("mine.wrappers.AtariWrapper", "", "mine.wrappers:AtariWrapper"),
    ],
)
def test_wrappers_are_known_by_their_package_and_name(entry: Any, env_id: str, expected: Any) -> None:
    assert zoo_wrapper(entry, env_id) == expected


@pytest.mark.parametrize(
    ("env_id", "section"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ("LunarLander-v3", "LunarLander-v2"),
        ("LunarLander-v2", "LunarLander-v2"),
        ("ALE/Pong-v5", "atari"),
        ("BreakoutNoFrameskip-v4", "atari"),
        ("Mine-v0", "default"),
    ],
)
def test_the_section_is_the_one_that_rl_zoo_would_take(env_id: str, section: str, tmp_path: Path) -> None:
    assert section_for(read_zoo_file(file(tmp_path)), env_id) == section


def test_an_env_without_a_section_is_an_error(tmp_path: Path) -> None:
    found = read_zoo_file(file(tmp_path, "CartPole-v1: {n_timesteps: 1}\n"))
    with pytest.raises(UsageError, match="has no section for CartPole-v0") as raised:
        section_for(found, "CartPole-v0")
    assert raised.value.hint == 'Did you mean "CartPole-v1"?'


def test_the_algorithm_is_the_files_name_or_what_is_said() -> None:
    assert algorithm_of(Path("a/ppo.yml")) == "ppo"
    assert algorithm_of(Path("ppo_lstm.yml")) == "recurrent_ppo"
    assert algorithm_of(Path("mine.yml"), "ppo_lstm") == "recurrent_ppo"
    with pytest.raises(UsageError, match="before HER"):
        algorithm_of(Path("her.yml"))
    with pytest.raises(UsageError, match="does not say") as raised:
        algorithm_of(Path("mine.yml"))
    assert "--algo" in raised.value.hint


# -- the command line


def test_a_file_of_rl_zoos_trains_and_checks_as_it_is(rlrun_command: Callable[..., Any], folder: Path) -> None:
    file(folder)
    outcome = rlrun_command("check", "--config", "ppo.yml", "--env", "CartPole-v1")
    assert (outcome.code, outcome.out) == (0, "ppo.yml: ppo on CartPole-v1, no errors\n")
    arguments = ("--set", "evaluation.episodes=1", "--set", "trackers=[]", "--timesteps", "256", "--run-dir", "r")
    outcome = rlrun_command("train", "ppo.yml", "--env", "CartPole-v1", "--name", "zoo", *arguments)
    assert outcome.code == 0, outcome.err
    run = rlrun.open_run("r/CartPole-v1/ppo/zoo")
    assert run.config.hyperparameters["learning_rate"] == "lin_0.001"
    assert run.config.env.n_envs == 8


def test_a_file_of_rl_zoos_needs_an_env_and_an_algorithm(rlrun_command: Callable[..., Any], folder: Path) -> None:
    file(folder)
    file(folder, name="mine.yml")
    outcome = rlrun_command("train", "ppo.yml")
    assert outcome.code == 2
    assert "Say which: --env ID" in outcome.err
    outcome = rlrun_command("train", "mine.yml", "--env", "CartPole-v1")
    assert outcome.code == 2
    assert "--algo ppo" in outcome.err
    assert sorted(path.name for path in folder.iterdir()) == ["mine.yml", "ppo.yml"]


def test_problems_are_told_with_the_line_in_rl_zoos_file(folder: Path) -> None:
    path = file(folder, "CartPole-v1:\n  n_timesteps: 1000\n  policy: MlpPolicy\n  gama: 0.9\n")
    with pytest.raises(ConfigError, match=r"ppo.yml:4: hyperparameters.gama: PPO has no keyword"):
        rlrun.check(ZooEntry(path, "CartPole-v1"))


def test_import_zoo_writes_configs_once_and_says_what_it_skips(rlrun_command: Callable[..., Any], folder: Path) -> None:
    file(folder, FILE + "Nothing-v0: {n_timesteps: 1}\nCarRacing-v3: {n_timesteps: 1, env_wrapper: not_there.A}\n")
    outcome = rlrun_command("import-zoo", "ppo.yml", "--out", "made", "--json")
    report = json.loads(outcome.out)
    assert (outcome.code, report["converted"], report["skipped"]) == (0, 3, 3)
    reasons = {row["section"]: row["detail"] for row in report["sections"] if row["result"] == "skipped"}
    assert "--env" in reasons["default"]
    assert reasons["Nothing-v0"] == 'There is no env "Nothing-v0".'
    assert reasons["CarRacing-v3"] == "The package not_there, which has not_there.A, is not installed."
    lander = (folder / "made" / "LunarLander-v3" / "ppo.yaml").read_text()
    assert "LunarLander-v2, which is gone" in lander
    assert len(list(folder.glob("made/*NoFrameskip-v4/ppo.yaml"))) == 10
    assert all(rlrun.check(path, env=False) for path in folder.glob("made/*/ppo.yaml"))
    (folder / "made" / "CartPole-v1" / "ppo.yaml").write_text("mine")
    again = rlrun_command("import-zoo", "ppo.yml", "--out", "made")
    assert again.code == 2
    assert "is there already (and 11 more)" in again.err
    assert (folder / "made" / "CartPole-v1" / "ppo.yaml").read_text() == "mine"


def test_import_zoo_takes_one_env_and_refuses_other_files(rlrun_command: Callable[..., Any], folder: Path) -> None:
    file(folder)
    outcome = rlrun_command("import-zoo", "ppo.yml", "--env", "Pendulum-v1")
    assert outcome.code == 0
    assert [str(path) for path in Path("configs").rglob("*.yaml")] == ["configs/Pendulum-v1/ppo.yaml"]
    assert rlrun.check("configs/Pendulum-v1/ppo.yaml").config.total_timesteps == 1_000_000
    outcome = rlrun_command("import-zoo", "configs/Pendulum-v1/ppo.yaml", "--out", "made")
    assert outcome.code == 2
    assert "not in RL Zoo's format" in outcome.err
    file(folder, "CartPole-v1: {n_timesteps: 1, gama: 3}\n", "a2c.yml")
    assert rlrun_command("import-zoo", "a2c.yml", "--out", "made").code == 2
    assert not Path("made").exists()


def test_import_zoo_runs_no_code_that_a_file_names(rlrun_command: Callable[..., Any], folder: Path) -> None:
    (folder / "evil.py").write_text("import pathlib\npathlib.Path('touched').touch()\n")
    lines = ["callback: evil.Callback", "env_wrapper: evil.Wrapper", "policy: evil.Policy"]
    lines += ["policy_kwargs: \"dict(features_extractor_class='evil:Net')\""]
    for index, line in enumerate(lines):
        file(folder, f"CartPole-v1:\n  n_timesteps: 1\n  {line}\n")
        outcome = rlrun_command("import-zoo", "ppo.yml", "--out", f"made{index}")
        assert outcome.code == 0, outcome.err
    assert not Path("touched").exists()


# -- what ships


def test_the_zoos_configs_are_found_by_name_and_kept_apart(rlrun_command: Callable[..., Any]) -> None:
    path = shipped_folder() / "zoo" / "CartPole-v1" / "ppo.yaml"
    assert find_config("zoo/CartPole-v1/ppo") == path
    assert not any(name.startswith("zoo/") for name in all_configs())
    assert "zoo/CartPole-v1/ppo" in all_configs(zoo=True)
    listed = rlrun_command("configs")
    assert "zoo/" not in listed.out
    assert f"and {len(zoo_configs())} with RL Baselines3 Zoo's settings, not run by us: rlrun configs zoo" in listed.err
    assert "zoo/CartPole-v1/ppo " in rlrun_command("configs", "zoo").out
    assert "zoo/Hopper-v4/sac " in rlrun_command("configs", "Hopper-v4").out
    missed = rlrun_command("check", "--env", "Hopper-v4", "--algo", "sac")
    assert "zoo/Hopper-v4/sac" in missed.err
    with pytest.raises(UsageError) as raised:
        find_config("zoo/Hoper-v4/sac")
    assert raised.value.hint == 'Did you mean "zoo/Hopper-v4/sac"?'


def test_the_zoos_configs_are_marked_valid_and_sound() -> None:
    validator = jsonschema.Draft202012Validator(json.loads((shipped_folder() / "schema.json").read_text()))
    found = zoo_configs()
    assert len(found) > 200
    for name, path in found.items():
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=../../schema.json\n"), name
        assert headline(path).startswith("RL Baselines3 Zoo's settings for "), name
        assert headline(path).endswith("; not run by us."), name
        assert [error.message for error in validator.iter_errors(read_yaml(path).value)] == [], name
        plan = make_plan(read_source(path), probe_env=False)
        assert (plan.config.algo, plan.warnings) == (path.stem, ()), name


@pytest.mark.slow
@pytest.mark.parametrize("name", list(zoo_configs()))
def test_the_zoos_configs_fit_their_envs(name: str, folder: Path) -> None:
    try:
        make_plan(read_source(zoo_configs()[name]))
    except ConfigError as error:
        if error.is_missing_package or all("is free" in problem.message for problem in error.problems):
            pytest.skip(str(error))
        raise


def test_the_page_says_of_each_flag_and_key_what_the_code_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [tuple(part.strip() for part in line.strip("|").split("|")) for line in text.splitlines() if "|" in line]
    flags = {flag: row[1] for row in rows for flag in re.findall(r"`(-[\w-]+)`", row[0])}
    assert flags == ZOO_HABITS
    keys = {key: row[1] for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    assert [key for key, path in MOVED.items() if f"`{path[0]}" not in keys[key]] == []
    assert [key for key in DROPPED if key != "noise_std" and keys[key] != "left out"] == []
    assert [key for key in REFUSED if keys[key] != "refused"] == []
    assert f"{len(zoo_configs())} configs" in text
