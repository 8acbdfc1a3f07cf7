"""What `mofa capture` tells of a network."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from mofa_compiler import capture
from mofa_compiler.report.printing import captured as room
from mofa_compiler.report.printing.captured import Captured, print_captured


class Own(nn.Conv2d):
    """A convolution of somebody's own."""


class Moody(nn.Module):
    """Looks at values, which no tracer can."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x) if x.sum() > 0 else x


class Padded(nn.Module):
    """Decides on a size, like many a network's first lines."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 8 != 0:
            x = F.pad(x, (0, 0, 0, 1))
        for part in x.split(32, 2):
            x = x + part.mean()
        return x * (x.shape[3] // 16).__index__()


class Zoo(nn.Module):
    """One of each thing that there is to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.padded = Padded()
        self.own = Own(4, 4, 1)
        self.hooked = nn.Conv2d(4, 4, 1)
        self.hooked.register_forward_hook(lambda module, inputs, output: None)
        self.twice = nn.Conv2d(4, 4, 1)
        self.moody = Moody()
        self.kernel = nn.Parameter(torch.rand(4, 4, 3, 3))
        self.spare = nn.Sequential(nn.Conv2d(4, 4, 1))

    def forward(self, image: Tensor) -> dict[str, Any]:
        x = self.hooked(self.own(self.padded(self.first(image))))
        x = self.moody(self.twice(self.twice(x)))
        pooled = F.linear(x.mean((2, 3)), self.kernel[:, :, 0, 0])
        return {"out": F.conv2d(x, self.kernel), "aux": [torch.conv2d(x, self.kernel), pooled]}


def captured(*arguments: Any) -> dict[str, Any]:
    return room.captured(*arguments).to_data()


@pytest.fixture(scope="module")
def zoo() -> dict[str, Any]:
    return captured(capture(Zoo().eval(), torch.rand(1, 3, 64, 48)), ["the other mode differs"])


def test_data_is_plain_json_that_can_be_read_back(zoo: dict[str, Any]) -> None:
    assert Captured.model_validate_json(json.dumps(zoo, allow_nan=False), strict=True).to_data() == zoo
    assert zoo["schema"] == "mofa-capture/1"


def test_convolutions_are_counted_once_each(zoo: dict[str, Any]) -> None:
    assert zoo["convolutions"] == {
        "total": 6,
        "seen": 4,
        "in_opaque": ["moody.hidden"],
        "never_called": ["spare.0"],
    }


def test_a_convolution_by_two_names_is_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    model.alias = model[0]
    assert captured(capture(model, torch.rand(1, 3, 8, 8)))["convolutions"]["total"] == 1


def test_opaque_parts_have_their_cause(zoo: dict[str, Any]) -> None:
    (part,) = zoo["opaque"]
    assert part["path"] == "moody"
    assert "values of a tensor" in part["cause"]
    assert part["convolutions"] == 1


def test_guards_say_what_they_fix_and_where(zoo: dict[str, Any]) -> None:
    assert zoo["guards"] == [
        {"module": "padded", "fixes": fixes, "line": f"test_captured.py:{line}"}
        for fixes, line in (
            ("(first.shape[2] % 8) != 0 is False", "40: if x.shape[2] % 8 != 0:"),
            ("len(first.split(32, 2)) is 2", "42: for part in x.split(32, 2):"),
            ("add_1.shape[3] // 16 is 3", "44: return x * (x.shape[3] // 16).__index__()"),
        )
    ]


def test_long_decisions_are_cut_short() -> None:
    class Endless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            size = x.shape[2]
            for _ in range(40):
                size = size * 3 % 1000
            return x * 2 if size > 5 else x

    (guard,) = captured(capture(Endless(), torch.rand(1, 3, 8, 8)))["guards"]
    assert guard["fixes"].endswith(" is True")
    assert len(guard["fixes"]) < 80


def test_functional_convolutions(zoo: dict[str, Any]) -> None:
    assert zoo["functional"] == [
        {"module": "", "function": "linear", "weight": [4, 4]},
        {"module": "", "function": "conv2d", "weight": [4, 4, 3, 3]},
        {"module": "", "function": "conv2d", "weight": [4, 4, 3, 3]},
    ]


def test_shared_modules_have_weights(zoo: dict[str, Any]) -> None:
    assert zoo["shared"] == [{"path": "twice", "calls": 2}]
    activation = nn.ReLU()
    model = nn.Sequential(activation, nn.Conv2d(3, 3, 1), activation)
    assert captured(capture(model, torch.rand(1, 3, 8, 8)))["shared"] == []


@pytest.mark.parametrize(
    ("register", "words"),
    [
        ("register_forward_pre_hook", "has forward pre-hooks"),
        ("register_full_backward_hook", "has backward hooks"),
        ("register_full_backward_pre_hook", "has backward pre-hooks"),
    ],
)
def test_every_kind_of_hook_is_told(register: str, words: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    getattr(model[0], register)(lambda *arguments: None)
    assert captured(capture(model, torch.rand(1, 3, 8, 8)))["untouched"] == [{"path": "0", "reason": words}]


def test_convolutions_left_alone(zoo: dict[str, Any]) -> None:
    assert zoo["untouched"] == [
        {"path": "own", "reason": "Own is a subclass of Conv2d and may compute something else"},
        {"path": "hooked", "reason": "has forward hooks"},
    ]


def test_inputs_outputs_and_mode(zoo: dict[str, Any]) -> None:
    assert zoo["inputs"] == [{"name": "image", "shape": [1, 3, 64, 48], "dtype": "float32", "value": None}]
    assert [(value["name"], value["shape"]) for value in zoo["outputs"]] == [
        ("['out']", [1, 4, 62, 46]),
        ("['aux'][0]", [1, 4, 62, 46]),
        ("['aux'][1]", [1, 4]),
    ]
    assert zoo["mode"] == "eval"
    assert captured(capture(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.rand(1, 3, 8, 8)))["mode"] == "train"


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass
class Answer:
    mask: Tensor
    views: Pair


class Structured(nn.Module):
    """Takes a mapping and plain values, and answers with a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, batch: dict[str, Tensor], mode: str) -> Answer:
        x = self.conv(batch["image"])
        return Answer(x, Pair(x, batch["scale"] if mode == "plain" else x))


