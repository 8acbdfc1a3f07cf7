"""Blocks that stand for a whole network where passes are timed that change many places alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from ..analysis.network import Network
from ..rewriting.layer_surgery import origin
from .subgraphs import Piece, Region, extract


@dataclass(frozen=True)
class Sample:
    """A block, and how many there are like it."""

    region: Region
    piece: Piece
    count: int


def samples(network: Network, places: Sequence[Iterable[str]]) -> list[Sample]:
    """For every list of layers that something changes, the blocks around them that hold most of the network's values.

    Nothing where one of them lies in no block that can be cut out of the network: it has to be judged as a whole.
    """
    found: dict[Region, Sample] = {}
    for paths in places:
        blocks = [_block(network, path) for path in dict.fromkeys(paths)]
        alike: dict[str, list[tuple[Region, Piece]]] = {}
        for block in dict.fromkeys(filter(None, blocks)):
            piece = extract(network.program, block)
            if piece is not None:
                alike.setdefault(piece.fingerprint, []).append((block, piece))
        if None in blocks or not alike:
            return []
        largest = max(alike.values(), key=lambda same: _values(same[0][1]) * len(same))
        region, piece = largest[0]
        found.setdefault(region, Sample(region, piece, len(largest)))
    return list(found.values())


def _block(network: Network, path: str) -> Region | None:
    """The smallest container of a layer that has a convolution and is entered and left in one place each."""
    while path := path.rpartition(".")[0]:
        inside = list(_inside(network.program.graph, path))
        if not any(_is_convolution(network, node) for node in inside):
            continue
        known = set(inside)
        read = {source for node in inside for source in node.all_input_nodes if _is_image(source)} - known
        left = [node for node in inside if set(node.users) - known]
        if len(read) == len(left) == 1 and _is_image(left[0]):
            (start,), (end,) = read, left
            names = origin(start), origin(end)
            return Region(str(names[0]), str(names[1])) if all(names) else None
    return None


def _inside(graph: fx.Graph, path: str) -> Iterator[fx.Node]:
    for node in graph.nodes:
        entered = [place for place, _ in (node.meta.get("nn_module_stack") or {}).values()]
        if path in entered or (node.op == "call_module" and f"{node.target}.".startswith(f"{path}.")):
            yield node


def _is_convolution(network: Network, node: fx.Node) -> bool:
    return node.op == "call_module" and str(node.target) in network.layers


def _is_image(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.op != "get_attr" and isinstance(value, Tensor) and value.dim() == 4


def _values(piece: Piece) -> int:
    """How many values its operations give: what memory has to move."""
    values = (node.meta.get("val") for node in piece.program.graph.nodes)
    return sum(value.numel() for value in values if isinstance(value, Tensor))
