"""A chart of the cost distribution, as the paper's Figure 4; needs matplotlib (the extra `plot`)."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import MofaError
from . import text

FORMATS = ("png", "svg", "pdf")
_COLOURS = ("#3d5a80", "#2a9d8f", "#e9a23b")


def plot(data: Mapping[str, Any], path: Path) -> None:
    """Draw the stages of `report.distribution.distribution` as horizontal bars; writes all of the file or nothing.

    Raises:
        MofaError: matplotlib is not installed, or the file's ending names no format that we write.
        OSError: the file cannot be written.
    """
    save(lambda: _figure(data), path)


def save(make: Callable[[], Any], path: Path) -> None:
    """Write the matplotlib figure that `make` returns, all of it or nothing; the same figure gives the same bytes.

    Raises:
        MofaError: matplotlib is not installed, the file's ending names no format, or there is no such folder.
        OSError: the file cannot be written.
    """
    kind = check_format(path)
    from matplotlib import rc_context

    if not path.parent.is_dir():
        raise MofaError(f"cannot write {path}: there is no folder {path.parent}")

    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        scratch = Path(file.name)
    try:
        with rc_context({"svg.hashsalt": "mofa", "svg.fonttype": "none", "font.size": 9}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name may be in any script
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
            make().savefig(scratch, format=kind, dpi=160, metadata=metadata)
        scratch.chmod(0o666 & ~_umask())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def check_format(path: Path) -> str:
    """The format that a file's ending stands for.

    Raises:
        MofaError: matplotlib is not installed, or there is no such format.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise MofaError(f"cannot plot to {path}: its name has to end in {', '.join('.' + name for name in FORMATS)}")
    if find_spec("matplotlib") is None:
        raise MofaError("plotting needs matplotlib: pip install mofa-compiler[plot]")
    return kind


def _figure(data: Mapping[str, Any]) -> Any:
    """Estimated MACs by stage with the limit of what is cheap; with a roadmap, true MACs before and after."""
    from matplotlib.figure import Figure

    stages, compared = data["stages"], data["after"] is not None
    figure = Figure(figsize=(7.2, 1.4 + len(stages) * (0.42 if compared else 0.32)), layout="constrained")
    axes = figure.add_subplot()
    if compared:
        _draw_comparison(axes, data)
        axes.set_xlabel(f"MACs at {text.shapes(data)}")
    else:
        _draw_estimate(axes, data)
        axes.set_xlabel(f"MACs at {text.shapes(data)}, estimated as if every convolution were a vanilla one")
    axes.set_yticks(range(len(stages)), [stage["name"] for stage in stages])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: text.quantity(value))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{data['model']}: MACs by stage", loc="left", parse_math=False)
    axes.legend(frameon=False, loc="best")
    return figure


def _draw_estimate(axes: Any, data: Mapping[str, Any]) -> None:
    for cheap, label, colour in ((False, "stage", _COLOURS[0]), (True, "cheap stage", _COLOURS[1])):
        chosen = [(row, stage["vanilla"]) for row, stage in enumerate(data["stages"]) if stage["cheap"] is cheap]
        if chosen:
            axes.barh(*zip(*chosen, strict=True), height=0.7, color=colour, label=label)
    if data["anatomy"]["is_unet"]:
        limit = data["cheap"]["limit"]
        axes.axvline(limit, color="0.35", linewidth=1, linestyle="--", label=f"cheap below {text.quantity(limit)}")


def _draw_comparison(axes: Any, data: Mapping[str, Any]) -> None:
    height = 0.38
    for offset, states, label, colour in (
        (-height / 2, data["stages"], "before", _COLOURS[0]),
        (height / 2, [stage["after"] or {} for stage in data["stages"]], f"after {data['roadmap']}", _COLOURS[2]),
    ):
        rows = [row + offset for row in range(len(states))]
        axes.barh(rows, [state.get("macs", 0) for state in states], height, color=colour, label=label)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
