"""The modules and tensors of a program as a tree, by their dotted names, and which of them are one and the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, fx, nn

from ..graph.program import Program
from .constructors import is_known


@dataclass
class Part:
    """A place in the tree: a container with children, a layer, or a tensor that a container holds.

    `kind` is the class to name the source after. `same` is equal for two places that hold the same object.
    """

    path: str
    kind: type[nn.Module]
    children: dict[str, Part] = field(default_factory=dict)
    layer: nn.Module | None = None
    tensor: Tensor | None = None
    persistent: bool = True
    same: int = 0

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @cached_property
    def modules(self) -> dict[str, Part]:
        return {name: child for name, child in self.children.items() if child.tensor is None}

    @cached_property
    def tensors(self) -> dict[str, Part]:
        return {name: child for name, child in self.children.items() if child.tensor is not None}

    @cached_property
    def is_numbered(self) -> bool:
        """Whether the children are called 0, 1, 2, …, as in a list."""
        numbers = map(str, range(len(self.children)))
        return bool(self.children) and not self.tensors and self.children.keys() == set(numbers)

    @cached_property
    def has_state(self) -> bool:
        if self.layer is not None:
            return bool(self.layer.state_dict(keep_vars=True))
        return self.tensor is not None or any(child.has_state for child in self.children.values())

    def walk(self) -> Iterator[Part]:
        yield self
        for child in self.children.values():
            yield from child.walk()


_LARGEST_CONSTANT = 256
"""Elements of a non-persistent buffer that are written into the source"""


def carried(program: Program) -> frozenset[str]:
    """Paths of constants that are in no state_dict and too large for source: they go into a bundle's weights."""
    read = {str(node.target) for node in program.graph.nodes if node.op == "get_attr"}
    return frozenset(path for path in read & program.transient if not _is_short(program.tensor(path)))


def _is_short(tensor: Tensor) -> bool:
    """Whether a constant is written in few elements: one for all, one slice for all, or not many."""
    if tensor.is_meta:  # of a program without values, which is not written
        return True
    alike = tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())
    if tensor.dim() > 1 and len(tensor) > 1 and bool((tensor == tensor[:1]).all()):
        return _is_short(tensor[:1])
    return alike or tensor.numel() <= _LARGEST_CONSTANT


