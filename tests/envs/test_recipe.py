"""The one recipe: the same env for every role, wrapped in one order, seeded by streams of its own."""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecFrameStack,
    VecTransposeImage,
    is_vecenv_wrapped,
)

from rlrun.config.loading import read_source, validate
from rlrun.envs.normalization import get_statistics
from rlrun.envs.normalizer import Normalizer
from rlrun.envs.recipe import EnvRecipe, RestartableVecEnv, Role, find_normalizer, fixed_seeds, max_episode_steps
from rlrun.envs.seeding import SeededResets, Stream, draw_seeds, endless_seeds
from rlrun.envs.workers import WorkersVecEnv
from rlrun.errors import MissingPackage, RlrunError, UsageError

NOT_TRAINING = [Role.EVAL, Role.VIDEO]


class Walk(gym.Env[np.ndarray, int]):
    """Pays 7 a step, ends after ten steps; its observation is a number drawn at the reset, then the step."""

    metadata = {"render_modes": ["rgb_array", "human"]}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 100, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length: int = 10, colour: str = "red", render_mode: str | None = None) -> None:
        self.length, self.colour, self.render_mode = length, colour, render_mode
        self.seeds: list[int | None] = []
        self.closed = False

    def observation(self) -> np.ndarray:
        return np.array([self.start, self.steps], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.start, self.steps = self.np_random.uniform(1, 100), 0
        return self.observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observation(), 7.0, self.steps >= self.length, False, {}

    def close(self) -> None:
        self.closed = True


class Lives(Walk):
    """As Atari games are: pictures, and one of three lives is lost every four steps."""

    observation_space = gym.spaces.Box(0, 255, (84, 84, 3), np.uint8)

    @property
    def ale(self) -> Lives:
        return self

    def lives(self) -> int:
        return 3 - self.steps // 4

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "UP"]

    def observation(self) -> np.ndarray:
        return np.full((84, 84, 3), 50 * self.steps % 256, np.uint8)


class Picture(Walk):
    observation_space = gym.spaces.Box(0, 255, (40, 50, 3), np.uint8)

    def observation(self) -> np.ndarray:
        return np.full((40, 50, 3), 10 * self.steps, np.uint8)


class Mixed(Walk):
    observation_space = gym.spaces.Dict(picture=Picture.observation_space, place=Walk.observation_space)

    def observation(self) -> Any:
        return {"picture": Picture.observation(self), "place": super().observation()}  # type: ignore[arg-type]


class Bare(gym.Env[np.ndarray, int]):
    """Takes no arguments at all."""

    observation_space = Walk.observation_space
    action_space = Walk.action_space


class Broken(Walk):
    def __init__(self, render_mode: str | None = None) -> None:
        raise OSError("no such level")


class Plus(gym.RewardWrapper):
    def __init__(self, env: gym.Env[Any, Any], amount: float = 1.0) -> None:
        super().__init__(env)
        self.amount = amount

    def reward(self, reward: Any) -> float:
        return reward + self.amount


class Twice(gym.RewardWrapper):
    def reward(self, reward: Any) -> float:
        return reward * 2


class Impatient(gym.Wrapper[Any, Any, Any, Any]):
    """Ends every episode after three steps; the env beneath does not know."""

    def reset(self, **kwargs: Any) -> Any:
        self.left = 3
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.left -= 1
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated or self.left == 0, info


def own(name: str) -> str:
    return f"{__name__}:{name}"


def recipe(env_id: str = own("Walk"), seed: int = 0, import_paths: tuple[str, ...] = (), **settings: Any) -> EnvRecipe:
    """A recipe; settings are of `env`, besides `normalize` and `eval_kwargs`."""
    more = {"normalize": settings.pop("normalize", None), "evaluation": {"env_kwargs": settings.pop("eval_kwargs", {})}}
    source = read_source(
        {"algo": "ppo", "seed": seed, "env": {"id": env_id, "vec": "serial", **settings}, "total_timesteps": 1, **more}
    )
    config, problems = validate(source)
    assert config is not None, problems
    return EnvRecipe.from_config(config, import_paths)


