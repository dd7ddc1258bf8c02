"""An exported agent is one ONNX file that does what SB3 does, checked by onnxruntime and NumPy alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

import rlrun
from rlrun.config.loading import read_source
from rlrun.envs.normalization import Statistics, get_statistics
from rlrun.envs.recipe import Role, find_normalizer
from rlrun.errors import MissingPackage, RlrunError
from rlrun.publish import actor as actors
from rlrun.publish import parity
from rlrun.publish.export import Export, export_agent
from rlrun.runs.load import Agent, untrained_agent
from rlrun.training.plan import make_plan

onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]

OBSERVATIONS = {
    "box": spaces.Box(np.array([-1, 900, -9], np.float32), np.array([1, 950, 3], np.float32)),
    "double": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "image": spaces.Box(0, 255, (36, 40, 3), np.uint8),
    "discrete": spaces.Discrete(5),
    "multi": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary(4),
    "dict": spaces.Dict(
        camera=spaces.Box(0, 255, (36, 40, 3), np.uint8),
        goal=spaces.Box(-5.0, 5.0, (2,), np.float32),
        kind=spaces.Discrete(3),
        action=spaces.Box(-1.0, 1.0, (2,), np.float32),  # two names that the graph itself has
        linear=spaces.Box(-1.0, 1.0, (1,), np.float32),
    ),
}
ACTIONS = {
    "box": spaces.Box(np.array([-1, -30], np.float32), np.array([2, 4], np.float32)),
    "discrete": spaces.Discrete(4),
    "multi": spaces.MultiDiscrete([3, 2]),
    "bits": spaces.MultiBinary(3),
}


class Noise(gym.Env[Any, Any]):
    """Observations at random, from a space by name; episodes of 20 steps."""

    def __init__(self, observations: str = "box", actions: str = "discrete") -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observations], ACTIONS[actions]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observation(), 0.0, self.steps == 20, False, {}

    def _observation(self) -> Any:
        found: Any = self.observation_space.sample()
        if self.observation_space.shape == (36, 40, 3):  # noise looks the same to a network, a corner of it does not
            found[self.np_random.integers(36) :, self.np_random.integers(40) :] = self.np_random.integers(255, size=3)
        return found

    def action_masks(self) -> np.ndarray:
        allowed = np.ones({"Discrete": 4, "MultiDiscrete": 5, "MultiBinary": 6}[type(self.action_space).__name__], bool)
        allowed[self.steps % len(allowed)] = False
        return allowed


class Branching(ActorCriticPolicy):
    """Acts on what is in a tensor, which no graph can follow."""

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        actions = super()._predict(observation, deterministic)
        return actions if float(actions.sum()) > 0 else -actions


class Doubling(ActorCriticPolicy):
    """A policy of the user's own that a graph can follow."""

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        return 2 * super()._predict(observation, deterministic)


def make_agent(algo: str, observations: str = "box", actions: str = "discrete", **changes: Any) -> Agent:
    """An untrained agent with statistics like a trained one's."""
    policy = "MultiInputPolicy" if observations == "dict" else "CnnPolicy" if observations == "image" else "MlpPolicy"
    hyperparameters = {"policy": policy, **changes.pop("hyperparameters", {})}
    env = {"id": f"{__name__}:Noise", "kwargs": {"observations": observations, "actions": actions}}
    config = {"algo": algo, "env": {**env, **changes.pop("env", {})}, "hyperparameters": hyperparameters}
    plan = make_plan(read_source({"total_timesteps": 1_000, **config, **changes}), probe_env=False)
    agent = untrained_agent(plan.config, plan.recipe)
    if agent.statistics is not None:
        agent.statistics.update(_statistics_of_random_play(agent))
    with torch.no_grad():  # as small as they are at first, every action would be much the same
        generator = torch.Generator().manual_seed(1)
        for parameter in agent.model.policy.parameters():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise / parameter[0].numel() ** 0.5)
    return agent


def _statistics_of_random_play(agent: Agent) -> Statistics:
    venv, _ = agent.recipe.make_training_vec()
    venv.reset()
    for _ in range(50):
        venv.step(np.stack([venv.action_space.sample() for _ in range(venv.num_envs)]))
    normalizer = find_normalizer(venv)
    assert normalizer is not None
    return get_statistics(normalizer)


def exported(agent: Agent, folder: Path) -> Export:
    return export_agent(agent, folder / "policy.onnx", "runs/x")


