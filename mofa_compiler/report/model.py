"""The report, schema `mofa-report/2`: what a run did to a network, made once, read by everything that renders it.

The same models write `report.json` and read it back, and `mofa report --schema` prints them as a JSON schema. Numbers
that JSON does not have are null. What a key means stands below it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

SCHEMA = "mofa-report/2"

Number = Annotated[float | None, AfterValidator(lambda value: value if value is None or math.isfinite(value) else None)]
"""What was measured; None where it is not finite, or not known"""

Interval = tuple[float, float]


class Part(BaseModel):
    """Keys that are not known are kept: a later version may write more of them."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, use_attribute_docstrings=True)

    def to_data(self) -> dict[str, Any]:
        """As plain data, by the keys that the schema names."""
        return self.model_dump(mode="json", by_alias=True)


class TensorShape(Part):
    """A tensor among the example inputs."""

    shape: tuple[int, ...]
    dtype: str


class Stage(Part):
    """A part of the network that works at one resolution."""

    name: str
    kind: str
    level: int | None
    """Works at 1/2^level of the input's size; null where that is not known"""
    units: tuple[str, ...]
    """Paths of the modules that form it"""


class Anatomy(Part):
    """Whether the network is a U-Net, and its stages in execution order."""

    is_unet: bool
    reason: str
    stages: tuple[Stage, ...]


class Opaque(Part):
    """A module that tracing could not see into."""

    path: str
    cause: str


class Guard(Part):
    """What was decided for this input size: at another one where it would come out otherwise, the graph raises."""

    module: str
    """The module whose forward decided"""
    fixes: str
    line: str
    """Of its source; empty where that is not known"""


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


class Layer(Part):
    """A module with parameters or MACs."""

    path: str
    stage: str | None
    layer: str
    """Its short form, as in edits; of a module that tracing could not see into, its class"""
    parameters: int
    macs: int


class Amounts(Part):
    """Parameters and MACs."""

    parameters: int
    macs: int


class Cost(Amounts):
    """What a stage costs; shares are of the network's, in [0, 1]."""

    vanilla: int
    """MACs by the paper's estimate, as if every convolution were a vanilla one"""
    parameters_share: float
    macs_share: float
    vanilla_share: float


class StageCost(Cost):
    """A stage by its name."""

    name: str


class Totals(Amounts):
    """Of a network, with each stage's part in them."""

    stages: tuple[StageCost, ...]


class Edit(Part):
    """One layer that a pass changed."""

    path: str
    stage: str | None
    before: str
    """The layer's short form"""
    after: str
    """Empty where it is gone"""
    parameters: int
    macs: int
    """The changes"""
    fate: str
    """Where its weights come from: `exact`, `merged`, `inherited`, `compensated`, `calibrated`, `reordered` (channels
    permuted), `fresh` or `removed`"""
    exact: bool
    """Whether it keeps what the layer computes"""
    note: str
    error: Number
    """The largest of an exact edit, relative to the largest output, in float64"""


class Skip(Part):
    """A layer of the right kind that a pass left alone."""

    path: str
    stage: str | None
    layer: str
    reason: str


class AtSize(Part):
    """The largest difference of two networks' outputs at an input size, relative to the largest output."""

    shape: str
    error: Number


class WholeCheck(Part):
    """The whole network before and after a pass that claims to be exact."""

    sizes: tuple[AtSize, ...]
    tolerance: float
    """What rounding may come to"""
    precision: str
    """What was computed in: `float64` where the network can"""
    note: str
    """Why there is one size only, or another precision"""
    departs: str
    """The layer from which on values differ; empty where they agree"""


class Verdict(Part):
    """How far a pass moved the output, and whether it kept its promise."""

    relative_error: Number
    """Size of the difference that the pass made ÷ size of the output"""
    step_psnr: Number
    """The same as PSNR in dB; null where the outputs agree"""
    accumulated: Number
    """How far all passes so far moved it, against the original"""
    psnr: Number
    """The same as PSNR in dB"""
    measured_on: str
    """On what inputs"""
    holds: bool
    """Whether what was declared exact is"""
    problem: str
    """A sentence where it is not"""
    layers: Number
    """The largest error of its exact edits"""
    whole: WholeCheck | None
    """Of a pass that claims to be exact"""


class Step(Part):
    """A pass; one named `calibration`, before the lowerings, is the fit on example inputs."""

    name: str
    options: dict[str, JsonValue]
    exact: bool
    """Whether every edit keeps the function that the network computes"""
    edits: tuple[Edit, ...]
    skips: tuple[Skip, ...]
    before: Totals
    after: Totals
    verdict: Verdict


class Point(Part):
    """A validation during training."""

    step: int
    seconds: float
    loss: Number
    psnr: Number


