"""Networks as ExecuTorch programs that are timed and shipped to nobody: lowered in haste, many small ones at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import networkx as nx
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from executorch.exir.program import EdgeProgramManager
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import ExportGraphSignature, InputKind
from torch.fx.passes.infra.partitioner import Partition
from torch.utils import _pytree as pytree

from ...formats.base import Quantization
from ...formats.quantizing import quantized_program
from ...formats.torch_export import returned_by_each, trace_together


def to_executorch_each(
    modules: Sequence[nn.Module], inputs: Sequence[Sequence[Tensor]], quantized: bool = False
) -> list[bytes]:
    """Each of these networks as ExecuTorch's program, what XNNPACK takes delegated to it.

    Lowering costs a second or two for every program and little for every operation more: they are lowered as one, with
    no delegate across two of them, which is then taken apart. `quantized`: by the values of these inputs.
    """
    program = trace_together(modules, inputs)
    counts = zip(map(len, inputs), returned_by_each(program), strict=True)
    if quantized:
        program = quantized_program(program, Quantization([[tuple(given) for given in inputs]]))
    lowered = lowered_in_haste(program, _Apart).exported_program()
    return [bytes(EdgeProgramManager({"forward": one}).to_executorch().buffer) for one in _each(lowered, counts)]


class Hasty(XnnpackPartitioner):  # type: ignore[misc]
    """XNNPACK's choice of what it takes, without what only debuggers read.

    Every pass of ExecuTorch copies the whole history of every node, and there are some twenty passes for each delegate.
    """

    def generate_partitions(self, program: ExportedProgram) -> list[Partition]:
        found: list[Partition] = super().generate_partitions(program)
        _forget_history(program)
        return found


def lowered_in_haste(program: ExportedProgram, partitioner: type[Hasty] = Hasty) -> EdgeProgramManager:
    """A traced network, what XNNPACK takes delegated to it, without the checks of what is shipped."""
    _forget_history(program)
    unchecked = EdgeCompileConfig(_check_ir_validity=False)
    return to_edge_transform_and_lower(program, partitioner=[partitioner()], compile_config=unchecked)


def _forget_history(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        node.meta.pop("from_node", None)


class _Apart(Hasty):
    """XNNPACK's choice of what it takes, no delegate across networks that have nothing to do with one another."""

    def generate_partitions(self, program: ExportedProgram) -> list[Partition]:
        part = _parts(program)
        pieces: list[dict[fx.Node, None]] = []
        for partition in super().generate_partitions(program):
            found: dict[int, dict[fx.Node, None]] = {}
            for node in partition.nodes:
                for index in {part[node]} if node in part else {part[user] for user in node.users}:
                    found.setdefault(index, {})[node] = None
            pieces += found.values()
        return [Partition(id=index, nodes=piece) for index, piece in enumerate(pieces)]


def _parts(program: ExportedProgram) -> dict[fx.Node, int]:
    """The number of the network that each node is part of; weights and constants, which several may share, are not."""
    constant = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is not InputKind.USER_INPUT}
    nodes = [
        node for node in program.graph.nodes if node.name not in constant and node.op not in ("get_attr", "output")
    ]
    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from((node, user) for node in nodes for user in node.users if user.op != "output")
    return {node: index for index, part in enumerate(nx.connected_components(graph)) for node in part}


def _each(whole: ExportedProgram, counts: Iterable[tuple[int, int]]) -> Iterator[ExportedProgram]:
    """A program for each of the networks in one, of which each takes and gives so many of the inputs and outputs."""
    signature = whole.graph_signature
    outputs = zip(whole.graph.output_node().args[0], signature.output_specs, strict=True)
    inputs = {spec.arg.name: spec for spec in signature.input_specs}
    names = set(signature.user_inputs)
    given = iter([node for node in whole.graph.nodes if node.name in names])
    for takes, gives in counts:
        results, specs = zip(*islice(outputs, gives), strict=True)
        root, graph = _cut(whole, [*islice(given, takes)], results)
        taken = [inputs[node.name] for node in graph.nodes if node.op == "placeholder"]
        called = ModuleCallSignature(
            [], [], pytree.tree_structure(((0,) * takes, {})), pytree.tree_structure((0,) * gives)
        )
        yield ExportedProgram(
            root,
            graph,
            ExportGraphSignature(taken, list(specs)),
            whole.state_dict,
            whole.range_constraints,
            [ModuleCallEntry("", called)],
            constants=whole.constants,
            verifiers=whole.verifiers,
        )


def _cut(
    whole: ExportedProgram, given: Sequence[fx.Node], results: Sequence[fx.Node]
) -> tuple[fx.GraphModule, fx.Graph]:
    """What the results depend on, as a module that takes what is given, also where nothing reads it."""
    needed, waiting = set[fx.Node](), [*given, *results]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    root, graph, new = nn.Module(), fx.Graph(), dict[fx.Node, fx.Node]()
    for node in whole.graph.nodes:
        if node in needed:
            new[node] = graph.node_copy(node, lambda other: new[other])
            if node.op == "get_attr":
                setattr(root, str(node.target), getattr(whole.graph_module, str(node.target)))
    output = graph.output(tuple(new[node] for node in results))
    output.meta = dict(whole.graph.output_node().meta)
    return fx.GraphModule(root, graph), graph
