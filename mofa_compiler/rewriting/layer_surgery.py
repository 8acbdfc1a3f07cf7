"""The graph work of a pass: new modules where layers stood, calls taken out or moved, and what the diff says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..analysis.layers import Layer, resize_options, signature
from ..analysis.network import Network
from ..base.errors import RewriteError
from ..graph.frozen import freeze
from ..graph.macs import node_macs
from ..graph.node_names import new_graph
from ..graph.program import Program
from ..graph.shape_propagation import evaluate
from ..nn.branching import Branches, inner, traced
from ..nn.partial_conv import PartialConv2d
from ..numerics.equivalence import EXACT_TOLERANCE, failed, module_error, warn_of_precision
from .diff import Edit
from .fate import Fate
from .pass_api import Lowering, Match, Pass, Preparation, Replacement


class Surgery:
    """One pass's changes to a copy of the graph; modules that it leaves alone stay shared."""

    def __init__(self, network: Network, pass_: Pass):
        self.network, self.pass_ = network, pass_
        program = network.program
        self.modules = dict(program.modules)
        self.ideals = dict(program.ideals)
        self.containers = dict(program.containers)
        self.tensors = dict(program.tensors)
        self.transient = set(program.transient)
        self.graph = new_graph()
        self.node_of: dict[fx.Node, fx.Node] = {}
        output = self.graph.graph_copy(program.graph, self.node_of)
        self.graph.output(output)
        self.by_name = {node.name: new for node, new in self.node_of.items()}
        for node, new in self.node_of.items():
            new.meta |= counterpart(node)
        names: dict[int, list[str]] = {}
        for path, module in program.modules.items():
            names.setdefault(id(module), []).append(path)
        self.aliases = {path: names[id(module)] for path, module in program.modules.items()}
        self.compensated: dict[str, tuple[int, nn.Module]] = {}
        self.edits: list[Edit] = []
        self.calls = Counter(str(node.target) for node in program.graph.nodes if node.op == "call_module")

    def replace(self, layer: Layer, found: Match) -> None:
        old = self.modules[layer.path]
        replacement = self.pass_.build(layer, self.modules)
        self.hold_promise(layer.path, exact=replacement.exact)
        new = replacement.module
        new.train(old.training)
        sources = [old, *(self.modules[path] for path in map(self._called, replacement.bypassed) if path)]
        freeze(new, (named for source in sources for named in source.named_parameters()))
        moved = replacement.moved
        whole = nn.Sequential(new, moved.like) if moved else new
        error = self._checked_error(layer, replacement, old, whole) if replacement.exact else None
        edit = self._edit(layer.path, old, new, replacement.fate)
        edit = replace(
            edit,
            after=f"{edit.after} + interpolate(to a size, {moved.like.mode})" if moved else edit.after,
            exact=error is not None,
            note="; ".join(filter(None, (found.note, replacement.note))),
            error=error,
        )
        if replacement.fate is Fate.MERGED:
            new.to(next(old.parameters()).dtype)
        index = len(self.edits)
        gone = (*replacement.bypassed, *((moved.node,) if moved else ()))
        behind = [step.node for step in layer.behind if step.node in gone]
        while behind:  # what a convolution behind feeds is no neighbour of the layer itself
            further = [name for name in gone if self.by_name[name] in self.by_name[behind[-1]].users]
            if not further:
                break
            behind.append(further[0])
        ends = [self.by_name[name] for name in behind[-1:] or [node.name for node in layer.nodes]]
        ends_as = [(end.meta["val"].shape, counterpart(end)) for end in ends]
        call = _Call.like(self.by_name[moved.node], moved.like) if moved else None
        readers = {name: self._bypass(name) for name in gone}
        for path, neighbour in replacement.compensated.items():
            self._compensate(path, neighbour)
        for name in set(gone) - set(behind):
            self._refresh(readers[name], layer)
        macs = self._put(layer, new, ends_as, call) - layer.macs
        for step in layer.behind:  # identities up to the one that is gone
            if not behind or step.node in behind:
                break
            self._revalue(self.by_name[step.node])
        self.edits.insert(index, replace(edit, macs=macs))
        self._account(replacement.compensated)
        self.ideals.pop(layer.path, None)
        if replacement.stands_for is not None:
            path = next(p for p, child in _spread(layer.path, new) if isinstance(child, PartialConv2d))
            self.ideals[path] = replacement.stands_for

    def hold_promise(self, path: str, *, exact: bool) -> None:
        """Refuse an approximate edit of a pass that promises exact ones.

        Raises:
            RewriteError: it is one.
        """
        if isinstance(self.pass_, (Lowering, Preparation)) and not exact:
            kind = "Lowering" if isinstance(self.pass_, Lowering) else "Preparation"
            raise RewriteError(
                f"{self.pass_.name}: its edit of {path} is approximate, and a {kind} promises exact ones: a bug in "
                "this pass",
                code="bug",
            )

    def _called(self, name: str) -> str:
        """The path of the module that a node calls; empty for anything else."""
        node = self.by_name[name]
        return str(node.target) if node.op == "call_module" else ""

    def finish(self) -> Network:
        changed = replace(
            self._scope,
            graph=self.graph,
            ideals=self.ideals,
            containers=self.containers,
            transient=frozenset(self.transient),
        )
        return Network(changed, self.network.anatomy)

    def _checked_error(self, layer: Layer, replacement: Replacement, old: nn.Module, new: nn.Module) -> float | None:
        """How far a layer that was declared exact is off; None where there are no values to check that on."""
        if any(parameter.is_meta for module in (old, new) for parameter in module.parameters()):
            return None
        error = module_error(replacement.reference or old, new, replacement.channels or layer.channels)
        if not error <= EXACT_TOLERANCE:
            raise failed(self.pass_.name, layer.path, error)
        reference, channels = replacement.reference or old, replacement.channels or layer.channels
        warn_of_precision(self.pass_.name, layer.path, reference, new, channels, self._precision(old))
        return error

    def _precision(self, module: nn.Module) -> torch.dtype:
        """What a layer computes in."""
        return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    @property
    def _scope(self) -> Program:
        return replace(self.network.program, modules=self.modules, tensors=self.tensors)

    def _put(
        self, layer: Layer, new: nn.Module, ends: list[tuple[torch.Size, dict[str, Any]]], last: _Call | None
    ) -> int:
        """Put `new`, and the call that is moved behind it, where the layer stood, at every call; returns its MACs.

        `ends` are the shape and the counterpart, at every call, of what comes out there.
        """
        children = list(_spread(layer.path, new))
        for alias in self.aliases[layer.path]:
            del self.modules[alias]
            self.modules.update(_spread(alias, new))
            self.containers.update(_containers(alias, new))
        self.aliases.update({path: [path] for path, _ in children})
        scope, macs = self._scope, 0
        for original, (shape, stands_for) in zip(layer.nodes, ends, strict=True):
            node = self.node_of[original]
            stack = dict(original.meta.get("nn_module_stack") or {})
            source: Any = node.args[0]
            with self.graph.inserting_before(node):
                for call in self._calls(layer.path, new, children, source, stack):
                    source = call
                    try:
                        source.meta["val"] = evaluate(source, scope)
                    except RuntimeError as error:
                        place = source.target if source.op == "call_module" else layer.path
                        raise RewriteError(
                            f"{self.pass_.name}: {place} does not fit: {error}", code="does-not-fit"
                        ) from error
                    macs += node_macs(source, scope)
                if last:
                    source = self.graph.call_function(last.function, (source,), last.options)
                    source.meta = {**last.meta, "val": evaluate(source, scope)}
            if source.meta["val"].shape != shape:
                raise RewriteError(
                    f"{self.pass_.name}: {layer.path} gave {tuple(shape)}, what was built for it gives "
                    f"{tuple(source.meta['val'].shape)}: a bug in this pass",
                    code="bug",
                )
            source.meta |= stands_for
            node.replace_all_uses_with(source)
            self.node_of[original] = self.by_name[original.name] = source
            self.graph.erase_node(node)
        return macs

    def _calls(
        self, path: str, new: nn.Module, children: list[tuple[str, nn.Module]], source: Any, stack: dict[str, Any]
    ) -> Iterator[fx.Node]:
        """Put the calls that `new` is made of into the graph, one after the other; the last one gives its result."""
        if not isinstance(new, Branches):
            for place, child in children:
                source = self.graph.call_module(place, (source,))
                own = {place: (place, type(child))} if place != path else {}
                source.meta = {"nn_module_stack": {**stack, **own}, "origin": None}
                yield source
            return
        values: dict[fx.Node, fx.Node] = {}
        containers = _containers(path, new)
        for node in traced(new).nodes:
            if node.op == "placeholder":
                values[node] = source
            elif node.op != "output":
                call = values[node] = self.graph.node_copy(node, values.__getitem__)
                places = [f"{path}.{place}" for place, _ in node.meta["nn_module_stack"].values()] if node.meta else []
                own = {place: (place, containers[place]) for place in places if place in containers}
                if node.op == "call_module":
                    call.target = f"{path}.{node.target}"
                    own[call.target] = (call.target, type(new.get_submodule(str(node.target))))
                call.meta = {"nn_module_stack": {**stack, **own}, "origin": None}
                yield call

    def _compensate(self, path: str, neighbour: nn.Module) -> None:
        old = self.modules[path]
        neighbour.train(old.training)
        for alias in self.aliases[path]:
            self.modules[alias] = neighbour
        self.ideals.pop(path, None)  # what it stood for, it stood for with its old weights
        if path not in self.compensated:
            self.compensated[path] = (len(self.edits), old)
            self.edits.append(self._edit(path, old, neighbour, Fate.COMPENSATED))

    def _account(self, paths: Iterable[str]) -> None:
        """Bring the edits of adjusted neighbours up to date: adjusted twice, or moved to another size."""
        for path in paths:
            index, old = self.compensated[path]
            index = next(i for i in range(index, len(self.edits)) if self.edits[i].path == path)
            layer = self.network.layers.get(path)
            macs = sum(node_macs(self.node_of[n], self._scope) for n in layer.nodes) - layer.macs if layer else 0
            self.edits[index] = replace(self._edit(path, old, self.modules[path], Fate.COMPENSATED), macs=macs)

    def _edit(self, path: str, old: nn.Module, new: nn.Module | None, fate: Fate) -> Edit:
        stage = self.network.anatomy.stage_of(path)
        return Edit(
            path=path,
            stage=stage.name if stage else None,
            before=signature(old),
            after=signature(new) if new else "",
            parameters=(_parameters(new) if new else 0) - _parameters(old),
            macs=0,
            fate=fate,
            exact=False,
        )

    def _bypass(self, name: str) -> list[fx.Node]:
        """Take a node out. Returns what read it, which now reads its first argument."""
        node = self.by_name[name]
        source = node.args[0]
        assert isinstance(source, fx.Node)
        readers = list(node.users)
        macs = node_macs(node, self._scope)
        node.replace_all_uses_with(source)
        self.graph.erase_node(node)
        if node.op == "call_module":
            self._release(str(node.target), macs)
        return readers

    def _release(self, path: str, macs: int) -> None:
        """Count a module's call, of so many MACs, as gone, and the module with its last one."""
        self.calls[path] -= 1
        if not self.calls[path]:
            self.edits.append(replace(self._edit(path, self.modules[path], None, Fate.REMOVED), macs=-macs))
            for alias in self.aliases[path]:
                del self.modules[alias]

    def _refresh(self, readers: list[fx.Node], layer: Layer) -> None:
        """Bring the values between a bypassed node and the layer up to date; nothing else reads there."""
        ends = {self.node_of[node] for node in layer.nodes}
        for reader in readers:
            node = reader
            while node not in ends:
                self._revalue(node)
                node = next(iter(node.users))

    def _revalue(self, node: fx.Node) -> None:
        """Bring a node at another resolution than before up to date; nothing in the original computes its value."""
        node.meta.update(val=evaluate(node, self._scope), origin=None, selection=None)


