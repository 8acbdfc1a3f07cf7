"""Changes to places in a copy of the graph, with their parameters and MACs, checked in float64, told in a diff."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.layers import signature, writes_in_place
from ..analysis.network import Network
from ..base.errors import RewriteError
from ..graph.frozen import Named, freeze
from ..graph.macs import function_name, node_macs
from ..graph.node_names import new_graph, path_of
from ..graph.plain_layers import altered
from ..graph.shape_propagation import evaluate
from ..numerics.equivalence import EXACT_TOLERANCE, failed, module_error, warn_of_precision
from .diff import Edit, Refusal, together
from .fate import Fate
from .layer_surgery import Selection, Surgery, counterpart, selection
from .pass_api import Pass, Skip

_SHAPING = frozenset(["getitem", "view", "reshape", "unsqueeze", "flatten", "expand", "contiguous", "neg"])
"""What a network does to a parameter before it multiplies by it, and what leaves it as constant as it was"""


class Rewiring(Surgery):
    """A pass's changes to places in a copy of the graph.

    New weights are given in float64. They are checked so, and put into the network rounded to its precision; what is
    changed twice is rounded once.
    """

    def __init__(self, network: Network, pass_: Pass):
        super().__init__(network, pass_)
        self.refusals: dict[str, Refusal] = {}
        self._unrounded: dict[str, Any] = {}
        self._parameters: Counter[str] = Counter()  # changes that no edit tells of yet, by path
        self._macs: Counter[str] = Counter()
        # Changes that no edit tells of yet, cost or not: (node or tensor, path to tell it at), and if it was checked
        self._unsaid: dict[tuple[str, str], bool] = {}
        self._part_of: dict[str, str] = {}
        self._stack: dict[str, Any] = {}
        distinct = {id(module): module for module in self.modules.values()}.values()
        held = [parameter for module in distinct for parameter in module.parameters()]
        self._holders = Counter(map(id, (*held, *self.tensors.values())))
        attributes = [node for node in self.graph.nodes if node.op == "get_attr"]
        self._reads = Counter(str(node.target) for node in attributes)
        held += [tensor for tensor in self.tensors.values() if isinstance(tensor, nn.Parameter)]
        self._own = next((tensor.dtype for tensor in held if tensor.is_floating_point()), torch.float32)
        self._written = {str(node.target) for node in attributes if self.overwritten(node)}

    # Looking

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes as they are by now, in execution order."""
        return list(self.graph.nodes)

    def module(self, node: Any) -> nn.Module | None:
        """The module that a node calls; None for anything else."""
        return self.modules[str(node.target)] if isinstance(node, fx.Node) and node.op == "call_module" else None

    def exactly(self, path: str) -> Any:
        """The module or tensor at a path, in float64 and unrounded where this pass made it; a flag as it is."""
        if path in self._unrounded:
            return self._unrounded[path]
        if path in self.modules:
            return copy.deepcopy(self.modules[path]).double()
        held = self._scope.tensor(path)
        return held.detach().double() if isinstance(held, Tensor) else held

    def tied(self, path: str) -> bool:
        """Whether the parameter or buffer at a path is held under another name, too."""
        return self._holders[id(self.tensors.get(path))] > 1

    def fixed(self, path: str) -> Skip | None:
        """Why the module at a path must stay as it is; None where it may be replaced."""
        if self.calls[path] > 1:
            return Skip("called-twice", f"{path} is called at {self.calls[path]} places")
        return self.bound(path)

    def bound(self, path: str) -> Skip | None:
        """The same, where it does not matter at how many places it is called."""
        module = self.modules[path]
        if any(self._holders[id(parameter)] > 1 for parameter in module.parameters()):
            return Skip("tied", f"{path} shares a parameter with another module")
        if any(self._reads[f"{alias}.{name}"] for alias in self.aliases[path] for name in module.state_dict()):
            return Skip("read-elsewhere", f"weights of {path} are read by something else, too")
        if reason := altered(module):
            return Skip("altered", f"{path} {reason}, which a new module would lose")
        if any(parameter.is_complex() for parameter in module.parameters()):
            return Skip("complex", f"{path} has complex weights")
        return None

    def overwritten(self, node: fx.Node) -> bool:
        """Whether something that reads a value changes it in place, so that it matters when others read it."""
        return any(writes_in_place(user, self.modules) and user.args[:1] == (node,) for user in node.users)

    def constant(self, value: Any) -> Tensor | None:
        """What an argument is that no input has an influence on, in float64; None for any other."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return torch.tensor(float(value), dtype=torch.float64)
        if not isinstance(value, fx.Node) or not isinstance(value.meta.get("val"), Tensor):
            return None
        if value.op == "get_attr":
            tensor = None if str(value.target) in self._written else self.exactly(str(value.target))
            return tensor if isinstance(tensor, Tensor) and tensor.is_floating_point() else None
        if value.op not in ("call_function", "call_method") or function_name(value) not in _SHAPING:
            return None
        first = self.constant(value.args[0])
        if first is None:
            return None
        rest = fx.map_arg((value.args[1:], value.kwargs), lambda node: node.meta["val"])
        if any(isinstance(leaf, Tensor) for leaf in rest[0]):
            return None
        if value.op == "call_method":
            result = getattr(first, str(value.target))(*rest[0], **rest[1])
        else:
            assert callable(value.target)
            result = value.target(first, *rest[0], **rest[1])
        return result if isinstance(result, Tensor) else None

    def refuse(self, path: str, what: str, why: Skip) -> None:
        """Write down that the thing at a path, in one short line, is left alone, and why; the first reason counts."""
        stage = self.network.anatomy.stage_of(path)
        self.refusals.setdefault(path, Refusal(path, stage.name if stage else None, what, why.code, why.reason))

    # Changing

    @contextmanager
    def at(self, node: fx.Node) -> Iterator[None]:
        """Let new nodes stand before this one, in the same call of the same containers."""
        before, self._stack = self._stack, dict(node.meta.get("nn_module_stack") or {})
        if node.op == "call_module":
            self._stack.pop(str(node.target), None)
        try:
            with self.graph.inserting_before(node):
                yield
        finally:
            self._stack = before

    def read(self, path: str) -> fx.Node:
        """A new node that reads a parameter or buffer."""
        self._reads[path] += 1
        return self._made(self.graph.get_attr(path))

    def call(self, target: str | Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A new node that calls a function, or the module at a path."""
        if isinstance(target, str):
            self.calls[target] += 1
            node = self.graph.call_module(target, args, kwargs)
            return self._made(node, {target: (target, type(self.modules[target]))})
        return self._made(self.graph.call_function(target, args, kwargs))

    def method(self, name: str, *args: Any, **kwargs: Any) -> fx.Node:
        """A new node that calls a method of its first argument."""
        return self._made(self.graph.call_method(name, args, kwargs))

    def again(self, node: fx.Node, source: fx.Node) -> fx.Node:
        """A new node that does what another one, which reads one value, does, to `source`."""
        if node.op == "call_module":
            self.calls[str(node.target)] += 1
        return self._made(self.graph.node_copy(node, lambda _: source))

    def _made(self, node: fx.Node, inner: Mapping[str, Any] | None = None) -> fx.Node:
        node.meta = {"nn_module_stack": {**self._stack, **(inner or {})}, "origin": None}
        self.revalue(node)
        self._count_macs(node, 1)
        return node

    def _count_macs(self, node: fx.Node, sign: int) -> None:
        if node.op != "get_attr":
            path = self._part_of.get(str(node.target), str(node.target)) if node.op == "call_module" else ""
            self._macs[path] += sign * node_macs(node, self._scope)

    def revalue(self, node: fx.Node) -> None:
        """Compute the recorded value of a node anew."""
        try:
            node.meta["val"] = evaluate(node, self._scope)
        except RuntimeError as error:
            raise RewriteError(
                f"{self.pass_.name}: {node.target} does not fit: {error}", code="does-not-fit"
            ) from error

    def substitute(self, old: fx.Node, new: fx.Node) -> None:
        """Let everything read `new` instead of `old`, for whose value it stands; `old` goes, if it is no part of it."""
        self._unsaid[old.name, str(old.target) if old.op == "call_module" else path_of(old) or old.name] = False
        new.meta |= counterpart(old)
        old.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self.erase(old)

    def retarget(self, node: fx.Node, path: str) -> None:
        """Let a node call the module at another path; its name, and what it stands for, stay."""
        old = str(node.target)
        self._unsaid[node.name, old] = False
        self.calls[old] -= 1
        self.calls[path] += 1
        with self.changing(node):
            node.target = path
        stack = {key: value for key, value in (node.meta.get("nn_module_stack") or {}).items() if key != old}
        node.meta["nn_module_stack"] = {**stack, path: (path, type(self.modules[path]))}

    def erase(self, *nodes: fx.Node) -> None:
        """Take nodes out that nothing reads, and then what they alone read."""
        pending = list(nodes)
        while pending:
            node = pending.pop()
            if node.users or node.op in ("placeholder", "output") or node._erased:
                continue
            self._count_macs(node, -1)
            counts = self.calls if node.op == "call_module" else self._reads
            counts[str(node.target)] -= 1
            pending += node.all_input_nodes
            self.graph.erase_node(node)

    @contextmanager
    def changing(self, node: fx.Node) -> Iterator[None]:
        """Count the MACs of a node, whose module or arguments are changed, anew."""
        self._count_macs(node, -1)
        yield
        self.revalue(node)
        self._count_macs(node, 1)

    def put(self, path: str, module: nn.Module, also: Sequence[Named] = ()) -> None:
        """Put a module, given in float64, at a path; it takes mode, precision and frozenness from what stood there.

        What was folded into it, `also`, has a say in whether it is frozen. Where its MACs or its output's shape are
        others, do it within `changing`.
        """
        self._put_like(path, module, self.modules[path], also)

    def named(self, paths: Iterable[str]) -> list[Named]:
        """The parameters of modules, and parameters, by their names."""
        found: list[Named] = []
        for path in paths:
            if path in self.modules:
                found += self.modules[path].named_parameters()
            elif isinstance(tensor := self._scope.tensor(path), nn.Parameter):
                found.append((path, tensor))
        return found

    def add(self, path: str, module: nn.Module) -> None:
        """Put a module, in the precision that it is to have, at a path where nothing stands yet."""
        self.aliases[path] = [path]
        self._parameters[path] += _count(module)
        self._unsaid["", path] = False
        self._unrounded[path] = copy.deepcopy(module).double()
        self.modules[path] = module

    def spread(self, path: str, parts: Sequence[nn.Module]) -> list[str]:
        """Put modules, given in float64, below the path of one that is to be released; returns their paths."""
        names = [f"{path}.{index}" for index in range(len(parts))]
        for alias in self.aliases[path]:
            self.containers[alias] = nn.ModuleList
        for index, (name, part) in enumerate(zip(names, parts, strict=True)):
            self.aliases[name] = [f"{alias}.{index}" for alias in self.aliases[path]]
            self._part_of[name] = path
            self._put_like(name, part, self.modules[path])
        return names

    def _put_like(self, path: str, module: nn.Module, old: nn.Module, also: Sequence[Named] = ()) -> None:
        like = next((t for t in old.parameters()), torch.empty(0, device=self.network.program.device))
        new = copy.deepcopy(module).to(like.device, like.dtype).train(old.training)
        freeze(new, (*old.named_parameters(), *also), thaw=True)
        account = self._part_of.get(path, path)
        self._parameters[account] += _count(new) - (_count(self.modules[path]) if path in self.modules else 0)
        self._unsaid["", account] = False
        self._unrounded[path] = module.to(like.device)
        self.modules.update(dict.fromkeys(self.aliases[path], new))
        self.ideals.pop(path, None)

    def release(self, path: str) -> bool:
        """Drop a module, parameter or buffer if nothing reads or shares it any longer; returns whether it went."""
        holds_weights = path in self.modules or path in self.tensors  # no flag, as `training`
        used = self.calls[path] or self._reads[path] or (path in self.tensors and self.tied(path))
        goes = holds_weights and not used
        if goes:
            self.drop(path)
        return goes

    def drop(self, path: str) -> None:
        """Take away a module, parameter or buffer."""
        if path in self.modules:
            self._parameters[path] -= _count(self.modules[path])
            for alias in self.aliases[path]:
                del self.modules[alias]
            self.ideals.pop(path, None)
        elif isinstance(self.tensors.pop(path), nn.Parameter):
            self._parameters[path] -= self.network.program.tensors[path].numel()
        self.transient.discard(path)
        self._unrounded.pop(path, None)

    def put_tensor(self, path: str, tensor: Tensor, *, fixed: bool = False) -> None:
        """Put a parameter at a path, or something `fixed` that is in no state_dict and never trained."""
        old = self.tensors.get(path)
        if isinstance(old, nn.Parameter):
            self._parameters[""] -= old.numel()
        self.tensors[path] = tensor
        self._unsaid[path, path] = False
        if fixed:
            self.transient.add(path)
        else:
            self._parameters[""] += tensor.numel()

    def select(self, node: fx.Node, kept: Sequence[int], dim: int) -> None:
        """Note that of the channels of a value, which lie along `dim`, only some are left."""
        before = selection(node)
        width = before.width if before else int(node.meta["val"].shape[dim])
        places = [before.kept[place] for place in kept] if before else kept
        node.meta["selection"] = Selection(tuple(places), width, dim)

    # Checking and telling

    def piece(self, source: fx.Node, *ends: fx.Node) -> fx.GraphModule:
        """What leads from one value to others, as a module of its own, unrounded; several outputs are joined flat."""
        graph = new_graph()
        root: dict[str, Any] = {}
        values: dict[fx.Node, Any] = {source: graph.placeholder("x")}

        def copied(node: fx.Node) -> Any:
            if node not in values:
                if not node.op.startswith("call") and node.op != "get_attr":
                    raise RewriteError(
                        f"{self.pass_.name}: {ends[0].name} reads {node.name}, too: a bug in this pass", code="bug"
                    )
                if isinstance(node.meta["val"], (bool, int, float)):
                    values[node] = node.meta["val"]  # a size or the mode, which say no more about a piece
                    return values[node]
                for inner in node.all_input_nodes:
                    copied(inner)
                if node.op in ("call_module", "get_attr"):
                    root[str(node.target)] = self.exactly(str(node.target))
                values[node] = graph.node_copy(node, lambda inner: values[inner])
            return values[node]

        results = [copied(end) for end in ends]
        if len(results) > 1:
            results = [graph.call_function(torch.cat, ([graph.call_method("flatten", (r, 1)) for r in results], 1))]
        graph.output(results[0])
        module = fx.GraphModule(root, graph)
        module.meta["covers"] = {*root, *(node.name for node in values)}
        return module

    def check(self, path: str, old: nn.Module, new: nn.Module, channels: int) -> float:
        """How far two pieces are apart, in float64 and at two sizes.

        Raises:
            RewriteError: they do not compute the same.
        """
        error = module_error(old, new, channels)
        if not error <= EXACT_TOLERANCE:
            raise failed(self.pass_.name, path, error)
        covered = {name for piece in (old, new) for name in getattr(piece, "meta", {}).get("covers", ())}
        self._unsaid = {(what, at): done or what in covered for (what, at), done in self._unsaid.items()}
        warn_of_precision(self.pass_.name, path, old, new, channels, self._own)
        return error

    def tell(
        self, path: str, before: str, after: str, fate: Fate, *, error: float | None = None, note: str = ""
    ) -> None:
        """Write the edit of a path, with the parameters and MACs that changed there, below it, or in no layer.

        It is exact where there is an `error`, as `check` returns it, and then also tells of what the checked pieces
        call and read. A layer that is told of twice is one edit; two places in a container that is no layer are two.
        """
        stage, fate = self.network.anatomy.stage_of(path), Fate(fate)
        exact = error is not None
        if fate is not Fate.REMOVED:
            self.hold_promise(path, exact=exact)
        if fate in (Fate.EXACT, Fate.MERGED) and not exact:
            raise RewriteError(
                f"{self.pass_.name}: {path} is told as exact without a check: a bug in this pass", code="bug"
            )
        self._unsaid = {
            (what, at): done
            for (what, at), done in self._unsaid.items()
            if not (at == path or at.startswith(f"{path}.") or (exact and done))
        }
        parameters, macs = (_taken(counts, path) for counts in (self._parameters, self._macs))
        edit = Edit(path, stage.name if stage else None, before, after, parameters, macs, fate, exact, note, error)
        for index, told in enumerate(self.edits):
            if told.path == path and (path in self.modules or path in self.network.program.modules):
                self.edits[index] = together(told, edit)
                return
        self.edits.append(edit)

    @property
    def untold(self) -> list[str]:
        """Paths with changes that no edit tells of, be they of parameters or MACs or not."""
        counted = [path for counts in (self._parameters, self._macs) for path, count in counts.items() if count]
        return list(dict.fromkeys([*counted, *(path for _, path in self._unsaid)]))

    def describe(self, path: str) -> str:
        """The module at a path in one short line."""
        return signature(self.modules[path])


def _taken(counts: Counter[str], path: str) -> int:
    """What is counted for a path, below it and for none, which is not counted any longer."""
    return sum(counts.pop(key) for key in list(counts) if key in ("", path) or key.startswith(f"{path}."))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
