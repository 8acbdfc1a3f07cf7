"""What `apply` returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import fx

from ..analysis.network import Network, Totals
from ..base.progress import Progress
from ..bundle import save
from ..data import Sample, ValidationImages
from ..frontend.state import real_device
from ..graph.call_spec import CallSpec, InputSpec
from ..report.data import report
from ..report.notebook import line, table
from ..report.pictures import pictures_of
from ..result.decisions import Decisions
from ..result.quality import Quality
from ..result.recovery import Recovery
from ..result.rewrite import KeyFate, Rewrite, Step
from ..result.verdict import Verdict
from ..rewriting.diff import Diff
from ..rewriting.roadmap import Roadmap
from ..verification.per_pass import judge
from ..verification.validation import validated


class Result:
    """What `apply` returns: the rewritten network, the record of how it came about, and what can be done with both.

    Attributes:
        record: what was done, which does not change; `verify` and `recover` put a new one in its place.
    """

    def __init__(self, record: Rewrite):
        self.record = record

    def __repr__(self) -> str:
        return line(self.record)

    def _repr_html_(self) -> str:
        return table(self.record)

    @property
    def model(self) -> fx.GraphModule:
        """The rewritten network, a trainable `torch.fx.GraphModule` that shares nothing with the input model."""
        return self.record.model

    @property
    def roadmap(self) -> Roadmap:
        """The passes that were carried out."""
        return self.record.roadmap

    @property
    def steps(self) -> tuple[Step, ...]:
        """What each pass did, in order, and the calibration, if there was one."""
        return self.record.steps

    @property
    def diffs(self) -> tuple[Diff, ...]:
        """One report a step, in order."""
        return self.record.diffs

    @property
    def original(self) -> Network:
        """The network before the first pass, as it was when `apply` ran."""
        return self.record.original

    @property
    def rewritten(self) -> Network:
        """The network after the last pass, as it was when `apply` ran."""
        return self.record.rewritten

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network before the first pass and after each step."""
        return self.record.networks

    @property
    def example(self) -> CallSpec:
        """The example inputs."""
        return self.record.example

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Shapes and dtypes of the tensors among the example inputs."""
        return self.record.inputs

    @property
    def evaluation(self) -> Sequence[CallSpec] | None:
        """Inputs that verification measures on, if there are better ones than the example."""
        return self.record.evaluation

    @property
    def checkpoint(self) -> str | None:
        """What the original's weights were read from, in words, if that is known; empty where from nowhere."""
        return self.record.provenance.checkpoint

    @property
    def original_digest(self) -> str:
        """Of the weights that the original had, in hexadecimal."""
        return self.record.provenance.original_digest

    @property
    def channel_orders(self) -> Mapping[int, tuple[int, ...]]:
        """How calibration permuted channels of the original (see `mofa_compiler.calibration`)."""
        return self.record.provenance.channel_orders

    @property
    def recoveries(self) -> tuple[Recovery, ...]:
        """How `model` was trained by `recover` since, one entry a call."""
        return self.record.provenance.recoveries

    @property
    def samples(self) -> Sequence[Sample]:
        """Images that the report shows, if there are any."""
        return self.record.samples

    @property
    def decisions(self) -> Decisions | None:
        """What was measured on the roadmap's target and chosen by it, if it had one."""
        return self.record.provenance.decisions

    @property
    def before(self) -> Totals:
        """Parameters and MACs of the original."""
        return self.record.before

    @property
    def after(self) -> Totals:
        """Parameters and MACs of the rewritten network."""
        return self.record.after

    @property
    def keymap(self) -> Mapping[str, KeyFate]:
        """Every state_dict key of the original model: the keys that it became, and how."""
        return self.record.keymap

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What was promised exact, checked, and how far each pass moved the output; runs the networks on first use."""
        return self.verify() if self.record.verdicts is None else self.record.verdicts

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
        with real_device():
            found = judge(self.record, inputs, name, progress)
        self.record = self.record.with_verdicts(found)
        return found

    @property
    def report(self) -> dict[str, Any]:
        """The whole report as plain data, as `report.json` holds it."""
        record = self._verified()
        return report(record, pictures_of(record)).to_data()

    @property
    def quality(self) -> Quality | None:
        """What the network was worth on inputs held out of its calibration, before any training, if there are any."""
        return self.record.quality

    def evaluate(
        self, images: str | Path | ValidationImages, degradation: str | None = None, *, progress: Progress | None = None
    ) -> Quality:
        """What `model` is worth on a validation set beside the original; `report` says so from then on.

        Args:
            images: a folder with pairs in `input` and `target`, or of clean images with a degradation, or without one,
                where the original's output is what is compared with.
            degradation: what makes inputs of clean images, such as `gaussian:25`.
            progress: told before every image.

        Raises:
            DataError: the images cannot be read.
            VerificationError: a network takes something other than one image, or no part of one of these.
        """
        with real_device():
            self.record = validated(self.record, images, degradation, progress)
        assert self.record.validation is not None
        return self.record.validation

    def save(self, directory: str | Path, *, overwrite: bool = True, progress: Progress | None = None) -> Path:
        """Write a bundle: source, weights, recipe, key map and reports (see `mofa_compiler.bundle`).

        Raises:
            BundleError: the folder exists and is not a bundle (or is one and `overwrite` is off), or the network holds
                a module whose source cannot be written.
        """
        return save(self._verified(), Path(directory), overwrite=overwrite, progress=progress)

    def _verified(self) -> Rewrite:
        if self.record.verdicts is None:
            self.verify()
        return self.record