def made(role: Role = Role.TRAIN, seeds: Iterator[int] | None = None, **settings: Any) -> gym.Env[Any, Any]:
    return recipe(**settings).make(role, itertools.count() if seeds is None else seeds)


def layers(env: gym.Env[Any, Any]) -> list[type]:
    """Wrappers from the inside out."""
    found = []
    while isinstance(env, gym.Wrapper):
        found.append(type(env))
        env = env.env
    return found[::-1]


def vec_layers(venv: VecEnv) -> list[type]:
    """Wrappers of a vectorised env from the inside out."""
    found = []
    while hasattr(venv, "venv"):
        found.append(type(venv))
        venv = venv.venv
    return found[::-1]


def vec(role: Role, env_recipe: EnvRecipe, n_envs: int = 1) -> VecEnv:
    if role is Role.TRAIN:
        return env_recipe.make_training_vec()[0]
    statistics = None
    if env_recipe.normalize is not None:
        normalizer = find_normalizer(env_recipe.make_training_vec()[0])
        assert normalizer is not None
        statistics = get_statistics(normalizer)
    return env_recipe.make_vec(role, [itertools.count(index) for index in range(n_envs)], statistics)


def played(env: gym.Env[Any, Any], steps: int) -> list[tuple[float, bool]]:
    """Reward and end of each step; the env is reset where an episode ends."""
    env.reset()
    found = []
    for _ in range(steps):
        _, reward, terminated, truncated, _ = env.step(0)
        found.append((float(reward), terminated or truncated))
        if terminated or truncated:
            env.reset()
    return found


def episodes(venv: VecEnv, steps: int) -> list[dict[str, Any]]:
    """The records of the episodes that end."""
    venv.reset()
    zeros = np.zeros(venv.num_envs, int)
    infos = itertools.chain.from_iterable(venv.step(zeros)[3] for _ in range(steps))
    return [info["episode"] for info in infos if "episode" in info]


@pytest.mark.parametrize("role", list(Role))
def test_every_role_is_wrapped_alike_from_the_inside_out(role: Role) -> None:
    wrappers = [own("Plus"), own("Twice"), {"TimeLimit": {"max_episode_steps": 5}}]
    found = layers(made(role, wrappers=wrappers))
    assert len(found) == 5
    assert found[0] is TimeLimit
    assert issubclass(found[1], Monitor)
    assert [found[2].__name__, found[3].__name__, found[4]] == ["Plus", "Twice", SeededResets]


@pytest.mark.parametrize("role", list(Role))
def test_wrappers_come_in_the_order_of_the_config(role: Role) -> None:
    assert played(made(role, wrappers=[own("Plus"), own("Twice")]), 1) == [(16.0, False)]
    assert played(made(role, wrappers=[own("Twice"), own("Plus")]), 1) == [(15.0, False)]
    assert played(made(role, wrappers=[{own("Plus"): {"amount": 3}}, own("Plus")]), 1) == [(11.0, False)]


def test_gymnasiums_own_time_limit_is_the_innermost() -> None:
    env = made(env_id="CartPole-v1", wrappers=[own("Plus")])
    assert layers(env)[-4] is TimeLimit
    assert max_episode_steps(env) == 500


@pytest.mark.parametrize("role", list(Role))
def test_episodes_are_recorded_before_a_wrapper_changes_their_rewards(role: Role) -> None:
    venv = vec(role, recipe(wrappers=[own("Twice"), own("Plus")], normalize=True))
    (record,) = episodes(venv, 10)
    assert (record["r"], record["l"]) == (70.0, 10)


