"""What a recipe and its original determine, written again and compared with a bundle, of which nothing is run.

That is the source, the key map, the recipe's own words and most of the reports. What no original determines, such as
times, is left to the reader.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from torch import fx, nn

from ..analysis.channels import Channels
from ..base.errors import MofaError, ReportError, one_line
from ..base.plain import plain_data, read_json, versions
from ..base.spelling import printable
from ..bundle import original
from ..bundle.files import KEYMAP, REPORT, REPORT_PAGE, REPORT_TEXT, SOURCE, WEIGHTS, keymap_data, read_weights
from ..bundle.recipe import FILE, class_name, decisions
from ..bundle.updating import set_weights
from ..codegen.source import emit
from ..report.content import for_reading
from ..report.data import report as make_report
from ..report.document import markdown
from ..report.measured import Decisions
from ..report.reading import read_document, read_report
from ..result.rewrite import Rewrite
from ..result.verdict import Check

_DECIMAL = re.compile(r"(?<![\w.])(\d+\.\d+(?:e[+-]?\d+)?)")
"""A number in a line of source that another machine may have rounded otherwise; whole ones are none"""

_DRAWN = re.compile(r"<svg\b.*?</svg>|data:image/[^\"]*", re.DOTALL)
"""What versions of the packages that draw differ in"""

_ACTIVE = re.compile(
    r"<(?![?!/]|svg|title|desc|defs|metadata|style|g|path|text|tspan|use|rect|circle|line|poly|clipPath|pattern|cc:|dc:|rdf:)"
    r"[^\s>/]*|[\s/\"'](?:on\w+|(?:xlink:)?href)\s*=\s*[\"']?(?![#\"'])[^\s>]*|url\((?!#)[^)]*|@import|</(?:body|html|p|div)",
    re.IGNORECASE,
)
"""What a drawing of ours never holds: other elements than shapes and text, handlers, links to elsewhere"""

_MEASURED = ("versions", "recoveries", "measurements", "images", "checkpoint", "decisions", "quality", "validation")
"""Keys of a report that the original does not determine, or that are compared with the recipe"""


class _Edit(BaseModel):
    path: str
    fate: str


class _Fitted(BaseModel):
    """What is read of a pass also in reports of earlier versions."""

    name: str
    edits: tuple[_Edit, ...]


@dataclass(frozen=True)
class Written:
    """What was seen of a bundle before anything of it was run.

    Attributes:
        original, recipe, keymap, source: what was compared.
        twin: the network that the recipe makes, with the saved weights.
    """

    original: Check
    recipe: Check
    keymap: Check
    source: Check
    twin: fx.GraphModule


def write_again(folder: Path, document: Mapping[str, Any], model: nn.Module, rewrite: Rewrite) -> Written:
    """Compare a bundle with what its recipe makes of `model`, which is `result`.

    Raises:
        BundleError: the weights are damaged, or another network's.
    """
    twin = _saved_twin(folder, document, rewrite)
    return Written(
        _check_original(document, model),
        _check_recipe(folder, document, rewrite),
        _check_keymap(folder, document, rewrite),
        _check_source(folder, document, rewrite, twin),
        twin,
    )


def _check_original(document: Mapping[str, Any], model: nn.Module) -> Check:
    """Whether `model` has the weights that the bundle was made from."""
    if problem := original.difference(document, model):
        return Check("original", False, problem)
    if not original.recorded(document):
        return Check(
            "original",
            True,
            f"{FILE} does not say from which weights it was made, as earlier versions did not: not compared",
        )
    return Check("original", True, "it has the weights that the bundle was made from")


def _saved_twin(folder: Path, document: Mapping[str, Any], rewrite: Rewrite) -> fx.GraphModule:
    """The network that the recipe makes, with a bundle's weights in their precisions, and frozen as it was saved.

    Raises:
        BundleError: the weights are damaged, or another network's.
    """
    twin = copy.deepcopy(rewrite.model)
    weights = read_weights(folder / WEIGHTS)
    precisions = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(precisions) == 1:
        twin.to(precisions.pop())  # buffers that are in no state_dict, too
    for key, tensor in twin.state_dict(keep_vars=True).items():
        if key in weights and weights[key].dtype != tensor.dtype:
            tensor.data = tensor.data.to(weights[key].dtype)
    set_weights(twin, weights, folder / WEIGHTS)
    if "frozen" in document:
        for name, parameter in twin.named_parameters(remove_duplicate=False):
            if parameter.is_floating_point() or parameter.is_complex():
                parameter.requires_grad_(name not in document["frozen"])
    return twin


def _check_source(folder: Path, document: Mapping[str, Any], rewrite: Rewrite, twin: fx.GraphModule) -> Check:
    """The text of `model.py` against the one that the recipe makes of the original."""
    written = emit(rewrite.rewritten.program, twin, rewrite.roadmap.name).split("\n")
    try:
        # Only at what ends a line for Python: str.splitlines would take other characters for the end of a comment.
        found = (folder / SOURCE).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return Check("source", False, f"{SOURCE} cannot be read: {one_line(error)}")
    for number, (line, expected) in enumerate(zip_longest(found, written), 1):
        if line != expected and not _same_but_for_rounding(line, expected):
            problem = f"{SOURCE} is not what the recipe makes: line {number} {_instead(line, expected)}"
            return Check("source", False, f"{problem}; it was not run{_by_another_version(document)}")
    return Check("source", True, f"all {len(found) - 1} lines of {SOURCE} are those that the recipe makes")


def _check_keymap(folder: Path, document: Mapping[str, Any], rewrite: Rewrite) -> Check:
    """The key map against the one that comes out now; which layers a calibration fitted is the report's to say."""
    try:
        found = read_json(folder / KEYMAP)
    except (OSError, ValueError) as error:
        return Check("keymap", False, f"{KEYMAP} cannot be read: {one_line(error)}")
    expected, fitted = keymap_data(rewrite), rewrite.original.program.aliases(_fitted(folder))
    for key, fate in expected["keys"].items():
        if {key, key.rpartition(".")[0]} & fitted and key in fate["keys"]:
            fate["fate"] = "calibrated"
    if difference := first_difference(found, expected):
        return Check("keymap", False, f"{KEYMAP}: {difference}{_by_another_version(document)}")
    return Check("keymap", True, f"what became of the {len(expected['keys'])} keys of the original repeats")


