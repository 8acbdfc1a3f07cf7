"""Models that no graph can hold: refused in one sentence that names the part."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply, capture
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.passes import SepConvToPConv

IMAGE = torch.rand(1, 3, 16, 16)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)).eval()


class Tagged(Tensor):
    """A subclass of tensors."""


class Quantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8))

    def forward(self, x: Tensor) -> Tensor:
        return x


class Nested(nn.Module):
    def __init__(self, depth: int):
        super().__init__()
        self.inner: nn.Module = Nested(depth - 1) if depth else nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


class Uncopied(nn.Conv2d):
    def __setstate__(self, state: Any) -> None:
        raise ValueError("no copies")


class Emptied(nn.Conv2d):
    def __setstate__(self, state: Any) -> None:
        """Restores nothing."""


def with_(name: str, value: Any) -> nn.Module:
    model = net()
    setattr(model[1], name, value)
    return model


def fake() -> nn.Module:
    with torch._subclasses.FakeTensorMode():
        return net()


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "scripted": (lambda: torch.jit.script(net()), "torch.jit"),
    "traced": (lambda: torch.jit.trace(net(), IMAGE), "torch.jit"),
    "script inside": (lambda: nn.Sequential(nn.Identity(), torch.jit.script(net()[0])), "'1'"),
    "subclass": (lambda: with_("weight", nn.Parameter(torch.rand(3, 4, 3, 3).as_subclass(Tagged))), "1.weight"),
    "sparse": (lambda: with_("weight", nn.Parameter(torch.rand(3, 4, 3, 3).to_sparse())), "1.weight"),
    "fake": (fake, "0.weight"),
    "quantized": (Quantized, "table"),
    "nested": (lambda: Nested(200).eval(), "201 deep"),
    "no module": (lambda: nn.Conv2d, "nn.Module"),
    "setstate": (lambda: nn.Sequential(Uncopied(3, 3, 1)).eval(), "no copies"),
    "emptied": (lambda: nn.Sequential(Emptied(3, 3, 1)).eval(), "cannot be copied"),
    "lock": (lambda: with_("lock", threading.Lock()), "1.lock"),
}


@pytest.fixture
def _usual_recursion() -> Iterator[None]:
    """Python's own limit, which packages that other tests import may have raised."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("_usual_recursion")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", MODELS)
def test_what_cannot_be_rewritten_is_refused_by_name(kind: str) -> None:
    make, name = MODELS[kind]
    with pytest.raises(CaptureError, match=name):
        apply(make(), [SepConvToPConv()], IMAGE)


def test_what_can_be_traced_can_be_copied() -> None:
    assert capture(Nested(40).eval(), IMAGE).comparison.sizes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_layer_that_is_quantized_behind_is_left_as_it_is() -> None:
    model = nn.Sequential(*net(), nn.Linear(16, 16)).eval()
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    result = apply(quantized, [SepConvToPConv()], IMAGE)
    assert result.verdicts is not None


def test_a_default_device_without_values_is_not_used() -> None:
    model = net()
    with torch.device("meta"):
        result = apply(model, "mofa", IMAGE)
        assert all(verdict.holds is not False for verdict in result.verdicts)
    assert not any(tensor.is_meta for tensor in result.model.state_dict().values())
