"""The network drawn as a U: what is in the drawing, and that it stays readable whatever the network is like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import apply, capture
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.analysis.network import Network
from mofa_compiler.report import text
from mofa_compiler.report.canvas import Canvas
from mofa_compiler.report.distribution import distribution
from mofa_compiler.report.drawing import draw
from mofa_compiler.report.figures import save, unet
from mofa_compiler.report.layout import Form, UShapes, arrange
from mofa_compiler.report.stages import Drawn
from mofa_compiler.report.structure import Shape, StageSkip, UShape, structure
from tests.analysis.anatomy.small import UNetPair

WIDTHS = (40, 60, 80, 120, 200)


def network(model: nn.Module, *inputs: Tensor) -> Network:
    program = capture(model.eval(), inputs or torch.rand(1, 3, 64, 64))
    return Network(program, infer(program))


class WithSides(nn.Module):
    """A second input, a gate on a skip, and an auxiliary output."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = nn.Conv2d(1, 4, 3, padding=1)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.down = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.gate = nn.Conv2d(4, 4, 1)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3))
        self.preview = nn.Conv2d(4, 3, 1)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        a = self.stem(x) + self.guide(depth)
        b = self.middle(self.down(a))
        return self.out(F.pad(self.up(b), (1, 1, 1, 1)) + self.gate(a)), self.preview(b)


HOSTILE = "down[0]\x1b[31m\n$x_{1}$网络下采样块网络下采样块网络下采样块"


