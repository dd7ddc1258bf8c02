"""Whose run is it? Code that a run names is imported only if this user made the run, or trusts it.

A run made here carries a keyed hash of its config and import paths; the key lies in the user's config folder. Whoever
changes either without the key, or brings a run from elsewhere, leaves a run without a right signature.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from rlrun.config.classes import is_class_path
from rlrun.config.schema import Config
from rlrun.errors import RlrunError, UsageError
from rlrun.runs.directory import CONFIG, RunDirectory
from rlrun.runs.files import sha256

_KEY_BYTES = 32
_signed_here: dict[Path, str] = {}  # the configs' hashes, for as long as this process lives


def config_folder() -> Path:
    """Where rlrun keeps what belongs to the user: ``$XDG_CONFIG_HOME/rlrun``, by default ``~/.config/rlrun``."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA")
    return (Path(base) if base else Path.home() / ".config") / "rlrun"


def _key(make: bool = False) -> bytes | None:
    """The user's key; None where there is none and none can be made."""
    path = config_folder() / "key"
    try:
        key = path.read_bytes()
        return key if len(key) == _KEY_BYTES else None
    except OSError:
        if not make:
            return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".key.{secrets.token_hex(4)}.tmp")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(temporary, path)  # the first of two processes wins
        except FileExistsError:
            pass
        except OSError:
            temporary.replace(path)
        temporary.unlink(missing_ok=True)
        return path.read_bytes()
    except OSError:
        return None


def _signature(key: bytes, config: bytes, import_paths: Sequence[str]) -> str:
    content = json.dumps([hashlib.sha256(config).hexdigest(), list(import_paths)]).encode()
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def signature_of(content: bytes) -> str | None:
    """A keyed hash by which this user's own files are known again; None where no key can be kept."""
    key = _key(make=True)
    return hmac.new(key, content, hashlib.sha256).hexdigest() if key else None


def sign(run: RunDirectory) -> bool:
    """Mark a run as this user's own.

    :return: whether there is a key to do it with
    """
    _signed_here[run.path] = sha256(run.path / CONFIG)
    key = _key(make=True)
    if key is None:
        return False
    paths = run.manifest().get("import_paths") or ()
    run.update_manifest({"signature": _signature(key, (run.path / CONFIG).read_bytes(), paths)})
    return True


def is_own(run: RunDirectory) -> bool:
    """Whether this user made the run, or trusts it, and its config is as it was then."""
    key, manifest = _key(), run.manifest()
    if key is None and run.path in _signed_here:
        return _signed_here[run.path] == sha256(run.path / CONFIG)
    try:
        config = (run.path / CONFIG).read_bytes()
        expected = _signature(key, config, manifest.get("import_paths") or ()) if key else ""
    except (OSError, TypeError, ValueError):
        return False
    return bool(key) and hmac.compare_digest(expected, str(manifest.get("signature", "")))


def named_code(config: Config) -> list[str]:
    """Everything of the user's that a config names to be imported, in the order in which it is."""
    found = list(config.env.imports)
    found += [config.env.id] if ":" in config.env.id else []
    found += [wrapper.name for wrapper in config.env.wrappers if ":" in wrapper.name]
    found += [callback.cls for callback in config.callbacks]
    found += _class_paths(config.hyperparameters)
    return list(dict.fromkeys(found))


def _class_paths(value: object) -> list[str]:
    if isinstance(value, dict):
        return [path for item in value.values() for path in _class_paths(item)]
    if isinstance(value, list | tuple):
        return [path for item in value for path in _class_paths(item)]
    return [value] if isinstance(value, str) and is_class_path(value) else []


def trusted_import_paths(run: RunDirectory, config: Config, trust: bool, say: Callable[[str], None]) -> list[str]:
    """The folders that a run may import from, once it may.

    :param trust: the user says so
    :param say: told what will be imported, when it is not the user's own
    :raises UsageError: when the run names code and is neither the user's own nor trusted
    """
    paths = [str(path) for path in run.manifest().get("import_paths") or ()]
    if is_own(run):
        return paths
    require_no_links(run)
    names = named_code(config)
    if not names:
        return []
    if not trust:
        message = f"The run {run.name} is not known to be yours, and it would import: {', '.join(names)}."
        raise UsageError(
            message, f"Look at that code first; then: rlrun trust {shlex.quote(str(run.path))} (or --trust, for once)."
        )
    say(f"Trusted for this once; imported: {', '.join(names)}.")
    return paths


def require_no_links(run: RunDirectory) -> None:
    """Refuse a foreign run in which a link leads elsewhere: what is written into the run must stay in it.

    :raises UsageError: with the link
    """
    link = next((path for path in run.path.rglob("*") if path.is_symlink()), None)
    if link is not None:
        raise UsageError(
            f"The run {run.name} is not known to be yours, and {link} leads elsewhere.", "Remove the link."
        )


def trust(run: RunDirectory) -> list[str]:
    """Sign a run of someone else's.

    :return: what it names to be imported
    """
    require_no_links(run)
    names = named_code(run.config())
    if not sign(run):
        raise RlrunError(f"No key can be kept in {config_folder()}.", "Make the folder writable, or use --trust.")
    return names