def origin(node: fx.Node) -> str | None:
    """Name of the node in the captured graph whose value this one computes, or approximates; None where none does."""
    name: str | None = node.meta.get("origin", node.name)
    return name


@dataclass(frozen=True)
class Selection:
    """Which channels are left of the `width` that the value had that a node stands for, by their places there."""

    kept: tuple[int, ...]
    width: int
    dim: int
    """Where they are"""

    def of(self, value: Tensor) -> Tensor:
        """These channels of the value in the captured graph."""
        return value.index_select(self.dim, torch.tensor(self.kept, device=value.device))


def selection(node: fx.Node) -> Selection | None:
    """What a node has of the channels of its `origin`; None where it has all of them."""
    found: Selection | None = node.meta.get("selection")
    return found


def counterpart(node: fx.Node) -> dict[str, Any]:
    """What a node's value stands for, as `meta` holds it."""
    return {"origin": origin(node), "selection": selection(node)}


class _Call(NamedTuple):
    """A call of a function that is to stand in another place."""

    function: Callable[..., Any]
    options: dict[str, Any]
    meta: dict[str, Any]

    @classmethod
    def like(cls, node: fx.Node, module: nn.Upsample) -> _Call:
        """The call of a functional interpolation, in the mode of a module."""
        options = {**resize_options(node), "mode": module.mode, "align_corners": module.align_corners}
        return cls(F.interpolate, {k: v for k, v in options.items() if v is not None}, dict(node.meta))


def _spread(path: str, module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    if isinstance(module, Branches):
        return [(f"{path}.{name}", child) for name, child in inner(module)[0].items()]
    if not isinstance(module, nn.Sequential):
        return [(path, module)]
    return [(f"{path}.{name}", child) for name, child in module.named_children()]


def _containers(path: str, module: nn.Module) -> dict[str, type[nn.Module]]:
    """What holds the modules that a replacement is spread into."""
    if isinstance(module, Branches):
        return {path: type(module), **{f"{path}.{name}": kind for name, kind in inner(module)[1].items()}}
    return {path: nn.Sequential} if isinstance(module, nn.Sequential) else {}


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
