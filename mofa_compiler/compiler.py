"""`apply`: a model and a roadmap in, a rewritten model with its weights and a report out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, fx, nn

from .anatomy import infer
from .diff import Diff
from .errors import MofaError, RewriteError
from .inputs import CallSpec, ExampleInputs, InputSpec, example_call, map_tree
from .network import Network, Totals
from .rewriting import Pass, rewrite
from .roadmap import Roadmap
from .tracing.capturing import capture
from .tracing.state import copied
from .verification.verdict import Verdict

if TYPE_CHECKING:
    from .recovery import Recovery

Progress = Callable[[str, int, int], None]
"""Called before each step with what it is, how many are done, and how many there are."""


@dataclass(frozen=True)
class KeyFate:
    """What became of one state_dict key of the original model."""

    keys: tuple[str, ...]
    fate: Literal["kept", "compensated", "rewritten", "dropped"]


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
        recoveries: how `model` was trained by `recover` since, one entry a call.
    """

    evaluation: Sequence[CallSpec] | None = None

    def __init__(self, roadmap: Roadmap, networks: Sequence[Network], diffs: Sequence[Diff], example: CallSpec):
        self.roadmap = roadmap
        self.diffs = tuple(diffs)
        self.original, self.rewritten = networks[0], networks[-1]
        self.networks, self.example = tuple(networks), example
        self._verdicts: tuple[Verdict, ...] | None = None
        self.model: fx.GraphModule = copy.deepcopy(self.rewritten.program.graph_module)
        self.recoveries: tuple[Recovery, ...] = ()

    @property
    def before(self) -> Totals:
        """Parameters and MACs of the original."""
        return self.original.totals

    @property
    def after(self) -> Totals:
        """Parameters and MACs of the rewritten network."""
        return self.rewritten.totals

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
        from .verification.judging import judge

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
        compensated = {edit.path for diff in self.diffs for edit in diff.edits if edit.fate == "compensated"}
        fates = {}
        for key, tensor in before.items():
            owner = key.rpartition(".")[0]
            if after.get(key) is tensor:
                fates[key] = KeyFate((key,), "kept")
            elif key in after:
                fates[key] = KeyFate((key,), "compensated" if owner in compensated else "rewritten")
            elif owner not in below or (owner in compensated and f"{owner}.weight" in after):
                fates[key] = KeyFate((), "dropped")
            else:
                fates[key] = KeyFate(tuple(below[owner]), "rewritten")
        return fates

    @property
    def report(self) -> dict[str, Any]:
        """The whole report as plain data, as `report.json` holds it."""
        from .report.data import report

        return report(self)

    def save(self, directory: str | Path, *, overwrite: bool = True, progress: Progress | None = None) -> Path:
        """Write a bundle: source, weights, recipe, key map and reports (see `mofa_compiler.bundle`).

        Raises:
            BundleError: the folder exists and is not a bundle (or is one and `overwrite` is off), or the network holds
                a module whose source cannot be written.
        """
        from .bundle import save

        return save(self, Path(directory), overwrite=overwrite, progress=progress)


def apply(
    model: nn.Module,
    roadmap: str | Path | Roadmap | Iterable[Pass],
    example_inputs: ExampleInputs = None,
    calibration: Iterable[Any] | None = None,
    *,
    progress: Progress | None = None,
) -> Result:
    """Carry out a roadmap on a copy of `model`.

    Args:
        model: any module that `capture` takes, on any device, in train or eval mode; it is not modified.
        roadmap: a preset's name, a TOML file's path, a `Roadmap` or a list of passes.
        example_inputs: as for `capture`: a tensor, a sequence of arguments, or a mapping of keyword arguments; by
            default (1, C, 256, 256) for the first convolution.
        calibration: not available yet; weights are inherited in closed form, without data.
        progress: told before every step.

    Raises:
        CaptureError, AnatomyError, RoadmapError, RewriteError: as their docstrings say; nothing is half done.
    """
    if calibration is not None:
        raise MofaError("calibration with images is not available in this version: leave calibration out")
    if not isinstance(roadmap, Roadmap):
        roadmap = Roadmap.load(roadmap) if isinstance(roadmap, (str, Path)) else Roadmap(roadmap)
    tell = progress or (lambda *_: None)
    steps = len(roadmap) + 1
    _check_weights(model)
    tell("capturing", 0, steps)
    program = capture(copied(model), example_inputs)
    network = Network(program, infer(program))
    networks, diffs = [network], []
    cuda = [program.device] if program.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # new modules draw random weights before they are filled
        for index, pass_ in enumerate(roadmap, 1):
            tell(pass_.name, index, steps)
            network, diff = rewrite(network, pass_)
            networks.append(network)
            diffs.append(diff)
    tell("done", steps, steps)
    call = example_call(model, example_inputs).example(device=program.device)
    args, kwargs = map_tree((call.args, dict(call.kwargs)), Tensor, lambda t: t.detach().clone().to(program.device))
    example = CallSpec(args, kwargs)
    return Result(roadmap, networks, diffs, example)


def _check_weights(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise RewriteError(f"{name} is not initialized: run the model once before it is rewritten")
        if tensor.is_meta:
            raise RewriteError(f"{name} is on the meta device and has no values: load weights first")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RewriteError(
                f"{name} holds NaN or infinite values, which a rewrite would spread: repair or reload the weights"
            )
