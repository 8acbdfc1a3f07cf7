"""What was captured of a network, schema `mofa-capture/1`: what the compiler sees, and what will stay as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from rich.console import Console
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from ...base import words
from ...base.plain import versions
from ...graph.macs import function_name
from ...graph.plain_layers import altered
from ...nn.partial_conv import PartialConv2d
from ..document.terminal import print_lines, wrap
from ..guards import guards, module_of
from ..model import Guard, Opaque
from ..part import Part

if TYPE_CHECKING:
    from ...graph.program import Program

SCHEMA = "mofa-capture/1"
_FUNCTIONAL = frozenset(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)) | {"linear", "bilinear"}
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_HOOKS = {
    "_forward_hooks": "forward hooks",
    "_forward_pre_hooks": "forward pre-hooks",
    "_backward_hooks": "backward hooks",
    "_backward_pre_hooks": "backward pre-hooks",
}


class Value(Part):
    """A tensor by argument and place in it (`x`, `batch['mask']`), or by place in the result (`[0]`); or a value."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str | None
    value: str | None
    """What it is, if no tensor"""


class Convolutions(Part):
    """The network's convolution modules."""

    total: int
    seen: int
    """How many are in the graph"""
    in_opaque: tuple[str, ...]
    """Hidden in opaque parts"""
    never_called: tuple[str, ...]


class OpaqueModule(Opaque):
    """A submodule that could not be seen into."""

    convolutions: int
    """How many it hides"""


class Functional(Part):
    """A convolution or linear layer that is no module."""

    module: str
    function: str
    weight: tuple[int, ...] | None
    """Shape of the weights, if known"""


class Shared(Part):
    """A module with parameters that is called at several sites."""

    path: str
    calls: int


class Reason(Part):
    """Why a module is left alone, or cannot be saved."""

    path: str
    reason: str


class Agreement(Part):
    """The inputs' sizes at which graph and eager were run and agree, or why not."""

    sizes: tuple[str, ...]
    reason: str


class Captured(Part):
    """What was captured of a network."""

    schema_: Literal["mofa-capture/1"] = Field(alias="schema")
    versions: dict[str, str]
    model: str
    mode: Literal["eval", "train"]
    """The mode that the graph is right for"""
    warnings: tuple[str, ...]
    """What capturing warned of, such as that the other mode does something else"""
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: int
    """Of the graph"""
    convolutions: Convolutions
    opaque: tuple[OpaqueModule, ...]
    guards: tuple[Guard, ...]
    functional: tuple[Functional, ...]
    shared: tuple[Shared, ...]
    untouched: tuple[Reason, ...]
    """Convolutions that no pass rewrites as they have hooks or are subclasses"""
    compared: Agreement
    obstacles: tuple[Reason, ...]
    """What no bundle can hold: while there is any, `mofa rewrite` saves nothing"""


def captured(program: Program, warnings: Sequence[str] = (), obstacles: Sequence[Mapping[str, str]] = ()) -> Captured:
    """The data form of a program, of what capturing it warned of, and of what keeps it from a bundle."""
    nodes = list(program.graph.nodes)
    calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
    modules = program.modules
    reasons = ((path, _untouched(modules[path])) for path in calls)
    return Captured(
        schema_=SCHEMA,
        versions=versions(),
        model=program.name,
        mode="train" if program.training else "eval",
        warnings=tuple(warnings),
        inputs=tuple(
            leaf
            for node in nodes
            if node.op == "placeholder"
            for leaf in _leaves(node.meta.get("val"), str(node.target).lstrip("*"))
        ),
        outputs=tuple(_leaves(nodes[-1].args[0], "")),
        nodes=len(nodes),
        convolutions=_convolutions(program, calls),
        opaque=tuple(
            OpaqueModule(path=path, cause=cause, convolutions=len(_held(modules[path])))
            for path, cause in program.opaque.items()
        ),
        guards=tuple(guards(program.graph)),
        functional=tuple(
            Functional(module=module_of(node), function=function_name(node), weight=_weight_shape(node))
            for node in nodes
            if node.op == "call_function" and function_name(node) in _FUNCTIONAL
        ),
        shared=tuple(
            Shared(path=path, calls=number)
            for path, number in calls.items()
            if number > 1 and any(True for _ in modules[path].parameters())
        ),
        untouched=tuple(Reason(path=path, reason=reason) for path, reason in reasons if reason),
        compared=Agreement(sizes=tuple(program.comparison.sizes), reason=program.comparison.reason),
        obstacles=tuple(Reason(**one) for one in obstacles),
    )


def _convolutions(program: Program, calls: Mapping[str, int]) -> Convolutions:
    """Each convolution once, by the path where it is called, or else by its first one."""
    own = {path: module for path, module in program.modules.items() if isinstance(module, (_ConvNd, PartialConv2d))}
    seen = {id(module) for path, module in own.items() if path in calls}
    hidden: dict[int, str] = {}
    for path in calls:
        if path not in own:
            hidden |= {id(module): inner for inner, module in _held(program.modules[path], path).items()}
    hidden = {key: path for key, path in hidden.items() if key not in seen}
    unused: dict[int, str] = {}
    for path, module in program.modules.items():
        for inner, convolution in _held(module, path).items():
            if id(convolution) not in seen and id(convolution) not in hidden:
                unused.setdefault(id(convolution), inner)
    return Convolutions(
        total=len(seen) + len(hidden) + len(unused),
        seen=len(seen),
        in_opaque=tuple(hidden.values()),
        never_called=tuple(unused.values()),
    )


