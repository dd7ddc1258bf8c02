"""Classes are named by an allow-list or ``module:Name``, and only a subclass of what the slot expects comes out."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import pytest

from rlrun.config.classes import import_module, is_class_path, load_class, make_importable
from rlrun.errors import UsageError


class Shape:
    """What the slot of these tests expects."""


class Square(Shape):
    """What fits into it."""


ALLOWED = {"Square": Square}


def module(folder: Path, name: str, text: str) -> str:
    """Write an importable module into the current folder."""
    (folder / f"{name}.py").write_text(text)
    make_importable([folder])
    return name


@pytest.mark.parametrize("text", ["m:C", "a.b.c:Name", "_m:_C"])
def test_a_class_path_is_a_module_and_a_name(text: str) -> None:
    assert is_class_path(text)


@pytest.mark.parametrize("text", ["C", "m:", ":C", "m:C-v0", "m.C", "m:a.b", "m:C:D", "a b:C", ".m:C", "m:C()", ""])
def test_anything_else_is_no_class_path(text: str) -> None:
    assert not is_class_path(text)


def test_an_allowed_name_stands_for_its_class() -> None:
    assert load_class("Square", Shape, ALLOWED) is Square


def test_a_class_of_the_users_own_is_imported(folder: Path) -> None:
    name = module(folder, "own_shapes", f"from {__name__} import Shape\nclass Mine(Shape): pass\n")
    assert issubclass(load_class(f"{name}:Mine", Shape), Shape)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("Sqare", 'there is no shape "Sqare".', 'Did you mean "Square"?'),
        ("Circle", 'there is no shape "Circle".', "Known: Square; or your own as `package.module:Name`."),
        ("os.system", 'there is no shape "os.system".', "Known: Square; or your own as `package.module:Name`."),
        ("os:system", '"os:system" is not a subclass of Shape.', "Name a class that is one."),
        ("builtins:dict", '"builtins:dict" is not a subclass of Shape.', "Name a class that is one."),
        ("no_such_module.x:C", 'the module "no_such_module.x" was not found.', "Install it, or run from the folder"),
        ("os:systm", 'the module "os" has no "systm".', "It has: no Shape."),
    ],
)
def test_what_is_no_such_class_is_refused(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_class(text, Shape, ALLOWED, "shape")
    assert raised.value.message == message
    assert raised.value.hint.startswith(hint)


def test_nothing_is_imported_for_a_name_of_the_wrong_form(folder: Path) -> None:
    name = module(folder, "never_imported", "raise SystemExit\n")
    for text in (name, f"{name}:", f"{name}:C()", f"{name}.C"):
        with pytest.raises(UsageError, match="there is no class"):
            load_class(text, Shape)
    assert name not in sys.modules


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "import no_such_package\n",
            "failed: ModuleNotFoundError: No module named 'no_such_package'.",
            "Install what it needs.",
        ),
        ("raise ModuleNotFoundError('boo')\n", "failed: ModuleNotFoundError: boo.", "Install what it needs."),
        ("import sys\nsys.exit(3)\n", "failed: SystemExit: 3.", "Mend the module."),
        ("1 / 0\n", "failed: ZeroDivisionError: division by zero.", "Mend the module."),
        ("def f(:\n", "failed: SyntaxError: invalid syntax", "Mend the module."),
    ],
)
def test_what_the_users_module_raises_is_said_to_be_its_own(text: str, message: str, hint: str, folder: Path) -> None:
    name = module(folder, "broken_module", text)
    with pytest.raises(UsageError) as raised:
        load_class(f"{name}:C", Shape)
    assert raised.value.message.startswith(f'importing "{name}" ')
    assert message in raised.value.message
    assert raised.value.hint == hint


def test_a_module_that_another_hides_is_said_to_be_hidden(folder: Path) -> None:
    module(folder, "wave", f"from {__name__} import Shape\nclass Mine(Shape): pass\n")
    with pytest.raises(UsageError) as raised:
        load_class("wave:Mine", Shape)
    assert raised.value.message == 'the module "wave" has no "Mine".'
    assert raised.value.hint == f"{folder / 'wave.py'} is hidden by {wave.__file__}: rename it."


@pytest.mark.parametrize("name", ["", ".relative", "a..b"])
def test_a_module_that_cannot_have_that_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        import_module(name)


def test_a_module_written_after_a_failed_import_is_found(folder: Path) -> None:
    make_importable([folder])
    with pytest.raises(UsageError, match="was not found"):
        import_module("late_module")
    module(folder, "late_module", "here = True\n")
    assert import_module("late_module").here is True


def test_the_users_folders_come_last_and_once(folder: Path) -> None:
    before = list(sys.path)
    make_importable([folder, str(folder), folder])
    assert sys.path == [*before, str(folder)]
    module(folder, "json", "raise SystemExit\n")
    assert import_module("json").dumps([]) == "[]", "a file of the user's hides no module of Python's"
