"""How every figure looks: colours that stay apart in greyscale with their hatching, and text that is never markup."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from ...base import spelling
from .. import text
from ..model import Report
from ..stages import Drawn

COLOURS = {
    "paper": "#ffffff",
    "ink": "#222222",
    "muted": "#5a5f66",
    "line": "#8d949c",
    "band": "#f2f4f7",
    "before": "#b8c4d2",
    "after": "#3d5a80",
    "exact": "#2a9d8f",
    "adjusted": "#f6dfb2",
    "approximate": "#e9a23b",
    "refused": "#c9b8dc",
    "unchanged": "#dfe3e8",
    "added": "#c8553d",
    "saved": "#4c9f70",
    "skip": "#b5532a",
    "cheap": "#1b7f72",
}
"""By role; each has a value of its own, by which `inline_svg` finds it again"""

_FALLBACKS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Noto Sans")


@contextlib.contextmanager
def style(purpose: str = "figure") -> Iterator[None]:
    """Draw or write in this style; `purpose` goes into the ids of an SVG, which are the same every time."""
    from matplotlib import rc_context

    settings: Any = {
        "axes.edgecolor": COLOURS["line"],
        "axes.facecolor": "none",
        "axes.labelcolor": COLOURS["ink"],
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 9,
        "figure.facecolor": COLOURS["paper"],
        "font.family": ["DejaVu Sans", *_installed()],
        "font.size": 8,
        "hatch.linewidth": 0.6,
        "legend.fontsize": 7.5,
        "legend.frameon": False,
        "pdf.fonttype": 42,  # fonts as printers and journals take them
        "svg.fonttype": "none",
        "svg.hashsalt": f"mofa-{purpose}",
        "text.color": COLOURS["ink"],
        "text.parse_math": False,  # a name may hold dollar signs
        "xtick.color": COLOURS["muted"],
        "xtick.labelcolor": COLOURS["ink"],
        "ytick.color": COLOURS["muted"],
        "ytick.labelcolor": COLOURS["ink"],
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name may be in any script
        yield


def _installed() -> list[str]:
    """Fonts of this machine for scripts that matplotlib's own font lacks."""
    from matplotlib import font_manager

    names = set(font_manager.get_font_names())
    return [name for name in _FALLBACKS if name in names]


def heading(report: Report | Drawn) -> str:
    """What a figure is about: `PMRID, roadmap mofa, 1x3x256x256`."""
    name = report.roadmap.name if isinstance(report, Report) else report.roadmap
    parts = (clipped(report.model, 26), f"roadmap {clipped(name, 18)}" if name else "", text.shapes(report.inputs))
    return clipped(", ".join(filter(None, parts)), 72)


def clipped(words: str, width: int) -> str:
    """At most `width` columns, the middle left out, without control characters."""
    from ..document.terminal import shortened

    return shortened(spelling.printable(words), width)