class Hostile(nn.Module):
    """Module names with colours, line breaks, formulas, wide characters, and of great length."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleDict({f"{HOSTILE}{i}": self.block(2) for i in range(5)})
        self.up = nn.ModuleDict({f"{'ascending_' * 12}{i}": self.block(1) for i in range(5)})
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def block(self, stride: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 4, 3, stride, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.first(x), []
        for block in self.down.values():
            skips.append(x)
            x = block(x)
        for block in self.up.values():
            x = block(F.interpolate(x, scale_factor=2.0) + skips.pop())
        return self.last(x)


@pytest.fixture(scope="module")
def drawings() -> dict[str, Drawn]:
    """Data of networks that differ in everything that a drawing has to cope with."""
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Flatten())
    compared = apply(NAFNet(width=8), "mofa", torch.rand(1, 3, 64, 64))
    return {
        "pmrid": distribution(network(PMRID())),
        "nafnet": distribution(network(NAFNet(width=8))),
        "unet": distribution(network(UNet(width=2, depth=2))),
        "pair": distribution(network(UNetPair())),
        "sides": distribution(network(WithSides(), torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64))),
        "hostile": distribution(network(Hostile())),
        "compared": distribution(compared.original, compared.rewritten, "mofa"),
        "classifier": distribution(network(classifier)),
        "deep": invented(levels=12, passes=3),
    }


def skip(source: str, target: str, kind: str = "cat") -> StageSkip:
    return StageSkip(source=source, target=target, kind=kind, level=1, source_node="a", target_node="b")


def u_shape(number: int, descending: Sequence[str], bottom: str | None, ascending: Sequence[str]) -> UShape:
    return UShape(number=number, descending=tuple(descending), bottom=bottom, ascending=tuple(ascending))


def invented(levels: int, passes: int, skips: list[tuple[str, str]] | None = None, *more: StageSkip) -> Drawn:
    """Data of U-Nets that no test could afford to capture."""
    stages, shapes, joined = [], [], []
    for number in range(1, passes + 1):
        prefix = f"pass {number} " if number > 1 else ""
        down = [f"{prefix}encoder {level + 1}" for level in range(levels)]
        up = [f"{prefix}decoder {levels - level}" for level in reversed(range(levels))]
        shapes.append(u_shape(number, down, f"{prefix}bottleneck", up))
        joined += list(zip(down, reversed(up), strict=True))
        for level, names in enumerate([*zip(down, reversed(up), strict=True), (f"{prefix}bottleneck",)]):
            stages += [{"name": name, "level": level, "pass": number} for name in names]
    amounts = {"macs": 10**9, "parameters": 10**6}
    shares = {"vanilla": 10**9, "parameters_share": 0.1, "macs_share": 0.1, "vanilla_share": 0.1}
    rest = {"kind": "encoder", "units": ["net.block", "net.other"], "cheap": False, "after": None}
    return Drawn.model_validate(
        {
            "model": "Invented",
            "anatomy": {"is_unet": True, "reason": "it says so", "stages": []},
            "roadmap": None,
            "inputs": [{"shape": [1, 3, 64, 64], "dtype": "float32"}],
            "before": amounts,
            "after": None,
            "cheap": {"below": 0.5, "reference": 2.0, "limit": 1.0, "rule": "cheap: below one"},
            "stages": [{**stage, **amounts, **shares, **rest} for stage in stages],
            "passes": shapes,
            "skips": [*(skip(a, b) for a, b in (joined if skips is None else skips)), *more],
            "aside": [],
        }
    )


def pairs(found: Shape) -> list[tuple[str | None, str | None]]:
    return [(skip.source, skip.target) for skip in found.skips]


def test_structure_of_pmrid() -> None:
    found = structure(network(PMRID()))
    encoders, decoders = ([f"{kind} {i}" for i in range(1, 5)] for kind in ("encoder", "decoder"))
    assert found.passes == (u_shape(1, ("stem", *encoders), "bottleneck", (*decoders, "head")),)
    assert pairs(found) == [
        ("encoder 3", "decoder 1"),
        ("encoder 2", "decoder 2"),
        ("encoder 1", "decoder 3"),
        ("stem", "decoder 4"),
    ]
    assert found.skips[0] == StageSkip(
        source="encoder 3",
        target="decoder 1",
        kind="add",
        level=3,
        source_node="enc3_3_relu",
        target_node="add_13",
    )
    assert found.aside == ()


def test_the_deepest_encoder_stands_where_there_is_no_bottleneck() -> None:
    (shape,) = structure(network(UNet(width=2, depth=2))).passes
    assert shape == u_shape(1, ("stem", "encoder 1"), "encoder 2", ("decoder 1", "decoder 2", "head"))


def test_a_bridge_begins_the_second_unet() -> None:
    found = structure(network(UNetPair()))
    assert found.passes == (
        u_shape(1, ("stem", "encoder 1"), "encoder 2", ("decoder 1", "decoder 2")),
        u_shape(
            2,
            ("bridge", "pass 2 encoder 1"),
            "pass 2 encoder 2",
            ("pass 2 decoder 1", "pass 2 decoder 2", "head"),
        ),
    )
    assert ("bridge", "pass 2 decoder 2") in pairs(found)


def test_what_lies_on_no_unet_is_aside() -> None:
    found = structure(network(WithSides(), torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)))
    assert found.aside == ("conditioning", "skip", "aux head")
    assert pairs(found) == [("stem", "head")]  # through the gate, into what reads the sum


@pytest.mark.slow
def test_no_unet_has_no_structure(drawings: dict[str, Drawn]) -> None:
    assert structure(network(nn.Sequential(nn.Conv2d(3, 3, 3)))) == Shape(passes=(), skips=(), aside=())
    assert draw(drawings["classifier"], 80) == []


def test_rows_go_by_level_and_skips_stand_opposite() -> None:
    levels = {"stem": 0, "a": 0, "b": 1, "c": 2, "y": 1, "z": 0}
    shape = u_shape(1, ["stem", "a", "b"], "c", ["y", "z"])

    def rows(source: str) -> dict[str, int]:
        found = arrange([shape], levels, [skip(source, "z")])
        assert found.levels == (0, 0, 1, 2)
        return {place.stage: place.row for place in found.passes[0]}

    assert rows("a") == {"stem": 0, "a": 1, "z": 1, "b": 2, "y": 2, "c": 3}
    assert rows("stem") == {"stem": 0, "z": 0, "a": 1, "b": 2, "y": 2, "c": 3}


SMALL = """\
level
                                                      ┌ head ───────┐
  0                                                   │ outc        │
                                                      │ 24.6 k / 9  │
                                                      └─────────────┘
                                                              ▲
          ┌ stem ───────┐                         ┌ decoder 2 ┴─┐
          │ inc         ├───────── cat ──────────▶│ ups.1       │
          │ 369 k / 98  │                         │ 475 k / 150 │
          └─────┬───────┘                         └─────────────┘
                ▼                                         ▲
              ┌ encoder 1 ──┐                 ┌ decoder 1 ┴─┐
  1           │ downs.0     ├───── cat ──────▶│ ups.0       │
              │ 221 k / 232 │                 │ 475 k / 580 │
              └───────────┬─┘                 └─────────────┘
                          │                     ▲
                          │   ┌ encoder 2 ──┐   │
  2                       │   │ downs.1     │   │
                          └──▶│ 221 k / 896 ├───┘
                              └─────────────┘

