"""The comparison as one HTML file that loads nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib.resources import files

from ...base import spelling
from ...base.errors import ReportError
from ..model import Report
from . import tables
from .data import Comparison


def render(data: Comparison, reports: Sequence[Report] = ()) -> str:
    """What `compare` returned as a page; with the reports that it was made of, also a pareto plot.

    Whatever a name holds, it is text in the page.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    from .. import figures
    from ..html.page import asset

    figure = ""
    with contextlib.suppress(ReportError):  # networks of which no two numbers are known have no plot
        if reports:
            names = [one.name for one in data.networks]
            figure = Markup(figures.inline_svg(figures.pareto(reports, names), "pareto"))
    # Markup of our own only: everything else is escaped.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = spelling.printable
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    differences = [
        {"data": one, "counts": tables.counts(one), "groups": tables.groups(one)} for one in data.differences
    ]
    return template.render(
        title=", ".join(one.name for one in data.networks),
        style=asset("style.css"),
        heading=tables.heading(data),
        notes=data.notes,
        figure=figure,
        sizes=tables.sizes(data),
        quality=tables.quality(data),
        times=tables.times(data),
        timing=tables.timing(data),
        differences=differences,
    )
