"""Rules 4xx: what is slow, or not there at all, on the engine that the network ships to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import fx

from ...analysis.layers import Layer
from ...analysis.network import Network
from ...graph.macs import function_name
from ...graph.node_names import path_of
from ...rewriting.fate import Fate
from ...rewriting.pass_api import Match, Pass
from ..finding import Default, Finding, Fix, Level
from ..rule import Rule, Subject
from .matching import PassRule, installed


@dataclass(frozen=True)
class SplitConcatenate(PassRule):
    """A partial convolution that splits and concatenates.

    ## What it does
    Finds `PConv2d` and `PDWConv2d` that run as split, convolution and concatenation.

    ## Why is this bad?
    Most engines copy the untouched channels twice then: on ONNX Runtime and XNNPACK, PMRID takes 1.5 to 2 times as
    long with partial convolutions in this form as without any. The same can be computed without.

    ## Example
    ```python
    PDWConv2d(64, 16)
    ```

    ## Use instead
    A form without split and concatenate: `mofa lint --fix`, or `mofa rewrite --engine`, which measures which one.

    ## Fix safety
    Safe: pass `lower-pconv` computes the same, checked in float64.
    """

    code: ClassVar[str] = "MOFA401"
    name: ClassVar[str] = "split-concatenate"
    default: ClassVar[Default] = "engine"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "exact"

    def fix(self) -> Pass | None:
        return installed("lower-pconv")

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        convolved = getattr(layer.module, "convolved", 0)
        return f"splits {layer.channels} channels, convolves {convolved} and concatenates, which copies the others"


@dataclass(frozen=True)
class _Lowerable(Rule):
    """Rules on what an exact pass rewrites: it is carried out, and its edits are the findings."""

    default: ClassVar[Default] = "engine"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "exact"
    pass_name: ClassVar[str]
    why: ClassVar[str]
    removes: ClassVar[bool] = False
    """Whether findings are the layers that go, not those that change"""

    def passes(self) -> tuple[Pass, ...]:
        pass_ = installed(self.pass_name)
        return (pass_,) if pass_ else ()

    def check(self, subject: Subject) -> Iterator[Finding]:
        for pass_ in self.passes():
            yield from self._edits(subject, pass_)

    def _edits(self, subject: Subject, pass_: Pass) -> Iterator[Finding]:
        for edit in subject.lowered(pass_).rewritten:
            if (edit.fate is Fate.REMOVED) == self.removes:
                fix = Fix((pass_.name,), True, edit.parameters, edit.macs)
                text = f"{self.why} ({edit.note})" if self.removes and edit.note else self.why
                yield self.finding(subject, edit.path, edit.before, text, stage=edit.stage, fix=fix)


@dataclass(frozen=True)
class ChannelLayerNorm(_Lowerable):
    """Layer normalization over channels that no engine knows.

    ## What it does
    Finds layer normalization over the channels of (N, C, H, W): by a custom autograd function (NAFNet's
    `LayerNormFunction`), written out with means over dimension 1, or between two permutations.

    ## Why is this bad?
    Exporters trace it into seven small operators that leave the engine's memory layout: on XNNPACK, half of NAFNet's
    time.

    ## Example
    ```python
    mean = x.mean(1, keepdim=True)
    y = (x - mean) / ((x - mean).pow(2).mean(1, keepdim=True) + eps).sqrt()
    ```

    ## Use instead
    Means by a 1×1 convolution to one channel, which engines fuse: `mofa lint --fix`.

    ## Fix safety
    Safe: pass `lower-layer-norm` computes the same, checked in float64.
    """

    code: ClassVar[str] = "MOFA402"
    name: ClassVar[str] = "channel-layer-norm"
    pass_name: ClassVar[str] = "lower-layer-norm"
    why: ClassVar[str] = "layer normalization over channels runs as small operators that leave the engine's layout"


@dataclass(frozen=True)
class DynamicPadding(Rule):
    """Padding that is computed from the size of the input.

    ## What it does
    Finds paddings in `forward` whose amounts depend on the input's size.

    ## Why is this bad?
    Engines plan memory before they run: an amount that is only known then makes them reallocate, or refuse the graph.
    At sizes that need no padding, some copy the whole image all the same.

    ## Example
    ```python
    x = F.pad(x, (0, -x.shape[3] % 16, 0, -x.shape[2] % 16))
    ```

    ## Use instead
    Pad before the network, where the image is loaded.

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA403"
    name: ClassVar[str] = "dynamic-padding"

    def check(self, subject: Subject) -> Iterator[Finding]:
        for node in subject.network.program.graph.nodes:
            if node.op == "call_function" and function_name(node) == "pad" and _is_computed(node):
                shape = "x".join(map(str, node.meta["val"].shape))
                text = f"padding (to {shape} here) is computed from the input's size, which engines cannot plan for"
                yield self.finding(subject, path_of(node), "pad(computed)", text)


def _is_computed(node: fx.Node) -> bool:
    amounts = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    found: list[fx.Node] = []
    fx.map_arg(amounts, found.append)
    return bool(found)


