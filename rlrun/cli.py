"""The command line: each command parses, calls one function, prints. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

import rlrun
from rlrun import console
from rlrun.errors import ConfigError, RlrunError, UsageError, did_you_mean
from rlrun.flags import (
    ZOO_HABITS,
    AlgoOption,
    ConfigArgument,
    ConfigOption,
    EnvOption,
    JsonOption,
    RunArgument,
    RunDirOption,
    SeedOption,
    SetOption,
    TrustOption,
    finite,
    positive,
    whole,
)

app = typer.Typer(
    name="rlrun",
    help="Train Stable-Baselines3 agents from YAML, and trust what comes out.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUNS = Path("runs")


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
        return 130
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


def _config(argument: str | None, option: str | None, algo: str | None, env: str | None) -> Path:
    from rlrun.config.locate import find_by_env, find_config

    given = [text for text in (argument, option) if text is not None]
    if len(given) == 2:
        raise UsageError(f"Two configs are named: {argument} and {option}.", "Name one.")
    if given and (algo or env):
        raise UsageError("--algo and --env find a shipped config, and one is named already.", "Leave them out.")
    if given:
        return find_config(given[0])
    if algo and env:
        return find_by_env(env, algo)
    missing = "--env" if algo else "--algo" if env else "a config"
    raise UsageError(f"{missing} is missing.", "For instance: rlrun train --config CartPole-v1/ppo")


def _overrides(pairs: Sequence[str] | None, **sugar: Any) -> list[Any]:
    from rlrun.config.loading import Override

    flags = {"device": "--device", "init_from": "--init", "max_time": "--max-time"}
    return [
        *(Override.parse(pair) for pair in pairs or ()),
        *(Override(key, value, flags[key]) for key, value in sugar.items() if value is not None),
    ]


@app.command()
def train(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    algo: AlgoOption = None,
    env: EnvOption = None,
    set_: SetOption = None,
    seed: SeedOption = None,
    timesteps: Annotated[
        int | None, typer.Option(parser=whole, metavar="<int>", help="Sugar for --set total_timesteps=N.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")] = None,
    init: Annotated[
        str | None, typer.Option(metavar="RUN|ZIP", help="Start from these weights and statistics.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop cleanly after this long, such as 3h50m.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run directory.")] = None,
    resume_: Annotated[bool, typer.Option("--resume", help="With --name: continue that run if it is there.")] = False,
    run_dir: RunDirOption = _RUNS,
    json_: JsonOption = False,
) -> None:
    """Train an agent from a config; prints the run directory."""
    path = _config(config, config_option, algo, env)
    started = rlrun.train(
        path,
        seed=seed,
        timesteps=timesteps,
        overrides=_overrides(set_, device=device, init_from=init, max_time=max_time),
        run_dir=run_dir,
        name=name,
        resume=resume_,
    )
    _report_training(started, json_)


def _report_training(run: Any, as_json: bool) -> None:
    summary = run.training_summary()
    if as_json:
        console.print_json(summary)
        return
    seconds, speed = console.duration(summary["seconds"]), summary["timesteps_per_second"]
    console.say(f"{summary['algo']} on {summary['env']}, seed {summary['seed']}: {run.status}")
    console.say(f"{summary['timesteps']:,} timesteps in {seconds} ({speed:,.0f}/s)")
    for which in ("final", "best"):
        if summary[which]:
            at = f" (at {summary[which]['timesteps']:,} timesteps)"
            console.say(f"{which}: {console.describe_evaluation(summary[which])}{at}")
    for what, where in run.whereabouts().items():
        console.say(f"{what:<8} {where}")
    console.say(str(run.path))


@app.command()
def resume(
    run: RunArgument,
    timesteps: Annotated[
        int | None,
        typer.Option(parser=whole, metavar="TOTAL", help="A new budget, what was trained before included."),
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop cleanly after this long, such as 3h50m.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Go back to the last scheduled checkpoint, if an interruption saved one.")
    ] = False,
    steal: Annotated[bool, typer.Option("--steal", help="Take the run from a process that holds it.")] = False,
    set_: SetOption = None,
    trust_: TrustOption = False,
    run_dir: RunDirOption = _RUNS,
    json_: JsonOption = False,
) -> None:
    """Continue an interrupted run to its budget, or any run to a new one; a finished one says so."""
    from rlrun.config.schema import parse_duration

    try:
        seconds = parse_duration(max_time) if max_time else None
    except ValueError as error:
        raise UsageError(f"--max-time {error}.") from None
    resumed = rlrun.resume(
        run,
        timesteps=timesteps,
        max_time=seconds,
        exact=exact,
        steal=steal,
        overrides=_overrides(set_),
        trust=trust_,
        run_dir=run_dir,
    )
    _report_training(resumed, json_)


@app.command(name="eval")
def eval_(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, an SB3 zip, a downloaded folder; with --untrained a config.")
    ],
    checkpoint: Annotated[str | None, typer.Option(help="best, final, latest, or a number of timesteps.")] = None,
    episodes: Annotated[int | None, typer.Option(parser=positive, metavar="<int>", help="Number of episodes.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episodes; default: the run's.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic/--stochastic", help="Default: what the config says.")
    ] = None,
    set_: SetOption = None,
    fail_under: Annotated[
        float | None,
        typer.Option(parser=finite, metavar="<float>", help="Exit 1 when the lower end of the interval is below this."),
    ] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Score a config's fresh network.")] = False,
    algo: Annotated[str | None, typer.Option(help="Of a zip or folder that does not say it.")] = None,
    env: Annotated[str | None, typer.Option(help="Of a zip or folder that does not say it.")] = None,
    config: Annotated[
        str | None, typer.Option("--config", "-c", help="For a zip or folder: all that is known.")
    ] = None,
    trust_: TrustOption = False,
    run_dir: RunDirOption = _RUNS,
    json_: JsonOption = False,
) -> int:
    """Mean return, spread, 95 % interval, length and success rate of an agent."""
    overrides = _overrides(set_)
    is_file = not untrained and _is_foreign(Path(run))
    if not is_file and (algo or env or config):
        raise UsageError("--algo, --env and --config say what a zip or folder is.", "A run has its own config.")
    if deterministic is not None and (untrained or is_file):
        overrides += _overrides([f"evaluation.deterministic={str(deterministic).lower()}"])
    if untrained:
        if checkpoint is not None:
            raise UsageError("--untrained has no checkpoint.", "Leave --checkpoint out.")
        result = rlrun.evaluate(run, episodes=episodes, seed=seed, overrides=overrides)
    elif is_file:
        if checkpoint is not None:
            raise UsageError(f"{run} is no run, so it has no checkpoints.", "Leave --checkpoint out.")
        result = rlrun.evaluate_file(
            run, algo=algo, env=env, config=config, episodes=episodes, seed=seed, overrides=overrides, trust=trust_
        )
    else:
        result = rlrun.open_run(run, run_dir=run_dir).evaluate(
            episodes,
            checkpoint=checkpoint,
            seed=seed,
            deterministic=deterministic,
            overrides={o.key: o.value for o in overrides},
            trust=trust_,
        )
    values = result.as_dict()
    if json_:
        console.print_json(values)
    else:
        console.say(f"{values['run']}")
        console.say(f"checkpoint {values['checkpoint']}, {values['timesteps']:,} timesteps")
        console.say(f"return  {console.describe_evaluation(values)}")
        console.say(f"length  {values['mean_length']:.1f}")
        console.say(f"actions {'deterministic' if values['deterministic'] else 'stochastic'}, seed {values['seed']}")
    return _verdict(values, fail_under)


def _is_foreign(path: Path) -> bool:
    if path.suffix != ".zip" and not path.is_dir():
        return False
    from rlrun.runs.foreign import is_foreign

    return is_foreign(path)


def _verdict(values: dict[str, Any], fail_under: float | None) -> int:
    if fail_under is None:
        return 0
    low = values["ci95"][0] if values["ci95"] else values["mean_return"]
    if low >= fail_under:
        return 0
    console.note(f"The lower end of the interval, {low:.2f}, is below {fail_under:g}.")
    return 1


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
    json_: JsonOption = False,
) -> int:
    """Find everything that is wrong with a config, without training."""
    if all_ and (config or config_option or algo or env or set_):
        raise UsageError("--all checks every config as it is, and one is named too.", "Leave one of the two out.")
    if all_:
        return _check_all(no_env)
    plan = rlrun.check(_config(config, config_option, algo, env), overrides=_overrides(set_), env=not no_env)
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


def _check_all(no_env: bool) -> int:
    from rlrun.config.locate import all_configs

    failed = skipped = 0
    found = all_configs()
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
    """List the shipped configs."""
    found = rlrun.configs(containing)
    if json_:
        console.print_json(found)
        return
    if not found:
        raise UsageError(f'No shipped config has "{containing}" in its name.', "`rlrun configs` lists them all.")
    from rlrun.config.locate import headline

    console.print_table(("config", "what it is"), [(name, headline(path)) for name, path in found.items()])


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
    report = rlrun.check_env(env, overrides={o.key: o.value for o in _overrides(set_)})
    if json_:
        console.print_json(report.as_dict())
    else:
        console.print_table(("check", "result", "detail"), [(f.name, f.result, f.detail) for f in report.findings])
    return 0 if report.passed else 1


@app.command()
def runs(run_dir: RunDirOption = _RUNS, json_: JsonOption = False) -> None:
    """List the runs."""
    if not run_dir.is_dir() and (run_dir != _RUNS or run_dir.exists()):
        what = "is no folder" if run_dir.exists() else "is not there"
        raise UsageError(f"{run_dir} {what}, so it holds no runs.", "Name a folder that `rlrun train` made runs in.")
    rows = [row.listing() for row in rlrun.list_runs(run_dir)]
    if json_:
        console.print_json(rows)
    elif not rows:
        console.say(f"There are no runs in {run_dir}.")
    else:
        console.print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])


@app.command()
def show(run: RunArgument, run_dir: RunDirOption = _RUNS, json_: JsonOption = False) -> None:
    """What a run is, how far it came, and what it left."""
    found = rlrun.open_run(run, run_dir=run_dir)
    if json_:
        console.print_json(found.summary())
    else:
        console.print_facts(found.description())


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="An SB3 zip, a folder, a run, or a pickle.")],
    run_dir: RunDirOption = _RUNS,
    json_: JsonOption = False,
) -> None:
    """What a model or folder holds, and whether loading it would need trust; nothing of it is run."""
    values = rlrun.inspect(path, run_dir=run_dir)
    if json_:
        console.print_json(values)
        return
    pickles = values.pop("pickles", {})
    members = values.pop("members", {})
    words = {key: ", ".join(value) if isinstance(value, list) else value for key, value in values.items()}
    words["needs_trust"] = words["needs_trust"] or "no"
    console.print_facts(words)
    if members:
        console.print_table(("member", "bytes"), list(members.items()))
    if pickles:
        console.print_table(("pickled attribute", "names"), [(name, ", ".join(n)) for name, n in pickles.items()])


@app.command()
def trust(run: RunArgument, run_dir: RunDirOption = _RUNS) -> None:
    """Say that a run of someone else's may import what its config names."""
    names = rlrun.trust(run, run_dir=run_dir)
    console.say(f"Trusted. It imports: {', '.join(names) or 'nothing but what rlrun itself needs'}.")


