"""The report: plain data with documented keys, and what Markdown and the terminal make of it."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from architectures import NAFNet
from mofa_compiler import Roadmap, apply
from mofa_compiler.base.plain import plain_data
from mofa_compiler.base.spelling import markdown as escape
from mofa_compiler.passes import MergeLinear, SepConvToPConv
from mofa_compiler.report import content, text
from mofa_compiler.report.document import markdown
from mofa_compiler.rewriting import Fate
from tests.report.reports import printed, report_of, typed


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return report_of()


@pytest.fixture(scope="module")
def unchanged() -> dict[str, Any]:
    return apply(nn.Sequential(nn.Conv2d(3, 3, 1)), "mofa", torch.rand(1, 3, 8, 8)).report


TOTALS = {"parameters", "macs", "stages"}
KEYS: dict[str, set[str]] = {
    "": {
        *(
            "schema",
            "versions",
            "model",
            "checkpoint",
            "roadmap",
            "inputs",
            "anatomy",
            "opaque",
            "guards",
            "structure",
            "layers",
            "rewritten_layers",
            "before",
            "after",
            "passes",
            "decisions",
            "recoveries",
            "measurements",
            "images",
            "quality",
            "validation",
        ),
    },
    "versions": {"mofa-compiler", "torch"},
    "inputs": {"shape", "dtype"},
    "anatomy": {"is_unet", "reason", "stages"},
    "anatomy.stages": {"name", "kind", "level", "units"},
    "structure": {"passes", "skips", "aside", "cheap"},
    "structure.cheap": {"below", "reference", "limit", "rule", "stages"},
    "layers": {"path", "stage", "layer", "parameters", "macs"},
    "rewritten_layers": {"path", "stage", "layer", "parameters", "macs"},
    "before": TOTALS,
    "after.stages": {
        *("name", "parameters", "macs", "vanilla", "parameters_share", "macs_share", "vanilla_share"),
    },
    "passes": {"name", "options", "exact", "edits", "skips", "before", "after", "verdict"},
    "passes.edits": {
        *("path", "stage", "before", "after", "parameters", "macs", "fate", "exact", "note", "error"),
    },
    "passes.skips": {"path", "stage", "layer", "code", "reason"},
    "passes.after": TOTALS,
    "passes.verdict": {
        *("relative_error", "step_psnr", "accumulated", "psnr", "measured_on", "holds", "problem", "layers", "whole"),
    },
}


def rendered_markdown(report: dict[str, Any]) -> str:
    return markdown(content.for_reading(typed(report)))


def objects(value: Any, path: str) -> list[Mapping[str, Any]]:
    """All objects at a dotted path, lists being looked into."""
    if isinstance(value, list):
        return [found for item in value for found in objects(item, path)]
    if not path:
        return [value]
    first, _, rest = path.partition(".")
    return objects(value[first], rest)


@pytest.mark.parametrize("path", KEYS)
def test_keys_are_as_documented(report: dict[str, Any], path: str) -> None:
    found = objects(report, path)
    assert found
    assert all(set(entry) == KEYS[path] for entry in found)


def test_the_schema_refuses_what_lacks_a_key(report: dict[str, Any]) -> None:
    assert typed(report).to_data() == report
    for key in report.keys() - {"quality", "validation"}:  # which older ones lack
        with pytest.raises(ValidationError):
            typed({name: value for name, value in report.items() if name != key})
    unknown = {**report, "of a later version": 1}
    assert typed(unknown).to_data() == unknown


def test_structures_that_cannot_be_drawn_are_refused(report: dict[str, Any]) -> None:
    (shape,) = report["structure"]["passes"]
    for changed in ({"bottom": "nowhere"}, {"bottom": shape["descending"][0]}):
        with pytest.raises(ValidationError):
            typed({**report, "structure": {**report["structure"], "passes": [{**shape, **changed}]}})


def test_report_is_plain_json(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_report_is_deterministic(report: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = NAFNet(width=8, enc_blk_nums=[1, 2], dec_blk_nums=[1, 1])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    torch.manual_seed(0)
    first, second = (json.dumps(apply(model, "mofa", torch.ones(1, 3, 32, 32)).report) for _ in range(2))
    assert first == second


def test_the_roadmap_can_be_read_back(report: dict[str, Any]) -> None:
    carried_out = [pass_ for pass_ in Roadmap.load("mofa") if pass_.name != "unshare"]  # which found nothing
    assert list(Roadmap.from_dict(report["roadmap"])) == carried_out


def test_totals_add_up(report: dict[str, Any]) -> None:
    for state in (report["before"], report["after"]):
        assert sum(stage["parameters"] for stage in state["stages"]) == state["parameters"]
        assert sum(stage["macs_share"] for stage in state["stages"]) == pytest.approx(1)
    for step in report["passes"]:
        for key in ("parameters", "macs"):
            assert step["after"][key] - step["before"][key] == sum(edit[key] for edit in step["edits"])


def test_the_layers_are_those_of_the_stages(report: dict[str, Any]) -> None:
    for state, key in (("before", "layers"), ("after", "rewritten_layers")):
        assert sum(layer["macs"] for layer in report[key]) == report[state]["macs"]
        paths = [layer["path"] for layer in report[key]]
        assert len(paths) == len(set(paths))
    (first,) = [layer for layer in report["layers"] if layer["path"] == "intro"]
    assert first["layer"] == "Conv2d(3→8, k3, bias)"
    assert (first["stage"], first["parameters"]) == ("stem", 8 * 3 * 9 + 8)
    by_path = {layer["path"]: layer["layer"] for layer in report["layers"]}
    for edit in text.rewritten(typed(report).passes[0]):
        assert by_path[edit.path] == edit.before


def test_the_structure_names_cheap_stages_and_skips(report: dict[str, Any]) -> None:
    structure, names = report["structure"], [stage["name"] for stage in report["before"]["stages"]]
    (shape,) = structure["passes"]
    assert [*shape["descending"], shape["bottom"], *shape["ascending"]] == names
    limit = structure["cheap"]["limit"]
    vanilla = {stage["name"]: stage["vanilla"] for stage in report["before"]["stages"]}
    never = ("stem", "head")
    assert structure["cheap"]["stages"] == [name for name in names if vanilla[name] < limit and name not in never]
    assert {skip["target"] for skip in structure["skips"]} == {"decoder 1", "decoder 2"}


def test_numbers_that_json_lacks_become_null(unchanged: dict[str, Any]) -> None:
    verdict = unchanged["passes"][0]["verdict"]
    assert (verdict["relative_error"], verdict["psnr"], verdict["step_psnr"], verdict["holds"]) == (0, None, None, True)
    assert type(plain_data(Fate.KEPT)) is str
    assert plain_data({"a": [math.nan, -math.inf, Fraction(1, 4)], 2: (True, None)}) == {
        "a": [None, None, "1/4"],
        "2": [True, None],
    }


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((0, "0"), (448, "448"), (999, "999"), (999.6, "1.00 k"), (999_499, "999 k"), (999_600, "1.00 M")),
        *(
            (1_031_619, "1.03 M"),
            (9_996_000, "10.0 M"),
            (99_960_000, "100 M"),
            (3.45e9, "3.45 G"),
            (-2.5e12, "-2.50 T"),
            (3 * 10**15, "3.00 P"),
            (10**30, "1.00e+30"),
        ),
    ],
)
def test_quantities(number: float, expected: str) -> None:
    assert text.quantity(number) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(100, 100, "unchanged"), (100, 398, "+298 %"), (100, 96.9, "−3.1 %"), (0, 5, "new"), (100, 0, "−100 %")],
)
def test_changes(before: float, after: float, expected: str) -> None:
    assert text.change(before, after) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [(0, "0 %"), (None, "not finite"), (0.0264, "2.64 %"), (0.0065, "0.650 %"), (3e-8, "< 0.001 %"), (1.5, "150 %")],
)
def test_errors_as_text(error: float | None, expected: str) -> None:
    assert text.error_text(error) == expected


def test_markdown_has_the_headline_and_every_pass(report: dict[str, Any]) -> None:
    rendered = rendered_markdown(report)
    lines = rendered.splitlines()
    assert lines[0] == "## NAFNet rewritten by roadmap `mofa`, input 1x3x32x32"
    before, after = (text.quantity(report[state]["parameters"]) for state in ("before", "after"))
    assert any(line.startswith(f"| Parameters | {before} | {after} | ") for line in lines)
    assert rendered.count("<details>") == rendered.count("</details>") == len(report["passes"])
    for index, step in enumerate(typed(report).passes, 1):
        so_far = escape(text.error_text(step.verdict.accumulated))
        counts = f"{len(text.rewritten(step))} | {len(step.skips)}"
        assert any(
            line.startswith(f"| {index} | `{step.name}` | {counts} | ")
            and line.endswith(f"| {escape(text.outcome(step))} | {so_far} |")
            for line in lines
        )
        for edit in text.rewritten(step):
            then = ", same layer |" if edit.before == edit.after else " → "
            assert f"| `{edit.path}` | {edit.stage} | `{edit.before}`{then}" in rendered


def test_calibration_is_counted_the_same_everywhere(report: dict[str, Any]) -> None:
    changed = copy.deepcopy(report)
    step = changed["passes"][0]
    step["name"], step["edits"] = "calibration", [{**edit, "fate": "calibrated"} for edit in step["edits"][:6]]
    lines = rendered_markdown(changed).splitlines()
    (row,) = (line for line in lines if line.startswith("| 1 "))
    (details,) = (line for line in lines if "1. calibration: " in line)
    assert cells(row)[2].strip() == "6" and "6 edits" in details


def test_the_origin_of_the_weights_is_told(report: dict[str, Any]) -> None:
    assert report["checkpoint"] is None
    assert "checkpoint" not in rendered_markdown(report) and "Weights: " not in rendered_markdown(report)
    assert "\n\nWeights: net\\_a.pth.\n\n" in rendered_markdown({**report, "checkpoint": "net_a.pth"})
    assert "**Note:** No checkpoint was given: the weights are those" in rendered_markdown({**report, "checkpoint": ""})


def test_markdown_summarises_neighbours_and_groups_refusals(report: dict[str, Any]) -> None:
    first = typed(report).passes[0]
    details = rendered_markdown(report).split("<details>")[1]
    neighbours = text.compensated(first)
    assert neighbours
    assert f"Weights adjusted in {len(neighbours)} neighbours (" in details
    assert not any(f"`{edit.path}`" in details for edit in neighbours)
    assert "- 2 × changes the resolution: `downs.0`, `downs.1`" in details


def cells(row: str) -> list[str]:
    """Cells of a table row as GitHub splits them: at pipes without a backslash."""
    return re.split(r"(?<!\\)\|", row.strip())[1:-1]


def test_markdown_escapes_what_would_be_markup(report: dict[str, Any]) -> None:
    strange = copy.deepcopy(report)
    strange["model"] = "A*B_C<i>"
    edit = strange["passes"][0]["edits"][0]
    edit["path"], edit["note"] = "a|b`c", "x|y `z` <b>"
    skip = strange["passes"][0]["skips"][0]
    skip["path"], skip["reason"] = "d``e", "one\n| two *three*"
    rendered = rendered_markdown(strange)
    assert rendered.startswith(r"## A\*B\_C\<i\> rewritten")
    (row,) = [line for line in rendered.splitlines() if "b`c" in line]
    assert cells(row)[0].strip() == r"``a\|b`c``"
    assert len(cells(row)) == 7
    assert r"x\|y \`z\` \<b\>" in row
    assert r"- 1 × one \| two \*three\*: ```d``e```" in rendered
    tables = [line for line in rendered.splitlines() if line.startswith("|")]
    assert {len(cells(line)) for line in tables} == {4, 7, 8}


def test_markdown_cuts_long_lists_of_refusals(report: dict[str, Any]) -> None:
    long = copy.deepcopy(report)
    long["passes"][0]["skips"] = [{"path": f"p{i}", "stage": None, "layer": "", "reason": "r"} for i in range(30)]
    assert "- 30 × r: `p0`, " in rendered_markdown(long)
    assert "`p7`, … and 22 more" in rendered_markdown(long)


def test_opaque_parts_are_named(report: dict[str, Any]) -> None:
    strange = copy.deepcopy(report) | {"opaque": [{"path": "encoder.attn", "cause": "TypeError: no"}]}
    assert "left alone: `encoder.attn` (TypeError: no)" in rendered_markdown(strange)
    assert "left alone: encoder.attn (TypeError: no)" in printed(strange, 80)


def test_a_broken_promise_is_shown(report: dict[str, Any]) -> None:
    broken = copy.deepcopy(report)
    step = next(step for step in broken["passes"] if step["exact"] and step["edits"])
    step["verdict"] |= {"holds": False, "relative_error": 0.5}
    assert "NOT exact: 50.0 %" in rendered_markdown(broken)
    assert "NOT exact: 50.0 %" in printed(broken, 80)


def test_how_exactness_was_checked_is_told(report: dict[str, Any]) -> None:
    checked = next(step for step in report["passes"] if step["verdict"]["whole"])
    lines = "Exact in float64 for the whole network at 1x3x32x32 (off by "
    assert lines in rendered_markdown(report)
    assert lines in printed(report, 120)
    broken = copy.deepcopy(report)
    step = next(step for step in broken["passes"] if step["name"] == checked["name"])
    step["verdict"] |= {"holds": False, "problem": "widen-portion was declared exact, but is not"}
    for rendered in (rendered_markdown(broken), printed(broken, 80)):
        assert "widen-portion was declared exact, but is not." in rendered


def test_nothing_to_rewrite(unchanged: dict[str, Any]) -> None:
    for rendered in (rendered_markdown(unchanged), printed(unchanged, 80)):
        assert "Nothing to rewrite: the network is unchanged." in rendered
    empty = apply(nn.Sequential(nn.Conv2d(3, 3, 1)), [], torch.rand(1, 3, 8, 8)).report
    assert "Nothing to rewrite" in printed(empty, 80)
    assert "The roadmap has no passes." in rendered_markdown(empty)


@pytest.mark.slow
def test_a_network_that_costs_more_than_before_is_told():
    report = apply(NAFNet(width=8), [SepConvToPConv(portion=1)], torch.rand(1, 3, 32, 32)).report
    assert report["after"]["macs"] > report["before"]["macs"]
    assert "More MACs than before (+" in rendered_markdown(report)
    cheaper = apply(NAFNet(width=8), "paper-nafnet", torch.rand(1, 3, 32, 32)).report
    assert "More MACs" not in rendered_markdown(cheaper)


def test_what_went_is_shown_once_wherever_it_went() -> None:
    report = apply(
        nn.Sequential(*(one for _ in range(3) for one in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()))).eval(),
        [MergeLinear()],
        torch.rand(1, 3, 8, 8),
    ).report
    assert len({edit["note"] for edit in report["passes"][0]["edits"] if not edit["after"]}) == 3
    shown = [line.strip() for line in printed(report, 80).splitlines()]
    assert sum(line.startswith("3 × BatchNorm2d(3") for line in shown) == 1
    assert "folded into 0, … 2 more" in shown
    full = printed(report, 80, verbose=True)
    assert all(f"folded into {path}" in " ".join(full.split()) for path in (0, 3, 6))
