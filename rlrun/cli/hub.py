"""Commands of the Hugging Face Hub: package, push, pull, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import rlrun
from rlrun import console
from rlrun.cli.app import app
from rlrun.cli.flags import RUNS, CheckpointOption, JsonOption, RunArgument, RunDirOption, TrustOption, positive
from rlrun.errors import UsageError

EpisodesOption = Annotated[
    int, typer.Option(parser=positive, metavar="<int>", help="Number of episodes that the card's figures come from.")
]
LogsOption = Annotated[bool, typer.Option("--logs", help="With the CSV files and TensorBoard's.")]
NoVideoOption = Annotated[bool, typer.Option("--no-video", help="Without a video.")]
RepoArgument = Annotated[str, typer.Argument(metavar="REPO", help="user/name on the Hub.")]
EnvOption = Annotated[str | None, typer.Option(help="Env id, where REPO does not say it or names one that is gone.")]
AlgoOption = Annotated[str | None, typer.Option(help="Algorithm, where REPO does not say it.")]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit.")]


@app.command()
def package(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The folder; default: `package` in the run directory.")] = None,
    repo: Annotated[str | None, typer.Option(metavar="USER/NAME", help="What the card's code will name.")] = None,
    checkpoint: CheckpointOption = None,
    episodes: EpisodesOption = 100,
    logs: LogsOption = False,
    no_video: NoVideoOption = False,
    trust_: TrustOption = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Make the folder that would be pushed, to be looked at first."""
    made = rlrun.package(
        run,
        out=out,
        repo=repo,
        checkpoint=checkpoint,
        episodes=episodes,
        logs=logs,
        video=not no_video,
        run_dir=run_dir,
        trust=trust_,
    )
    _report(made, {}, json_)


def _report(made: Any, more: dict[str, str], as_json: bool) -> None:
    for warning in made.warnings:
        console.note(f"warning: {warning}")
    if as_json:
        console.print_json({"package": made.path, "mean_reward": made.mean_reward, **more})
        return
    console.say(f"mean_reward {made.mean_reward}")
    console.say(made.words)
    for text in (str(made.path), *more.values()):
        console.say(text)


@app.command()
def push(
    run: RunArgument,
    repo: Annotated[str, typer.Option(metavar="USER/NAME", help="The repository; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch; made if it is not there.")] = None,
    checkpoint: CheckpointOption = None,
    episodes: Annotated[
        int | None, typer.Option(parser=positive, metavar="<int>", help="Of the card's figures; default: 100.")
    ] = None,
    logs: LogsOption = False,
    no_video: NoVideoOption = False,
    trust_: TrustOption = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Package a run (or take a package) and put it on the Hugging Face Hub, in one commit or not at all."""
    from rlrun.publish.package import is_package

    if is_package(Path(run)) and (checkpoint or episodes or logs or no_video):
        raise UsageError(f"{run} is a package already, and pushed as it is.", "Name the run to make another.")
    made, commit = rlrun.push(
        run,
        repo,
        private=private,
        revision=revision,
        checkpoint=checkpoint,
        episodes=episodes or 100,
        logs=logs,
        video=not no_video,
        run_dir=run_dir,
        trust=trust_,
    )
    _report(made, {"commit": commit}, json_)


@app.command()
def pull(
    repo: RepoArgument,
    revision: RevisionOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run directory.")] = None,
    env: EnvOption = None,
    algo: AlgoOption = None,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Make a run directory of someone's repository; nothing of it is run."""
    run = rlrun.pull(repo, revision=revision, name=name, env=env, algo=algo, run_dir=run_dir)
    if json_:
        console.print_json({"run": run.path, "algo": run.config.algo, "env": run.config.env.id})
        return
    console.say(f"{run.config.algo} on {run.config.env.id}, from {repo}")
    console.say(str(run.path))


@app.command()
def verify(
    place: Annotated[str, typer.Argument(metavar="REPO|FOLDER", help="user/name on the Hub, or a local package.")],
    revision: RevisionOption = None,
    episodes: Annotated[
        int | None, typer.Option(parser=positive, metavar="<int>", help="Default: as many as the card, at least 20.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episodes; default: not the author's.")] = None,
    env: EnvOption = None,
    algo: AlgoOption = None,
    json_: JsonOption = False,
) -> int:
    """Does the card's score hold? Exit 1 when it does not."""
    verdict = rlrun.verify(place, revision=revision, episodes=episodes, seed=seed, env=env, algo=algo)
    if json_:
        console.print_json(verdict.as_dict())
    else:
        console.say(str(verdict))
    return 0 if verdict.consistent else 1
