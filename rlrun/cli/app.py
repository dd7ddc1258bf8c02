"""The command line's frame: the app, errors in words, exit codes. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

import rlrun
from rlrun import console
from rlrun.cli.flags import ZOO_HABITS
from rlrun.errors import RlrunError, UsageError, did_you_mean

_INTERRUPTED = 130

app = typer.Typer(
    name="rlrun",
    help="Train Stable-Baselines3 agents from YAML, and trust what comes out.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the console script; ends the process."""
    arguments = sys.argv[1:]
    try:
        prints_help = not arguments or {"-h", "--help", "--version", "--show-completion"} & set(arguments)
        console.keep_stdout_for_reports(alone=not prints_help)
        code = run(arguments)
        console.finish()
    except RlrunError as error:
        if "--debug" in arguments:
            raise
        console.print_error(error)
        code = error.exit_code
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    :return: the exit code: 0 done, 1 failed while running, 2 wrong input, 130 and 143 interrupted
    """
    debug = "--debug" in arguments
    try:
        given = [a for a in arguments if a != "--debug"] or ["--help"]
        code = app(given, prog_name="rlrun", standalone_mode=False)
        if code == _INTERRUPTED:  # so Typer says that there was a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except RlrunError as error:
        if debug:
            raise
        console.print_error(error)
        return error.exit_code
    except TyperException as error:
        return _print_usage_error(error, arguments)
    except KeyboardInterrupt:
        console.note("Interrupted.")
        return _INTERRUPTED
    except (typer.Abort, BrokenPipeError):
        return 1
    except Exception as error:  # a bug: one sentence, and the traceback for those who ask
        if debug:
            raise
        text = " ".join(str(error).split())[:500]
        console.note(f"error: {type(error).__name__}: {text}")
        console.note("       This is a bug in rlrun or in a package under it; --debug shows the traceback.")
        return 1


def _print_usage_error(error: Any, arguments: Sequence[str]) -> int:
    message = getattr(error, "format_message", lambda: str(error))().strip().rstrip(".").replace("?.", "?")
    message = message.replace("Input should be", "it must be")
    option = getattr(error, "option_name", None)
    if option:
        given = next((a.partition("=")[0] for a in arguments if a.startswith(option)), option)
        known = getattr(error, "possibilities", None) or ()
        hint = ZOO_HABITS.get(given) or ZOO_HABITS.get(option) or did_you_mean(option, known)
    else:
        hint = ""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "rlrun"
    console.print_error(
        UsageError(message if message.endswith("?") else f"{message}.", hint or f"`{path} --help` shows what there is.")
    )
    return int(getattr(error, "exit_code", 2))


def _version(value: bool) -> None:
    if value:
        console.say(f"rlrun {rlrun.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    pass
