"""From a file and overrides to a checked config: what wins, where each value came from, what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrun.config.loading import (
    NO_ENV,
    Override,
    Source,
    dotted,
    leaves,
    model_at,
    read_source,
    sound_part,
    validate,
)
from rlrun.config.schema import CallbackConfig, Config, EnvConfig, NormalizeConfig, WrapperConfig
from rlrun.errors import ConfigError, UsageError

LEAST: dict[str, Any] = {"algo": "ppo", "env": {"id": "CartPole-v1"}, "total_timesteps": 1000}
quickly = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def overrides(*pairs: str) -> list[Override]:
    return [Override.parse(pair) for pair in pairs]


def problems_of(values: dict[str, Any]) -> list[str]:
    """What the schema says of a mapping, each problem in its own words."""
    config, problems = validate(read_source(values))
    assert config is None
    return [str(problem) for problem in problems]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A config file with a value in each of its lines."""
    file = tmp_path / "c.yaml"
    file.write_text(
        "algo: ppo\nenv:\n  id: CartPole-v1\n  n_envs: 4\ntotal_timesteps: 1000\n"
        "hyperparameters:\n  gamma: 0.9\n  policy_kwargs: {net_arch: [64, 64]}\nnormalize: true\n"
    )
    return file


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("hyperparameters.gamma=0.99", "hyperparameters.gamma", 0.99),
        ("normalize=null", "normalize", None),
        ("normalize=", "normalize", None),
        ("trackers=[wandb, tensorboard]", "trackers", ["wandb", "tensorboard"]),
        ("env.kwargs={a: 1e3}", "env.kwargs", {"a": 1000.0}),
        ("env.id=module:Class", "env.id", "module:Class"),
        ("env.id='1e3'", "env.id", "1e3"),
        ("env.kwargs.text=a=b", "env.kwargs.text", "a=b"),
        (" seed = 3", "seed", 3),
    ],
)
def test_an_override_is_a_key_and_a_yaml_value(text: str, key: str, value: Any) -> None:
    assert Override.parse(text) == Override(key, value, f"--set {text}")


@pytest.mark.parametrize("text", ["seed", "=3", " =3", ""])
def test_an_override_without_a_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--set takes key=value"):
        Override.parse(text)


def test_an_override_wins_over_the_file_and_leaves_the_rest(path: Path) -> None:
    given = overrides("env.n_envs=8", "hyperparameters.learning_rate=1e-3", "total_timesteps=5")
    assert read_source(path, given).values == {
        "algo": "ppo",
        "env": {"id": "CartPole-v1", "n_envs": 8},
        "total_timesteps": 5,
        "hyperparameters": {"gamma": 0.9, "policy_kwargs": {"net_arch": [64, 64]}, "learning_rate": 1e-3},
        "normalize": True,
    }


@pytest.mark.parametrize("switch", [True, None, {"clip_obs": 5.0}])
def test_an_override_inside_a_switch_turns_it_into_a_section(switch: Any) -> None:
    source = read_source({**LEAST, "normalize": switch}, overrides("normalize.norm_obs=false"))
    config, _ = validate(source)
    assert config is not None
    assert config.normalize is not None
    assert config.normalize.norm_obs is False
    assert config.normalize.clip_obs == (5.0 if isinstance(switch, dict) else 10.0)


def test_every_value_knows_its_line_or_its_flag(path: Path) -> None:
    source = read_source(path, overrides("env.n_envs=8", "hyperparameters.policy_kwargs={}"))
    assert source.place(("algo",)) == f"{path}:1"
    assert source.place(("env", "id")) == f"{path}:3"
    assert source.place(("env", "n_envs")) == "--set env.n_envs=8"
    assert source.place(("env", "kwargs", "x")) == f"{path}:2", "the nearest key above one that is not there"
    assert source.place(("hyperparameters", "policy_kwargs", "net_arch")) == "--set hyperparameters.policy_kwargs={}"
    assert source.place(("seed",)) == str(path)


def test_one_key_named_twice_is_refused_with_both_flags() -> None:
    with pytest.raises(ConfigError) as raised:
        read_source(LEAST, [*overrides("seed=1"), Override("seed", 2, "--seed"), *overrides("env.id=X", "env={}")])
    first, second = raised.value.problems
    assert str(first) == '--seed: "seed" is named twice: --set seed=1 and --seed. Name it once.'
    assert second.message == '"env" is named twice: --set env.id=X and --set env={}.'


