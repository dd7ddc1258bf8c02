"""The command about this machine: doctor."""

from __future__ import annotations

from rlrun import console
from rlrun.cli.app import app
from rlrun.cli.flags import RUNS, JsonOption, RunDirOption


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
