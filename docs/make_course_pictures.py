"""The pictures of docs/course.md: a run's training and evaluation returns, and a frame of its best agent.

python docs/make_course_pictures.py lunarlander=runs/LunarLander-v3/ppo/NAME ... [--moment 0.5]
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import imageio_ffmpeg
import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt

import rlrun

PLACE = Path(__file__).parent / "images" / "course"
WINDOW = 100


def columns(path: Path, *names: str) -> list[np.ndarray]:
    """Of a CSV file, as numbers."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [np.array([float(row[name]) for row in rows]) for name in names]


def frame(run: rlrun.Run, moment: float) -> np.ndarray:
    """One frame of a film of one episode, (height, width, 3).

    :param moment: which: 0 is the first, 1 the last
    """
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, "film.mp4")
        run.video(out=film, length=1_000)
        reader = imageio_ffmpeg.read_frames(str(film))
        size = next(reader)["size"]
        frames = list(reader)
    chosen = frames[min(len(frames) - 1, int(moment * len(frames)))]
    return np.frombuffer(chosen, np.uint8).reshape(size[1], size[0], 3)


def draw(name: str, run: rlrun.Run, moment: float) -> None:
    """Write one picture."""
    figure, (curve, picture) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(3, 2), layout="constrained")
    steps, returns = columns(run.path / "episodes.csv", "timesteps", "return")
    width = min(WINDOW, max(1, len(returns) // 5))
    mean = np.convolve(returns, np.ones(width) / width, "valid")
    curve.plot(steps[width - 1 :], mean, color="#0072B2", label=f"training, mean of {width} episodes")
    at, scores = columns(run.path / "evaluations.csv", "timesteps", "return")
    moments = np.unique(at)
    curve.plot(moments, [scores[at == m].mean() for m in moments], "o-", color="#D55E00", ms=3, label="evaluation")
    curve.set(xlabel="timesteps", ylabel="return", title=f"{run.config.algo} on {run.config.env.id}")
    curve.xaxis.set_major_formatter(mpl.ticker.EngFormatter(sep=""))
    curve.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    curve.spines[["top", "right"]].set_visible(False)
    picture.imshow(frame(run, moment))
    picture.set_axis_off()
    PLACE.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLACE / f"{name}.png", dpi=80)
    plt.close(figure)


def main() -> None:
    """Draw what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--moment", type=float, default=0.5, help="of the film, from 0 to 1")
    given = parser.parse_args()
    for item in given.runs:
        name, _, path = item.partition("=")
        draw(name, rlrun.open_run(path), given.moment)
        print(PLACE / f"{name}.png")


if __name__ == "__main__":
    main()
