"""One self-contained HTML file made of the data of `report.json`: nothing is loaded, nothing of a name is markup.

Tables stand in the HTML and are readable without JavaScript, which adds sorting, filtering, the drawing's stages and
the zoom. Of very many edits the first `ROWS` are in the HTML; the script makes the rows of the others from the JSON.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base import spelling
from .. import text
from ..document import Block
from ..figures.stage_chart import cheap_rule
from ..model import Report
from ..part import Part
from ..stages import view as view_of
from . import tables
from .headline import cards, conditions, notices
from .pictures import pictures

if TYPE_CHECKING:
    from jinja2 import Template

ROWS = 500
"""Edits in the HTML; each is some 300 bytes, besides its data"""

DATA = 2_200_000
"""Bytes of data from which on parts are left out, least needed first: 3,000 layers edited and refused come to that"""

LISTED = 100
"""Layers in the HTML for one reason of one pass"""

LIMIT = 3_000_000
"""Bytes that a page may have; images are made smaller to fit"""

_DRAWN = {
    "roadmap": "Figure: parameters and MACs after every step",
    "flops": "Figure: MACs by stage",
    "unet": "Figure: the network by stages",
}
_SCRIPTS = ("edits.js", "stages.js", "zoom.js")


def render(report: Report, folder: Path | None = None) -> str:
    """The page of a report; the same report gives the same text.

    Args:
        report: what was made of a result, or read.
        folder: the bundle, whose folder `images` has the images that the report names.
    """
    document, left_out = _data(report)
    rows = list(tables.edits(report))
    refusals = tables.refusals(report)
    view: dict[str, Any] = {
        "report": report,
        "title": spelling.printable(f"{report.model} rewritten by {report.roadmap.name}"),
        "cards": cards(report),
        "notices": notices(report),
        "weights": text.weights(report),
        "network": text.shape_of_network(report.anatomy),
        "figures": {**dict.fromkeys(_DRAWN, ""), **_drawings(report)},
        "steps": tables.steps(report, _summaries(step.name for step in report.passes)),
        "measured_on": next((step.verdict.measured_on for step in report.passes), ""),
        "stages": (stages := tables.stages(report)),
        "rule": cheap_rule(view_of(report)).rstrip("."),
        "rows": [{**vars(row), "name": report.passes[row.step - 1].name} for row in rows[:ROWS]],
        "total": len(rows),
        "timed": any(row.ms is not None for row in rows),
        "fates": [fate for fate in tables.FATES if any(row.edit.fate == fate for row in rows)],
        "meanings": tables.FATES,
        "refusals": refusals,
        "listed": LISTED,
        "decisions": "" if report.decisions is None else _html(tables.decisions(report.decisions)),
        "recoveries": _html(tables.recoveries(report.recoveries)),
        "timed_on": "" if report.decisions is None else conditions(report.decisions.conditions),
        "document": document,
        "left_out": left_out,
        "extra": _json(_extra(report, rows, refusals, stages, [] if "layers" in left_out else tables.became(report))),
        "style": asset("style.css"),
        "script": _script(),
        "policy": _policy(),
    }
    view["parts"] = _parts(report, view)
    return _with_images(report, folder, view)


def _html(blocks: Iterable[Block]) -> str:
    from markupsafe import Markup

    from ..document.html import rendered

    return Markup("\n").join(rendered(blocks))


def _with_images(report: Report, folder: Path | None, view: dict[str, Any]) -> str:
    """The page with as much of the images as it has room for."""
    template = _template()
    if not report.images:
        return template.render(view, images=[], pictures_note="")
    bare, _ = pictures(report, None, 0)
    room = LIMIT - len(template.render(view, images=bare, pictures_note="").encode()) - 1000
    images, note = pictures(report, folder, max(room, 0))
    return template.render(view, images=images, pictures_note=note)


def _drawings(report: Report) -> dict[str, str]:
    """SVG of the roadmap, the cost of the stages and, of a U-Net, the network; each in a frame that can be scrolled."""
    from markupsafe import Markup

    from .. import figures

    wanted: dict[str, Callable[[Report], Any]] = {
        "roadmap": functools.partial(figures.roadmap, bare=True),
        "flops": functools.partial(figures.flops, bare=True),
        "unet": figures.unet,
    }
    if not report.passes:
        del wanted["roadmap"]
    if not report.before.stages:
        del wanted["flops"], wanted["unet"]
    frame = Markup('<div class="figure" role="region" tabindex="0" aria-label="{}">{}</div>')
    return {
        name: frame.format(_DRAWN[name], Markup(figures.inline_svg(draw(report), name)))
        for name, draw in wanted.items()
    }


def _parts(report: Report, view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sections of the page, for the links at its top."""
    named = {
        "roadmap": "Roadmap",
        "images": "Images" if report.images else "",
        "stages": "Computation",
        "edits": f"Edits ({view['total']:,})",
        "refusals": "Left alone",
        "decisions": "Decisions" if report.decisions else "",
        "recoveries": "Recovery" if report.recoveries else "",
        "terms": "Terms",
    }
    return [(anchor, label) for anchor, label in named.items() if label]


