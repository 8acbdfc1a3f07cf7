"""Graph and eager, compared on real inputs: no difference leaves `capture` without a word."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply, capture, verify
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.frontend import CaptureWarning, comparing
from mofa_compiler.passes import SepConvToPConv
from tests.raising import raising

IMAGE = torch.rand(1, 3, 64, 64)


class Net(nn.Module):
    """A convolution, then whatever `act` does."""

    def __init__(self, act: Callable[[Net, Tensor], Tensor]):
        super().__init__()
        self.stem, self.scale = nn.Conv2d(3, 4, 3, padding=1), nn.Parameter(torch.zeros(4, 1, 1))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self, self.stem(x))


def is_traced() -> bool:
    """What no answer can hide: torch.fx is on the stack."""
    return any("torch/fx" in frame.filename for frame in inspect.stack(0))


def seen_through(net: Net, y: Tensor) -> Tensor:
    return y if is_traced() else 2 * y


def hidden_by_weights(net: Net, y: Tensor) -> Tensor:
    return y if is_traced() else y + net.scale * y


def hidden_by_size(net: Net, y: Tensor) -> Tensor:
    width = int(repr(y.shape[-1])) if not is_traced() else 16
    return y + width


@pytest.mark.parametrize("act", [seen_through, hidden_by_weights, hidden_by_size])
def test_what_differs_is_refused(act: Callable[[Net, Tensor], Tensor]) -> None:
    with raising(CaptureError, "computes-else"):
        capture(Net(act).eval(), IMAGE)
    assert capture(Net(act).eval(), IMAGE, compare=False).comparison.sizes == ()


def test_the_layer_that_differs_is_named() -> None:
    net = nn.Sequential(Net(lambda net, y: y), Net(seen_through), nn.Conv2d(4, 3, 1)).eval()
    net[1].stem = nn.Conv2d(4, 4, 1)
    with raising(CaptureError, "computes-else", "'2'"):
        capture(net, IMAGE)


class Kept(nn.Module):
    """Keeps something from one call to the next."""

    count: Tensor

    def __init__(self, keep: Callable[[Kept], Any]):
        super().__init__()
        self.conv, self.keep, self.number = nn.Conv2d(3, 4, 3, padding=1), keep, 0
        self.register_buffer("count", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.keep(self)  # type: ignore[no-any-return]


def counts(net: Kept) -> int:
    net.number += 1
    return net.number


def replaces(net: Kept) -> Tensor:
    net.count = net.count + 1
    return net.count


def writes(net: Kept) -> Tensor:
    net.count += 1
    return net.count


@pytest.mark.parametrize("keep", [counts, replaces])
def test_what_is_kept_from_one_call_to_the_next_outside_of_the_graph_is_refused(keep: Callable[[Kept], Any]) -> None:
    with pytest.raises(CaptureError, match="second call"):
        capture(Kept(keep).eval(), IMAGE)


def test_a_buffer_that_is_written_in_place_is_kept_in_the_graph_too(tmp_path: Path) -> None:
    net = Kept(writes).eval()
    graph, twin = capture(net, IMAGE).graph_module, copy.deepcopy(net)
    for _ in range(2):
        assert torch.equal(graph(IMAGE), twin(IMAGE))
    net.count.fill_(1)
    bundle = apply(net, [SepConvToPConv()], IMAGE).save(tmp_path / "bundle")
    assert net.count == 1
    assert not verify(bundle, net).problems


def test_two_small_sizes_are_compared() -> None:
    assert capture(Net(lambda net, y: y).eval(), IMAGE).comparison.sizes == ("1x3x16x16", "1x3x16x24")


def test_what_was_decided_for_one_size_is_compared_there() -> None:
    net = Net(lambda net, y: 2 * y if y.shape[-1] > 60 else y)
    assert capture(net.eval(), IMAGE).comparison.sizes == ("1x3x64x64", "1x3x64x96")


def test_sides_of_other_inputs_follow() -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor, small: Tensor, time: Tensor) -> Tensor:
            return image + small.repeat_interleave(4, -1).repeat_interleave(4, -2) + time[:, None, None, None]

    sizes = capture(Two().eval(), (IMAGE, torch.rand(1, 3, 16, 16), torch.zeros(1))).comparison.sizes
    assert sizes == ("1x3x16x16, 1x3x4x4, 1", "1x3x16x24, 1x3x4x6, 1")


def test_networks_beyond_the_bound_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "BOUND", 1)
    with pytest.warns(CaptureWarning, match="not compared"):
        program = capture(Net(seen_through).eval(), IMAGE)
    assert program.comparison.too_large and not program.comparison.sizes


def test_neither_the_model_nor_random_states_change() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.seen = nn.BatchNorm2d(3), []  # type: ignore[var-annotated]

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(tuple(x.shape))
            self.last = x
            return self.norm(x)  # type: ignore[no-any-return]

    batch = torch.rand(2, 3, 64, 64)
    for mode in (True, False):
        net = Remembers().train(mode)
        before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
        capture(net, batch)
        assert net.seen == [] and not hasattr(net, "last")
        assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
        assert torch.equal(state, torch.get_rng_state())


def test_a_size_learnt_from_the_first_image_is_learnt_anew() -> None:
    class Learns(nn.Module):
        size: int | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.size is None:
                self.size = x.shape[-1] // 2
            return x[..., : self.size]

    net = Learns().eval()
    program = capture(net, IMAGE)
    assert program.comparison.sizes and net.size is None


def test_a_model_that_has_no_copy_is_captured_and_not_compared() -> None:
    net = Net(lambda net, y: y).eval()
    net.lock: Any = threading.Lock()  # type: ignore[misc]
    comparison = capture(net, IMAGE).comparison
    assert comparison.sizes == () and "lock" in comparison.reason


def test_train_mode_is_compared_where_nothing_is_random() -> None:
    batch = torch.rand(2, 3, 32, 32)
    norm = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    assert capture(norm, batch).comparison.sizes
    assert "random" in capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).train(), batch).comparison.reason


def test_half_precision_is_compared() -> None:
    assert capture(Net(lambda net, y: y).eval().half(), IMAGE.half()).comparison.sizes


def test_weights_that_a_copy_shares_are_never_written_to() -> None:
    class Shares(nn.Conv2d):
        def __deepcopy__(self, memo: dict[int, Any]) -> Shares:
            return self

    net = nn.Sequential(Shares(3, 4, 1)).eval()
    before = net[0].weight.detach().clone()
    comparison = capture(net, IMAGE).comparison
    assert comparison.sizes == () and "shares" in comparison.reason
    assert torch.equal(net[0].weight, before)
