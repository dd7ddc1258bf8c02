"""Whatever a file holds, its reader gives a value or one of rlrun's own errors."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlrun.config.loading import read_source, validate
from rlrun.config.yaml import parse_yaml, read_zoo_yaml
from rlrun.errors import RlrunError
from rlrun.runs.archive import read_data, read_pickled_normalizer, read_statistics, read_tensors
from rlrun.runs.pickles import names_in_pickle, read_pickle

fuzzed = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
SECTIONS = ("algo", "env", "total_timesteps", "hyperparameters", "normalize", "evaluation", "trackers", "callbacks")


@contextlib.contextmanager
def only_own_errors() -> Any:
    with contextlib.suppress(RlrunError):
        yield


def damaged(content: bytes, draw: st.DataObject) -> bytes:
    """A file with some bytes changed, cut out or put in."""
    data = bytearray(content)
    for _ in range(draw.draw(st.integers(1, 6))):
        place = draw.draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw.draw(st.sampled_from(("change", "cut", "put in")))
        if kind == "change" and data:
            data[place] = draw.draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place : place + draw.draw(st.integers(1, 64))]
        else:
            data[place:place] = draw.draw(st.binary(max_size=16))
    return bytes(data)


@fuzzed
@given(text=st.text(max_size=200) | PLAIN.map(yaml.safe_dump))
def test_the_yaml_readers(text: str, tmp_path: Path):
    with only_own_errors():
        parse_yaml(text, "file")
    (tmp_path / "zoo.yml").write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with only_own_errors():
        read_zoo_yaml(tmp_path / "zoo.yml")


@fuzzed
@given(values=st.dictionaries(st.sampled_from(SECTIONS) | st.text(max_size=8), PLAIN, max_size=8))
def test_the_config_reader(values: dict[str, Any]):
    with only_own_errors():
        config, problems = validate(read_source(values))
        assert (config is None) == bool(problems)
        for problem in problems:
            str(problem)


@fuzzed
@given(data=st.data())
def test_the_statistics_reader(data: st.DataObject, tmp_path: Path):
    stream = io.BytesIO()
    np.savez(stream, **{"obs.mean": np.zeros(3), "obs.var": np.ones(3), "obs.count": np.array(1.0)})
    file = tmp_path / "statistics.npz"
    file.write_bytes(damaged(stream.getvalue(), data))
    with only_own_errors():
        read_statistics(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from stable_baselines3 import A2C

    path = tmp_path_factory.mktemp("model") / "model.zip"
    A2C("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}).save(path)
    return path.read_bytes()


@fuzzed
@given(data=st.data())
def test_the_zip_reader(data: st.DataObject, model: bytes, tmp_path: Path):
    file = tmp_path / "model.zip"
    file.write_bytes(damaged(model, data))
    for read in (read_tensors, read_data):
        with only_own_errors():
            read(file)


@fuzzed
@given(data=st.data())
def test_the_zip_reader_with_other_members(data: st.DataObject, tmp_path: Path):
    file = tmp_path / "model.zip"
    names = st.sampled_from(("data", "policy.pth", "policy.optimizer.pth", "pytorch_variables.pth", "../x"))
    contents = st.binary(max_size=64) | PLAIN.map(lambda value: json.dumps(value).encode())
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in data.draw(st.dictionaries(names, contents, max_size=4)).items():
            archive.writestr(name, content)
    for read in (read_tensors, read_data):
        with only_own_errors():
            read(file)


@pytest.fixture(scope="module")
def normalizer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    import gymnasium as gym
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    path = tmp_path_factory.mktemp("statistics") / "vec_normalize.pkl"
    VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")])).save(str(path))
    return path.read_bytes()


@fuzzed
@given(data=st.data())
def test_the_reader_of_pickled_statistics(data: st.DataObject, normalizer: bytes, tmp_path: Path):
    file = tmp_path / "vec_normalize.pkl"
    file.write_bytes(damaged(normalizer, data))
    with only_own_errors():
        read_pickled_normalizer(file)
    names_in_pickle(file.read_bytes())


@fuzzed
@given(content=st.binary(max_size=200) | st.tuples(PLAIN, st.integers(0, 5)).map(lambda pair: pickle.dumps(*pair)))
def test_the_pickle_reader(content: bytes):
    with only_own_errors():
        read_pickle(content, "file")
    names_in_pickle(content)