@pytest.mark.parametrize("role", list(Role))
def test_an_episode_that_a_time_limit_ends_is_recorded(role: Role) -> None:
    records = episodes(vec(role, recipe(wrappers=[own("Twice"), {"TimeLimit": {"max_episode_steps": 4}}])), 9)
    assert [(record["r"], record["l"]) for record in records] == [(28.0, 4), (28.0, 4)]


@pytest.mark.parametrize("role", list(Role))
def test_an_episode_that_an_own_wrapper_ends_is_recorded_at_its_last_step(role: Role) -> None:
    records = episodes(vec(role, recipe(wrappers=[own("Impatient")])), 7)
    assert [(record["r"], record["l"]) for record in records] == [(21.0, 3), (21.0, 3)]


def test_max_episode_steps_is_the_smallest_limit() -> None:
    def limited(*steps: int) -> gym.Env[Any, Any]:
        return made(wrappers=[{"TimeLimit": {"max_episode_steps": n}} for n in steps])

    assert max_episode_steps(limited()) is None
    assert max_episode_steps(limited(5)) == 5
    assert max_episode_steps(limited(5, 3)) == 3
    assert max_episode_steps(limited(3, 5)) == 3


@pytest.mark.parametrize("role", list(Role))
def test_keyword_arguments_reach_every_role(role: Role) -> None:
    env: Any = made(role, kwargs={"length": 3, "colour": "blue"})
    assert (env.unwrapped.length, env.unwrapped.colour) == (3, "blue")
    env = made(role, env_id="CartPole-v1", kwargs={"sutton_barto_reward": True})
    assert played(env, 1) == [(0.0, False)]


@pytest.mark.parametrize(
    ("role", "expected"), [(Role.TRAIN, (3, "blue")), *((role, (9, "blue")) for role in NOT_TRAINING)]
)
def test_evaluations_own_keyword_arguments_go_before_those_of_the_env_outside_training_only(
    role: Role, expected: tuple[int, str]
) -> None:
    env: Any = made(role, kwargs={"length": 3, "colour": "blue"}, eval_kwargs={"length": 9})
    assert (env.unwrapped.length, env.unwrapped.colour) == expected
    venv = vec(role, recipe(kwargs={"length": 3, "colour": "blue"}, eval_kwargs={"length": 9}))
    assert (venv.get_attr("length"), venv.get_attr("colour")) == ([expected[0]], [expected[1]])


@pytest.mark.parametrize(("role", "mode"), [(Role.TRAIN, "human"), (Role.EVAL, "human"), (Role.VIDEO, "rgb_array")])
def test_only_a_video_says_how_to_render(role: Role, mode: str) -> None:
    assert made(role, kwargs={"render_mode": "human"}).render_mode == mode
    assert made(role).render_mode == (mode if role is Role.VIDEO else None)


def test_life_loss_and_clipping_are_for_training_only() -> None:
    wrapper = {"AtariWrapper": {"noop_max": 0, "frame_skip": 1, "terminal_on_life_loss": True, "clip_reward": True}}

    def ends_and_rewards(role: Role) -> tuple[list[int], set[float]]:
        steps = played(made(role, env_id=own("Lives"), kwargs={"length": 12}, wrappers=[wrapper]), 12)
        return [number for number, (_, end) in enumerate(steps, 1) if end], {reward for reward, _ in steps}

    assert ends_and_rewards(Role.TRAIN) == ([4, 7, 10], {1.0})  # the reset after a lost life takes a step
    for role in NOT_TRAINING:
        assert ends_and_rewards(role) == ([12], {7.0})


@pytest.mark.parametrize("wrapper", ["ClipRewardEnv", "EpisodicLifeEnv"])
def test_wrappers_that_are_for_training_only_are_left_out_elsewhere(wrapper: str) -> None:
    def names(role: Role) -> list[str]:
        return [cls.__name__ for cls in layers(made(role, env_id=own("Lives"), wrappers=[own("Plus"), wrapper]))]

    assert names(Role.TRAIN)[1:] == ["Plus", wrapper, "SeededResets"]
    assert names(Role.EVAL)[1:] == names(Role.VIDEO)[1:] == ["Plus", "SeededResets"]