class Tree:
    """All parts by path; layers and tensors are those of `module`, which the user may have trained since."""

    def __init__(self, program: Program, module: fx.GraphModule, traced: set[str]):
        self.root = Part("", program.containers.get("", nn.Module))
        self.by_path: dict[str, Part] = {"": self.root}
        self._program, self._traced = program, traced
        self._called = {str(node.target) for node in program.graph.nodes if node.op == "call_module"}
        self._read = {str(node.target) for node in program.graph.nodes if node.op == "get_attr"}
        self._called_ids = {id(program.modules[path]) for path in self._called}
        self.carried = carried(program)
        for path in sorted((*program.containers, *program.modules, *program.tensors), key=self._order()):
            self._add(path, module)
        self._drop(self.root)
        self._fill_gaps()
        self._identify()

    def _order(self) -> Any:
        """Layers in the order in which they first run, others behind; numbered children by number."""
        first: dict[str, int] = {}
        for position, node in enumerate(self._program.graph.nodes):
            if node.op in ("call_module", "get_attr"):
                parts = str(node.target).split(".")
                for end in range(1, len(parts) + 1):
                    first.setdefault(".".join(parts[:end]), position)
        last = len(self._program.graph.nodes)

        def key(path: str) -> list[tuple[int, int]]:
            parts = path.split(".")
            prefixes = [".".join(parts[:end]) for end in range(1, len(parts) + 1)] if path else []
            steps = zip(parts, prefixes, strict=False)
            return [(int(part) if part.isdecimal() else -1, first.get(prefix, last)) for part, prefix in steps]

        return key

    def _add(self, path: str, module: fx.GraphModule) -> None:
        program = self._program
        if not path:
            return
        if path in program.tensors:
            owner, _, name = path.rpartition(".")
            tensor = getattr(module.get_submodule(owner), name)
            persistent = path not in program.transient or path in self.carried
            part = Part(path, nn.Module, tensor=tensor, persistent=persistent)
            part.same = id(tensor)
        elif path in program.containers and path not in self._called:
            part = Part(path, program.containers[path])
        else:
            part = self._layer(path, program.modules[path], module)
        parent = self._parent(path)
        parent.children[path.rpartition(".")[2]] = part
        for inner in part.walk():
            self.by_path[inner.path] = inner

    def _layer(self, path: str, original: nn.Module, module: fx.GraphModule) -> Part:
        if path in self._traced and id(original) not in self._called_ids:
            held = self._holder(path, module.get_submodule(path))  # what it reads is called by another's name, or none
            held.same = id(original)
            return held
        lists = isinstance(original, (nn.ParameterList, nn.ParameterDict))  # never called, and made of what they hold
        if id(original) in self._called_ids or (is_known(original) and not lists):
            return Part(path, type(original), layer=module.get_submodule(path), same=id(original))
        return self._holder(path, module.get_submodule(path))  # unused and not torch's own: only its state counts

    def _holder(self, path: str, module: nn.Module) -> Part:
        held = Part(path, type(module))
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                held.children[name] = Part(f"{path}.{name}", nn.Module, tensor=tensor, same=id(tensor))
        for name, child in module._modules.items():
            if child is not None:
                held.children[name] = self._holder(f"{path}.{name}", child)
        return held

    def _parent(self, path: str) -> Part:
        parent = path.rpartition(".")[0]
        if parent not in self.by_path:
            part = Part(parent, nn.Module)
            self._parent(parent).children[part.name] = part
            self.by_path[parent] = part
        return self.by_path[parent]

    def _drop(self, part: Part) -> None:
        """Leave out what neither runs nor holds state, and tensors that are neither read nor saved."""
        for name, child in list(part.children.items()):
            self._drop(child)
            unused = child.layer is None and not child.children and child.path not in self._traced
            if child.tensor is not None:
                unused = not child.persistent and child.path not in self._read
            if unused:
                del part.children[name]
                del self.by_path[child.path]

    def _fill_gaps(self) -> None:
        """Put an Identity where a list lost a child, so that its neighbours keep their numbers."""
        for part in list(self.root.walk()):
            names = part.children
            if not issubclass(part.kind, (nn.Sequential, nn.ModuleList)) or not all(map(str.isdecimal, names)):
                continue
            for name in map(str, range(max(map(int, names), default=-1))):
                if name not in names:
                    filler = Part(f"{part.path}.{name}", nn.Identity, layer=nn.Identity())
                    names[name] = self.by_path[filler.path] = filler

    def _identify(self) -> None:
        """Tell which containers are one object: the same objects under the same names, and called by one path only."""
        levels: dict[int, list[Part]] = {}

        def height(part: Part) -> int:
            found = 1 + max(map(height, part.children.values()), default=0)
            levels.setdefault(found, []).append(part)
            return found

        height(self.root)
        known: dict[Any, int] = {}
        self.aliases: dict[int, list[Part]] = {}
        number = 0
        for level in sorted(levels):
            # An object is called by the first of its paths, so what is called by its own is an object of its own.
            for part in sorted(levels[level], key=lambda part: part.path not in self._traced):
                if part.children and part.layer is None:
                    number -= 1
                    key = (part.kind, *sorted((name, child.same) for name, child in part.children.items()))
                    first = known.setdefault(key, number)
                    part.same = number if part.path in self._traced else first
        for part in self.root.walk():
            self.aliases.setdefault(part.same or id(part), []).append(part)

    def below(self, path: str, container: str) -> str | None:
        """The name under which `container` reaches the object at `path`, or None."""
        prefix = f"{container}." if container else ""
        if path.startswith(prefix):
            return path
        return next((place for place in self._places(path) if place.startswith(prefix)), None)

    def _places(self, path: str) -> list[str]:
        """All paths of the object at `path`, a container, a layer or a tensor (perhaps a layer's own)."""
        part = self.by_path.get(path)
        if part is not None and part.tensor is None:
            return [place.path for place in self.aliases.get(part.same, [])]
        return self._tensor_places.get(path, [])

    @cached_property
    def _tensor_places(self) -> dict[str, list[str]]:
        """By the path of every tensor that a container or a layer holds, all paths of it."""
        found: dict[int, list[str]] = {}
        for part in self.root.walk():
            held = {part.path: part.tensor} if part.tensor is not None else {}
            if part.layer is not None:
                held = {f"{part.path}.{name}": tensor for name, tensor in _held(part.layer)}
            for path, tensor in held.items():
                found.setdefault(id(tensor), []).append(path)
        return {path: places for places in found.values() for path in places}

    def ties(self) -> Iterator[tuple[Part, Part]]:
        """Pairs (first place, other place) of what holds state and lies in several places, outermost first."""
        yield from self._ties_below(self.root, {})

    def _ties_below(self, part: Part, first: dict[int, Part]) -> Iterator[tuple[Part, Part]]:
        for child in part.children.values():
            if not child.has_state:
                continue
            known = first.setdefault(child.same or id(child), child)
            if known is not child:
                yield known, child
                continue
            yield from self._ties_below(child, first)
            if child.layer is not None:
                for name, tensor in _held(child.layer):
                    inner = Part(f"{child.path}.{name}", nn.Module, tensor=tensor)
                    known = first.setdefault(id(tensor), inner)
                    if known is not inner:
                        yield known, inner


def _held(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A layer's parameters and buffers by name, one that has several names under each."""
    yield from layer.named_parameters(remove_duplicate=False)
    yield from layer.named_buffers(remove_duplicate=False)
