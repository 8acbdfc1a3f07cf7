"""What engines make of a network in eight bits: post-training static quantization by their own tools."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mofa_compiler.base.errors import one_line
from mofa_compiler.formats.executorch import lowered
from mofa_compiler.formats.torch_export import trace
from mofa_compiler.graph.call_spec import in_standard_layout
from mofa_compiler.runtime import Compiled, Engine
from mofa_compiler.runtime.quiet import quiet

from .peers import UnmetError


def quantized(engine: Engine, model: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """A network in eight bits, weights by channel, ranges of activations from inputs, as what the engine loads.

    Raises:
        UnmetError: the engine has no quantizer that we know, or it does not take the network.
    """
    known: dict[str, Callable[[Engine, nn.Module, Sequence[Tensor]], bytes]] = {
        "onnxruntime": _qdq,
        "xnnpack": _pt2e,
    }
    if engine.name not in known:
        raise UnmetError(f"{engine.name} has no quantizer here")
    try:
        with quiet():
            return known[engine.name](engine, model, inputs)
    except Exception as error:  # another project's code may raise anything; it is reported
        raise UnmetError(one_line(error)) from error


def _qdq(engine: Engine, model: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """ONNX Runtime's static quantization: QDQ, int8, weights by channel, minimum and maximum."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("float.onnx", "inferred.onnx", "int8.onnx")]
        files[0].write_bytes(engine.pack(model, inputs[:1]))
        quant_pre_process(files[0], files[1], skip_symbolic_shape=True)
        name = _input_name(files[1])

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            left = iter(inputs)

            def get_next(self) -> dict[str, object] | None:
                batch = next(self.left, None)
                return None if batch is None else {name: batch.numpy()}

        quantize_static(files[1], files[2], Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
        return files[2].read_bytes()


def _input_name(file: Path) -> str:
    import onnx

    return str(onnx.load(file).graph.input[0].name)


def _pt2e(engine: Engine, model: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """ExecuTorch's quantizer for XNNPACK, by PT2E: symmetric, weights by channel."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = (in_standard_layout(inputs[0]),)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(trace(model, example).module(), quantizer)
    with torch.no_grad():
        for batch in inputs:
            prepared(in_standard_layout(batch))
    program = torch.export.export(convert_pt2e(prepared), example)  # not `trace`: it has no eval mode any more
    return bytes(lowered(program).to_executorch().buffer)


class Tiled(nn.Module):
    """A compiled network, which takes one size alone, on images of any size: tile by tile, borders repeated.

    Attributes:
        size: side of the tiles.
    """

    def __init__(self, compiled: Compiled, size: int):
        super().__init__()
        self._compiled, self.size = compiled, size

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        whole = pad(x, (0, -width % self.size, 0, -height % self.size), mode="replicate")
        rows = []
        for row in torch.split(whole, self.size, -2):
            tiles = [self._compiled.outputs([tile.contiguous()])[0] for tile in torch.split(row, self.size, -1)]
            rows.append(torch.cat(tiles, -1))
        return torch.cat(rows, -2)[..., :height, :width]


def mosaics(batches: Sequence[Tensor], size: int) -> list[Tensor]:
    """Crops side by side, in squares, so that they are images (1, C, `size`, `size`); what is left over is left out."""
    crops = torch.cat(list(batches))
    across = size // crops.shape[-1]
    number = len(crops) // across**2
    squares = crops[: number * across**2].reshape(number, across, across, *crops.shape[1:])
    rows = torch.cat(squares.unbind(2), -1)
    return list(torch.cat(rows.unbind(1), -2)[:, None])
