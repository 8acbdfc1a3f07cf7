"""Positions: models built in every way, and the line of source that each of their layers points at."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import importlib.util
import pickle
import re
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from monai.networks.nets import BasicUNet
from torch import nn

import architectures.nafnet
from architectures import PMRID, NAFNet, UNet
from mofa_compiler.layers import PConv2d
from mofa_compiler.lint.finding import Position
from mofa_compiler.lint.positions import Recording, recording, relative_to
from mofa_compiler.target import load_target

# Each line that makes layers says which: `#@ path path`; the model's own definition is `.`. The model is `Net()`.
CASES = {
    "attributes": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)  #@ conv
                self.norm, self.act = nn.BatchNorm2d(4), nn.ReLU()  #@ norm act
    """,
    "comprehension and loop": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(  #@ body
                    *[nn.Conv2d(4, 4, 3) for _ in range(2)],  #@ body.0 body.1
                    *(nn.Conv2d(4, 4, 1) for _ in range(1)),  #@ body.2
                )
                self.downs = nn.ModuleList()  #@ downs
                for width in (4, 8):
                    self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))  #@ downs.0 downs.1
                self.heads = nn.ModuleDict({  #@ heads
                    name: nn.Linear(4, 4)  #@ heads.a heads.b
                    for name in "ab"
                })
    """,
    "helper function and lambda": """
        def conv3x3(width):
            return nn.Conv2d(width, width, 3)  #@ a b.0

        shuffle = lambda: nn.PixelShuffle(2)  #@ c

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.a = conv3x3(4)
                self.b = nn.Sequential(conv3x3(8))  #@ b
                self.c = shuffle()
    """,
    "subclass of a layer": """
        class Same(nn.Conv2d):
            def __init__(self, width, **options):
                self.scale = 2
                super().__init__(
                    width, width, 3, padding=1, **options)

        class Scaled(Same):
            def __init__(self, width):
                options = dict(bias=False)
                super(Scaled, self).__init__(width, **options)

        class Net(nn.Module):  #@ .
            def __init__(self):
                nn.Module.__init__(self)
                self.a = Same(4)  #@ a
                self.b = Scaled(4)  #@ b
    """,
    "layers made before the container is": """
        class Pair(nn.Sequential):
            def __init__(self, width):
                conv = nn.Conv2d(width, width, 3)  #@ pair.0
                super().__init__(
                    conv,
                    nn.ReLU(),  #@ pair.1
                )

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.pair = Pair(4)  #@ pair
    """,
    "factory from a configuration": """
        LAYERS = [
            {"name": "Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 3},
            {"name": "ReLU"},
        ]

        def make(name, **options):
            return getattr(nn, name)(**options)  #@ body.0 body.1

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(*map(lambda layer: make(**layer), LAYERS))  #@ body
    """,
    "partial": """
        conv = functools.partial(nn.Conv2d, kernel_size=3)

        class Net(nn.Module):  #@ .
            def __init__(self, make=functools.partial(conv, bias=False)):
                super().__init__()
                self.a = make(  #@ a
                    3, 4,
                )
    """,
    "add_module, and an ordered dictionary over several lines": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.add_module("0", nn.Conv2d(3, 4, 3))  #@ 0
                self.body = nn.Sequential(OrderedDict([  #@ body
                    ("conv", nn.Conv2d(  #@ body.conv
                        3, 4, 3,
                    )),
                    ("act", nn.ReLU()),  #@ body.act
                ]))
                setattr(self, "last", nn.Identity())  #@ last
    """,
    "dataclass": """
        @dataclass(eq=False)
        class Block(nn.Module):
            width: int
            act: nn.Module = field(default_factory=nn.ReLU)

            def __post_init__(self):
                act = self.__dict__.pop("act", None)
                super().__init__()
                self.conv = nn.Conv2d(self.width, self.width, 3)  #@ block.conv

        @dataclass(eq=False)
        class Net(nn.Module):  #@ .
            width: int = 4

            def __post_init__(self):
                super().__init__()
                self.block = Block(self.width, act=None)  #@ block
    """,
    "decorators": """
        REGISTRY = {}

        def register(name):
            def add(cls):
                REGISTRY[name] = cls
                return cls
            return add

        def logged(init):
            @functools.wraps(init)
            def inner(*args, **options):
                return init(*args, **options)
            return inner

        def called(make):
            return make()  #@ act

        @register("block")
        class Block(nn.Module):
            @logged
            @logged
            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(width, width, 3)  #@ block.conv

        @called
        class ACT(nn.Module):
            pass

        @register(
            "net",
        )
        class Net(  #@ .
            nn.Module,
        ):
            def __init__(self):
                super().__init__()
                self.block = REGISTRY["block"](4)  #@ block
                self.act = ACT
    """,
    "metaclass": """
        class Counting(type):
            made = 0

            def __call__(cls, *args, **options):
                Counting.made += 1
                return super().__call__(*args, **options)

        class Block(nn.Module, metaclass=Counting):
            def __new__(cls, width):
                return super().__new__(cls)

            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(width, width, 3)  #@ block.conv

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.block = Block(4)  #@ block
    """,
    "class method, later": """
        class Block(nn.Module):
            @classmethod
            def wide(cls):
                return cls(8)  #@ block

            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(width, width, 3)  #@ block.conv

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.build()

            def build(self):
                self.block = Block.wide()
                self.lazy = nn.LazyConv2d(4, 3)  #@ lazy
    """,
    "copies stand where their original was made": """
        from copy import deepcopy

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 3)  #@ a.conv b.conv c.conv

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                block = Block()  #@ a b c
                self.a = block
                self.b = deepcopy(block)
                self.c = copy.copy(self.b)
                act = nn.ReLU()  #@ d.0 d.1
                self.d = nn.ModuleList(deepcopy(act) for _ in range(2))  #@ d
    """,
    "shared": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.a = nn.ReLU()  #@ a b.0 b.1
                self.b = nn.Sequential(self.a, self.a)  #@ b
    """,
    "recursive": """
        class Level(nn.Module):
            def __init__(self, depth):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 3)  #@ top.conv top.below.conv top.below.below.conv
                self.below = Level(depth - 1) if depth else None  #@ top.below top.below.below

        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                self.top = Level(2)  #@ top
    """,
    "torch changes the class of a layer": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                conv = nn.Conv2d(3, 4, 3)  #@ conv
                norm = nn.utils.parametrizations.weight_norm
                self.conv = norm(  #@ conv.parametrizations conv.parametrizations.weight conv.parametrizations.weight.0
                    conv)
    """,
    "accents before the call": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                größe = "ñ𝒜"; self.conv = nn.Conv2d(3, 4, 3)  #@ conv
    """,
    "a factory": """
        def Net(*, width=(lambda: 4)()) -> "nn.Module":  #@ .
            return nn.Sequential(
                nn.Conv2d(3, width, 3),  #@ 0
            )
    """,
    "a decorated factory": """
        def logged(make):
            @functools.wraps(make)
            def inner(**options):
                return make(**options)
            return inner

        @logged
        @logged
        def build():  #@ .
            return nn.Sequential(nn.ReLU())  #@ 0

        Net = functools.partial(build)
    """,
    "an instance": """
        class Inner(nn.Module):  #@ .
            def __init__(self, width):
                super().__init__()
                self.conv = nn.Conv2d(3, width, 3)  #@ conv

        Net = Inner(4)
    """,
    "an instance of a container": """
        Net = nn.Sequential(  #@ .
            nn.ReLU(),  #@ 0
        )
    """,
    "generated code points at what runs it": """
        class Net(nn.Module):  #@ .
            def __init__(self):
                super().__init__()
                exec("self.conv = nn.Conv2d(3, 4, 3)")  #@ conv
    """,
}
HEADER = "import copy, functools\nfrom collections import OrderedDict\nfrom dataclasses import dataclass, field\n"
HEADER += "from torch import nn\n"


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("_mofa_target_") or name.endswith("_under_test")]:
        del sys.modules[name]


def _marked(source: str) -> dict[str, int]:
    lines = enumerate(source.splitlines(), start=1)
    paths = {path: number for number, line in lines for path in line.partition("#@ ")[2].split()}
    return {"" if path == "." else path: number for path, number in paths.items()}


def _import(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _lines(positions: dict[str, Position]) -> dict[str, int]:
    return {path: position.line for path, position in positions.items()}


def _record(make: Callable[[], nn.Module]) -> tuple[nn.Module, Recording]:
    """Make a model in a `with` statement that lies in no file, so that these tests are not the user's own code."""
    space: dict[str, Any] = {"recording": recording, "make": make}
    exec("with recording() as recorder:\n    model = make()", space)
    return space["model"], space["recorder"]


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", CASES)
def test_layers_point_at_the_call_that_made_them(name: str, tmp_path: Path):
    file = tmp_path / "net_under_test.py"
    file.write_text(HEADER + textwrap.dedent(CASES[name]), encoding="utf-8")
    with recording() as recorder:
        made = _import(file).Net
        model = made if isinstance(made, nn.Module) else made()
    positions = recorder.positions(model, made)
    assert _lines(positions) == _marked(file.read_text(encoding="utf-8"))
    assert {position.file for position in positions.values()} == {str(file)}
    assert {path for path, _ in model.named_modules(remove_duplicate=False)} == set(positions)


