"""Networks run a stretch at a time give the values that they give when they are run at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from mofa_compiler import capture
from mofa_compiler.calibration import batches as batches_module
from mofa_compiler.calibration.batches import Batches
from mofa_compiler.calibration.lockstep import Lockstep, Shelf, Stretch, bound_arguments
from mofa_compiler.graph.call_spec import CallSpec
from tests.calibration.small import Between, conv, images, trained_like


def augmented(m: Between, x: Tensor) -> Tensor:
    y = m.b(x)
    y += x
    return F.relu(y, inplace=True) + x


def viewed(m: Between, x: Tensor) -> Tensor:
    x[:, :2].mul_(2).sub_(1)
    y = x[:, 2:4]
    y += 1
    return m.b(x) + x


def set_items(m: Between, x: Tensor) -> Tensor:
    part = x[:, :1]
    x[:, 1, 0] = 0.5
    y = m.b(x)
    x[:, :1] *= 2
    return y * part + x


def early(m: Between, x: Tensor) -> Tensor:
    """A view is taken, then something else is computed, then both are written into."""
    head, rest = x.chunk(2, 1)
    y = m.b(x)
    head.add_(1)
    z = m.b(y)
    x.mul_(2)
    return z + torch.cat([rest, head], 1)


class WritesInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8, 3), conv(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2).sub_(1)
        return self.b(F.relu_(self.a(x))) + x.clamp_(0, 1)


def modules_in_place() -> nn.Module:
    return Between(lambda m, x: m.r(m.b(m.r(x))) + x, b=conv(8, 8), r=nn.LeakyReLU(0.1, inplace=True))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "modules": modules_in_place,
    "augmented": lambda: Between(augmented, b=conv(8, 8)),
    "views": lambda: Between(viewed, b=conv(8, 8)),
    "setitem": lambda: Between(set_items, b=conv(8, 8)),
    "views and files": lambda: Between(early, b=conv(8, 8)),
    "input": WritesInput,
    "identity": lambda: Between(lambda m, x: F.relu_(m.i(x)) + x, i=nn.Identity()),
}


def gathered(folder: Path, calls: list[Tensor]) -> Batches:
    batches = Batches(folder)
    for x in calls:
        batches.append(CallSpec((x,)))
    return batches


def streamed(module: fx.GraphModule, folder: Path, stride: int, limit: float) -> tuple[list[list[Tensor]], int]:
    """The outputs of two networks, the same module, in step; and the most files that there were."""
    nodes = list(module.graph.nodes)
    last = nodes[-1].all_input_nodes[0]
    one, two = (Stretch(name, module, nodes, {last.name: 1000}) for name in ("original", "rewritten"))
    networks = Lockstep(one, two, gathered(folder, images(3, 2)), Shelf(folder, limit))
    found: list[list[Tensor]] = [[], []]
    most = 0
    places = [*range(stride, len(nodes), stride), len(nodes)]
    for number, place in enumerate(places):
        for batch in networks.step(number, min(place + 1, len(nodes)), place):
            most = max(most, len(list(folder.iterdir())))
            if place == len(nodes):
                for outputs, stretch in zip(found, (one, two), strict=True):
                    outputs.append(batch[stretch, last].clone())
    return found, most


@pytest.mark.parametrize("limit", [0, 3000, float("inf")])
@pytest.mark.parametrize("stride", [1, 3, 100])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.sample(8)
def test_in_stretches_as_at_once(name: str, stride: int, limit: float, tmp_path: Path) -> None:
    module = capture(trained_like(NETWORKS[name]()), images(1, 2)[0].clone()).graph_module.eval()
    with torch.no_grad():
        expected = [module(x.clone()) for x in images(3, 2)]
    for outputs in streamed(module, tmp_path, stride, limit)[0]:
        assert all(torch.equal(one, other) for one, other in zip(outputs, expected, strict=True))


def test_values_beyond_the_limit_are_in_files_and_go(tmp_path: Path) -> None:
    module = capture(trained_like(modules_in_place()), torch.rand(1, 3, 16, 16)).graph_module.eval()
    assert streamed(module, tmp_path, 2, float("inf"))[1] == 0
    assert streamed(module, tmp_path, 2, 0)[1] > 2
    shelf = Shelf(tmp_path / "own", 100)
    shelf._folder.mkdir()
    part = torch.rand(1000, 30)[:, :1]
    shelf[0, "a.x"] = [part, 3]
    shelf[0, "a.small"] = torch.ones(2)
    (file,) = shelf._folder.iterdir()
    assert file.stat().st_size < 10_000  # not what the view is a part of
    assert torch.equal(shelf[0, "a.x"][0], part) and shelf[0, "a.x"][1] == 3
    assert sorted(shelf.names(0, "a")) == ["small", "x"]
    assert (1, "a.x") not in shelf
    for name in ("a.x", "a.small"):
        del shelf[0, name]
        assert (0, name) not in shelf
    assert not list(shelf._folder.iterdir())
    assert shelf._held == 0


def test_memory_does_not_grow_with_the_batches(tmp_path: Path) -> None:
    module = capture(trained_like(modules_in_place()), torch.rand(1, 3, 16, 16)).graph_module.eval()
    nodes = list(module.graph.nodes)
    limit = 50_000
    for count in (4, 30):
        shelf = Shelf(tmp_path, limit)
        stretches = (Stretch(name, module, nodes, {}) for name in ("original", "rewritten"))
        networks = Lockstep(*stretches, gathered(tmp_path, images(count)), shelf)
        for number, place in enumerate(range(1, len(nodes) + 1)):
            for _ in networks.step(number, place, place):
                assert shelf._held <= limit
        assert shelf._held == 0
        assert not list(tmp_path.iterdir())


def test_inputs_beyond_the_limit_are_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = images(5, 2)
    monkeypatch.setattr(batches_module, "IN_MEMORY", 2 * calls[0].numel() * 4)
    batches = gathered(tmp_path, calls)
    assert len(list(tmp_path.iterdir())) == 3
    assert (len(batches), batches.images, batches.sizes) == (5, 10, [2] * 5)
    for _ in range(2):
        for call, x in zip(batches, calls, strict=True):
            assert torch.equal(call.args[0], x)
            call.args[0].zero_()  # as a network may that writes into its input


def test_arguments_of_every_kind_come_in_order() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv(3, 3)

        def forward(self, x: Tensor, *others: Tensor, scale: float = 2.0) -> Tensor:
            return self.a(x) * scale + others[0]

    x, y = torch.rand(2, 1, 3, 8, 8)
    x, y = torch.rand(2, 1, 3, 8, 8)
    module = capture(Many(), (x, y)).graph_module
    values = bound_arguments(module, CallSpec((x, y)))
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    assert len(values) == len(names) >= 2
    assert values[0] is x and values[1] is y


def test_random_numbers_are_the_same_in_both_and_those_outside_are_left(tmp_path: Path) -> None:
    networks = _noisy(tmp_path)
    before = torch.get_rng_state()
    for batch in networks.step(0, len(networks.original.order), len(networks.rewritten.order)):
        one, other = (batch[s, s.node("rand_like")] for s in (networks.original, networks.rewritten))
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def _noisy(folder: Path) -> Lockstep:
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(torch.rand_like, (x,)))
    module = fx.GraphModule(nn.Module(), graph)
    for node in graph.nodes:
        node.meta["val"] = torch.rand(1)
    one, two = (Stretch(name, module, list(graph.nodes), {"rand_like": 1}) for name in ("original", "rewritten"))
    return Lockstep(one, two, gathered(folder, images(2)), Shelf(folder))
