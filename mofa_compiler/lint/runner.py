"""Running the rules: models in, findings out; what goes wrong with one model is a finding of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..analysis.network import Network
from ..base.errors import LintError, MofaError, nearest, one_line, source_line, source_place
from ..graph.call_spec import CallSpec, ExampleInputs, specs
from .finding import Finding, Linted, Position
from .rule import Rule, Subject
from .rules import RULES
from .rules.budgets import TooSlow
from .rules.failures import NoConvolutions, NotAnalysed, NotBuilt, NotTraced
from .settings import Settings

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One model to lint.

    Attributes:
        name: as findings have it.
        target: what it is built from, in words.
        build: makes it, and tells where its layers were made, by path.
        inputs: example inputs of a model; None for the compiler's choice.
        settings: which rules, with which thresholds and budgets.
        reference: makes what its latency is compared with.
        measure: whether fixes are timed on the engine, where that was not done before.
        debug: whether errors that nobody foresaw are raised, not found.
        files: where `build` puts the names of the files in which layers were made.
        args: of the target.
        checkpoint: file of its weights; empty where they are those that it is built with, None where that is unknown.
        calibration: makes calibration inputs for a network that is called so; None: there are none.
        blames: makes the error for a setting of this model that makes no sense, by its key.
    """

    name: str
    target: str
    build: Callable[[], tuple[nn.Module, Mapping[str, Position]]]
    inputs: Callable[[nn.Module], ExampleInputs]
    settings: Settings
    reference: Callable[[], nn.Module] | None = None
    measure: bool = False
    debug: bool = False
    files: set[str] = field(default_factory=set)
    args: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    calibration: Callable[[CallSpec], Iterable[Any]] | None = None
    blames: Callable[..., LintError] = lambda message, *key: LintError(
        f"{'.'.join(map(str, key))}: {message}", code="bad-value"
    )


@dataclass(frozen=True)
class Report:
    """What came of one job.

    Attributes:
        linted: the findings that count.
        subject: the model that they are of, where it could be traced.
        rules: those that ran.
        found: all findings, also those that do not count.
    """

    linted: Linted
    subject: Subject | None = None
    rules: Sequence[Rule] = ()
    found: Sequence[Finding] = ()


def lint_model(job: Job, tell: Tell = lambda _: None) -> Report:
    """Lint one model. Whatever fails is a 9xx finding.

    Raises:
        LintError: a setting makes no sense: an unknown engine, a budget for a stage that there is not.
    """
    start = time.perf_counter()
    rules = rules_for(job.settings, calibrated=job.calibration is not None)
    _check_latency(job)
    subject: Subject | None = None
    positions: Mapping[str, Position] = {}
    skipped: Counter[str] = Counter()
    try:
        with _unchanged():
            tell(f"{job.name}: building")
            model, positions = _built(job)
            tell(f"{job.name}: tracing")
            subject = _subject(job, model, positions)
            findings = list(_checked(job, subject, rules, tell))
            _check_stages(job, subject)
            if job.settings.engine is not None:
                findings = _timed(job, subject, rules, findings, skipped, tell)
    except _LintingError as failed:
        findings = [failed.finding(job, positions)]
    ran = {rule.code for rule in rules}
    findings = [finding for finding in findings if finding.code in ran]
    totals = subject.network.totals if subject else None
    linted = Linted(
        job.name,
        job.target,
        tuple(findings),
        dict(skipped),
        totals.parameters if totals else None,
        totals.macs if totals else None,
        {share.stage: share.macs for share in totals.stages} if totals else None,
        str(specs(subject.call)) if subject else "",
        seconds=time.perf_counter() - start,
    )
    return Report(linted, subject, rules, findings)


def rules_for(settings: Settings, *, calibrated: bool = False) -> list[Rule]:
    """The rules that are selected, with the thresholds that they take.

    Raises:
        LintError: one was selected by its whole code that needs an engine, or calibration inputs, and there is none.
    """
    given = {name: value for name, value in dict(settings.thresholds).items() if value is not None}
    given |= {"engine": settings.engine, "threads": settings.threads}
    found = []
    for code in settings.selected({code: kind.default for code, kind in RULES.items()}):
        kind = RULES[code]
        if kind.needs_engine and settings.engine is None:
            if any(selection.names(code) for selection in settings.selections):
                raise LintError(
                    f"{code} needs an engine: name one (engine, or --engine), or do not select it", code="needs-option"
                )
            continue
        if kind.needs_calibration and not calibrated:
            if any(selection.names(code) for selection in settings.selections):
                raise LintError(
                    f"{code} needs calibration inputs: give some (--calibrate), or leave it out",
                    code="needs-option",
                )
            continue
        names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        found.append(kind(**{name: given[name] for name in names if name in given}))
    return found


def _check_latency(job: Job) -> None:
    """Refuse a budget that would silently not be looked at."""
    key = job.settings.budgets.latency
    if key is None or not job.settings.selects(TooSlow.code, TooSlow.default):
        return
    if job.settings.engine is None or job.reference is None:
        missing = "an engine" if job.settings.engine is None else "the model's reference: a target or a bundle's folder"
        raise job.blames(f"needs {missing}", "budgets", *key)


