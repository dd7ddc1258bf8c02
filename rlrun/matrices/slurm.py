"""A SLURM array script for a matrix: a task for each run, which goes on where it was when it is queued again."""

from __future__ import annotations

import shlex
from pathlib import Path

from rlrun.cluster import needs_of_config
from rlrun.matrices.schema import Matrix
from rlrun.matrices.whereabouts import results_folder

_SECONDS_TO_SAVE = 120
_SCRIPT = """\
#!/bin/bash
# Every run of the matrix {name}, a task of the array each: {runs} runs, {cells} cells x {seeds} seeds.
# Submit it in the folder in which it was written, which all nodes see:   mkdir -p {logs} && sbatch FILE
# When all tasks have ended, this writes the table (and trains what failed):   {command}
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task={cores}
#SBATCH --mem={memory}M
{gpus}#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={logs}/%a.txt
# {warning} s before the time limit the script gets SIGTERM; --requeue brings a task back whose node failed.
#SBATCH --signal=B:TERM@{warning}
set -u
run=""

save_and_requeue() {{
    code=143
    run=${{run:-${{!:-}}}}
    if [ -n "$run" ]; then  # it may not have begun
        kill -TERM "$run"
        wait "$run"
        code=$?
    fi
    # 143: it was interrupted, and its state is saved. Queued again, it goes on from there.
    if [ "$code" -eq 143 ]; then
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    fi
    exit "$code"
}}

trap save_and_requeue TERM
{command} --only "$SLURM_ARRAY_TASK_ID" &
run=$!
wait "$run"
"""


def slurm_script(matrix: Matrix, root: Path, command: str) -> str:
    """An sbatch script that trains the matrix.

    :param command: that trains the matrix here
    """
    needs = [needs_of_config(cell.config, cell.shared.import_paths) for cell in matrix.cells if not cell.is_untrained]
    gpus = max((need.gpus for need in needs), default=0)
    return _SCRIPT.format(
        name=matrix.name,
        runs=len(matrix.runs()),
        last=len(matrix.runs()) - 1,
        cells=len(matrix.cells),
        seeds=len(matrix.seeds),
        cores=max((need.cores for need in needs), default=1),
        memory=max((need.memory for need in needs), default=1_000_000_000) * 2 // 1_000_000,
        gpus=f"#SBATCH --gpus-per-task={gpus}\n" if gpus else "",
        logs=shlex.quote(str(results_folder(root, matrix.name) / "slurm")),
        command=command,
        warning=_SECONDS_TO_SAVE,
    )
