"""How long after its start does a command step its envs: ``rlrun train`` against a bare Stable-Baselines3 script.

    python benchmarks/startup.py [--pairs 5]

Both train PPO on eight copies of CartPole. The env of this file ends the process when each copy has been stepped once,
which only the learner does; the probe of ``env.vec: auto`` steps one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from gymnasium.envs.classic_control import CartPoleEnv

COPIES = 8
SCRIPT = f"""
from startup import EndsWhenStepped
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

PPO("MlpPolicy", make_vec_env(EndsWhenStepped, {COPIES}), n_steps=32, batch_size=256, device="cpu").learn(100_000)
"""
CONFIG = f"""
algo: ppo
env: {{id: "startup:EndsWhenStepped", n_envs: {COPIES}}}
total_timesteps: 100_000
hyperparameters: {{policy: MlpPolicy, n_steps: 32, batch_size: 256}}
evaluation: {{every: 0, episodes: 0}}
"""


class EndsWhenStepped(CartPoleEnv):
    """CartPole that ends its process once all copies have been stepped."""

    stepped: ClassVar[set[int]] = set()

    def step(self, action: Any) -> Any:
        """See CartPoleEnv."""
        self.stepped.add(id(self))
        if len(self.stepped) == COPIES:
            os._exit(0)
        return super().step(action)


def seconds(command: list[str], folder: str) -> float:
    """Until the command's envs have been stepped."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return time.monotonic() - began


def main() -> None:
    """Measure in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "ppo.yaml").write_text(CONFIG)
        ours, bare = [sys.executable, "-m", "rlrun", "train", "ppo.yaml"], [sys.executable, "-c", SCRIPT]
        pairs = [(seconds(ours, folder), seconds(bare, folder)) for _ in range(given.pairs)]
    for one, other in pairs:
        print(f"rlrun {one:.2f} s, bare script {other:.2f} s")
    print(f"median difference {statistics.median(one - other for one, other in pairs):+.2f} s")


if __name__ == "__main__":
    main()
