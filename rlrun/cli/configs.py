"""Commands about configs and envs: check, configs, init, schema, check-env."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rlrun
from rlrun import console
from rlrun.cli.app import app
from rlrun.cli.flags import (
    AlgoOption,
    ConfigArgument,
    ConfigOption,
    EnvOption,
    JsonOption,
    SetOption,
    chosen_config,
    overrides_of,
)
from rlrun.errors import ConfigError, RlrunError, UsageError


@app.command()
def check(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    algo: AlgoOption = None,
    env: EnvOption = None,
    set_: SetOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every resolved value and where it came from.")
    ] = False,
    no_env: Annotated[bool, typer.Option("--no-env", help="Do not build the env.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Check ./configs, or else the shipped configs.")] = False,
    zoo: Annotated[bool, typer.Option("--zoo", help="With --all: RL Zoo's settings in configs/zoo too.")] = False,
    json_: JsonOption = False,
) -> int:
    """Find everything that is wrong with a config, without training."""
    if all_ and (config or config_option or algo or env or set_):
        raise UsageError("--all checks every config as it is, and one is named too.", "Leave one of the two out.")
    if zoo and not all_:
        raise UsageError("--zoo goes with --all, and --all is missing.", "Write: rlrun check --all --zoo")
    if all_:
        return _check_all(no_env, zoo)
    plan = rlrun.check(chosen_config(config, config_option, algo, env), overrides=overrides_of(set_), env=not no_env)
    values = plan.config.model_dump(by_alias=True)
    if json_:
        console.print_json({"config": values, "warnings": [str(w) for w in plan.warnings], "notes": list(plan.notes)})
        return 0
    for warning in plan.warnings:
        console.note(f"warning: {warning}")
    if explain:
        console.print_table(("key", "value", "from"), plan.explained())
    else:
        console.say(f"{plan.source.path}: {plan.config.algo} on {plan.config.env.id}, no errors")
    return 0


def _check_all(no_env: bool, zoo: bool) -> int:
    from rlrun.config.locate import all_configs

    failed = skipped = 0
    found = all_configs(zoo)
    for name, path in found.items():
        try:
            for warning in rlrun.check(path, env=not no_env).warnings:
                console.note(f"warning: {warning}")
        except RlrunError as error:
            if isinstance(error, ConfigError) and error.is_missing_package:
                skipped += 1
                console.note(f"{name}: skipped: {error}")
                continue
            failed += 1
            console.note(f"{name}:")
            console.print_error(error)
    counted = f"{len(found)} configs checked, {failed} with errors"
    console.say(counted + (f", {skipped} skipped: package missing" if skipped else ""))
    return 2 if failed else 0


@app.command()
def configs(
    containing: Annotated[str, typer.Argument(metavar="FILTER", help="Part of a name.")] = "",
    json_: JsonOption = False,
) -> None:
    """List the shipped configs: rlrun's own, and with zoo in the filter RL Zoo's."""
    found = rlrun.configs(containing)
    if json_:
        console.print_json(found)
        return
    if not found:
        raise UsageError(f'No shipped config has "{containing}" in its name.', "`rlrun configs` lists them all.")
    from rlrun.config.locate import ZOO, headline

    console.print_table(("config", "what it is"), [(name, headline(path)) for name, path in found.items()])
    others = [name for name in rlrun.configs(ZOO + containing.removeprefix(ZOO)) if name not in found]
    if others:
        where = ZOO + containing if containing else "zoo"
        console.note(f"and {len(others)} with RL Baselines3 Zoo's settings, not run by us: rlrun configs {where}")


@app.command()
def init(
    env: Annotated[str | None, typer.Option(help="Env id; must be given.")] = None,
    algo: Annotated[str | None, typer.Option(help="Algorithm; must be given.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default configs/<env>/<algo>.yaml.")] = None,
) -> None:
    """Write a commented config for an env of yours."""
    if not env or not algo:
        missing = [flag for flag, given in (("--env", env), ("--algo", algo)) if not given]
        example = f"For instance: rlrun init --env {env or 'CartPole-v1'} --algo {algo or 'ppo'}"
        raise UsageError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.", example)
    console.say(str(rlrun.init(env, algo, out)))


@app.command()
def schema() -> None:
    """Print the JSON Schema of configs, for editors."""
    console.print_json(rlrun.schema())


@app.command(name="check-env")
def check_env(
    env: Annotated[str, typer.Argument(metavar="ID", help="Registered id, module:Id-v0, or module:Class.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="env.kwargs.x=1 or env.imports=[pkg].")
    ] = None,
    json_: JsonOption = False,
) -> int:
    """Is this env correct, repeatable, fast, renderable?"""
    report = rlrun.check_env(env, overrides={o.key: o.value for o in overrides_of(set_)})
    if json_:
        console.print_json(report.as_dict())
    else:
        console.print_table(("check", "result", "detail"), [(f.name, f.result, f.detail) for f in report.findings])
    return 0 if report.passed else 1
