"""ExecuTorch with XNNPACK: what ships to phones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from ..base.precision import Precision
from ..graph.call_spec import in_standard_layout
from .arithmetic import plain_divisions
from .base import Format, Runner, Source, Use, Written, module_path, operator_calls, operator_name
from .quantizing import quantized_program

XNNPACK, PORTABLE = "xnnpack", "portable"


class ExecuTorch(Format):
    """A `.pte`: what XNNPACK takes is delegated to it, ExecuTorch's portable kernels run the rest."""

    name: ClassVar[str] = "executorch"
    title: ClassVar[str] = "ExecuTorch"
    suffixes: ClassVar[tuple[str, ...]] = (".pte",)
    extra: ClassVar[str | None] = "executorch"
    packages: ClassVar[tuple[str, ...]] = ("executorch",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
    bounded: ClassVar[bool] = True
    merges: ClassVar[bool] = True

    def write(self, source: Source, file: Path) -> Written:
        assert source.program is not None
        plain_divisions(source.program)
        program = source.program
        if source.quantization is not None:
            program = quantized_program(program, source.quantization)
        edge = lowered(program)
        uses = delegated_uses(edge.exported_program().graph_module)
        file.write_bytes(edge.to_executorch().buffer)
        return Written(uses)

    def open(self, file: Path) -> Runner:
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(file.read_bytes())
        method = program.load_method("forward")

        def run(inputs: Sequence[Tensor], _alive: object = program) -> list[Tensor]:
            # The program has to live as long as its method does: hence the reference to it.
            outputs = method.execute([in_standard_layout(x) for x in inputs])
            return [value.clone() for value in outputs if isinstance(value, Tensor)]

        return run


def lowered(program: ExportedProgram, **options: Any) -> Any:
    """A traced network, what XNNPACK takes delegated to it, as ExecuTorch's edge program."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], **options)


def delegated_uses(module: fx.GraphModule) -> list[Use]:
    """Every operator of a lowered graph, with what runs it."""
    uses = []
    for node in module.graph.nodes:
        if node.op == "get_attr" and hasattr(lowered := getattr(module, node.target), "original_module"):
            inner = lowered.original_module.graph_module.graph
            uses += [Use(operator_name(call), module_path(call), XNNPACK) for call in operator_calls(inner)]
    for node in operator_calls(module.graph):
        if node.target is not torch.ops.higher_order.executorch_call_delegate:
            uses.append(Use(operator_name(node), module_path(node), PORTABLE))
    return uses
