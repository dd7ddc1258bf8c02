"""The replay buffer in files: read back as it was, unchanged chunks linked and not written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from rlrun.errors import UsageError
from rlrun.runs import replay
from rlrun.runs.replay import arrays, load_replay_buffer, save_replay_buffer, truncate_at_cut

BOX = spaces.Box(-1, 1, (3,), np.float32)
ACTION = spaces.Discrete(2)
ODD = spaces.Dict({"goal": BOX, "s-goal": BOX, "a/b": BOX, "..": BOX})


def buffer(space: spaces.Space[Any] = BOX, size: int = 50) -> ReplayBuffer:
    cls = DictReplayBuffer if isinstance(space, spaces.Dict) else ReplayBuffer
    return cls(size, space, ACTION, device="cpu", n_envs=1)  # type: ignore[arg-type]


def fill(target: ReplayBuffer, rows: int, seed: int = 0) -> None:
    draw = np.random.default_rng(seed)
    for _ in range(rows):
        space = target.observation_space
        observation: Any = (
            {key: draw.normal(size=(1, 3)) for key in space.spaces}
            if isinstance(space, spaces.Dict)
            else draw.normal(size=(1, 3))
        )
        done = np.array([draw.random() < 0.1])
        target.add(
            observation, observation, np.array([[1]]), draw.normal(size=1), done, [{"TimeLimit.truncated": False}]
        )


def assert_equal(one: ReplayBuffer, other: ReplayBuffer) -> None:
    rows = one.buffer_size if one.full else one.pos
    assert (one.pos, one.full) == (other.pos, other.full)
    for (name, first), (_, second) in zip(arrays(one), arrays(other), strict=True):
        assert np.array_equal(first[:rows], second[:rows]), name


@pytest.mark.parametrize("space", [BOX, ODD], ids=["Box", "Dict with odd keys"])
@pytest.mark.parametrize("rows", [0, 1, 30, 50, 70])
def test_a_buffer_is_read_back_as_it_was(space: spaces.Space[Any], rows: int, tmp_path: Path):
    written, read = buffer(space), buffer(space)
    fill(written, rows)
    state = save_replay_buffer(written, tmp_path / "replay", None, rows)
    load_replay_buffer(read, tmp_path / "replay", state)
    assert_equal(written, read)
    assert {file.parent for file in (tmp_path / "replay").rglob("*")} <= {tmp_path / "replay"}


def test_chunks_that_did_not_change_are_linked_and_the_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replay, "_CHUNK_BYTES", 10 * 12)  # ten rows of three float32
    written = buffer(size=100)
    fill(written, 35)
    save_replay_buffer(written, tmp_path / "1", None, 35)
    fill(written, 10, seed=1)
    state = save_replay_buffer(written, tmp_path / "2", tmp_path / "1", 10)
    linked = {file.name for file in (tmp_path / "2").iterdir() if file.stat().st_nlink == 2}
    observations = {name for name in linked if not name.startswith("2-")}  # actions have chunks of another length
    assert observations == {f"{index}-{start}-{start + 10}.npy" for index in (0, 1) for start in (0, 10, 20)}
    read = buffer(size=100)
    load_replay_buffer(read, tmp_path / "2", state)
    assert_equal(written, read)


def test_a_ring_that_came_round_writes_what_it_overwrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replay, "_CHUNK_BYTES", 10 * 12)
    written = buffer(size=50)
    fill(written, 45)
    save_replay_buffer(written, tmp_path / "1", None, 45)
    for number in range(2, 9):
        fill(written, 13, seed=number)
        state = save_replay_buffer(written, tmp_path / str(number), tmp_path / str(number - 1), 13)
        read = buffer(size=50)
        load_replay_buffer(read, tmp_path / str(number), state)
        assert_equal(written, read)


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    written, read = buffer(), buffer()
    fill(written, 20)
    save_replay_buffer(written, tmp_path / "1", None, 20)
    state = save_replay_buffer(written, tmp_path / "2", tmp_path / "1", 0)
    load_replay_buffer(read, tmp_path / "2", state)
    assert_equal(written, read)


@pytest.mark.parametrize("damage", ["missing", "another shape", "a pickle", "a row short", "another buffer", "no list"])
def test_files_that_do_not_fit_are_one_sentence(damage: str, tmp_path: Path):
    written, read = buffer(), buffer()
    fill(written, 20)
    state = save_replay_buffer(written, tmp_path / "1", None, 20)
    file = tmp_path / "1" / "0-0-20.npy"
    if damage == "missing":
        file.unlink()
    elif damage == "another shape":
        np.save(file, np.zeros((20, 1, 4), np.float32))
    elif damage == "a pickle":
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    elif damage == "a row short":
        state["files"] = state["files"][1:]
    elif damage == "another buffer":
        read = buffer(ODD)
    else:
        del state["files"]
    with pytest.raises(UsageError, match="does not fit this config"):
        load_replay_buffer(read, tmp_path / "1", state)


def test_a_cut_is_a_time_out_and_not_a_terminal_state():
    cut = buffer()
    fill(cut, 5)
    cut.dones[4], cut.timeouts[4] = 0, 0
    truncate_at_cut(cut)
    assert (cut.dones[4, 0], cut.timeouts[4, 0]) == (1, 1)
    sample = cut._get_samples(np.array([4]))
    assert float(sample.dones[0, 0]) == 0.0  # its value is bootstrapped


def test_an_episode_that_ended_is_left_as_it_is():
    ended = buffer()
    fill(ended, 5)
    ended.dones[4], ended.timeouts[4] = 1, 0
    truncate_at_cut(ended)
    assert (ended.dones[4, 0], ended.timeouts[4, 0]) == (1, 0)
    truncate_at_cut(buffer())
