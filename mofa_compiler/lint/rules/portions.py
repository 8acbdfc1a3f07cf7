"""Rules 1xx: where parameters are nearly free, and where they are not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

from ...analysis.layers import Layer
from ...analysis.network import CHEAP_BELOW, Network
from ...nn.partial_conv import PConv2d
from ...rewriting.engine import match
from ...rewriting.pass_api import Match, Pass
from ..finding import Finding, Fix
from ..rule import Rule, Subject
from .matching import PassRule, installed


@dataclass(frozen=True)
class CheapStageNarrow(PassRule):
    """A partial convolution at its minimum in a stage that costs next to nothing.

    ## What it does
    Finds `PConv2d` that convolve less than twice `portion` of their channels in a cheap stage: one below `cheap-below`
    (0.5) of the median encoder stage, by the paper's estimate of MACs.

    ## Why is this bad?
    Parameters are nearly free there. The paper's networks gain quality by widening exactly these stages (MOFA, section
    3.4).

    ## Example
    ```python
    PConv2d(256, 64)  # in a stage with 2 % of the MACs
    ```

    ## Use instead
    ```python
    PConv2d(256, 128)
    ```

    ## Fix safety
    Safe: pass `widen-portion` starts the new channels as identity. They change nothing until the network is trained.
    """

    code: ClassVar[str] = "MOFA101"
    name: ClassVar[str] = "cheap-stage-narrow"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "exact"
    where: ClassVar[str] = "cheap"

    portion: Fraction = Fraction(1, 4)
    cheap_below: float = CHEAP_BELOW

    def fix(self) -> Pass | None:
        wide = min(2 * self.portion, Fraction(1))
        return installed("widen-portion", where=self.where, portion=wide, cheap_below=self.cheap_below)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        assert isinstance(layer.module, PConv2d) and layer.stage is not None
        convolved = f"convolves {layer.module.convolved} of {layer.channels} channels"
        if self.where == "middle":
            return f"{convolved} in {layer.stage.name}, a middle stage, where more parameters cost little"
        return f"{convolved}, and {network.is_cheap(layer.stage, self.cheap_below)[1]}"


@dataclass(frozen=True)
class MiddleStageNarrow(CheapStageNarrow):
    """A partial convolution at its minimum in a middle stage.

    ## What it does
    Finds `PConv2d` that convolve less than twice `portion` of their channels in the stages one level above the
    bottleneck.

    ## Why is this bad?
    The middle stages hold most of the channels at little of the resolution: parameters cost few MACs there, and the
    paper found quality to depend on them (MOFA, section 3.3).

    ## Example
    ```python
    PConv2d(128, 32)  # in the last encoder stage
    ```

    ## Use instead
    ```python
    PConv2d(128, 64)
    ```

    ## Fix safety
    Safe: pass `widen-portion` starts the new channels as identity. They change nothing until the network is trained.
    """

    code: ClassVar[str] = "MOFA102"
    name: ClassVar[str] = "middle-stage-narrow"
    where: ClassVar[str] = "middle"


@dataclass(frozen=True)
class PortionTooWide(PassRule):
    """A partial convolution that is wider than its stage's MACs justify.

    ## What it does
    Finds `PConv2d` that convolve more than `portion` of their channels in a stage that is neither cheap nor in the
    middle.

    ## Why is this bad?
    In a stage that takes much of the MACs, and most of the memory traffic, a wider portion costs time where the paper
    found little to gain.

    ## Example
    ```python
    PConv2d(32, 16)  # at full resolution
    ```

    ## Use instead
    ```python
    PConv2d(32, 8)
    ```

    ## Fix safety
    Unsafe: pass `narrow-portion` leaves channels unconvolved that were convolved, and the output changes.
    """

    code: ClassVar[str] = "MOFA103"
    name: ClassVar[str] = "portion-too-wide"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"

    portion: Fraction = Fraction(1, 4)
    cheap_below: float = CHEAP_BELOW

    def fix(self) -> Pass | None:
        return installed("narrow-portion", portion=self.portion, cheap_below=self.cheap_below)

    def message(self, layer: Layer, found: Match, network: Network) -> str | None:
        assert isinstance(layer.module, PConv2d) and layer.stage is not None
        _, why = network.is_cheap(layer.stage, self.cheap_below)
        return f"convolves {layer.module.convolved} of {layer.channels} channels, and {why}"


@dataclass(frozen=True)
class CheapStage(Rule):
    """A stage whose parameters are nearly free, and which has few.

    ## What it does
    Finds cheap stages (below `cheap-below`, 0.5, of the median encoder stage by the paper's estimate of MACs) whose
    spatial convolutions are separable or dense. One finding a stage.

    ## Why is this bad?
    What costs next to nothing can be larger: this is where a network gains parameters, and with them quality, without
    losing time (MOFA, section 3.4).

    ## Example
    A last encoder stage of depthwise convolutions with 1 % of the MACs.

    ## Use instead
    Partial convolutions over half of the channels there, or more blocks.

    ## Fix safety
    Unsafe: the stage's convolutions become partial ones (pass `sepconv-to-pconv`), which changes the output, and are
    widened (pass `widen-portion`).
    """

    code: ClassVar[str] = "MOFA104"
    name: ClassVar[str] = "cheap-stage"
    level = "note"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = "approximate"

    portion: Fraction = Fraction(1, 4)
    cheap_below: float = CHEAP_BELOW

    def passes(self) -> tuple[Pass, ...]:
        """The passes of the fix, in order; none where one of them is not installed."""
        wide = min(2 * self.portion, Fraction(1))
        found = (
            installed("sepconv-to-pconv", portion=self.portion),
            installed("widen-portion", where="cheap", portion=wide, cheap_below=self.cheap_below),
        )
        return tuple(one for one in found if one is not None) if None not in found else ()

    def check(self, subject: Subject) -> Iterator[Finding]:
        network, passes = subject.network, self.passes()
        if not passes:
            return
        by_stage: dict[str, list[Layer]] = {}
        for layer, _ in match(network, passes[0])[0]:
            if layer.stage and not layer.in_transition and network.is_cheap(layer.stage, self.cheap_below)[0]:
                by_stage.setdefault(layer.stage.name, []).append(layer)
        if not by_stage:
            return
        changes = subject.changes(*passes)
        for name, layers in by_stage.items():
            found = [changes[layer.path] for layer in layers if layer.path in changes]
            fix = Fix(
                tuple(pass_.name for pass_ in passes),
                exact=False,
                parameters=sum(one.parameters for one in found) if found else None,
                macs=sum(one.macs for one in found) if found else None,
                layers=tuple(layer.path for layer in layers),
            )
            assert layers[0].stage is not None
            why = network.is_cheap(layers[0].stage, self.cheap_below)[1]
            count = f"{len(layers)} spatial convolution{'s are' if len(layers) > 1 else ' is'}"
            text = f"{why}: parameters are nearly free there, and its {count} separable or dense"
            yield self.finding(subject, _around(layers), name, text, stage=name, fix=fix)


def _around(layers: Sequence[Layer]) -> str:
    """The path of the innermost module that holds all of these layers."""
    parts = [layer.path.split(".")[:-1] for layer in layers]
    shared = zip(*parts, strict=False)
    return ".".join(names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, shared))
