"""What a drawing of a network shows: its U-Nets, the stages on either side of each, and what joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.network import CHEAP_BELOW
from ..base import words
from .model import CheapRule, Shape, StageSkip, UShape

if TYPE_CHECKING:
    from ..analysis.anatomy import Anatomy, Stage
    from ..analysis.network import Network


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
