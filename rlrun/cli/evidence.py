"""Commands about what runs show: compare, plot, report, diff, why."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import rlrun
from rlrun import console
from rlrun.cli.app import app
from rlrun.cli.flags import RUNS, JsonOption, RunArgument, RunDirOption
from rlrun.errors import UsageError

RunsArgument = Annotated[
    list[str],
    typer.Argument(metavar="[NAME=]RUNS...", help="Runs, groups, folders, RL Zoo's logs; NAME=PATTERN names a group."),
]


@app.command()
def compare(
    selected: RunsArgument,
    markdown: Annotated[bool, typer.Option("--markdown", help="A Markdown table.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="A line for each seed.")] = False,
    episodes: Annotated[
        int | None,
        typer.Option(min=1, help="Play so many anew, the same ones with every agent.", show_default="stored scores"),
    ] = None,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Scores over seeds with intervals, and whether groups differ: the final agents' stored evaluations."""
    if markdown + csv_ + json_ > 1:
        raise UsageError("--markdown, --csv and --json are three ways to print the same.", "Give one.")
    found = rlrun.compare(*selected, episodes=episodes, run_dir=run_dir)
    for warning in found.warnings:
        console.note(f"warning: {warning}")
    if json_:
        console.print_json(found.as_dict())
    elif csv_:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("group", "run", "seed", "score"))
        writer.writerows((g.name, str(s.path), s.seed, s.score) for g in found.groups for s in g.runs)
        console.say(lines.getvalue().rstrip("\n"))
    else:
        _print(found, markdown)


def _print(found: Any, markdown: bool) -> None:
    columns = ("group", "seeds", "mean", "median", "IQM", "95 % interval of the IQM")
    rows = [
        (name, s.seeds, f"{s.mean:.2f}", f"{s.median:.2f}", f"{s.iqm:.2f}", _span(s.interval))
        for name, s in found.summaries.items()
    ]
    if markdown:
        console.say(f"| {' | '.join(columns)} |")
        console.say("|---" * len(columns) + "|")
        for row in rows:
            console.say(f"| {' | '.join(map(str, row))} |")
        console.say()
    else:
        console.print_table(columns, rows)
    for pair in found.comparisons:
        console.say(pair.verdict)
        span = f" {_span(pair.interval)}" if pair.interval else ""
        chance = f"a seed of {pair.second} beats one of {pair.first} with probability {pair.improvement:.2f}"
        console.say(f"  difference {pair.difference:+.2f}{span}; {chance}")


def _span(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]"


@app.command()
def plot(
    selected: RunsArgument,
    what: Annotated[Literal["evaluation", "training", "success"], typer.Option(help="What is drawn.")] = "evaluation",
    x: Annotated[Literal["timesteps", "hours"], typer.Option(help="The horizontal axis.")] = "timesteps",
    out: Annotated[Path, typer.Option(help="A PNG, SVG or PDF.")] = Path("curves.png"),
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Learning curves of runs and groups, with intervals over seeds."""
    curves = rlrun.plot(*selected, out=out, what=what, x=x, run_dir=run_dir)
    for curve in curves:
        if not len(curve.x):
            console.note(f"{curve.name} has no such curve, or none that all of its seeds reach.")
        elif curve.ends_early:
            end, longest = (
                f"{number:,.0f}" if x == "timesteps" else f"{number:.2f}" for number in (curve.x[-1], curve.longest)
            )
            console.note(f"{curve.name} is drawn as far as the shortest of its seeds goes: {end} of {longest} {x}.")
    if json_:
        groups = [{"name": c.name, "seeds": c.seeds, "points": len(c.x)} for c in curves]
        console.print_json({"out": str(out), "groups": groups})
        return
    if all(len(curve.x) == 1 for curve in curves) and what == "evaluation":
        console.note("Each run was evaluated once. --what training draws more; so would --set evaluation.every=1000.")
    console.say(str(out))


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A run.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """What differs between two runs: config, versions, hardware, git."""
    found = rlrun.diff(first, second, run_dir=run_dir)
    if json_:
        console.print_json(found.as_dict())
        return
    console.say(found.verdict)
    rows = [
        (f"{section} {key}" if section != "config" else key, *map(str, pair))
        for section, values in found.sections.items()
        for key, pair in values.items()
    ]
    if rows:
        console.print_table(("", first, second), rows)


@app.command()
def report(
    selected: RunsArgument,
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """One HTML file about runs and groups that opens without a network: outcome, curves, video, settings."""
    written = rlrun.report(*selected, out=out, run_dir=run_dir)
    if json_:
        console.print_json({"out": str(written), "bytes": written.stat().st_size})
    else:
        console.say(str(written))


@app.command()
def why(run: RunArgument, run_dir: RunDirOption = RUNS, json_: JsonOption = False) -> None:
    """What looks wrong with a run, by rules over what it logged, and what to try."""
    found = rlrun.why(run, run_dir=run_dir)
    if json_:
        console.print_json({"findings": [finding.as_dict() for finding in found]})
        return
    for finding in found:
        console.say(finding.sentence)
        if finding.advice:
            console.say(f"  try: {finding.advice}")
    if not found:
        console.say("Nothing looks wrong.")
