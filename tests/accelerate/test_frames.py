"""The buffer that stores frames once against SB3's ReplayBuffer: the same samples, and runs with the same bits."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from comparing import assert_same, final_state, killed_and_resumed, train_on_pixels
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecTransposeImage

from rlrun.accelerate import convolutions
from rlrun.accelerate.frames import FrameBuffer, stack_of, why_not
from rlrun.algorithms.crosschecks import EnvFacts, replay_buffer_bytes
from rlrun.runs.checkpoint import read_checkpoint
from rlrun.runs.replay import load_replay_buffer, save_replay_buffer, truncate_at_cut


class Noise(gym.Env):
    """Random pictures; episodes of one to nine steps, some ended by a time limit."""

    action_space = spaces.Discrete(3)

    def __init__(self, channels: int) -> None:
        self.observation_space = spaces.Box(0, 255, (20, 21, channels), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(1, 10))
        return self._draw(), {}

    def step(self, action: Any) -> Any:
        self._left -= 1
        timed_out = self._left == 0 and self.np_random.random() < 0.5
        return self._draw(), self.np_random.normal(), self._left == 0 and not timed_out, timed_out, {}

    def _draw(self) -> np.ndarray:
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8)


def stacked(n_envs: int, channels: int = 1, stack: int = 4) -> VecEnv:
    venv = VecTransposeImage(VecFrameStack(DummyVecEnv([lambda: Noise(channels)] * n_envs), stack))
    venv.seed(5)
    return venv


def buffers(venv: VecEnv, size: int, stack: int = 4, **settings: Any) -> tuple[FrameBuffer, ReplayBuffer]:
    known = (size, venv.observation_space, venv.action_space, "cpu")
    ours = FrameBuffer(*known, n_envs=venv.num_envs, stack=stack, **settings)
    return ours, ReplayBuffer(*known, n_envs=venv.num_envs, **settings)


def play(venv: VecEnv, steps: int, *targets: ReplayBuffer, obs: Any = None) -> Any:
    """Fill buffers as SB3's off-policy algorithms do."""
    obs = venv.reset() if obs is None else obs
    rng = np.random.default_rng(steps)
    for _ in range(steps):
        actions = rng.integers(0, 3, venv.num_envs)
        new, rewards, dones, infos = venv.step(actions)
        following = new.copy()
        for index in np.flatnonzero(dones):
            following[index] = infos[index]["terminal_observation"]
        for target in targets:
            target.add(obs, following, actions, rewards, dones, infos)
        obs = new
    return obs


def assert_same_samples(ours: ReplayBuffer, theirs: ReplayBuffer, batches: int = 20) -> None:
    assert (ours.pos, ours.full, ours.size()) == (theirs.pos, theirs.full, theirs.size())
    for seed in range(batches):
        drawn = []
        for buffer in (ours, theirs):
            np.random.seed(seed)
            drawn.append(buffer.sample(64))
        for name, one, other in zip(drawn[0]._fields, *drawn, strict=True):
            if other is not None:
                assert (one.dtype, one.shape) == (other.dtype, other.shape), name
                assert torch.equal(one, other), name


@pytest.mark.parametrize(("n_envs", "channels", "stack"), [(1, 1, 4), (3, 1, 4), (2, 3, 2), (1, 3, 5)])
@pytest.mark.parametrize("steps", [1, 7, 39, 40, 41, 43, 150])
def test_samples_have_the_bits_of_sb3s_buffer(n_envs: int, channels: int, stack: int, steps: int) -> None:
    venv = stacked(n_envs, channels, stack)
    ours, theirs = buffers(venv, 40 * n_envs, stack)
    play(venv, steps, ours, theirs)
    assert_same_samples(ours, theirs)


@pytest.mark.parametrize("steps", [1, 7, 40, 43, 150])
@pytest.mark.parametrize("n_steps", [2, 3, 12])
def test_samples_with_returns_of_several_steps_have_the_bits_of_sb3s_buffer(n_steps: int, steps: int) -> None:
    venv = stacked(2)
    known = (80, venv.observation_space, venv.action_space, "cpu")
    ours = FrameBuffer(*known, n_envs=2, stack=4, n_steps=n_steps, gamma=0.9)
    theirs = NStepReplayBuffer(*known, n_envs=2, n_steps=n_steps, gamma=0.9)
    for length in (steps, 5):
        play(venv, length, ours, theirs)
        for buffer in (ours, theirs):
            truncate_at_cut(buffer)
        assert_same_samples(ours, theirs)


def test_time_limits_are_ends_only_where_they_are_not_handled() -> None:
    venv = stacked(2)
    ours, theirs = buffers(venv, 80, handle_timeout_termination=False)
    play(venv, 100, ours, theirs)
    assert_same_samples(ours, theirs)


def test_envs_that_are_built_anew_break_the_chain_of_frames() -> None:
    venv = stacked(2)
    ours, theirs = buffers(venv, 60)
    for steps in (3, 11, 1, 50):
        play(venv, steps, ours, theirs)  # resets first
        truncate_at_cut(ours)
        truncate_at_cut(theirs)
        assert_same_samples(ours, theirs)


@pytest.mark.parametrize("steps", [5, 33, 90])
def test_a_buffer_from_a_checkpoint_samples_and_goes_on_as_the_one_that_was_saved(steps: int, tmp_path: Path) -> None:
    venv = stacked(2)
    saved, theirs = buffers(venv, 60)
    play(venv, steps, saved, theirs)
    for buffer in (saved, theirs):
        truncate_at_cut(buffer)
    state = save_replay_buffer(saved, tmp_path / "one", None, steps)
    restored, _ = buffers(venv, 60)
    load_replay_buffer(restored, tmp_path / "one", state)
    assert_same_samples(restored, theirs)
    play(venv, 20, saved, restored, theirs)
    assert_same_samples(restored, theirs)
    state = save_replay_buffer(saved, tmp_path / "two", tmp_path / "one", 20)
    again, _ = buffers(venv, 60)
    load_replay_buffer(again, tmp_path / "two", state)
    assert_same_samples(again, theirs)


