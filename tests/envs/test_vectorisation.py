"""Where envs are stepped changes nothing of what they do; and how that is decided."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from comparing import needs_panda
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import VecEnv

from rlrun.config.schema import EnvConfig
from rlrun.envs import vectorisation
from rlrun.envs.recipe import EnvRecipe
from rlrun.envs.vectorisation import make_training_envs
from rlrun.envs.workers import WorkersVecEnv, WorkerTraceback, start_workers
from rlrun.errors import RlrunError

HERE = str(Path(__file__).parent)


def recipe(env_id: str, vec: str = "workers", n_envs: int = 3, **settings: Any) -> EnvRecipe:
    env_id = f"vec_envs:{env_id}" if "-v" not in env_id else env_id
    env = EnvConfig.model_validate({"id": env_id, "n_envs": n_envs, "vec": vec, **settings})
    return EnvRecipe(env, None, 0, {}, (HERE,))


def trajectory(env_recipe: EnvRecipe, steps: int) -> list[Any]:
    """All that a learner sees, over a cut too."""
    venv, restartable = env_recipe.make_training_vec()
    try:
        venv.action_space.seed(1)
        venv.seed(5)
        venv.set_options({"colour": "blue"})
        seen: list[Any] = [venv.reset(), list(venv.reset_infos)]
        for step in range(steps):
            if step == steps // 2:
                restartable.restart(77)
                seen += [venv.reset(), list(venv.reset_infos)]
            seen += [*venv.step(np.stack([venv.action_space.sample() for _ in range(venv.num_envs)]))]
            seen.append(list(venv.reset_infos))
        return seen
    finally:
        venv.close()


def assert_equal(one: Any, two: Any, where: str = "") -> None:
    """Equal in every bit and type; but the seconds of an episode are measured."""
    if isinstance(one, dict):
        assert sorted(map(str, one)) == sorted(map(str, two)), where
        for key in set(one) - {"t"}:
            assert_equal(one[key], two[key], f"{where}.{key}")
        return
    assert type(one) is type(two), where
    if isinstance(one, list | tuple):
        for index, (a, b) in enumerate(itertools.zip_longest(one, two)):
            assert_equal(a, b, f"{where}.{index}")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes()), where
    else:
        assert one == two, where


KINDS = ["dict", "tuple", "discrete", "multidiscrete", "multibinary", "image", "half"]


@pytest.mark.parametrize(
    ("env_id", "steps", "settings"),
    [
        ("CartPole-v1", 150, {}),
        ("LunarLander-v3", 250, {}),
        pytest.param("PandaReachDense-v3", 60, {}, marks=needs_panda),
        ("PongNoFrameskip-v4", 60, {"wrappers": ["AtariWrapper"], "frame_stack": 4}),
        ("SpaceInvadersNoFrameskip-v4", 250, {"wrappers": ["AtariWrapper"], "n_envs": 2}),
        *(("Kind", 60, {"kwargs": {"kind": kind}}) for kind in KINDS),
    ],
)
def test_trajectories_in_workers_are_those_of_serial_envs_bit_for_bit(env_id: str, steps: int, settings: Any):
    assert_equal(*(trajectory(recipe(env_id, vec, **settings), steps) for vec in ("serial", "workers")))


@pytest.fixture
def workers() -> Any:
    """Five envs in two workers and this process."""
    venv = start(recipe("Kind", n_envs=5, kwargs={"render_mode": "rgb_array"}))
    yield venv
    venv.close()


def start(env_recipe: EnvRecipe, n_processes: int = 3, timeout: float = 60.0) -> WorkersVecEnv:
    makers = [env_recipe.maker(index) for index in range(env_recipe.env.n_envs)]
    return start_workers(makers, env_recipe.example, timeout, n_processes)


def test_each_worker_steps_several_envs(workers: WorkersVecEnv):
    assert workers.n_processes == 3
    assert (workers.num_envs, len(workers.get_attr("steps"))) == (5, 5)


def test_what_a_step_returns_is_not_changed_by_the_next(workers: WorkersVecEnv):
    workers.reset()
    first = workers.step(np.zeros(5, int))
    kept = [first[0].copy(), first[1].copy(), first[2].copy(), [dict(info) for info in first[3]]]
    for _ in range(10):
        workers.step(np.ones(5, int))
    assert_equal(kept, list(first))


def test_methods_and_attributes_of_chosen_envs_are_reached_in_the_order_asked_for(workers: WorkersVecEnv):
    assert workers.env_method("relabel", "a", indices=[4, 0]) == ["a", "a"]
    assert workers.env_method("relabel", "b", shout=True, indices=2) == ["B"]
    assert workers.get_attr("label") == ["a", "none", "B", "none", "a"]
    assert workers.get_attr("label", indices=[2, -1, 2]) == ["B", "a", "B"]
    workers.set_attr("extra", {"x": 1}, indices=[1])
    assert workers.get_attr("extra", 1) == [{"x": 1}]
    assert workers.has_attr("relabel")
    assert not workers.has_attr("extra")  # not every env has it
    workers.reset()
    assert [masks.tolist() for masks in workers.env_method("action_masks")] == [[False, True, True, True]] * 5
    assert workers.env_is_wrapped(TimeLimit) == [False] * 5
    limited = start(recipe("Kind", wrappers=[{"TimeLimit": {"max_episode_steps": 3}}]))
    assert limited.env_is_wrapped(TimeLimit, indices=[0, 2]) == [True, True]
    limited.close()


def test_images_are_drawn_in_the_workers(workers: WorkersVecEnv):
    workers.reset()
    workers.step(np.zeros(5, int))
    assert [image.max() for image in workers.get_images() if image is not None] == workers.get_attr("steps")
    assert workers.render().shape == (12, 8, 3)  # type: ignore[union-attr]


def test_a_method_that_raises_raises_here_and_the_workers_go_on(workers: WorkersVecEnv):
    with pytest.raises(LookupError, match="nobody listens") as raised:
        workers.env_method("complain")
    assert isinstance(raised.value.__cause__, WorkerTraceback)
    assert "in complain" in str(raised.value.__cause__)
    with pytest.raises(AttributeError):
        workers.get_attr("no_such_thing")
    assert workers.get_attr("label") == ["none"] * 5


def test_what_is_asked_during_a_step_is_answered_and_a_reset_drops_the_step(workers: WorkersVecEnv):
    workers.reset()
    workers.step_async(np.zeros(5, int))
    assert workers.get_attr("label") == ["none"] * 5
    assert len(workers.step_wait()[3]) == 5
    workers.step_async(np.zeros(5, int))
    workers.reset()
    assert workers.get_attr("steps") == [0] * 5


# -- what goes wrong


def broken(what: str, timeout: float = 60.0) -> tuple[BaseException, list[psutil.Process]]:
    """What a third step raises, and the processes that there were."""
    venv = start(recipe("Fragile", n_envs=4, kwargs={"what": what}), timeout=timeout)
    processes = [psutil.Process(worker._process.pid) for worker in venv._workers[:-1]]
    venv.reset()
    for _ in range(2):
        venv.step(np.zeros(4, int))
    with pytest.raises((OSError, RlrunError)) as raised:
        venv.step(np.zeros(4, int))
    venv.close()
    return raised.value, processes


def test_an_exception_of_an_env_is_raised_here_with_the_workers_traceback():
    error, _ = broken("raises")
    assert (type(error), str(error)) == (OSError, "the robot fell over")
    assert "vec_envs.py" in str(error.__cause__)
    assert "in happen" in str(error.__cause__)


def test_an_exception_of_an_env_in_this_process_is_raised_like_one_in_a_worker():
    venv = start(recipe("Fragile", n_envs=1, kwargs={"what": "raises"}), n_processes=1)
    venv.reset()
    venv.step(np.zeros(1, int))
    venv.step(np.zeros(1, int))
    with pytest.raises(OSError, match="the robot fell over") as raised:
        venv.step(np.zeros(1, int))
    assert "in happen" in str(raised.value.__cause__)
    venv.close()


def test_leaving_this_process_in_the_middle_of_a_step_leaves_no_answer_unread():
    venv = start(recipe("Fragile", n_envs=3, kwargs={"what": "interrupted"}))
    venv.reset()
    for _ in range(2):
        venv.step(np.zeros(3, int))
    with pytest.raises(KeyboardInterrupt):
        venv.step(np.zeros(3, int))
    assert venv.get_attr("label") == ["none"] * 3
    venv.close()


def test_envs_of_this_process_are_closed_when_a_worker_cannot_build_its_own():
    from vec_envs import CLOSED

    CLOSED.clear()
    with pytest.raises(RlrunError, match="cannot be built in a worker"):
        start(recipe("Fragile", n_envs=3, kwargs={"what": "unbuildable"}))
    assert CLOSED == ["unbuildable"] * 2  # the one that was looked at, and this process's own


@pytest.mark.parametrize(
    ("what", "message"),
    [("leaves", "In a worker process: SystemExit: 3"), ("raises oddly", "In a worker process: .*OddError: 1 and 2")],
)
def test_an_exception_that_cannot_come_here_is_named(what: str, message: str):
    error, _ = broken(what)
    assert isinstance(error, RlrunError)
    with pytest.raises(RlrunError, match=message):
        raise error
    assert "in happen" in str(error.__cause__)


def test_a_worker_that_dies_ends_all_of_them_with_one_error():
    error, processes = broken("dies")
    assert str(error) == (
        "A worker process died while it stepped envs 0 to 1: it ended with exit code 7. "
        "With env.vec=serial it can be debugged in one process."
    )
    assert not any(process.is_running() for process in processes)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals here")
def test_a_worker_that_crashes_leaves_its_traceback():
    error, _ = broken("crashes")
    assert "died while it stepped envs 0 to 1: it was ended by signal 11" in str(error)
    assert "in happen" in str(error.__cause__)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals here")
def test_a_worker_that_hangs_is_given_up_with_its_traceback():
    error, processes = broken("hangs", timeout=1.5)
    assert "has not answered for 1.5 s (env.worker_timeout) while it stepped envs 0 to 1" in str(error)
    assert "in happen" in str(error.__cause__)
    assert not any(process.is_running() for process in processes)


KILLED = """
import sys
import numpy as np
sys.path.insert(0, {here!r})
from test_vectorisation import recipe, start

