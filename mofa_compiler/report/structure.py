"""What a drawing of a network shows: its U-Nets, the stages on either side of each, and what joins them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..analysis.network import CHEAP_BELOW
from ..base import words

if TYPE_CHECKING:
    from ..analysis.anatomy import Anatomy, Stage
    from ..analysis.network import Network


@dataclass(frozen=True)
class UShape:
    """One U-Net by the names of its stages.

    Attributes:
        number: which one of a cascade, from 1.
        descending: stages on the way down, in execution order; the bridge from the U-Net before comes first.
        bottom: the stage where it turns, or None.
        ascending: stages on the way up, in execution order.
    """

    number: int
    descending: tuple[str, ...]
    bottom: str | None
    ascending: tuple[str, ...]


@dataclass(frozen=True)
class StageSkip:
    """A long skip connection by the stages that it joins.

    Attributes:
        source: the stage that it comes from.
        target: the stage that it leads into.
        kind: name of the merging operation: "cat", "add", ...
        level: level of the merge, None where it is no image.
        source_node, target_node: names of the graph nodes.
    """

    source: str
    target: str
    kind: str
    level: float | None
    source_node: str
    target_node: str


@dataclass(frozen=True)
class Structure:
    """A network as U-Nets; without any where it is none.

    Attributes:
        passes: the U-Nets in execution order.
        skips: the long skip connections in execution order.
        aside: stages that lie on no U-Net: side inputs, auxiliary heads, work on skips, and what has no level.
    """

    passes: tuple[UShape, ...]
    skips: tuple[StageSkip, ...]
    aside: tuple[str, ...]


def structure(network: Network) -> Structure:
    """The structure of a network; a pure function of its graph and anatomy."""
    anatomy = network.anatomy
    if not anatomy.is_unet:
        return Structure((), (), ())
    passes = tuple(_u_shape(index, anatomy) for index in sorted({stage.pass_index for stage in anatomy.stages}))
    passes = tuple(shape for shape in passes if shape.descending or shape.bottom or shape.ascending)
    placed = {name for shape in passes for name in (*shape.descending, shape.bottom, *shape.ascending)}
    aside = tuple(stage.name for stage in anatomy.stages if stage.name not in placed)
    skips = (
        StageSkip(skip.source_stage, skip.target_stage, skip.kind, skip.level, skip.source, skip.target)
        for skip in anatomy.skips
    )
    return Structure(passes, tuple(skips), aside)


def cheap_rule(network: Network) -> dict[str, Any]:
    """By what rule a stage is cheap: `below` times `reference` is the `limit`, in MACs; `rule` says so in words."""
    reference = network.cheap_reference
    limit = CHEAP_BELOW * reference
    rule = (
        f"cheap: below {CHEAP_BELOW:g} of the median encoder stage, which is {words.quantity(limit)}, "
        "counted as vanilla convolutions"
        if network.anatomy.is_unet
        else f"no stage counts as cheap: {network.anatomy.reason}"
    )
    return {"below": CHEAP_BELOW, "reference": reference, "limit": limit, "rule": rule}


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
