"""docs/config.md is made from the code, and says what the code of the day says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from rlrun.algorithms.registry import algorithms
from rlrun.config.schema import Config
from rlrun.envs.wrappers import KNOWN

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_config_reference", DOCS / "make_config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_config_reference_is_up_to_date(generator: ModuleType) -> None:
    written = (DOCS / "config.md").read_text(encoding="utf-8")
    assert written == generator.render(), "Write it anew: python docs/make_config_reference.py"


def test_the_config_reference_names_every_key_algorithm_and_wrapper(generator: ModuleType) -> None:
    text = generator.render()
    names = [*Config.model_fields, *algorithms(), *KNOWN]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_config_reference_holds_no_markup_but_markdown(generator: ModuleType) -> None:
    text = re.sub(r"```text\n.*?```", "", generator.render(), flags=re.DOTALL)
    assert "``" not in text
    assert "===" not in text
    assert ":param" not in text
