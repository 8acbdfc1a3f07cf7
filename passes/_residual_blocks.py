"""Residual blocks: sums of a value and of what is made from it alone, at the same size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, fx, nn

from mofa_compiler.analysis.layers import kind_of
from mofa_compiler.analysis.network import Network
from mofa_compiler.analysis.nodes import GUARDS, altered, function_name, path_of
from mofa_compiler.rewriting import Skip, is_image

_ADDING = frozenset(["add", "iadd"])


@dataclass(frozen=True, eq=False)
class Block:
    """x + f(x).

    Attributes:
        sum: the node that adds.
        stream: the summand that is x.
        branch: the summand that is f(x).
        nodes: what f is made of, in execution order.
    """

    sum: fx.Node
    stream: fx.Node
    branch: fx.Node
    nodes: tuple[fx.Node, ...]

    @property
    def path(self) -> str:
        return path_of_sum(self.sum)


def path_of_sum(node: fx.Node) -> str:
    """A container may have several: the name of the sum, below the path that it is made at."""
    owner = path_of(node)
    return f"{owner}.{node.name}" if owner else node.name


def residual_blocks(network: Network) -> Iterator[tuple[fx.Node, Block | Skip]]:
    """Every sum of two values of which layers have made one, in execution order, with its block, or why it is none."""
    graph, modules = network.program.graph, network.program.modules
    order = {node: index for index, node in enumerate(graph.nodes)}
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    ends = network.anatomy.input_paths | network.anatomy.output_paths
    for node in graph.nodes:
        if function_name(node) not in _ADDING or node.op not in ("call_function", "call_method") or node.kwargs:
            continue
        if len(node.args) != 2 or not all(isinstance(one, fx.Node) and is_image(one) for one in node.args):
            continue
        if any(one.op == "get_attr" for one in node.all_input_nodes):
            continue
        found = _block(node, modules, order)
        yield node, found if isinstance(found, Skip) else _allowed(found, modules, calls, ends) or found


def _block(node: fx.Node, modules: Mapping[str, nn.Module], order: Mapping[fx.Node, int]) -> Block | Skip:
    summands = [one for one in node.args if isinstance(one, fx.Node)]
    stream, branch = sorted(summands, key=lambda one: order[_source(one, modules)])
    source, wanted = _source(stream, modules), node.meta["val"].shape
    nodes, pending = set[fx.Node](), [branch, stream]
    while pending:
        one = pending.pop()
        if one is source or one in nodes or one.op == "get_attr":
            continue
        if order[one] < order[source] or one.op == "placeholder":
            why = "neither of its summands is what the other is made of alone: another stride or width, or a skip"
            return Skip("between", why)
        nodes.add(one)
        pending += one.all_input_nodes
    if stream.meta["val"].shape != wanted or branch.meta["val"].shape != wanted:
        return Skip("resolution", "its summands have different shapes")
    inside = {one for one in nodes if one not in (stream, source)}
    return Block(node, stream, branch, tuple(sorted(inside, key=order.__getitem__)))


def _source(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node:
    """The value itself, where a node passes it on unchanged."""
    while kind_of(node, modules) == "identity" and isinstance(source := node.args[0], fx.Node):
        node = source
    return node


def _allowed(
    block: Block, modules: Mapping[str, nn.Module], calls: Mapping[str, int], ends: frozenset[str] | set[str]
) -> Skip | None:
    """Why a block has to stay."""
    inside, size = {*block.nodes}, block.sum.meta["val"].shape[2:]
    paths = [str(node.target) for node in block.nodes if node.op == "call_module"]
    if not any(True for path in paths for _ in modules[path].parameters()):
        return Skip("no-convolution", "no layer with weights makes what is added")
    if end := next((path for path in paths if path in ends), None):
        return Skip("input", f"{end} is the network's input or output convolution")
    if many := next((path for path in paths if calls[path] > 1), None):
        return Skip("called-twice", f"{many} is called at {calls[many]} places")
    if held := next((path for path in paths if altered(modules[path])), None):
        return Skip("altered", f"{held} {altered(modules[held])}")
    for node in block.nodes:
        value = node.meta.get("val")
        pixels = value.shape[2:] if isinstance(value, Tensor) and value.dim() == 4 else size
        if pixels != size and pixels.numel() != 1:
            return Skip("resolution", f"{node.name} has another resolution than what it is added to")
        if any(user not in inside and user is not block.sum and user.target not in GUARDS for user in node.users):
            return Skip("read-elsewhere", f"something else reads {node.name}, too")
    return None
