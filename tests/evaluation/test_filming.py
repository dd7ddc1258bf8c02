"""Videos: what is on them, that browsers play them, and what happens when an env or the machine cannot draw."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from comparing import assert_same

import rlrun
from rlrun.envs.families import family_of
from rlrun.errors import RlrunError, UsageError
from rlrun.evaluation import encoding, watching
from rlrun.evaluation.filming import Filming
from rlrun.evaluation.pictures import Figures, as_filmed, checked, is_flat, with_figures
from rlrun.run import Run

TINY: dict[str, Any] = {
    **{"total_timesteps": 64, "env.n_envs": 1, "trackers": [], "evaluation.episodes": 0},
    **{"hyperparameters.n_steps": 64, "hyperparameters.batch_size": 64},
}
# One env of each family that the course uses: id, algorithm, policy, what is set, width and height of a frame.
FILMED = {
    "classic control": ("CartPole-v1", "ppo", "MlpPolicy", {}, (600, 400)),
    "Box2D": ("LunarLander-v3", "ppo", "MlpPolicy", {}, (600, 400)),
    "toy text": ("FrozenLake-v1", "ppo", "MlpPolicy", {}, (512, 512)),
    "Atari": (
        "ALE/Pong-v5",
        "ppo",
        "CnnPolicy",
        {"env.wrappers": [{"AtariWrapper": {"frame_skip": 1}}], "env.frame_stack": 4},
        (320, 420),
    ),
    "Panda": ("PandaReachDense-v3", "ppo", "MultiInputPolicy", {}, (720, 480)),
    "PyBullet": ("AntBulletEnv-v0", "ppo", "MlpPolicy", {}, (640, 480)),
}
PACKAGES = {"Panda": "panda_gym", "PyBullet": "pybullet_envs_gymnasium"}


class Lamp(gym.Env[Any, Any]):
    """Episodes of five steps, reward one each; draws a square that grows, or what it is told to."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, picture: str = "square", render_mode: str | None = None) -> None:
        self.picture, self.render_mode, self.steps = picture, render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == 5, False, {}

    def render(self) -> Any:
        if self.picture == "none":
            return None
        if self.picture == "raises":
            raise OSError("no OpenGL here")
        frame = np.zeros((41, 61, 3), np.uint8)
        if self.picture == "resizing":
            frame = np.zeros((41 + self.steps, 61, 3), np.uint8)
        if self.picture != "flat":
            frame[: 5 * (self.steps + 1), :20] = (250, 20, 20)
        return frame


class Shy(Lamp):
    """Cannot draw: its constructor takes no render mode."""

    def __init__(self) -> None:
        super().__init__()


LAMP = f"{__name__}:Lamp"


def trained(folder: Path, env: str = LAMP, algo: str = "ppo", policy: str = "MlpPolicy", **changes: Any) -> Run:
    config = folder / "config.yaml"
    config.write_text(
        f"algo: {algo}\nenv: {{id: '{env}'}}\ntotal_timesteps: 64\nhyperparameters: {{policy: {policy}}}\n"
    )
    return rlrun.train(config, overrides={**TINY, **changes}, run_dir=folder / "runs", progress=False)


@pytest.fixture(scope="module")
def lamp(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("lamp"))


def frames_of(path: Path) -> np.ndarray:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader])


