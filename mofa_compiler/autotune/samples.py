"""Blocks that stand for a whole network where passes are timed that change many places alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor, fx

from ..analysis.network import Network
from ..rewriting import is_image
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
    inside = _by_container(network.program.graph)
    for paths in places:
        blocks = [_block(network, path, inside) for path in dict.fromkeys(paths)]
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


def _block(network: Network, path: str, inside: Mapping[str, Sequence[fx.Node]]) -> Region | None:
    """The smallest container of a layer that has a convolution and is entered and left in one place each."""
    while path := path.rpartition(".")[0]:
        nodes = inside.get(path, ())
        if not any(node.op == "call_module" and str(node.target) in network.layers for node in nodes):
            continue
        known = set(nodes)
        read = {source for node in nodes for source in node.all_input_nodes if _is_computed(source)} - known
        left = [node for node in nodes if set(node.users) - known]
        if len(read) == len(left) == 1 and _is_computed(left[0]):
            (start,), (end,) = read, left
            names = origin(start), origin(end)
            return Region(str(names[0]), str(names[1])) if all(names) else None
    return None


def _by_container(graph: fx.Graph) -> Mapping[str, Sequence[fx.Node]]:
    """What is computed inside of each container."""
    found: dict[str, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        containers = {path for path, _ in (node.meta.get("nn_module_stack") or {}).values()}
        if node.op == "call_module":
            containers |= {*accumulate(str(node.target).split("."), "{}.{}".format)}
        for path in containers:
            found[path].append(node)
    return found


def _is_computed(node: fx.Node) -> bool:
    return node.op != "get_attr" and is_image(node)


def _values(piece: Piece) -> int:
    """How many values its operations give: what memory has to move."""
    values = (node.meta.get("val") for node in piece.program.graph.nodes)
    return sum(value.numel() for value in values if isinstance(value, Tensor))
