"""Where a network's cost lies, stage by stage, as in the paper's Figure 4: which stages are cheap, and by what rule.

What the network looks like is in the same data, for the drawings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..analysis.layers import signature
from ..base import words
from ..base.plain import versions
from . import text
from .data import anatomy_data, inputs_data, opaque_data, totals_data
from .document.terminal import grid, print_lines, wrap
from .drawing import draw
from .model import Amounts, Cost, Opaque, StageCost
from .part import Part
from .stages import Drawn, DrawnStage
from .structure import cheap_rule, structure

if TYPE_CHECKING:
    from ..analysis.layers import Layer
    from ..analysis.network import Network

SCHEMA = "mofa-distribution/1"
_WIDEST_BAR = 40
_COLUMNS = 5 + 7 + 7 + 7 + 6 + 5 + 2 * 7
_FEWER_COLUMNS = 7 + 7 + 6 + 5 + 2 * 5
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Convolution(Part):
    """A convolution."""

    path: str
    layer: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    macs: int
    vanilla: int
    """MACs by the paper's estimate; 0 for a pointwise one that is counted with the depthwise one before it"""


class SurveyedStage(DrawnStage):
    """A stage with its convolutions."""

    why: str
    """Why it is cheap, or is not"""
    layers: tuple[Convolution, ...]


class Obstacle(Part):
    """What no bundle can hold."""

    path: str
    reason: str


class Distribution(Drawn):
    """A network by its stages and, where given, what a roadmap makes of it."""

    schema_: Literal["mofa-distribution/1"] = Field(alias="schema")
    versions: dict[str, str]
    opaque: tuple[Opaque, ...]
    obstacles: tuple[Obstacle, ...]
    """Of what the roadmap makes, if there is one"""
    middle: tuple[str, ...]
    """The encoder and decoder stages one level above the bottleneck"""
    stages: tuple[SurveyedStage, ...]


def distribution(
    network: Network,
    after: Network | None = None,
    roadmap: str | None = None,
    obstacles: Sequence[Mapping[str, str]] = (),
) -> Distribution:
    """The data form of a network and, where given, of what a roadmap makes of it, and what keeps that from a bundle."""
    program, anatomy = network.program, network.anatomy
    later = {share.name: share for share in totals_data(after.totals).stages} if after else {}
    return Distribution(
        schema_=SCHEMA,
        versions=versions(),
        model=program.name,
        inputs=inputs_data(program),
        anatomy=anatomy_data(anatomy),
        opaque=opaque_data(program),
        obstacles=tuple(Obstacle(**one) for one in obstacles),
        roadmap=roadmap,
        before=_amounts(network),
        after=_amounts(after) if after else None,
        middle=tuple(stage.name for stage in anatomy.middle()),
        cheap=cheap_rule(network),
        stages=tuple(_stage(network, share, later.get(share.name)) for share in totals_data(network.totals).stages),
        **dict(structure(network)),
    )


def _amounts(network: Network) -> Amounts:
    return Amounts(parameters=network.totals.parameters, macs=network.totals.macs)


def _stage(network: Network, share: StageCost, after: StageCost | None) -> SurveyedStage:
    stage = next((stage for stage in network.anatomy.stages if stage.name == share.name), None)
    cheap, why = network.is_cheap(stage) if stage else (False, "belongs to no stage")
    layers = [layer for layer in network.layers.values() if layer.stage is stage]
    return SurveyedStage(
        **dict(share),
        kind=stage.kind if stage else None,
        level=stage.level if stage else None,
        pass_=stage.pass_index + 1 if stage else None,
        units=tuple(stage.units) if stage else (),
        cheap=cheap,
        why=why,
        after=None if after is None else Cost(**after.model_dump(exclude={"name"})),
        layers=tuple(map(_convolution, layers)),
    )


def _convolution(layer: Layer) -> Convolution:
    return Convolution(
        path=layer.path,
        layer=signature(layer.module),
        input=layer.input_shape,
        output=layer.output_shape,
        parameters=layer.parameters,
        macs=layer.macs,
        vanilla=layer.vanilla,
    )


