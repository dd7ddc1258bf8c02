"""What a GPU replays, called on the CPU: SB3's updates up to rounding. Recording itself needs a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sb3_contrib import TQC
from stable_baselines3 import DQN, PPO, SAC
from test_off_policy import CASES, DISCRETE, _fill, assert_equal_updates, copy_state, make, update, vec

from rlrun.accelerate.graphs import Recorded, graphed

pytestmark = pytest.mark.usefixtures("one_thread")
OF_THE_GPU = [name for name, (cls, _, _) in CASES.items() if cls in (DQN, SAC, TQC)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def pair(cls: Any, env_kwargs: dict[str, Any], **kwargs: Any) -> tuple[Any, Any]:
    """SB3's model and the one that replays its updates, in the same state after some updates."""
    models = [make(kind, vec(**env_kwargs), False, **kwargs) for kind in (cls, graphed(cls, kwargs))]
    for model in models:
        _fill(model)
    for _ in range(5):
        update(models[0], 1, seed=1)
    copy_state(*models)
    return models[0], models[1]


@pytest.mark.parametrize("name", OF_THE_GPU)
def test_updates_equal_those_of_sb3(name: str) -> None:
    cls, env, kwargs = CASES[name]
    assert_equal_updates(*pair(cls, env, **kwargs))


@pytest.mark.parametrize("cls", [DQN, SAC, TQC])
def test_a_saved_model_is_a_plain_one(cls: Any, tmp_path: Path) -> None:
    plain, ours = pair(cls, DISCRETE if cls is DQN else {})
    update(ours, 2)
    ours.save(tmp_path / "model.zip")
    loaded = cls.load(tmp_path / "model.zip", device="cpu")
    assert loaded.__dict__.keys() <= plain.__dict__.keys()
    for name, value in ours.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name]), name


def test_what_cannot_be_replayed_stays_as_it_is() -> None:
    assert graphed(PPO, {}) is PPO
    assert graphed(SAC, {"use_sde": True}) is SAC
    assert graphed(SAC, {}) is not SAC


def test_elsewhere_than_on_a_gpu_a_function_is_called() -> None:
    calls = []
    recorded = Recorded(lambda inputs: calls.append(1) or {"twice": 2 * inputs["x"]})  # type: ignore[func-returns-value]
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert float(recorded({"x": torch.tensor(value)})["twice"]) == 2 * value
    assert len(calls) == 5


@needs_gpu
def test_on_a_gpu_a_replay_does_what_a_call_does() -> None:
    total = torch.zeros((), device="cuda")

    def add(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        total.add_(inputs["x"])
        return {"total": total.clone()}

    recorded = Recorded(add)
    found = [float(recorded({"x": torch.tensor(float(value), device="cuda")})["total"]) for value in range(8)]
    assert found == [0, 1, 3, 6, 10, 15, 21, 28]