def _text(position: Position) -> str:
    """The source between the ends of a position."""
    lines = Path(position.file).read_text(encoding="utf-8").splitlines()[position.line - 1 : position.end_line]
    assert position.column and position.end_column
    lines[-1] = lines[-1][: position.end_column - 1]
    lines[0] = lines[0][position.column - 1 :]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("attributes", "act", "nn.ReLU()"),
        ("accents before the call", "conv", "nn.Conv2d(3, 4, 3)"),
        ("partial", "a", "make(  #@ a\n            3, 4,\n        )"),
        ("decorators", "", "class Net(  #@ .\n    nn.Module,\n)"),
        ("a factory", "", 'def Net(*, width=(lambda: 4)()) -> "nn.Module"'),
    ],
)
def test_a_position_spans_the_whole_call(name: str, path: str, text: str, tmp_path: Path):
    file = tmp_path / "net_under_test.py"
    file.write_text(HEADER + textwrap.dedent(CASES[name]), encoding="utf-8")
    with recording() as recorder:
        make = _import(file).Net
        model = make()
    assert _text(recorder.positions(model, make)[path]) == text


def test_a_class_from_another_file_has_its_layers_there(tmp_path: Path):
    (tmp_path / "blocks_under_test.py").write_text(
        "from torch import nn\nclass Block(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n"
    )
    (tmp_path / "net_under_test.py").write_text(
        "from torch import nn\nfrom blocks_under_test import Block\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.block = Block()\n"
    )
    model, recorder = _record(lambda: load_target(f"{tmp_path}/net_under_test.py:Net"))
    positions = recorder.positions(model)
    assert {path: (Path(at.file).name, at.line) for path, at in positions.items()} == {
        "": ("net_under_test.py", 3),
        "block": ("net_under_test.py", 6),
        "block.conv": ("blocks_under_test.py", 5),
    }
    assert recorder.files >= {str(tmp_path / "net_under_test.py"), str(tmp_path / "blocks_under_test.py")}


