"""A layer is plain only where nothing of what it computes was replaced, on it, on its class, or by a subclass."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from mofa_compiler import apply, capture
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.graph.plain_layers import altered, computes_as_layer, is_plain, is_torchs, replaced, stands_for
from mofa_compiler.nn.partial_conv import PConv2d
from tests.raising import raising

Patch = Callable[[nn.Conv2d], object]


def by_closure(conv: nn.Conv2d) -> None:
    inner = conv.forward
    conv.forward = lambda x: inner(x) * 100  # type: ignore[method-assign, assignment]


def as_accelerate_does(conv: nn.Conv2d) -> None:
    old = conv._old_forward = conv.forward  # type: ignore[assignment]
    conv.forward = functools.update_wrapper(  # type: ignore[method-assign]
        functools.partial(lambda module, x: module._old_forward(x) * 100, conv), old
    )


def by_method(conv: nn.Conv2d) -> None:
    conv.forward = types.MethodType(lambda self, x: nn.Conv2d.forward(self, x) * 100, conv)  # type: ignore[method-assign]


def inside(conv: nn.Conv2d) -> None:
    inner = conv._conv_forward
    conv._conv_forward = lambda x, w, b: inner(x, w, b) * 100  # type: ignore[method-assign, assignment]


def by_default(conv: nn.Conv2d) -> None:
    conv.forward = lambda x, module=conv: nn.Conv2d.forward(module, x) * 100  # type: ignore[method-assign, misc]


def by_values(conv: nn.Conv2d) -> None:
    inner = conv.forward
    conv.forward = lambda x: inner(x) * 100 if x.detach().sum() > -1e9 else x  # type: ignore[method-assign, assignment]


def by_hook(conv: nn.Conv2d) -> None:
    conv.register_forward_hook(lambda module, args, y: 100 * y + 0 * conv.weight.sum())


LAYERS = [
    *(nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(3), nn.GroupNorm(1, 2)),
    *(nn.LayerNorm(3), nn.Linear(3, 3), nn.LSTM(3, 4), nn.GRU(2, 3, bidirectional=True), nn.MultiheadAttention(4, 2)),
    *(nn.PReLU(), nn.GLU(), nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1), nn.PixelShuffle(2), nn.Dropout()),
    *(
        nn.Sequential(nn.ReLU()),
        nn.ModuleDict({"a": nn.ReLU()}),
        nn.TransformerEncoderLayer(4, 2, 4),
        nn.Embedding(3, 3),
    ),
]

PATCHES: list[Patch] = [by_closure, as_accelerate_does, by_method, inside, by_default, by_values, by_hook]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.depth, self.mix = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.norm, self.act, self.idle = nn.BatchNorm2d(8), nn.ReLU(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.head(self.act(self.mix(self.idle(self.norm(self.depth(self.stem(x)))))))
        return y


@pytest.mark.parametrize("layer", ["depth", "mix"])
@pytest.mark.parametrize("patch", PATCHES)
def test_what_was_put_on_a_layer_is_kept(patch: Patch, layer: str) -> None:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(1, 3, 16, 16)
    patch(net.get_submodule(layer))  # type: ignore[arg-type]
    result = apply(net, "mofa", x)
    with torch.no_grad():
        assert torch.equal(result.original.program.graph_module(x), net(x))
    assert all(verdict.holds for verdict in result.verdicts)
    assert layer not in {edit.path for diff in result.diffs for edit in diff.rewritten}


@pytest.mark.parametrize("patch", PATCHES)
def test_the_result_shares_nothing_with_a_patched_model(patch: Patch) -> None:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(1, 3, 16, 16)
    patch(net.depth)
    model = apply(net, "mofa", x).model.eval()
    before = model(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(model(x), before)


def doubled(layer: nn.Module) -> None:
    inner = layer.forward
    layer.forward = lambda x: 2 * inner(x) + 1 if x.detach().sum() > -1e9 else x


@pytest.mark.parametrize("layer", ["norm", "act", "idle"])
@pytest.mark.parametrize("patch", [doubled, lambda layer: layer.register_forward_hook(lambda *a: 2 * a[2] + 1)])
def test_a_patched_norm_or_activation_is_none(patch: Callable[[nn.Module], object], layer: str) -> None:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(1, 3, 16, 16)
    patch(net.get_submodule(layer))
    result = apply(net, "mofa", x)
    steps = {step.path: step.kind for step in result.original.layers["depth"].behind}
    assert steps.get(layer, "other") == "other"
    assert all(verdict.holds for verdict in result.verdicts)


def test_a_patched_class_is_seen_and_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", functools.wraps(forward)(lambda self, x: forward(self, x) * 2))
    net, x = Net().eval(), torch.rand(1, 3, 16, 16)
    assert replaced(net.depth) == "forward"
    assert not is_plain(net.depth, nn.Conv2d)
    assert torch.equal(capture(net, x).graph_module(x), net(x))


def test_hooks_on_every_module_are_refused() -> None:
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with raising(CaptureError, "hooks"):
            capture(Net().eval(), torch.rand(1, 3, 16, 16))
    finally:
        handle.remove()


@pytest.mark.parametrize("module", LAYERS, ids=lambda module: type(module).__name__)
def test_torchs_own_layers_are_plain(module: nn.Module) -> None:
    assert not altered(module)
    assert is_plain(module, type(module))
    assert is_torchs(module, nn.Module)


def test_what_changes_no_value_is_plain() -> None:
    conv = nn.Conv2d(3, 4, 3)
    conv.compile()
    conv.register_state_dict_pre_hook(lambda *_: None)
    conv.extra_repr = lambda: "mine"  # type: ignore[method-assign]
    assert not altered(conv)


def test_what_is_inside_counts() -> None:
    partial = PConv2d(8, 2)
    assert is_plain(partial, PConv2d)
    by_closure(partial.conv)
    assert altered(partial)
    assert altered(orthogonal(nn.Conv2d(3, 4, 3))) == "has a parametrized weight"


class Named(nn.Conv2d):
    kind = "own"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gain = 2.0

    def __repr__(self) -> str:
        return "named"

    @property
    def in_and_out(self) -> int:
        return self.in_channels + self.out_channels


class Forward(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Inner(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight * 2, bias)


class Stride(nn.Conv2d):
    @property
    def stride(self) -> Any:
        return 2

    @stride.setter
    def stride(self, value: Any) -> None: ...


class Frozen(nn.Conv2d):
    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)


class Again(Named):
    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)


@pytest.mark.parametrize(
    ("kind", "stands", "computes"),
    [
        (nn.Conv2d, True, True),
        (Named, True, True),
        (Again, True, True),
        (Frozen, False, True),
        (Forward, False, False),
        (Inner, False, False),
        (Stride, False, False),
    ],
)
def test_what_a_subclass_replaces_decides(kind: type[nn.Conv2d], stands: bool, computes: bool) -> None:
    torch.manual_seed(0)
    module = kind(3, 4, 1)
    assert (stands_for(module) is nn.Conv2d) is stands
    assert computes_as_layer(module) is computes
    layer = nn.Conv2d(3, 4, 1)
    layer.load_state_dict({key: module._parameters[key] for key in ("weight", "bias")})  # type: ignore[misc]
    x = torch.rand(1, 3, 4, 4)
    assert (module(x).shape == layer(x).shape and torch.equal(module(x), layer(x))) is computes


def test_containers_are_no_layers() -> None:
    assert stands_for(nn.Module()) is None
    assert not computes_as_layer(nn.Module())
    assert stands_for(PConv2d(8, 2)) is PConv2d
