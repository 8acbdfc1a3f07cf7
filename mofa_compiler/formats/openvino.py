"""OpenVINO's intermediate representation: an .xml with the graph, and the weights in the .bin beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .arithmetic import plain_divisions
from .base import Format, Runner, Source, Use, Written, tensors
from .torch_export import bounds

_NO_OPERATORS = ("Parameter", "Constant", "Result")


class OpenVino(Format):
    """Weights in the precision that the network has."""

    name: ClassVar[str] = "openvino"
    title: ClassVar[str] = "OpenVINO"
    suffixes: ClassVar[tuple[str, ...]] = (".xml", ".bin")
    extra: ClassVar[str | None] = "openvino"
    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    def write(self, source: Source, file: Path) -> Written:
        import openvino

        assert source.program is not None
        plain_divisions(source.program)
        model = openvino.convert_model(source.program)
        _shrink_as_torch(model)
        # The converter leaves every size open, also where torch.export fixed it.
        shapes = bounds(source.program) if source.dynamic else [tuple(x.shape) for x in tensors(source.call)]
        model.reshape({port: _shape(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
        openvino.save_model(model, file, compress_to_fp16=False)
        kinds = [one.get_type_name() for one in model.get_ordered_ops()]
        return Written([Use(kind) for kind in kinds if kind not in _NO_OPERATORS])

    def open(self, file: Path) -> Runner:
        import openvino

        # Without the hint a CPU with bfloat16 computes in that, which is no check of the file.
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(file, "CPU", settings)

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            results = compiled([x.detach().cpu().numpy() for x in inputs])
            return [torch.from_numpy(np.array(results[port])) for port in compiled.outputs]

        return run


def _shrink_as_torch(model: Any) -> None:
    """Take the middle of an image that is resized to one pixel: the converter's mode takes its corner there."""
    for node in model.get_ops():
        mode = "coordinate_transformation_mode"
        if node.get_type_name() == "Interpolate" and node.get_attributes()[mode] == "pytorch_half_pixel":
            node.set_attribute(mode, "half_pixel")


def _shape(shape: Sequence[int | tuple[int, int | None]]) -> Any:
    """Sizes as OpenVINO writes them: a number, or a lower and an upper bound (-1 without one)."""
    import openvino

    dimensions = [
        openvino.Dimension(size) if isinstance(size, int) else openvino.Dimension(size[0], size[1] or -1)
        for size in shape
    ]
    return openvino.PartialShape(dimensions)
