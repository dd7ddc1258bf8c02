"""The command about RL Baselines3 Zoo's files: import-zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rlrun
from rlrun import console
from rlrun.cli.app import app
from rlrun.cli.flags import JsonOption


@app.command(name="import-zoo")
def import_zoo(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML in RL Zoo's format, such as ppo.yml.")],
    out: Annotated[Path, typer.Option(help="Folder for <env>/<algo>.yaml.")] = Path("configs"),
    env: Annotated[str | None, typer.Option(help="Only this env, by the section RL Zoo would take for it.")] = None,
    algo: Annotated[str | None, typer.Option(help="The algorithm; default: as the file is called.")] = None,
    imports: Annotated[list[str] | None, typer.Option("--import", help="A module that registers envs.")] = None,
    json_: JsonOption = False,
) -> int:
    """Write a config for each section of RL Zoo's YAML; nothing in it is evaluated."""
    report = rlrun.import_zoo(files, out, env=env, algo=algo, imports=imports or ())
    if json_:
        console.print_json(report.as_dict())
    else:
        columns = ("file", "section", "result", "config", "detail")
        console.print_table(columns, [(r.file, r.section, r.result, r.config, r.detail) for r in report.rows])
        console.say(report.verdict())
    return 0 if report.count("converted") else 2