in each block: MACs / parameters; level k works at 1/2^k of the
input's size
"""


def test_a_drawing(drawings: dict[str, Drawn]) -> None:
    assert "\n".join(draw(drawings["unet"], 69)) + "\n" == SMALL


@pytest.mark.parametrize("name", ["pmrid", "nafnet", "unet", "pair", "sides", "hostile", "compared", "deep"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.sample(12)
def test_every_drawing_fits_and_names_every_stage(
    drawings: dict[str, Drawn], name: str, width: int, ascii_only: bool
) -> None:
    data = drawings[name]
    lines = draw(data, width, ascii_only=ascii_only)
    page = "\n".join(lines)
    assert max(map(cell_len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    assert page.isascii() or not ascii_only
    for stage in data.stages:
        assert stage.name.removeprefix(f"pass {stage.pass_} ") in page


def test_skips_without_room_are_listed(drawings: dict[str, Drawn]) -> None:
    said = " ".join(draw(drawings["pmrid"], 40)).partition("long skips: ")[2]
    for skip in drawings["pmrid"].skips:
        assert f"{skip.source} → {skip.target} (add)" in said


@pytest.mark.parametrize("name", ["pmrid", "nafnet", "hostile", "pair", "compared"])
def test_all_long_skips_are_drawn_at_80_columns(drawings: dict[str, Drawn], name: str) -> None:
    page = "\n".join(draw(drawings[name], 80))
    assert "long skips" not in page
    assert page.count(f" {drawings[name].skips[0].kind} ") == len(drawings[name].skips)


def test_cheap_stages_are_marked(drawings: dict[str, Drawn]) -> None:
    cheap = sum(stage.cheap for stage in drawings["pmrid"].stages)
    assert cheap == "\n".join(draw(drawings["pmrid"], 80)).count("└ cheap ─") == 5
    assert not any("cheap" in line for line in draw(drawings["unet"], 80))


def test_a_roadmap_shows_both_states_in_the_blocks(drawings: dict[str, Drawn]) -> None:
    page = "\n".join(draw(drawings["compared"], 80))
    stage = next(s for s in drawings["compared"].stages if s.after and s.macs != s.after.macs)
    assert stage.after
    for was, now in ((stage.macs, stage.after.macs), (stage.parameters, stage.after.parameters)):
        assert f"{text.quantity(was)} → {text.quantity(now)}" in page
    assert "before → after mofa" in page


def test_unets_stand_side_by_side_where_there_is_room(drawings: dict[str, Drawn]) -> None:
    def headings(width: int) -> list[str]:
        return [line for line in draw(drawings["pair"], width) if line.startswith("level")]

    assert [heading.split() for heading in headings(80)] == [["level", "pass", "1"], ["level", "pass", "2"]]
    assert [heading.split() for heading in headings(120)] == [["level", "pass", "1", "pass", "2"]]


def test_many_stages_get_one_line_each(drawings: dict[str, Drawn]) -> None:
    lines = draw(drawings["deep"], 80)
    assert len(lines) < 60
    assert "  0   encoder 1  1.00 G / 1.00 M" in "\n".join(lines)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("decoder 1", "decoder 3", None),
        ("encoder 1", "encoder 3", None),
        ("encoder 1", "bottleneck", None),
        ("decoder 2", "decoder 2", "within decoder 2"),
        ("decoder 3", "decoder 1", "decoder 3 → decoder 1"),
    ],
)
def test_a_skip_that_has_no_way_is_said_in_words(source: str, target: str, words: str | None) -> None:
    data = invented(3, 1, None, skip(source, target, "add"))
    page = "\n".join(draw(data, 100))
    assert page.count(" cat ") == 3
    assert page.partition("further long skips: ")[2].partition(" (add)")[0] == (words or "")


def test_several_skips_between_two_stages_are_one_line() -> None:
    data = invented(2, 1, [("encoder 1", "decoder 2"), ("encoder 1", "decoder 2")])
    assert " 2×cat " in "\n".join(draw(data, 80))


@given(levels=st.integers(1, 6), passes=st.integers(1, 3), room=st.none() | st.integers(250, 400))
@settings(max_examples=25)
def test_boxes_stand_apart_and_skips_begin_and_end_at_theirs(levels: int, passes: int, room: int | None) -> None:
    data = invented(levels, passes)
    layout = UShapes(
        data.passes, data, Form(True, True, True), lambda stage, *_: (stage.name, ["module", "1 / 2"]), room
    )
    assert layout.fits
    layout.draw(data.joins, numbered=True)
    assert layout.boxes.keys() == data.by_name.keys() and layout.skips.keys() == data.joins.keys()
    cells = [
        (row, x)
        for b in layout.boxes.values()
        for row in range(b.top, b.bottom + 1)
        for x in range(b.left, b.right + 1)
    ]
    assert len(cells) == len(set(cells))
    for (source, target), route in layout.skips.items():
        start, end = layout.boxes[source], layout.boxes[target]
        assert start.top <= route[0][0] <= start.bottom and route[0][1] == start.right
        assert end.top <= route[-1][0] <= end.bottom and route[-1][1] == end.left - 1


def test_lines_cross_but_do_not_run_over_anything() -> None:
    canvas = Canvas()
    canvas.box(0, 0, 6, "a", ["to"])
    assert canvas.connect([(1, 5), (1, 12)], ("a", "b"))
    assert not canvas.connect([(2, 8), (1, 8), (1, 14)], ("c", "d"))  # along another's line
    assert not canvas.connect([(4, 2), (1, 2)], ("c", "d"))  # through the box
    assert canvas.connect([(0, 9), (3, 9)], ("c", "d"))
    assert not canvas.connect([(3, 7), (3, 9)], ("e", "f"))  # onto the point of another arrow
    assert canvas.render() == ["┌ a ─┐   │", "│ to ├───┼──▶", "└────┘   │", "         ▼"]
    assert canvas.render(ascii_only=True)[1] == "| to +---+-->"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "svg") for name in ("pmrid", "pair", "sides", "hostile", "compared", "deep")),
        ("pmrid", "pdf"),
        ("hostile", "png"),
    ],
)
def test_figures(drawings: dict[str, Drawn], tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"figure.{kind}"
    save(lambda: unet(drawings[name]), path)
    content = path.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    save(lambda: unet(drawings[name]), path)
    assert path.read_bytes() == content
    if kind == "svg":
        names = [stage.name.removeprefix(f"pass {stage.pass_} ") for stage in drawings[name].stages]
        drawn = content.decode()
        assert all(f">{name}</text>" in drawn or f">{name} (cheap)</text>" in drawn for name in names)


def test_a_figure_draws_every_skip(tmp_path: Path) -> None:
    data = invented(3, 1, None, skip("decoder 1", "decoder 3", "multiply"))
    save(lambda: unet(data), tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    assert drawn.count(">cat</text>") == 3
    assert drawn.count(">multiply</text>") == 1


def test_no_unet_has_its_stages_in_lines(drawings: dict[str, Drawn], tmp_path: Path) -> None:
    save(lambda: unet(drawings["classifier"]), tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    assert ">No U to draw, so its stages in lines: the resolution goes down once and never up again</text>" in drawn
    for stage in drawings["classifier"].stages:
        assert f">{stage.name}</text>" in drawn
