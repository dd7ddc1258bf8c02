"""An agent as one ONNX file: normalization, image handling, the policy and the action's post-processing."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlrun.envs.recipe import Role
from rlrun.envs.seeding import Stream, endless_seeds
from rlrun.errors import MissingPackage, RlrunError, UsageError, install_hint
from rlrun.publish.actor import Actor, Port, Preparation, make_actor
from rlrun.publish.parity import ENVS, Parity, measure
from rlrun.runs.files import os_errors_in_words, write_whole
from rlrun.runs.load import Agent
from rlrun.runs.provenance import versions

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Export:
    """A written file, and how it was checked.

    :ivar checkpoint: ``best``, ``final``, ``latest``, or a number of timesteps
    """

    path: Path
    run: str
    algo: str
    env: str
    checkpoint: str
    timesteps: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parity: Parity

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``rlrun export --json``."""
        values = asdict(self)
        parity = values.pop("parity")
        return {**values, "path": str(self.path), "bytes": self.path.stat().st_size, **parity}


def export_agent(agent: Agent, path: Path, run: str = "") -> Export:
    """Write an agent as ONNX, once its graph has been seen to do what the agent does.

    The batch may have any length. An observation is what the env gives after the config's wrappers and frame stacking,
    images with channels last if the env has them so.

    :param agent: on the CPU
    :param path: the file; replaced if it is there
    :param run: where the agent comes from, for the file's metadata
    :raises MissingPackage: without the extra ``onnx``
    :raises RlrunError: when the policy cannot be written as a graph, or the graph acts differently
    """
    require_packages()
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name a file with --out.")
    seeds = [endless_seeds(agent.config.seed, Stream.EVALUATION, index) for index in range(ENVS)]
    venv = agent.recipe.make_vec(Role.EVAL, seeds, agent.statistics)
    try:
        preparation = Preparation.of(venv)
        actor = make_actor(agent, preparation)
        content = _described(_graph(actor, preparation), actor, agent, run)
        parity = measure(agent, actor, preparation, _runner(content))
    finally:
        venv.close()
    with os_errors_in_words(f"making the folder of {path.name}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    config, outputs = agent.config, tuple(actor.outputs)
    checkpoint = agent.checkpoint or "untrained"
    return Export(
        path, run, config.algo, config.env.id, checkpoint, agent.timesteps, tuple(actor.inputs), outputs, parity
    )


def require_packages() -> None:
    """Raise MissingPackage when the extra ``onnx`` is not installed."""
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            message = f"The export needs the package {name}, which cannot be imported ({error})."
            raise MissingPackage(message, install_hint("onnx")) from None


def _graph(actor: Actor, preparation: Preparation) -> Any:
    """The module as an ONNX ModelProto."""
    batch = torch.export.Dim("batch")
    examples = tuple(_example(port) for port in actor.inputs)
    try:
        with _undisturbed(), torch.no_grad():
            program = torch.onnx.export(
                actor,
                examples,
                dynamo=True,
                external_data=False,
                verbose=False,
                dynamic_shapes=(tuple({port.batch_axis: batch} for port in actor.inputs),),
            )
            if program is None:
                raise RuntimeError("torch made no graph of it")
            return _with_ports(program.model_proto, actor)
    except Exception as error:  # what torch raises on code that it cannot follow has no common class
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split("\n\n")[0].split())[:300].rstrip(".") or type(cause).__name__
        message = f"{type(actor.policy).__name__} cannot be written as one ONNX graph: {reason}."
        hint = "Its forward pass must not branch on what is in a tensor, and take a batch of any length."
        raise RlrunError(message, hint) from error


def _with_ports(proto: Any, actor: Actor) -> Any:
    """The graph with the ports' names at its inputs and outputs, and names of no port inside."""
    from onnx.compose import add_prefix

    proto = add_prefix(proto, "graph/")
    names = {}
    for values, ports in ((proto.graph.input, actor.inputs), (proto.graph.output, actor.outputs)):
        for value, port in zip(values, ports, strict=True):
            names[value.name] = port.name
            value.name = port.name
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return proto


def _example(port: Port) -> torch.Tensor:
    """A batch of three, which is no length that a policy would have of itself."""
    shape = [3 if length == "batch" else int(length) for length in port.shape]
    return torch.as_tensor(np.zeros(shape, dtype=port.dtype))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep torch's exporter from printing, and distributions from checking their arguments.

    A check branches on what is in a tensor, which a graph cannot.
    """
    distributions: Any = torch.distributions.Distribution
    checks, level = distributions._validate_args, logging.root.manager.disable
    distributions.set_default_validate_args(False)
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        distributions.set_default_validate_args(checks)
        logging.disable(level)


def _described(proto: Any, actor: Actor, agent: Agent, run: str) -> bytes:
    """The file's content, with what a stranger needs to know."""
    import onnx

    config = agent.config
    facts = {
        "algo": config.algo,
        "env": config.env.id,
        "run": Path(run).name,
        "checkpoint": agent.checkpoint or "untrained",
        "timesteps": str(agent.timesteps),
        "rlrun_version": versions()["rlrun"],
        "inputs": json.dumps({port.name: f"{port}: {port.description}" for port in actor.inputs}),
        "outputs": json.dumps({port.name: f"{port}: {port.description}" for port in actor.outputs}),
    }
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, facts)
    proto.producer_name, proto.producer_version = "rlrun", facts["rlrun_version"]
    proto.doc_string = f"{config.algo} on {config.env.id}: observations as the env gives them to deterministic actions"
    for values, ports in ((proto.graph.input, actor.inputs), (proto.graph.output, actor.outputs)):
        for value, port in zip(values, ports, strict=True):
            value.doc_string = port.description
    return proto.SerializeToString()


def _runner(content: bytes) -> Any:
    """The graph as a function, run by onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})