@pytest.mark.parametrize("make", [NAFNet, PMRID, UNet])
def test_every_layer_of_the_examples_is_found_at_its_constructor(make: type[nn.Module]):
    model, recorder = _record(make)
    positions = recorder.positions(model, make)
    assert set(positions) == {path for path, _ in model.named_modules(remove_duplicate=False)}
    assert _text(positions[""]).startswith(f"class {make.__name__}(")
    for path, module in model.named_modules():
        kind = type(module).__name__
        if path and kind not in ("Conv2d", "ConvTranspose2d"):
            assert f"{kind}(" in _text(positions[path]), path
        elif path:
            assert re.match(r"(nn\.Conv(Transpose)?2d|conv\w*|Conv\w*)\(", _text(positions[path])), path


def test_a_library_model_has_its_layers_in_the_library():
    model, recorder = _record(functools.partial(BasicUNet, spatial_dims=2, features=(4, 4, 4, 4, 4, 4)))
    positions = recorder.positions(model, BasicUNet)
    assert len(positions) == sum(1 for _ in model.named_modules(remove_duplicate=False))
    assert all("/monai/networks/" in position.file for position in positions.values())
    assert "conv_type(" in _text(positions["down_1.convs.conv_0.conv"])
    assert _text(positions["down_1"]).startswith("Down(")
    assert _text(positions[""]).startswith("class BasicUNet(")


def test_a_library_block_in_a_users_model_points_at_the_user(tmp_path: Path):
    file = tmp_path / "net_under_test.py"
    file.write_text(
        "from monai.networks.blocks import Convolution\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n    def __init__(self):\n        super().__init__(\n"
        "            Convolution(2, 3, 4))\n"
    )
    model, recorder = _record(lambda: load_target(f"{file}:Net"))
    positions = recorder.positions(model)
    assert {path for path in positions if path} >= {"0.conv", "0.adn.N"}
    assert {position.line for path, position in positions.items() if path} == {6}


def test_what_has_no_source_has_no_position():
    model, recorder = _record(lambda: nn.Sequential(nn.ReLU()))
    assert set(_lines(recorder.positions(model))) == {"", "0"}  # the lambda's line
    space: dict[str, Any] = {"recording": recording, "nn": nn}
    exec("with recording() as recorder:\n    model = nn.Sequential(nn.ReLU())", space)
    assert space["recorder"].positions(space["model"]) == {}
    assert space["recorder"].positions(space["model"], nn.Sequential) == {}


def test_this_packages_own_layers_point_at_who_uses_them():
    with recording() as recorder:
        layer = PConv2d(8, 4)
    position = recorder.position(layer.conv)
    assert position and _text(position) == "PConv2d(8, 4)"


def test_torch_is_as_it_was_afterwards_also_after_an_error_and_when_nested():
    before = dict(vars(nn.Module))
    with contextlib.suppress(ZeroDivisionError), recording() as outer, recording() as inner:
        assert nn.Module.__init__ is not before["__init__"]
        layer = nn.ReLU()
        raise ZeroDivisionError
    assert dict(vars(nn.Module)) == before
    assert outer.position(layer) is not None
    assert outer.position(layer) == inner.position(layer)
    later = nn.ReLU()
    assert outer.position(later) is None