def _check_recipe(folder: Path, document: Mapping[str, Any], rewrite: Rewrite) -> Check:
    """The recipe's own words: names, decisions and their reasons, and orders of channels."""
    problem = next(_recipe_problems(folder, document, rewrite), "")
    if problem:
        return Check("recipe", False, f"{FILE}: {problem}{_by_another_version(document)}")
    return Check("recipe", True, f"{len(document['decisions'])} decisions and their reasons repeat")


def check_written_reports(folder: Path, document: Mapping[str, Any], rewrite: Rewrite) -> Check:
    """What reports say that the original and the recipe determine, and pages against the data that they show.

    `result` has its verdicts, so that nothing is run.
    """
    from ..report.page import render as render_page

    try:
        report = read_report(folder)
        problem = next(_report_problems(report.to_data(), document, rewrite), "")
        pages = {REPORT_TEXT: markdown(for_reading(report)), REPORT_PAGE: render_page(report, folder)}
        texts = {name: (folder / name).read_text(encoding="utf-8") for name in pages}
    except (OSError, UnicodeDecodeError) as error:
        return Check("report", False, f"a report cannot be read: {one_line(error)}")
    except MofaError as error:
        return Check("report", False, str(error))
    if problem:
        return Check("report", False, f"{REPORT}: {problem}{_by_another_version(document)}")
    for name, expected in pages.items():
        lines = zip_longest(_undrawn(texts[name]).split("\n"), _undrawn(expected).split("\n"))
        for number, (line, made) in enumerate(lines, 1):
            if line != made:
                differs = f"line {number} {_instead(line, made)}"
                return Check(
                    "report", False, f"{name} does not show {REPORT}: {differs}{_by_another_version(document)}"
                )
    return Check("report", True, "")


def _undrawn(page: str) -> str:
    """A page without what is drawn in it, but with the places of the drawings and what in them is not drawn."""
    return _DRAWN.sub(lambda drawn: f"<drawn {' '.join(_ACTIVE.findall(drawn[0]))}>", page)


