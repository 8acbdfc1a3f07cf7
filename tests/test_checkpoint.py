"""Checkpoints: every form that frameworks save is found, nothing is ever run, and a misfit lists what is wrong."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mofa_compiler.checkpoint import fit, load_checkpoint
from mofa_compiler.errors import CheckpointError

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3)
        self.body = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


@pytest.fixture(scope="module")
def good() -> State:
    torch.manual_seed(1)
    return {key: torch.rand_like(t) if t.is_floating_point() else t for key, t in Net().state_dict().items()}


@pytest.fixture(scope="module")
def other(good: State) -> State:
    return {key: tensor + 1 for key, tensor in good.items()}


FORMS: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "plain": (lambda good, _: good, "c.pth"),
    "parameters": (
        lambda good, _: {k: nn.Parameter(t) if t.is_floating_point() else t for k, t in good.items()},
        "c.pth",
    ),
    "basicsr": (lambda good, _: {"params": good}, "params of c.pth"),
    "basicsr ema": (
        lambda good, o: {"params": o, "params_ema": good},
        "params_ema of c.pth (there is also params: --key)",
    ),
    "lightning": (
        lambda good, o: {"epoch": 1, "state_dict": prefixed("net.", good), "optimizer_states": [{"state": {}}]},
        "state_dict of c.pth, without the prefix 'net.'",
    ),
    "lightning with loss": (
        lambda good, _: {"state_dict": prefixed("model.", good) | {"loss.vgg.conv1.weight": torch.zeros(2)}},
        "state_dict of c.pth, without the prefix 'model.'",
    ),
    "lightning with ema": (
        lambda good, o: {"state_dict": prefixed("net_ema.", o) | prefixed("net.", good)},
        "state_dict of c.pth, without the prefix 'net.' ('net_ema.' would fit as well: --strip-prefix)",
    ),
    "data parallel": (lambda good, _: prefixed("module.", good), "c.pth, without the prefix 'module.'"),
    "compiled": (lambda good, _: prefixed("_orig_mod.", good), "c.pth"),
    "compiled inside": (lambda good, _: {k.replace("body.", "body._orig_mod."): t for k, t in good.items()}, "c.pth"),
    "compiled data parallel": (
        lambda good, _: {"model": prefixed("module._orig_mod.", good)},
        "model of c.pth, without the prefix 'module.'",
    ),
    "timm": (
        lambda good, o: {"arch": "net", "state_dict": o, "state_dict_ema": good},
        "state_dict_ema of c.pth (there is also state_dict: --key)",
    ),
    "ema": (lambda good, o: {"ema": good, "step": 3}, "ema of c.pth"),
    "model_ema": (lambda good, o: {"model": o, "model_ema": good}, "model_ema of c.pth (there is also model: --key)"),
    "ema_state_dict": (lambda good, _: {"ema_state_dict": good}, "ema_state_dict of c.pth"),
    "averaged model": (
        lambda good, _: prefixed("module.", good) | {"n_averaged": torch.tensor(3)},
        "c.pth, without the prefix 'module.'",
    ),
    "gan": (lambda good, o: {"net_g": good, "net_d": {"conv.weight": torch.zeros(1)}}, "net_g of c.pth"),
    "generator": (lambda good, o: {"generator": good}, "generator of c.pth"),
    "nested": (lambda good, o: {"model": {"state_dict": good, "args": 1}}, "model.state_dict of c.pth"),
    "ema that does not fit": (
        lambda good, o: {"ema": {"shadow": torch.zeros(3)}, "net": good},
        "net of c.pth (there is also ema: --key)",
    ),
    "step beside it": (lambda good, o: {"weights": good, "step": torch.tensor(1)}, "weights of c.pth"),
}


@pytest.mark.parametrize(("make", "description"), FORMS.values(), ids=FORMS.keys())
def test_every_form_is_recognised(
    tmp_path: Path, good: State, other: State, make: Callable[[State, State], Any], description: str
) -> None:
    torch.save(make(good, other), tmp_path / "c.pth")
    model = Net()
    weights = load_checkpoint(tmp_path / "c.pth", model)
    assert weights.description == description
    fit(model, weights.state, weights.description)
    assert all(torch.equal(tensor, good[key]) for key, tensor in model.state_dict().items())


def test_safetensors(tmp_path: Path, good: State) -> None:
    save_file(prefixed("module.", good), tmp_path / "c.safetensors")
    weights = load_checkpoint(tmp_path / "c.safetensors", Net())
    assert weights.state.keys() == good.keys()


def test_key_and_prefix_override(tmp_path: Path, good: State, other: State) -> None:
    path = tmp_path / "c.pth"
    torch.save({"state_dict": good, "nets": {"a": prefixed("x.", other) | prefixed("y.", good)}}, path)
    assert torch.equal(
        load_checkpoint(path, Net(), key="nets.a", strip_prefix="x.").state["conv1.bias"], other["conv1.bias"]
    )
    assert load_checkpoint(path, Net(), key="nets.a").description == (
        "nets.a of c.pth, without the prefix 'x.' ('y.' would fit as well: --strip-prefix)"
    )


def test_the_model_is_not_changed_by_reading(tmp_path: Path, good: State) -> None:
    torch.save(good, tmp_path / "c.pth")
    model = Net()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    load_checkpoint(tmp_path / "c.pth", model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


BROKEN: dict[str, tuple[Callable[[Path], Any], dict[str, str], str]] = {
    "missing": (lambda path: None, {}, r"there is no file .*c\.pth"),
    "folder": (lambda path: path.mkdir(), {}, "is a folder, not a checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), {}, "is damaged, or no checkpoint"),
    "text": (lambda path: path.write_text("hello, this is text"), {}, "is damaged, or"),
    "truncated": (
        lambda path: (torch.save({"a": torch.ones(99)}, path), path.write_bytes(path.read_bytes()[:300])),
        {},
        "is damaged, or no checkpoint",
    ),
    "code": (lambda path: torch.save({"x": Runs()}, path), {}, r"needs (posix|nt)\.mkdir.* was not loaded"),
    "whole module": (lambda path: torch.save(Net(), path), {}, r"needs .*Net.* save its model.state_dict\(\)"),
    "arguments": (
        lambda path: torch.save({"state_dict": {}, "args": argparse.Namespace(a=1)}, path),
        {},
        r"needs argparse\.Namespace",
    ),
    "list": (lambda path: torch.save([1, 2], path), {}, "it is a list"),
    "nothing": (lambda path: torch.save({}, path), {}, "it is empty"),
    "no tensors": (
        lambda path: torch.save({"epoch": 1, "optimizer": {"a": 1}}, path),
        {},
        "its keys are 'epoch', 'optimizer'; choose one by --key",
    ),
    "unknown key": (
        lambda path: torch.save({"net_b": {"a": torch.ones(1)}}, path),
        {"key": "net_a"},
        r"has no entry 'net_a' \(did you mean 'net_b'\?\)",
    ),
    "key into a number": (lambda path: torch.save({"a": 1}, path), {"key": "a.b"}, "has no entry 'a.b'"),
    "key without tensors": (lambda path: torch.save({"a": {"b": 1}}, path), {"key": "a"}, "'a' holds no tensors"),
    "unknown prefix": (
        lambda path: torch.save({"a.b": torch.ones(1)}, path),
        {"strip_prefix": "net."},
        r"no key begins with 'net\.'; the keys are 'a\.b'",
    ),
}


@pytest.mark.parametrize(("make", "options", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], options: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pth"
    make(path)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_checkpoint(path, Net(), **options)
    assert "\n" not in str(raised.value)
    assert not Path("ran").exists()


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="is damaged, or no checkpoint"):
        load_checkpoint(path, Net())


def test_a_misfit_lists_the_keys_and_loads_nothing(good: State) -> None:
    state = {key: tensor for key, tensor in good.items() if key != "conv1.bias"}
    state |= {"extra.weight": torch.zeros(2), "conv1.weight": torch.zeros(8, 3, 3, 3)}
    model = Net()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        fit(model, state, "c.pth")
    lines = str(raised.value).splitlines()
    assert lines == [
        "c.pth does not fit Net: 7 of its 9 tensors match; nothing was loaded",
        "  1 missing from the checkpoint:",
        "    conv1.bias",
        "  1 not in the model:",
        "    extra.weight",
        "  1 of another shape:",
        "    conv1.weight: 8x3x3x3 in the checkpoint, 4x3x3x3 in the model",
        "  (were other arguments used to build the architecture? see --arg)",
    ]
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_long_lists_of_keys_are_cut(good: State) -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(30)))
    with pytest.raises(CheckpointError) as raised:
        fit(model, good, "c.pth")
    lines = str(raised.value).splitlines()
    assert "  60 missing from the checkpoint:" in lines
    assert "    … and 40 more" in lines
    assert lines[-1].startswith("  (is it another architecture")


def test_another_width_is_a_misfit_of_shapes(tmp_path: Path, good: State) -> None:
    torch.save({"state_dict": prefixed("net.", good)}, tmp_path / "c.pth")
    model = Net(width=6)
    weights = load_checkpoint(tmp_path / "c.pth", model)
    with pytest.raises(CheckpointError, match="8 of another shape"):
        fit(model, weights.state, weights.description)