class Recovery(Part):
    """A training by distillation since the rewrite; PSNR in dB of the validation examples."""

    steps: int
    seconds: float
    psnr_before: Number
    psnr_after: Number
    psnr_original: Number
    """Of the original against the ground truth; null where the original's output is what is compared with"""
    best_step: int
    """The step whose weights were kept; 0 where none was better than the start"""
    history: tuple[Point, ...]
    data: dict[str, JsonValue]
    settings: dict[str, JsonValue]


class Place(Part):
    """Where something was measured."""

    engine: str
    version: str
    processor: str
    threads: int
    input: str | tuple[tuple[int, ...], ...]
    """A shape such as `1x3x256x256`, or the shapes of all inputs"""


class Conditions(Place):
    """The same, of decisions."""

    torch: str


class Alternative(Part):
    """One thing that a group of layers could become, timed."""

    name: str
    ms: Number
    """Of the piece of the network around the layer; null where it could not be measured"""
    ratio: Number
    """To the original piece's"""
    interval: Interval | None
    problem: str
    """Why it was not measured"""


class Decision(Part):
    """What was chosen for layers that are alike."""

    paths: tuple[str, ...] = Field(min_length=1)
    layer: str
    chosen: str
    reason: str
    alternatives: tuple[Alternative, ...] = Field(min_length=1)
    """The first is the original"""

    @model_validator(mode="after")
    def _chosen_is_known(self) -> Self:
        if self.chosen not in [one.name for one in self.alternatives]:
            raise ValueError(f"{self.chosen!r} was chosen, which is none of the alternatives")
        return self

    @property
    def original(self) -> Alternative:
        """What the layers are without a rewrite."""
        return self.alternatives[0]

    @property
    def choice(self) -> Alternative:
        """What was chosen."""
        return next(one for one in self.alternatives if one.name == self.chosen)


class Compared(Part):
    """A whole network against the original."""

    name: str
    ms: float
    original_ms: float
    ratio: float
    interval: Interval
    """95 %, of the ratio"""
    control: Interval
    """Of the original against itself in the same rounds: the noise"""


class Decisions(Part):
    """What was decided by measurement on a target."""

    conditions: Conditions
    layers: tuple[Decision, ...]
    networks: tuple[Compared, ...]
    limit: Compared | None
    """The original without what no rewrite of these layers alone can beat"""
    chosen: str
    sentence: str
    """All of it in words"""

    @property
    def final(self) -> Compared | None:
        """The network that was chosen; None where the original was, whose time is compared with nothing."""
        return next((one for one in self.networks if one.name == self.chosen), None)


class Measurement(Place):
    """What `mofa measure --record` timed; medians in ms."""

    original_ms: float
    rewritten_ms: float
    ratio: float
    """The second divided by the first"""
    interval: Interval
    """95 %, of the ratio"""
    verdict: str
    """`faster`, `slower` or `inside the noise`"""
    control: Interval
    """Of the original against itself in the same rounds: the noise"""


class Closeness(Part):
    """One measure of an image: three against the target (null where there is none), the last of the two outputs."""

    input: Number
    original: Number
    rewritten: Number
    between: Number


class Image(Part):
    """An image that both networks were run on, with the weights that the rewritten one has now."""

    name: str
    source: str
    """In words: whether the network was fitted on it"""
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    """Height and width of the output"""
    levels: tuple[float, float]
    """Which values of the output are black and white"""
    shown: str
    """Of an output that is no usual image, in words what one sees"""
    input: str | None
    original: str | None
    rewritten: str | None
    target: str | None
    difference: str | None
    """PNG files in the bundle; the difference is grey plus `gain` times the second output minus the first"""
    gain: float
    psnr: Closeness
    """In dB; null where two are equal"""
    ssim: Closeness


class RoadmapEntry(Part):
    """A pass with its options, which stand beside its name."""

    name: str


class RoadmapData(Part):
    """A roadmap as `Roadmap.from_dict` reads it."""

    name: str
    description: str
    passes: tuple[RoadmapEntry, ...] = Field(alias="pass")


class Report(Part):
    """What a run did to a network."""

    schema_: Literal["mofa-report/2"] = Field(alias="schema")
    versions: dict[str, str]
    """Of this package and of torch"""
    model: str
    """Class name of the original"""
    checkpoint: str | None
    """What its weights were read from; empty where they are those it is built with, null where that is not known"""
    roadmap: RoadmapData
    inputs: tuple[TensorShape, ...]
    anatomy: Anatomy
    opaque: tuple[Opaque, ...]
    guards: tuple[Guard, ...]
    structure: Structure
    layers: tuple[Layer, ...]
    """Of the original, in execution order"""
    rewritten_layers: tuple[Layer, ...]
    before: Totals
    after: Totals
    passes: tuple[Step, ...]
    recoveries: tuple[Recovery, ...]
    decisions: Decisions | None
    measurements: tuple[Measurement, ...]
    images: tuple[Image, ...]

    @model_validator(mode="after")
    def _stages_are_known(self) -> Self:
        known = {stage.name for stage in self.before.stages}
        check_structure(self.structure, {one.name: one.level for one in self.anatomy.stages if one.name in known})
        return self
