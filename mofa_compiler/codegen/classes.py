"""Classes and constructor expressions for a tree of modules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from ..base.spelling import is_plain
from ..graph.plain_layers import is_ours
from . import naming
from .class_merging import lift, skeleton
from .constructors import Slot, constructor
from .copied_source import Library
from .forward import Body
from .literals import literal
from .module_tree import Part, Tree
from .regions import Region, Regions, other_functions

CHAIN = '''class Chain(nn.Sequential):
    """Modules that run one after another, by name."""

    def __init__(self, **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)'''


@dataclass
class _Shape:
    """How a container is written: `form` is sequential, chain, list, dict, parameters or class."""

    form: str
    body: Body | None = None
    is_plain: bool = False
    """Its children simply run one after another"""
    ties: list[tuple[Part, Part]] = field(default_factory=list)


class Classes:
    """Source of every class that a model needs, the root's last.

    `to_inline` names containers whose code must stand in their parents' (their calls differ); with any, start over.
    """

    def __init__(self, tree: Tree, regions: Regions, library: Library, root_name: str):
        self.tree, self.library, self.root_name = tree, library, root_name
        self.sections: list[str] = []
        self.to_inline: set[str] = set()
        self.uses_chain = False
        self._calls: dict[str, list[Region]] = {}
        for region in regions.root.calls():
            self._calls.setdefault(region.path, []).append(region)
        self._layers: dict[str, str] = {}
        self._made: dict[str, str] = {}  # by path of a container that is a class: the expression that constructs it
        for function in other_functions(regions.root):
            library.name(function)
        paper = {"PartialConv2d", "PConv2d", "PDWConv2d", "FusedPConv2d"}
        self._taken = {root_name, "Model", "Chain", *paper, *library.sections, *naming.RESERVED}
        containers = [part for part in tree.root.walk() if part.layer is None and part.tensor is None]
        self._shapes = {part.path: self._form(self._first(part)) for part in containers}
        for part in containers:
            self._shapes[part.path].body = self._body(part)

    def write(self) -> None:
        """Fill `sections`, innermost classes first, one for all containers that differ only in numbers."""
        for first, other in self.tree.ties():
            self._shapes[self._home(first, other)].ties.append((first, other))
        heights: dict[int, list[Part]] = {}
        self._heights(self.tree.root, heights)
        for height in sorted(heights):
            groups: dict[tuple[str, str], list[tuple[Part, str]]] = {}
            for part in heights[height]:
                text = self._class(part)
                groups.setdefault((self._class_name(part), skeleton(text)), []).append((part, text))
            for (name, _), members in groups.items():
                self._write_group(name, members)

    def _write_group(self, name: str, members: list[tuple[Part, str]]) -> None:
        first = members[0][0]
        if self._shapes[first.path].is_plain and len(members) == 1 and first.path:
            self._made[first.path] = self._sequence(first)
            return
        lifted = lift([text for _, text in members])
        if first.path:
            name = naming.unique(name, self._taken)
        self._taken.add(name)
        parameters = "".join(f", {parameter}: int" for parameter in lifted.parameters)
        self.sections.append(lifted.text.replace("<name>", name, 1).replace("<parameters>", parameters, 1))
        for (part, _), numbers in zip(members, lifted.arguments, strict=True):
            hint = "" if part.name.isdecimal() else part.name
            marked = [Slot.mark(f"{hint}:{p}", n) for p, n in zip(lifted.parameters, numbers, strict=True)]
            if len(marked) > 3:
                marked = [f"{p}={n}" for p, n in zip(lifted.parameters, marked, strict=True)]
            self._made[part.path] = f"{name}({', '.join(marked)})"

    def _heights(self, part: Part, found: dict[int, list[Part]]) -> int:
        height = 1 + max((self._heights(child, found) for child in part.modules.values()), default=0)
        if part.layer is None and self._shapes[part.path].form == "class" and part is self._first(part):
            found.setdefault(height, []).append(part)
        return height

    # Forms

    def _form(self, part: Part) -> _Shape:
        region = self._region(part)
        if region is not None or not part.path:
            plain = region is not None and self._is_chain(part, region)
            own_class = part.kind not in (nn.Sequential, nn.Module) and part.kind.__name__ != "Chain"
            if plain and part.path and not own_class:
                return _Shape("sequential" if part.is_numbered else "chain", is_plain=True)
            return _Shape("class", is_plain=plain)
        if part.is_numbered:
            return _Shape("sequential" if issubclass(part.kind, nn.Sequential) else "list")
        if part.kind is nn.ParameterList and not part.modules:
            return _Shape("parameters")
        reserved = any(hasattr(nn.ModuleDict, name) for name in part.children)
        return _Shape("class" if part.tensors or reserved else "dict")

    def _is_chain(self, part: Part, region: Region) -> bool:
        if part.tensors or len(region.inputs) != 1 or len(region.outputs) != 1 or len(self._calls_of(part)) > 1:
            return False
        value, names = region.inputs[0], []
        for item in region.items:
            if isinstance(item, Region):
                simple, path, result = item.inputs == [value] and len(item.outputs) == 1, item.path, item.outputs
            else:
                simple, path, result = item.op == "call_module" and item.args == (value,), str(item.target), [item]
                simple = simple and not item.kwargs
            name = (self.tree.below(path, part.path) or "")[len(part.path) + 1 :] if simple else ""
            if name not in part.modules or name in names:
                return False
            names.append(name)
            value = result[0]
        called = set(names)
        modules = sorted(part.modules, key=int) if part.is_numbered else part.modules
        in_order = [name for name in modules if name in called or not _is_filler(part.modules[name])]
        return names == in_order and value is (region.outputs[0] if region.output is None else region.output)

    def _region(self, part: Part) -> Region | None:
        return next(iter(self._calls_of(part)), None)

    def _calls_of(self, part: Part) -> list[Region]:
        return self._calls.get(self._first(part).path, [])

    def _first(self, part: Part) -> Part:
        """Of the places that hold the same container, the one that its code is written for."""
        places = self.tree.aliases.get(part.same, [part])
        return next((place for place in places if place.path in self._calls), places[0])

    def _body(self, part: Part) -> Body | None:
        calls = self._calls_of(part)
        if self._shapes[part.path].form != "class" or not calls or part is not self._first(part):
            return None
        bodies = [self._one_body(part, region) for region in calls]
        if any((body.parameters, body.lines) != (bodies[0].parameters, bodies[0].lines) for body in bodies):
            self.to_inline.add(part.path)
        return bodies[0]

    def _one_body(self, part: Part, region: Region) -> Body:
        names = [str(node.target).lstrip("*") for node in region.inputs] if not part.path else None
        names = names or naming.parameter_names(part.kind, len(region.inputs)) or _parameters_for(region.inputs)
        unique: list[str] = []
        reserved = self.library.sections.keys()
        for name in names:
            unique.append(naming.identifier(name, {*unique, *reserved}))
        return Body(region, unique, lambda path: self.reach(part, path), self.library.name, reserved)

    # Expressions

    def reach(self, part: Part, path: str) -> str:
        """How a method of the class for `part` says `path`: `self.blocks[0].conv`."""
        target = self.tree.below(path, part.path)
        assert target is not None
        expression, place = "self", part
        rest = target[len(part.path) :].lstrip(".").split(".")
        for name in rest:
            form = self._shapes[place.path].form if place.path in self._shapes else "layer"
            numbered = form in ("sequential", "list", "parameters") or (form == "class" and place.is_numbered)
            if numbered:
                expression += f"[{name}]"
            elif form == "dict":
                expression += f"[{literal(name)}]"
            elif is_plain(name):
                expression += f".{name}"
            else:
                kind = "submodule" if name in place.modules else "parameter"
                buffer = kind == "parameter" and not isinstance(place.children[name].tensor, nn.Parameter)
                expression += f".get_{'buffer' if buffer else kind}({literal(name)})"
            place = place.children.get(name, place)
        return expression

    def _expression(self, part: Part) -> str:
        """What constructs a part."""
        if part.tensor is not None:
            return _tensor(part)
        if part.layer is not None:
            return self._layer(part)
        form = self._shapes[part.path].form
        if form == "class":
            return self._made[self._first(part).path]
        if form in ("sequential", "chain"):
            return self._sequence(part)
        if form == "dict":
            items = (f"{literal(name)}: {self._expression(child)}" for name, child in part.children.items())
            return f"nn.ModuleDict({{{', '.join(items)}}})"
        children = _repeated([self._expression(part.children[str(i)]) for i in range(len(part.children))])
        return f"nn.{'ModuleList' if form == 'list' else 'ParameterList'}([{children}])"

    def _layer(self, part: Part) -> str:
        if part.path not in self._layers:
            assert part.layer is not None
            text, kind = constructor(part.path, part.layer)
            if is_ours(kind):
                self.library.copy(kind)
            name = part.name if not part.name.isdecimal() else ""
            self._layers[part.path] = Slot.within(name, text)
        return self._layers[part.path]

    def _sequence(self, part: Part) -> str:
        if part.is_numbered:
            return f"nn.Sequential({self._numbered(part)})"
        self.uses_chain = True
        named = {name: self._expression(child) for name, child in part.children.items()}
        if all(is_plain(name) and name != "self" for name in named):
            return f"Chain({', '.join(f'{name}={text}' for name, text in named.items())})"
        return f"Chain(**{{{', '.join(f'{literal(name)}: {text}' for name, text in named.items())}}})"

    def _numbered(self, part: Part) -> str:
        return _repeated([self._expression(part.children[str(i)]) for i in range(len(part.children))])

    # Classes

    def _class_name(self, part: Part) -> str:
        if not part.path:
            return self.root_name
        own = part.kind.__name__ if part.kind not in (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict) else ""
        return naming.identifier(own or part.name.title() or "Part")

    def _class(self, part: Part) -> str:
        shape = self._shapes[part.path]
        lines = [f"class <name>({'nn.Sequential' if part.is_numbered else 'nn.Module'}):"]
        if part.children:
            lines.append("    def __init__(self<parameters>):")
            lines.append(f"        super().__init__({self._numbered(part) if part.is_numbered else ''})")
        if not part.is_numbered:
            lines += [f"        {self._assignment(name, child, shape)}" for name, child in part.children.items()]
        lines += self._tie_lines(part, shape)
        if shape.body is not None and not (part.is_numbered and shape.is_plain):
            types, result = shape.body.annotations
            pairs = zip(shape.body.parameters, types, strict=True)
            given = ", ".join(["self", *(f"{name}: {type_}" if type_ else name for name, type_ in pairs)])
            lines += [""] if part.children else []
            lines += [f"    def forward({given}){f' -> {result}' if result else ''}:"]
            lines += [f"        {line}" for line in shape.body.lines or ["pass"]]
        return "\n".join(lines)

    def _assignment(self, name: str, child: Part, shape: _Shape) -> str:
        tied = next((first for first, other in shape.ties if other is child and child.tensor is None), None)
        owner = self.tree.by_path[child.path.rpartition(".")[0]]
        value = self.reach(owner, tied.path) if tied else self._expression(child)
        if child.tensor is not None and not isinstance(child.tensor, nn.Parameter):
            persistent = "" if child.persistent else ", persistent=False"
            return f"self.register_buffer({literal(name)}, {value}{persistent})"
        if is_plain(name):
            return f"self.{name} = {value}"
        register = "register_parameter" if child.tensor is not None else "add_module"
        return f"self.{register}({literal(name)}, {value})"

    def _tie_lines(self, part: Part, shape: _Shape) -> list[str]:
        def tie(first: Part, other: Part) -> str:
            place, value = self.reach(part, other.path), self.reach(part, first.path)
            if not place.endswith(")"):
                return f"        {place} = {value}"
            register = "add_module" if other.tensor is None else "register_parameter"
            return f"        {place.rpartition('.get_')[0]}.{register}({literal(other.name)}, {value})"

        direct = {child.path for child in part.modules.values()} if not part.is_numbered else set()
        modules = [tie(*pair) for pair in shape.ties if pair[1].tensor is None and pair[1].path not in direct]
        tensors = [tie(*pair) for pair in shape.ties if pair[1].tensor is not None]
        if not tensors:
            return modules
        hook = "self.register_load_state_dict_post_hook(type(self)._share)  # loading with assign=True unties"
        head = "    def _share(self, *_: object) -> None:"
        return [*modules, "        self._share()", f"        {hook}", "", head, *tensors]

    def _home(self, first: Part, other: Part) -> str:
        """The innermost class around two places that are one."""
        home = ""
        common = zip(first.path.split("."), other.path.split("."), strict=False)
        path: list[str] = []
        for one, two in common:
            if one != two:
                break
            path.append(one)
            shape = self._shapes.get(".".join(path))
            if shape is not None and shape.form == "class" and not shape.is_plain:
                home = ".".join(path)
        return home


def _is_filler(part: Part) -> bool:
    return isinstance(part.layer, nn.Identity)


def _repeated(expressions: list[str]) -> str:
    """A list of constructors, shorter where many are alike; equal ones are still separate modules."""
    runs: list[tuple[str, int]] = []
    for expression in expressions:
        if runs and runs[-1][0] == expression:
            runs[-1] = (expression, runs[-1][1] + 1)
        else:
            runs.append((expression, 1))
    short = (f"*({text} for _ in range({count}))" if count > 2 else ", ".join([text] * count) for text, count in runs)
    return ", ".join(short)


def _parameters_for(inputs: Iterable[fx.Node]) -> list[str]:
    pool = iter(naming.POOL)
    return [str(n.target).rpartition(".")[2] if n.op == "get_attr" else next(pool, "t") for n in inputs]


def _tensor(part: Part) -> str:
    tensor = part.tensor
    assert tensor is not None
    dtype = "" if tensor.is_floating_point() and part.persistent else f", dtype={tensor.dtype}"
    if not part.persistent:
        return _constant(tensor, dtype)
    dimensions = ", ".join(Slot.mark(f"{part.name}:channels", n) if n > 1 else str(n) for n in tensor.shape)
    value = f"torch.empty({dimensions or '()'}{dtype})"
    if not isinstance(tensor, nn.Parameter):
        return value
    return f"nn.Parameter({value})" if tensor.requires_grad else f"nn.Parameter({value}, requires_grad=False)"


def _constant(tensor: torch.Tensor, dtype: str) -> str:
    values = tensor.detach().cpu()
    if values.numel() and bool((values == values.flatten()[0]).all()):
        return f"torch.full({literal(tuple(values.shape))}, {literal(values.flatten()[0].item())}{dtype})"
    if values.dim() > 1 and len(values) > 1 and bool((values == values[:1]).all()):  # one filter for every channel, say
        times = literal((len(values), *[1] * (values.dim() - 1)))
        return f"{_constant(values[:1], dtype)}.repeat{times}"
    return f"torch.tensor({literal(values.tolist())}{dtype})"
