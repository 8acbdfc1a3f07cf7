"""Bundles whose reports an earlier version wrote: everything works but reading the report as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import mofa_compiler
from mofa_compiler.base.errors import ReportError
from mofa_compiler.bundle.updating import record, update
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.report.reading import read_report
from mofa_compiler.result.recovery import Recovery
from tests.raising import raising

X = torch.rand(1, 8, 16, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)).eval()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    bundle = mofa_compiler.apply(network(), [SepConvToPConv()], X).save(tmp_path / "bundle")
    report = json.loads((bundle / "report.json").read_text())
    report["schema"] = "mofa-report/1"
    for key in ("guards", "structure", "layers", "rewritten_layers", "checkpoint", "measurements"):
        del report[key]
    (bundle / "report.json").write_text(json.dumps(report))
    return bundle


def test_it_is_loaded_and_verified_and_its_report_is_not_compared(old: Path) -> None:
    assert mofa_compiler.load(old)(X).shape == X.shape
    found = mofa_compiler.verify(old, network())
    assert found.ok, found.problems
    (report,) = [check for check in found.checks if check.name == "report"]
    assert "mofa-report/1" in report.detail and report.detail.endswith("not compared")
    with raising(ReportError, "report", "mofa-report/1"):
        read_report(old)


def test_measurements_are_kept_in_its_data_and_its_pages_stay(old: Path) -> None:
    pages = {name: (old / name).read_bytes() for name in ("report.md", "report.html")}
    one = {"engine": "eager", "version": "1", "threads": 1, "input": [[1, 8, 16, 16]], "processor": "CPU", "ratio": 1.0}
    with pytest.warns(UserWarning, match=r"report\.md and report\.html stay as they were"):
        record([one], old)
    report = json.loads((old / "report.json").read_text())
    assert (report["schema"], report["measurements"]) == ("mofa-report/1", [one])
    assert {name: (old / name).read_bytes() for name in pages} == pages


def test_new_weights_are_kept_and_its_pages_stay(old: Path) -> None:
    pages = {name: (old / name).read_bytes() for name in ("report.md", "report.html")}
    result = mofa_compiler.apply(network(), [SepConvToPConv()], X)
    with torch.no_grad():
        next(result.model.parameters()).add_(1.0)
    trained = result.record.with_recovery(Recovery(5, 0.1, 30.0, 31.0, None, 5, (), {}, {}), ())
    with pytest.warns(UserWarning, match="rewrite the network again"):
        update(trained, old)
    (entry,) = json.loads((old / "report.json").read_text())["recoveries"]
    assert (entry["psnr_after"], entry["best_step"]) == (31.0, 5)
    assert torch.equal(mofa_compiler.load(old)(X), result.model.eval()(X))
    assert {name: (old / name).read_bytes() for name in pages} == pages
