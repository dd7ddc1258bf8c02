"""Commands that show an agent at work: video, watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rlrun
from rlrun import console, words
from rlrun.cli.app import app
from rlrun.cli.flags import RUNS, CheckpointOption, JsonOption, RunArgument, RunDirOption, TrustOption, finite, positive

SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of the episodes; default: the run's.")]


@app.command()
def video(
    run: RunArgument,
    checkpoint: CheckpointOption = None,
    episodes: Annotated[
        int | None,
        typer.Option(parser=positive, metavar="<int>", help="Number of episodes; default: 5 seconds, at most 10."),
    ] = None,
    length: Annotated[
        int, typer.Option(parser=positive, metavar="<int>", help="The agent's steps after which the film ends.")
    ] = 10_000,
    fps: Annotated[
        float | None, typer.Option(parser=finite, metavar="<float>", help="Frames a second; default: the env's.")
    ] = None,
    gif: Annotated[bool, typer.Option("--gif", help="A GIF too.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Episode, step and return on the frames.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default RUN/videos/<checkpoint>-<timesteps>.mp4.")
    ] = None,
    seed: SeedOption = None,
    trust: TrustOption = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """An MP4 of the agent that browsers play, checked to be neither empty nor blank."""
    made = rlrun.open_run(run, run_dir=run_dir).video(
        out,
        checkpoint=checkpoint,
        episodes=episodes,
        length=length,
        fps=fps,
        gif=gif,
        overlay=overlay,
        seed=seed,
        trust=trust,
    )
    if json_:
        console.print_json(made.as_dict())
        return
    console.print_facts(words.describe_video(made.as_dict()))


@app.command()
def watch(
    run: RunArgument,
    checkpoint: CheckpointOption = None,
    episodes: Annotated[
        int | None, typer.Option(parser=positive, metavar="<int>", help="Number of episodes; default: without end.")
    ] = None,
    seed: SeedOption = None,
    trust: TrustOption = False,
    run_dir: RunDirOption = RUNS,
) -> None:
    """The agent in a window, where there is a display."""
    rlrun.open_run(run, run_dir=run_dir).watch(checkpoint=checkpoint, episodes=episodes, seed=seed, trust=trust)
