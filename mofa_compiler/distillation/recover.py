"""`recover`: a rewritten network learns to do what the original does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..analysis.fingerprint import architecture_hash, checksum
from ..analysis.network import Network
from ..base.errors import RecoveryError, one_line
from ..base.torch_state import in_normal_mode, kept_modes, kept_randomness, own_randomness
from ..bundle.original import digest, short
from ..bundle.recipe import FILE, read_recipe
from ..bundle.updating import load_weights, update
from ..calibration import in_order
from ..calibration.settings import SHOWN
from ..compiler import Result
from ..frontend import capture
from ..frontend.state import copied
from ..graph.program import Program
from ..loading.wrappers import unwrapped
from ..reproduce.replay import replayed
from ..result.recovery import Recovery
from ..result.rewrite import Rewrite
from ..rewriting.engine import rewrite as carry_out
from . import run_state
from .batches import feed
from .features import Tapped, stage_ends
from .options import Options, Status
from .training import Course, Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator


@in_normal_mode
def recover(
    source: Result | str | Path,
    original: nn.Module,
    data: Any,
    *,
    validation: Any = None,
    degradation: Any = None,
    patch: int = 64,
    state_folder: str | Path | None = None,
    restart: bool = False,
    progress: Callable[[Status], None] | None = None,
    **options: Any,
) -> Recovery:
    """Train a rewritten network to do what the original does, and keep the weights with the best validation PSNR.

    It learns the original's features at the ends of the stages, its output, and the ground truth where that is known.
    It is in eval mode meanwhile, with batch normalization by its running statistics unless `batch_statistics` is on.
    Parameters that need no gradient stay as they are, unless none does. Under `accelerate launch` the same call trains
    on many processes.

    Args:
        source: what `apply` returned, whose `model` is trained in place; or a bundle's folder, whose weights are
            replaced in the end.
        original: the network that was rewritten, with its weights; it is not modified.
        data: a folder, as `mofa_compiler.data.pairs` takes it; or a torch Dataset or a sequence of inputs without batch
            axis, or of tuples of two: the input and what the network should return. An input is a tensor, a tuple of
            arguments, or a dict of them by name.
        validation: examples of the same kind; by default a tenth of `data`, at least one image, is set aside.
        degradation: makes the inputs, where the folder has clean images: "gaussian:25", "raw:800-6400", ….
        patch: side of the patches of a folder's images that the network is given, in pixels.
        state_folder: where the state of the run is kept, so that it goes on after an interruption; by default
            `<bundle>.recovery`, and nowhere for what `apply` returned. It is removed in the end.
        restart: begin anew, whatever an interrupted run has left there.
        progress: told where the run is, in the main process only.
        **options: steps, minutes, batch, lr, warmup, weight_decay, features, output, target, clip, mixed_precision,
            ema, batch_statistics, seed, validate_every, validation_examples, save_every, workers, cpu; see
            `distillation.options.Options`.

    Raises:
        BundleError: there is no bundle, or it was made from another architecture or from other weights.
        DataError, RecoveryError: an option, the data, or the state that a run should go on from does not fit.
    """
    settings = Options.of(options)
    teacher = copied(unwrapped(original)).eval()
    if isinstance(source, Result):
        rewrite, bundle = source.record, None
        program = _matching(teacher, rewrite)
    else:
        bundle = Path(source).expanduser().resolve()
        rewrite = replayed(read_recipe(bundle), teacher, str(bundle / FILE)).record
        load_weights(rewrite, bundle)
        program = rewrite.original.program
    folder = Path(state_folder) if state_folder else bundle.with_name(f"{bundle.name}.recovery") if bundle else None
    examples = feed(
        data,
        validation,
        rewrite.inputs,
        degradation=degradation,
        patch=patch,
        seed=settings.seed,
        crops=settings.validation_examples,
    )
    with kept_randomness(), _accelerating(settings) as accelerator, _placed(rewrite.model, accelerator.device):
        settings = replace(settings, mixed_precision=accelerator.mixed_precision)
        begun = {key: value.detach().cpu().clone() for key, value in rewrite.model.state_dict().items()}
        identity = {
            **settings.settings(),
            "original weights": checksum(teacher.state_dict()),
            **{f"data: {name}": str(value) for name, value in examples.description.items()},
            "data": examples.fingerprint,
        }
        if restart and folder and accelerator.is_main_process:
            run_state.remove(folder)
        ends = stage_ends(rewrite.original, rewrite.rewritten)
        trainer = Trainer(
            rewrite.model,
            Tapped(rewrite.model, rewrite.rewritten.program.graph, [end.rewritten for end in ends]),
            _tapped_teacher(program, rewrite, [end.original for end in ends], accelerator.device),
            examples,
            settings,
            accelerator,
            identity,
            folder,
            progress,
        )
        course = Course()
        try:
            course = trainer.run()
        finally:  # also where it fails, the model is as it was
            rewrite.model.load_state_dict(course.best or begun)
        recovery = _recovery(course, examples.description, settings)
        rewrite = rewrite.with_recovery(recovery, examples.samples(SHOWN))
        if isinstance(source, Result):
            source.record = rewrite
        if accelerator.is_main_process:
            if bundle:
                update(rewrite, bundle)
            if folder:
                run_state.remove(folder)
        accelerator.wait_for_everyone()
    return recovery


def _matching(original: nn.Module, rewrite: Rewrite) -> Program:
    """The graph of the original, which must be of the architecture that was rewritten."""
    program = capture(original, rewrite.original.program.call.example())
    if architecture_hash(program) != architecture_hash(rewrite.original.program):
        raise RecoveryError(
            f"this {type(original).__name__} is not of the architecture that was rewritten: pass the model that "
            "`apply` was given",
            code="other-original",
        )
    if (found := digest(original)) != rewrite.provenance.original_digest:
        raise RecoveryError(
            f"this {type(original).__name__} has other weights (sha256 {short(found)}) than the one that was rewritten "
            f"(sha256 {short(rewrite.provenance.original_digest)}): pass the model that `apply` was given, with its "
            "weights",
            code="other-original",
        )
    return program


def _tapped_teacher(program: Program, rewrite: Rewrite, nodes: list[str], device: torch.device) -> Tapped:
    """The original, prepared and with its channels in the order in which the rewritten network has them."""
    network = Network(program, rewrite.original.anatomy)
    for pass_ in rewrite.roadmap.by_phase[0]:
        network, _ = carry_out(network, pass_)
    program = in_order(network.program, rewrite.provenance.channel_orders)
    root = copy.deepcopy(program.graph_module).to(device)
    return Tapped(root, program.graph, nodes).eval().requires_grad_(False)


def _recovery(course: Course, data: Mapping[str, Any], settings: Options) -> Recovery:
    kept = next(point for point in course.history if point.step == course.best_step)
    return Recovery(
        steps=course.step,
        seconds=course.seconds,
        psnr_before=course.history[0].psnr,
        psnr_after=kept.psnr,
        psnr_original=course.original,
        best_step=course.best_step,
        history=tuple(course.history),
        data=dict(data),
        settings=settings.settings(),
    )


@contextmanager
def _accelerating(options: Options) -> Iterator[Accelerator]:
    """An accelerator for these options, which leaves no settings behind for the next one."""
    try:
        with warnings.catch_warnings(), own_randomness():  # importing it adds a filter and draws numbers
            from accelerate import Accelerator
            from accelerate.state import AcceleratorState
    except ImportError as error:
        raise RecoveryError(
            "recovery needs accelerate: pip install 'mofa-compiler[recover]'", code="not-installed"
        ) from error
    mine = not AcceleratorState._shared_state
    cpu = options.cpu or not torch.accelerator.is_available()  # unless told, accelerate keeps CPU processes apart
    try:
        try:
            accelerator = Accelerator(mixed_precision=options.mixed_precision, cpu=cpu)
        except (ValueError, RuntimeError) as error:
            raise RecoveryError(f"accelerate refuses these options: {one_line(error)}", code="bad-value") from error
        yield accelerator
    finally:
        if mine:
            AcceleratorState._reset_state()


@contextmanager
def _placed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """A model on a device, and afterwards where it was, with the modes and the frozen parameters that it had."""
    home = next((tensor.device for tensor in model.parameters()), device)
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.to(device)
    try:
        with kept_modes(model):
            yield
    finally:
        model.to(home)
        for parameter, wanted in trainable.items():
            parameter.requires_grad_(wanted)
