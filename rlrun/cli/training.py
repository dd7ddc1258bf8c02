"""Commands that train: train, resume, smoke."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import rlrun
from rlrun import console, words
from rlrun.cli.app import app
from rlrun.cli.flags import (
    RUNS,
    AddressOption,
    AlgoOption,
    ConfigArgument,
    ConfigOption,
    EnvOption,
    JobsOption,
    JsonOption,
    OnOption,
    RunArgument,
    RunDirOption,
    SeedOption,
    SetOption,
    TrustOption,
    chosen_config,
    overrides_of,
    seeds_of,
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
    seeds: Annotated[str | None, typer.Option(metavar="0-9", help="Train these side by side, as a group.")] = None,
    jobs: JobsOption = None,
    timesteps: Annotated[
        int | None, typer.Option(parser=whole, metavar="<int>", help="Sugar for --set total_timesteps=N.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")] = None,
    init: Annotated[
        str | None, typer.Option(metavar="RUN|ZIP", help="Start from these weights and statistics.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop cleanly after this long, such as 3h50m.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run directory.")] = None,
    on: OnOption = None,
    address: AddressOption = None,
    resume_: Annotated[bool, typer.Option("--resume", help="With --name: continue that run if it is there.")] = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> int:
    """Train an agent from a config; prints the run directory."""
    path = chosen_config(config, config_option, algo, env)
    overrides = overrides_of(set_, device=device, init_from=init, max_time=max_time)
    place: dict[str, Any] = {"run_dir": run_dir, "name": name, "resume": resume_}
    if seeds is not None:
        if seed is not None:
            raise UsageError("--seed and --seeds are both given.", "Give one.")
        where: dict[str, Any] = {"jobs": jobs, "on": on, "address": address}
        group = rlrun.train_seeds(path, seeds_of(seeds), timesteps=timesteps, overrides=overrides, **where, **place)
        return _report_group(group, json_)
    _only_of_seeds({"--jobs": jobs, "--on": on, "--address": address})
    started = rlrun.train(path, seed=seed, timesteps=timesteps, overrides=overrides, **place)
    _report_training(started, json_)
    return 0


def _only_of_seeds(given: dict[str, Any]) -> None:
    flag = next((flag for flag, value in given.items() if value is not None), None)
    if flag is not None:
        raise UsageError(f"{flag} says how --seeds are trained.", "Add --seeds, such as 0-9.")


def _report_group(outcome: Any, as_json: bool) -> int:
    values = outcome.as_dict()
    if as_json:
        console.print_json(values)
    else:
        rows = [
            (run["seed"], run["timesteps"], words.duration(run["seconds"]), words.describe_evaluation(run["final"]))
            for run in values["runs"]
            if run["final"]
        ]
        console.print_table(("seed", "timesteps", "time", "final"), rows)
        console.say(values["group"])
    for seed, reason in outcome.failures.items():
        console.note(f"seed {seed} failed: {reason}")
    if outcome.failures:
        console.note(f"`rlrun resume {shlex.quote(values['group'])}` trains what is missing.")
    return 1 if outcome.failures else 0


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
    jobs: JobsOption = None,
    on: OnOption = None,
    address: AddressOption = None,
    trust_: TrustOption = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> int:
    """Continue an interrupted run to its budget, or any run to a new one; a finished one says so."""
    from rlrun.config.schema import parse_duration
    from rlrun.runs.groups import find_group

    group = find_group(run, run_dir)
    if group is not None:
        if timesteps or max_time or exact or steal or set_ or trust_:
            raise UsageError(f"{run} is a group, of which only what is missing is trained.", "Resume one of its runs.")
        return _report_group(rlrun.resume_group(group, jobs=jobs, on=on, address=address), json_)
    if any(given is not None for given in (jobs, on, address)):
        raise UsageError(f"--jobs, --on and --address are for groups, and {run} is none.", "Leave them out.")
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
    return 0


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
