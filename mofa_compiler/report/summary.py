"""What a report comes to, in the few numbers by which networks are compared."""

from __future__ import annotations

from ..base import words
from ..base.precision import in_precision
from ..base.significance import verdict, widened
from . import text
from .measured import Measurement, Place
from .model import Amounts, Report
from .part import Interval, Number, Part


class Figures(Amounts):
    """Of one network."""

    error: Number
    """Of the output, relative to the original's; null where training has changed the weights since"""
    psnr: Number
    """In dB, against the ground truth; null where there is none"""


class Latency(Place):
    """A time under the conditions beside it."""

    input: str
    original_ms: float
    rewritten_ms: float
    ratio: float
    """Rewritten ÷ original"""
    interval: Interval
    """Its 95 % interval, widened by the noise of the measurement"""
    verdict: str
    """`faster`, `slower` or `inside the noise`"""

    @property
    def condition(self) -> tuple[str, str, int, str, str]:
        """Where it was measured: times are comparable only where this is the same."""
        version = self.version + in_precision(self.precision)
        return self.engine, version, self.threads, self.input, self.processor


class Summary(Part):
    """The numbers of a report under a name."""

    name: str
    model: str
    roadmap: str
    inputs: str
    """As in `1x3x256x256`"""
    original: Figures
    rewritten: Figures
    weights: str
    """Where they come from, in words; empty where that is not known"""
    trained: bool
    """Whether training has changed the weights since the rewrite"""
    psnr_on: str
    """Of what images `psnr` is the mean; empty where it is unknown"""
    psnr_to_original: Number
    """Of the rewritten network's output, in dB; equal outputs have none"""
    quality_on: str
    """On what images or inputs `error` and `psnr_to_original` were measured"""
    latency: tuple[Latency, ...]


def summary(report: Report, name: str) -> Summary:
    """The numbers of a report under a name."""
    error: float | None = 0.0
    between, measured_on = None, ""
    if report.passes:
        last_verdict = report.passes[-1].verdict
        error, between, measured_on = last_verdict.accumulated, last_verdict.psnr, last_verdict.measured_on
    shown = [one for one in report.images if one.psnr.rewritten is not None]
    psnr_on = ", ".join(f"{one.name} {'x'.join(map(str, one.size))}" for one in shown)
    psnrs = text.mean(one.psnr.original for one in shown), text.mean(one.psnr.rewritten for one in shown)
    pictured = text.mean(one.psnr.between for one in report.images)
    trained = [one for one in report.recoveries if one.best_step]
    if trained:
        last = trained[-1]
        # The verdicts are of the weights before training; images are of those now.
        error, between, measured_on = None, pictured, "" if pictured is None else "images in the bundle"
        if last.psnr_original is None:
            between, measured_on = last.psnr_after, "validation examples"
        else:
            psnrs = last.psnr_original, last.psnr_after
            psnr_on = "validation examples of its recovery"
    before, after = report.before, report.after
    return Summary(
        name=name,
        model=report.model,
        roadmap=report.roadmap.name,
        inputs=text.shapes(report.inputs),
        original=Figures(parameters=before.parameters, macs=before.macs, error=0.0, psnr=psnrs[0]),
        rewritten=Figures(parameters=after.parameters, macs=after.macs, error=error, psnr=psnrs[1]),
        weights=_weights(report),
        trained=bool(trained),
        psnr_on=psnr_on,
        psnr_to_original=between,
        quality_on=measured_on,
        latency=tuple(latencies(report)),
    )


def _weights(report: Report) -> str:
    """`net.pth, calibrated and trained`."""
    if report.checkpoint is None:
        return ""
    since = [
        *(["calibrated"] if any(step.name == "calibration" for step in report.passes) else []),
        *(["trained"] if any(one.best_step for one in report.recoveries) else []),
    ]
    origin = report.checkpoint or "those that the network is built with"
    return ", ".join(filter(None, (origin, " and ".join(since))))


def latencies(report: Report) -> list[Latency]:
    """What was measured of the whole network: after the rewrite, and where a roadmap was decided by measuring."""
    unique: dict[tuple[str, str, int, str, str], Latency] = {}
    # A measurement of the bundle itself goes before what was measured when it was decided.
    for one in (*report.measurements, *decided_measurement(report)):
        found = Latency(
            engine=one.engine,
            version=one.version,
            processor=one.processor,
            threads=one.threads,
            input=shape_text(one.input),
            precision=one.precision,
            original_ms=one.original_ms,
            rewritten_ms=one.rewritten_ms,
            ratio=one.ratio,
            interval=widened(one.interval, one.control),
            verdict=one.verdict,
        )
        unique.setdefault(found.condition, found)
    return list(unique.values())


def decided_measurement(report: Report) -> tuple[Measurement, ...]:
    """What deciding came to, as a measurement; none where the original was left as it is."""
    final = None if report.decisions is None else report.decisions.final
    if report.decisions is None or final is None:
        return ()
    judged = verdict(final.interval, final.control)
    return (
        Measurement(
            **dict(report.decisions.conditions),
            original_ms=final.original_ms,
            rewritten_ms=final.ms,
            ratio=final.ratio,
            interval=final.interval,
            control=final.control,
            verdict=judged,
        ),
    )


def condition_text(where: tuple[str, str, int, str, str]) -> str:
    """`xnnpack 1.0.1, 1 thread, 1x3x256x256, Cortex-A76`."""
    engine, version, threads, shape, processor = where
    return ", ".join(filter(None, (f"{engine} {version}".strip(), words.count(threads, "thread"), shape, processor)))


def shape_text(given: str | tuple[tuple[int, ...], ...]) -> str:
    """Inputs as text."""
    return given if isinstance(given, str) else ", ".join("x".join(map(str, shape)) for shape in given)


def conditions(found: Place) -> str:
    """Where something was measured: `onnxruntime 1.32.0, 1 thread, input 1x3x64x64, AMD EPYC`."""
    threads = words.count(found.threads, "thread")
    shape = shape_text(found.input)
    engine = f"{found.engine} {found.version}{in_precision(found.precision)}"
    return f"{engine}, {threads}, input {shape}, {found.processor}"
