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
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from constructions import SOURCES, marked_lines
from torch import nn

import architectures.nafnet
from architectures import PMRID, NAFNet, UNet
from mofa_compiler.lint.finding import Position
from mofa_compiler.lint.source_positions import Recording, recording, relative_to
from mofa_compiler.loading.import_target import load_target
from mofa_compiler.nn.partial_conv import PConv2d


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("_mofa_target_") or name.endswith("_under_test")]:
        del sys.modules[name]


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
@pytest.mark.parametrize("name", SOURCES)
def test_layers_point_at_the_call_that_made_them(name: str, tmp_path: Path):
    file = tmp_path / "net_under_test.py"
    file.write_text(SOURCES[name], encoding="utf-8")
    with recording() as recorder:
        made = _import(file).Net
        model = made if isinstance(made, nn.Module) else made()
    positions = recorder.positions(model, made)
    assert _lines(positions) == marked_lines(file.read_text(encoding="utf-8"))
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
    file.write_text(SOURCES[name], encoding="utf-8")
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
    from monai.networks.nets import BasicUNet

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
    file.write_text(SOURCES["attributes"])
    with recording() as recorder:
        model = _import(file).Net()
    file.unlink()
    position = recorder.positions(model)["conv"]
    assert (position.line, position.column) == (marked_lines(SOURCES["attributes"])["conv"], None)


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
