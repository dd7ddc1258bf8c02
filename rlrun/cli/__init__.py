"""The command line: each command parses, calls one function, prints."""

# Importing a module adds its commands; help lists them in this order.
from rlrun.cli import training  # isort: split

from rlrun.cli import agents  # isort: split

from rlrun.cli import videos  # isort: split

from rlrun.cli import runs  # isort: split

from rlrun.cli import evidence  # isort: split

from rlrun.cli import matrix  # isort: split

from rlrun.cli import tuning  # isort: split

from rlrun.cli import hub  # isort: split

from rlrun.cli import exporting  # isort: split

from rlrun.cli import configs  # isort: split

from rlrun.cli import zoo  # isort: split

from rlrun.cli import doctor
from rlrun.cli.app import main, run

__all__ = [
    "agents",
    "configs",
    "doctor",
    "evidence",
    "exporting",
    "hub",
    "main",
    "matrix",
    "run",
    "runs",
    "training",
    "tuning",
    "videos",
    "zoo",
]