@pytest.mark.parametrize("family", FILMED)
def test_each_family_is_filmed_without_a_display(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    if family in PACKAGES:
        pytest.importorskip(PACKAGES[family])
    monkeypatch.delenv("DISPLAY", raising=False)
    env, algo, policy, changes, size = FILMED[family]
    assert family_of(env).name == family
    made = trained(folder, env, algo, policy, **changes).video(length=12)
    assert (made.film.width, made.film.height) == size
    frames = frames_of(made.path)
    assert len(frames) == made.film.frames
    assert np.ptp(frames[0].reshape(-1, 3), axis=0).max() > 50
    assert (frames[0] != frames[-1]).any()


@pytest.mark.parametrize(("fps", "episodes"), [(10, 9), (3, 3), (240, 10)])
def test_short_episodes_follow_one_another_until_the_film_is_long_enough(
    lamp: Run, tmp_path: Path, fps: int, episodes: int
) -> None:
    made = lamp.video(tmp_path / "a.mp4", fps=fps)  # six frames each
    assert (len(made.film.lengths), made.film.frames, made.film.is_cut) == (episodes, 6 * episodes, False)


def test_a_film_has_a_frame_for_every_state_and_says_what_was_seen(lamp: Run, tmp_path: Path):
    made = lamp.video(tmp_path / "a.mp4", episodes=2)
    assert made.film.frames == 2 * (5 + 1)  # the first state and the last one too
    assert (made.film.returns, made.film.lengths, made.film.is_cut) == ((5.0, 5.0), (5, 5), False)
    assert (made.film.fps, made.seconds) == (10, 1.2)
    frames = frames_of(made.path)
    red = (frames[:, :, :, 0].astype(int) - frames[:, :, :, 1] > 100).sum(axis=(1, 2))
    assert np.all(np.diff(red[:6]) > 0)  # the square grows with every step
    assert np.all(np.diff(red[6:]) > 0)


def test_browsers_play_it(lamp: Run, tmp_path: Path):
    path = lamp.video(tmp_path / "a.mp4").path
    said = subprocess.run(
        [encoding.ffmpeg(), "-i", str(path)], capture_output=True, text=True, timeout=60, check=False
    ).stderr
    assert re.search(r"Video: h264 .*yuv420p", said), said
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # so that it plays before it is loaded


def test_length_ends_it_within_an_episode(lamp: Run, tmp_path: Path):
    made = lamp.video(tmp_path / "a.mp4", episodes=9, length=8, fps=25)
    assert (made.film.frames, made.film.returns, made.film.is_cut, made.film.fps) == (10, (5.0,), True, 25)


def test_a_gif_beside_it(lamp: Run, tmp_path: Path):
    made = lamp.video(tmp_path / "a.mp4", gif=True, episodes=1)
    assert made.film.gif == tmp_path / "a.gif"
    assert (tmp_path / "a.gif").read_bytes().startswith(b"GIF89a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4"]


def test_the_overlay_writes_in_the_corner_only(lamp: Run, tmp_path: Path):
    plain, written = (frames_of(lamp.video(tmp_path / f"{n}.mp4", overlay=n == "b").path).astype(int) for n in "ab")
    differs = np.abs(plain - written).max(axis=3) > 60
    assert differs[:, :40].any()
    assert not differs[:, 60:].any()


def test_the_same_seed_films_the_same(lamp: Run, tmp_path: Path):
    first, second, other = (
        lamp.video(tmp_path / f"{i}.mp4", seed=seed).path.read_bytes() for i, seed in enumerate((3, 3, 4))
    )
    assert first == second
    assert len(other) > 0


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ("flat", "one flat colour"),
        ("none", "draws no image: its `render` returned NoneType"),
        ("raises", "cannot draw itself: OSError: no OpenGL here"),
        ("resizing", "change their size"),
    ],
)
def test_an_env_that_draws_nothing_useful_leaves_no_file(picture: str, words: str, folder: Path):
    run = trained(folder, **{"env.kwargs": {"picture": picture}})
    with pytest.raises(RlrunError, match=words):
        run.video(folder / "a.mp4")
    assert not list(folder.glob("*a*mp4*"))


def test_an_env_that_takes_no_render_mode_says_so(folder: Path):
    run = trained(folder, f"{__name__}:Shy")
    with pytest.raises(UsageError, match="takes no `render_mode`, so it cannot be filmed"):
        run.video()
    assert not (run.path / "videos").exists()


