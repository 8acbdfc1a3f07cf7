"""The body of a `forward` method from a region of the graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..base.spelling import is_plain
from . import naming
from .literals import (
    ATOM,
    COMPARISON,
    IN_PLACE,
    INFIX,
    POWER,
    PREFIX,
    UNARY,
    function_source,
    index,
    literal,
    spelled_out,
)
from .regions import Item, Region, inputs_of, operands

_LARGEST_EXPRESSION = 5
"""Operators in one line"""

_LENGTH_DEPENDS_ON_SIZE = {"split", "unbind", "tensor_split", "unsafe_split", "nonzero"}

Reach = Callable[[str], str]
"""A dotted path to the source of it: `blocks.0.conv` to `self.blocks[0].conv`"""

FunctionName = Callable[[Callable[..., Any]], str]
"""A function that is not torch's to the name that it has in `model.py`"""


@dataclass
class _Line:
    """One statement: an item whose value is bound to `targets` (None for one that is not used)."""

    item: Item
    targets: list[fx.Node | None]
    reads: list[fx.Node]


class Body:
    """Source of one region's `forward`: `parameters`, `lines` and the annotation of what it returns."""

    def __init__(
        self,
        region: Region,
        parameters: list[str],
        reach: Reach,
        function_name: FunctionName,
        reserved: Collection[str] = (),
    ):
        self.region, self.reach, self.function_name = region, reach, function_name
        self.parameters, self.reserved = parameters, reserved
        self.names: dict[fx.Node, str] = dict(zip(region.inputs, parameters, strict=True))
        self.inlined: dict[fx.Node, int] = {}  # nodes that stand in another's expression: how many operators they are
        self.result = region.output if region.output is not None else _tuple_of(region.outputs)
        self._own = {item for item in region.items if isinstance(item, fx.Node)}
        self._count_uses()
        self.lines = self._render(self._plan())

    @property
    def annotations(self) -> tuple[list[str], str]:
        """Types of the parameters and of the result, empty where they are not worth writing."""
        return [_annotation(node) for node in self.region.inputs], _annotation(self.result) if self.lines else "None"

    # What becomes a line, and what stands inside another line's expression

    def _count_uses(self) -> None:
        self.uses: dict[fx.Node, int] = {}
        self.readers: dict[fx.Node, list[Item | None]] = {}
        for reader, values in (*((item, inputs_of(item)) for item in self.region.items), (None, operands(self.result))):
            for value in values:
                self.uses[value] = self.uses.get(value, 0) + 1
                self.readers.setdefault(value, []).append(reader)

    def _plan(self) -> list[_Line]:
        lines: list[_Line] = []
        waiting: list[fx.Node] = []  # inlinable, in order of execution; they must be evaluated in this order
        unpacked: set[fx.Node] = set()

        def put(item: Item, targets: list[fx.Node | None]) -> None:
            lines.append(_Line(item, targets, list(self._reads(item))))

        def flush(count: int) -> None:
            for node in waiting[:count]:
                self.inlined.pop(node)
                put(node, [node])
            del waiting[:count]

        for item in self.region.items:
            if item in unpacked:
                continue
            parts = self._unpacking(item)
            unpacked.update(part for part in parts if part)
            taken = [value for value in inputs_of(item) if value in waiting]
            fits = taken == waiting[len(waiting) - len(taken) :] and self._size(item) <= _LARGEST_EXPRESSION
            if not fits:
                flush(len(waiting))
                taken = []
            if isinstance(item, fx.Node) and not parts and self._is_inlinable(item):
                del waiting[len(waiting) - len(taken) :]
                self.inlined[item] = self._size(item)
                if not (_is_integer(item) and item.target in INFIX and not taken):
                    waiting.append(item)  # arithmetic on whole numbers may wait as long as it likes
                continue
            flush(len(waiting) - len(taken))
            waiting.clear()
            outputs = item.outputs if isinstance(item, Region) else [item]
            put(item, list(parts or (node if self.uses.get(node) else None for node in outputs)))
        last = operands(self.result)
        taken = [value for value in last if value in waiting]
        flush(len(waiting) - len(taken) if taken == waiting[len(waiting) - len(taken) :] else len(waiting))
        return lines

    def _size(self, item: Item) -> int:
        return 1 + sum(self.inlined.get(value, 0) for value in inputs_of(item))

    def _is_inlinable(self, node: fx.Node) -> bool:
        if self.uses.get(node) != 1:
            return False
        (reader,) = self.readers[node]
        if reader is None and len(operands(self.result)) == 1:
            return True
        simple = node.target in INFIX or node.target in PREFIX or node.target in (getattr, operator.getitem)
        simple = simple or (node.op == "call_method" and node.target in ("size", "dim"))
        picked = isinstance(reader, fx.Node) and reader.target is operator.getitem and reader.args[0] is node
        return simple or (picked and isinstance(node.meta.get("val"), (tuple, list)))

    def _unpacking(self, item: Item) -> list[fx.Node | None]:
        """The elements of a tuple that is taken apart at once (`a, b = x.chunk(2)`), None for an unused one."""
        if not isinstance(item, fx.Node) or item in operands(self.result):
            return []
        value = item.meta.get("val")
        name = getattr(item.target, "__name__", item.target)
        if not isinstance(value, (tuple, list)) or not 2 <= len(value) <= 8 or name in _LENGTH_DEPENDS_ON_SIZE:
            return []
        picks = [u for u in item.users if u.target is operator.getitem and u.args[0] is item and type(u.args[1]) is int]
        live = [pick for pick in picks if pick in self._own]
        whole = {int(str(pick.args[1])) for pick in picks} == set(range(len(value))) and len(picks) == len(value)
        if not whole or len(live) < 2 or self.uses.get(item) != len(live):
            return []
        elements: list[fx.Node | None] = [None] * len(value)
        for pick in live:
            elements[int(str(pick.args[1]))] = pick
        return elements

    def _reads(self, item: Item) -> Iterable[fx.Node]:
        for value in inputs_of(item):
            if value in self.inlined:
                yield from self._reads(value)
            else:
                yield value

    # Names

    def _render(self, plan: list[_Line]) -> list[str]:
        last_use: dict[fx.Node, int] = {}
        for position, line in enumerate(plan):
            last_use.update(dict.fromkeys(line.reads, position))
        for value in operands(self.result):
            reads = self._reads(value) if value in self.inlined else [value]
            last_use.update(dict.fromkeys(reads, len(plan)))
        held = {name: last_use.get(node, -1) for node, name in self.names.items()}
        source: list[str] = []
        for position, line in enumerate(plan):
            text, _ = self._item(line.item)
            free = {name for name, last in held.items() if last <= position}
            for target in line.targets:
                if target is not None:
                    name = self._choose(target, line, last_use[target] - position, held, free)
                    self.names[target] = name
                    free.discard(name)
                    held[name] = last_use[target]
            names = ", ".join("_" if target is None else self.names[target] for target in line.targets)
            if line is plan[-1] and line.targets == [self.result]:
                return [*source, f"return {text}"]
            source.append(f"{names} = {text}" if any(line.targets) else text)
        if operands(self.result) or self.region.output is not None:
            source.append(f"return {self._result()}")
        return source

    def _choose(self, node: fx.Node, line: _Line, life: int, held: dict[str, int], free: set[str]) -> str:
        """A passing result takes over the name of what it was made from; one that stays gets a name of its own."""
        taken = {*held, *self.reserved}
        if _is_integer(node):
            return naming.identifier(_size_name(node) or "n", taken)
        if len(line.targets) > 1:
            number = 1
            while f"x{number}" in held and f"x{number}" not in free:
                number += 1
            return f"x{number}"
        own = self._own_name(line.item)
        if life > 2 and own:
            return naming.identifier(own, taken)
        dying = [name for value in line.reads if (name := self.names.get(value, "")) in free and name in naming.POOL]
        unheld = [name for name in naming.POOL if name in free or name not in taken]
        return next(iter((*dying, *unheld)), "") or naming.identifier("t", taken)

    def _own_name(self, item: Item) -> str:
        if isinstance(item, Region) or item.op == "call_module":
            path = item.path if isinstance(item, Region) else str(item.target)
            parts = path.split(".")
            named = next((i for i in range(len(parts) - 1, -1, -1) if not parts[i].isdecimal()), 0)
            return "_".join(parts[named:])
        if item.op == "call_method":
            return str(item.target).rstrip("_")
        function = item.target
        assert callable(function)
        known = function not in INFIX and function not in PREFIX and function is not operator.getitem
        return str(getattr(function, "__name__", "")) if known and function_source(function) else ""

    # Source

    def _result(self) -> str:
        if isinstance(self.result, tuple) and len(self.result) > 1 and type(self.result) is tuple:
            return ", ".join(literal(value, self._value) for value in self.result)
        return literal(self.result, self._value)

    def _value(self, node: fx.Node, binding: int = 0) -> str:
        """Source of a value; in parentheses where an operator of strength `binding` stands next to it."""
        if node in self.inlined:
            text, own = self._item(node)
            return f"({text})" if own < binding else text
        if node.op == "get_attr" and node not in self.names:
            return "self.training" if node.target == "training" else self.reach(str(node.target))
        return self.names[node]

    def _item(self, item: Item) -> tuple[str, int]:
        if isinstance(item, Region):
            return f"{self.reach(item.path)}({', '.join(map(self._value, item.inputs))})", ATOM
        if item.op == "call_module":
            return f"{self.reach(str(item.target))}({self._arguments(item.args, item.kwargs)})", ATOM
        if item.op == "call_method":
            rest = self._arguments(item.args[1:], item.kwargs)
            return f"{self._operand(item.args[0], ATOM)}.{item.target}({rest})", ATOM
        return self._function(item)

    def _function(self, node: fx.Node) -> tuple[str, int]:
        function, args = node.target, node.args
        assert callable(function)
        if function in IN_PLACE and not node.kwargs:
            plain, method = IN_PLACE[function]
            if isinstance(args[0], fx.Node) and isinstance(args[0].meta.get("val"), Tensor):
                return f"{self._operand(args[0], ATOM)}.{method}({self._operand(args[1], 0)})", ATOM
            function = plain
        if function in INFIX:
            return self._infix(*INFIX[function], args)
        if function in PREFIX:
            return f"{PREFIX[function]}{self._operand(args[0], UNARY)}", UNARY
        if function is operator.getitem:
            return f"{self._operand(args[0], ATOM)}[{index(args[1], self._value)}]", ATOM
        if function is operator.setitem:
            place = f"{self._operand(args[0], ATOM)}[{index(args[1], self._value)}]"
            return f"{place} = {self._operand(args[2], 0)}", 0
        if function is getattr and len(args) == 2 and is_plain(str(args[1])):
            return f"{self._operand(args[0], ATOM)}.{args[1]}", ATOM
        if function is operator.not_:
            return f"not {self._operand(args[0], COMPARISON)}", 4
        name = function_source(abs if function is operator.abs else function) or self.function_name(function)
        return f"{name}({self._arguments(args, spelled_out(function, dict(node.kwargs)))})", ATOM

    def _infix(self, sign: str, binding: int, args: tuple[Any, ...]) -> tuple[str, int]:
        # The left operand may bind as tightly as the operator, the right one must bind tighter; ** is the other way
        # round, and comparisons chain, so both sides of one are held tight.
        left = binding + (sign == "**" or binding == COMPARISON)
        right = binding + (sign != "**")
        return f"{self._operand(args[0], left)} {sign} {self._operand(args[1], right)}", binding

    def _operand(self, value: Any, binding: int) -> str:
        if isinstance(value, fx.Node):
            return self._value(value, binding)
        text = literal(value, self._value)
        negative = isinstance(value, (int, float, complex)) and text.startswith("-")
        number_with_dot = binding == ATOM and isinstance(value, (int, float))
        return f"({text})" if (negative and binding >= POWER) or number_with_dot else text

    def _arguments(self, args: Iterable[Any], kwargs: dict[str, Any]) -> str:
        given = [literal(value, self._value) for value in args]
        return ", ".join(given + [f"{key}={literal(value, self._value)}" for key, value in kwargs.items()])


