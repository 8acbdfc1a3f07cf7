"""Let the parts of a split be born apart.

A split copies, or at best makes engines read with a stride, what one convolution wrote together. Where the parts are
read apart (SimpleGate, GLU, queries and keys), as many smaller convolutions write them apart in the first place.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import fx, nn

from mofa_compiler import weights
from mofa_compiler.analysis.layers import kind_of, readers
from mofa_compiler.analysis.nodes import GUARDS, function_name, is_plain, path_of
from mofa_compiler.rewriting import FROZEN, Fate, GraphLowering, Rewiring, Skip, is_image


@dataclass(frozen=True, config=FROZEN)
class LowerGates(GraphLowering):
    """Cut a convolution whose output is split into one convolution a part.

    Covers `chunk`, `split`, `tensor_split`, slices of channels and GLU, directly behind a convolution or with depthwise
    convolutions and activations in between, which are cut as well.
    """

    name: ClassVar[str] = "lower-gates"
    after: ClassVar[tuple[str, ...]] = ("merge-linear",)

    def rewire(self, wiring: Rewiring) -> None:
        for value in wiring.nodes:
            if value._erased or not is_image(value) or not (ends := _ends(wiring, value)):
                continue
            chain = _chain(wiring, value)
            if not self.looks_at(chain.path):
                continue
            if why := chain.why or _overlap(ends):
                wiring.refuse(chain.path, chain.text, why)
            else:
                _cut(wiring, chain.nodes, ends)


@plain_dataclass(frozen=True)
class _End:
    """A node that reads the channels from `start` to `stop`, or where it `gates`, as many before them, too."""

    node: fx.Node
    start: int
    stop: int
    gates: bool = False


@plain_dataclass(frozen=True)
class _Chain:
    """The convolution that makes a value, and what comes behind it, channel by channel; or why there is none."""

    path: str
    text: str
    nodes: tuple[fx.Node, ...] = ()
    why: Skip | None = None


def _cut(wiring: Rewiring, chain: Sequence[fx.Node], ends: Sequence[_End]) -> None:
    source = chain[0].args[0]
    assert isinstance(source, fx.Node)
    old = wiring.piece(source, *(end.node for end in ends))
    parts = _parts(ends)
    values = [source for _ in parts]
    cut: dict[str, str] = {}
    for node in chain:
        conv, path = wiring.module(node), str(node.target)
        with wiring.at(node):
            if isinstance(conv, nn.Conv2d):
                cut[path] = wiring.describe(path)
                exact = wiring.exactly(path)
                paths = wiring.spread(path, [weights.only_outputs(exact, *part) for part in parts])
                values = [wiring.call(part, value) for part, value in zip(paths, values, strict=True)]
            else:
                values = [wiring.again(node, value) for value in values]
    born = dict(zip(parts, values, strict=True))
    new = [_end(wiring, end, born) for end in ends]
    for split in {end.node.args[0] for end in ends}:
        assert isinstance(split, fx.Node)  # how many parts it gives is settled now
        wiring.erase(*(user for user in split.users if user.target in GUARDS))
    for end, value in zip(ends, new, strict=True):
        wiring.substitute(end.node, value)
    error = wiring.check(next(iter(cut)), old, wiring.piece(source, *new), source.meta["val"].shape[1])
    for path, before in cut.items():
        wiring.release(path)
        after = " + ".join(wiring.describe(f"{path}.{index}") for index in range(len(parts)))
        wiring.tell(path, before, after, Fate.EXACT, error=error)


def _end(wiring: Rewiring, end: _End, born: Mapping[tuple[int, int], fx.Node]) -> fx.Node:
    """What stands where a part was read."""
    value = born[end.start, end.stop]
    if not end.gates:
        return value
    with wiring.at(end.node):
        gate = wiring.call(torch.sigmoid, value)
        return wiring.call(operator.mul, born[0, end.start], gate)


def _parts(ends: Sequence[_End]) -> list[tuple[int, int]]:
    """Where the parts lie, in order, each once."""
    gated = [(0, end.start) for end in ends if end.gates]
    return sorted({*gated, *((end.start, end.stop) for end in ends)})


def _overlap(ends: Sequence[_End]) -> Skip | None:
    parts = _parts(ends)
    if any(stop > start for (_, stop), (start, _) in itertools.pairwise(parts)):
        return Skip("overlap", "its output is read in parts that overlap")
    return None


def _chain(wiring: Rewiring, value: fx.Node) -> _Chain:
    """What leads to a value, back to the convolution that makes its channels."""
    text = f"split of {value.meta['val'].shape[1]} channels"
    nodes: list[fx.Node] = []
    node: Any = value
    while True:
        module = wiring.module(node)
        if not isinstance(module, nn.Conv2d):
            kind = kind_of(node, wiring.modules) if isinstance(node, fx.Node) else "other"
            if kind not in ("activation", "identity") or len(node.all_input_nodes) != 1 or _has_weights(module):
                why = Skip("no-convolution", "what it splits is not made by a convolution")
                return _Chain(path_of(value), text, why=why)
        nodes.insert(0, node)
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            break
        node = node.args[0]
    path = str(nodes[0].target)
    text = wiring.describe(path)
    for node in nodes:
        behind = nodes[nodes.index(node) + 1 :]
        module = wiring.module(node)
        if behind and list(node.users) != behind[:1]:
            why = Skip("read-elsewhere", "what is split is read by something else, too, before it is split")
            return _Chain(path, text, why=why)
        if len(node.users) != len(readers(node)):
            return _Chain(path, text, why=Skip("size-asked", "the size of what is split is asked for"))
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels == module.out_channels
            if type(module) is not nn.Conv2d or not (depthwise or module.groups == 1):
                reason = f"{node.target} is neither a dense nor a depthwise convolution"
                return _Chain(path, text, why=Skip("grouped", reason))
            if fixed := wiring.fixed(str(node.target)):
                return _Chain(path, text, why=fixed)
    if wiring.overwritten(nodes[0].args[0]):  # type: ignore[arg-type]
        return _Chain(path, text, why=Skip("overwritten", "what it reads is changed in place"))
    return _Chain(path, text, tuple(nodes))


def _has_weights(module: nn.Module | None) -> bool:
    return module is not None and any(True for _ in module.parameters())


# What reads channels apart


def _ends(wiring: Rewiring, value: fx.Node) -> tuple[_End, ...]:
    """The nodes that read parts of a value; none where something else reads it, or where it is not split."""
    users = readers(value)
    if len(users) == 1 and (ends := (*_pieces(users[0]), *_halves(wiring, users[0]))):
        return ends
    slices = [end for user in users if (end := _slice(user))]
    return tuple(slices) if len(slices) == len(users) else ()


def _pieces(node: fx.Node) -> Iterator[_End]:
    """The parts of a chunk or split of the channels, as far as something reads them."""
    if function_name(node) not in ("chunk", "split", "tensor_split", "unsafe_chunk", "unsafe_split"):
        return
    picks = [user for user in node.users if user.target is operator.getitem and isinstance(user.args[1], int)]
    guards = [user for user in node.users if user.target in GUARDS]
    if _dimension(node, 2) != 1 or len(picks) + len(guards) != len(node.users):
        return
    sizes = [part.shape[1] for part in node.meta["val"]]
    ends = list(itertools.accumulate(sizes))
    for pick in picks:
        index = pick.args[1]
        assert isinstance(index, int)
        yield _End(pick, ends[index] - sizes[index], ends[index])


def _halves(wiring: Rewiring, node: fx.Node) -> Iterator[_End]:
    module = wiring.module(node)
    if is_plain(module, nn.GLU):
        dim: Any = module.dim
    elif node.target is F.glu:
        dim = _dimension(node, 1, -1)
    else:
        return
    if dim % 4 == 1:
        channels = node.meta["val"].shape[1]
        yield _End(node, channels, 2 * channels, gates=True)


def _slice(node: fx.Node) -> _End | None:
    """A node such as `x[:, a:b]`."""
    if node.target is not operator.getitem or not is_image(node) or not isinstance(node.args[1], tuple):
        return None
    source, index = node.args
    assert isinstance(source, fx.Node) and isinstance(index, tuple)
    whole, channels = slice(None), index[1] if len(index) > 1 else None
    if index[0] != whole or not isinstance(channels, slice) or any(other not in (whole, ...) for other in index[2:]):
        return None
    bounds = fx.map_arg((channels.start, channels.stop, channels.step), lambda value: value.meta["val"])
    width = source.meta["val"].shape[1]
    start, stop, step = slice(*bounds).indices(width)
    return _End(node, start, stop) if step == 1 and 0 < stop - start < width else None


def _dimension(node: fx.Node, position: int, default: int = 0) -> int | None:
    """The dimension that a function of (N, C, H, W) works on."""
    dim = node.kwargs.get("dim", node.args[position] if len(node.args) > position else default)
    if isinstance(dim, fx.Node):
        dim = dim.meta["val"]
    return dim % 4 if isinstance(dim, int) else None
