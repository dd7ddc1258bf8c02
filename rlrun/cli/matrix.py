"""The command for configs x seeds: matrix."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import rlrun
from rlrun import console
from rlrun.cli.app import app
from rlrun.cli.flags import RUNS, AddressOption, JobsOption, JsonOption, OnOption, RunDirOption, whole
from rlrun.errors import UsageError


@app.command()
def matrix(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped matrix.")],
    jobs: JobsOption = None,
    only: Annotated[
        int | None, typer.Option(parser=whole, metavar="I", help="Train run I alone, counted from 0: for array jobs.")
    ] = None,
    print_slurm: Annotated[
        bool, typer.Option("--print-slurm", help="Print a script for sbatch; train nothing.")
    ] = False,
    on: OnOption = None,
    address: AddressOption = None,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> int:
    """Train configs x seeds from one file, to a table and a report; what is there is not trained again."""
    if print_slurm:
        if only is not None or on is not None or jobs is not None or json_:
            raise UsageError("--print-slurm trains nothing.", "Leave --only, --on, --jobs and --json out.")
        console.say(rlrun.matrix_slurm(file, run_dir=run_dir).rstrip("\n"))
        return 0
    outcome = rlrun.train_matrix(file, jobs=jobs, only=only, on=on, address=address, run_dir=run_dir)
    if json_:
        console.print_json(outcome.as_dict())
    else:
        _print(outcome)
    for name, reason in outcome.failures.items():
        console.note(f"{name} failed: {reason}")
    if outcome.failures:
        console.note("The same command trains what is missing.")
    return 1 if outcome.failures else 0


def _print(outcome: Any) -> None:
    if outcome.results is None:
        for path in outcome.paths:
            console.say(str(path))
        return
    from rlrun.matrices.results import COLUMNS

    results = outcome.results
    console.print_table(COLUMNS, [row.words() for row in results.rows])
    for verdicts in results.verdicts.values():
        for verdict in verdicts:
            console.say(verdict)
    for warning in results.compared.warnings if results.compared else ():
        console.note(f"warning: {warning}")
    console.say(str(results.page))
    if results.report is not None:
        console.say(str(results.report))