if __name__ == "__main__":
    venv = start(recipe("Fragile", n_envs=4, kwargs={{"what": {what!r}, "where": {where!r}}}))
    venv.reset()
    print("ready", flush=True)
    while True:
        venv.step(np.zeros(4, int))
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="looks at /dev/shm")
@pytest.mark.parametrize("what", ["", "hangs"])
def test_a_parent_that_is_killed_leaves_no_process_and_no_shared_memory(what: str, tmp_path: Path):
    before = set(os.listdir("/dev/shm"))
    script, where = tmp_path / "script.py", tmp_path / "where"
    where.mkdir()
    script.write_text(KILLED.format(here=HERE, what=what, where=str(where)))
    paths = os.pathsep.join([str(Path(HERE).parent), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    time.sleep(0.3)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert {int(name) for name in os.listdir(where)} <= {parent.pid, *(process.pid for process in family)}
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert set(os.listdir("/dev/shm")) <= before


# -- env.vec: auto


def decided(
    env_id: str, timesteps: int = 10**6, n_envs: int = 4, threads: int = 1, **settings: Any
) -> tuple[VecEnv, str]:
    venv, restartable, note = make_training_envs(recipe(env_id, "auto", n_envs, **settings), timesteps, threads)
    venv.reset()
    venv.close()
    return restartable.venv, note


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectorisation, "usable_cores", lambda: 2)
    monkeypatch.setattr(vectorisation, "_running", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr("rlrun.envs.workers.usable_cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_auto_starts_workers_for_slow_envs_only_and_says_why():
    venv, note = decided("Slow")
    assert isinstance(venv, WorkersVecEnv)
    assert note.startswith("envs in 2 processes: a step takes 2")
    venv, note = decided("CartPole-v1")
    assert not isinstance(venv, WorkersVecEnv)
    assert note.startswith("envs serial: a step takes ")
    assert note.endswith(" µs, too little to hand over")
    assert decided("Slow", 100)[1].endswith("and the run is too short to start workers")
    assert decided("Slow", n_envs=1)[1] == ""


@pytest.mark.usefixtures("two_cores")
def test_auto_leaves_cores_that_others_use_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vectorisation, "_running", lambda: 3)
    assert "other processes use the cores" in decided("Slow")[1]
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert decided("Slow")[1].startswith("envs in 2 processes")


@pytest.mark.usefixtures("two_cores")
def test_auto_leaves_the_learners_threads_their_cores(monkeypatch: pytest.MonkeyPatch):
    assert decided("Slow", threads=2)[1] == "envs serial: the learner's 2 threads take the cores"
    monkeypatch.setattr(vectorisation, "usable_cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert decided("Slow", threads=2)[1].startswith("envs in 2 processes")


@pytest.mark.usefixtures("two_cores")
def test_auto_leaves_an_env_that_draws_from_the_global_generators_here():
    assert decided("Restless")[1].startswith("envs serial: the env draws from the global generators")


@pytest.mark.usefixtures("two_cores")
def test_auto_leaves_an_env_that_breaks_for_the_training_to_report():
    assert "could not be measured (OSError)" in decided("Fragile", kwargs={"what": "raises"})[1]


@pytest.mark.usefixtures("two_cores")
def test_auto_falls_back_where_workers_cannot_be_started(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any) -> Any:
        raise RlrunError("no more processes")

    monkeypatch.setattr("rlrun.envs.recipe.start_workers", fails)
    assert decided("Slow")[1] == "envs serial: workers could not be started (no more processes)"


def test_measuring_changes_no_generator_and_no_seed():
    env_recipe = recipe("Restless", "auto")
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    vectorisation.measure(env_recipe)
    assert (np.random.get_state()[1] == before).all()
    one, two = (trajectory(env_recipe.with_vec("serial"), 4) for _ in range(2))
    assert_equal(one, two)


SCRIPT = """
import sys
sys.path[:0] = {paths!r}
import rlrun
print("script", flush=True)
from rlrun.envs import vectorisation
vectorisation.usable_cores = vectorisation.os.cpu_count = lambda: 2
vectorisation._running, vectorisation._START = lambda: 1, 0.1
run = rlrun.train(
    {{"algo": "ppo", "env": {{"id": "vec_envs:Slow", "n_envs": 2}}, "total_timesteps": 64, "trackers": [],
      "hyperparameters": {{"n_steps": 32, "batch_size": 64, "n_epochs": 1}}, "evaluation": {{"episodes": 0}}}},
    progress=False, name="x",
)
print(run.summary()["notes"][-1])
"""


def test_auto_leaves_a_script_without_a_main_guard_alone(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=[HERE]))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert (first, last.partition(":")[0]) == ("script", "envs in 2 processes")
