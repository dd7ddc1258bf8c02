"""Memory of DQN on Atari with a full replay buffer: plain Stable-Baselines3, and frames stored once.

    python benchmarks/memory.py [--transitions 100000] [--only auto]

Each in a process of its own: the model of a real config, its buffer filled with frames of the env, and some updates.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import numpy as np

CONFIG = "SpaceInvadersNoFrameskip-v4/dqn"
_PLAYED, _UPDATES = 200, 20  # steps of the env, which are repeated until the buffer is full


def fill(choice: str, transitions: int) -> None:
    """Build, fill, learn, and print GB of the buffer and of the process at its largest."""
    from stable_baselines3.common.logger import Logger

    from rlrun import api
    from rlrun.algorithms.build import build_model
    from rlrun.config.loading import Override

    given = {"accelerate": choice, "hyperparameters.buffer_size": transitions, "env.vec": "serial"}
    plan = api.check(CONFIG, overrides=[Override(key, value, "") for key, value in given.items()])
    venv, _ = plan.recipe.make_training_vec()
    model = build_model(plan.config, venv)
    model.set_logger(Logger(None, []))
    obs, played = venv.reset(), []
    for _ in range(_PLAYED):
        action = np.array([venv.action_space.sample()])
        new, reward, done, infos = venv.step(action)
        following = np.array([info.get("terminal_observation", new[i]) for i, info in enumerate(infos)])
        played.append((obs, following, action, reward, done, infos))
        obs = new
    played[-1][4][:] = True  # so that the first step may follow
    for step in range(transitions):
        model.replay_buffer.add(*played[step % _PLAYED])
    model.train(_UPDATES, 32)
    buffer = sum(array.nbytes for array in vars(model.replay_buffer).values() if isinstance(array, np.ndarray))
    print(buffer / 1e9, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=100_000)
    parser.add_argument("--only", choices=["off", "auto"])
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fill:
        fill(given.fill, given.transitions)
        return
    found = {}
    for choice in [given.only] if given.only else ["off", "auto"]:
        command = [sys.executable, __file__, "--fill", choice, "--transitions", str(given.transitions)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[choice] = [float(part) for part in done.stdout.split()[-2:]]
        print(
            f"accelerate {choice:<5} buffer {found[choice][0]:6.2f} GB   process {found[choice][1]:6.2f} GB", flush=True
        )
    if len(found) == 2:
        ratios = [ours / theirs for ours, theirs in zip(found["auto"], found["off"], strict=True)]
        print(f"ratio            buffer 1/{1 / ratios[0]:.1f}         process 1/{1 / ratios[1]:.1f}")


if __name__ == "__main__":
    main()
