"""Names of any characters: each language reads back what was written, and a whole network of such names works."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mofa_compiler
from mofa_compiler.base import spelling
from mofa_compiler.base.errors import MofaError
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.report.content import for_reading
from mofa_compiler.report.document import markdown
from mofa_compiler.report.page import render as page
from mofa_compiler.report.reading import read_report
from tests.test_properties import drawn

HOSTILE = [
    *("quote\"'", "a]b|c`d`\n# H1", "=cmd|calc", "\x1b[31mred\u202e", "ﬁ", "__x", "__x__", "_", "!", "x²", "ⅷ", "µ"),
    *("\ue000a=1\ue001", "a\\", "{x}", "\x00", "self", "<name>", "<parameters>", "'\"\\n", " ", "\t", "\x7f", "\x9b1m"),
    *('"""', "\\N{bad}", "\u2028", "\u200b", "日本", "e\u0301", "torch", "nn", "F", "x", "input", "print"),
    *("[a-z]*", "%s", "$(reboot)", "</script>", "<!--", "&lt;", "@all", "0", "-1", "1e5", "\U0001f600", "\ufeff"),
    *("match", "None", "\r", "\ud800"),
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec=None), min_size=1, max_size=12))  # type: ignore[arg-type]
WRITTEN = NAMES.filter(lambda name: not spelling.has_no_encoding(name))


@settings(max_examples=300)
@given(WRITTEN)
def test_python_reads_back_what_was_written(name: str) -> None:
    assume(not hasattr(SimpleNamespace(), name))  # as `__dict__`
    assert ast.literal_eval(spelling.string(name)) == name
    text = ast.literal_eval(f'"""{spelling.in_docstring(name)}"""')
    assert text == spelling.printable(name)
    owner = SimpleNamespace(**{name: "value"})
    source = f"class A:\n    def read(self, owner):\n        return {spelling.attribute('owner', name)}"
    space: dict[str, type] = {}
    exec(source, space)
    assert space["A"]().read(owner) == "value"
    other = spelling.identifier(name)
    assert other.isidentifier()
    assert ast.parse(f"{other} = 1").body[0].targets[0].id == other  # type: ignore[attr-defined]


@settings(max_examples=300)
@given(WRITTEN)
def test_data_reads_back_what_was_written(name: str) -> None:
    text = spelling.json_text({name: name})
    assert json.loads(text) == {name: name}
    assert all(line.isprintable() for line in text.split("\n"))
    assert tomllib.loads(f"name = {spelling.toml_string(name)}") == {"name": name}


@settings(max_examples=300)
@given(NAMES)
def test_nothing_leaves_a_line_of_markdown(name: str) -> None:
    for text in (spelling.markdown(name), spelling.code_span(name), spelling.html_in_markdown(name)):
        assert text.isprintable()
    assert "<" not in spelling.html_in_markdown(name)


class Net(nn.Module):
    """A U-Net with drawn names of a layer, of a container with a layer, and of a parameter."""

    def __init__(self, layer: str, container: str, parameter: str):
        super().__init__()
        self.names = (layer, container, parameter)
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.down, self.up = nn.Conv2d(8, 8, 2, stride=2), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.add_module(layer, nn.Conv2d(8, 8, 3, padding=1, groups=8))
        self.add_module(container, nn.Module())
        self.get_submodule(container).add_module(layer, nn.Conv2d(8, 8, 1))
        self.register_parameter(parameter, nn.Parameter(torch.full((8, 1, 1), 0.5)))

    def forward(self, x: Tensor) -> Tensor:
        layer, container, parameter = self.names
        y = getattr(getattr(self, container), layer)(getattr(self, layer)(self.stem(x))) * getattr(self, parameter)
        return x + self.head(y + self.up(self.down(y)))


@drawn(10)
@given(st.lists(NAMES, min_size=4, max_size=4, unique=True))
def test_a_network_of_any_names_works_or_the_layer_is_named(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    *own, roadmap = names
    try:
        model = type(f"Net{roadmap}" if "\0" not in roadmap and roadmap.isprintable() else "Net", (Net,), {})(
            *own
        ).eval()
    except KeyError:  # torch refuses the name
        assume(False)
    x = torch.rand(1, 3, 32, 32)
    folder = tmp_path_factory.mktemp("names") / "bundle"
    problem = ""
    try:
        result = mofa_compiler.apply(model, mofa_compiler.Roadmap([SepConvToPConv()], name=roadmap), x)
        check(result, model, folder, x)
    except MofaError as error:
        problem = str(error)
    said = [*own, roadmap, *(ascii(name).strip("'") for name in names)]
    assert not problem or any(name in problem for name in said)


def check(result: mofa_compiler.Result, model: nn.Module, folder: Path, x: Tensor) -> None:
    """Save, load, verify, and report in every format."""
    result.save(folder)
    with torch.no_grad():
        assert torch.equal(mofa_compiler.load(folder)(x), result.model.eval()(x))
    found = mofa_compiler.verify(folder, model)
    assert found.ok, found.problems
    report = read_report(folder)
    for text in (markdown(for_reading(report)), (folder / "model.py").read_text(), (folder / "report.md").read_text()):
        assert all(line.isprintable() for line in text.split("\n"))
    assert (folder / "report.html").read_text() == page(report, folder)


class Tied(nn.Module):
    """Layers, weights and parameters that are one under two drawn names."""

    def __init__(self, one: str, other: str):
        super().__init__()
        self.names = (one, other)
        self.first, self.second = nn.Module(), nn.Module()
        self.first.add_module(one, nn.Conv2d(3, 3, 3, padding=1))
        self.second.add_module(other, getattr(self.first, one))
        for name in self.names:
            self.add_module(name, nn.Conv2d(3, 3, 3, padding=1))
        getattr(self, other).weight = getattr(self, one).weight
        self.register_parameter(f"p{one}", nn.Parameter(torch.full((3, 1, 1), 0.5)))
        self.register_parameter(f"p{other}", getattr(self, f"p{one}"))

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.names
        x = getattr(self.second, other)(getattr(self.first, one)(x))
        return getattr(self, other)(getattr(self, one)(x)) * getattr(self, f"p{one}") * getattr(self, f"p{other}")


@pytest.mark.parametrize("names", [("a", "b"), ("\"'", "]\n"), ("__x", "ﬁ")])
def test_what_is_shared_stays_shared_under_any_name(tmp_path: Path, names: tuple[str, str]) -> None:
    model, x = Tied(*names).eval(), torch.rand(1, 3, 16, 16)
    folder = mofa_compiler.apply(model, [], x).save(tmp_path / "bundle")
    loaded = mofa_compiler.load(folder)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    shared = [getattr(loaded, name).weight for name in names]
    assert shared[0] is shared[1]