@app.command()
def prune(
    selected: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to make smaller.")],
    everything: Annotated[bool, typer.Option("--delete", help="Delete the runs altogether.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    run_dir: RunDirOption = _RUNS,
    json_: JsonOption = False,
) -> None:
    """Keep the best and final checkpoints of runs, without replay buffers; or delete the runs."""
    found = [rlrun.open_run(text, run_dir=run_dir) for text in selected]
    if everything and not yes:
        if not sys.stdin.isatty():
            raise UsageError("--delete asks before it deletes, and nobody can answer.", "Add --yes.")
        typer.confirm(f"Delete {', '.join(str(r.path) for r in found)}?", abort=True, err=True)
    freed = {str(r.path): rlrun.prune(r, everything=everything) for r in found}
    if json_:
        console.print_json({"freed": freed})
        return
    for path, number in freed.items():
        console.say(f"{path}: {console.size(number)} freed")


@app.command()
def smoke(
    configs_: Annotated[
        list[str] | None, typer.Argument(metavar="CONFIG...", help="Default: ./configs, else the shipped.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A missing optional package is a failure.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit XML report.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each config.")] = 120.0,
    jobs: Annotated[int, typer.Option(min=1, help="Configs at the same time.")] = 1,
    json_: JsonOption = False,
) -> int:
    """Every config through train, save, load, resume and evaluate in seconds: for CI."""
    report = rlrun.smoke(configs_ or (), strict=strict, timeout=timeout, jobs=jobs, junit=junit, progress=console.note)
    if json_:
        console.print_json(report.as_dict())
    else:
        console.print_table(("config", "result", "seconds", "detail"), report.rows())
        console.say(report.verdict())
    return 0 if report.passed else 1