def test_no_ffmpeg_is_one_sentence(lamp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(RlrunError, match="A video needs ffmpeg, and there is none"):
        lamp.video(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\ncat >/dev/null; echo no room >&2; exit 1\n"])
def test_an_ffmpeg_that_fails_leaves_no_file(program: str, lamp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = tmp_path / "bin" / "ffmpeg"
    fake.parent.mkdir()
    fake.write_text(program)
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    with pytest.raises(RlrunError, match="ffmpeg could not write the video"):
        lamp.video(tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_video_that_does_not_hold_what_was_filmed_is_refused(lamp: Run, tmp_path: Path):
    made = lamp.video(tmp_path / "a.mp4", episodes=1)
    size = (made.film.height, made.film.width)
    with pytest.raises(RlrunError, match="6 frames of"):
        encoding.check_film(made.path, size, 7)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(made.path.read_bytes()[:300])
    with pytest.raises(RlrunError, match="does not decode"):
        encoding.check_film(broken, size, 6)


@pytest.mark.parametrize("settings", [{"episodes": 0}, {"length": -1}, {"fps": 0.0}])
def test_settings_are_above_zero(settings: dict[str, Any]):
    with pytest.raises(UsageError, match="must be above 0"):
        Filming(**settings)


def test_training_is_filmed_and_learns_the_same(tmp_path: Path):
    changes = {"total_timesteps": 128, "checkpoint.every": 64}
    plain = trained_in(tmp_path / "a", **changes)
    filmed = trained_in(tmp_path / "b", **changes, **{"video.every": 64, "video.length": 7})
    assert sorted(path.name for path in (filmed.path / "videos").iterdir()) == ["128.mp4", "64.mp4"]
    assert len(frames_of(filmed.path / "videos/64.mp4")) == 6
    assert_same(plain, filmed)


def test_a_film_that_fails_is_a_warning_once_and_training_goes_on(rlrun_command: Callable[..., Any], folder: Path):
    (folder / "c.yaml").write_text(
        f"algo: ppo\nenv: {{id: '{LAMP}', kwargs: {{picture: raises}}}}\ntotal_timesteps: 128\n"
        "hyperparameters: {n_steps: 64, batch_size: 64}\nvideo: {every: 64}\ntrackers: []\n"
    )
    outcome = rlrun_command("train", "c.yaml", "--set", "env.n_envs=1")
    assert outcome.code == 0
    assert outcome.err.count("warning: no video at 64 timesteps, and none from here on:") == 1
    assert outcome.err.count("no OpenGL here") == 1
    assert not list(folder.rglob("*.mp4"))


def trained_in(folder: Path, **changes: Any) -> Run:
    folder.mkdir()
    return trained(folder, **changes)


def test_pictures_are_enlarged_evened_and_checked():
    small = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert as_filmed(small).shape == (290, 406, 3)
    assert as_filmed(np.zeros((401, 601, 3), np.uint8)).shape == (402, 602, 3)
    assert checked(small[:, :, 0], "x").shape == (5, 7, 3)
    assert checked(np.zeros((5, 7, 4), np.uint8), "x").shape == (5, 7, 3)
    assert is_flat(np.full((4, 4, 3), 9, np.uint8))
    assert not is_flat(small)
    for wrong in (None, np.zeros((5, 7, 3)), np.zeros((0, 7, 3), np.uint8), np.zeros((5, 7, 2), np.uint8)):
        with pytest.raises(RlrunError, match="draws no image"):
            checked(wrong, "x")
    figures = Figures(1, 20, -3.5)
    assert str(figures) == "episode 1  step 20  return -3.50"
    assert not is_flat(with_figures(np.zeros((402, 602, 3), np.uint8), figures))


def test_watching_without_a_display_is_one_sentence(
    rlrun_command: Callable[..., Any], lamp: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    outcome = rlrun_command("watch", str(lamp.path))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: There is no display here")


def test_watching_plays_episodes_and_waits_between_steps(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(watching, "has_display", lambda: True)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    run = trained(folder, "CartPole-v1")
    returns = run.watch(episodes=2)
    assert len(returns) == 2
    assert "episode 2: return" in capsys.readouterr().err


def test_the_command_says_what_it_made(rlrun_command: Callable[..., Any], lamp: Run, tmp_path: Path):
    out = tmp_path / "a b.mp4"
    outcome = rlrun_command("video", str(lamp.path), "--out", str(out), "--json", "--episodes", "1")
    assert outcome.code == 0, outcome.err
    values = json.loads(outcome.out)
    assert (values["path"], values["frames"], values["returns"], values["cut"]) == (str(out), 6, [5.0], False)
    assert values["bytes"] == out.stat().st_size
    said = rlrun_command("video", str(lamp.path), "--out", str(out), "--episodes", "1")
    assert "6 frames of 428 x 288 pixels, 0.6 s at 10 frames a second" in said.out
    for wrong in (["--fps", "0"], ["--out", str(tmp_path / "a.avi")], ["--episodes", "0"], ["--checkpoint", "7"]):
        refused = rlrun_command("video", str(lamp.path), *wrong)
        assert (refused.code, refused.out) == (2, ""), wrong
        assert refused.err.count("\n") <= 2, refused.err
