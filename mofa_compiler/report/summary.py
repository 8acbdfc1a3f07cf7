"""What a report comes to, in the few numbers by which networks are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from ..base import words
from ..base.significance import verdict, widened
from . import decided, text


def summary(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The numbers of a report under a name:

    - `name`, `model`, `roadmap`, `inputs`: text; `inputs` as in `1x3x256x256`
    - `original`, `rewritten`: `{"parameters", "macs", "error", "psnr"}`: `error` is the output's, relative to the
      original's, and null where training has changed the weights since; `psnr` is against the ground truth, in dB, and
      null where there is none
    - `weights`: where they come from, in words; empty where that is not known
    - `trained`: whether training has changed the weights since the rewrite
    - `psnr_on`: of what images `psnr` is the mean; empty where it is unknown
    - `psnr_to_original`: of the rewritten network's output, in dB, or null: equal outputs have none
    - `quality_on`: on what images or inputs `error` and `psnr_to_original` were measured
    - `latency`: `[{"engine", "version", "threads", "processor", "original_ms", "rewritten_ms", "ratio", "interval",
      "input", "verdict"}]`: `ratio` is rewritten ÷ original, `interval` its 95 % interval, widened by the noise of the
      measurement, and `verdict` is `faster`, `slower` or `inside the noise`
    """
    before, after = report["before"], report["after"]
    original: dict[str, Any] = {"parameters": before["parameters"], "macs": before["macs"], "error": 0.0, "psnr": None}
    rewritten: dict[str, Any] = {"parameters": after["parameters"], "macs": after["macs"], "error": 0.0, "psnr": None}
    between, measured_on = None, ""
    if report["passes"]:
        verdict = report["passes"][-1]["verdict"]
        rewritten["error"], between, measured_on = verdict["accumulated"], verdict["psnr"], verdict["measured_on"]
    images = [one["psnr"] for one in report.get("images") or () if one["psnr"]["rewritten"] is not None]
    psnr_on = ""
    if images:
        shown = [one for one in report["images"] if one["psnr"]["rewritten"] is not None]
        psnr_on = ", ".join(f"{one['name']} {'x'.join(map(str, one['size']))}" for one in shown)
        original["psnr"], rewritten["psnr"] = (_mean(one[key] for one in images) for key in ("original", "rewritten"))
    pictured = _mean(one["psnr"]["between"] for one in report.get("images") or ())
    trained = [one for one in report.get("recoveries") or () if one["best_step"]]
    if trained:
        last = trained[-1]
        # The verdicts are of the weights before training; images are of those now.
        rewritten["error"], between, measured_on = None, pictured, "" if pictured is None else "images in the bundle"
        if last["psnr_original"] is None:
            between, measured_on = last["psnr_after"], "validation examples"
        else:
            original["psnr"], rewritten["psnr"] = last["psnr_original"], last["psnr_after"]
            psnr_on = "validation examples of its recovery"
    return {
        "name": name,
        "model": report["model"],
        "roadmap": report["roadmap"]["name"],
        "inputs": text.shapes(report),
        "original": original,
        "rewritten": rewritten,
        "weights": _weights(report),
        "trained": bool(trained),
        "psnr_on": psnr_on,
        "psnr_to_original": between,
        "quality_on": measured_on,
        "latency": latencies(report),
    }


def _weights(report: Mapping[str, Any]) -> str:
    """`net.pth, calibrated and trained`."""
    checkpoint = report.get("checkpoint")
    if checkpoint is None:
        return ""
    since = [
        *(["calibrated"] if any(step["name"] == "calibration" for step in report["passes"]) else []),
        *(["trained"] if any(one["best_step"] for one in report.get("recoveries") or ()) else []),
    ]
    origin = checkpoint or "those that the network is built with"
    return ", ".join(filter(None, (origin, " and ".join(since))))


def latencies(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured of the whole network: after the rewrite, and where a roadmap was decided by measuring."""
    found = []
    for one in report.get("measurements") or ():
        keys = ("engine", "version", "threads", "processor", "original_ms", "rewritten_ms", "ratio", "verdict")
        interval = list(widened(one["interval"], one.get("control")))  # reports of early versions lack it
        found.append({**{key: one[key] for key in keys}, "interval": interval, "input": shape_text(one["input"])})
    decisions = report.get("decisions")
    final = decided.final(decisions) if decisions else None
    if decisions and final:
        conditions = decisions["conditions"]
        found.append(
            {
                **{key: conditions[key] for key in ("engine", "version", "threads", "processor")},
                "original_ms": final["original_ms"],
                "rewritten_ms": final["ms"],
                "ratio": final["ratio"],
                "interval": list(widened(final["interval"], final["control"])),
                "input": shape_text(conditions["input"]),
                "verdict": verdict(final["interval"], final["control"]),
            }
        )
    unique: dict[tuple[str, str, int, str, str], dict[str, Any]] = {}
    for one in found:  # a measurement of the bundle itself goes before what was measured when it was decided
        unique.setdefault(condition(one), one)
    return list(unique.values())


def condition(latency: Mapping[str, Any]) -> tuple[str, str, int, str, str]:
    """Where a time was measured: times are comparable only where this is the same."""
    engine, version, threads = latency["engine"], latency["version"], latency["threads"]
    return engine, version, threads, latency["input"], latency["processor"]


def condition_text(where: tuple[str, str, int, str, str]) -> str:
    """`xnnpack 1.0.1, 1 thread, 1x3x256x256, Cortex-A76`."""
    engine, version, threads, shape, processor = where
    return ", ".join(filter(None, (f"{engine} {version}".strip(), words.count(threads, "thread"), shape, processor)))


def shape_text(given: Any) -> str:
    """An input as text, of a shape or shapes as lists also."""
    if isinstance(given, str):
        return given
    if given and all(isinstance(size, int) for size in given):
        return "x".join(map(str, given))
    return ", ".join(shape_text(one.get("shape") if isinstance(one, Mapping) else one) for one in given or ())


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if any(value is None for value in known) or not known else fmean(v for v in known if v is not None)