def test_an_inner_recording_has_only_what_was_made_inside_it():
    with recording() as outer:
        first = nn.ReLU()
        with recording() as inner:
            second = nn.ReLU()
        third = nn.ReLU()
    assert [inner.position(each) is not None for each in (first, second, third)] == [False, True, False]
    assert all(outer.position(each) for each in (first, second, third))


def test_a_patch_put_over_ours_meanwhile_stays(monkeypatch: pytest.MonkeyPatch):
    seen = []
    with recording() as recorder:
        inside = nn.Module.__init__

        def init(self: nn.Module, *args: Any, **options: Any) -> None:
            seen.append(self)
            inside(self, *args, **options)

        monkeypatch.setattr(nn.Module, "__init__", init)
        layer = nn.ReLU()
    assert nn.Module.__init__ is init
    assert seen == [layer]
    assert recorder.position(layer)
    assert recorder.position(nn.ReLU()) is None
    monkeypatch.undo()


def test_threads_that_overlap_record_and_restore():
    before = nn.Module.__init__
    started, ended = threading.Barrier(4), threading.Barrier(4)
    found: list[bool] = []

    def work(number: int) -> None:
        started.wait()
        with recording() as recorder:
            layers = [nn.Linear(2, 2) for _ in range(50)]
            if number % 2:
                ended.wait(timeout=60)
        if not number % 2:
            ended.wait(timeout=60)
        found.append(all(recorder.position(layer) for layer in layers))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
    assert nn.Module.__init__ is before


def test_modules_are_neither_marked_nor_kept_alive():
    plain = NAFNet(width=4)
    with recording() as recorder:
        model = NAFNet(width=4)
    assert repr(model) == repr(plain)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(vars(a).keys() == vars(b).keys() for a, b in zip(model.modules(), plain.modules(), strict=True))
    assert pickle.loads(pickle.dumps(model)).state_dict().keys() == plain.state_dict().keys()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert architectures.nafnet.__file__ in recorder.files


def test_the_frame_that_recorded_is_let_go():
    def record() -> tuple[Recording, weakref.ref[nn.Module]]:
        variable = nn.ReLU()
        with recording() as recorder:
            nn.ReLU()
        return recorder, weakref.ref(variable)

    recorder, variable = record()
    gc.collect()
    assert recorder.files == {__file__}
    assert variable() is None


def test_an_id_used_again_is_another_module():
    with recording() as recorder:
        made = {id(layer) for layer in [nn.ReLU() for _ in range(200)]}
    later = [nn.ReLU() for _ in range(2000)]
    again = [layer for layer in later if id(layer) in made]
    assert again
    assert all(recorder.position(layer) is None for layer in again)


def test_a_copy_of_what_was_made_before_points_at_the_copying():
    prototype = nn.Conv2d(3, 4, 3)
    with recording() as recorder:
        copied = copy.deepcopy(prototype)
        loaded = pickle.loads(pickle.dumps(prototype))
    assert recorder.position(prototype) is None
    positions = [recorder.position(each) for each in (copied, loaded)]
    assert [_text(position) for position in positions if position] == [
        "copy.deepcopy(prototype)",
        "pickle.loads(pickle.dumps(prototype))",
    ]


def test_layers_that_torch_clones_point_at_their_prototype():
    with recording() as recorder:
        layer = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2)
    positions = recorder.positions(encoder)
    prototype = recorder.position(layer)
    assert prototype and _text(prototype).startswith("nn.TransformerEncoderLayer(")
    assert positions["layers.0"] == positions["layers.1.linear1"] == prototype
    assert _text(positions["layers"]) == "nn.TransformerEncoder(layer, 2)"


def test_a_file_that_changed_or_is_gone_keeps_its_lines(tmp_path: Path):
    file = tmp_path / "net_under_test.py"
    file.write_text(HEADER + textwrap.dedent(CASES["attributes"]))
    with recording() as recorder:
        model = _import(file).Net()
    file.unlink()
    position = recorder.positions(model)["conv"]
    assert (position.line, position.column) == (_marked(HEADER + textwrap.dedent(CASES["attributes"]))["conv"], None)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "nets" / "net.py"
    file.parent.mkdir()
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nets")
    monkeypatch.chdir(tmp_path)
    assert relative_to(Position(str(file), 1), tmp_path) == "nets/net.py"
    assert relative_to(Position(str(file), 1), Path()) == "nets/net.py"
    assert relative_to(Position(str(file), 1), link) == "net.py"
    assert relative_to(Position(str(link / "net.py"), 1), tmp_path) == "link/net.py"
    assert relative_to(Position(str(file), 1), tmp_path / "other") == str(file)
