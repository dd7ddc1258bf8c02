"""Films the agent while it learns. Whatever goes wrong with it is a warning, and training goes on."""

from __future__ import annotations

from stable_baselines3.common.base_class import BaseAlgorithm

from rlrun.config.schema import Config
from rlrun.envs.normalization import Statistics
from rlrun.envs.recipe import EnvRecipe
from rlrun.envs.seeding import Stream, draw_seeds
from rlrun.errors import RlrunError
from rlrun.evaluation.filming import FOLDER, Filming, film
from rlrun.runs.directory import RunDirectory
from rlrun.training.interruption import Stops
from rlrun.training.progress import Reporter


class TrainingVideos:
    """Writes ``videos/<timesteps>.mp4``, until the first that fails."""

    def __init__(self, config: Config, run: RunDirectory, recipe: EnvRecipe, reporter: Reporter, stops: Stops) -> None:
        self._config, self._run, self._recipe = config, run, recipe
        self._reporter, self._stops = reporter, stops
        self._has_failed = False

    def film(self, model: BaseAlgorithm, statistics: Statistics | None, timesteps: int) -> None:
        """Film the agent of this moment; the same episodes every time.

        :param statistics: normalization statistics of this moment
        """
        if self._has_failed:
            return
        settings = self._config.video
        try:
            film(
                model,
                self._recipe,
                statistics,
                draw_seeds(self._config.seed, Stream.VIDEO, settings.episodes),
                self._run.path / FOLDER / f"{timesteps}.mp4",
                Filming(settings.episodes, settings.length),
                deterministic=bool(self._config.evaluation.deterministic),
                should_stop=self._stops.check,
            )
        except Exception as error:  # no display, no OpenGL, no ffmpeg, and whatever the env's own drawing raises
            # Another process that has taken the run is no failure of the film.
            self._stops.check_lock()
            self._has_failed = True
            words = error.message if isinstance(error, RlrunError) else f"{type(error).__name__}: {error}"
            self._reporter.said(f"warning: no video at {timesteps:,} timesteps, and none from here on: {words}")
