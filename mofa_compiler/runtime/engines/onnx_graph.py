"""Networks as ONNX, and where in the network each of its nodes comes from."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from torch import Tensor, nn

from ...formats.base import Quantization
from ...formats.onnx import converted
from ...formats.quantizing import quantized_onnx
from ...formats.torch_export import returned_by_each, trace, trace_together

_SCOPES = "pkg.torch.onnx.name_scopes"
_DECORATIONS = ("_nchwc", "/WithoutBiases")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_FUSED = ("Add", "Mul", "Sub", "Div", "Relu", "Clip", "Sigmoid", "LeakyRelu", "PRelu", "BatchNormalization")


def to_onnx(module: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """A network as ONNX, for inputs of these shapes."""
    return converted(trace(module, tuple(inputs)))


def to_onnx_each(
    modules: Sequence[nn.Module], inputs: Sequence[Sequence[Tensor]], quantized: bool = False
) -> list[bytes]:
    """Each of these networks as ONNX, of one export; `quantized`: by the values of these inputs."""
    import onnx
    import onnx.utils

    program = trace_together(modules, inputs)
    model = converted(program)
    if quantized:
        model = quantized_onnx(model, Quantization([list(chain.from_iterable(inputs))]))
    whole = onnx.utils.Extractor(onnx.load_from_string(model))
    names = iter([one.name for one in whole.graph.input])
    results = iter([one.name for one in whole.graph.output])
    return [
        whole.extract_model([*islice(names, len(given))], [*islice(results, count)]).SerializeToString()
        for given, count in zip(inputs, returned_by_each(program), strict=True)
    ]


class Origins:
    """Layers of an ONNX graph's nodes, by the nodes' names and by the names of their outputs."""

    def __init__(self, model: bytes):
        import onnx

        nodes = list(onnx.load_from_string(model).graph.node)
        self._layers: dict[str, str] = {}
        self._users: dict[str, list[Any]] = {}
        self._nodes = {name: node for node in nodes for name in (node.name, *node.output)}
        for node in nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
            recorded = {entry.key: entry.value for entry in node.metadata_props}
            self._remember(node, _owner(node) or _layer(recorded.get(_SCOPES, "[]")))
        for node in reversed(nodes):  # what the exporter lost belongs to the innermost module that all its users lie in
            if node.name not in self._layers:
                users = [user for name in node.output for user in self._users.get(name, ())]
                self._remember(node, _common(self._layers.get(user.name) for user in users))

    def __call__(self, *names: str, convolution: bool = False) -> str | None:
        """Layer of the first of these names that is known; engines decorate them.

        Of a `convolution` that what follows was fused into, the layer is that of the convolution itself.
        """
        known = list(filter(None, map(self._plain, names)))
        if convolution:
            known = [*filter(None, map(self._convolution_before, known)), *known]
        return next((self._layers[name] for name in known if name in self._layers), None)

    def _plain(self, name: str) -> str | None:
        """The name without what the engine added; None for one that the graph does not have."""
        while name not in self._nodes:
            shorter = next((name.removesuffix(end) for end in _DECORATIONS if name.endswith(end)), None)
            if shorter is None:
                return None
            name = shorter
        return name

    def _convolution_before(self, name: str) -> str | None:
        """Nearest convolution behind elementwise operations that alone use what they take."""
        node = self._nodes[name]
        if node.op_type in _CONVOLUTIONS:
            return str(node.name)
        if node.op_type not in _FUSED:
            return None
        alone = [name for name in node.input if name in self._nodes and len(self._users[name]) == 1]
        return next(filter(None, map(self._convolution_before, alone)), None)

    def _remember(self, node: Any, layer: str | None) -> None:
        if layer:
            self._layers.update(dict.fromkeys((node.name, *node.output), layer))


def outputs_of(model: Any) -> Mapping[str, list[str]]:
    """Names of the outputs of every node of an onnx.ModelProto, by the node's name."""
    return {node.name: list(node.output) for node in model.graph.node}


def _owner(node: Any) -> str | None:
    """A convolution's layer by the name of its weight: the exporter's scopes name a BatchNorm folded into it."""
    weight = node.input[1] if node.op_type in _CONVOLUTIONS else ""
    return weight.removesuffix(".weight") if weight.endswith(".weight") else None


def _layer(scopes: str) -> str | None:
    """`['', 'intro', 'conv2d']`: the module last entered; the last entry is the operation."""
    path = ast.literal_eval(scopes)[:-1]
    return path[-1] if path else None


def _common(layers: Iterable[str | None]) -> str | None:
    parts = zip(*((layer or "").split(".") for layer in layers), strict=False)
    return ".".join(same[0] for same in itertools.takewhile(lambda names: len(set(names)) == 1, parts)) or None