def _summaries(names: Iterable[str]) -> dict[str, str]:
    """What each pass does, in one sentence, of those that are installed here."""
    from ...base.errors import RoadmapError
    from ...rewriting.registry import available

    try:
        passes = available()
    except RoadmapError:  # a broken package of somebody else's: the report is still good
        return {}
    found = {name: (passes[name].__doc__ or "") for name in names if name in passes}
    return {name: " ".join(doc.partition("\n\n")[0].split()).replace("`", "") for name, doc in found.items()}


def _extra(
    report: Report,
    rows: Sequence[tables.Row],
    refusals: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]],
    layers: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """What the script needs besides the report: times, and the words of those rows that are not in the HTML.

    `rest` has for each of these edits where in `words` its changes in parameters and MACs, its accuracy and its time
    stand; `layers` has the same for what every layer became and its MACs; `edited` counts the edited layers of every
    stage, `refused` has the stages of every row of refusals; `names` has what to write for names that hold characters
    which do not print.
    """
    words: dict[str, int] = {"": 0}
    rest = [
        [words.setdefault(one, len(words)) for one in (row.parameters, row.macs, row.accuracy, row.time)]
        for row in islice(rows, ROWS, None)
    ]
    said = {text_ for step in report.passes for one in (*step.edits, *step.skips) for text_ in _names(one)}
    said |= {name for layer in report.layers for name in _names(layer)}
    return {
        "times": {row.number: row.ms for row in rows if row.ms is not None},
        "rest": rest,
        "names": {name: spelling.printable(name) for name in sorted(said) if not name.isprintable()},
        "layers": [[words.setdefault(one, len(words)) for one in layer] for layer in layers],
        "words": list(words),
        "stages": [stage.name for stage in report.before.stages],
        "edited": [stage["layers"][0] for stage in stages],
        "refused": [refusal["stages"] for refusal in refusals],
        "listed": LISTED,
    }


def _names(one: Part) -> Iterable[str]:
    return (value for _, value in one if isinstance(value, str))


def _data(report: Report) -> tuple[str, list[str]]:
    """The report as JSON, and what was left out of it for the page's size: first what the page does not show."""
    data = report.to_data()
    whole = _json(data)
    left_out: list[str] = []
    for name, reduced in _REDUCTIONS.items():
        if len(whole.encode()) <= DATA:
            break
        data = reduced(data)
        smaller = _json(data)
        if len(smaller) < len(whole):
            whole, left_out = smaller, [*left_out, name]
    return whole, left_out


def _without(*keys: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda report: {key: value for key, value in report.items() if key not in keys}


def _without_skips(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **report,
        "passes": [{key: value for key, value in one.items() if key != "skips"} for one in report["passes"]],
    }


_REDUCTIONS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "rewritten_layers": _without("rewritten_layers"),
    "passes[].skips": _without_skips,  # the table names the first layers of each reason without it
    "layers": _without("layers"),  # the stages' lists of layers
}


def _json(document: Mapping[str, Any]) -> str:
    """JSON that may stand in a script element: no `<`, so nothing in it ends the element or opens a comment."""
    from markupsafe import Markup

    compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Markup(compact.replace("<", "\\u003c").replace(">", "\\u003e"))  # in JSON both are in strings only


@functools.cache
def asset(name: str) -> str:
    """A file of this package as markup, which a template does not escape."""
    from markupsafe import Markup

    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


@functools.cache
def _script() -> str:
    from markupsafe import Markup

    return Markup("\n".join(['"use strict";', "{", *map(asset, _SCRIPTS), "}"]))  # in a block: no global names


@functools.cache
def _policy() -> str:
    """Nothing may be loaded, and no script may run but ours: what a name smuggled in would do nothing."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = spelling.printable
    environment.filters["shortlist"] = tables.shortlist
    return environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
