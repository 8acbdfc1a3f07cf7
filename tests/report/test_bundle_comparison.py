"""Several bundles side by side, in every format."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from mofa_compiler.base.errors import ReportError
from mofa_compiler.report import comparison, text
from mofa_compiler.report.comparison import Comparison, sizes
from mofa_compiler.report.document import markdown, plain, show
from mofa_compiler.report.document.html import page
from mofa_compiler.report.summary import latencies
from tests.report.reports import HOSTILE, image, measured, recovered, report_of, typed


def compared(reports: list[dict[str, Any]], names: list[str], digests: list[str] | None = None) -> Comparison:
    return comparison.compare([typed(report) for report in reports], names, digests)


@pytest.fixture
def pair() -> Comparison:
    reports = [measured(report_of(), 12.0), measured(report_of("paper-nafnet"), 21.0)]
    return compared(reports, ["ours", "theirs"])


def written(data: Comparison) -> str:
    return markdown(comparison.document(data))


def printed(data: Comparison, width: int, verbose: bool = False) -> str:
    stream = io.StringIO()
    show(comparison.document(data, every=verbose), Console(file=stream, width=width), verbose)
    return stream.getvalue()


def test_every_layer_is_the_same_different_or_in_one_only(pair: Comparison) -> None:
    (difference,) = pair.to_data()["differences"]
    first, other = (
        {one["path"]: one for one in report_of(name)["rewritten_layers"]} for name in ("mofa", "paper-nafnet")
    )
    assert {one["path"] for one in difference["only_first"]} == first.keys() - other.keys()
    assert {one["path"] for one in difference["only_other"]} == other.keys() - first.keys()
    changed = {path for path in first.keys() & other.keys() if first[path]["layer"] != other[path]["layer"]}
    assert changed
    assert {one["path"] for one in difference["different"]} == changed
    for one in difference["different"]:
        path = one["path"]
        assert one["layer"] == [first[path]["layer"], other[path]["layer"]]
        assert one["parameters"] == [first[path]["parameters"], other[path]["parameters"]]
    assert difference["same"] + len(changed) == len(first.keys() & other.keys())


def test_a_bundle_against_itself_has_no_difference() -> None:
    data = compared([report_of(), report_of()], ["a", "b"])
    assert not data.notes
    assert "From a to b: 0 layers of different form, 0 only in a, 0 only in b" in printed(data, 120)
    assert "<details>" not in written(data)


def test_training_since_the_rewrite_is_told() -> None:
    trained = recovered(report_of(), 35.0)
    data = compared([report_of(), trained], ["a", "b"])
    assert "b was trained after the rewrite" in printed(data, 200)
    assert "| `b` |" in written(data) and "| 34.00 dB |" in written(data)


def test_weights_of_different_origin_are_told() -> None:
    calibrated = {**report_of(), "checkpoint": "net.pth"}
    calibrated["passes"][-1]["name"] = "calibration"
    trained = {**recovered(report_of(), 35.0), "checkpoint": ""}
    data = compared([calibrated, trained, report_of()], ["a", "b", "c"])
    told = "(a: net.pth, calibrated; b: those that the network is built with, trained; c: not known)"
    assert f"Weights differ {told}." in data.notes
    assert not compared([calibrated, calibrated], ["a", "b"]).notes


def test_originals_with_other_weights_have_rows_and_a_note() -> None:
    reports = [report_of(), report_of("paper-nafnet"), report_of()]
    data = compared(reports, ["a", "b", "c"], ["1" * 64, "2" * 64, "1" * 64])
    (note,) = (note for note in data.notes if "different weights" in note)
    assert all(f"{name}: {digit * 12}" in note for name, digit in (("a", "1"), ("b", "2"), ("c", "1")))
    rows = [plain(row[0]) for row in sizes(data).rows]
    assert rows == ["original of a", "original of b", "a", "b", "c"]
    same = compared(reports, ["a", "b", "c"], ["1" * 64, "", "1" * 64])
    assert not any("different weights" in note for note in same.notes)


def test_originals_measured_on_other_images_have_rows() -> None:
    first, other = (recovered(report_of(), psnr) for psnr in (35.0, 36.0))
    rows = sizes(compared([first, other], ["a", "b"])).rows
    assert [plain(row[0]) for row in rows] == ["original of a", "original of b", "a", "b"]
    assert [row[4] for row in rows[:2]] == ["35.00 dB", "36.00 dB"]


def test_intervals_are_widened_by_the_noise_of_their_measurement() -> None:
    early = measured(report_of(), 19.0)
    late = {**early, "measurements": [{**early["measurements"][0], "control": [0.95, 1.02]}]}
    before, after = (latencies(typed(report))[0].interval for report in (early, late))
    assert after == pytest.approx([0.95 * before[0], 1.05 * before[1]])


def test_different_originals_and_sizes_are_told() -> None:
    larger = {**report_of(depth=3), "inputs": [{"shape": [1, 3, 64, 64], "dtype": "float32"}]}
    data = compared([report_of(), larger], ["a", "b"])
    assert not data.same_original
    for rendered in (printed(data, 300), written(data), page(comparison.document(data), "names")):
        assert "These bundles were made from different originals" in rendered
        assert "a at 1x3x32x32, b at 1x3x64x64" in rendered


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("verbose", [False, True])
def test_the_terminal(pair: Comparison, width: int, verbose: bool) -> None:
    rendered = printed(pair, width, verbose)
    assert max(map(len, rendered.splitlines())) <= width
    for network in pair.networks:
        assert f"{text.quantity(network.rewritten.macs)} (" in rendered
    assert "0.600" in rendered and "1.050" in rendered
    if verbose:
        lines = [line.strip() for line in rendered.splitlines()]
        assert all(one.path in lines for one in pair.differences[0].different)


@pytest.mark.parametrize("width", [80, 120])
def test_hostile_names_fit_the_terminal(width: int) -> None:
    lines = printed(compared([report_of(), report_of()], [HOSTILE, "网络" * 60]), width).splitlines()
    table = lines[lines.index("") + 1 :][:4]
    assert [line[0] for line in table] == ["n", "o", "d", "网"]
    assert max(map(cell_len, table)) <= width
    assert all(line.isprintable() for line in lines)


def test_markdown_has_the_tables(pair: Comparison) -> None:
    rendered = written(pair)
    assert re.search(r"^\| `ours` \| .* \| .* \| .* \| .* dB \|$", rendered, re.MULTILINE)
    assert "| `ours` | 20 | 12 | 0.600 | 0.590 to 0.610 | faster |" in rendered
    assert "Time of one run on xnnpack 1.0, 1 thread, 1x3x32x32, Cortex-A76" in rendered


class Page(HTMLParser):
    """What a browser would make of the elements."""

    def __init__(self, content: str):
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name in ("src", "onload", "onclick") for name, _ in attrs)
        assert dict(attrs).get("href", "#content") == "#content"

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_loads_nothing_and_escapes_names(pair: Comparison) -> None:
    reports = [report_of(), report_of("paper-nafnet")]
    for report in reports:
        report["model"] = HOSTILE
        report["rewritten_layers"][0]["path"] = f"<script>alert({HOSTILE!r})</script>{report['roadmap']['name']}"
    data = compared(reports, [HOSTILE, "<img src=x onerror=alert(1)>"])
    found = Page(page(comparison.document(data, reports=[typed(report) for report in reports]), "names"))
    assert not {"script", "img", "b"} & {*found.tags}
    assert "svg" in found.tags
    assert "<script>alert(" in found.words and "<img src=x" in found.words


def test_markdown_escapes_names() -> None:
    report = {**report_of(), "model": "A<b>|c"}
    rendered = written(compared([report, report], ["x|y", "<i>"]))
    assert rendered.startswith(r"## A\<b\>\|c at ")
    assert r"| `x\|y` | " in rendered and "| `<i>` | " in rendered
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in rendered.splitlines() if line.startswith("|")}) == 1


def test_psnr_of_different_images_is_not_compared_in_silence() -> None:
    def pictured(name: str, before: float, after: float) -> dict[str, Any]:
        return {**report_of(), "images": [image(name, before, after)]}

    one, other = pictured("chelsea", 30, 29), pictured("rocket", 40, 38)
    data = compared([one, other], ["a", "b"])
    assert any(
        "PSNR is of different images" in note and "a: 30.00 → 29.00 dB on chelsea 64x64" in note for note in data.notes
    )
    for rendered in (printed(data, 200), written(data)):
        originals = [line for line in rendered.splitlines() if re.match(r"(\| )?`?original of", line)]
        assert ["30.00 dB" in line for line in originals] == [True, False]  # a row for each number
        assert rendered.index("parameters") < rendered.index("PSNR is of different images")
    alike = compared([one, one], ["a", "b"])
    assert "30.00 dB" in next(line for line in printed(alike, 200).splitlines() if line.startswith("original"))
    assert not any("different images" in note for note in compared([one, one], ["a", "b"]).notes)


def test_a_measurement_goes_before_what_was_decided_on() -> None:
    report = measured(report_of(), 10.0)
    final = {
        "name": "decided",
        "ms": 18.0,
        "original_ms": 20.0,
        "ratio": 0.9,
        "interval": [0.8, 1.0],
        "control": [0.99, 1.01],
    }
    keys = ("engine", "version", "threads", "processor", "input")
    conditions = {"torch": "", **{key: report["measurements"][0][key] for key in keys}}
    decided = {"networks": [final], "chosen": "decided", "conditions": conditions, "layers": []}
    report_since = {**report, "decisions": {**decided, "limit": None, "sentence": ""}}
    assert latencies(typed(report_since)) == latencies(typed(report))


def test_one_is_too_few() -> None:
    with pytest.raises(ReportError, match="at least two"):
        compared([report_of()], ["a"])