@pytest.mark.parametrize("role", list(Role))
def test_vectorised_envs_are_wrapped_in_one_order(role: Role) -> None:
    venv = vec(role, recipe(env_id=own("Picture"), frame_stack=4, normalize={"norm_obs": False}))
    innermost, *others = vec_layers(venv)
    assert issubclass(RestartableVecEnv, innermost)
    assert others == [VecFrameStack, VecTransposeImage, Normalizer]
    assert find_normalizer(venv) is venv


@pytest.mark.parametrize("role", list(Role))
def test_what_is_not_asked_for_is_not_wrapped(role: Role) -> None:
    venv = vec(role, recipe())
    assert len(vec_layers(venv)) == 1
    assert find_normalizer(venv) is None


@pytest.mark.parametrize("role", list(Role))
def test_images_come_channels_first_with_the_newest_frame_last(role: Role) -> None:
    venv = vec(role, recipe(env_id=own("Picture"), frame_stack=2))
    assert venv.observation_space.shape == (6, 40, 50)
    assert venv.reset().shape == (1, 6, 40, 50)
    for _ in range(3):
        observations = venv.step(np.array([0]))[0]
    assert observations[0, :, 0, 0].tolist() == [20, 20, 20, 30, 30, 30]


def test_images_in_a_dict_are_transposed_and_the_rest_is_stacked_too() -> None:
    venv = vec(Role.EVAL, recipe(env_id=own("Mixed"), frame_stack=2))
    observations: Any = venv.reset()
    assert {key: value.shape for key, value in observations.items()} == {"picture": (1, 6, 40, 50), "place": (1, 4)}


def test_outside_training_observations_are_normalized_by_given_statistics_and_rewards_left_alone() -> None:
    env_recipe = recipe(normalize={"clip_obs": 1000})
    statistics = {
        **{"obs.mean": np.array([0.0, 2.0]), "obs.var": np.array([4.0, 9.0]), "obs.count": np.array(100.0)},
        **{"ret.mean": np.array(0.0), "ret.var": np.array(49.0), "ret.count": np.array(100.0)},
    }
    plain, normalized = recipe().make(Role.EVAL, iter([5])), env_recipe.make_vec(Role.EVAL, [[5]], statistics)
    first = plain.reset()[0]
    assert normalized.reset()[0] == pytest.approx((first - [0, 2]) / [2, 3], abs=1e-5)
    for _ in range(9):
        assert normalized.step(np.array([0]))[1] == [7.0]
    normalizer = find_normalizer(normalized)
    assert normalizer is not None
    after = get_statistics(normalizer)
    assert all(np.array_equal(after[name], statistics[name]) for name in statistics)


def test_in_training_statistics_grow_and_rewards_are_normalized() -> None:
    venv = recipe(normalize=True).make_training_vec()[0]
    normalizer = find_normalizer(venv)
    assert normalizer is not None
    venv.reset()
    rewards = [float(venv.step(np.array([0]))[1][0]) for _ in range(20)]
    assert get_statistics(normalizer)["obs.count"] == pytest.approx(21, abs=0.01)
    assert not {7.0} & set(rewards)


def test_settings_of_normalize_reach_every_role() -> None:
    settings = {"norm_reward": False, "clip_obs": 5.0, "clip_reward": 6.0, "gamma": 0.5, "epsilon": 1e-4}
    for role in Role:
        normalizer = find_normalizer(vec(role, recipe(normalize=settings)))
        assert normalizer is not None
        assert {name: getattr(normalizer, name) for name in settings} == settings


