"""compare and plot: what they take, put together and say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlrun
from rlrun.errors import UsageError
from rlrun.evidence import curves
from rlrun.evidence.comparing import compare_scored
from rlrun.evidence.curves import group_curve
from rlrun.evidence.scores import Seed, Seeds, _names, collect, read_curve, read_seed
from rlrun.runs.files import write_json
from rlrun.runs.summary import last_evaluation

pytestmark = pytest.mark.usefixtures("folder")
CONFIG: dict[str, Any] = {
    "algo": "a2c",
    "env": {"id": "CartPole-v1", "n_envs": 1},
    "total_timesteps": 20,
    "evaluation": {"every": 10, "episodes": 1},
    "trackers": [],
}


def run_with(score: float | None, name: str, seed: int, **changes: Any) -> Path:
    """A short run whose stored result is another."""
    path = rlrun.train({**CONFIG, **changes, "seed": seed}, name=name, progress=False).path
    if score is not None:
        values = {"timesteps": rlrun.open_run(path).directory.pointer("final"), "mean_return": score}
        write_json(path / "results.json", {"final": values, "best": values})
    return path


def test_runs_that_differ_in_their_seed_only_are_a_group_wherever_they_lie():
    for seed in range(3):
        run_with(100.0 + seed, f"a{seed}", seed)
        run_with(200.0 + seed, f"b{seed}", seed, hyperparameters={"gamma": 0.9})
    found = rlrun.compare("runs")
    assert [len(group.runs) for group in found.groups] == [3, 3]
    assert {group.name for group in found.groups} == {
        "a2c on CartPole-v1 hyperparameters.gamma=default",
        "a2c on CartPole-v1 hyperparameters.gamma=0.9",
    }
    named = rlrun.compare("slow=runs/*/*/a*", "fast=runs/*/*/b*")
    assert [summary.mean for summary in named.summaries.values()] == [101.0, 201.0]
    assert "at least 4 of each are needed" in named.verdict


def test_the_command_prints_verdict_table_and_json(rlrun_command: Callable[..., Any]):
    for seed in range(5):
        run_with(100.0 + seed, f"a{seed}", seed)
        run_with(200.0 + seed, f"b{seed}", seed, hyperparameters={"gamma": 0.9})
    selected = ("a=runs/*/*/a*", "b=runs/*/*/b*")
    said = rlrun_command("compare", *selected)
    assert said.code == 0, said.err
    assert "b is better than a (5 and 5 seeds, p = 0.0079)." in said.out
    report = json.loads(rlrun_command("compare", *selected, "--json").out)
    assert report["verdict"].startswith("b is better than a")
    assert report["groups"]["a"]["iqm"] == 102.0
    assert "| a | 5 | 102.00 | 102.00 | 102.00 |" in rlrun_command("compare", *selected, "--markdown").out
    rows = list(csv.DictReader(io.StringIO(rlrun_command("compare", *selected, "--csv").out)))
    assert [float(row["score"]) for row in rows[:2]] == [100.0, 101.0]
    assert rlrun_command("compare", *selected, "--csv", "--json").code == 2


def test_what_is_missing_or_unequal_is_said(rlrun_command: Callable[..., Any]):
    path = run_with(None, "unscored", 0)
    (path / "results.json").unlink(missing_ok=True)
    run_with(1.0, "a", 1)
    run_with(2.0, "b", 2, total_timesteps=40)
    outcome = rlrun_command("compare", "runs")
    assert outcome.code == 0
    assert "unscored has no score yet" in outcome.err
    assert "The budgets differ: 20 to 40 timesteps." in outcome.err
    assert rlrun_command("compare", str(path)).code == 2
    for text in ("nothing", "x=nothing*"):
        refused = rlrun_command("compare", text)
        assert (refused.code, refused.out) == (2, "")


def test_a_folder_in_the_middle_of_runs_holds_all_runs_below_it():
    alone = run_with(1.0, "alone", 0)
    group = rlrun.train_seeds(CONFIG, seeds=[1, 2], name="group", jobs=1, progress=False).group
    for folder in ("runs", "runs/CartPole-v1", "runs/CartPole-v1/a2c"):
        (found,) = collect([folder], Path("runs"))
        assert {run.path for run in found.runs} == {alone.resolve(), *(run.path for run in group.runs())}
    trial = Path("runs/CartPole-v1/a2c/study/trials/0/s1")
    trial.parent.mkdir(parents=True)
    alone.rename(trial)
    (found,) = collect(["runs/CartPole-v1"], Path("runs"))
    assert {run.seed for run in found.runs} == {1, 2}


def test_the_score_of_an_earlier_budget_is_none_of_the_longer_run():
    path = run_with(1.0, "a", 0)
    directory = rlrun.open_run(path).directory
    assert read_seed(directory).score == 1.0
    directory.update_manifest({"status": "interrupted"})  # `resume --timesteps` went on with it
    assert read_seed(directory).score is None
    directory.update_manifest({"status": "finished"})
    directory.point("final", 40)
    assert read_seed(directory).score is None


def test_seeds_that_have_not_begun_are_named_and_eval_does_without_them(rlrun_command: Callable[..., Any]):
    group = rlrun.train_seeds(CONFIG, seeds=[0, 1, 2], name="group", jobs=1, progress=False).group
    (group.path / "s1").rename(group.path / ".s1.tmp")
    rlrun.open_run(group.path / "s2").directory.update_manifest({"status": "failed"})
    said = rlrun_command("compare", "group")
    assert "s2 have no score yet and do not count." in said.err
    assert f"{group.path}/s1" in said.err
    assert "1 of 3 runs failed, so that the others look too good." in said.err
    found = rlrun_command("eval", "group", "--episodes", "2", "--json")
    assert [run["training_seed"] for run in json.loads(found.out)["runs"]] == [0]
    assert "s2 is failed, so it has no final agent" in found.err
    rlrun.open_run(group.path / "s0").directory.update_manifest({"status": "interrupted"})
    assert rlrun_command("eval", "group").code == 2


def test_every_agent_can_play_the_same_episodes_anew(rlrun_command: Callable[..., Any]):
    for seed in range(2):
        run_with(-1.0, f"a{seed}", seed)
    found = json.loads(rlrun_command("compare", "runs", "--episodes", "3", "--json").out)
    (group,) = found["groups"].values()
    runs = [rlrun.open_run(f"a{seed}") for seed in range(2)]
    expected = [run.evaluate(3, seed=0, checkpoint="final").evaluation.mean_return for run in runs]
    assert [run["score"] for run in group["runs"]] == expected


def test_runs_of_unlike_settings_under_one_name_and_unlike_envs_are_said():
    run_with(1.0, "a", 0)
    run_with(2.0, "b", 1, hyperparameters={"gamma": 0.9})
    run_with(3.0, "c", 1, env={"id": "CartPole-v1", "n_envs": 1, "kwargs": {"sutton_barto_reward": True}})
    warnings = rlrun.compare("x=runs/*/*/[ab]").warnings
    assert "x: its runs differ in more than their seed: hyperparameters.gamma." in warnings
    warnings = rlrun.compare("a", "c").warnings
    assert "The groups differ in env.kwargs.sutton_barto_reward: are their returns of one kind?" in warnings


def test_a_torn_row_of_the_evaluations_is_passed_over():
    path = run_with(1.0, "a", 0)
    before = last_evaluation(path)
    with (path / "evaluations.csv").open("a") as stream:
        stream.write("20,0,17,-")
    assert last_evaluation(path) == before
    (path / "results.json").write_text("null")
    assert read_seed(rlrun.open_run(path).directory).score is None


def zoo_log(folder: Path, score: float) -> Path:
    folder.mkdir(parents=True)
    results = np.full((3, 5), score)
    np.savez(folder / "evaluations.npz", timesteps=[10, 20, 30], results=results, ep_lengths=results)
    (folder / "0.monitor.csv").write_text('#{"t_start": 0}\nr,l,t\n1.0,5,0.1\n3.0,5,0.2\n')
    return folder


def test_logs_of_rl_zoo_and_of_monitor_have_scores_too():
    for index in range(4):
        zoo_log(Path(f"logs/ppo/CartPole-v1_{index}"), 100.0 + index)
    (group,) = collect(["logs/ppo/*"], Path("runs"))
    assert (group.name, group.scores) == ("ppo/CartPole-v1", [100.0, 101.0, 102.0, 103.0])
    (monitors,) = collect(["m=logs/ppo/*/0.monitor.csv"], Path("runs"))
    assert monitors.scores == [2.0] * 4
    Path("logs/ppo/CartPole-v1_0/evaluations.npz").write_bytes(b"no")
    with pytest.raises(UsageError, match="cannot be read"):
        collect(["logs/ppo/*"], Path("runs"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no"])
def test_a_damaged_log_is_refused_in_a_sentence(content: bytes):
    zoo_log(Path("logs/CartPole-v1_1"), 1.0)
    Path("logs/CartPole-v1_1/evaluations.npz").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        collect(["logs/*"], Path("runs"))
    np.savez("logs/CartPole-v1_1/evaluations.npz", results=np.zeros((2, 5)))
    with pytest.raises(UsageError, match="cannot be read"):
        collect(["logs/*"], Path("runs"))


def test_a_monitor_file_that_is_being_written_counts_without_its_torn_row():
    monitor_file(Path("x.monitor.csv"), [1.0, 3.0])
    whole = Path("x.monitor.csv").read_text()
    Path("x.monitor.csv").write_text(whole + "7.")
    assert collect(["x.monitor.csv"], Path("runs"))[0].scores == [2.0]
    Path("x.monitor.csv").write_text(whole + "7.,inf,1\n1,1,1\n")
    with pytest.raises(UsageError, match="is no Monitor file"):
        collect(["x.monitor.csv"], Path("runs"))


def test_trainings_of_rl_zoo_are_put_together_by_what_they_were_trained_with(rlrun_command: Callable[..., Any]):
    dumped = "!!python/object/apply:collections.OrderedDict\n- - - gamma\n    - {}\n"
    for index, (gamma, seed) in enumerate([(0.9, 1), (0.9, 2), (0.99, 1), (0.99, 1)]):
        folder = zoo_log(Path(f"logs/ppo/CartPole-v1_{index}"), float(index)) / "CartPole-v1"
        folder.mkdir()
        (folder / "config.yml").write_text(dumped.format(gamma))
        (folder / "args.yml").write_text(dumped.replace("gamma", "seed").format(seed))
    one, other = collect(["logs"], Path("runs"))
    assert [run.seed for run in one.runs] == [1, 2]
    assert ([run.seed for run in other.runs], len(other.repeated)) == ([1], 1)
    assert one.name == "ppo/CartPole-v1 hyperparameters.gamma=0.9"


def test_budgets_of_logs_and_scores_of_training_are_said(rlrun_command: Callable[..., Any]):
    zoo_log(Path("logs/ppo/CartPole-v1_1"), 1.0)
    monitor_file(Path("own/x.monitor.csv"), [1.0] * 100, steps=50)
    said = rlrun_command("compare", "logs", "own")
    assert "The budgets differ: 30 to 5,000 timesteps." in said.err
    assert "The scores of " in said.err
    assert "are of training episodes" in said.err


def monitor_file(file: Path, returns: list[float], env: str = "CartPole-v1", steps: int = 5) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{value},{steps},0.1\n" for value in returns)
    file.write_text(f'#{{"t_start": 0, "env_id": "{env}"}}\nr,l,t\n{rows}')


def test_logs_are_compared_where_they_are_of_one_env():
    for index in range(4):
        monitor_file(Path(f"logs/ppo/CartPole-v1_{index}/0.monitor.csv"), [1.0 + index])
        monitor_file(Path(f"logs/a2c/CartPole-v1_{index}/0.monitor.csv"), [11.0 + index])
        monitor_file(Path(f"logs/ppo/Pendulum-v1_{index}/0.monitor.csv"), [-99.0], "Pendulum-v1")
    found = rlrun.compare("logs/*/*")
    assert [group.name for group in found.groups] == ["a2c/CartPole-v1", "ppo/CartPole-v1", "ppo/Pendulum-v1"]
    assert [(pair.first, pair.second) for pair in found.comparisons] == [("a2c/CartPole-v1", "ppo/CartPole-v1")]
    with pytest.raises(UsageError, match="x has runs on CartPole-v1 and on Pendulum-v1"):
        collect(["x=logs/ppo/*"], Path("runs"))


def test_the_env_of_a_log_without_monitor_files_is_in_its_folders_name():
    zoo_log(Path("logs/ppo/ALE-Pong-v5_1"), 1.0)
    zoo_log(Path("mine/second"), 1.0)
    monitor_file(Path("own/x.monitor.csv"), [1.0], "ALE/Pong-v5")
    pong, mine, own = collect(["logs/ppo/ALE-Pong-v5_1", "mine/second", "own/x.monitor.csv"], Path("runs"))
    assert (pong.env, mine.env, own.env) == ("ALE-Pong-v5", "", "ALE/Pong-v5")
    compared = rlrun.compare("logs/ppo/ALE-Pong-v5_1", "own/x.monitor.csv")
    assert len(compared.comparisons) == 1
    zoo_log(Path("mine/third"), 2.0)
    warnings = rlrun.compare("mine/*").warnings
    assert "The env of mine/second and mine/third is not recorded; it is taken to be the same one." in warnings


def test_monitor_files_of_one_runs_envs_are_one_seed_and_its_last_episodes_count():
    monitor_file(Path("a/0.monitor.csv"), [0.0] * 60 + [10.0] * 50)
    monitor_file(Path("a/1.monitor.csv"), [0.0] * 60 + [10.0] * 50)
    (group,) = collect(["x=a/*.monitor.csv"], Path("runs"))
    assert group.scores == [10.0]
    (whole,) = collect(["a"], Path("runs"))
    assert whole.scores == [10.0]
    curve = read_curve(group.runs[0], "training")
    assert curve is not None
    assert curve.x[-1] == 2 * 110 * 5
    monitor_file(Path("b/first.monitor.csv"), [1.0])
    monitor_file(Path("b/second.monitor.csv"), [2.0])
    (named,) = collect(["b/first.monitor.csv", "b/second.monitor.csv"], Path("runs"))
    assert named.scores == [1.0, 2.0]
    monitor_file(Path("elsewhere/b/first.monitor.csv"), [3.0])
    assert len(collect(["b/first.monitor.csv", "elsewhere/b/first.monitor.csv"], Path("runs"))) == 2


def test_groups_get_names_that_tell_them_apart():
    settings = [(1, 1, 1, 1), (2, 2, 2, 1), (2, 2, 2, 2)]
    runs = [
        Seed(Path(str(index)), 0, 1.0, {"algo": "ppo", "env.id": "E", **dict(zip("abcd", values, strict=True))})
        for index, values in enumerate(settings)
    ]
    assert _names(runs) == ["ppo on E a=1, b=1, c=1, d=1", "ppo on E a=2, b=2, c=2, d=1", "ppo on E a=2, b=2, c=2, d=2"]
    assert _names(runs[:2]) == ["ppo on E a=1, b=1, c=1", "ppo on E a=2, b=2, c=2"]


def test_too_many_groups_are_listed_but_not_compared():
    groups = [Seeds(f"g{i}", (Seed(Path("x"), 0, 1.0), Seed(Path("y"), 1, 2.0))) for i in range(26)]
    found = compare_scored(groups)
    assert (len(found.summaries), found.comparisons) == (26, ())
    assert any(warning.startswith("26 groups are too many") for warning in found.warnings)
    assert any("fewer than 5 seeds" in warning for warning in found.warnings)


def curves_in(folder: Path, *curves: list[tuple[int, float]]) -> Seeds:
    runs = []
    for index, curve in enumerate(curves):
        path = folder / f"s{index}"
        path.mkdir(parents=True)
        lines = "".join(f"{steps},0,1,{value},1,\n" for steps, value in curve)
        (path / "evaluations.csv").write_text("timesteps,episode,seed,return,length,success\n" + lines)
        runs.append(Seed(path, index, None))
    return Seeds("g", tuple(runs))


def test_curves_of_unequal_length_end_with_the_shortest_and_are_read_between_points(folder: Path):
    group = curves_in(folder, [(0, 0.0), (100, 100.0)], [(0, 0.0), (50, 100.0), (200, 100.0)])
    curve = group_curve(group, "evaluation")
    assert curve is not None
    assert (curve.x[0], curve.x[-1]) == (0, 100)
    assert curve.centre[list(curve.x).index(50)] == pytest.approx(75.0)  # 50 and 100
    assert curve.low is not None
    assert curve.high is not None
    assert np.all((curve.low <= curve.centre) & (curve.centre <= curve.high))


def test_hours_are_those_that_the_seeds_took_on_average(folder: Path, rlrun_command: Callable[..., Any]):
    group = curves_in(folder, [(100, 1.0), (200, 2.0)], [(100, 1.0), (200, 2.0)])
    for run, hours in zip(group.runs, (2, 4), strict=True):
        (run.path / "metrics.csv").write_text(f"timesteps,time/time_elapsed\n200,{hours * 3600}\n")
    curve = group_curve(group, "evaluation", "hours")
    assert curve is not None
    assert curve.x.tolist() == [1.5, 3.0]
    assert curve.centre.tolist() == [1.0, 2.0]
    zoo_log(Path("logs/CartPole-v1_1"), 1.0)
    refused = rlrun_command("plot", "logs", "--x", "hours")
    assert (refused.code, "has a clock" in refused.err) == (2, True)


def test_a_curve_that_ends_early_or_is_missing_is_said(rlrun_command: Callable[..., Any]):
    for index, points in enumerate((3, 5)):
        steps = np.arange(1, points + 1) * 10
        folder = Path(f"logs/ppo/CartPole-v1_{index}")
        folder.mkdir(parents=True)
        np.savez(folder / "evaluations.npz", timesteps=steps, results=np.ones((points, 2)))
    monitor_file(Path("own/x.monitor.csv"), [1.0])
    said = rlrun_command("plot", "logs", "own", "--out", "c.png")
    assert said.code == 0, said.err
    assert "ppo/CartPole-v1 is drawn as far as the shortest of its seeds goes: 30 of 50 timesteps." in said.err
    assert "has no such curve" in said.err


def test_the_interval_is_the_same_in_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch):
    group = curves_in(folder, *([(step, float(step * seed)) for step in range(30)] for seed in range(5)))
    whole = group_curve(group, "evaluation")
    monkeypatch.setattr(curves, "_MOST_NUMBERS", 12_000)
    in_blocks = group_curve(group, "evaluation")
    assert whole is not None
    assert in_blocks is not None
    assert np.array_equal(whole.low, in_blocks.low)
    assert np.array_equal(whole.high, in_blocks.high)


def test_ten_million_points_are_thinned_out(folder: Path):
    group = curves_in(folder, [(step * 1000, float(step)) for step in range(10_000)])
    curve = group_curve(group, "evaluation")
    assert curve is not None
    assert len(curve.x) == 400
    assert curve.low is None


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_pictures_are_drawn(ending: str, rlrun_command: Callable[..., Any]):
    for seed in range(2):
        run_with(None, f"a{seed}", seed, total_timesteps=200)
    outcome = rlrun_command("plot", "runs", "--out", f"deep/er.{ending}", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["groups"][0]["seeds"] == 2
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert Path(f"deep/er.{ending}").read_bytes().startswith(starts[ending])
    assert rlrun_command("plot", "runs", "--what", "training", "--out", "t.png").code == 0
    Path("afile").touch()
    refused = rlrun_command("plot", "runs", "--out", "afile/c.png")
    assert (refused.code, "A part of the path is a file" in refused.err, "--out" in refused.err) == (2, True, True)
    for wrong in (("--out", "a.bmp"), ("--what", "success")):
        refused = rlrun_command("plot", "runs", *wrong)
        assert (refused.code, refused.out) == (2, ""), wrong


def test_what_differs_between_two_runs(rlrun_command: Callable[..., Any]):
    run_with(1.0, "a", 0)
    run_with(1.0, "b", 1)
    path = run_with(1.0, "c", 1, hyperparameters={"gamma": 0.9})
    assert rlrun_command("diff", "a", "b").out.startswith("They differ in their seed only.\n")
    assert rlrun_command("diff", "b", "b").out == "Nothing that is recorded differs.\n"
    said = rlrun_command("diff", "b", "c").out
    assert said.startswith("They differ in hyperparameters.gamma (null and 0.9).\n")
    manifest = json.loads((path / "manifest.json").read_text())
    write_json(path / "manifest.json", {**manifest, "versions": {**manifest["versions"], "torch": "1.0"}})
    report = json.loads(rlrun_command("diff", "b", "c", "--json").out)
    assert report["versions"]["torch"][1] == "1.0"
    assert report["config"] == {"hyperparameters.gamma": [None, 0.9]}


def test_a_group_is_evaluated_on_the_same_episodes(rlrun_command: Callable[..., Any]):
    Path("c.yaml").write_text(json.dumps(CONFIG))
    assert rlrun_command("train", "c.yaml", "--seeds", "0-1", "--name", "g").code == 0
    report = json.loads(rlrun_command("eval", "g", "--episodes", "3", "--json").out)
    assert [run["training_seed"] for run in report["runs"]] == [0, 1]
    assert {run["seed"] for run in report["runs"]} == {0}
    for run in report["runs"]:
        alone = rlrun.open_run(run["run"]).evaluate(3, seed=0, checkpoint="final")
        assert alone.as_dict()["returns"] == run["returns"]
    assert "IQM over 2 seeds" in rlrun_command("eval", "g", "--episodes", "3").out
    assert rlrun_command("eval", "g", "--algo", "ppo").code == 2


def test_the_same_training_again_is_no_new_seed_and_a_score_that_is_no_number_does_not_count():
    for index in range(4):
        run_with(100.0, f"a{index}", 0)
    for seed in range(4):
        run_with(float("nan") if seed == 3 else 200.0 + seed, f"b{seed}", seed, hyperparameters={"gamma": 0.9})
    found = rlrun.compare("runs")
    assert sorted(len(group.scores) for group in found.groups) == [1, 3]
    assert "p = " not in found.verdict
    words = " ".join(found.warnings)
    assert "3 runs repeat the seed" in words
    assert "has no score yet" in words
