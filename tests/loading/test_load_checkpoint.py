"""Checkpoints: every form that frameworks save is found, nothing is ever run, and a misfit lists what is wrong."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mofa_compiler.base.errors import CheckpointError
from mofa_compiler.loading.checkpoint import fit, load_checkpoint
from tests.raising import raising

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
        lambda good, o: {"state_dict": prefixed("net_ema.", good) | prefixed("net.", o)},
        "state_dict of c.pth, without the prefix 'net_ema.' ('net.' would fit as well: --strip-prefix)",
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
        "c.pth, averaged weights, without the prefix 'module.'",
    ),
    "averaged beside it": (
        lambda good, o: prefixed("net.", o) | prefixed("mean.module.", good) | {"mean.n_averaged": torch.tensor(3)},
        "c.pth, averaged weights, without the prefix 'mean.module.' ('net.' would fit as well: --strip-prefix)",
    ),
    "ema entry of another name": (
        lambda good, o: {"model": o, "generator_ema": good},
        "generator_ema of c.pth (there is also model: --key)",
    ),
    "sharded": (lambda good, _: prefixed("_fsdp_wrapped_module.", good), "c.pth"),
    "checkpointed part": (
        lambda good, _: {k.replace("body.", "body._checkpoint_wrapped_module."): t for k, t in good.items()},
        "c.pth",
    ),
    "data parallel part": (lambda good, _: {k.replace("body.", "body.module."): t for k, t in good.items()}, "c.pth"),
    "deepspeed": (lambda good, _: {"module": good, "dp_world_size": 1}, "module of c.pth"),
    "twice the same": (
        lambda good, _: {"state_dict": good, "model": good},
        "state_dict of c.pth (there is also model: --key)",
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


RIVALS: dict[str, tuple[Callable[[State, State], Any], dict[str, str]]] = {
    "--strip-prefix x. or --strip-prefix y.": (lambda a, b: {"model": prefixed("x.", a) | prefixed("y.", b)}, {}),
    "--key net_g or --key generator": (lambda a, b: {"net_g": a, "generator": b}, {}),
    "--key params --strip-prefix m. or --key model": (lambda a, b: {"params": prefixed("m.", a), "model": b}, {}),
    "--key ema or --key swa": (lambda a, b: {"ema": a, "model": a, "swa": b}, {}),
    "choose by --key model": (lambda a, b: {"model": a, **b}, {}),
    "choose by --strip-prefix teacher.": (lambda a, b: a | prefixed("teacher.", b), {}),
    "--strip-prefix net.": (lambda a, b: {"z": prefixed("net.", a) | prefixed("old.", b)}, {"key": "z"}),
}


@pytest.mark.parametrize(("make", "options"), RIVALS.values(), ids=RIVALS.keys())
def test_two_networks_that_fit_and_differ_are_named_with_their_options(
    tmp_path: Path,
    good: State,
    other: State,
    make: Callable[[State, State], Any],
    options: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    torch.save(make(good, other), tmp_path / "c.pth")
    with raising(CheckpointError, "ambiguous") as raised:
        load_checkpoint(tmp_path / "c.pth", Net(), **options)
    assert request.node.callspec.id in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_model_is_not_changed_by_reading(tmp_path: Path, good: State) -> None:
    torch.save(good, tmp_path / "c.pth")
    model = Net()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    load_checkpoint(tmp_path / "c.pth", model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


BROKEN: dict[str, tuple[Callable[[Path], Any], dict[str, str], tuple[str, ...]]] = {
    "missing": (lambda path: None, {}, ("not-found", "c.pth")),
    "folder": (lambda path: path.mkdir(), {}, ("not-found", "c.pth")),
    "empty": (lambda path: path.write_bytes(b""), {}, ("damaged", "c.pth")),
    "text": (lambda path: path.write_text("hello, this is text"), {}, ("damaged", "c.pth")),
    "truncated": (
        lambda path: (torch.save({"a": torch.ones(99)}, path), path.write_bytes(path.read_bytes()[:300])),
        {},
        ("damaged", "c.pth"),
    ),
    "code": (lambda path: torch.save({"x": Runs()}, path), {}, ("unreadable", ".mkdir")),
    "whole module": (lambda path: torch.save(Net(), path), {}, ("unreadable", "Net", "model.state_dict()")),
    "arguments": (
        lambda path: torch.save({"state_dict": {}, "args": argparse.Namespace(a=1)}, path),
        {},
        ("unreadable", "argparse.Namespace"),
    ),
    "list": (lambda path: torch.save([1, 2], path), {}, ("wrong-kind", "list")),
    "nothing": (lambda path: torch.save({}, path), {}, ("wrong-kind", "empty")),
    "no tensors": (
        lambda path: torch.save({"epoch": 1, "optimizer": {"a": 1}}, path),
        {},
        ("wrong-kind", "'epoch', 'optimizer'", "--key"),
    ),
    "unknown key": (
        lambda path: torch.save({"net_b": {"a": torch.ones(1)}}, path),
        {"key": "net_a"},
        ("unknown-name", "'net_a'", "'net_b'"),
    ),
    "key into a number": (lambda path: torch.save({"a": 1}, path), {"key": "a.b"}, ("unknown-name", "'a.b'")),
    "key without tensors": (lambda path: torch.save({"a": {"b": 1}}, path), {"key": "a"}, ("wrong-kind", "'a'")),
    "unknown prefix": (
        lambda path: torch.save({"a.b": torch.ones(1)}, path),
        {"strip_prefix": "net."},
        ("unknown-name", "'net.'", "'a.b'"),
    ),
}


@pytest.mark.parametrize(("make", "options", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_read_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Any],
    options: dict[str, str],
    said: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pth"
    make(path)
    with raising(CheckpointError, *said) as raised:
        load_checkpoint(path, Net(), **options)
    assert "\n" not in str(raised.value)
    assert not Path("ran").exists()


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_text("hello")
    with raising(CheckpointError, "damaged"):
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
    with raising(CheckpointError, "does-not-fit"):
        fit(model, weights.state, weights.description)


CONVERTED = (torch.float16, torch.bfloat16, torch.float64)


@pytest.mark.parametrize("dtype", CONVERTED, ids=str)
def test_another_precision_is_converted(good: State, dtype: torch.dtype) -> None:
    """Counters of batches become floating with the rest where all is cast, and are whole still."""
    model = Net()
    fit(model, {key: tensor.to(dtype) for key, tensor in good.items()}, "c.pth")
    assert torch.equal(model.conv1.weight, good["conv1.weight"].to(dtype).float())
    assert model.state_dict()["body.1.num_batches_tracked"].dtype == torch.int64


class Mixed(nn.Module):
    """A tensor of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2))
        self.register_buffer("filter", torch.rand(2, dtype=torch.complex64))
        self.register_buffer("index", torch.tensor([1, 2], dtype=torch.int32))
        self.register_buffer("mask", torch.tensor([True, False]))


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch, and in files still
        return torch.quantize_per_tensor(torch.rand(2), 0.1, 0, torch.quint8)


