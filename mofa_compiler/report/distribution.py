"""Where a network's cost lies, stage by stage, as in the paper's Figure 4: which stages are cheap, and by what rule.

What the network looks like is in the same data, for the drawings.

The data form, schema `mofa-distribution/1`:

- `schema`, `versions`, `model`, `inputs`, `anatomy`, `opaque`: as in `report.data`
- `obstacles`: as in `report.captured`, of what the roadmap makes if there is one
- `roadmap`: name of the roadmap that `after` is about, or null
- `before`, `after`: `{"parameters", "macs"}` of the network and, with a roadmap, of what it becomes (else null)
- `middle`: names of the encoder and decoder stages one level above the bottleneck
- `cheap`: `{"below", "reference", "limit", "rule"}`: a stage whose estimated MACs are below `below` times `reference`
  (the median encoder stage), that is below `limit`, is cheap; `rule` says so in words
- `stages`: `[{"name", "kind", "level", "pass", "units", "cheap", "why", "parameters", "macs", "vanilla",
  "parameters_share", "macs_share", "vanilla_share", "after", "layers"}]`: `vanilla` are the estimated MACs; `pass` is
  the U-Net of a cascade that it belongs to, from 1; `units` are the paths of the modules that form it; `kind`, `level`
  and `pass` are null for what belongs to no stage; `after` is null or has the six numbers again; `layers` are the
  convolutions, `[{"path", "layer", "input", "output", "parameters", "macs", "vanilla"}]`, `vanilla` being 0 for a
  pointwise convolution that is counted together with the depthwise one before it

What the network looks like drawn as a U, all in names of stages (empty for what is no U-Net):

- `passes`: `[{"number", "descending", "bottom", "ascending"}]`, the U-Nets of a cascade: stages on the way down and on
  the way up, in execution order, and the one where it turns, or null. A bridge between two U-Nets begins the second
- `skips`: `[{"source", "target", "kind", "level", "source_node", "target_node"}]`, the long skip connections in
  execution order: the stage that makes what is skipped, the one that reads the merge (null where there is none), the
  operation that merges, the level where it does (null where it is unknown), and the names of the two graph nodes
- `aside`: stages that lie on no U-Net: side inputs, auxiliary heads, work on skips, and what has no level
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..analysis.layers import signature
from ..base import words
from ..base.plain import plain_data, versions
from . import text
from .data import anatomy_data, totals_data
from .drawing import draw
from .structure import cheap_rule, structure
from .terminal import print_lines, wrap

if TYPE_CHECKING:
    from ..analysis.layers import Layer
    from ..analysis.network import Network

SCHEMA = "mofa-distribution/1"
_WIDEST_BAR = 40
_COLUMNS = 5 + 7 + 7 + 7 + 6 + 5 + 2 * 7
_FEWER_COLUMNS = 7 + 7 + 6 + 5 + 2 * 5
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def distribution(
    network: Network,
    after: Network | None = None,
    roadmap: str | None = None,
    obstacles: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The data form of a network and, where given, of what a roadmap makes of it, and what keeps that from a bundle."""
    program, anatomy = network.program, network.anatomy
    totals = totals_data(network.totals)
    later = {share["name"]: share for share in totals_data(after.totals)["stages"]} if after else {}
    document = {
        "schema": SCHEMA,
        "versions": versions(),
        "model": program.name,
        "inputs": [{"shape": spec.shape, "dtype": str(spec.dtype).removeprefix("torch.")} for spec in program.inputs],
        "anatomy": anatomy_data(anatomy),
        "opaque": [{"path": path, "cause": cause} for path, cause in program.opaque.items()],
        "obstacles": list(obstacles),
        "roadmap": roadmap,
        "before": {"parameters": network.totals.parameters, "macs": network.totals.macs},
        "after": {"parameters": after.totals.parameters, "macs": after.totals.macs} if after else None,
        "middle": [stage.name for stage in anatomy.middle()],
        "cheap": cheap_rule(network),
        "stages": [_stage(network, share, later.get(share["name"])) for share in totals["stages"]],
        **asdict(structure(network)),
    }
    plain: dict[str, Any] = plain_data(document)
    return plain


def _stage(network: Network, share: Mapping[str, Any], after: Mapping[str, Any] | None) -> dict[str, Any]:
    stage = next((stage for stage in network.anatomy.stages if stage.name == share["name"]), None)
    cheap, why = network.is_cheap(stage) if stage else (False, "belongs to no stage")
    layers = [layer for layer in network.layers.values() if layer.stage is stage]
    return {
        "name": share["name"],
        "kind": stage.kind if stage else None,
        "level": stage.level if stage else None,
        "pass": stage.pass_index + 1 if stage else None,
        "units": stage.units if stage else (),
        "cheap": cheap,
        "why": why,
        **share,
        "after": {key: value for key, value in after.items() if key != "name"} if after else None,
        "layers": [_layer(layer) for layer in layers],
    }


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "path": layer.path,
        "layer": signature(layer.module),
        "input": layer.input_shape,
        "output": layer.output_shape,
        "parameters": layer.parameters,
        "macs": layer.macs,
        "vanilla": layer.vanilla,
    }