def first_difference(found: Any, expected: Any, where: str = "") -> str:
    """Where plain data first differs from what is expected, rounding aside, and how; empty where nothing does."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for key in (*expected, *(key for key in found if key not in expected)):
            place = f"{where}.{key}" if where else str(key)
            if key not in found or key not in expected:
                return f"{_name(place)} {'is missing' if key in expected else 'is not what the recipe makes'}"
            if difference := first_difference(found[key], expected[key], place):
                return difference
        return ""
    if isinstance(found, list) and isinstance(expected, list):
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            if difference := first_difference(one, other, f"{where}[{index}]"):
                return difference
        if len(found) != len(expected):
            return f"{_name(where)} has {len(found)} entries, and the recipe makes {len(expected)}"
        return ""
    if _equal(found, expected):
        return ""
    return f"{_name(where)} {_instead(str(found), str(expected))}"


def _equal(found: Any, expected: Any) -> bool:
    numbers = isinstance(found, (int, float)) and isinstance(expected, (int, float))
    if numbers and (isinstance(found, float) or isinstance(expected, float)):
        return math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9)
    return type(found) is type(expected) and bool(found == expected)


def _recipe_problems(folder: Path, document: Mapping[str, Any], rewrite: Rewrite) -> Iterator[str]:
    recorded = {key: document["roadmap"][key] for key in document["roadmap"]}
    yield from filter(None, [first_difference(recorded, plain_data(rewrite.roadmap.to_dict()), "roadmap")])
    names = [
        document["architecture"]["class"],
        class_name(rewrite.original.program),
    ]  # a file may be imported under another module's name
    if len({name.rpartition(".")[2] for name in names}) > 1:
        yield f"architecture.class {_instead(*names)}"
    yield from filter(None, [first_difference(document["decisions"], plain_data(decisions(rewrite)), "decisions")])
    known = dict(rewrite.model.named_parameters())
    for name in document.get("frozen", []):
        if name not in known:
            yield f"frozen names {_name(name)}, which is no parameter of the network"
    yield from _order_problems(folder, document.get("channel_orders", {}), rewrite)


def _order_problems(folder: Path, orders: Mapping[str, Sequence[int]], rewrite: Rewrite) -> Iterator[str]:
    if not orders:
        return
    orbits = Channels(rewrite.prepared.program).orbits
    for index, order in orders.items():
        if int(index) >= len(orbits):
            yield f"channel_orders.{index} is of a set of channels that the network does not have"
        elif len(order) != len(orbits[int(index)]):
            yield f"channel_orders.{index} orders {len(order)} channels, and there are {len(orbits[int(index)])}"
    if not _fitted(folder):
        yield f"channel_orders are of a calibration, and {REPORT} has none"


def _report_problems(report: Mapping[str, Any], document: Mapping[str, Any], rewrite: Rewrite) -> Iterator[str]:
    expected = make_report(rewrite, ()).to_data()
    said = {**report, "passes": [step for step in report["passes"] if step["name"] != "calibration"]}
    calibrated = len(said["passes"]) < len(report["passes"])
    for side in (said, expected):
        side["passes"] = [_determined(step, calibrated) for step in side["passes"]]
        # Which line of the user's file a guard is on, others above it move.
        side["guards"] = [{**guard, "line": ""} for guard in side["guards"]]
    for key in expected:
        if key not in _MEASURED:
            yield from filter(None, [first_difference(said[key], expected[key], key)])
    recorded = {
        "decisions": _as_reported(document.get("measured")),
        "versions": {"mofa-compiler": document["mofa"], "torch": document["torch"]},
    }
    if document.get("original"):
        recorded["checkpoint"] = document["original"].get("checkpoint")
    for key, value in recorded.items():
        yield from filter(None, [first_difference(report[key], value, key)])


def _as_reported(measured: Any) -> Any:
    """A recipe's measurements as a report has them: an earlier one lacks keys, which have defaults."""
    try:
        return measured and Decisions.model_validate(measured).to_data()
    except ValidationError:
        return measured


def _determined(step: Mapping[str, Any], calibrated: bool) -> dict[str, Any]:
    """Of what a report says of a pass, what follows from recipe and original; calibration moves errors and notes."""
    left_out = {"error", *(("note", "exact", "fate") if calibrated else ())}
    edits = [{key: value for key, value in edit.items() if key not in left_out} for edit in step["edits"]]
    skips = [{key: value for key, value in skip.items() if key != "code"} for skip in step["skips"]]  # older: none
    kept = ("name", "options", "before", "after", *(() if calibrated else ("exact",)))
    return {**{key: step[key] for key in kept}, "edits": edits, "skips": skips}


def _fitted(folder: Path) -> set[str]:
    """The layers that a calibration fitted or whose channels it permuted, by the report; none without a good one."""
    try:
        document = read_document(folder)
        steps = TypeAdapter(tuple[_Fitted, ...]).validate_python(document.get("passes"))
    except (ReportError, ValidationError):  # which is told by itself
        return set()
    edits = [edit for step in steps if step.name == "calibration" for edit in step.edits]
    return {edit.path for edit in edits if edit.fate in ("calibrated", "reordered")}


def _by_another_version(document: Mapping[str, Any]) -> str:
    """A clause where a difference may come from the version that wrote the bundle, not from a change; else empty."""
    ours = versions()
    theirs = {"mofa-compiler": document["mofa"], "torch": document["torch"]}
    differing = [f"{name} {_short(theirs[name])} (this is {ours[name]})" for name in ours if theirs[name] != ours[name]]
    if differing:
        return f"; {' and '.join(differing)} wrote it, which may be why: rewrite the network again to tell"
    if not original.recorded(document):
        return "; an earlier version wrote it, which may be why: rewrite the network again to tell"
    return ""


def _instead(found: str | None, expected: str | None) -> str:
    """`is 'a', where the recipe makes 'b'`."""
    is_now = "is missing" if found is None else f"is {_short(found)!r}"
    return f"{is_now}, where the recipe makes {'none' if expected is None else repr(_short(expected))}"


def _short(text: str) -> str:
    text = printable(text.strip())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _name(place: str) -> str:
    return _short(place)


def _same_but_for_rounding(line: str | None, expected: str | None) -> bool:
    """Whether two lines differ in the last digits of decimal numbers alone, which cannot make other code of them."""
    if line is None or expected is None:
        return False
    found, made = _DECIMAL.split(line), _DECIMAL.split(expected)
    if len(found) != len(made) or found[::2] != made[::2]:
        return False
    pairs = zip(found[1::2], made[1::2], strict=True)
    return all(math.isclose(float(one), float(other), rel_tol=1e-5) for one, other in pairs)
