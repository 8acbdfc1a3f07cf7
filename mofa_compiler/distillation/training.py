"""The training loop: the rewritten network learns from the original, on one process or on many.

Both networks are in eval mode: what is trained is what will be used, it begins as what the rewrite made, and dropout
adds no noise. Batch normalization so keeps its running statistics and learns its scale and shift, and a step is the
same on any number of processes. The option `batch_statistics` has it normalize by the batch instead, where each process
uses its own share, and update its running statistics.

Nothing draws random numbers but the examples, and they depend on the seed and the step alone: a run that goes on from a
saved state takes the same steps as one that was never interrupted.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..analysis.fingerprint import checksum
from ..base.errors import RecoveryError, one_line
from ..result.recovery import Point
from . import run_state
from .batches import Feed
from .features import Tapped
from .loss import Loss, Scales, Values, check_targets
from .options import Options, Status
from .validation import Validation


class Average:
    """The exponential moving average of a network's parameters and buffers, as a network of its own.

    The decay begins small, (1 + n) / (10 + n) after n updates, so that the mean soon forgets where it began.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights that `model` has now; what is no floating-point number is copied."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for mean, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)


if TYPE_CHECKING:
    from accelerate import Accelerator

MEASURED = 16
"""Examples that the units of the errors are measured on"""
TOLD_EVERY = 0.2
"""Seconds between two calls of `progress`"""


@dataclass
class Course:
    """Where a run is, as far as it is not in the networks."""

    step: int = 0
    seconds: float = 0.0
    original: float | None = None
    history: list[Point] = field(default_factory=list)
    best_step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    """The state_dict with the highest PSNR, on the CPU; empty for the one that the run began with"""

    @property
    def best_psnr(self) -> float:
        return max((point.psnr for point in self.history), default=-math.inf)


class _Clock:
    """The seconds of a run, those of earlier sessions included, of which this one begins at some progress."""

    def __init__(self, before: float, progress: float):
        self.before, self.progress, self.began = before, progress, time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def left(self, progress: float) -> float | None:
        """Seconds to go at this session's pace."""
        made = progress - self.progress
        return (time.monotonic() - self.began) * (1 - progress) / made if made > 0 else None