@dataclass(frozen=True)
class UnsupportedOperator(Rule):
    """An operator that the configured engine does not take, or leaves to slow kernels.

    ## What it does
    Exports the network to the configured engine's format and names what it refuses, and what ExecuTorch leaves to its
    portable kernels instead of XNNPACK.

    ## Why is this bad?
    A refused operator means that the network does not ship; a portable kernel can be a hundred times slower.

    ## Example
    `torch.linalg.eigvals`, which ONNX does not have.

    ## Use instead
    Operators that the engine knows.

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA404"
    name: ClassVar[str] = "unsupported-operator"
    default: ClassVar[Default] = "engine"
    level: ClassVar[Level] = "error"
    needs_engine: ClassVar[bool] = True

    engine: str | None = None
    threads: int = 1

    def check(self, subject: Subject) -> Iterator[Finding]:
        assert self.engine is not None
        kind = _FORMATS.get(self.engine)
        if kind is None:
            yield from self._compiled(subject, self.engine)
            return
        import tempfile
        from pathlib import Path

        from ...base.errors import ExportError
        from ...export import export, formats

        with tempfile.TemporaryDirectory() as folder:
            try:
                file = Path(folder, f"net{formats()[kind].suffixes[0]}")
                done = export(subject.model, kind, file, inputs=subject.call)
            except ExportError as error:
                yield self.finding(subject, error.layer, f"export({kind})", str(error))
                return
        left = dict.fromkeys((use.kind, use.layer or "") for use in done.uses if use.backend == "portable")
        for operator, layer in left:
            text = f"{operator} is not delegated to XNNPACK but left to an unoptimized portable kernel"
            yield replace(self.finding(subject, layer, operator, text), level="warning")

    def _compiled(self, subject: Subject, name: str) -> Iterator[Finding]:
        """What an engine that no exported file is for says of the network."""
        from ...base.errors import EngineError
        from ...runtime import engine

        try:
            engine(name).compile(subject.model, subject.inputs(), self.threads)
        except EngineError as error:
            yield self.finding(subject, "", f"compile({name})", str(error))


_FORMATS = {"onnxruntime": "onnx", "xnnpack": "executorch", "openvino": "openvino"}
"""The file format that an engine is fed: exporting to it names the layer at fault"""


@dataclass(frozen=True)
class ChannelGate(_Lowerable):
    """A gate that takes channels apart by chunk or split.

    ## What it does
    Finds gates, products of two halves of the channels, behind a convolution.

    ## Why is this bad?
    The convolution writes both halves into one tensor, which the gate reads as two slices that engines copy.

    ## Example
    ```python
    a, b = self.conv(x).chunk(2, dim=1)
    y = a * b
    ```

    ## Use instead
    Two convolutions, one a half: `mofa lint --fix`.

    ## Fix safety
    Safe: pass `lower-gates` computes the same, checked in float64.
    """

    code: ClassVar[str] = "MOFA405"
    name: ClassVar[str] = "channel-gate"
    pass_name: ClassVar[str] = "lower-gates"
    why: ClassVar[str] = "a gate takes apart what one convolution wrote, which engines copy"


@dataclass(frozen=True)
class PixelShuffle(_Lowerable):
    """A 1×1 convolution and a pixel shuffle, which a transposed convolution computes at once.

    ## What it does
    Finds 1×1 convolutions followed by a pixel shuffle.

    ## Why is this bad?
    Every value is written twice; engines without a shuffle of their own (ExecuTorch) permute it in memory.

    ## Example
    ```python
    nn.Sequential(nn.Conv2d(64, 128, 1, bias=False), nn.PixelShuffle(2))
    ```

    ## Use instead
    ```python
    nn.ConvTranspose2d(64, 32, 2, stride=2, bias=False)
    ```

    ## Fix safety
    Safe: pass `lower-shuffle` computes the same, checked in float64.
    """

    code: ClassVar[str] = "MOFA406"
    name: ClassVar[str] = "pixel-shuffle"
    pass_name: ClassVar[str] = "lower-shuffle"
    why: ClassVar[str] = "a pixel shuffle writes again what the 1x1 convolution before it wrote"


@dataclass(frozen=True)
class UnmergedLinear(_Lowerable):
    """Linear steps that could be one.

    ## What it does
    Finds convolutions with batch normalization, scales, biases or other convolutions next to them that can be merged.

    ## Why is this bad?
    Every step reads and writes the whole image. Few engines merge all of them by themselves.

    ## Example
    ```python
    nn.Sequential(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64))
    ```

    ## Use instead
    One convolution with the product of the weights: `mofa lint --fix`, for deployment; train the network as it is.

    ## Fix safety
    Safe: pass `merge-linear` computes the same in eval mode, checked in float64.
    """

    code: ClassVar[str] = "MOFA407"
    name: ClassVar[str] = "unmerged-linear"
    pass_name: ClassVar[str] = "merge-linear"
    why: ClassVar[str] = "is a linear step of its own, which its neighbour could take up"
    removes: ClassVar[bool] = True