@pytest.mark.parametrize("role", NOT_TRAINING)
def test_an_agent_that_needs_statistics_is_not_evaluated_without(role: Role) -> None:
    with pytest.raises(RlrunError, match="needs its normalization statistics, and there are none"):
        recipe(normalize=True).make_vec(role, [[1]])


def test_statistics_of_another_env_are_refused() -> None:
    other = find_normalizer(recipe(env_id="CartPole-v1", normalize=True).make_training_vec()[0])
    assert other is not None
    with pytest.raises(UsageError, match="They belong to another env"):
        recipe(normalize=True).make_vec(Role.EVAL, [[1]], get_statistics(other))


def seeds_of(venv: VecEnv) -> list[list[int | None]]:
    return venv.get_attr("seeds")


def starts(venv: VecEnv, resets: int = 3) -> list[list[float]]:
    """What each env drew at its first resets."""
    found = [venv.reset()[:, 0].tolist()]
    for _ in range(resets - 1):
        for _ in range(10):
            observations = venv.step(np.zeros(venv.num_envs, int))[0]
        found.append(observations[:, 0].tolist())
    return [list(column) for column in zip(*found, strict=True)]


def test_each_training_env_has_its_stream_and_seeds_its_first_reset() -> None:
    venv = recipe(n_envs=3, seed=5).make_training_vec()[0]
    starts(venv)
    first = [next(endless_seeds(5, Stream.TRAIN_ENVS, 0, index)) for index in range(3)]
    assert seeds_of(venv) == [[seed, None, None] for seed in first]


def test_with_seed_every_reset_each_one_takes_the_streams_next() -> None:
    venv = recipe(n_envs=2, seed=5, seed_every_reset=True).make_training_vec()[0]
    starts(venv)
    expected = [list(itertools.islice(endless_seeds(5, Stream.TRAIN_ENVS, 0, index), 3)) for index in range(2)]
    assert seeds_of(venv) == expected


def test_what_a_training_env_sees_does_not_depend_on_how_many_there_are() -> None:
    few, many = (starts(recipe(n_envs=n).make_training_vec()[0]) for n in (2, 5))
    assert many[:2] == few
    assert len(set(itertools.chain(*many))) == 15


def test_the_run_seed_decides_what_training_envs_see() -> None:
    one, again, other = (starts(recipe(n_envs=2, seed=seed).make_training_vec()[0]) for seed in (1, 1, 2))
    assert one == again
    assert not set(itertools.chain(*one)) & set(itertools.chain(*other))


def test_evaluating_meanwhile_changes_nothing_that_training_envs_see() -> None:
    undisturbed = starts(recipe().make_training_vec()[0])
    training, evaluating = recipe().make_training_vec()[0], recipe().make_vec(Role.EVAL, [itertools.count()])
    starts(evaluating)
    assert starts(training) == undisturbed


@pytest.mark.parametrize("role", NOT_TRAINING)
@pytest.mark.parametrize("every", [None, True, False])
def test_outside_training_every_reset_takes_a_seed_of_its_env(role: Role, every: bool | None) -> None:
    venv = recipe(seed_every_reset=every).make_vec(role, [[1, 2, 3], iter([4, 5, 6])])
    starts(venv)
    assert seeds_of(venv) == [[1, 2, 3], [4, 5, 6]]


def test_an_episode_depends_on_its_seed_alone() -> None:
    seeds = draw_seeds(0, Stream.EVALUATION, 6)
    one = starts(recipe().make_vec(Role.EVAL, fixed_seeds(seeds, 1)), resets=6)
    three = starts(recipe().make_vec(Role.EVAL, fixed_seeds(seeds, 3)), resets=2)
    assert list(itertools.chain(*zip(*three, strict=True))) == one[0]


@pytest.mark.parametrize(
    ("n_envs", "expected"),
    [
        (1, [[1, 2, 3, 4, 5]]),
        (2, [[1, 3, 5], [2, 4]]),
        (5, [[1], [2], [3], [4], [5]]),
        (6, [[1], [2], [3], [4], [5], []]),
    ],
)
def test_episode_seeds_are_dealt_in_turn(n_envs: int, expected: list[list[int]]) -> None:
    assert fixed_seeds([1, 2, 3, 4, 5], n_envs) == expected


