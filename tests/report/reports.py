"""Reports of small networks, made once for all tests that only read them."""

from __future__ import annotations

import copy
import io
from functools import cache
from typing import Any

import torch
from rich.console import Console
from torch import nn

from architectures import NAFNet
from mofa_compiler import apply
from mofa_compiler.report import content
from mofa_compiler.report.document import show
from mofa_compiler.report.model import Edit, Report, Skip, Step

HOSTILE = "down[0]\x1b[31m\n$x_{1}$ <b>&网络|`" + "q" * 300


@cache
def _made(roadmap: str, depth: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = NAFNet(width=8, enc_blk_nums=[1, depth], dec_blk_nums=[1, 1])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return apply(model, roadmap, torch.rand(1, 3, 32, 32)).report


def report_of(roadmap: str = "mofa", depth: int = 2) -> dict[str, Any]:
    """Of a NAFNet with so many blocks in its second encoder; a copy."""
    return copy.deepcopy(_made(roadmap, depth))


def measured(report: dict[str, Any], ms: float, engine: str = "xnnpack") -> dict[str, Any]:
    """The report with a measurement of the rewritten network against an original that takes 20 ms."""
    one = {
        **{"engine": engine, "version": "1.0", "processor": "Cortex-A76", "threads": 1, "input": "1x3x32x32"},
        **{"original_ms": 20.0, "rewritten_ms": ms, "ratio": ms / 20, "interval": [ms / 20 - 0.01, ms / 20 + 0.01]},
        **{"verdict": "faster" if ms < 20 else "slower", "control": [1.0, 1.0]},
    }
    return {**report, "measurements": [*report["measurements"], one]}


def recovered(report: dict[str, Any], original: float | None) -> dict[str, Any]:
    """The report with a training that came to 34 dB."""
    one = {
        **{"steps": 9, "seconds": 1.0, "best_step": 5, "history": [], "data": {}, "settings": {}},
        **{"psnr_before": 30.0, "psnr_after": 34.0, "psnr_original": original},
    }
    return {**report, "recoveries": [one]}


def image(name: str, before: float | None, after: float | None, size: int = 64) -> dict[str, Any]:
    """An image by its PSNRs before and after."""
    figures = {"input": None, "original": before, "rewritten": after, "between": 40.0}
    files = dict.fromkeys(("input", "original", "rewritten", "difference"), "images/1-input.png")
    return {
        **{"name": name, "source": "", "size": [size, size], "levels": [0.0, 1.0], "shown": "", **files},
        **{"target": None, "gain": 1.0, "psnr": figures, "ssim": {**figures, "between": 0.9}},
    }


def typed(report: dict[str, Any]) -> Report:
    """Plain data as the model that renderers read."""
    return Report.model_validate(report)


def pass_of(edits: list[dict[str, Any]], skips: list[dict[str, Any]] = [], exact: bool = True) -> Step:  # noqa: B006
    """A pass by what it did, and nothing else of it."""
    return Step.model_construct(
        edits=tuple(Edit.model_construct(**one) for one in edits),
        skips=tuple(Skip.model_construct(**one) for one in skips),
        exact=exact,
    )


def printed(report: dict[str, Any], width: int, verbose: bool = False, colour: bool = False) -> str:
    """A report on a terminal of so many columns."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    show(content.for_screen(typed(report), verbose), console, verbose)
    return stream.getvalue()