def _held(module: nn.Module, path: str = "") -> dict[str, nn.Module]:
    """The convolutions that a module is or holds, by path; a partial convolution counts as one."""
    if isinstance(module, (_ConvNd, PartialConv2d)):
        return {path: module}
    found: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        found |= _held(child, f"{path}.{name}" if path else name)
    return found


def _untouched(module: nn.Module) -> str:
    """Why no pass rewrites a convolution, empty where one may."""
    if not isinstance(module, _ConvNd):
        return ""
    hooks = [words for name, words in _HOOKS.items() if getattr(module, name)]
    if type(module) not in _PLAIN:
        base = next(kind.__name__ for kind in _PLAIN if isinstance(module, kind))
        return f"{type(module).__name__} is a subclass of {base} and may compute something else"
    return f"has {' and '.join(hooks)}" if hooks else altered(module)


def _weight_shape(node: fx.Node) -> tuple[int, ...] | None:
    weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    value = weight.meta.get("val") if isinstance(weight, fx.Node) else weight
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _leaves(value: Any, name: str) -> Iterator[Value]:
    """The tensors and plain values in a value, by their place in it."""
    value = value.meta.get("val") if isinstance(value, fx.Node) else value
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        yield Value(name=name, shape=tuple(value.shape), dtype=dtype, value=None)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}[{key!r}]")
    elif is_dataclass(value) or hasattr(value, "_fields"):
        for field in [f.name for f in fields(value)] if is_dataclass(value) else value._fields:
            yield from _leaves(getattr(value, field), f"{name}.{field}")
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield Value(name=name, shape=None, dtype=None, value=repr(value))


def print_captured(data: Captured, console: Console) -> None:
    """Print what was captured, a section for each kind of thing that a user should know of."""
    width = max(console.width, 40)
    nodes = f"{data.nodes} graph nodes, {data.mode} mode"
    print_lines(console, wrap(f"{data.model}: {nodes}", width), "bold")
    for title, values in (("input", data.inputs), ("output", data.outputs)):
        for value in values:
            print_lines(console, wrap(f"{title} {_described(value)}", width, 0, 4))
    convolutions = data.convolutions
    print_lines(console, wrap(_summary(convolutions), width, 0, 4))
    compared = data.compared
    sizes = f"the same as eager on {' and '.join(compared.sizes)}" if compared.sizes else ""
    print_lines(console, wrap(sizes or f"not compared with eager: {compared.reason}", width, 0, 4))
    for warning in data.warnings:
        print_lines(console, wrap(f"warning: {warning}", width, 0, 4), "yellow")
    sections = (
        ("not seen into", (f"{_place(part.path)}: {_hidden(part)}" for part in data.opaque)),
        ("never called", convolutions.never_called),
        ("left alone", (f"{part.path}: {part.reason}" for part in data.untouched)),
        ("called at several sites", (f"{part.path}: {part.calls} times" for part in data.shared)),
        ("no modules, and so not rewritten", _functional_lines(data.functional)),
        ("cannot be saved as a bundle", (one.reason for one in data.obstacles)),
        ("decided for this input size, an error at another", _guard_lines(data.guards)),
    )
    for title, lines in sections:
        _print_section(console, title, list(lines), width)


def _print_section(console: Console, title: str, lines: Sequence[str], width: int) -> None:
    if not lines:
        return
    console.print()
    print_lines(console, wrap(f"{title} ({len(lines)})", width), "bold")
    for line in lines:
        print_lines(console, wrap(line, width, 3, 7))


def _described(value: Value) -> str:
    if value.shape is None:
        return f"{value.name} = {value.value}"
    return " ".join(filter(None, (value.name, "x".join(map(str, value.shape)) or "scalar", value.dtype)))


def _summary(convolutions: Convolutions) -> str:
    parts = [f"{convolutions.seen} of {words.count(convolutions.total, 'convolution')} seen"]
    for paths, said in (
        (convolutions.in_opaque, "in parts not seen into"),
        (convolutions.never_called, "never called"),
    ):
        if paths:
            parts.append(f"{len(paths)} {said}")
    return ", ".join(parts)


def _hidden(part: OpaqueModule) -> str:
    holds = f" (holds {words.count(part.convolutions, 'convolution')})" if part.convolutions else ""
    return f"{part.cause}{holds}"


def _place(path: str) -> str:
    return path or "the network itself"


def _functional_lines(functional: Iterable[Functional]) -> list[str]:
    found = Counter((part.module, part.function, part.weight or ()) for part in functional)
    return [
        f"{_place(module)}: {'' if number == 1 else f'{number} × '}{function}"
        + (f", weights {'x'.join(map(str, weight))}" if weight else "")
        for (module, function, weight), number in found.items()
    ]


def _guard_lines(guards: Iterable[Guard]) -> list[str]:
    found = Counter((guard.module, guard.fixes, guard.line) for guard in guards)
    return [
        f"{_place(module)}: {fixes}{f' ({line})' if line else ''}{'' if n == 1 else f' ({n} times)'}"
        for (module, fixes, line), n in found.items()
    ]
