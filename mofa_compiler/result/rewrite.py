"""The record of a rewrite: the original, what each step made of it, and where it comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import fx

from ..analysis.network import Network, Totals
from ..data.samples import Sample
from ..graph.call_spec import CallSpec, InputSpec
from ..rewriting.diff import Diff
from ..rewriting.fate import FITTED, Fate
from ..rewriting.pass_api import Pass, Phase
from ..rewriting.roadmap import Roadmap
from .decisions import Decisions
from .quality import Quality
from .recovery import Recovery
from .verdict import Verdict


@dataclass(frozen=True)
class KeyFate:
    """What became of one state_dict key of the original model."""

    keys: tuple[str, ...]
    fate: Fate


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a rewrite.

    Attributes:
        pass_: what was carried out; None for the calibration, which fits weights and is no pass.
        diff: what it changed and left alone.
        network: as it was afterwards.
        verdict: how far the output moved, and whether promises were kept; None until that was measured.
    """

    pass_: Pass | None
    diff: Diff
    network: Network
    verdict: Verdict | None = None

    @property
    def name(self) -> str:
        return self.diff.pass_name


@dataclass(frozen=True)
class Provenance:
    """Where a rewritten network's weights come from, and what was done to them since.

    Attributes:
        checkpoint: what the original's weights were read from, in words, for the report; empty where they are those
            that it is built with, None where that is not known.
        original_digest: of the weights that the original had, in hexadecimal (see `mofa_compiler.bundle.original`).
        decisions: what was measured on the roadmap's target and chosen by it, if it had one.
        channel_orders: how calibration permuted channels of what the preparations left of the original (see
            `mofa_compiler.calibration`).
        recoveries: how the network was trained by `recover` since, one entry a call.
    """

    checkpoint: str | None = None
    original_digest: str = ""
    decisions: Decisions | None = None
    channel_orders: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    recoveries: tuple[Recovery, ...] = ()


@dataclass(frozen=True, eq=False)
class Rewrite:
    """What `apply` did. It does not change: `verify` and `recover` make new ones.

    Attributes:
        roadmap: the passes that were carried out.
        original: the network before the first step.
        steps: what each pass did, in order, and the calibration, if there was one.
        example: the example inputs.
        model: the rewritten network as users have it: it may have been trained since, and shares no weight with the
            networks of the steps.
        evaluation: inputs that verification measures on, if there are better ones than the example.
        samples: images that the report shows, if there are any.
        provenance: where the weights come from.
        quality: what it is worth on inputs that were held out of the calibration, if there are any.
        validation: what it is worth on a validation set of the user's, if there is one.
    """

    roadmap: Roadmap
    original: Network
    steps: tuple[Step, ...]
    example: CallSpec
    model: fx.GraphModule
    evaluation: Sequence[CallSpec] | None = None
    samples: Sequence[Sample] = ()
    provenance: Provenance = field(default_factory=Provenance)
    quality: Quality | None = None
    validation: Quality | None = None

    @property
    def networks(self) -> tuple[Network, ...]:
        """The network before the first step and after each one."""
        return (self.original, *(step.network for step in self.steps))

    @property
    def rewritten(self) -> Network:
        """The network after the last step."""
        return self.steps[-1].network if self.steps else self.original

    @property
    def prepared(self) -> Network:
        """The network after the preparations, which compute the same: what the others were fitted to."""
        made = [step.network for step in self.steps if step.pass_ and step.pass_.phase is Phase.PREPARE]
        return made[-1] if made else self.original

    @property
    def diffs(self) -> tuple[Diff, ...]:
        """What each step changed."""
        return tuple(step.diff for step in self.steps)

    @property
    def verdicts(self) -> tuple[Verdict, ...] | None:
        """What verification said of each step; None until it did."""
        found = tuple(step.verdict for step in self.steps if step.verdict is not None)
        return found if len(found) == len(self.steps) else None

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

    def with_verdicts(self, verdicts: Sequence[Verdict]) -> Rewrite:
        """The same with what verification said of each step."""
        pairs = zip(self.steps, verdicts, strict=True)
        return replace(self, steps=tuple(replace(step, verdict=verdict) for step, verdict in pairs))

    def with_channel_orders(self, orders: Mapping[int, tuple[int, ...]]) -> Rewrite:
        """The same with how calibration permuted the original's channels."""
        return replace(self, provenance=replace(self.provenance, channel_orders=orders))

    def with_recovery(self, recovery: Recovery, samples: Sequence[Sample]) -> Rewrite:
        """The same after one more training, with images for the report where there are none yet."""
        provenance = replace(self.provenance, recoveries=(*self.provenance.recoveries, recovery))
        return replace(self, samples=self.samples or samples, provenance=provenance)

    @cached_property
    def _copies(self) -> Mapping[str, Collection[str]]:
        """By path, those of the copies that preparations made of a layer."""
        steps = [step for step in self.steps if step.pass_ and step.pass_.phase is Phase.PREPARE]
        copied = [edit.path for step in steps for edit in step.diff.edits]
        modules = self.prepared.program.modules
        return {path: [one for one in modules if one.startswith(f"{path}.")] for path in copied}

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
        compensated = {edit.path for edit in edits if edit.fate is Fate.COMPENSATED}
        fitted = {edit.path for edit in edits if edit.fate in FITTED}
        calibrated = self.original.program.aliases(fitted)
        copies = self._copies
        fates = {}
        for key, tensor in before.items():
            owner, _, name = key.rpartition(".")
            if after.get(key) is tensor:
                fates[key] = KeyFate((key,), Fate.KEPT)
            elif key in after:
                adjusted: Fate = Fate.COMPENSATED if owner in compensated else Fate.REWRITTEN
                fates[key] = KeyFate((key,), Fate.CALIBRATED if {owner, key} & calibrated else adjusted)
            elif owner not in below or (owner in compensated and f"{owner}.weight" in after):
                fates[key] = KeyFate((), Fate.DROPPED)
            else:
                whole = [copy for copy in copies.get(owner, ()) if f"{copy}.{name}" in after]
                found = [k for k in below[owner] if k.endswith(f".{name}") or k.rpartition(".")[0] not in whole]
                fates[key] = KeyFate(tuple(found), Fate.REWRITTEN)
        for key, weight in self.original.program.folded.items():
            became = fates[weight]
            fates[key] = KeyFate(became.keys, Fate.REWRITTEN if became.fate is Fate.KEPT else became.fate)
        for weight in set(self.original.program.folded.values()):
            del fates[weight]
        return fates