class Trainer:
    """One run.

    Args:
        model: the rewritten network, trained in place; on return it has the weights of its last step.
        student, teacher: the two networks with their values at the ends of the stages; `student` shares everything
            with `model`.
        feed: examples.
        options: as asked for.
        accelerator: of Hugging Face accelerate.
        identity: what a run must have in common with one that it goes on from.
        folder: where the state is written, None for nowhere.
        progress: told where the run is, in the main process.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        student: Tapped,
        teacher: Tapped,
        feed: Feed,
        options: Options,
        accelerator: Accelerator,
        identity: Mapping[str, Any],
        folder: Path | None,
        progress: Callable[[Status], None] | None,
    ):
        self.model, self.student, self.teacher, self.feed = model, student, teacher, feed
        self.options, self.accelerator = options, accelerator
        self.identity, self.folder, self.tell = identity, folder, progress
        self.rows, rest = divmod(options.batch, accelerator.num_processes)
        if rest:
            number = accelerator.num_processes
            raise RecoveryError(
                f"a batch of {options.batch} cannot be shared by {number} processes: choose a multiple",
                code="bad-value",
            )
        self.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        self.course = Course()
        self.begun = checksum(model.state_dict())
        self.average = Average(model, options.ema) if options.ema else None

    def run(self) -> Course:
        """Train to the end, from the start or from the state in the folder.

        Raises:
            RecoveryError: the examples do not fit, the loss is no number any more, or the state is of another run.
        """
        saved = self._saved()
        scales = Scales(**saved["scales"]) if saved else self._scales()
        parameters = self._parameters(Loss(self.options, scales))
        trained = {id(parameter) for parameter in parameters}
        frozen = [p for p in self.student.parameters() if p.requires_grad and id(p) not in trained]
        for parameter in frozen:
            parameter.requires_grad_(False)  # DistributedDataParallel waits for what has no gradient
        try:
            self._run(saved, scales, parameters)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
        return self.course

    def _run(self, saved: dict[str, Any] | None, scales: Scales, parameters: list[nn.Parameter]) -> None:
        options, course = self.options, self.course
        optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)
        prepared, optimizer = self.accelerator.prepare(self.student, optimizer)
        self.validation = Validation(self.feed.validation, self.teacher, self.accelerator, self.rows, self.dtype)
        if saved:
            self._resume(saved, optimizer)
        else:
            if self.feed.paired:
                course.original = self.validation.psnr(None)
            course.history.append(Point(0, 0.0, math.nan, self.validation.psnr(self.model)))
        loss_of = Loss(options, scales)
        batches = self.feed.training.batches(
            course.step, self.rows, options.batch, self.rows * self.accelerator.process_index, options.workers
        )
        clock = _Clock(course.seconds, options.progress(course.step, course.seconds))
        total, counted, told = torch.zeros((), device=self.accelerator.device), 0, 0.0
        _set_modes(self.student, self.options.batch_statistics)
        while options.progress(course.step, course.seconds) < 1:
            for group in optimizer.param_groups:
                group["lr"] = options.rate(course.step, course.seconds)
            batch = next(batches).to(self.accelerator.device, self.dtype)
            with torch.no_grad(), self.accelerator.autocast():
                wanted = self.teacher(*batch.args, **batch.kwargs)
            loss = loss_of(prepared(*batch.args, **batch.kwargs), wanted, batch)
            self.accelerator.backward(loss)
            if options.clip:
                self.accelerator.clip_grad_norm_(parameters, options.clip)
            optimizer.step()
            optimizer.zero_grad()
            if self.average:
                self.average.update(self.model)
            total, counted = total + loss.detach(), counted + 1
            course.step += 1
            course.seconds = self._agreed(clock.seconds)
            done = options.progress(course.step, course.seconds)
            validating = done >= 1 or course.step % options.validate_every == 0
            if validating or course.step % options.save_every == 0:
                mean = self._finite(total / counted)
                if validating:
                    self._validate(mean)
                    total, counted = torch.zeros_like(total), 0
                self._save(optimizer, scales)
            if self.tell and self.accelerator.is_main_process and (clock.seconds - told > TOLD_EVERY or done >= 1):
                told = clock.seconds
                mean = float(total / counted) if counted else course.history[-1].loss
                psnr = course.history[-1].psnr
                self.tell(Status(course.step, done, told, clock.left(done), mean, psnr, course.best_psnr))

    # Preparation

    def _scales(self) -> Scales:
        batch = self.feed.training.batch(range(MEASURED)).to(self.accelerator.device, self.dtype)
        with torch.no_grad():
            values = self._fitting(lambda: self.teacher(*batch.args, **batch.kwargs))
        check_targets(values[0], batch)
        return Scales.measure(values, batch)

    def _parameters(self, loss_of: Loss) -> list[nn.Parameter]:
        """The parameters that the loss depends on and that are not frozen; where all are frozen, none counts."""
        if not any(parameter.requires_grad for parameter in self.student.parameters()):
            for parameter in self.student.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
        self.student.eval()
        batch = self.feed.training.batch(range(self.rows)).to(self.accelerator.device, self.dtype)
        with torch.no_grad():
            wanted = self.teacher(*batch.args, **batch.kwargs)
        loss = loss_of(self._fitting(lambda: self.student(*batch.args, **batch.kwargs)), wanted, batch)
        if not loss.requires_grad:
            raise RecoveryError("the loss depends on no parameter: there is nothing to train", code="no-data")
        torch.autograd.backward(loss)
        used = [parameter for parameter in self.student.parameters() if parameter.grad is not None]
        for parameter in used:
            parameter.grad = None
        return used

    def _fitting(self, run: Callable[[], Values]) -> Values:
        try:
            return run()
        except (RuntimeError, ValueError, TypeError) as error:
            raise RecoveryError(
                f"the network does not take the examples: {one_line(error)}", code="wrong-input"
            ) from error

    # On the way

    def _finite(self, loss: Tensor) -> float:
        """The mean over all processes of a loss that is a number."""
        mean = float(self.accelerator.reduce(loss, "mean"))
        if not math.isfinite(mean):
            raise RecoveryError(
                f"the loss is {mean} at step {self.course.step}: choose a smaller lr (--lr), a clip (--clip), or "
                "another precision",
                code="diverged",
            )
        return mean

    def _validate(self, loss: float) -> None:
        course = self.course
        model = self.average.model if self.average else self.model
        psnr = self.validation.psnr(model)
        if psnr > course.best_psnr:
            course.best_step = course.step
            course.best = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
        course.history.append(Point(course.step, course.seconds, loss, psnr))
        _set_modes(self.student, self.options.batch_statistics)

    def _agreed(self, seconds: float) -> float:
        """The main process's clock, where the schedule hangs on it."""
        if self.options.minutes is None or self.accelerator.num_processes == 1:
            return seconds
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor(seconds, dtype=torch.float64, device=self.accelerator.device)))

    # The state

    def _saved(self) -> dict[str, Any] | None:
        """What the main process finds in the folder, in every process."""
        found: list[Any] = [None]
        if self.folder is not None and self.accelerator.is_main_process:
            found = [run_state.read(self.folder)]
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(found)
        if found[0] is not None and self.folder is not None:
            run_state.check(self.folder, found[0]["identity"], self.identity)
            known = (found[0]["begun"], checksum(found[0]["course"]["best"]))
            if self.begun not in known:  # the bundle may have the best already, when it was killed in the end
                run_state.refuse(self.folder, "weights to begin with")
        saved: dict[str, Any] | None = found[0]
        return saved

    def _resume(self, saved: dict[str, Any], optimizer: Any) -> None:
        course = saved["course"]
        history = [Point(**point) for point in course.pop("history")]
        self.course.__dict__.update(course, history=history)
        self.model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if self.average and saved["average"]:
            self.average.model.load_state_dict(saved["average"])
            self.average.updates = saved["updates"]
        if self.accelerator.scaler is not None and saved["scaler"]:
            self.accelerator.scaler.load_state_dict(saved["scaler"])

    def _save(self, optimizer: Any, scales: Scales) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        history = [asdict(point) for point in self.course.history]
        document = {
            "identity": dict(self.identity),
            "begun": self.begun,
            "course": {**self.course.__dict__, "history": history},
            "scales": asdict(scales),
            "model": self.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "updates": self.average.updates if self.average else 0,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        run_state.write(self.folder, document)


def _set_modes(student: nn.Module, batch_statistics: bool) -> None:
    student.eval()
    for module in student.modules():
        if isinstance(module, _BatchNorm):
            module.train(batch_statistics)
