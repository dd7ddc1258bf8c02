"""Commands about runs: runs, show, prune."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import rlrun
from rlrun import console, words
from rlrun.cli.app import app
from rlrun.cli.flags import RUNS, JsonOption, RunArgument, RunDirOption
from rlrun.errors import UsageError


@app.command()
def runs(run_dir: RunDirOption = RUNS, json_: JsonOption = False) -> None:
    """List the runs."""
    if not run_dir.is_dir() and (run_dir != RUNS or run_dir.exists()):
        what = "is no folder" if run_dir.exists() else "is not there"
        raise UsageError(f"{run_dir} {what}, so it holds no runs.", "Name a folder that `rlrun train` made runs in.")
    rows = [row.listing() for row in rlrun.list_runs(run_dir)]
    if json_:
        console.print_json(rows)
    elif not rows:
        console.say(f"There are no runs in {run_dir}.")
    else:
        shown = [{**row, "return": None if row["return"] is None else round(row["return"], 2)} for row in rows]
        console.print_table(tuple(rows[0]), [tuple(row.values()) for row in shown])


@app.command()
def show(run: RunArgument, run_dir: RunDirOption = RUNS, json_: JsonOption = False) -> None:
    """What a run is, how far it came, and what it left."""
    found = rlrun.open_run(run, run_dir=run_dir)
    if json_:
        console.print_json(found.summary())
    else:
        console.print_facts(found.description())


@app.command()
def prune(
    selected: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to make smaller.")],
    everything: Annotated[bool, typer.Option("--delete", help="Delete the runs altogether.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Keep the best and final checkpoints of runs, without replay buffers; or delete the runs."""
    found = [rlrun.open_run(text, run_dir=run_dir) for text in selected]
    if everything and not yes:
        if not sys.stdin.isatty():
            raise UsageError("--delete asks before it deletes, and nobody can answer.", "Add --yes.")
        typer.confirm(f"Delete {', '.join(str(r.path) for r in found)}?", abort=True, err=True)
    freed = {str(r.path): rlrun.prune(r, everything=everything) for r in found}
    if json_:
        console.print_json({"freed": freed})
        return
    for path, number in freed.items():
        console.say(f"{path}: {words.size(number)} freed")
