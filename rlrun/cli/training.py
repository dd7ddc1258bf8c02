"""Commands that train: train, resume, smoke."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import rlrun
from rlrun import console, words
from rlrun.cli.app import app
from rlrun.cli.flags import (
    RUNS,
    AlgoOption,
    ConfigArgument,
    ConfigOption,
    EnvOption,
    JsonOption,
    RunArgument,
    RunDirOption,
    SeedOption,
    SetOption,
    TrustOption,
    chosen_config,
    overrides_of,
    whole,
)
from rlrun.errors import UsageError


@app.command()
def train(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    algo: AlgoOption = None,
    env: EnvOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    timesteps: Annotated[
        int | None, typer.Option(parser=whole, metavar="<int>", help="Sugar for --set total_timesteps=N.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")] = None,
    init: Annotated[
        str | None, typer.Option(metavar="RUN|ZIP", help="Start from these weights and statistics.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop cleanly after this long, such as 3h50m.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run directory.")] = None,
    resume_: Annotated[bool, typer.Option("--resume", help="With --name: continue that run if it is there.")] = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Train an agent from a config; prints the run directory."""
    path = chosen_config(config, config_option, algo, env)
    started = rlrun.train(
        path,
        seed=seed,
        timesteps=timesteps,
        overrides=overrides_of(set_, device=device, init_from=init, max_time=max_time),
        run_dir=run_dir,
        name=name,
        resume=resume_,
    )
    _report_training(started, json_)


def _report_training(run: Any, as_json: bool) -> None:
    summary = run.training_summary()
    if as_json:
        console.print_json(summary)
        return
    seconds, speed = words.duration(summary["seconds"]), summary["timesteps_per_second"]
    console.say(f"{summary['algo']} on {summary['env']}, seed {summary['seed']}: {run.status}")
    console.say(f"{summary['timesteps']:,} timesteps in {seconds} ({speed:,.0f}/s, evaluations included)")
    for which in ("final", "best"):
        if summary[which]:
            at = f" (at {summary[which]['timesteps']:,} timesteps)"
            console.say(f"{which}: {words.describe_evaluation(summary[which])}{at}")
    for what, where in run.whereabouts().items():
        console.say(f"{what:<8} {where}")
    console.say(str(run.path))


@app.command()
def resume(
    run: RunArgument,
    timesteps: Annotated[
        int | None,
        typer.Option(parser=whole, metavar="TOTAL", help="A new budget, what was trained before included."),
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop cleanly after this long, such as 3h50m.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Go back to the last scheduled checkpoint, if an interruption saved one.")
    ] = False,
    steal: Annotated[bool, typer.Option("--steal", help="Take the run from a process that holds it.")] = False,
    set_: SetOption = None,
    trust_: TrustOption = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Continue an interrupted run to its budget, or any run to a new one; a finished one says so."""
    from rlrun.config.schema import parse_duration

    try:
        seconds = parse_duration(max_time) if max_time else None
    except ValueError as error:
        raise UsageError(f"--max-time {error}.") from None
    resumed = rlrun.resume(
        run,
        timesteps=timesteps,
        max_time=seconds,
        exact=exact,
        steal=steal,
        overrides=overrides_of(set_),
        trust=trust_,
        run_dir=run_dir,
    )
    _report_training(resumed, json_)


@app.command()
def smoke(
    configs_: Annotated[
        list[str] | None, typer.Argument(metavar="CONFIG...", help="Default: ./configs, else the shipped.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A missing optional package is a failure.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit XML report.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each config.")] = 120.0,
    jobs: Annotated[int, typer.Option(min=1, help="Configs at the same time.")] = 1,
    json_: JsonOption = False,
) -> int:
    """Every config through train, save, load, resume, evaluate and package in seconds: for CI."""
    report = rlrun.smoke(configs_ or (), strict=strict, timeout=timeout, jobs=jobs, junit=junit, progress=console.note)
    if json_:
        console.print_json(report.as_dict())
    else:
        console.print_table(("config", "result", "seconds", "detail"), report.rows())
        console.say(report.verdict())
    return 0 if report.passed else 1
