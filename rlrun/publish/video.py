"""Film or show the agent of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrun.config.schema import Config
from rlrun.envs.seeding import Stream, draw_seeds
from rlrun.errors import UsageError
from rlrun.evaluation.encoding import ffmpeg
from rlrun.evaluation.filming import FOLDER, Film, Filming, film
from rlrun.evaluation.watching import require_display, watch
from rlrun.runs.directory import POINTERS, RunDirectory
from rlrun.runs.load import load_agent

_ENDLESS = 100_000  # episodes: nobody watches more


@dataclass(frozen=True)
class Video:
    """A film, and of what. It may stand wherever its path is wanted.

    :ivar checkpoint: ``best``, ``final``, ``latest`` or a number of timesteps
    :ivar seed: the run seed that the episodes' seeds derive from
    """

    run: str
    checkpoint: str
    timesteps: int
    seed: int
    deterministic: bool
    film: Film

    def __fspath__(self) -> str:
        return str(self.film.path)

    @property
    def path(self) -> Path:
        """The MP4."""
        return self.film.path

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.film.frames / self.film.fps

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun video --json``."""
        shot = self.film
        return {
            "run": self.run,
            "checkpoint": self.checkpoint,
            "timesteps": self.timesteps,
            "seed": self.seed,
            "deterministic": self.deterministic,
            "path": str(shot.path),
            "gif": str(shot.gif) if shot.gif else None,
            "frames": shot.frames,
            "fps": shot.fps,
            "seconds": round(self.seconds, 3),
            "width": shot.width,
            "height": shot.height,
            "bytes": shot.path.stat().st_size,
            "returns": list(shot.returns),
            "lengths": list(shot.lengths),
            "cut": shot.is_cut,
        }


def film_run(
    run: RunDirectory,
    config: Config,
    which: str | None,
    out: Path | None,
    settings: Filming,
    seed: int | None,
    *,
    trust: bool,
    say: Callable[[str], None],
) -> Video:
    """Film the agent of one checkpoint.

    :param which: the checkpoint; None: the first that there is of the best, the final and the newest
    :param out: the MP4; None: in the run's folder ``videos``
    :param seed: of the episodes; None: the config's own
    :raises UsageError: when the checkpoint is not there, or the env cannot be filmed
    :raises RlrunError: when filming fails; then there is no file
    """
    if out is not None and (out.suffix.lower() != ".mp4" or out.is_dir()):
        raise UsageError(f"{out} is no name for a video.", "Let it end in .mp4; --gif writes a GIF beside it.")
    ffmpeg()
    agent = load_agent(run, which, config, trust=trust, say=say)
    name = agent.checkpoint if agent.checkpoint in POINTERS else "checkpoint"
    seed = config.seed if seed is None else seed
    made = film(
        agent.model,
        agent.recipe,
        agent.statistics,
        draw_seeds(seed, Stream.VIDEO, settings.most_episodes),
        out or run.path / FOLDER / f"{name}-{agent.timesteps}.mp4",
        settings,
        deterministic=bool(config.evaluation.deterministic),
    )
    deterministic = bool(config.evaluation.deterministic)
    return Video(str(run.path), agent.checkpoint or "", agent.timesteps, seed, deterministic, made)


def watch_run(
    run: RunDirectory,
    config: Config,
    which: str | None,
    episodes: int | None,
    seed: int | None,
    *,
    trust: bool,
    say: Callable[[str], None],
) -> list[float]:
    """Show the agent of one checkpoint in a window, until that is closed.

    :param episodes: how many; None: without end
    :return: the returns of the episodes that ended
    :raises UsageError: when there is no display, or the env cannot draw itself
    """
    require_display()
    agent = load_agent(run, which, config, trust=trust, say=say)
    returns: list[float] = []

    def told(total: float, length: int) -> None:
        returns.append(total)
        say(f"episode {len(returns)}: return {total:.2f}, {length:,} steps")

    watch(
        agent.model,
        agent.recipe,
        agent.statistics,
        draw_seeds(config.seed if seed is None else seed, Stream.VIDEO, episodes or _ENDLESS),
        deterministic=bool(config.evaluation.deterministic),
        told=told,
    )
    return returns
