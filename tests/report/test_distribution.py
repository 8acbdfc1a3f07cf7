"""The cost distribution: its numbers, its table and its charts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from architectures import PMRID, NAFNet
from mofa_compiler import apply, capture
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.base.errors import MofaError
from mofa_compiler.report import distribution as report
from mofa_compiler.report.figures import flops, save
from tests.raising import raising


def network(model: nn.Module, *shape: int) -> Network:
    program = capture(model, torch.rand(shape))
    return Network(program, infer(program))


@pytest.fixture(scope="module")
def pmrid() -> report.Distribution:
    return report.distribution(network(PMRID(), 1, 3, 256, 256))


@pytest.fixture(scope="module")
def compared() -> report.Distribution:
    result = apply(NAFNet(width=8), "mofa", torch.rand(1, 3, 32, 32))
    return report.distribution(result.original, result.rewritten, "mofa")


@pytest.fixture(scope="module")
def body() -> report.Distribution:
    return report.distribution(network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)), 1, 3, 16, 16))


def printed(data: report.Distribution, width: int, layers: bool = False) -> str:
    stream = io.StringIO()
    report.print_distribution(data, Console(file=stream, width=width), layers)
    return stream.getvalue()


def test_the_papers_cheap_layers(pmrid: report.Distribution) -> None:
    cheap = [stage.name for stage in pmrid.stages if stage.cheap]
    assert cheap == ["bottleneck", "decoder 1", "decoder 2", "decoder 3", "decoder 4"]
    assert pmrid.middle == ("encoder 3", "decoder 2")
    assert pmrid.cheap.limit == pmrid.cheap.below * pmrid.cheap.reference


def test_data_is_plain_json_that_can_be_read_back(compared: report.Distribution) -> None:
    text = json.dumps(compared.to_data(), allow_nan=False)
    assert report.Distribution.model_validate_json(text, strict=True) == compared


def test_numbers_add_up(pmrid: report.Distribution, compared: report.Distribution) -> None:
    for key in ("parameters", "macs"):
        assert sum(getattr(stage, key) for stage in pmrid.stages) == getattr(pmrid.before, key)
        assert sum(getattr(stage.after, key) for stage in compared.stages) == getattr(compared.after, key)
    for stage in pmrid.stages:
        assert sum(layer.macs for layer in stage.layers) == stage.macs
        assert sum(layer.vanilla for layer in stage.layers) == stage.vanilla


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("name", ["pmrid", "compared", "body"])
@pytest.mark.sample(6)
def test_no_line_is_wider_than_the_terminal(
    request: pytest.FixtureRequest, name: str, width: int, layers: bool
) -> None:
    lines = printed(request.getfixturevalue(name), width, layers).splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_the_table(pmrid: report.Distribution) -> None:
    rendered = printed(pmrid, 80)
    rows = {line.split("  ")[0]: line for line in rendered.splitlines()}
    assert rows["decoder 1"].split() == [
        "decoder",
        "1",
        "4",
        "44.7",
        "k",
        "25.7",
        "M",
        "174",
        "M",
        "1.5",
        "%",
        "█",
        "cheap",
    ]
    assert rows["encoder 3"].count("█") == rows["encoder 4"].count("█") > rows["encoder 2"].count("█") > 0
    assert "cheap: below 0.5 of the median encoder stage, which is 1.30 G, counted as" in rendered
    assert "middle (one level above the bottleneck): encoder 3 and decoder 2" in rendered


@pytest.mark.parametrize("width", [70, 120])
def test_layers_are_listed(pmrid: report.Distribution, width: int) -> None:
    words = printed(pmrid, width, layers=True).split()
    assert all(layer.path in words for stage in pmrid.stages for layer in stage.layers)


def test_no_unet_no_cheap_stages(body: report.Distribution) -> None:
    rendered = printed(body, 80, layers=True)
    assert "Not a U-Net: " in rendered
    assert "no stage counts as cheap: " in rendered
    assert not any(stage.cheap for stage in body.stages)


def test_a_roadmap_shows_both_states(compared: report.Distribution) -> None:
    rendered = printed(compared, 80)
    assert rendered.count("  after ") == len(compared.stages)
    assert "roadmap mofa: " in rendered


@pytest.mark.parametrize(("share", "width", "expected"), [(0, 8, ""), (1, 4, "████"), (0.5, 3, "█▌"), (1e-9, 8, "▏")])
def test_bars(share: float, width: int, expected: str) -> None:
    assert report.bar(share, width) == expected


@pytest.mark.parametrize("name", ["pmrid", "compared", "body"])
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_charts(request: pytest.FixtureRequest, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"chart.{kind}"
    data = request.getfixturevalue(name)
    save(lambda: flops(data), path)
    content = path.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert list(tmp_path.iterdir()) == [path]
    save(lambda: flops(data), path)
    assert path.read_bytes() == content
    if kind == "svg":
        assert all(stage.name in content.decode() for stage in data.stages)


def test_a_chart_that_fails_leaves_the_old_one(tmp_path: Path, pmrid: report.Distribution) -> None:
    path = tmp_path / "chart.png"
    path.write_text("old")
    broken = pmrid.model_copy(update={"stages": (*pmrid.stages[:1], None)})
    with pytest.raises(AttributeError):
        save(lambda: flops(broken), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_formats(tmp_path: Path, pmrid: report.Distribution) -> None:
    with raising(MofaError, "error", ".png, .svg, .pdf"):
        save(lambda: flops(pmrid), tmp_path / "chart.gif")
