"""Commands about agents: eval, inspect, trust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import rlrun
from rlrun import console, words
from rlrun.cli.app import app
from rlrun.cli.flags import (
    RUNS,
    CheckpointOption,
    JsonOption,
    RunArgument,
    RunDirOption,
    SetOption,
    TrustOption,
    finite,
    overrides_of,
    positive,
)
from rlrun.errors import UsageError


@app.command(name="eval")
def eval_(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, an SB3 zip, a downloaded folder; with --untrained a config.")
    ],
    checkpoint: CheckpointOption = None,
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
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> int:
    """Mean return, spread, 95 % interval, length and success rate of an agent."""
    overrides = overrides_of(set_)
    if not untrained and (group := _group(run, run_dir)) is not None:
        if algo or env or config or fail_under is not None:
            raise UsageError(
                f"{run} is a group of runs.", "--algo, --env, --config and --fail-under are for one agent."
            )
        settings: dict[str, Any] = {"checkpoint": checkpoint, "episodes": episodes, "seed": seed}
        settings["deterministic"] = deterministic
        overriding = {o.key: o.value for o in overrides}
        return _print_group(rlrun.evaluate_group(group, **settings, overrides=overriding, trust=trust_), json_)
    if not (untrained or checkpoint or algo or env or config):
        run, checkpoint = _as_checkpoint(run)
    is_file = not untrained and _is_foreign(Path(run))
    if not is_file and (algo or env or config):
        raise UsageError("--algo, --env and --config say what a zip or folder is.", "A run has its own config.")
    if deterministic is not None and (untrained or is_file):
        overrides += overrides_of([f"evaluation.deterministic={str(deterministic).lower()}"])
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
        console.say(f"return  {words.describe_evaluation(values)}")
        console.say(f"length  {values['mean_length']:.1f}")
        console.say(f"actions {'deterministic' if values['deterministic'] else 'stochastic'}, seed {values['seed']}")
    return _verdict(values, fail_under)


def _group(text: str, run_dir: Path) -> Any:
    from rlrun.runs.groups import find_group

    return find_group(text, run_dir)


def _print_group(values: dict[str, Any], as_json: bool) -> int:
    if as_json:
        console.print_json(values)
        return 0
    rows = [(run["training_seed"], words.describe_evaluation(run)) for run in values["runs"]]
    console.print_table(("seed", "return"), rows)
    span = "" if values["ci95"] is None else ", 95 % interval [{:.2f}, {:.2f}]".format(*values["ci95"])
    console.say(f"checkpoint {values['checkpoint']} of each")
    console.say(f"IQM over {len(rows)} seeds {values['iqm']:.2f}{span}; mean {values['mean']:.2f}")
    return 0


def _as_checkpoint(text: str) -> tuple[str, str | None]:
    """The run and the checkpoint that a path into a run names; any other text as it is."""
    from rlrun.runs.directory import run_of_checkpoint

    found = run_of_checkpoint(Path(text))
    return (text, None) if found is None else (str(found[0].path), str(found[1]))


def _is_foreign(path: Path) -> bool:
    if path.suffix == ".zip" and not path.exists():
        raise UsageError(f"There is no file {path}.", "Name the zip, a folder, or a run.")
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
def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="An SB3 zip, a folder, a run, or a pickle.")],
    run_dir: RunDirOption = RUNS,
    json_: JsonOption = False,
) -> None:
    """What a model or folder holds, and whether loading it would need trust; nothing of it is run."""
    values = rlrun.inspect(path, run_dir=run_dir)
    if json_:
        console.print_json(values)
        return
    pickles = values.pop("pickles", {})
    members = values.pop("members", {})
    facts = {key: ", ".join(value) if isinstance(value, list) else value for key, value in values.items()}
    facts["needs_trust"] = facts["needs_trust"] or "no"
    console.print_facts(facts)
    if members:
        console.print_table(("member", "bytes"), list(members.items()))
    if pickles:
        console.print_table(("pickled attribute", "names"), [(name, ", ".join(n)) for name, n in pickles.items()])


@app.command()
def trust(run: RunArgument, run_dir: RunDirOption = RUNS) -> None:
    """Say that a run of someone else's may import what its config names."""
    names = rlrun.trust(run, run_dir=run_dir)
    console.say(f"Trusted. It imports: {', '.join(names) or 'nothing but what rlrun itself needs'}.")