def test_structured_inputs_and_outputs() -> None:
    example = ({"image": torch.rand(1, 3, 8, 8), "scale": torch.tensor(2.0)}, "plain")
    data = captured(capture(Structured(), example))
    assert [(v["name"], v["shape"], v["value"]) for v in data["inputs"]] == [
        ("batch['image']", [1, 3, 8, 8], None),
        ("batch['scale']", [], None),
        ("mode", None, "'plain'"),
    ]
    assert [value["name"] for value in data["outputs"]] == [".mask", ".views.left", ".views.right"]
    fixed = ["list(batch) is ['image', 'scale']", "mode is 'plain'"]
    assert data["guards"] == [{"module": "", "fixes": text, "line": ""} for text in fixed]
    assert "input mode = 'plain'\n" in printed(data, 80)
    assert "input batch['scale'] scalar float32\n" in printed(data, 80)


def printed(data: dict[str, Any], width: int) -> str:
    stream = io.StringIO()
    print_captured(Captured.model_validate(data), Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
def test_everything_is_printed(zoo: dict[str, Any], width: int) -> None:
    page = printed(zoo, width)
    assert max(map(len, page.splitlines())) <= width
    flat = " ".join(page.split())
    for words in (
        f"Zoo: {zoo['nodes']} graph nodes, eval mode",
        "input image 1x3x64x48 float32",
        "output ['aux'][1] 1x4 float32",
        "4 of 6 convolutions seen, 1 in parts not seen into, 1 never called",
        "warning: the other mode differs",
        "(holds 1 convolution)",
        "never called (1) spare.0",
        "own: Own is a subclass of Conv2d",
        "twice: 2 times",
        "the network itself: 2 × conv2d, weights 4x4x3x3",
        "padded: (first.shape[2] % 8) != 0 is False",
    ):
        assert words in flat


def test_what_there_is_none_of_has_no_section() -> None:
    page = printed(captured(capture(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.rand(1, 3, 8, 8))), 80)
    lines = page.splitlines()
    assert lines[-2:] == ["1 of 1 convolution seen", "the same as eager on 1x3x8x8 and 1x3x16x16"]
