"""The command that searches hyperparameters: tune."""

from __future__ import annotations

from typing import Annotated

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
    JsonOption,
    OnOption,
    RunDirOption,
    SetOption,
    chosen_config,
    overrides_of,
    whole,
)
from rlrun.errors import UsageError


@app.command()
def tune(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    algo: AlgoOption = None,
    env: EnvOption = None,
    trials: Annotated[int, typer.Option(parser=whole, metavar="<int>", help="Trials in all.")] = 100,
    set_: SetOption = None,
    timesteps: Annotated[
        int | None, typer.Option(parser=whole, metavar="<int>", help="Of each training; for total_timesteps.")
    ] = None,
    seeds_per_trial: Annotated[int, typer.Option(metavar="K", help="Training seeds of a trial.")] = 1,
    retest: Annotated[int, typer.Option(metavar="K", help="So many of the best are tested again; 0: none.")] = 3,
    retest_seeds: Annotated[int, typer.Option(metavar="N", help="On so many fresh seeds.")] = 5,
    jobs: Annotated[
        int | None, typer.Option(help="Trainings at a time; default: as many as there is room for.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe, random, cmaes, gp, qmc, nsgaii or grid.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="median, percentile, halving, hyperband or none.")] = "median",
    storage: Annotated[
        str | None, typer.Option(metavar="FILE|URL", help="Where the trials are; default: in the study's folder.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="No trial begins after this long, such as 15m.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study and its folder.")] = None,
    resume_: Annotated[bool, typer.Option("--resume", help="With --name: go on with that study, or join it.")] = False,
    on: OnOption = None,
    address: AddressOption = None,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """Search hyperparameters, test the best again on fresh seeds, and write a config that trains as it is."""
    from rlrun.config.schema import parse_duration

    try:
        seconds = parse_duration(timeout) if timeout else None
    except ValueError as error:
        raise UsageError(f"--timeout {error}.", "For instance 15m.") from None
    tuned = rlrun.tune(
        chosen_config(config, config_option, algo, env),
        trials=trials,
        seeds_per_trial=seeds_per_trial,
        retest=retest,
        retest_seeds=retest_seeds,
        jobs=jobs,
        sampler=sampler,
        pruner=pruner,
        storage=storage,
        timesteps=timesteps,
        timeout=seconds,
        overrides=overrides_of(set_),
        run_dir=run_dir,
        name=name,
        resume=resume_,
        on=on,
        address=address,
    )
    if json_:
        console.print_json(tuned.as_dict())
        return
    columns = ("config", "seeds", "mean", "IQM", "return of each seed")
    rows = [
        (c["name"], c.get("seeds", 0), _cell(c.get("mean")), _cell(c.get("iqm")), _returns(c))
        for c in tuned.values["retest"]
    ]
    if rows:
        console.print_table(columns, rows)
    console.print_facts({key: str(value) for key, value in tuned.values["winner"]["values"].items()})
    console.say(tuned.verdict)
    console.say(str(tuned.best_config))


def _cell(value: float | None) -> str:
    return "-" if value is None else words.number(value)


def _returns(candidate: dict[str, dict[str, float]]) -> str:
    return " ".join(words.number(value) for value in candidate["returns"].values())