def test_panda_is_seeded_at_every_reset_unless_told_otherwise() -> None:
    pytest.importorskip("panda_gym")

    def goals(**settings: Any) -> list[Any]:
        env = made(env_id="PandaReach-v3", seeds=iter([1, 2]), **settings)
        try:
            return [env.reset()[0]["desired_goal"].tolist() for _ in range(2)]
        finally:
            env.close()

    first, again, once = goals(), goals(), goals(seed_every_reset=False)
    assert first == again
    assert first[0] != first[1]
    assert once[0] == first[0]
    assert once[1] != first[1]


def test_restarting_builds_fresh_envs_seeded_by_the_timesteps_and_closes_the_old_ones() -> None:
    venv, restartable = recipe(n_envs=2).make_training_vec()
    before, old = starts(venv), [env.unwrapped for env in restartable.venv.envs]  # type: ignore[attr-defined]
    restartable.restart(128)
    first_seeds = [next(endless_seeds(0, Stream.TRAIN_ENVS, 128, index)) for index in range(2)]
    after = starts(venv)
    assert [seeds[0] for seeds in seeds_of(venv)] == first_seeds
    assert all(env.closed for env in old)
    assert not set(itertools.chain(*before)) & set(itertools.chain(*after))


def test_restarted_envs_do_not_depend_on_what_was_played_before() -> None:
    (one, inner), (other, other_inner) = recipe().make_training_vec(), recipe().make_training_vec()
    starts(one, resets=5)
    inner.restart(64)
    inner.restart(128)
    other_inner.restart(128)
    assert starts(one) == starts(other)


def test_what_is_wrapped_around_restarted_envs_stays() -> None:
    venv, restartable = recipe(env_id=own("Picture"), frame_stack=2, normalize={"norm_obs": False}).make_training_vec()
    normalizer = find_normalizer(venv)
    assert normalizer is not None
    venv.reset()
    venv.step(np.array([0]))
    before = get_statistics(normalizer)
    restartable.restart(1)
    assert all(np.array_equal(array, before[name]) for name, array in get_statistics(normalizer).items())
    assert venv.reset()[0, :, 0, 0].tolist() == [0] * 6
    assert is_vecenv_wrapped(venv, VecFrameStack)


def test_a_recipe_can_be_sent_to_another_process() -> None:
    env_recipe = recipe(wrappers=[own("Twice")], normalize=True, eval_kwargs={"length": 3})
    assert pickle.loads(pickle.dumps(env_recipe)) == env_recipe


def test_a_recipe_of_one_env_differs_in_nothing_else() -> None:
    env_recipe = recipe(n_envs=8, vec="workers", wrappers=[own("Twice")], frame_stack=2, normalize=True, seed=3)
    one = env_recipe.single()
    assert (one.env.n_envs, one.env.vec) == (1, "serial")
    assert one == recipe(n_envs=1, vec="serial", wrappers=[own("Twice")], frame_stack=2, normalize=True, seed=3)