def print_distribution(data: Mapping[str, Any], console: Console, layers: bool = False) -> None:
    """Print the network drawn as a U, a table with a bar a stage, the rule for cheap stages, and with `layers` every
    convolution; without a U where it is none, and in ASCII where the console's encoding has no more."""
    width = max(console.width, 40)
    print_lines(console, wrap(f"{data['model']}, input {text.shapes(data)}{_totals(data)}", width), "bold")
    print_lines(console, wrap(text.shape_of_network(data["anatomy"]), width), "dim")
    for part in data["opaque"]:
        print_lines(console, wrap(f"not seen into: {part['path']} ({part['cause']})", width, 0, 4), "yellow")
    for one in data["obstacles"]:
        print_lines(console, wrap(f"cannot be saved as a bundle: {one['reason']}", width, 0, 4), "yellow")
    ascii_only = not _can_draw(console)
    drawing = draw(data, width, ascii_only=ascii_only)
    if drawing:
        console.print()
        print_lines(console, drawing)
    console.print()
    console.print(_table(data, width, ascii_only))
    console.print()
    print_lines(console, wrap(data["cheap"]["rule"], width))
    if data["middle"]:
        print_lines(console, wrap(f"middle (one level above the bottleneck): {' and '.join(data['middle'])}", width))
    if layers:
        for stage in data["stages"]:
            _print_layers(stage, console, width)


def _can_draw(console: Console) -> bool:
    """Whether the terminal's encoding has box characters, bars and arrows."""
    try:
        "─│┌▶█▏→…".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _totals(data: Mapping[str, Any]) -> str:
    before, after = data["before"], data["after"]
    if after is None:
        return f": {words.quantity(before['parameters'])} parameters, {words.quantity(before['macs'])} MACs"
    amounts = [
        f"{words.quantity(before[key])} → {words.quantity(after[key])} {noun} ({words.change(before[key], after[key])})"
        for key, noun in (("parameters", "parameters"), ("macs", "MACs"))
    ]
    return f", roadmap {data['roadmap']}: {', '.join(amounts)}"


def _table(data: Mapping[str, Any], width: int, ascii_only: bool) -> Table:
    """Stages with bars of the estimate or, with a roadmap, of the true MACs; fewer columns where narrow."""
    measure, title = ("macs", "true MACs") if data["after"] else ("vanilla", "estimated MACs")
    drawn = [state for stage in data["stages"] for state in (stage, stage["after"]) if state]
    largest = max((state[measure] for state in drawn), default=0) or 1
    names = max((len(stage["name"]) for stage in data["stages"]), default=5)
    wide = width >= names + _COLUMNS + len(title)
    room = min(width - names - (_COLUMNS if wide else _FEWER_COLUMNS), _WIDEST_BAR)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("stage", no_wrap=True)
    for header in (*(("level", "params") if wide else ()), "MACs", "est.", "share"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(title if room >= len(title) else "", no_wrap=True, min_width=max(room, 1))
    table.add_column("", no_wrap=True)
    for stage in data["stages"]:
        for state, name, level, cheap, style in (
            (stage, stage["name"], stage["level"], stage["cheap"], "cyan"),
            (stage["after"], "  after", None, False, "magenta"),
        ):
            if state is None:
                continue
            extra = ("" if level is None else str(level), words.quantity(state["parameters"]))
            table.add_row(
                Text(name),
                *(extra if wide else ()),
                words.quantity(state["macs"]),
                words.quantity(state["vanilla"]),
                f"{100 * state[f'{measure}_share']:.1f} %",
                Text(bar(state[measure] / largest, room, ascii_only=ascii_only), style),
                Text("cheap" if cheap else "", "green"),
            )
    return table


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar of `share` of `width` characters, to an eighth of one; what is not nothing shows."""
    if ascii_only:
        return "#" * max(round(share * width), 1 if share > 0 else 0)
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def _print_layers(stage: Mapping[str, Any], console: Console, width: int) -> None:
    console.print()
    why = stage["why"] if stage["why"].startswith(stage["name"]) else stage["name"]
    print_lines(console, wrap(why, width), "bold")
    layers = stage["layers"]
    paths, forms = (max((len(layer[key]) for layer in layers), default=0) for key in ("path", "layer"))
    for layer in layers:
        amounts = f"{words.quantity(layer['parameters']):>7}  {words.quantity(layer['macs']):>7}"
        if 3 + paths + 2 + forms + 2 + len(amounts) <= width:
            print_lines(console, [f"   {layer['path']:<{paths}}  {layer['layer']:<{forms}}  {amounts}"])
        else:
            print_lines(console, wrap(layer["path"], width, 3, 7), "cyan")
            print_lines(console, _aligned(layer["layer"], amounts, width))
    if not layers:
        print_lines(console, ["   no convolutions"], "dim")


def _aligned(form: str, amounts: str, width: int) -> Iterable[str]:
    lines = wrap(form, width - len(amounts) - 2, 7)
    return [f"{lines[0]:<{width - len(amounts)}}{amounts}", *lines[1:]]
