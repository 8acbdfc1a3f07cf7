"""`apply`: a model and a roadmap in, a rewritten model with its weights and a report out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, fx, nn

from .analysis.anatomy import infer
from .analysis.network import Network, Totals
from .base.errors import CalibrationError, RoadmapError
from .base.progress import Progress
from .base.torch_state import in_normal_mode, own_randomness
from .bundle.original import digest
from .frontend.accepting import check_model
from .frontend.capture import capture
from .frontend.state import copied, real_device
from .graph.call_spec import CallSpec, ExampleInputs, InputSpec, example_call, map_tree, specs
from .graph.program import Program
from .loading.wrappers import unwrapped
from .numerics.finite import check_weights, warn_of_values
from .result.verdict import Verdict
from .rewriting.diff import Diff
from .rewriting.engine import rewrite
from .rewriting.pass_api import Lowering, Pass
from .rewriting.roadmap import Roadmap

if TYPE_CHECKING:
    from .autotune import Decisions
    from .calibration import Calibration
    from .data import Sample
    from .distillation import Recovery
    from .report.pictures import Picture

Fate = Literal["kept", "compensated", "calibrated", "rewritten", "dropped"]


@dataclass(frozen=True)
class KeyFate:
    """What became of one state_dict key of the original model."""

    keys: tuple[str, ...]
    fate: Fate


class Result:
    """What `apply` returns.

    Attributes:
        model: the rewritten network, a trainable `torch.fx.GraphModule` that shares nothing with the input model.
        roadmap: the passes that were carried out.
        diffs: one report a pass, in order.
        original, rewritten: the networks before the first and after the last pass, as they were when `apply` ran.
        networks: all of them: before the first pass and after each one.
        example: the example inputs.
        evaluation: inputs that verification measures on, if there are better ones than the example.
        channel_orders: how calibration permuted channels of the original (see `mofa_compiler.calibration`).
        decisions: what was measured on the roadmap's target and chosen by it, if it had one.
        samples: images that the report shows, if there are any.
        checkpoint: what the original's weights were read from, in words, for the report; empty where they are those
            that it is built with, None where that is not known.
        original_digest: of the weights that the original had, in hexadecimal (see `mofa_compiler.bundle.original`).
        recoveries: how `model` was trained by `recover` since, one entry a call.
    """

    evaluation: Sequence[CallSpec] | None = None
    channel_orders: Mapping[int, tuple[int, ...]] = MappingProxyType({})
    decisions: Decisions | None = None
    samples: Sequence[Sample] = ()
    checkpoint: str | None = None
    original_digest: str = ""

    def __init__(self, roadmap: Roadmap, networks: Sequence[Network], diffs: Sequence[Diff], example: CallSpec):
        self.roadmap = roadmap
        self.diffs = tuple(diffs)
        self.original, self.rewritten = networks[0], networks[-1]
        self.networks, self.example = tuple(networks), example
        self._verdicts: tuple[Verdict, ...] | None = None
        self.model: fx.GraphModule = copy.deepcopy(self.rewritten.program.graph_module)
        self.recoveries: tuple[Recovery, ...] = ()

    def __repr__(self) -> str:
        from .report.notebook import line

        return line(self)

    def _repr_html_(self) -> str:
        from .report.notebook import table

        return table(self)

    @property
    def before(self) -> Totals:
        """Parameters and MACs of the original."""
        return self.original.totals

    @property
    def after(self) -> Totals:
        """Parameters and MACs of the rewritten network."""
        return self.rewritten.totals

    @cached_property
    def aligned(self) -> Network:
        """The original with its channels in the order that they have in the rewritten network: it computes the same."""
        from .calibration import in_order

        return Network(in_order(self.original.program, self.channel_orders), self.original.anatomy)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Shapes and dtypes of the tensors among the example inputs."""
        return self.original.program.inputs

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What was promised exact, checked, and how far each pass moved the output; runs the networks on first use."""
        return self._verdicts if self._verdicts is not None else self.verify()

    def verify(
        self, progress: Progress | None = None, inputs: Iterable[Any] | None = None, name: str = "given input"
    ) -> tuple[Verdict, ...]:
        """Measure anew; `verdicts` and `report` say from then on what came out.

        Args:
            progress: told about every network that is run.
            inputs: batches to run the networks on, tensors or tuples of arguments; by default `evaluation`, without
                that the example input.
            name: what the report calls one of them, perhaps with where they come from in parentheses.

        Raises:
            VerificationError: there are no inputs, or the network does not take them.
        """
        from .verification.per_pass import judge

        with real_device():
            self._verdicts = judge(self, inputs, name, progress, self._verdicts)
        return self._verdicts

    @cached_property
    def keymap(self) -> Mapping[str, KeyFate]:
        """Every state_dict key of the original model: the keys that it became, and how."""
        before = self.original.program.state()
        after = self.rewritten.program.state()
        below: dict[str, list[str]] = {}
        for key in after:
            parts = key.split(".")
            for end in range(1, len(parts)):
                below.setdefault(".".join(parts[:end]), []).append(key)
        edits = [edit for diff in self.diffs for edit in diff.edits]
        compensated = {edit.path for edit in edits if edit.fate == "compensated"}
        fitted = {edit.path for edit in edits if edit.fate in ("calibrated", "reordered")}
        calibrated = self.original.program.aliases(fitted)
        fates = {}
        for key, tensor in before.items():
            owner = key.rpartition(".")[0]
            if after.get(key) is tensor:
                fates[key] = KeyFate((key,), "kept")
            elif key in after:
                adjusted: Fate = "compensated" if owner in compensated else "rewritten"
                fates[key] = KeyFate((key,), "calibrated" if {owner, key} & calibrated else adjusted)
            elif owner not in below or (owner in compensated and f"{owner}.weight" in after):
                fates[key] = KeyFate((), "dropped")
            else:
                fates[key] = KeyFate(tuple(below[owner]), "rewritten")
        for key, weight in self.original.program.folded.items():
            became = fates[weight]
            fates[key] = KeyFate(became.keys, "rewritten" if became.fate == "kept" else became.fate)
        for weight in set(self.original.program.folded.values()):
            del fates[weight]
        return fates

    @property
    def report(self) -> dict[str, Any]:
        """The whole report as plain data, as `report.json` holds it."""
        from .report.data import report

        return report(self, self.pictures()).to_data()

    def pictures(self) -> list[Picture]:
        """`samples` through the original and through `model`, with the weights that it has now."""
        from .report.pictures import pictures

        return pictures(self.original.program.graph_module, self.model, self.samples)

    def save(self, directory: str | Path, *, overwrite: bool = True, progress: Progress | None = None) -> Path:
        """Write a bundle: source, weights, recipe, key map and reports (see `mofa_compiler.bundle`).

        Raises:
            BundleError: the folder exists and is not a bundle (or is one and `overwrite` is off), or the network holds
                a module whose source cannot be written.
        """
        from .bundle import save

        return save(self, Path(directory), overwrite=overwrite, progress=progress)


@in_normal_mode
@real_device()
def apply(
    model: nn.Module,
    roadmap: str | Path | Roadmap | Iterable[Pass],
    example_inputs: ExampleInputs = None,
    calibration: str | Path | Iterable[Any] | Calibration | None = None,
    *,
    max_loss: float | None = None,
    to_save: bool = False,
    compare: bool = True,
    progress: Progress | None = None,
) -> Result:
    """Carry out a roadmap on a copy of `model`.

    Args:
        model: any module that `capture` takes, on any device, in train or eval mode; it is not modified. Of a wrapped
            one (torch.compile, DataParallel, AveragedModel) it is the network inside that is rewritten.
        roadmap: a preset's name, a TOML file's path, a `Roadmap` or a list of passes. One with a target is decided
            by measurement on that engine first; `Result.roadmap` is what came of it, `Result.decisions` why.
        example_inputs: as for `capture`: a tensor, a sequence of arguments, or a mapping of keyword arguments; by
            default (1, C, 256, 256) for the first convolution.
        calibration: inputs like those that the network will meet, on which the rewritten one is fitted to the original:
            an iterable of batches (tensors, or tuples of arguments); for a network of one image also a folder of
            images, a `.npy` file of inputs, or `synthetic`; or a `Calibration`, which has settings. The result then
            has one more diff, "calibration", behind the passes and before the lowerings. Without it, weights are
            inherited in closed form, without data.
        max_loss: for a roadmap with a target: layers are rewritten, cheapest gain per dB first, until the calibrated
            network's PSNR on held-out pairs is this many dB below the original's. Needs a calibration on images with
            a degradation, which knows the clean ones.
        compare: as for `capture`.
        to_save: the result is to be saved as a bundle: refuse before the work what `Result.save` would refuse after it.
        progress: told before every step.

    A frozen weight (`requires_grad` off) stays frozen in whatever layer it ends up: what is made of several layers is
    frozen if it is so in all of them, weights and biases each for themselves. Parameters of the result can be trained,
    also where it was called under `torch.inference_mode()`.

    Raises:
        BundleError: with `to_save`, for a network that no bundle can hold.
        CaptureError, AnatomyError, RoadmapError, RewriteError, DataError, CalibrationError, EngineError: as their
            docstrings say; nothing is half done.
    """
    if not isinstance(roadmap, Roadmap):
        roadmap = Roadmap.load(roadmap) if isinstance(roadmap, (str, Path)) else Roadmap(roadmap)
    tell = progress or (lambda *_: None)
    model = unwrapped(model)
    check_model(model)
    check_weights(model)
    tell("capturing", 0, len(roadmap) + 1)
    program = capture(copied(model), example_inputs, compare=compare)
    original_digest = digest(model)
    settings = None if calibration is None else _calibration(calibration, program)
    network = Network(program, infer(program))
    if to_save:
        from .bundle import obstacles

        obstacles.refuse(network, roadmap)
    call = example_call(model, example_inputs).example(device=program.device)
    args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, lambda t: t.detach().clone().to(program.device))
    example = CallSpec(args, kwargs)
    warn_of_values(network, example)
    decisions = None
    if roadmap.target is not None:
        roadmap, decisions = _decided(model, network, roadmap, example_inputs, settings, max_loss, tell)
    elif max_loss is not None:
        raise RoadmapError("max_loss bounds what a target is decided for: give the roadmap one (with_target)")
    steps = len(roadmap) + 1
    networks, diffs = [network], []
    passes = [pass_ for pass_ in roadmap if not isinstance(pass_, Lowering)]
    for index, (after, diff) in enumerate(_passes(network, passes), 1):
        tell(diff.pass_name, index, steps)
        networks.append(after)
        diffs.append(diff)
    calibrated = None
    if settings is not None and passes:  # without a pass there is nothing to fit
        from .calibration import calibrate

        calibrated = calibrate(settings, networks, lambda other: [n for n, _ in _passes(other, passes)], tell)
        networks[1:] = calibrated.networks
        diffs.append(calibrated.diff)
    for index, (after, diff) in enumerate(_passes(networks[-1], roadmap.passes[len(passes) :]), len(passes) + 1):
        tell(diff.pass_name, index, steps)
        networks.append(after)
        diffs.append(diff)
    tell("done", steps, steps)
    result = Result(roadmap, networks, diffs, example)
    result.decisions, result.original_digest = decisions, original_digest
    if calibrated is not None:
        result.evaluation, result.channel_orders = calibrated.evaluation, calibrated.orders
    if settings is not None:
        result.samples = settings.samples(result.evaluation or ())
    return result


def _decided(
    model: nn.Module,
    network: Network,
    roadmap: Roadmap,
    example_inputs: ExampleInputs,
    calibration: Calibration | None,
    max_loss: float | None,
    tell: Progress,
) -> tuple[Roadmap, Decisions]:
    """The roadmap that a target's measurements come to."""
    from .autotune.quality_budget import Budget
    from .autotune.search import decide

    assert roadmap.target is not None
    call = example_call(model, example_inputs)
    if roadmap.target.shape is not None:
        call = _reshaped(call, roadmap.target.shape)
        program = capture(copied(model), call, compare=False)  # it was, at the example's size
        network = Network(program, network.anatomy)
    budget = None if max_loss is None else Budget(max_loss, calibration, tell)
    decided = decide(network, roadmap, call.example(device=network.program.device), tell, budget)
    return decided.roadmap, decided.decisions


def _reshaped(call: CallSpec, shape: tuple[int, ...]) -> CallSpec:
    """The call with its first tensor of another shape."""
    left = [shape]
    return specs(call).map(lambda spec: InputSpec(left.pop() if left else spec.shape, spec.dtype))


def _passes(network: Network, passes: Iterable[Pass]) -> Iterator[tuple[Network, Diff]]:
    """The network and the diff after every pass."""
    for pass_ in passes:
        with own_randomness():
            network, diff = rewrite(network, pass_)  # new modules draw random weights before they are filled
        yield network, diff


def _calibration(given: str | Path | Iterable[Any] | Calibration, program: Program) -> Calibration:
    from .calibration import Calibration
    from .data import CalibrationImages

    if isinstance(given, Calibration):
        return given
    if not isinstance(given, (str, Path)):
        return Calibration(given)
    specs = program.inputs
    if len(specs) != 1 or len(specs[0].shape) != 4:
        raise CalibrationError(f"calibration={str(given)!r} is for networks of one image: pass batches of all inputs")
    return Calibration(CalibrationImages(given, channels=specs[0].shape[1]))
