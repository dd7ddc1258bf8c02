"""Files that may come from anyone: SB3 zips and statistics, read without running or inflating what is in them."""

from __future__ import annotations

import base64
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlrun.envs.normalization import Statistics
from rlrun.errors import UsageError
from rlrun.runs.pickles import UNREAD, ForbiddenName, Record, names_in_pickle, read_pickle

_MAX_MEMBER = 4 * 2**30
_SUSPICIOUS_RATIO = 200  # weights hardly compress; ten gigabytes of zeros do
_SMALL = 10 * 2**20
_DATA = "data"


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip whose members can all be read; whatever is wrong with it is said in a sentence.

    :raises UsageError: when it is damaged, no zip, or a bomb
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _require_plausible(archive, path)
            yield archive
    except (UsageError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # zipfile, torch and NumPy raise many kinds for damaged files
        message = f"{path} is not a whole SB3 model ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
        raise UsageError(message, "Use another file.") from None


def _require_plausible(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a few bytes that claim to be many."""
    members = archive.infolist()
    size, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if size > max(_SMALL, _SUSPICIOUS_RATIO * packed) or any(m.file_size > _MAX_MEMBER for m in members):
        raise UsageError(f"{path} claims to hold {size:,} bytes in {packed:,}.", "Use another file.")


def _tensors(content: bytes, what: str, device: torch.device | str) -> Any:
    """What ``torch.save`` wrote, if it is tensors and plain values.

    :raises ForbiddenName: when it asks for anything else
    """
    stream = io.BytesIO(content)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:  # torch compresses nothing
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise UsageError(f"{what} is compressed, which nothing that torch writes is.", "Use another file.")
            pickled = next((archive.read(n) for n in archive.namelist() if n.endswith("data.pkl")), b"")
    else:
        pickled = content
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        names = [name for name in names_in_pickle(pickled) if name.partition(".")[0] not in ("torch", "collections")]
        raise ForbiddenName(", ".join(names) or UNREAD, what) from None


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The ``.pth`` members of an SB3 zip by name, such as ``policy`` and ``policy.optimizer``. Nothing is unpickled.

    :raises UsageError: when the file is no SB3 model, or holds more than tensors
    """
    found = {}
    with _opened(path) as archive:
        for name in archive.namelist():
            if name.endswith(".pth"):
                found[name.removesuffix(".pth")] = _tensors(archive.read(name), f"{name} in {path}", device)
    if not isinstance(found.get("policy"), dict):
        raise UsageError(f"{path} holds no policy, so it is not an SB3 model.", "Use another file.")
    return found


def read_data(path: Path) -> dict[str, Any]:
    """What an SB3 zip says of the model's attributes: plain JSON values; a pickled one as its bytes.

    :raises UsageError: when the file is no SB3 model
    """
    with _opened(path) as archive:
        entries = json.loads(archive.read(_DATA))
        return {name: _value(entry) for name, entry in dict(entries).items()}


def _value(entry: Any) -> Any:
    if isinstance(entry, dict) and ":serialized:" in entry:
        return base64.b64decode(entry[":serialized:"])
    return entry


def read_statistics(path: Path) -> Statistics:
    """Normalization statistics that rlrun wrote.

    :raises UsageError: when the file is damaged
    """
    with _opened(path), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def read_pickled_normalizer(path: Path) -> tuple[Statistics, dict[str, Any]]:
    """Normalization statistics and settings of a ``vec_normalize.pkl``, without unpickling freely.

    :return: the statistics, and VecNormalize's keyword arguments
    :raises UsageError: when the file is damaged, or asks for more than statistics
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    normalizer = read_pickle(content, str(path))
    if not isinstance(normalizer, Record) or not normalizer.name.endswith(".VecNormalize"):
        raise UsageError(f"{path} holds no VecNormalize.", "Use the file that VecNormalize.save wrote.")
    try:
        return _moments(normalizer), _settings(normalizer)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is no whole VecNormalize ({error}).", "Use another file.") from None


def _moments(normalizer: Record) -> Statistics:
    observations = normalizer.get("obs_rms") if normalizer.get("norm_obs", True) else None
    found = {"ret": normalizer.get("ret_rms")}
    if isinstance(observations, dict):
        found |= {f"obs.{key}": moments for key, moments in observations.items()}
    elif observations is not None:
        found["obs"] = observations
    return {
        f"{name}.{part}": np.asarray(moments.get(part), dtype=np.float64)
        for name, moments in found.items()
        for part in ("mean", "var", "count")
    }


def _settings(normalizer: Record) -> dict[str, Any]:
    numbers = {name: float(normalizer.get(name)) for name in ("clip_obs", "clip_reward", "gamma", "epsilon")}
    switches = {name: bool(normalizer.get(name, True)) for name in ("norm_obs", "norm_reward")}
    keys = normalizer.get("norm_obs_keys")
    return {**numbers, **switches, **({"norm_obs_keys": [str(key) for key in keys]} if keys else {})}
