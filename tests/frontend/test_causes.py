"""What stops the tracer is told as it is: control flow on values only where there is some."""

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
from tests.frontend.small import Computing
from tests.raising import raising

CONTROL_FLOW = "Control flow on the values of tensors"
TAKEN_OUT = "taken out of a tensor"
UNKNOWN_SHAPE = "torch does not know what shape this returns"
STAND_INS = "stand-ins for tensors and sizes"


def fails(x: Tensor) -> Tensor:
    raise ValueError("of its own")


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (lambda x: x if x.mean() > 0 else -x, CONTROL_FLOW),
        (lambda x: x * x.mean().item(), TAKEN_OUT),
        (lambda x: x * x.mean((0, 2, 3)).tolist()[0], TAKEN_OUT),
        (lambda x: x * float(x.mean()), TAKEN_OUT),
        (lambda x: sum(x for _ in range(int(x.mean()))), TAKEN_OUT),
        (lambda x: x if torch.equal(x, x) else -x, CONTROL_FLOW),
        (lambda x: x * torch.from_numpy(x.detach().numpy()), TAKEN_OUT),
        (lambda x: x * torch.unique(x).mean(), UNKNOWN_SHAPE),
        (lambda x: x * torch.bincount(x.long().flatten()).sum(), UNKNOWN_SHAPE),
        (lambda x: ",".join([x]), STAND_INS),
        (fails, "ValueError: of its own"),
        (lambda x: [x][3], "IndexError: list index out of range"),
        (lambda x: x.nonsense(), "a tensor has no attribute 'nonsense'"),
    ],
)
def test_the_cause_and_the_line(function: Any, cause: str) -> None:
    with pytest.raises(CaptureError) as caught:
        capture(Computing(lambda _, x: function(x)), torch.rand(1, 3, 8, 8))
    text = str(caught.value)
    assert cause in text
    assert (CONTROL_FLOW in text) is (cause == CONTROL_FLOW)
    assert f"{__file__}:" in text


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


def test_a_name_that_no_file_can_hold_is_refused() -> None:
    model = net()
    model.register_parameter("half\ud800", nn.Parameter(torch.ones(1)))
    with raising(CaptureError, "bad-name", "half"):
        capture(model, IMAGE)