MODULE = """
import gymnasium as gym
import numpy as np


class {name}(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([self.np_random.random()], np.float32), {{}}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {{}}


if "{name}-v3" not in gym.registry:
    gym.register("{name}-v3", {name}, max_episode_steps=9)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's in ``tmp_path``, named like its env class but in small letters."""
    name = f"Own{tmp_path.name.replace('_', '')}"
    (tmp_path / f"{name.lower()}.py").write_text(MODULE.format(name=name), encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    gym.registry.pop(f"{name}-v3", None)
    sys.modules.pop(name.lower(), None)


@pytest.mark.parametrize("form", ["class", "module", "imports"])
def test_the_users_own_env_is_found_in_the_users_folder(form: str, module: str, tmp_path: Path) -> None:
    file = module.lower()
    env_id = {"class": f"{file}:{module}", "module": f"{file}:{module}-v3", "imports": f"{module}-v3"}[form]
    imports = [file] if form == "imports" else []
    env = made(env_id=env_id, imports=imports, import_paths=(str(tmp_path),))
    assert type(env.unwrapped).__name__ == module
    assert max_episode_steps(env) == (None if form == "class" else 9)


@pytest.mark.slow
def test_the_users_own_env_trains_in_processes_of_its_own_with_the_seeds_it_has_in_this_one(
    module: str, tmp_path: Path
) -> None:
    found = []
    for mode in ("serial", "workers"):
        env_recipe = recipe(f"{module.lower()}:{module}-v3", vec=mode, n_envs=2, import_paths=(str(tmp_path),))
        venv, restartable = env_recipe.make_training_vec()
        try:
            assert isinstance(restartable.venv, WorkersVecEnv) == (mode == "workers")
            found.append(venv.reset().tolist())
        finally:
            venv.close()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env_id": "LunarLander-v2"}, "LunarLander-v2 was removed from its package; its successor is LunarLander-v3."),
        ({"env_id": "Cartpole-v1"}, 'there is no env "Cartpole-v1". Did you mean "CartPole-v1"?'),
        ({"env_id": "no_such_module:Mine-v0"}, 'the module "no_such_module" was not found.'),
        ({"env_id": "no_such_module:Mine"}, 'the module "no_such_module" was not found.'),
        ({"imports": ["no_such_module"]}, 'the module "no_such_module" was not found.'),
        ({"env_id": own("Wlak")}, f'the module "{__name__}" has no "Wlak". Did you mean "Walk"?'),
        ({"env_id": own("recipe")}, f'"{own("recipe")}" is not a subclass of Env.'),
        ({"kwargs": {"lenght": 3}}, f'{own("Walk")} has no keyword "lenght". Did you mean "length"?'),
        ({"env_id": "CartPole-v1", "kwargs": {"sutton": 1}}, 'CartPole-v1 has no keyword "sutton".'),
        ({"env_id": own("Bare"), "kwargs": {"length": 3}}, f"{own('Bare')} takes no keyword arguments."),
        ({"env_id": own("Broken")}, f"{own('Broken')} could not be built: OSError: no such level"),
        ({"wrappers": ["TimeLimt"]}, 'there is no wrapper "TimeLimt". Did you mean "TimeLimit"?'),
        ({"wrappers": [{"TimeLimit": {"steps": 5}}]}, 'TimeLimit has no keyword "steps".'),
        ({"wrappers": [{"TimeLimit": {"max_episode_steps": "x"}}]}, "TimeLimit's max_episode_steps must be a whole"),
        ({"wrappers": ["AtariWrapper"]}, "AtariWrapper could not be built: AttributeError: "),
        ({"wrappers": ["RescaleAction"]}, "RescaleAction could not be built: "),
    ],
)
def test_what_cannot_be_built_is_a_usage_error_for_every_role(settings: dict[str, Any], message: str) -> None:
    for role in Role:
        with pytest.raises(UsageError) as raised:
            made(role, **settings)
        assert str(raised.value).startswith(message)


def test_a_keyword_of_the_evaluation_that_the_env_does_not_take_is_told_where_it_is_used() -> None:
    made(Role.TRAIN, eval_kwargs={"lenght": 3})
    for role in NOT_TRAINING:
        with pytest.raises(UsageError, match='has no keyword "lenght"'):
            made(role, eval_kwargs={"lenght": 3})


def test_an_env_whose_package_is_missing_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "panda_gym", None)
    with pytest.raises(MissingPackage, match=r"PandaReach-v3 needs the module panda_gym.*rlrun\[panda\]"):
        made(env_id="PandaReach-v3")
