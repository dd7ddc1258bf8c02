"""What a matrix file may say: configs and seeds, every combination of which is a run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from rlrun import api
from rlrun.config.loading import Override, Source, apply_overrides, problems_of, read_source
from rlrun.config.locate import find_matrix
from rlrun.config.schema import Config, NotNegative, Section, parse_seeds
from rlrun.config.yaml import KeyPath
from rlrun.errors import ConfigError, Problem, UsageError
from rlrun.runs.groups import Shared
from rlrun.seeds import shared_config


def _as_seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"must be a range such as 0-{max(1, value - 1)}, or a list such as [{value}]")
    return parse_seeds(value) if isinstance(value, str) else value


def _as_folder(name: str) -> str:
    # No dot: "<matrix>.<cell>" is the name of a cell's group.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise ValueError(f'"{name}" cannot name a folder: use letters, digits, _ and -')
    return name


def _without_seed(value: dict[str, Any]) -> dict[str, Any]:
    if "seed" in value:
        raise ValueError("it sets the seed, which `seeds` names")
    return value


def _long_form(value: Any) -> Any:
    return {"config": value} if isinstance(value, str) else value


Seeds = Annotated[list[NotNegative], BeforeValidator(_as_seeds), AfterValidator(lambda seeds: [*dict.fromkeys(seeds)])]
Name = Annotated[str, AfterValidator(_as_folder)]
Values = Annotated[dict[str, Any], AfterValidator(_without_seed)]


class CellConfig(Section):
    """One config of the matrix."""

    config: str = Field(
        description="A shipped config's name, or a path, seen from the matrix's folder or the current one."
    )
    set: Values = Field({}, description="Values in place of the config's: `{hyperparameters.gamma: 0.9}`.")
    untrained: bool = Field(False, description="Evaluate the fresh network; train nothing.")


class MatrixConfig(Section):
    """One file, configs x seeds."""

    name: Name = Field(description="Of the folder that the results go to.")
    seeds: Seeds = Field(description="Of every cell: `0-4`, `0-4,10`, or a list.", min_length=1)
    set: Values = Field({}, description="As a cell's, for every cell; a cell's own come after these.")
    cells: dict[Name, Annotated[CellConfig, BeforeValidator(_long_form)]] = Field(
        description="By name: a config's name, or a section.", min_length=1
    )


@dataclass(frozen=True)
class Cell:
    """One config of the matrix, checked in full.

    :ivar shared: with the first seed
    :ivar written: the config's name or path, as in the file
    """

    name: str
    shared: Shared
    is_untrained: bool
    written: str

    @property
    def config(self) -> Config:
        """Resolved."""
        return self.shared.config


@dataclass(frozen=True)
class Matrix:
    """A matrix file, checked in full.

    :ivar written: the file's path or name, as the user gave it
    """

    name: str
    written: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]

    def runs(self) -> list[tuple[Cell, int]]:
        """Every cell with every seed, in the order that ``--only`` counts in: all seeds of the first cell first."""
        return [(cell, seed) for cell in self.cells for seed in self.seeds]


def read_matrix(file: str | Path, elsewhere: bool = False) -> Matrix:
    """Read a matrix and check it in full, the configs of its cells too.

    :param file: a path, or the name of a shipped matrix
    :param elsewhere: the runs are trained on other machines, so that a GPU need not be here
    :raises ConfigError: with every problem
    """
    path = find_matrix(file)
    source = read_source(path)
    try:
        config = MatrixConfig.model_validate(source.values)
    except ValidationError as error:
        raise ConfigError(problems_of(source, error, MatrixConfig)) from None
    cells, problems = [], dict[tuple[str, str], Problem]()
    for name, cell in config.cells.items():
        try:
            cells.append(_read_cell(source, path, config, name, cell, elsewhere))
        except ConfigError as error:
            for found in error.problems:  # what several cells share is told once
                place = f"cells.{name}: {found.path}" if found.path else f"cells.{name}"
                problems.setdefault((found.where, found.message), replace(found, path=place))
        except UsageError as error:
            problems[name, ""] = source.problem(("cells", name, "config"), error.message, error.hint)
    if problems:
        raise ConfigError(list(problems.values()))
    return Matrix(config.name, str(file), tuple(config.seeds), tuple(cells))


def _read_cell(source: Source, path: Path, config: MatrixConfig, name: str, cell: CellConfig, elsewhere: bool) -> Cell:
    beside = path.parent / cell.config
    found = api.load_source(str(beside) if os.path.isfile(beside) else cell.config)
    for where, values in (((), config.set), (("cells", name), cell.set)):
        apply_overrides(found, _overrides(source, (*where, "set"), values))
    apply_overrides(found, [Override("seed", config.seeds[0], f"{path}: seeds")])
    return Cell(name, shared_config(found, elsewhere and not cell.untrained), cell.untrained, cell.config)


def _overrides(source: Source, section: KeyPath, values: Mapping[str, Any]) -> list[Override]:
    """What a section ``set`` says; its lines stand for the flags of a command line."""
    return [Override(key, value, source.place((*section, key))) for key, value in values.items()]
