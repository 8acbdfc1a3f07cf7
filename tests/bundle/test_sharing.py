"""One parameter, buffer or layer in several places: every key of the original's, and one tensor behind them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mofa_compiler
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.numerics.running import run


class Filter(nn.Module):
    """A container that holds nothing but a tensor, under a name of choice."""

    def __init__(self, tensor: Tensor, name: str = "filters", persistent: bool = True):
        super().__init__()
        self.name = name
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, getattr(self, self.name), padding=1)


class Through(nn.Module):
    """A container that reads its layer's weights itself."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, self.conv.bias, padding=1)


class Unread(nn.Module):
    def __init__(self, tensor: Tensor):
        super().__init__()
        self.tensor = tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Net(nn.Module):
    def __init__(self, parts: dict[str, nn.Module | Tensor], middle: Callable[[Net, Tensor], Tensor]):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        for name, part in parts.items():
            if isinstance(part, (nn.Module, nn.Parameter)):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self, self.stem(x)))


def parameter() -> nn.Parameter:
    return nn.Parameter(torch.randn(8, 8, 3, 3) / 8)


def conv() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1)


def norm() -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(8)
    torch.nn.init.normal_(made.running_mean)
    torch.nn.init.uniform_(made.running_var, 0.5, 2)
    return made


def with_weight(layer: nn.Conv2d, weight: nn.Parameter) -> nn.Conv2d:
    layer.weight = weight
    return layer


def parent_and_child() -> Net:
    return Net({"filters": (p := parameter()), "wave": Filter(p)}, lambda m, x: m.wave(x))


def child_under_another_name() -> Net:
    return Net({"filters": (p := parameter()), "wave": Filter(p, "kernel")}, lambda m, x: m.wave(x) + m.filters.sum())


def child_first() -> Net:
    return Net({"wave": Filter(p := parameter()), "filters": p}, lambda m, x: m.wave(x))


def siblings() -> Net:
    return Net({"a": Filter(p := parameter()), "b": Filter(p, "kernel")}, lambda m, x: m.a(x) + m.b(2 * x))


def in_lists() -> Net:
    p = parameter()
    blocks = nn.ModuleList(
        [nn.Sequential(Filter(p), nn.ReLU()), nn.Sequential(Filter(p, "kernel"), nn.ReLU(), Filter(p))]
    )
    return Net({"filters": p, "blocks": blocks}, lambda m, x: m.blocks[1](m.blocks[0](x)))


def parameter_lists_and_dicts() -> Net:
    p = parameter()
    named = nn.ParameterDict({"a": p, "no-identifier": p})
    parts = {"list": nn.ParameterList([p, parameter(), p]), "dict": named, "wave": Filter(p)}
    return Net(parts, lambda m, x: m.wave(x) + F.conv2d(x, m.dict["no-identifier"], padding=1) + m.list[1].sum())


def buffer_of_both() -> Net:
    return Net({"filters": (t := torch.randn(8, 8, 3, 3)), "wave": Filter(t)}, lambda m, x: m.wave(x))


def buffer_persistent_in_one() -> Net:
    parts = {"filters": (t := torch.randn(8, 8, 3, 3)), "wave": Filter(t, persistent=False)}
    return Net(parts, lambda m, x: m.wave(x))


def buffers_of_a_layer() -> Net:
    layer = norm()
    parts = {"norm": layer, "mean": layer.running_mean, "wave": Filter(layer.running_var, "variance")}
    return Net(parts, lambda m, x: m.norm(x) + m.mean[:, None, None])


def two_layers() -> Net:
    first = conv()
    return Net({"a": first, "b": with_weight(conv(), first.weight)}, lambda m, x: m.b(m.a(x)))


def two_norms() -> Net:
    one, two = norm(), norm()
    two.weight, two.running_mean = one.weight, one.running_mean
    return Net({"one": one, "two": two}, lambda m, x: m.two(m.one(x)))


def layer_and_functional() -> Net:
    layer = conv()
    return Net({"conv": layer, "w": layer.weight}, lambda m, x: m.conv(x) + F.conv2d(x, m.w, padding=1))


def layer_and_child() -> Net:
    layer = conv()
    return Net({"conv": layer, "wave": Filter(layer.weight)}, lambda m, x: m.conv(x) + m.wave(x))


def layer_in_two_containers() -> Net:
    layer = conv()
    other = Through(with_weight(conv(), layer.weight))
    parts = {"conv": layer, "a": Through(layer), "b": other, "c": Through(other.conv)}
    return Net(parts, lambda m, x: m.conv(x) + m.a(x) + m.b(x) + m.c(x))


def never_read() -> Net:
    p = parameter()
    return Net({"a": Unread(p), "p": p, "b": Unread(p), "c": Unread(parameter())}, lambda m, x: m.c(m.b(m.a(x))))


def frozen() -> Net:
    p = parameter().requires_grad_(False)
    return Net({"filters": p, "wave": Filter(p)}, lambda m, x: m.wave(x))


NETWORKS = (
    *(parent_and_child, child_under_another_name, child_first, siblings, in_lists, parameter_lists_and_dicts),
    *(buffer_of_both, buffer_persistent_in_one, buffers_of_a_layer, two_layers, two_norms, layer_and_functional),
    *(layer_and_child, layer_in_two_containers, never_read, frozen),
)


def ties(model: nn.Module) -> set[tuple[str, ...]]:
    """The names of every parameter that has several."""
    named = list(model.named_parameters(remove_duplicate=False))
    names = {id(one): tuple(sorted(name for name, other in named if other is one)) for _, one in named}
    return {group for group in names.values() if len(group) > 1}


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
@pytest.mark.sample(4)
def test_what_is_shared_is_saved_under_every_name_and_shared_again(make: Callable[[], Net], tmp_path: Path) -> None:
    network, x = make().eval(), torch.rand(1, 3, 16, 16)
    result = mofa_compiler.apply(network, "mofa", x)
    loaded = mofa_compiler.load(result.save(tmp_path / "bundle"))
    kept = [key for key in network.state_dict() if not key.startswith(("a.", "b.", "conv."))]
    assert set(kept) <= loaded.state_dict().keys() == result.model.state_dict().keys()
    assert ties(loaded) == ties(result.model)
    assert torch.equal(run(loaded, CallSpec((x,))), run(result.model, CallSpec((x,))))
