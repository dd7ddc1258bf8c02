"""Double DQN, dueling networks and prioritised replay against what one computes by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from comparing import assert_same, killed_and_resumed, train_on_pixels
from gymnasium import spaces
from scipy.stats import chisquare
from stable_baselines3 import DQN as PlainDQN
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.logger import Logger

import rlrun
from rlrun.accelerate import td_learning
from rlrun.algorithms.build import build_model
from rlrun.algorithms.dqn import DQN, OPTIONS, Dueling, FastDQNWithOptions
from rlrun.algorithms.prioritized import PrioritizedReplayBuffer
from rlrun.algorithms.sum_tree import SumTree
from rlrun.config.loading import read_source
from rlrun.errors import ConfigError, UsageError
from rlrun.runs.checkpoint import read_checkpoint
from rlrun.training.plan import make_plan

pytestmark = pytest.mark.usefixtures("one_thread")


# -- the tree


def test_an_index_is_found_where_the_running_sum_passes_the_height() -> None:
    tree = SumTree(5)
    tree.put(np.arange(5), np.array([1.0, 0.0, 2.0, 0.5, 1.5]))  # running sums 1, 1, 3, 3.5, 5
    assert tree.total == 5
    heights = np.array([0.0, 0.99, 1.0, 2.99, 3.0, 3.49, 3.5, 4.99])
    assert tree.find(heights).tolist() == [0, 0, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 5_000, 16_384 * 16 + 1])
def test_a_tree_that_changed_is_the_tree_of_its_leaves(size: int) -> None:
    rng, tree, leaves = np.random.default_rng(size), SumTree(size), np.zeros(size)
    for _ in range(50):
        at = rng.integers(0, size, 4)
        values = rng.random(4) * 10.0 ** rng.integers(-8, 8)
        tree.put(at, values)
        leaves[at] = values
    assert np.array_equal(tree.leaves, leaves)
    anew = SumTree(size)
    anew.fill(leaves)
    assert all(map(np.array_equal, anew._levels, tree._levels))
    assert tree.total == pytest.approx(leaves.sum())


def test_what_has_no_priority_is_never_found_whatever_rounding_does() -> None:
    tree = SumTree(6)
    tree.put(np.array([0, 2]), np.array([0.1, 0.2]))
    assert set(tree.find(np.array([0.0, 0.1, 0.3, np.nextafter(0.3, 1), 5.0])).tolist()) == {0, 2}


# -- the buffer


def buffer_of(size: int, n_envs: int = 1, added: int | None = None, **settings: Any) -> PrioritizedReplayBuffer:
    """A buffer whose observations are the number of the step, and its env after the point."""
    box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    buffer = PrioritizedReplayBuffer(size * n_envs, box, spaces.Discrete(3), "cpu", n_envs=n_envs, **settings)
    for step in range(size if added is None else added):
        obs = step + np.arange(n_envs)[:, None] / 10
        buffer.add(obs, obs + 1, np.zeros((n_envs, 1)), np.ones(n_envs), np.zeros(n_envs), [{}] * n_envs)
    return buffer


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_transitions_are_drawn_in_proportion_to_their_priority(alpha: float) -> None:
    buffer, errors = buffer_of(10, n_envs=3, alpha=alpha, epsilon=0.1), np.random.default_rng(0).exponential(size=30)
    buffer.update_priorities(np.arange(30), -errors)
    np.random.seed(0)
    counts = np.zeros(30)
    for _ in range(20_000):  # one at a time: those of a batch are spread evenly on purpose
        counts += np.bincount(buffer.draw(1)[0], minlength=30)
    assert errors.max() > 1.5
    expected = (np.minimum(errors, 1) + 0.1) ** alpha
    assert chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 0.001
    if alpha:
        assert chisquare(counts, np.full(30, counts.sum() / 30)).pvalue < 1e-6


def test_a_batch_takes_one_transition_from_each_equal_part() -> None:
    buffer = buffer_of(8, alpha=1.0, epsilon=0.0)
    buffer.update_priorities(np.arange(8), np.array([0.8, 0, 0, 0, 0.2, 0.2, 0.2, 0.2]))
    at, _ = buffer.draw(8)
    assert sorted(at.tolist()) == [0, 0, 0, 0, 4, 5, 6, 7]


def test_weights_make_up_for_uneven_draws() -> None:
    buffer = buffer_of(4, alpha=1.0, epsilon=0.0)
    buffer.update_priorities(np.arange(4), np.array([0.2, 0.4, 0.8, 0.2]))
    buffer.beta = 0.5
    at, weights = buffer.draw(64)
    chances = np.array([1, 2, 4, 1]) / 8
    by_hand = (4 * chances) ** -0.5
    assert weights == pytest.approx((by_hand / by_hand.max())[at])
    batch = buffer.sample(16)
    assert (batch.weights.shape, batch.weights.dtype) == ((16, 1), torch.float32)


def test_a_new_transition_has_the_largest_priority_so_far_and_one_that_is_overwritten_loses_its_own() -> None:
    buffer = buffer_of(4, added=3, alpha=1.0, epsilon=0.5)
    assert buffer.priorities[:, 0].tolist() == [1, 1, 1, 0]
    buffer.update_priorities(np.array([0, 1]), np.array([-5.0, 0.25]))  # 5 counts as 1
    obs = np.zeros((1, 1))
    for _ in range(2):
        buffer.add(obs, obs, obs, np.zeros(1), np.zeros(1), [{}])
    assert buffer.priorities[:, 0].tolist() == [1.5, 0.75, 1, 1.5]
    assert (buffer.pos, buffer.full) == (1, True)


def test_errors_that_are_no_numbers_are_told() -> None:
    with pytest.raises(ValueError, match="training diverged"):
        buffer_of(4).update_priorities(np.arange(2), np.array([0.0, np.nan]))


def test_samples_are_the_transitions_that_were_drawn() -> None:
    buffer = buffer_of(6, n_envs=3)
    batch = buffer.sample(32)
    rows, envs = np.divmod(batch.at, 3)
    assert batch.observations.numpy()[:, 0] == pytest.approx(rows + envs / 10)
    assert batch.next_observations.numpy()[:, 0] == pytest.approx(rows + envs / 10 + 1)


@pytest.mark.parametrize("added", [3, 20, 33])
def test_returns_of_several_steps_are_those_of_sb3(added: int) -> None:
    box, rng = spaces.Box(-1, 1, (2,), np.float32), np.random.default_rng(0)
    known: Any = (20, box, spaces.Discrete(3), "cpu")
    ours = PrioritizedReplayBuffer(*known, n_envs=1, n_steps=4, gamma=0.9)
    theirs = NStepReplayBuffer(*known, n_envs=1, n_steps=4, gamma=0.9)
    for _ in range(added):
        done = np.array([rng.random() < 0.2])
        info = [{"TimeLimit.truncated": bool(done[0] and rng.random() < 0.5)}]
        step = rng.normal(size=(1, 2)), rng.normal(size=(1, 2)), np.array([[1]]), rng.normal(size=1), done, info
        ours.add(*step)
        theirs.add(*step)
    batch = ours.sample(64)
    expected = theirs._get_samples(batch.at)
    for name in expected._fields:
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name


# -- the update


def model_of(cls: Any = DQN, env: str = "CartPole-v1", **settings: Any) -> Any:
    """A model with weights drawn from seed 0 and a buffer of 200 random transitions."""
    torch.manual_seed(0)
    known = {"buffer_size": 300, "learning_starts": 0, "batch_size": 32, "policy_kwargs": {"net_arch": [16]}}
    model = cls(**{"policy": "MlpPolicy", "env": gym.make(env), "device": "cpu", **known, **settings})
    model.set_logger(Logger(None, []))
    rng = np.random.default_rng(1)
    for _ in range(200):
        obs, following = rng.normal(size=(2, 1, 4))
        action, done = np.array([[rng.integers(2)]]), np.array([rng.random() < 0.1])
        model.replay_buffer.add(obs, following, action, rng.normal(size=1), done, [{}])
    for parameter in model.q_net_target.parameters():  # so that the two choose different actions
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def test_with_no_option_an_update_has_the_bits_of_sb3() -> None:
    plain, ours = model_of(PlainDQN), model_of(DQN)
    for model in (plain, ours):
        np.random.seed(3)
        model.train(5, 32)
    before, after = weights_of(plain), weights_of(ours)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_double_dqn_chooses_with_one_network_and_values_with_the_other() -> None:
    class Table(torch.nn.Module):
        def __init__(self, values: list[list[float]]) -> None:
            super().__init__()
            self.values = torch.nn.Parameter(torch.tensor(values))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.values[rows.long().flatten()]

    def target(double_q: bool) -> float:
        online = Table([[1.0, 2.0], [3.0, 0.0]])
        policy = SimpleNamespace(parameters=online.parameters, optimizer=torch.optim.SGD(online.parameters(), 0.0))
        model = SimpleNamespace(
            q_net=online,
            q_net_target=Table([[0.0, 0.0], [10.0, 20.0]]),
            gamma=0.5,
            policy=policy,
            max_grad_norm=10,
        )
        batch = SimpleNamespace(
            observations=torch.tensor([[0]]),
            next_observations=torch.tensor([[1]]),
            actions=torch.tensor([[1]]),
            rewards=torch.tensor([[7.0]]),
            dones=torch.tensor([[0.0]]),
            discounts=None,
        )
        loss, errors = td_learning.update(model, batch, double_q=double_q)
        assert loss == pytest.approx(abs(errors.item()) - 0.5)  # Huber's, far out
        return 2.0 - errors.item()

    assert target(double_q=False) == 7 + 0.5 * 20
    assert target(double_q=True) == 7 + 0.5 * 10  # online prefers action 0


@pytest.mark.parametrize("option", ["double_q", "prioritized_replay"])
def test_an_option_in_numpy_is_the_one_in_torch_up_to_rounding(option: str) -> None:
    options = {option: True, "prioritized_replay_beta0": 1.0} if option == "prioritized_replay" else {option: True}
    plain, faster, ordinary = (
        model_of(DQN, **options),
        model_of(FastDQNWithOptions, **options),
        model_of(FastDQNWithOptions),
    )
    assert faster.acceleration.startswith("auto")
    for model in (plain, faster, ordinary):
        np.random.seed(3)
        model.train(3, 32)
    assert plain.logger.name_to_value == pytest.approx(faster.logger.name_to_value, rel=1e-5)
    expected, ours, other = weights_of(plain), weights_of(faster), weights_of(ordinary)
    assert all(torch.allclose(expected[name], ours[name], rtol=1e-5, atol=1e-7) for name in expected)
    assert not all(torch.allclose(expected[name], other[name], rtol=1e-5, atol=1e-7) for name in expected)
    if option == "prioritized_replay":
        assert faster.replay_buffer.priorities == pytest.approx(plain.replay_buffer.priorities, rel=1e-4)
        assert len(np.unique(plain.replay_buffer.priorities)) > 30


def test_dueling_networks_add_the_value_and_the_advantages_less_their_mean() -> None:
    network = Dueling(2, 3, [], torch.nn.ReLU)
    with torch.no_grad():
        network.value[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        network.value[0].bias.fill_(1.0)
        network.advantage[0].weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]))
        network.advantage[0].bias.zero_()
    # Features (5, 2): V = 6; A = 2, 4, 6, whose mean is 4.
    assert network(torch.tensor([[5.0, 2.0]])).tolist() == [[4.0, 6.0, 8.0]]


def test_importance_weights_scale_each_transitions_part_of_the_gradient() -> None:
    def step(weights: list[float]) -> torch.Tensor:
        model = model_of(max_grad_norm=1e9)
        model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), 1.0)
        before = torch.nn.utils.parameters_to_vector(model.q_net.parameters()).detach()
        np.random.seed(0)
        batch = model.replay_buffer.sample(2)
        td_learning.update(model, batch, weights=torch.tensor(weights)[:, None])
        return torch.nn.utils.parameters_to_vector(model.q_net.parameters()).detach() - before

    first, second, mixed = step([1.0, 0.0]), step([0.0, 1.0]), step([0.25, 1.0])
    assert torch.allclose(mixed, 0.25 * first + second, atol=1e-6)
    assert first.abs().max() > 1e-3
    assert second.abs().max() > 1e-3


def test_an_update_gives_what_it_drew_the_priority_of_its_error() -> None:
    model = model_of(prioritized_replay=True, prioritized_replay_alpha=0.5, prioritized_replay_eps=0.2)
    buffer, drawn = model.replay_buffer, []
    ordinary = buffer.update_priorities
    buffer.update_priorities = lambda at, errors: (drawn.append((at, errors)), ordinary(at, errors))  # type: ignore[assignment,func-returns-value]
    model.train(1, 8)
    ((at, errors),) = drawn
    assert buffer.priorities.ravel()[at] == pytest.approx((np.minimum(np.abs(errors), 1) + 0.2) ** 0.5)
    untouched = np.setdiff1d(np.arange(200), at)
    assert (buffer.priorities.ravel()[untouched] == 1).all()


def test_beta_rises_to_one() -> None:
    model = model_of(prioritized_replay=True)
    betas = []
    for remaining in (1.0, 0.5, 0.0):
        model._current_progress_remaining = remaining
        betas.append(model.beta)
    assert betas == pytest.approx([0.4, 0.7, 1.0])
    model = model_of(prioritized_replay=True, prioritized_replay_beta_iters=1000)
    betas = []
    for model.num_timesteps in (0, 500, 1000, 5000):
        betas.append(model.beta)
    assert betas == pytest.approx([0.4, 0.7, 1.0, 1.0])


# -- as a config


def config_of(**hyperparameters: Any) -> dict[str, Any]:
    return {
        "algo": "dqn",
        "env": {"id": "CartPole-v1"},
        "total_timesteps": 600,
        "hyperparameters": {"learning_starts": 100, "policy_kwargs": {"net_arch": [16]}, **hyperparameters},
        "evaluation": {"every": 0, "episodes": 2},
        "trackers": [],
        "threads": 1,
    }


@pytest.mark.parametrize(
    ("double_q", "dueling", "prioritized_replay", "n_steps"),
    list(product((False, True), (False, True), (False, True), (1, 3))),
)
def test_every_combination_trains_and_its_model_loads_in_sb3(
    double_q: bool, dueling: bool, prioritized_replay: bool, n_steps: int, tmp_path: Path
) -> None:
    options = {"double_q": double_q, "dueling": dueling, "prioritized_replay": prioritized_replay}
    run = rlrun.train(config_of(**options, n_steps=n_steps), run_dir=tmp_path, progress=False)
    assert run.status == "finished"
    folder = run.directory.checkpoint_path(600)
    loaded = PlainDQN.load(folder / "model.zip", device="cpu")
    assert loaded.replay_buffer_class.__module__.startswith("stable_baselines3")
    dueling_network = any(name.startswith("q_net.q_net.advantage") for name in loaded.policy.state_dict())
    assert (dueling_network, getattr(loaded, "double_q", False)) == (dueling, double_q)
    buffer = read_checkpoint(run.directory, 600).path / "replay_buffer"
    assert (buffer / "besides-priorities.npy").exists() == prioritized_replay
    assert loaded.predict(np.zeros(4, dtype=np.float32))[0] in (0, 1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *product(OPTIONS, [False]),
        ("n_steps", 3),
        ("target_update_interval", 1),
    ],
)
def test_each_arm_of_the_shipped_comparison_is_one_option(option: str, value: Any) -> None:
    assert rlrun.check("ALE/Pong-v5/dqn-family", overrides={f"hyperparameters.{option}": value})


class Ledge(gym.Env):
    """Seven steps to the right pay 100 at the end; a step to the left falls, for -100."""

    observation_space, action_space = spaces.Box(0, 1, (7,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.place += 1
        ended = action == 0 or self.place == 7
        return self._observe(), (100.0 if action else -100.0) * ended, ended, False, {}

    def _observe(self) -> np.ndarray:
        return np.eye(8, 7, dtype=np.float32)[self.place]


@pytest.mark.parametrize("options", [*([option] for option in OPTIONS), list(OPTIONS)])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_each_option_learns(options: list[str], n_steps: int) -> None:
    settings: dict[str, Any] = {"buffer_size": 1_000, "learning_starts": 100, "train_freq": 2, "gradient_steps": 2}
    settings |= {"learning_rate": 0.01, "target_update_interval": 50, "exploration_fraction": 0.8, "seed": 0}
    model = FastDQNWithOptions("MlpPolicy", Ledge(), n_steps=n_steps, **settings, **dict.fromkeys(options, True))
    model.learn(1_500, log_interval=None)  # type: ignore[arg-type]
    env = Ledge()
    seen, ended, total = env.reset()[0], False, 0.0
    while not ended:
        seen, reward, ended, *_ = env.step(model.predict(seen, deterministic=True)[0])
        total += reward
    assert total == 100


def test_another_ones_subclass_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(DQN):
        pass

    monkeypatch.setattr("rlrun.algorithms.registry.Algorithm.load", lambda self: Mine)
    plan = make_plan(read_source(config_of()))
    venv, _ = plan.recipe.make_training_vec()
    assert isinstance(build_model(plan.config, venv), Mine)


def test_without_an_option_the_model_is_sb3s_own() -> None:
    assert DQN.plainest({"gamma": 0.9, "double_q": False, "prioritized_replay_alpha": 0.5}) == (
        PlainDQN,
        {"gamma": 0.9},
    )
    assert DQN.plainest({"dueling": True})[0] is DQN


@pytest.mark.parametrize(
    ("hyperparameters", "words"),
    [
        ({"prioritized_replay": True, "replay_buffer_class": "NStepReplayBuffer"}, "leave replay_buffer_class out"),
        ({"prioritized_replay": True, "optimize_memory_usage": True}, "without optimize_memory_usage"),
        ({"prioritized_replay_alpha": 0.5}, "does nothing without prioritized_replay"),
        ({"prioritized_replay": True, "prioritized_replay_beta0": 1.5}, "between 0 and 1"),
        ({"prioritized_replay": True, "prioritized_replay_eps": 0}, "at least"),
        ({"dualing": True}, 'Did you mean "dueling"'),
    ],
)
def test_what_does_not_go_together_is_one_sentence(hyperparameters: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, UsageError), match=words):
        rlrun.train(config_of(**hyperparameters), run_dir=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_frames_are_stored_once_and_a_killed_run_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hyper = {"learning_starts": 100, "buffer_size": 200, "batch_size": 8, "train_freq": 8, "policy": "CnnPolicy"}
    options = {"double_q": True, "dueling": True, "prioritized_replay": True, "n_steps": 2}

    def train(folder: Path) -> Any:
        return train_on_pixels(folder, hyperparameters={**hyper, **options})

    undisturbed = train(tmp_path / "undisturbed")
    resumed = killed_and_resumed(train, tmp_path / "killed", 300, monkeypatch)
    assert_same(undisturbed, resumed)
    files = {entry["array"] for entry in read_checkpoint(undisturbed.directory, 400).state["replay_buffer"]["files"]}
    assert "frames" in files
    assert "observations" not in files
