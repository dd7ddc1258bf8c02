"""A run that compiles nothing does not import torch's compiler."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import rlrun
budget = {"env": {"id": "CartPole-v1"}, "total_timesteps": 64, "hyperparameters": {"n_steps": 32}, "trackers": []}
budget["accelerate"] = "auto"
run = rlrun.train({"algo": "a2c", **budget}, progress=False, name="first")
print("torch._dynamo" in sys.modules)
import torch
print(float(torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(()))))
"""


def test_training_does_not_import_the_compiler_and_it_works_later(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1.0"]