def print_distribution(data: Distribution, console: Console, layers: bool = False) -> None:
    """Print the network drawn as a U, a table with a bar a stage, the rule for cheap stages, and with `layers` every
    convolution; without a U where it is none, and in ASCII where the console's encoding has no more."""
    width = max(console.width, 40)
    print_lines(console, wrap(f"{data.model}, input {text.shapes(data.inputs)}{_totals(data)}", width), "bold")
    print_lines(console, wrap(text.shape_of_network(data.anatomy), width), "dim")
    for part in data.opaque:
        print_lines(console, wrap(f"not seen into: {part.path} ({part.cause})", width, 0, 4), "yellow")
    for one in data.obstacles:
        print_lines(console, wrap(f"cannot be saved as a bundle: {one.reason}", width, 0, 4), "yellow")
    ascii_only = not _can_draw(console)
    drawing = draw(data, width, ascii_only=ascii_only)
    if drawing:
        console.print()
        print_lines(console, drawing)
    console.print()
    console.print(_table(data, width, ascii_only))
    console.print()
    print_lines(console, wrap(data.cheap.rule, width))
    if data.middle:
        print_lines(console, wrap(f"middle (one level above the bottleneck): {' and '.join(data.middle)}", width))
    if layers:
        for stage in data.stages:
            _print_layers(stage, console, width)


def _can_draw(console: Console) -> bool:
    """Whether the terminal's encoding has box characters, bars and arrows."""
    try:
        "─│┌▶█▏→…".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _totals(data: Distribution) -> str:
    before, after = data.before, data.after
    if after is None:
        return f": {words.quantity(before.parameters)} parameters, {words.quantity(before.macs)} MACs"
    pairs = ((before.parameters, after.parameters, "parameters"), (before.macs, after.macs, "MACs"))
    amounts = [
        f"{words.quantity(was)} → {words.quantity(now)} {noun} ({words.change(was, now)})" for was, now, noun in pairs
    ]
    return f", roadmap {data.roadmap}: {', '.join(amounts)}"


def _table(data: Distribution, width: int, ascii_only: bool) -> Table:
    """Stages with bars of the estimate or, with a roadmap, of the true MACs; fewer columns where narrow."""
    measure, title = ("macs", "true MACs") if data.after else ("vanilla", "estimated MACs")
    largest = max((getattr(state, measure) for stage in data.stages for state in stage.states), default=0) or 1
    names = max((len(stage.name) for stage in data.stages), default=5)
    wide = width >= names + _COLUMNS + len(title)
    room = min(width - names - (_COLUMNS if wide else _FEWER_COLUMNS), _WIDEST_BAR)
    table = grid()
    table.add_column("stage", no_wrap=True)
    for header in (*(("level", "params") if wide else ()), "MACs", "est.", "share"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(title if room >= len(title) else "", no_wrap=True, min_width=max(room, 1))
    table.add_column("", no_wrap=True)
    for stage in data.stages:
        for state, name, level, cheap, style in (
            (stage, stage.name, stage.level, stage.cheap, "cyan"),
            (stage.after, "  after", None, False, "magenta"),
        ):
            if state is None:
                continue
            extra = ("" if level is None else str(level), words.quantity(state.parameters))
            table.add_row(
                Text(name),
                *(extra if wide else ()),
                words.quantity(state.macs),
                words.quantity(state.vanilla),
                f"{100 * getattr(state, f'{measure}_share'):.1f} %",
                Text(bar(getattr(state, measure) / largest, room, ascii_only=ascii_only), style),
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


def _print_layers(stage: SurveyedStage, console: Console, width: int) -> None:
    console.print()
    why = stage.why if stage.why.startswith(stage.name) else stage.name
    print_lines(console, wrap(why, width), "bold")
    layers = stage.layers
    paths = max((len(layer.path) for layer in layers), default=0)
    forms = max((len(layer.layer) for layer in layers), default=0)
    for layer in layers:
        amounts = f"{words.quantity(layer.parameters):>7}  {words.quantity(layer.macs):>7}"
        if 3 + paths + 2 + forms + 2 + len(amounts) <= width:
            print_lines(console, [f"   {layer.path:<{paths}}  {layer.layer:<{forms}}  {amounts}"])
        else:
            print_lines(console, wrap(layer.path, width, 3, 7), "cyan")
            print_lines(console, _aligned(layer.layer, amounts, width))
    if not layers:
        print_lines(console, ["   no convolutions"], "dim")


def _aligned(form: str, amounts: str, width: int) -> Iterable[str]:
    lines = wrap(form, width - len(amounts) - 2, 7)
    return [f"{lines[0]:<{width - len(amounts)}}{amounts}", *lines[1:]]
