"""Figures as files, all of a file or nothing and the same bytes every time, and as parts of an HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ...base.atomic_files import scratch_file
from ...base.errors import MofaError
from .style import COLOURS, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_OURS = re.compile(r"stage-\d+")
_NAMES = {value: name for name, value in COLOURS.items()}


def save(make: Callable[[], Figure], path: Path) -> None:
    """Write the figure that `make` returns, all of it or nothing; the same figure gives the same bytes.

    Raises:
        MofaError: the file's ending names no format, or there is no such folder.
        OSError: the file cannot be written.
    """
    kind = check_format(path)
    if not path.parent.is_dir():
        raise MofaError(f"cannot write {path}: there is no folder {path.parent}")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with style(), scratch_file(path) as scratch:
        make().savefig(scratch, format=kind, dpi=200, metadata=metadata)


def check_format(path: Path) -> str:
    """The format that a file's ending stands for.

    Raises:
        MofaError: there is no such format.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise MofaError(f"cannot plot to {path}: its name has to end in {', '.join('.' + name for name in FORMATS)}")
    return kind


def inline_svg(figure: Figure, name: str = "", title: str = "", links: Mapping[str, tuple[str, str]] = {}) -> str:
    """The figure as SVG to embed in HTML: no prolog, text as text, nothing that reaches beyond it.

    Every colour is a CSS variable with a default, `var(--mofa-ink, #222222)`, by the names of `style.COLOURS`. Ids
    begin with `mofa-` and `name`, except those of the stages in the drawing by `unet`, which are `stage-<index>`.

    Args:
        figure: what a function of this package returned.
        name: tells the ids of the figures on one page apart; made from the title without it.
        title: what a screen reader reads and a pointer shows; the figure's label without it.
        links: by the id of a stage, where it leads, and what a screen reader calls that.
    """
    title = title or str(figure.get_label())
    name = name or re.sub(r"\W+", "-", title.lower(), flags=re.ASCII).strip("-")
    stream = io.StringIO()
    with style(name):
        figure.savefig(stream, format="svg", facecolor="none", metadata={"Date": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(stream.getvalue())
    _drop(root)
    interactive = _rename(root, f"mofa-{name}-")
    for parent in list(root.iter()) if links else ():
        for place, child in enumerate(list(parent)):
            if found := links.get(child.get("id", "")):
                parent[place] = ElementTree.Element(f"{{{_SVG}}}a", {"href": found[0], "aria-label": found[1]})
                parent[place].append(child)
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    # What is in an image cannot be reached by a screen reader, and stages have to be.
    root.set("role", "group" if interactive else "img")
    root.set("aria-labelledby", f"mofa-{name}-title")
    root.attrib.pop("version", None)
    heading = ElementTree.Element(f"{{{_SVG}}}title", {"id": f"mofa-{name}-title"})
    heading.text = title
    root.insert(0, heading)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(root: ElementTree.Element) -> None:
    """Take away what is no drawing: metadata, and the style sheet, which would hold for the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)


def _rename(root: ElementTree.Element, prefix: str) -> bool:
    """Give ids a prefix and colours their variables; tells whether stages are in it."""
    stages = False
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                ours = _OURS.fullmatch(value) is not None
                stages = stages or ours
                element.set(key, value if ours else prefix + value)
            elif key == f"{{{_LINK}}}href" and value.startswith("#"):
                element.set(key, f"#{prefix}{value[1:]}")
            else:
                value = re.sub(r"url\(#", f"url(#{prefix}", value)
                if key in ("style", "fill", "stroke"):
                    value = re.sub(r"#[0-9a-f]{6}\b", _variable, value)
                element.set(key, value)
    return stages


def _variable(found: re.Match[str]) -> str:
    """A colour of ours as a variable; text and lines that matplotlib draws black are ink."""
    colour = found.group()
    name = "ink" if colour == "#000000" else _NAMES.get(colour)
    return f"var(--mofa-{name}, {colour})" if name else colour