def test_keys_that_only_begin_alike_are_two_keys() -> None:
    values = read_source(LEAST, overrides("env.n_envs=2", "env.n_envs_more=3", "en=1")).values
    assert values["env"] == {"id": "CartPole-v1", "n_envs": 2, "n_envs_more": 3}


@pytest.mark.parametrize("key", ["env..n_envs", ".seed", "seed.", "."])
def test_an_override_with_an_empty_part_in_its_key_is_blamed_for_it(key: str, path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_source(path, overrides(f"{key}=3"))
    (problem,) = raised.value.problems
    assert str(problem).startswith(f'--set {key}=3: "{key}" is no key: ')
    assert problem.hint == "Write it like hyperparameters.gamma."


@pytest.mark.parametrize("pair", ["algo.x=1", "env.id.x=1", "trackers.0=wandb"])
def test_an_override_into_something_that_is_no_section_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match="which is not a section") as raised:
        read_source({**LEAST, "trackers": ["tensorboard"]}, overrides(pair))
    assert raised.value.problems[0].hint == "Set the whole value instead."


def test_a_mapping_from_python_is_copied_and_never_changed() -> None:
    given = {**LEAST, "env": {"id": "X", "wrappers": ("A",), "kwargs": {1: 2}}}
    source = read_source(given, overrides("env.n_envs=2"))
    assert source.values["env"] == {"id": "X", "wrappers": ["A"], "kwargs": {"1": 2}, "n_envs": 2}
    assert given["env"] == {"id": "X", "wrappers": ("A",), "kwargs": {1: 2}}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"normalise": True}, 'normalise: there is no key "normalise". Did you mean "normalize"?'),
        ({"n_timesteps": 5}, 'n_timesteps: there is no key "n_timesteps". rlrun calls it `total_timesteps`.'),
        ({"n_envs": 5}, 'n_envs: there is no key "n_envs". It belongs in the section `env`: `env: {n_envs: 4}`.'),
        (
            {"env": {"id": "X", "n_env": 4}},
            'env.n_env: there is no key "n_env" in "env". Did you mean "n_envs"?',
        ),
        (
            {"checkpoint": {"often": True}},
            'checkpoint.often: there is no key "often" in "checkpoint". Keys here: every, keep, exact.',
        ),
        ({"env": {"n_envs": 4}}, 'env: "env.id" is missing. For instance `id: CartPole-v1`.'),
        ({"env": {"id": ""}}, "env.id: must be a name, not ''."),
        (
            {"env": "CartPole-v1"},
            "env: must be a section (keys and values), not 'CartPole-v1'. For instance `env: {id: CartPole-v1}`.",
        ),
        ({"env": {"id": "X", "vec": "spawn"}}, "env.vec: must be 'auto', 'serial' or 'workers', not 'spawn'."),
        (
            {"env": {"id": "X", "vec": "subproc"}},
            "env.vec: must be 'auto', 'serial' or 'workers', not 'subproc'. rlrun calls it \"workers\".",
        ),
        (
            {"env": {"id": "X", "vec": "dummy"}},
            "env.vec: must be 'auto', 'serial' or 'workers', not 'dummy'. rlrun calls it \"serial\".",
        ),
        ({"env": {"id": "X", "n_envs": 1_000_000}}, "env.n_envs: must be less than or equal to 4096, not 1000000."),
        (
            {"evaluation": {"n_envs": 5000}},
            "evaluation.n_envs: must be less than or equal to 4096, not 5000.",
        ),
        ({"env": {"id": "X", "wrappers": "A"}}, "env.wrappers: must be a list, not 'A'."),
        ({"env": {"id": "X", "wrappers": [3]}}, "env.wrappers.0: must be a section (keys and values), not 3."),
        (
            {"env": {"id": "X", "wrappers": ["A", {"B": 3}]}},
            "env.wrappers.1.kwargs: must be a section (keys and values), not 3.",
        ),
        ({"total_timesteps": 1.5}, "total_timesteps: must be a whole number, not 1.5."),
        ({"total_timesteps": "1000"}, "total_timesteps: must be a whole number, not '1000'."),
        ({"total_timesteps": float("inf")}, "total_timesteps: must be a whole number, not inf."),
        ({"total_timesteps": 0}, "total_timesteps: must be greater than 0, not 0."),
        ({"seed": True}, "seed: must be a whole number, not true."),
        ({"seed": 2**31}, "seed: must be less than 2147483648, not 2147483648."),
        ({"normalize": {"clip_obs": True}}, "normalize.clip_obs: must be a number, not true."),
        ({"normalize": {"clip_obs": float("nan")}}, "normalize.clip_obs: must be a finite number, not nan."),
        ({"normalize": {"norm_obs": 1}}, "normalize.norm_obs: must be true or false, not 1."),
        ({"evaluation": {"seeds": []}}, "evaluation.seeds: must be a list with something in it, not []."),
        ({"evaluation": {"seeds": [1, "a"]}}, "evaluation.seeds.1: must be a whole number, not 'a'."),
        ({"early_stop": {"window": 5}}, "early_stop: early_stop needs mean_return or patience."),
        ({"callbacks": [{"kwargs": {}}]}, 'callbacks.0: "callbacks.0.class" is missing.'),
        ({"device": 0}, "device: must be a string, not 0."),
        ({"max_time": "3x"}, 'max_time: must be seconds or a duration such as "3h50m".'),
        (
            {"hyperparameters": None},
            "hyperparameters: must be a section (keys and values), not null. "
            "For instance `hyperparameters: {learning_rate: 0.0003}`.",
        ),
    ],
)
def test_a_wrong_value_is_said_in_the_users_spelling(values: dict[str, Any], problem: str) -> None:
    assert problems_of({**LEAST, **values}) == [problem]