def _tuple_of(nodes: list[fx.Node]) -> Any:
    return nodes[0] if len(nodes) == 1 else tuple(nodes)


def _is_integer(node: fx.Node) -> bool:
    return type(node.meta.get("val")) is int


def _size_name(node: fx.Node) -> str | None:
    """`height` for element 2 of the shape of a 4-dimensional tensor, and for what is computed from such alone."""
    if node.target in INFIX:
        names = {_size_name(value) for value in operands(node.args)}
        return names.pop() if len(names) == 1 else None
    if node.target not in (operator.getitem, "size") or len(node.args) < 2 or not isinstance(node.args[0], fx.Node):
        return None
    of, which = node.args[0].meta.get("val"), node.args[1]
    rank = len(of) if isinstance(of, torch.Size) else of.dim() if isinstance(of, Tensor) else 0
    return naming.SIZES[which] if rank == 4 and isinstance(which, int) and -4 <= which < 4 else None


def _annotation(value: Any) -> str:
    if isinstance(value, fx.Node):
        value = value.meta.get("val")
    if isinstance(value, Tensor):
        return "Tensor"
    if isinstance(value, (bool, int, float)):
        return type(value).__name__
    if type(value) is tuple and value:
        inner = [_annotation(item) for item in value]
        return f"tuple[{', '.join(inner)}]" if all(inner) else ""
    return ""
