"""Package, push, pull and verify: what the commands of these names do."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from rlrun.config.schema import EnvConfig
from rlrun.errors import UsageError
from rlrun.evaluation.statistics import Evaluation, bootstrap_interval
from rlrun.hub.claims import Claim, agrees, is_same_task, read_claim
from rlrun.hub.client import writing_client
from rlrun.hub.pulling import adopt, download
from rlrun.hub.pushing import push_folder
from rlrun.hub.qtables import FILE as QTABLE
from rlrun.hub.qtables import read_qtable
from rlrun.publish.package import Package, make_package, read_package
from rlrun.run import Run

_FILMED = 10  # episodes at most: those of some envs are short
_FOLDER = "package"
_MOST = 1_000  # episodes that a card's word makes this machine play
_FEWEST = 20
# Episodes are verified on seeds of our own: an author cannot have picked lucky ones.
_OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class Verdict:
    """A claim beside a measurement.

    :ivar env: in which it was measured
    :ivar env_kwargs: of that env
    :ivar consistent: whether both are of the same env, and can have the same mean
    """

    place: str
    claim: Claim
    env: str
    env_kwargs: dict[str, Any]
    returns: tuple[float, ...]
    seed: int
    consistent: bool

    @property
    def mean_return(self) -> float:
        """Mean of the measured returns."""
        return sum(self.returns) / len(self.returns)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        interval = bootstrap_interval(self.returns)
        claimed = {"mean_return": self.claim.mean, "std_return": self.claim.std, "episodes": self.claim.episodes}
        measured = {
            "mean_return": self.mean_return,
            "ci95": list(interval) if interval else None,
            "episodes": len(self.returns),
            "seed": self.seed,
            "env": self.env,
            "env_kwargs": self.env_kwargs,
        }
        return {"place": self.place, "claimed": claimed, "measured": measured, "consistent": self.consistent}

    def __str__(self) -> str:
        interval = bootstrap_interval(self.returns)
        span = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
        word = "consistent" if self.consistent else "NOT consistent"
        claimed = f"claimed {self.claim.mean:.2f} ± {self.claim.std:.2f}"
        claimed += f" on {self.claim.env}" if self.claim.env and self.claim.env != self.env else ""
        kwargs = "".join(f", {key}={value!r}" for key, value in self.env_kwargs.items())
        measured = f"measured {self.mean_return:.2f}{span} over {len(self.returns)} episodes of {self.env}{kwargs}"
        return f"{claimed}; {measured}: {word}"


def package(
    run: Run,
    out: Path | None,
    *,
    repo: str | None,
    revision: str | None = None,
    checkpoint: str | int | None,
    episodes: int,
    logs: bool,
    video: bool,
    trust: bool,
) -> Package:
    """Make the folder that would be pushed, in the run directory unless ``out`` says where."""
    # A list of seeds in the config is what the card's figures come from, whole.
    number = None if run.config.evaluation.seeds else episodes
    result = run.evaluate(number, checkpoint=checkpoint, trust=trust)
    values = result.as_dict()
    film = _filming(run, values["checkpoint"], trust) if video else None
    place = out or run.path / _FOLDER
    return make_package(
        run.directory, values["checkpoint"], values, place, repo=repo, revision=revision, logs=logs, film=film
    )


def _filming(run: Run, checkpoint: str, trust: bool) -> Callable[[Path], None]:
    def film(path: Path) -> None:
        run.video(path, checkpoint=checkpoint, episodes=_FILMED, length=1_000, trust=trust)

    return film


def push(run: Run, repo: str, *, private: bool, revision: str | None, **settings: Any) -> tuple[Package, str]:
    """Package and upload; see :func:`rlrun.push`."""
    api = writing_client(repo)
    made = package(run, None, repo=repo, revision=revision, **settings)
    return made, _upload(api, made, repo, private, revision)


def push_package(folder: Path, repo: str, *, private: bool, revision: str | None) -> tuple[Package, str]:
    """Upload a package as it is, with what its author has written into its card.

    :raises UsageError: when another of its files was changed
    """
    made = read_package(folder)
    return made, _upload(writing_client(repo), made, repo, private, revision)


def _upload(api: HfApi, made: Package, repo: str, private: bool, revision: str | None) -> str:
    again = ["rlrun", "push", str(made.path), "--repo", repo, *(["--private"] if private else [])]
    again += ["--revision", revision] if revision else []
    return push_folder(api, made.path, repo, private=private, revision=revision, again=shlex.join(again))


def pull(repo: str, revision: str | None, run_dir: Path, name: str | None, env: str | None, algo: str | None) -> Run:
    """Fetch a repository into a run directory."""
    folder, commit = download(repo, revision)
    origin = {"from": repo, "revision": commit}
    return Run(adopt(folder, run_dir, name, origin, env=env, algo=algo))


def verify(
    place: str, revision: str | None, episodes: int | None, seed: int | None, env: str | None, algo: str | None
) -> Verdict:
    """Compare a card's claim with a measurement; see :func:`rlrun.verify`."""
    folder = Path(place)
    if not folder.is_dir():
        if "/" not in place or Path(place).is_absolute():
            raise UsageError(f"{place} is neither a folder nor a repository (user/name).", "Name one of the two.")
        folder, _ = download(place, revision)
    claim = read_claim(folder)
    wanted = episodes or min(_MOST, max(_FEWEST, claim.episodes))
    chosen = _OTHER_SEED if seed is None else seed
    played, measured = _measure(folder, place, claim, wanted, chosen, env, algo)
    # Who names the env says that it is the same task.
    consistent = agrees(claim, measured.returns) and (env is not None or is_same_task(claim.env, played.id))
    kwargs = {key: value for key, value in played.kwargs.items() if value is not None}
    return Verdict(place, claim, played.id, kwargs, measured.returns, chosen, consistent)


def _measure(
    folder: Path, place: str, claim: Claim, episodes: int, seed: int, env: str | None, algo: str | None
) -> tuple[EnvConfig, Evaluation]:
    if (folder / QTABLE).is_file():
        table = read_qtable(folder / QTABLE, claim.env, env)
        return table.env, table.evaluate(episodes, seed)
    temporary = Path(tempfile.mkdtemp(prefix="rlrun-verify-"))
    try:
        run = Run(adopt(folder, temporary, "verified", {"from": place}, env=env, algo=algo))
        free = {"evaluation.seeds": None} if run.config.evaluation.seeds else {}
        played = run.config.env.model_copy(update={"kwargs": run.config.evaluation_kwargs})
        return played, run.evaluate(episodes, seed=seed, overrides=free).evaluation
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
