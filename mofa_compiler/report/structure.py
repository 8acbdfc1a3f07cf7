"""What a drawing of a network shows: its U-Nets, the stages on either side of each, and what joins them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..analysis.network import CHEAP_BELOW
from ..base import words
from .part import Part

if TYPE_CHECKING:
    from ..analysis.anatomy import Anatomy, Stage
    from ..analysis.network import Network


class UShape(Part):
    """One U-Net by the names of its stages."""

    number: int
    """Which one of a cascade, from 1"""
    descending: tuple[str, ...]
    """Stages on the way down, in execution order; the bridge from the U-Net before comes first"""
    bottom: str | None
    """The stage where it turns"""
    ascending: tuple[str, ...]
    """Stages on the way up, in execution order"""

    @property
    def stages(self) -> tuple[str, ...]:
        """All of them in execution order."""
        return (*self.descending, *filter(None, [self.bottom]), *self.ascending)


class StageSkip(Part):
    """A long skip connection by the stages that it joins."""

    source: str
    """The stage that makes what is skipped"""
    target: str | None
    """The stage that reads the merge, if one does"""
    kind: str
    """The operation that merges: `cat`, `add`, ..."""
    level: int | float | None
    """Of the merge; null where it is no image"""
    source_node: str
    target_node: str
    """Names of the graph nodes"""


class CheapRule(Part):
    """By what rule a stage is cheap: its MACs, by the paper's estimate, are below `below` times `reference`."""

    below: float
    reference: float
    """The median encoder stage"""
    limit: float
    rule: str
    """The same in words"""


class Cheap(CheapRule):
    """The rule for cheap stages, and which are."""

    stages: tuple[str, ...]


class Shape(Part):
    """A network as U-Nets, in names of stages; without any where it is none."""

    passes: tuple[UShape, ...]
    """The U-Nets of a cascade"""
    skips: tuple[StageSkip, ...]
    """The long skip connections in execution order"""
    aside: tuple[str, ...]
    """Stages that lie on no U-Net: side inputs, auxiliary heads, work on skips, and what has no level"""


def check_structure(shape: Shape, levels: Mapping[str, int | None]) -> None:
    """Refuse one that cannot be drawn.

    Raises:
        ValueError: it names a stage that is not known, or places one without a level.
    """
    placed = [name for one in shape.passes for name in one.stages]
    if unknown := [name for name in (*placed, *shape.aside) if name not in levels]:
        raise ValueError(f"there is no stage {unknown[0]!r}")
    if flat := [name for name in placed if levels[name] is None]:
        raise ValueError(f"stage {flat[0]!r} is part of a U-Net and has no level")
    if len(set(placed)) < len(placed):
        raise ValueError("a stage stands in two places")


class Structure(Shape):
    """The original drawn as a U, and which of its stages are cheap."""

    cheap: Cheap


def structure(network: Network) -> Shape:
    """The structure of a network; a pure function of its graph and anatomy."""
    anatomy = network.anatomy
    if not anatomy.is_unet:
        return Shape(passes=(), skips=(), aside=())
    passes = tuple(_u_shape(index, anatomy) for index in sorted({stage.pass_index for stage in anatomy.stages}))
    passes = tuple(shape for shape in passes if shape.stages)
    placed = {name for shape in passes for name in shape.stages}
    skips = tuple(
        StageSkip(
            source=skip.source_stage,
            target=skip.target_stage,
            kind=skip.kind,
            level=skip.level,
            source_node=skip.source,
            target_node=skip.target,
        )
        for skip in anatomy.skips
    )
    aside = tuple(stage.name for stage in anatomy.stages if stage.name not in placed)
    return Shape(passes=passes, skips=skips, aside=aside)


def cheap_rule(network: Network) -> CheapRule:
    """By what rule a stage is cheap."""
    reference = network.cheap_reference
    limit = CHEAP_BELOW * reference
    rule = (
        f"cheap: below {CHEAP_BELOW:g} of the median encoder stage, which is {words.quantity(limit)}, "
        "counted as vanilla convolutions"
        if network.anatomy.is_unet
        else f"no stage counts as cheap: {network.anatomy.reason}"
    )
    return CheapRule(below=CHEAP_BELOW, reference=reference, limit=limit, rule=rule)


def _u_shape(index: int, anatomy: Anatomy) -> UShape:
    def having(*kinds: str, of: int = index) -> list[Stage]:
        return [s for s in anatomy.stages if s.pass_index == of and s.kind in kinds and s.level is not None]

    is_last = index == max(stage.pass_index for stage in anatomy.stages)
    bottoms = having("bottleneck")
    down = [*having("bridge", of=index - 1), *having("stem", "body", "encoder")]
    up = having("decoder", "head", *(("bridge",) if is_last else ()))
    if not bottoms and down and all(_level(down[-1]) > _level(stage) for stage in (*down[:-1], *up)):
        bottoms = [down.pop()]  # without a bottleneck, the deepest encoder is where the data turns
    return UShape(
        number=index + 1,
        descending=tuple(stage.name for stage in down),
        bottom=bottoms[0].name if bottoms else None,
        ascending=tuple(stage.name for stage in (*bottoms[1:], *up)),
    )


def _level(stage: Stage) -> int:
    assert stage.level is not None
    return stage.level
