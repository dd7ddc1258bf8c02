"""Commands about this machine: doctor, bench."""

from __future__ import annotations

from typing import Annotated

import typer

import rlrun
from rlrun import console
from rlrun.cli.app import app
from rlrun.cli.flags import (
    RUNS,
    AlgoOption,
    ConfigArgument,
    ConfigOption,
    EnvOption,
    JsonOption,
    RunDirOption,
    SetOption,
    chosen_config,
    overrides_of,
)


@app.command()
def doctor(run_dir: RunDirOption = RUNS, json_: JsonOption = False) -> int:
    """What this machine can do: versions, GPU, rendering, ffmpeg, envs, the Hub; and what to do where it cannot."""
    from rlrun.doctor import examine

    report = examine(run_dir)
    if json_:
        console.print_json(report.as_dict())
    else:
        console.print_table(
            ("what", "state", "detail"),
            [(f.name, f.state, f"{f.detail} {f.advice}".strip()) for f in report.findings],
        )
    return 0 if report.works else 1


@app.command()
def bench(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    algo: AlgoOption = None,
    env: EnvOption = None,
    set_: SetOption = None,
    seconds: Annotated[float, typer.Option(min=1, help="About how long it may take altogether.")] = 100.0,
    json_: JsonOption = False,
) -> int:
    """What makes this config fastest here: device, acceleration, vectorisation, threads; prints the --set that wins."""
    path = chosen_config(config, config_option, algo, env)
    report = rlrun.bench(path, overrides=overrides_of(set_), seconds=seconds, progress=console.note)
    if json_:
        console.print_json(report.as_dict())
        return 0
    first = report.ways[0].speed or 1.0
    rows = [
        (
            way.options or "the config as it is",
            (f"{way.speed:,.0f}" if way.speed >= 100 else f"{way.speed:.1f}") if way.speed else "failed",
            f"{way.speed / first:.2f}x" if way.speed else way.detail,
        )
        for way in report.ways
    ]
    console.print_table(("settings", "timesteps/s", "ratio"), rows)
    console.say("")
    console.say(f"Fastest: {report.fastest.options or 'the config as it is.'}")
    return 0
