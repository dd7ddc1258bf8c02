"""Names of classes in a config: an allow-list, or ``package.module:Name`` checked to be what the slot expects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from rlrun.errors import UsageError, did_you_mean


def is_class_path(text: str) -> bool:
    """Whether a string has the form ``package.module:Name``."""
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in module.split(".")) and name.isidentifier()


def load_class(text: str, expects: type, allowed: Mapping[str, Any] | None = None, what: str = "class") -> Any:
    """The class that a config names.

    :param expects: what it must be a subclass of
    :param allowed: names that stand for classes; values may be functions that return one
    :raises UsageError: when it is unknown, cannot be imported, or is no such class. A class path is imported only
        after its form is checked, and only what the user's own config names ever reaches this function.
    """
    allowed = allowed or {}
    if text in allowed:
        return allowed[text]
    if not is_class_path(text):
        known = f"Known: {', '.join(sorted(allowed))}; or" if allowed else "Write"
        hint = did_you_mean(text, allowed) or f"{known} your own as `package.module:Name`."
        raise UsageError(f'there is no {what} "{text}".', hint)
    found = _import(text, expects)
    if not (isinstance(found, type) and issubclass(found, expects)):
        raise UsageError(f'"{text}" is not a subclass of {expects.__name__}.', "Name a class that is one.")
    return found


def _import(text: str, expects: type) -> Any:
    module_name, _, name = text.partition(":")
    module = import_module(module_name)
    if not hasattr(module, name):
        hidden = _hidden_by(module)
        if hidden is not None:
            hint = f"{hidden} is hidden by {getattr(module, '__file__', None) or 'one of Python'}: rename it."
            raise UsageError(f'the module "{module_name}" has no "{name}".', hint)
        fitting = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, expects)]
        hint = did_you_mean(name, fitting) or f"It has: {', '.join(fitting) or f'no {expects.__name__}'}."
        raise UsageError(f'the module "{module_name}" has no "{name}".', hint)
    return getattr(module, name)


def _hidden_by(module: ModuleType) -> Path | None:
    """A file of the same name that comes later on the module path, so that it is never imported."""
    found = getattr(module, "__file__", None)
    for folder in sys.path:
        path = Path(folder, *module.__name__.split(".")).with_suffix(".py")
        if path.is_file() and (found is None or not path.samefile(found)):
            return path
    return None


def import_module(name: str) -> Any:
    """Import a module of the user's, noticing files written since the last import.

    :raises UsageError: when it is not there, or whatever it raises itself
    """
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.split(".")[0] == error.name.split(".")[0]:
            hint = "Install it, or run from the folder that holds it."
            raise UsageError(f'the module "{name}" was not found.', hint) from None
        raise UsageError(_failed(name, error), "Install what it needs.") from error
    except (Exception, SystemExit) as error:  # a script leaves with sys.exit()
        raise UsageError(_failed(name, error), "Mend the module.") from error


def _failed(name: str, error: BaseException) -> str:
    return f'importing "{name}" failed: {type(error).__name__}: {error}.'


def make_importable(folders: Iterable[str | Path]) -> None:
    """Put the user's folders on the module path, after what is there: a console script lacks even the current one."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)


def load_plug_in(point: EntryPoint) -> Any:
    """What a package offers rlrun under an entry point.

    :raises UsageError: when it cannot be loaded
    """
    try:
        return point.load()
    except Exception as error:  # someone else's package may raise anything
        message = f'the plug-in "{point.name}" ({point.value}) cannot be loaded: {type(error).__name__}: {error}.'
        raise UsageError(message, "Mend or uninstall its package.") from error
