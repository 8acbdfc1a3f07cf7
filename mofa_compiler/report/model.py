"""The report, schema `mofa-report/2`: what a run did to a network, made once, read by everything that renders it.

The same models write `report.json` and read it back, and `mofa report --schema` prints them as a JSON schema. Numbers
that JSON does not have are null. What a key means stands below it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from .measured import Decisions, Measurement, Quality, Recovery
from .part import Number, Part
from .structure import Structure, check_structure

SCHEMA = "mofa-report/2"

IMAGES = "images"
"""The folder in a bundle that has the images before and after"""


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
    quality: Quality | None = None
    """As it was rewritten, on held-out inputs; null where there are none"""
    validation: Quality | None = None
    """The same on a validation set of the user's"""

    @model_validator(mode="after")
    def _stages_are_known(self) -> Self:
        known = {stage.name for stage in self.before.stages}
        check_structure(self.structure, {one.name: one.level for one in self.anatomy.stages if one.name in known})
        return self