ON = {"norm_obs": True, "norm_reward": True, "clip_obs": 3.0}
CASES = [
    ("a2c", "box", "box", {"normalize": ON}),
    ("a2c", "discrete", "multi", {}),
    ("ppo", "dict", "discrete", {"normalize": {**ON, "norm_obs_keys": ["goal", "action"]}}),
    ("ppo", "image", "discrete", {"env": {"frame_stack": 2}, "seed": 3}),
    ("dqn", "box", "discrete", {"normalize": ON}),
    ("tqc", "dict", "box", {"normalize": {**ON, "norm_obs_keys": ["goal"]}}),
    ("sac", "box", "box", {"normalize": ON}),
]
MORE = [
    ("a2c", "image", "bits", {}),
    ("a2c", "dict", "box", {}),
    ("ppo", "box", "box", {"hyperparameters": {"use_sde": True, "policy_kwargs": {"squash_output": True}}}),
    ("ppo", "multi", "bits", {}),
    ("ppo", "bits", "multi", {}),
    ("ppo", "double", "box", {}),
    ("ppo", "image", "box", {"normalize": ON, "hyperparameters": {"policy": "MlpPolicy"}}),
    ("dqn", "image", "discrete", {"env": {"frame_stack": 4}}),
    ("dqn", "dict", "discrete", {}),
    ("dqn", "discrete", "discrete", {}),
    ("tqc", "box", "box", {"normalize": ON}),
    ("tqc", "image", "box", {}),
    ("tqc", "discrete", "box", {}),
    ("sac", "dict", "box", {}),
    ("sac", "image", "box", {}),
    ("sac", "discrete", "box", {}),
    ("td3", "box", "box", {"normalize": ON}),
    ("ddpg", "box", "box", {}),
    ("crossq", "box", "box", {"normalize": ON}),
    ("qrdqn", "box", "discrete", {"normalize": ON}),
    ("trpo", "box", "multi", {"normalize": ON}),
    ("ppo", "box", "box", {"normalize": ON, "hyperparameters": {"policy": f"{__name__}:Doubling"}}),
    ("ars", "box", "box", {"normalize": ON}),
    ("ars", "box", "discrete", {"normalize": ON}),
]


@pytest.mark.parametrize(
    ("algo", "observations", "actions", "changes"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
    ids=["-".join(case[:3]) for case in (*CASES, *MORE)],
)
def test_a_graph_does_what_sb3_does(
    algo: str, observations: str, actions: str, changes: dict[str, Any], tmp_path: Path
):
    agent = make_agent(algo, observations, actions, **changes)
    result = exported(agent, tmp_path)
    print(algo, observations, actions, result.parity)
    assert result.parity.observations == 1_000
    assert result.parity.differing_actions == (None if actions == "box" else 0)
    assert result.parity.largest_difference < 1e-4
    _compare_by_hand(agent, result)


def _compare_by_hand(agent: Agent, result: Export) -> None:
    """Once more without what the export checks itself with: by the wrappers of the recipe, in a batch of 30."""
    venv = agent.recipe.make_vec(Role.EVAL, [[i] for i in range(30)], agent.statistics)
    normalizer = find_normalizer(venv)
    observation: Any = venv.reset()
    raw = observation if normalizer is None else normalizer.get_original_obs()
    session = onnxruntime.InferenceSession(str(result.path))
    parts = raw if isinstance(raw, dict) else {"": raw}
    feed = {}
    for port, (key, values) in zip(result.inputs, parts.items(), strict=True):
        given: Any = values
        if values.ndim == 4:  # the recipe put channels first, the graph takes them as the env gives them
            given = np.moveaxis(values, 1, -1)
        assert port.name in ("observation", key, f"observation_{key}")
        feed[port.name] = given
    (actions,) = session.run(["action"], feed)
    expected, _ = agent.model.predict(observation, deterministic=True)
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-4)
    assert actions.dtype == expected.dtype == np.dtype(result.outputs[0].dtype)
    assert len(np.unique(expected)) > 1, "the agent does the same whatever it sees, so this shows nothing"


def test_masks_are_an_input_where_the_agent_takes_them(tmp_path: Path):
    result = exported(make_agent("maskable_ppo", normalize=ON), tmp_path)
    assert [port.name for port in result.inputs] == ["observation", "action_masks"]
    session = onnxruntime.InferenceSession(str(result.path))
    masks = np.eye(4, dtype=bool)
    (actions,) = session.run(["action"], {"observation": np.zeros((4, 3), np.float32), "action_masks": masks})
    assert actions.tolist() == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("actions", ["multi", "bits"])
def test_masks_of_several_choices_are_one_input(actions: str, tmp_path: Path):
    result = exported(make_agent("maskable_ppo", actions=actions), tmp_path)
    assert result.inputs[1].shape == ("batch", {"multi": 5, "bits": 6}[actions])
    _, given = onnxruntime.InferenceSession(str(result.path)).get_inputs()
    assert (given.name, given.type) == ("action_masks", "tensor(bool)")


@pytest.mark.parametrize("actions", ["box", pytest.param("discrete", marks=pytest.mark.slow)])
def test_a_recurrent_agent_hands_its_state_on(actions: str, tmp_path: Path):
    changes = {"hyperparameters": {"policy": "MlpLstmPolicy", "policy_kwargs": {"n_lstm_layers": 2}}}
    result = exported(make_agent("recurrent_ppo", actions=actions, normalize=ON, **changes), tmp_path)
    assert [port.name for port in result.inputs] == ["observation", "hidden_state", "cell_state", "episode_start"]
    assert [port.name for port in result.outputs] == ["action", "next_hidden_state", "next_cell_state"]
    assert result.parity.observations == 1_000


