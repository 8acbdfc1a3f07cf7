"""The result of the inference: stages, skip connections and where every layer belongs."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

Level: TypeAlias = int | float | None
"""log2 of how much smaller than the input image something is, along the axis that has shrunk more; None where it is no
image (a vector, a plain value)."""


@dataclass(frozen=True)
class Stage:
    """A part of the network that a person would give one name.

    Attributes:
        name: "stem", "encoder 1", "bottleneck", "decoder 1", "head", ...; in a cascade of U-Nets those after the first
            carry a prefix ("pass 2 encoder 1"). A network without resampling is one "body".
        kind: "stem", "encoder", "bottleneck", "decoder", "head", "body", "bridge" (between two U-Nets of a cascade),
            "skip" (works on long skip connections), "side" (reads the image again: "side input"; or another input or a
            pooled vector: "conditioning"), "aux head" (makes another output).
        level: level at which most of its convolutions on the main path run, those that resample left out.
        units: paths of the modules that form it, in execution order. A transition counts to the stage it leads into.
        pass_index: which U-Net of a cascade it belongs to, from 0.
    """

    name: str
    kind: str
    level: int | None
    units: tuple[str, ...]
    pass_index: int = 0


@dataclass(frozen=True)
class Unit:
    """A module that the network is put together from: small enough to lie on one level, or one level and the next.

    Attributes:
        path: its module path.
        role: "encoder 1", ..., "down transition", "up transition", and off the main path "skip", "side input",
            "conditioning", "aux head" and "branch" (belongs to the stage that it comes back to).
        stage: name of its stage.
        entry, exit: level before and after it on the main path; off it, of the first and the last image inside.
        convolutions: how many convolutions and linear layers its first call runs, on all branches.
        on_main_path: whether any of them lies on the main path.
    """

    path: str
    role: str
    stage: str
    entry: Level
    exit: Level
    convolutions: int
    on_main_path: bool


@dataclass(frozen=True)
class Transition:
    """A change of resolution on the main path.

    Attributes:
        node: the graph's node that changes the level.
        unit: path of the unit that it lies in, None for a function between units.
        entry, exit: level before and after.
        stage: name of the stage that it belongs to.
    """

    node: str
    unit: str | None
    entry: float
    exit: float
    stage: str

    @property
    def goes_down(self) -> bool:
        return self.exit > self.entry


@dataclass(frozen=True)
class UShape:
    """One pass of the main path down and up again; a cascade of U-Nets has several.

    Attributes:
        index: from 0, the `pass_index` of its stages.
        stages: names of its stages, in execution order.
        top, bottom: the shallowest and the deepest level.
        downs, ups: how often the resolution goes down and up.
    """

    index: int
    stages: tuple[str, ...]
    top: float
    bottom: float
    downs: int
    ups: int


@dataclass(frozen=True)
class SkipConnection:
    """A connection past a deeper part of the network, drawn once for each level that it is taken in at.

    Attributes:
        source: the node on the main path whose features it takes.
        target: the node on the main path that merges it. Where a gate weighs the features before a concatenation takes
            them in, the concatenation.
        level: level of the merge.
        kind: "cat", "add", "mul", ...; for a module that merges inside, its class.
        source_stage, target_stage: names of the stages that it comes from and leads into.
    """

    source: str
    target: str
    level: Level
    kind: str
    source_stage: str
    target_stage: str


@dataclass(frozen=True)
class Anatomy:
    """The stages of a network, and for every leaf module the one that it belongs to.

    Attributes:
        is_unet: whether it goes down, up again, and has long skip connections.
        reason: why it is (not) a U-Net, one sentence.
        stages: in execution order.
        roles: role of each unit, "down transition" and "up transition" included.
        skips: the long skip connections, in execution order.
        levels: level of each node, by node name.
        stage_by_path: stage name of each leaf module that is called.
        transition_paths: leaf modules inside the change of resolution at the start of an encoder stage or bottleneck.
        input_paths: convolutions that no other one precedes.
        output_paths: convolutions that no other one follows.
        main_path: names of the nodes on the longest way from the image to the output, counted in convolutions.
        units: every unit that convolves, in execution order.
        transitions: the changes of resolution on the main path, in execution order.
        passes: the U-Nets that the main path runs through; a network that is none has one, too.
    """

    is_unet: bool
    reason: str
    stages: tuple[Stage, ...]
    roles: Mapping[str, str]
    skips: tuple[SkipConnection, ...]
    levels: Mapping[str, Level]
    stage_by_path: Mapping[str, str]
    transition_paths: frozenset[str]
    input_paths: frozenset[str]
    output_paths: frozenset[str]
    main_path: tuple[str, ...]
    units: tuple[Unit, ...]
    transitions: tuple[Transition, ...]
    passes: tuple[UShape, ...]

    def of_kind(self, kind: str) -> tuple[Stage, ...]:
        """The stages of one kind ("encoder", "bridge", ...; see `Stage.kind`), in execution order."""
        return tuple(stage for stage in self.stages if stage.kind == kind)

    @property
    def depth(self) -> float:
        """The deepest level of the main path."""
        return max(shape.bottom for shape in self.passes)

    @cached_property
    def _stages_by_name(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def _stage_names(self) -> dict[str, str]:
        return {unit: stage.name for stage in self.stages for unit in stage.units} | dict(self.stage_by_path)

    def stage_of(self, path: str) -> Stage | None:
        """The stage of a module; one that a rewrite has put below a known module is where that module was."""
        known = _longest_prefix(path, self._stage_names)
        return None if known is None else self._stages_by_name[self._stage_names[known]]

    def in_transition(self, path: str) -> bool:
        """Whether a module lies in a contracting transition; below a known module, the answer is that module's."""
        return _longest_prefix(path, self._stage_names) in self.transition_paths

    def middle(self) -> tuple[Stage, ...]:
        """The encoder and decoder stages that run exactly one level above the bottleneck.

        Where no stage is a bottleneck, the deepest level of the same U-Net stands for its level.
        """
        bottom: dict[int, int] = {}
        for stage in self.stages:
            if stage.level is not None and stage.kind in ("encoder", "decoder", "bottleneck"):
                bottom[stage.pass_index] = max(stage.level, bottom.get(stage.pass_index, stage.level))
        for stage in self.stages:
            if stage.kind == "bottleneck" and stage.level is not None:
                bottom[stage.pass_index] = stage.level
        return tuple(
            stage
            for stage in self.stages
            if stage.kind in ("encoder", "decoder")
            and stage.level is not None
            and stage.level == bottom[stage.pass_index] - 1
        )


def _longest_prefix(path: str, known: Container[str]) -> str | None:
    while path:
        if path in known:
            return path
        path = path.rpartition(".")[0]
    return None


@dataclass(frozen=True)
class Role:
    """What a unit is: a kind ("encoder", "up transition", ...), its number where it has one, and in which U-Net."""

    kind: str
    number: int | None = None
    shape: int = 0

    @property
    def label(self) -> str:
        return self.kind if self.number is None else f"{self.kind} {self.number}"

    @property
    def is_transition(self) -> bool:
        return self.kind in ("down transition", "up transition")
