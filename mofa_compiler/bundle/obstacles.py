"""What keeps a network from being saved as a bundle, all of it, known from its graph before anything is done."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor, fx

from ..base.errors import BundleError, MofaError, one_line
from ..codegen.constructors import constructor
from ..codegen.copied_source import Library
from ..codegen.literals import literal, spelled_out
from ..codegen.module_tree import Tree, carried
from ..codegen.regions import is_foreign, live_nodes, traced_containers
from ..codegen.source import emit, untraced
from ..graph.program import Program
from ..rewriting.engine import rewrite
from .files import SOURCE, run_source

if TYPE_CHECKING:
    from ..analysis.network import Network
    from ..rewriting.roadmap import Roadmap


@dataclass(frozen=True)
class Obstacle:
    """Something that no bundle can hold.

    Attributes:
        path: of the layer, tensor or module at fault, empty for the network itself.
        reason: a sentence that names it.
    """

    path: str
    reason: str


def obstacles(program: Program) -> tuple[Obstacle, ...]:
    """Everything that keeps a program from being saved as a bundle; nothing where it can be.

    Parts are looked at one by one: what could not be traced, layers, tensors, functions and constants. Where none is at
    fault, the source is written and its network made, without weights, which takes what the parts came to together. Of
    a program without values, only the parts are known.
    """
    found = [*_untraced(program), *_layers(program), *_tensors(program), *_code(program)]
    if not found and not any(tensor.is_meta for tensor in program.state().values()):
        found += _together(program)
    return tuple(dict.fromkeys(found))


def refuse(network: Network, roadmap: Roadmap) -> None:
    """Refuse a network that could not be saved, unless `roadmap` takes away what it is that keeps it from that.

    Raises:
        BundleError: naming the first obstacle.
    """
    found = obstacles(network.program)
    if not found:
        return
    after = network.without_values
    try:
        for pass_ in roadmap:
            with torch.random.fork_rng(devices=[]):  # new modules draw random weights
                after, _ = rewrite(after, pass_)
    except Exception:  # a pass that cannot do without values, or will fail: then that is told when it does
        return
    left = {one.path for one in obstacles(after.program)}
    if remaining := [one for one in found if one.path in left]:
        raise BundleError(sentence(remaining), code="no-source")


def sentence(found: tuple[Obstacle, ...] | list[Obstacle]) -> str:
    """The first of some obstacles, and how many more there are."""
    more = len(found) - 1
    return found[0].reason + (f" ({more} more: see `mofa capture`)" if more else "")


def _untraced(program: Program) -> Iterator[Obstacle]:
    for path, cause in program.opaque.items():
        yield Obstacle(path, untraced(path, program.modules[path], cause))


def _layers(program: Program) -> Iterator[Obstacle]:
    for part in Tree(program, program.graph_module, traced_containers(program)).root.walk():
        if part.layer is None or part.path in program.opaque:
            continue
        try:
            constructor(part.path, part.layer)
        except BundleError as error:
            yield Obstacle(part.path, str(error))


def _tensors(program: Program) -> Iterator[Obstacle]:
    constants = {path: program.tensor(path) for path in sorted(carried(program))}
    for path, tensor in {**program.state(), **constants}.items():
        if isinstance(tensor, Tensor) and not _is_storable(tensor):
            kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
            yield Obstacle(path, f"{path} is a {kind} tensor, which a file of weights cannot hold: convert it")


def _is_storable(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        return False
    try:
        save({"": torch.empty(0, dtype=tensor.dtype)})
    except (KeyError, TypeError, RuntimeError):  # of a precision that safetensors does not know
        return False
    return True


def _code(program: Program) -> Iterator[Obstacle]:
    """Functions whose source is not to be had, and constants that have none."""
    library = Library()
    for node in live_nodes(program.graph):
        try:
            if node.op == "call_function" and is_foreign(node.target):
                library.name(node.target)  # type: ignore[arg-type]
            kwargs = dict(node.kwargs)
            if node.op == "call_function" and callable(node.target):
                kwargs = spelled_out(node.target, kwargs)
            if node.op != "placeholder":
                literal([*node.args, *kwargs.values()], str)
        except BundleError as error:
            path = _module_of(node)
            yield Obstacle(path, f"{path}: {error}" if path else str(error))


def _module_of(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _together(program: Program) -> Iterator[Obstacle]:
    """What is found only by writing the source, running it, and making the network without its weights."""
    module = program.graph_module
    try:
        text = emit(program, module)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, SOURCE)
            file.write_text(text, encoding="utf-8")
            space = run_source(file)
        sys.modules.pop(space.__name__, None)
        with torch.device("meta"):
            made = set(space.Model().state_dict())
    except MofaError as error:
        yield Obstacle("", str(error))
        return
    except Exception as error:  # which saving would raise
        yield Obstacle("", f"no source could be written for {program.name}: {one_line(error)}")
        return
    if differing := sorted(made ^ {*module.state_dict(), *carried(program)}):
        yield Obstacle(
            differing[0].rpartition(".")[0],
            f"the written source has other state_dict keys, {differing[:5]}: a bug, please report it",
        )
