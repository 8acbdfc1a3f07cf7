"""PT2: what torch.export traced, as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..base.precision import Precision
from ..graph.call_spec import tensor_leaves
from .base import Format, Runner, Source, Use, Written, module_path, operator_calls, operator_name


class Pt2(Format):
    """Read by `torch.export.load`, AOTInductor and whatever else starts from PyTorch's own exported form."""

    name: ClassVar[str] = "pt2"
    title: ClassVar[str] = "PT2"
    suffixes: ClassVar[tuple[str, ...]] = (".pt2",)
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16", "bf16")

    def write(self, source: Source, file: Path) -> Written:
        assert source.program is not None
        torch.export.save(source.program, file)
        calls = operator_calls(source.program.graph)
        return Written([Use(operator_name(node), module_path(node)) for node in calls])

    def open(self, file: Path) -> Runner:
        program = torch.export.load(file)
        module, spec = program.module(), program.call_spec.in_spec
        args, kwargs = program.example_inputs or ((), {})
        example = pytree.tree_leaves((args, kwargs))

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            given = iter(inputs)
            leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in example]
            args, kwargs = pytree.tree_unflatten(leaves, spec)
            with torch.no_grad():
                return list(tensor_leaves(module(*args, **kwargs)))

        return run
