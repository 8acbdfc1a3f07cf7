"""Reports of networks that do not exist: as many layers as asked for, with names that try to break out of a page."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

HOSTILE = (
    "</script><script>document.title='broken'</script>",
    '<img src="http://127.0.0.1:9/x" onerror="document.title=1">',
    '" onmouseover="document.title=2" x="',
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&amp;",
    "right\u202egnp.exe",
    "line\nfeed\ttab\x00nul\u2028",
    "__proto__",
    "constructor",
    "$x^2$ \\frac",
    "層.ÄÖ é 😀",
    "long." + "x" * 300,
)

STAGES = ("stem", "encoder 1", "encoder 2", "bottleneck", "decoder 1", "decoder 2", "head")
_LEVELS = (0, 1, 2, 3, 2, 1, 0)
_PASSES = (("sepconv-to-pconv", False), ("widen-portion", True), ("pconv-to-pdwconv", True))


def made(layers: int, *, decided: bool = False) -> dict[str, Any]:
    """A report in which every layer is edited by one of three passes and left alone by another."""
    paths = [f"{HOSTILE[i % len(HOSTILE)]}.{i}" if i % 3 == 0 else f"enc{i % 7}.{i}.conv" for i in range(layers)]
    stage_of = [STAGES[i * len(STAGES) // layers] for i in range(layers)]
    edits: list[list[dict[str, Any]]] = [[] for _ in _PASSES]
    skips: list[list[dict[str, Any]]] = [[] for _ in _PASSES]
    for index, (path, stage) in enumerate(zip(paths, stage_of, strict=True)):
        which = index % len(_PASSES)
        exact, gone = _PASSES[which][1], index % 17 == 5
        edits[which].append(
            {
                "path": path,
                "stage": stage if index % 11 else None,
                "before": f"Conv2d({index % 90}, k5, depthwise)",
                "after": "" if gone else f"PConv2d({index % 90}, k5, portion=1/4)",
                "parameters": (index * 7919) % 100_003 - 40_000,
                "macs": (index * 104_729) % 10_000_019 - 4_000_000,
                "fate": "removed" if gone else "exact" if exact else "inherited",
                "exact": exact and not gone,
                "note": f"note {index}: {HOSTILE[index % len(HOSTILE)]}" if index % 5 == 0 else "",
                "error": index * 1e-17 if exact and not gone else None,
            }
        )
        skip = {"path": path, "stage": stage, "layer": f"Conv2d({index % 90}, k1)"}
        skips[which - 1].append({**skip, "reason": f"is pointwise: {HOSTILE[index % 2]}"})
    counts = [1_000_000, *(1_000_000 + sum(e["parameters"] for step in edits[: i + 1] for e in step) for i in range(3))]
    totals = [_totals(count) for count in counts]
    return {
        "schema": "mofa-report/2",
        "versions": {"mofa-compiler": "0.1.0", "torch": "2.13.0"},
        "model": "Net<b>",
        "checkpoint": None,
        "roadmap": {"name": "made & <i>up</i>", "description": "A <u>roadmap</u> for tests", "pass": []},
        "inputs": [{"shape": [1, 3, 64, 64], "dtype": "float32"}],
        "anatomy": {
            "is_unet": True,
            "reason": "the resolution goes down 3 times and up 3 times",
            "stages": [
                {"name": name, "kind": name.split()[0], "level": level, "units": [paths[i % layers]]}
                for i, (name, level) in enumerate(zip(STAGES, _LEVELS, strict=True))
            ],
        },
        "opaque": [{"path": HOSTILE[0], "cause": HOSTILE[1]}],
        "guards": [],
        "structure": {
            "passes": [{"number": 1, "descending": STAGES[:3], "bottom": STAGES[3], "ascending": STAGES[4:]}],
            "skips": [
                {
                    **{"source": STAGES[1], "target": STAGES[5], "kind": "cat", "level": 1},
                    **{"source_node": "a", "target_node": "b"},
                }
            ],
            "aside": [],
            "cheap": {
                **{"below": 0.5, "reference": 4e6, "limit": 2e6, "stages": ["bottleneck"]},
                "rule": "cheap: below 0.5 of the median encoder stage, which is 2.00 M",
            },
        },
        "layers": [
            {"path": path, "stage": stage, "layer": "Conv2d(8, k5, depthwise)", "parameters": 200, "macs": 51_200}
            for path, stage in zip(paths, stage_of, strict=True)
        ],
        "rewritten_layers": [],
        "before": totals[0],
        "after": totals[-1],
        "passes": [
            {
                **{"name": name, "options": {"portion": "1/4"}, "exact": exact},
                **{"edits": edits[i], "skips": skips[i], "before": before, "after": after},
                "verdict": _verdict(0.0 if exact else 0.021),
            }
            for i, ((name, exact), (before, after)) in enumerate(zip(_PASSES, pairwise(totals), strict=True))
        ],
        "recoveries": [],
        "decisions": _decisions(paths) if decided else None,
        "measurements": [],
        "images": [],
    }


def with_images(report: dict[str, Any], folder: Path, size: int = 24) -> dict[str, Any]:
    """The same with two images, one of which has a target; their files are made in `folder`."""
    names = ("input", "original", "rewritten", "difference", "target")
    (folder / "images").mkdir(parents=True)
    images = []
    for number in range(2):
        files: dict[str, str | None] = {}
        for shade, name in enumerate(names):
            files[name] = f"images/{number}-{name}.png"
            pixels = Image.effect_noise((size, size), 40 + 10 * shade).convert("RGB")
            pixels.save(folder / "images" / f"{number}-{name}.png")
        figures: dict[str, float | None] = {"input": 20.1, "original": 31.25, "rewritten": 30.75, "between": 40.5}
        close: dict[str, float | None] = {"input": 0.5, "original": 0.91, "rewritten": 0.9, "between": 0.99}
        if number:
            files["target"] = None
            for found in (figures, close):
                found |= dict.fromkeys(names[:3])
        image = {"name": f"crop {number} {HOSTILE[1]}", "source": "", "size": [size, size], **files}
        image |= {"levels": [0.0, 1.0], "shown": "", "gain": 10.0}
        images.append({**image, "psnr": figures, "ssim": close})
    return {**report, "images": images}


def _totals(parameters: int) -> dict[str, Any]:
    shares = [1, 4, 5, 1, 2, 3, 1]
    stages = []
    for name, share in zip(STAGES, shares, strict=True):
        amounts = {"parameters": parameters * share // 17, "macs": 1_000_000 * share, "vanilla": 2_000_000 * share}
        stages.append({"name": name, **amounts, **{f"{key}_share": share / 17 for key in amounts}})
    return {"parameters": parameters, "macs": 17_000_000, "stages": stages}


def _verdict(error: float) -> dict[str, Any]:
    return {
        **{"relative_error": error, "step_psnr": None if not error else 33.5, "accumulated": 0.021, "psnr": 33.5},
        **{"measured_on": "example input 1x3x64x64", "holds": True, "problem": "", "layers": None, "whole": None},
    }


def _decisions(paths: list[str]) -> dict[str, Any]:
    original = {"name": "original", "ms": 0.5, "ratio": 1.0, "interval": [1.0, 1.0], "problem": ""}
    better = {"name": "sepconv-to-pconv", "ms": 0.2, "ratio": 0.4, "interval": [0.38, 0.42], "problem": ""}
    failed = {"name": "other", "ms": None, "ratio": None, "interval": None, "problem": HOSTILE[0]}
    network = {"name": "decided", "ms": 2.0, "original_ms": 3.0, "ratio": 0.667, "interval": [0.66, 0.68]}
    return {
        "conditions": {
            **{"engine": "onnxruntime", "version": "1.32.0", "torch": "2.13.0", "processor": "CPU <x>"},
            **{"threads": 1, "input": "1x3x64x64"},
        },
        "layers": [
            {
                **{"paths": paths[:3], "layer": "Conv2d(8, k5)", "chosen": "sepconv-to-pconv", "reason": "fastest"},
                "alternatives": [original, better, failed],
            }
        ],
        "networks": [{**network, "control": [0.99, 1.01]}],
        "limit": None,
        "chosen": "decided",
        "sentence": "0.67 of the original's time (0.66 to 0.68) on onnxruntime",
    }