def test_the_file_says_what_it_is(tmp_path: Path):
    import onnx

    result = exported(make_agent("ppo", "dict", normalize={**ON, "norm_obs_keys": ["goal"]}), tmp_path)
    proto = onnx.load(str(result.path))
    facts = {prop.key: prop.value for prop in proto.metadata_props}
    assert (facts["algo"], facts["env"], facts["run"]) == ("ppo", f"{__name__}:Noise", "x")
    inputs = json.loads(facts["inputs"])
    assert set(inputs) == {"camera", "goal", "kind", "observation_action", "linear"}
    assert inputs["goal"] == "goal float32[batch, 2]: the observation goal as the env gives it; normalized inside"
    assert "channels last" in inputs["camera"]
    assert proto.graph.input[0].doc_string
    assert list(tmp_path.iterdir()) == [result.path], "nothing lies beside it"


@pytest.mark.parametrize(
    ("kind", "algo", "actions"), [("statistics", "a2c", "box"), ("bounds", "sac", "box"), ("choice", "dqn", "discrete")]
)
def test_a_wrong_graph_is_refused_and_not_written(
    kind: str, algo: str, actions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    right = actors.make_actor

    def wrong(*arguments: Any) -> actors.Actor:
        actor = right(*arguments)
        leaf: Any = actor.leaves[0]
        if kind == "statistics":
            leaf.mean += 0.1
        elif kind == "bounds":
            actor.high *= 0.5
        else:
            network: Any = actor.policy.q_net.q_net[-1]
            actor.act = lambda *given: (network.out_features - 1 - actors.Actor.act(actor, *given)[0],)  # type: ignore
        return actor

    monkeypatch.setattr("rlrun.publish.export.make_actor", wrong)
    with pytest.raises(RlrunError, match="does not do what the agent does") as raised:
        exported(make_agent(algo, "box", actions, normalize=ON), tmp_path)
    assert raised.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_only_choices_that_are_as_good_may_differ():
    scores = [np.array([1.0, 1.0 + 5e-6, 0.5])]
    assert parity._are_ties(scores, np.array([0]), np.array([1]))
    assert not parity._are_ties(scores, np.array([0]), np.array([2]))


@pytest.mark.parametrize(("algo", "actions"), [("ppo", "multi"), ("a2c", "bits"), ("qrdqn", "discrete")])
def test_the_scores_of_choices_are_those_that_sb3_chooses_by(algo: str, actions: str):
    model = make_agent(algo, actions=actions).model
    observation = np.stack([OBSERVATIONS["box"].sample() for _ in range(50)])
    with torch.no_grad():
        scores = parity._scores(model, observation, None)
    assert scores is not None
    chosen = np.stack([score.argmax(axis=1) for score in scores], axis=1)
    np.testing.assert_array_equal(chosen, model.predict(observation, deterministic=True)[0].reshape(50, -1))


def test_a_policy_that_is_no_graph_is_refused_in_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    agent = make_agent("ppo", hyperparameters={"policy": f"{__name__}:Branching"})
    with pytest.raises(RlrunError, match="Branching cannot be written as one ONNX graph: ") as raised:
        exported(agent, tmp_path)
    assert "\n" not in raised.value.message
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_said_with_the_command_that_installs_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage) as raised:
        exported(make_agent("ppo"), tmp_path)
    assert package in raised.value.message
    assert "rlrun[onnx]" in raised.value.hint


def test_a_run_is_exported_and_the_guide_s_ten_lines_run_it(
    rlrun_command: Callable[..., Any], folder: Path, capsys: pytest.CaptureFixture[str]
):
    config = {"algo": "ppo", "env": {"id": "CartPole-v1", "n_envs": 2}, "total_timesteps": 128, "normalize": True}
    config |= {"hyperparameters": {"n_steps": 64, "batch_size": 64}, "evaluation": {"episodes": 0}, "trackers": []}
    run = rlrun.train(config, progress=False)
    outcome = rlrun_command("export", "latest", "--to", "onnx", "--json")
    assert outcome.code == 0, outcome.err
    values = json.loads(outcome.out)
    assert (values["checkpoint"], values["timesteps"], values["differing_actions"]) == ("final", 128, 0)
    assert Path(values["path"]).resolve() == (run.path / "export" / "final.onnx").resolve()

    outcome = rlrun_command("export", "latest", "--checkpoint", "128", "--out", "a/b.onnx")
    assert "1,000 observations, 0 actions differ from SB3's" in outcome.out
    shutil.copy(folder / "a" / "b.onnx", "policy.onnx")
    guide = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "onnxruntime" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    exec(code, {})
    assert "observation tensor(float) ['batch', 4]" in capsys.readouterr().out


def test_what_cannot_be_exported_to_is_wrong_input(rlrun_command: Callable[..., Any], folder: Path):
    outcome = rlrun_command("export", "latest", "--to", "keras")
    assert outcome.code == 2
    assert "onnx" in outcome.err
    with pytest.raises(RlrunError, match="is a folder"):
        export_agent(make_agent("ppo"), folder)
