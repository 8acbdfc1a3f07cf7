"""Wrappers: whatever compilers and trainers put around a network or its parts, the naked one is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

import mofa_compiler
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.lint import lint
from mofa_compiler.loading.checkpoint import fit
from mofa_compiler.loading.wrappers import unwrapped, unwrapped_key
from tests.raising import raising


class Net(nn.Module):
    """A network with a layer of the name that wrappers use."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.head(self.body(self.module(x)))


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def with_compiled_parts(model: Net) -> nn.Module:
    model.body[0], model.head = compiled(model.body[0]), compiled(model.head)  # type: ignore[assignment]
    return model


class ModelEmaV3(nn.Module):
    """As timm's."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.module = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)  # type: ignore[no-any-return]


ModelEmaV3.__module__ = "timm.utils.model_ema"

WRAPPERS: dict[str, Callable[[Net], nn.Module]] = {
    "compiled": compiled,
    "averaged": AveragedModel,
    "data parallel": nn.DataParallel,
    "checkpointed": checkpoint_wrapper,
    "timm": ModelEmaV3,
    "compiled average of data parallel": lambda model: compiled(AveragedModel(nn.DataParallel(model))),
    "compiled parts": with_compiled_parts,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_what_is_inside_is_what_is_worked_on(wrap: Callable[[Net], nn.Module]) -> None:
    torch.manual_seed(0)
    wrapped, example = wrap(Net().eval()), torch.rand(1, 3, 16, 16)
    before = list(wrapped.state_dict())
    names = Net().state_dict().keys()
    assert type(unwrapped(wrapped)) is Net
    assert unwrapped(wrapped).state_dict().keys() == names
    assert mofa_compiler.capture(wrapped, example).state().keys() == names
    result = mofa_compiler.apply(wrapped, "mofa", example)
    assert result.original.program.name == "Net"
    assert result.keymap.keys() == names
    linted = lint(wrapped, example)
    assert linted.model == "Net"
    assert {finding.code for finding in linted.findings} == {finding.code for finding in lint(Net(), example).findings}
    assert list(wrapped.state_dict()) == before


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_weights_are_loaded_into_what_is_inside(wrap: Callable[[Net], nn.Module]) -> None:
    state = {key: torch.rand_like(tensor) for key, tensor in Net().state_dict().items()}
    wrapped = wrap(Net())
    fit(wrapped, state, "c.pth")
    loaded = {key.removeprefix("n_averaged"): tensor for key, tensor in unwrapped(wrapped).state_dict().items()}
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())
    assert any(torch.equal(parameter, state["head.weight"]) for parameter in wrapped.parameters())


def test_shards_are_refused() -> None:
    class FullyShardedDataParallel(Net):
        pass

    FullyShardedDataParallel.__module__ = "torch.distributed.fsdp"
    with raising(CaptureError, "untraceable", "FullyShardedDataParallel"):
        mofa_compiler.apply(nn.Sequential(FullyShardedDataParallel()), "mofa")


def test_a_network_without_wrappers_is_itself() -> None:
    model = Net()
    assert unwrapped(model) is model


def test_a_network_of_its_own_that_is_called_like_a_wrapper_stays() -> None:
    class DataParallel(Net):
        pass

    model = DataParallel()
    assert unwrapped(model) is model


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        ("_orig_mod.a.b", "a.b"),
        ("module._orig_mod.a", "module.a"),
        ("a._fsdp_wrapped_module.b._checkpoint_wrapped_module.weight", "a.b.weight"),
        ("my_orig_mod.a", "my_orig_mod.a"),
        ("module.weight", "module.weight"),
    ],
)
def test_only_what_wrappers_make_is_taken_out_of_names(key: str, plain: str) -> None:
    assert unwrapped_key(key) == plain