def test_all_problems_of_the_schema_come_at_once() -> None:
    found = problems_of({"seed": -1, "env": {"id": 3, "n_envs": 0}, "total_timesteps": 10, "trackers": 1})
    assert sorted(text.partition(" ")[0] for text in found) == [
        '"algo"',
        "env.id:",
        "env.n_envs:",
        "seed:",
        "trackers:",
    ]


def test_the_sound_part_is_the_whole_config_when_nothing_is_wrong() -> None:
    source = read_source({**LEAST, "seed": 3, "normalize": True})
    assert sound_part(source) == validate(source)[0]


def test_the_sound_part_leaves_out_what_is_wrong_and_nothing_else() -> None:
    config = sound_part(
        read_source(
            {
                "algo": 3,
                "env": {"id": "CartPole-v1", "n_envs": "two", "kwargs": {"a": 1}},
                "seed": 7,
                "normalise": True,
                "evaluation": {"every": "never", "episodes": 3},
                "trackers": ["wandb"],
            }
        )
    )
    assert (config.algo, config.total_timesteps, config.seed) == ("", 1, 7)
    assert config.env == EnvConfig.model_validate({"id": "CartPole-v1", "kwargs": {"a": 1}})
    assert config.evaluation.episodes == 20
    assert [tracker.name for tracker in config.trackers] == ["wandb"]


@pytest.mark.parametrize("env", [None, "CartPole-v1", [], {}, {"id": 3}])
def test_the_sound_part_of_no_env_says_so(env: Any) -> None:
    assert sound_part(Source({"env": env})).env.id == NO_ENV


def test_leaves_are_the_values_that_can_be_overridden() -> None:
    nested = {"a": 1, "b": {"c": [1, {"d": 2}], "e": {}}}
    assert dict(leaves(nested)) == {("a",): 1, ("b", "c"): [1, {"d": 2}], ("b", "e"): {}}
    assert dotted(("env", "wrappers", 0)) == "env.wrappers.0"


def test_the_model_at_a_key_path_is_found_through_lists_and_unions() -> None:
    assert model_at(()) is Config
    assert model_at(("normalize",)) is NormalizeConfig
    assert model_at(("env", "wrappers", 0)) is WrapperConfig
    assert model_at(("callbacks", 3)) is CallbackConfig
    assert model_at(("hyperparameters",)) is None
    assert model_at(("nothing", "here")) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "ppo", "3h", "a:b", "-", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "name", "kwargs", "class", "every", "seeds", "x.y", ""]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
configs = st.dictionaries(st.sampled_from([*Config.model_fields, "a.b", "", "normalise", "0"]), values, max_size=6)
keys = st.lists(st.sampled_from([*Config.model_fields, "id", "kwargs", "0", ""]), min_size=1, max_size=3).map(dotted)


@quickly
@given(configs, st.lists(st.tuples(keys, values), max_size=3))
def test_no_mapping_and_no_override_raises_anything_but_a_usage_error(
    mapping: dict[str, Any], pairs: list[tuple[str, Any]]
) -> None:
    try:
        source = read_source(mapping, [Override(key, value, "--set") for key, value in pairs])
    except UsageError as error:
        assert isinstance(error, ConfigError)  # noqa: PT017
        return
    config, problems = validate(source)
    assert (config is None) == bool(problems)
    assert all(problem.message.endswith((".", "?")) for problem in problems)
    assert isinstance(sound_part(source), Config)