def test_observations_that_are_no_stacks_are_kept_whole(tmp_path: Path) -> None:
    venv = stacked(2)
    ours, theirs = buffers(venv, 60)
    rng = np.random.default_rng(0)
    obs = play(venv, 13, ours, theirs)
    for _ in range(3):
        following = venv.reset()  # a callback's: what comes next does not follow from what was seen
        for target in (ours, theirs):
            target.add(obs, following, np.array([0, 1]), np.array([1.0, 2.0]), np.array([False, True]), [{}, {}])
        obs = play(venv, 5, ours, theirs, obs=following)
        obs = rng.integers(0, 256, obs.shape, dtype=np.uint8)
        obs = play(venv, 2, ours, theirs, obs=obs)
        assert ours.wholes
        assert_same_samples(ours, theirs)
    for buffer in (ours, theirs):
        truncate_at_cut(buffer)
    state = save_replay_buffer(ours, tmp_path / "one", None, 60)
    restored, _ = buffers(venv, 60)
    load_replay_buffer(restored, tmp_path / "one", state)
    assert_same_samples(restored, theirs)
    play(venv, 70, ours, restored, theirs)
    assert not ours.wholes
    for buffer in (ours, restored):
        assert_same_samples(buffer, theirs)


def test_a_buffer_that_was_reset_is_as_a_new_one() -> None:
    venv = stacked(2)
    ours, theirs = buffers(venv, 60)
    play(venv, 40, ours, theirs)
    for buffer in (ours, theirs):
        buffer.reset()
    play(venv, 9, ours, theirs)
    assert_same_samples(ours, theirs)


def test_a_million_transitions_of_atari_take_an_eighth_of_the_memory() -> None:
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    facts = EnvFacts(space, spaces.Discrete(6), None, 1)
    stacking = EnvFacts(space, spaces.Discrete(6), None, 1, stack=4)
    plain, ours = (replay_buffer_bytes(10**6, {}, each) for each in (facts, stacking))
    assert 7.9 < plain / ours < 8
    buffer = FrameBuffer(1000, space, spaces.Discrete(6), "cpu", stack=4)
    held = [array for array in vars(buffer).values() if isinstance(array, np.ndarray)]
    assert sum(array.nbytes for array in held) < 1.01 * replay_buffer_bytes(1000, {}, stacking) + 50_000


@pytest.mark.parametrize(
    ("space", "stack", "settings", "reason"),
    [
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), 4, {}, ""),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), None, {}, "not stacked"),
        (spaces.Box(0, 255, (4, 84), np.uint8), 4, {}, "no images"),
        (spaces.Box(-1, 1, (16,)), 4, {}, "no images"),
        (spaces.Dict({"image": spaces.Box(0, 255, (4, 84, 84), np.uint8)}), 4, {}, "no images"),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), 4, {"replay_buffer_class": ReplayBuffer}, "names another"),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), 4, {"optimize_memory_usage": True}, "optimize_memory_usage"),
    ],
)
def test_only_stacks_of_images_in_sb3s_own_buffer_are_stored_once(
    space: Any, stack: int | None, settings: dict[str, Any], reason: str
) -> None:
    assert reason in why_not(space, stack, settings)
    assert bool(reason) == bool(why_not(space, stack, settings))


@pytest.mark.parametrize(
    ("shape", "high", "stack"),
    [
        ((20, 21, 3), 255, 4),  # an image, channels last: transposed after it was stacked
        ((3, 40, 41), 255, 4),  # an image, channels first
        ((8, 8, 3), 255, None),  # stacked last, then taken for channels first: not transposed
        ((8, 8, 4), 1, None),  # no image to SB3: stacked last and not transposed
    ],
)
def test_frames_are_told_apart_only_along_the_first_axis(shape: Any, high: int, stack: int | None) -> None:
    class Picture(gym.Env):
        observation_space, action_space = spaces.Box(0, high, shape, np.uint8), spaces.Discrete(2)

    venv: VecEnv = VecFrameStack(DummyVecEnv([Picture]), 4)
    space: Any = venv.observation_space
    if is_image_space(space) and not is_image_space_channels_first(space):
        venv = VecTransposeImage(venv)
    assert stack_of(venv) == stack
    assert stack_of(VecMonitor(venv)) == stack
    assert stack_of(DummyVecEnv([Picture])) is None


# -- whole runs


def test_a_run_on_pixels_ends_with_the_bits_of_plain_sb3_and_so_does_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "speed_up", lambda *_, **__: None)  # rounds in another order
    plain = train_on_pixels(tmp_path / "plain", accelerate="off")
    ours = train_on_pixels(tmp_path / "ours")
    assert "every frame is stored once" in ours.description()["notes"]
    assert "every frame" not in plain.description()["notes"]
    first, second = final_state(plain), final_state(ours)
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []
    assert_same(ours, killed_and_resumed(train_on_pixels, tmp_path / "killed", 300, monkeypatch))
    steps = ours.directory.pointer("final")
    assert steps is not None
    path = read_checkpoint(ours.directory, steps).model_path
    with zipfile.ZipFile(path) as archive:
        assert not [member for member in archive.namelist() if b"rlrun" in archive.read(member)]
    model = DQN.load(path, device="cpu")
    assert model.replay_buffer_class is ReplayBuffer
    assert "stack" not in model.replay_buffer_kwargs
