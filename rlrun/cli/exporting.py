"""Commands that turn a run into something else: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import rlrun
from rlrun import console, words
from rlrun.cli.app import app
from rlrun.cli.flags import RUNS, CheckpointOption, JsonOption, RunArgument, RunDirOption, TrustOption


@app.command()
def export(
    run: RunArgument,
    to: Annotated[Literal["onnx"], typer.Option(help="The format.")] = "onnx",
    checkpoint: CheckpointOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default RUN/export/<checkpoint>.onnx.")] = None,
    trust: TrustOption = False,
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """The agent with its normalization as one ONNX file, compared with SB3 on 1,000 observations."""
    found = rlrun.open_run(run, run_dir=run_dir).export(checkpoint=checkpoint, out=out, trust=trust)
    if json_:
        console.print_json(found.as_dict())
        return
    console.print_facts(
        {
            "file": f"{found.path} ({words.size(found.path.stat().st_size)})",
            "agent": f"{found.algo} on {found.env}, checkpoint {found.checkpoint}, {found.timesteps:,} timesteps",
            "inputs": "; ".join(map(str, found.inputs)),
            "outputs": "; ".join(map(str, found.outputs)),
            "compared": str(found.parity),
        }
    )