class _LintingError(Exception):
    """A model that cannot be linted, by the rule that says so."""

    def __init__(self, rule: type[Rule], message: str, position: Position | None = None):
        super().__init__(message)
        self.rule, self.position = rule, position

    def finding(self, job: Job, positions: Mapping[str, Position]) -> Finding:
        return _told(self.rule, job.name, str(self), self.position or positions.get(""))


def _told(rule: type[Rule], name: str, message: str, position: Position | None) -> Finding:
    return Finding(rule.code, rule.name, name, "", rule.name, message, rule.level, position=position)


def _built(job: Job) -> tuple[nn.Module, Mapping[str, Position]]:
    with _blamed(NotBuilt, job):
        model, positions = job.build()
        return model.eval(), positions


def _subject(job: Job, model: nn.Module, positions: Mapping[str, Position]) -> Subject:
    from ..analysis.anatomy import infer
    from ..frontend import capture

    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise _LintingError(NotTraced, f"{kind} is TorchScript, which torch.fx cannot trace: lint what it was made of")
    has_layer = any(isinstance(module, _ConvNd) for module in model.modules())
    with _blamed(NotTraced if has_layer else NoConvolutions, job):
        # not compared with eager: running it takes longer than linting, and a fix is compared
        program = capture(model, job.inputs(model), compare=False)
    with _blamed(NotAnalysed, job):
        network = Network(program, infer(program))
        call = program.call
        if not network.layers and not network.functional:
            raise _LintingError(NoConvolutions, f"no convolution of {kind} runs on {call}: is it the right target?")
        calibration = None if job.calibration is None else job.calibration(call)
        return Subject(job.name, model, network, call, positions, job.settings.budgets, job.reference, calibration)


@contextlib.contextmanager
def _blamed(rule: type[Rule], job: Job) -> Iterator[None]:
    """Whatever is raised inside is a finding of this rule; with `debug`, what nobody foresaw is raised."""
    try:
        yield
    except (_LintingError, LintError):
        raise
    except MofaError as error:
        raise _LintingError(rule, str(error), _raised_at(error)) from error
    except (Exception, SystemExit) as error:
        if job.debug:
            raise
        raise _LintingError(rule, f"{one_line(error)}{source_line(error)}", _raised_at(error)) from error


def _raised_at(error: BaseException) -> Position | None:
    """The line of the model's own code that raised an error, or what it was made of; None where there is none."""
    cause: BaseException | None = error
    while cause is not None:
        place = source_place(cause)
        if place is not None:
            return Position(*place)
        cause = cause.__cause__
    return None


def _checked(job: Job, subject: Subject, rules: Sequence[Rule], tell: Tell) -> Iterator[Finding]:
    for rule in rules:
        tell(f"{job.name}: {rule.name}")
        try:
            yield from rule.check(subject)
        except (Exception, SystemExit) as error:
            if job.debug:
                raise
            yield failed(subject, f"rule {rule.code} ({rule.name})", error)


def failed(subject: Subject, what: str, error: BaseException) -> Finding:
    """The finding that something which was not the model's fault did not work."""
    message = f"{what} failed: {one_line(error)} (--debug shows where)"
    return _told(NotAnalysed, subject.name, message, subject.positions.get(""))


def _check_stages(job: Job, subject: Subject) -> None:
    known = [share.stage for share in subject.network.totals.stages]
    for name in subject.budgets.stages:
        if name not in known:
            raise job.blames(f"{name!r} is no stage of {job.name}{nearest(name, known)}", "budgets", "stages", name)


def _timed(
    job: Job, subject: Subject, rules: Sequence[Rule], findings: Sequence[Finding], skipped: Counter[str], tell: Tell
) -> list[Finding]:
    """The findings with what their fixes were measured to do.

    Where that is measured in this run, those whose fixes make the network slower are left out; not those of the family
    1xx, which spend time on purpose. What was remembered is only told, or findings would depend on the machine.
    """
    from .fixing import passes_for
    from .timing import Timing

    assert job.settings.engine is not None
    kept = list(findings)
    try:
        timing = Timing(job.settings.engine, job.settings.threads, subject)
        for rule in rules:
            mine = [finding for finding in findings if finding.code == rule.code and finding.fix is not None]
            passes = passes_for([rule], mine)
            if not mine or not passes:
                continue
            if job.measure:
                tell(f"{job.name}: measuring the fixes of {rule.code}")
            found = timing.measure(passes) if job.measure else timing.remembered(passes)
            if found is None:
                continue
            for finding in mine:
                assert finding.fix is not None
                place = kept.index(finding)
                if job.measure and found.interval[0] > 1 and not rule.code.startswith("MOFA1"):
                    del kept[place]
                    skipped[f"slower on {timing.engine}"] += 1
                else:
                    change = found.ms - found.original_ms
                    fix = replace(finding.fix, ratio=found.ratio, ms=change, engine=timing.engine)
                    kept[place] = replace(finding, fix=fix)
    except MofaError as error:
        kept.append(failed(subject, f"timing on {job.settings.engine}", error))
    return kept


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """What importing a model may change for the whole process is put back for the next one."""
    folder, dtype, device = os.getcwd(), torch.get_default_dtype(), torch.get_default_device()
    gradients = torch.is_grad_enabled()
    try:
        yield
    finally:
        os.chdir(folder)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(gradients)