TAKEN = {
    "weight": [torch.rand(2, dtype=torch.float64)],
    "filter": [torch.rand(2, dtype=torch.complex128)],
    "index": [torch.tensor([5, 6]), torch.tensor([5.0, 6.0]), torch.tensor([5, 6], dtype=torch.uint8)],
    "mask": [torch.tensor([1, 0], dtype=torch.uint8), torch.tensor([0.0, 1.0])],
}
REFUSED = {
    "weight": [
        torch.rand(2, dtype=torch.complex64),
        torch.tensor([1, 2]),
        torch.tensor([True, False]),
        torch.rand(2).to(torch.float8_e4m3fn),
        quantized(),
        torch.rand(2).to_sparse(),
        torch.rand(2, device="meta"),
    ],
    "filter": [torch.rand(2), torch.tensor([1, 2])],
    "index": [
        torch.tensor([0.5, 1.0]),
        torch.tensor([float("nan"), 1.0]),
        torch.tensor([float("inf"), 1.0]),
        torch.tensor([2**40, 1]),
        torch.rand(2, dtype=torch.complex64),
    ],
    "mask": [torch.tensor([2, 0]), torch.tensor([0.5, 1.0])],
}


def kind(value: str | torch.Tensor) -> str:
    return value if isinstance(value, str) else str(value.dtype)


@pytest.mark.parametrize(("name", "tensor"), [(name, one) for name, found in TAKEN.items() for one in found], ids=kind)
def test_what_keeps_its_meaning_is_loaded(name: str, tensor: Tensor) -> None:
    model = Mixed()
    state = model.state_dict()
    fit(model, {**state, name: tensor}, "c.pth")
    assert torch.equal(model.state_dict()[name], tensor.to(state[name].dtype))


@pytest.mark.parametrize(
    ("name", "tensor"), [(name, one) for name, found in REFUSED.items() for one in found], ids=kind
)
def test_numbers_of_another_kind_are_refused_by_name(name: str, tensor: Tensor) -> None:
    model = Mixed()
    before = {key: one.clone() for key, one in model.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        fit(model, {**before, name: tensor}, "c.pth")
    kinds = [str(one.dtype).removeprefix("torch.") for one in (tensor, before[name])]
    line = next(line for line in str(raised.value).splitlines() if line.startswith(f"    {name}: "))
    assert all(kind in line for kind in kinds)
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
