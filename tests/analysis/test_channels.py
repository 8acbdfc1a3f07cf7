"""Channels in another order: the network computes the same, or they may not move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import capture
from mofa_compiler.analysis.channel_order import reordered
from mofa_compiler.analysis.channels import Channels
from mofa_compiler.calibration import in_order
from mofa_compiler.graph.program import Program
from tests.calibration.small import Between, conv, distance, trained_like
from tests.nets import Plan, plans
from tests.test_properties import build, drawn, run, tensors

pytestmark = [
    pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]


def shuffled(program: Program, seed: int = 0) -> tuple[Channels, Program]:
    """The channels of a program, and the program with those of every orbit in random order."""
    channels = Channels(program)
    generator = torch.Generator().manual_seed(seed)
    orders = {
        number: tuple(torch.randperm(len(orbit), generator=generator).tolist())
        for number, orbit in enumerate(channels.orbits)
    }
    return channels, reordered(channels, orders)


def off_by(model: nn.Module, *inputs: Tensor) -> tuple[list[int], float]:
    """The sizes of all orbits, largest first, and how far random orders move the output, relative."""
    program = capture(trained_like(model).double().eval(), tuple(x.double() for x in inputs))
    calls = tuple(x.double() for x in inputs)
    expected = run(program.graph_module.eval(), calls)
    worst = 0.0
    for seed in range(2):
        channels, other = shuffled(program, seed)
        for one, two in zip(run(other.graph_module.eval(), calls), expected, strict=True):
            assert two.isfinite().all()
            worst = max(worst, distance(one.detach(), two.detach()))
    return sorted(map(len, channels.orbits), reverse=True), worst


def depthwise(channels: int) -> nn.Conv2d:
    return conv(channels, channels, 3, groups=channels)


def halves(m: Between, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return m.b(a * b)


def swapped(m: Between, x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.cat([b, a], 1) + x


def sizes(m: Between, x: Tensor) -> Tensor:
    a, b = x.split([3, 5], 1)
    return torch.cat([m.b(a), b], 1)


def in_place_view(m: Between, x: Tensor) -> Tensor:
    x[:, :2].mul_(2)
    return F.relu(x)


def in_place_sum(m: Between, x: Tensor) -> Tensor:
    y = m.b(x)
    y += x
    y *= 2
    return F.relu_(y)


def ghost(m: Between, x: Tensor) -> Tensor:
    primary = m.a(x)
    return m.b(torch.cat([primary, m.c(primary)], 1)[:, :7])


def across(m: Between, x: Tensor) -> Tensor:
    """A slice over the border of what is the same channels twice."""
    a, b = m.a(x), m.b(x)
    return m.c(torch.cat([a, b], 1)[:, 2:4]) + m.d(a + b)


def across_chunk(m: Between, x: Tensor) -> Tensor:
    a, b = m.a(x), m.b(x)
    return m.c(torch.cat([a, b], 1).chunk(3, 1)[1]) + m.d(a + b)


def squeeze_excite(m: Between, x: Tensor) -> Tensor:
    return x * torch.sigmoid(m.b(F.relu(m.a(x.mean((2, 3), keepdim=True)))))


def resized(m: Between, x: Tensor) -> Tensor:
    both = torch.cat([F.avg_pool2d(x, 2), F.max_pool2d(x, 2)], 1)
    return m.b(F.interpolate(both, scale_factor=2, mode="bilinear"))


def fan(m: Between, x: Tensor) -> Tensor:
    return m.c(torch.cat([m.b(x[:, :4]), m.b(x[:, 4:])], 1))


def cropped(m: Between, x: Tensor) -> Tensor:
    return m.b(F.pad(x, (1, 1, 1, 1), mode="reflect"))[:, :, 1 : x.shape[2] + 1, 1:-1]


def groups_across(m: Between, x: Tensor) -> Tensor:
    return m.n(m.b(x))


def linear(m: Between, x: Tensor) -> Tensor:
    rows = x.flatten(2).transpose(1, 2)
    return (rows + m.c(F.gelu(m.b(rows)))).transpose(1, 2).view_as(x)


def linear_gate(m: Between, x: Tensor) -> Tensor:
    a, b = m.b(x.permute(0, 2, 3, 1)).chunk(2, -1)
    return m.c(F.dropout(torch.sigmoid(a), training=False) * b).permute(0, 3, 1, 2)


THREE = {"a": (8, 3, 3), "b": (8, 3, 3), "c": (2, 8), "d": (3, 8)}

MOVING: dict[str, tuple[Callable[[], nn.Module], list[int]]] = {
    "activation": (lambda: Between(lambda m, x: F.relu(x)), [8]),
    "hidden": (lambda: Between(lambda m, x: m.b(F.gelu(m.a(x))), a=conv(8, 6), b=conv(6, 8)), [8, 8, 6]),
    "chunks": (lambda: Between(halves, b=conv(4, 8, 3)), [8, 4]),
    "chunks in another order": (lambda: Between(swapped), [4]),
    "split sizes": (lambda: Between(sizes, b=conv(3, 3, 3)), [5, 3, 3]),
    "slice": (lambda: Between(lambda m, x: m.b(x[:, -3:-1]), b=conv(2, 8)), [8, 6, 2]),
    "strides": (lambda: Between(lambda m, x: m.b(torch.cat([x, x], 1)[:, 3:13:3]), b=conv(4, 8)), [8, 4, 2, 2]),
    "cat with itself": (lambda: Between(lambda m, x: m.b(torch.cat([x, x], 1)), b=conv(16, 8)), [8, 8]),
    "slice across": (lambda: Between(across, **{k: conv(*v) for k, v in THREE.items()}), [8, 8]),
    "chunk across": (lambda: Between(across_chunk, **{k: conv(*v) for k, v in THREE.items()}), [8, 8]),
    "ghost": (lambda: Between(ghost, a=conv(8, 4), b=conv(7, 8), c=depthwise(4)), [8, 8, 3]),
    "shared layer": (lambda: Between(lambda m, x: m.b(F.relu(m.b(x))), b=conv(8, 8, 3)), [8]),
    "shared on slices": (lambda: Between(fan, b=conv(4, 4, 3), c=conv(8, 8)), [8, 4, 4]),
    "shared norm": (lambda: Between(lambda m, x: m.n(m.b(m.n(x))), b=conv(8, 8), n=nn.BatchNorm2d(8)), [8]),
    "depthwise": (lambda: Between(lambda m, x: m.b(x), b=depthwise(8)), [8]),
    "transposed": (
        lambda: Between(lambda m, x: F.avg_pool2d(m.b(m.a(x)), 2), a=conv(8, 6), b=nn.ConvTranspose2d(6, 8, 2, 2)),
        [8, 8, 6],
    ),
    "instance norm": (lambda: Between(lambda m, x: m.n(x), n=nn.InstanceNorm2d(8, affine=True)), [8]),
    "squeeze and excite": (lambda: Between(squeeze_excite, a=conv(8, 4), b=conv(4, 8)), [8, 4]),
    "broadcast": (lambda: Between(lambda m, x: x * m.b(x), b=conv(8, 1)), [8]),
    "scale and shift": (
        lambda: Between(
            lambda m, x: m.b(x * m.w + m.v) * m.w,
            **{"b": conv(8, 8), "w": nn.Parameter(torch.ones(1, 8, 1, 1)), "v": nn.Parameter(torch.ones(1, 8, 1, 1))},
        ),
        [8],
    ),
    "one scale": (lambda: Between(lambda m, x: x * m.w, w=nn.Parameter(torch.ones(1, 1, 1, 1))), [8]),
    "keyword": (lambda: Between(lambda m, x: torch.add(x, other=m.b(x)), b=conv(8, 8)), [8]),
    "keyword of a method": (lambda: Between(lambda m, x: x.mul(other=m.b(x)), b=conv(8, 8)), [8]),
    "in place": (lambda: Between(in_place_sum, b=conv(8, 8)), [8]),
    "in place in a view": (lambda: Between(in_place_view), [6, 2]),
    "resized": (lambda: Between(resized, b=conv(16, 8)), [8, 8]),
    "sizes are read": (lambda: Between(cropped, b=conv(8, 8, 3)), [8, 8]),
    "per channel": (lambda: Between(lambda m, x: m.b(x), b=nn.PReLU(8)), [8]),
    "group norm": (lambda: Between(lambda m, x: m.b(x), b=nn.GroupNorm(4, 8)), [4]),
    "grouped": (lambda: Between(lambda m, x: m.b(x), b=conv(8, 8, 3, groups=2)), [2]),
    "groups of two sizes": (
        lambda: Between(lambda m, x: m.c(m.b(x)), b=conv(8, 12, 3, groups=4), c=conv(12, 8)),
        [8, 4],
    ),
    "groups across": (lambda: Between(groups_across, b=conv(8, 8, groups=4), n=nn.GroupNorm(2, 8)), [2]),
    "linear": (lambda: Between(linear, b=nn.Linear(8, 6), c=nn.Linear(6, 8)), [6]),
    "linear gate": (lambda: Between(linear_gate, b=nn.Linear(8, 12), c=nn.Linear(6, 8)), [6]),
    "spread": (lambda: Between(lambda m, x: x / (x.std((2, 3), keepdim=True) + 1)), [8]),
}


def writing(index: object, value: object) -> Callable[[Between, Tensor], Tensor]:
    def write(m: Between, x: Tensor) -> Tensor:
        x[index] = value(x) if callable(value) else value
        return x

    return write


def tied() -> nn.Module:
    model = Between(lambda m, x: m.b(F.relu(m.a(x))), a=conv(8, 8, 3), b=conv(8, 8, 3))
    model.b.weight = model.a.weight
    return model


def hooked() -> nn.Module:
    model = Between(lambda m, x: m.b(x), b=conv(8, 8))
    model.b.register_forward_hook(lambda module, inputs, output: output.flip(1))
    model.b.register_forward_pre_hook(lambda module, inputs: (inputs[0].flip(1),))
    return model


def read_aside(function: Callable[[Between], Tensor]) -> Callable[[], nn.Module]:
    """A layer whose weights are also read by position."""
    layers = {"a": (8, 8, 3), "b": (8, 8, 3)}
    return lambda: Between(
        lambda m, x: m.b(F.relu(m.n(m.a(x)))) * function(m),
        **{name: conv(*shape) for name, shape in layers.items()},
        n=nn.BatchNorm2d(8),
    )


@dataclass
class Out:
    image: Tensor


class Wrapped(nn.Module):
    """Returns a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.only = conv(3, 8, 3)

    def forward(self, x: Tensor) -> Out:
        return Out(F.relu(self.only(x)))


def attention(m: Between, x: Tensor) -> Tensor:
    rows = x.flatten(2)
    return ((rows @ rows.transpose(1, 2)).softmax(-1) @ rows).view_as(x)


def tokens(m: Between, x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (8,), m.n.weight, m.n.bias).permute(0, 3, 1, 2)


FROZEN: dict[str, Callable[[], nn.Module]] = {
    "setitem of one": lambda: Between(writing((slice(None), 0), 0.0)),
    "setitem of some": lambda: Between(writing((slice(None), slice(2)), 0.5)),
    "setitem of a tensor": lambda: Between(writing((slice(None), slice(2)), lambda x: x[:, 4:6] * 2)),
    "tied": tied,
    "group norm as a function": lambda: Between(lambda m, x: F.group_norm(x, 2)),
    "batch norm as a function": lambda: Between(
        lambda m, x: F.batch_norm(x, m.n.running_mean, m.n.running_var, m.n.weight, m.n.bias), n=nn.BatchNorm2d(8)
    ),
    "local response": lambda: Between(lambda m, x: F.local_response_norm(x, 3)),
    "layer norm": lambda: Between(tokens, n=nn.LayerNorm(8)),
    "attention": lambda: Between(attention),
    "pixel shuffle": lambda: Between(lambda m, x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)),
    "channel shuffle": lambda: Between(lambda m, x: F.channel_shuffle(x, 2)),
    "roll": lambda: Between(lambda m, x: x.roll(1, 1)),
    "flip": lambda: Between(lambda m, x: x.flip(1)),
    "index": lambda: Between(lambda m, x: x[:, [1, 0, 3, 2, 4, 5, 6, 7]]),
    "repeat": lambda: Between(lambda m, x: m.b(x).repeat(1, 2, 1, 1), b=conv(8, 4, 3, groups=4)),
    "softmax over channels": lambda: Between(lambda m, x: x.softmax(1)),
    "sum over channels": lambda: Between(lambda m, x: x * x.sum(1, keepdim=True)),
    "greatest channel": lambda: Between(lambda m, x: x * x.max(1, keepdim=True)[0]),
    "einsum": lambda: Between(lambda m, x: torch.einsum("nchw,nchw->nchw", x, x.cumsum(1))),
    "linear": lambda: Between(lambda m, x: m.b(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), b=nn.Linear(8, 8)),
    "stack": lambda: Between(lambda m, x: torch.stack([x, x.flip(1)], 1).sum(1)),
    "three axes": lambda: Between(lambda m, x: x * m.w, w=nn.Parameter(torch.ones(8, 1, 1))),
    "dataclass": Wrapped,
}


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.sample(6)
def test_channels_move(name: str) -> None:
    make, expected = MOVING[name]
    found, error = off_by(make(), torch.rand(2, 3, 16, 16))
    assert found == expected
    assert error < 1e-12


@pytest.mark.parametrize("name", FROZEN)
@pytest.mark.sample(6)
def test_channels_that_may_not_move(name: str) -> None:
    found, error = off_by(FROZEN[name](), torch.rand(2, 3, 16, 16))
    assert found == []
    assert error == 0


# Beyond what must not move, something else may.
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (hooked, []),
        (lambda: Between(lambda m, x: m.b(F.pad(x, (0, 0, 0, 0, 1, 1))), b=conv(10, 8, 3)), [8]),
        (lambda: Between(lambda m, x: m.b(x.index_select(1, torch.tensor([2, 0]))), b=conv(2, 8, 3)), [8]),
        (lambda: Between(lambda m, x: m.b(F.glu(x, 1)), b=conv(4, 8)), [8]),
        (lambda: Between(lambda m, x: m.b(m.a(x)), a=conv(8, 16, 3, groups=8), b=conv(16, 8)), [8, 8]),
        (lambda: Between(lambda m, x: m.c(m.b(m.b(x))), b=nn.Linear(16, 16), c=nn.Linear(16, 16)), []),
        (lambda: Between(lambda m, x: m.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.PReLU(16)), []),
        (read_aside(lambda m: m.a.weight[0, 0, 0, 0]), []),
        (read_aside(lambda m: m.n.weight[0]), [8]),
        (read_aside(lambda m: m.n.running_mean[0]), [8]),
    ],
    ids=[
        "hooked",
        "padded channels",
        "index_select",
        "glu",
        "multiplier",
        "repeated linear",
        "tokens",
        "weight read",
        "scale read",
        "mean read",
    ],
)
def test_only_others_move(make: Callable[[], nn.Module], expected: list[int]) -> None:
    found, error = off_by(make(), torch.rand(2, 3, 16, 16))
    assert error < 1e-12
    assert found == expected


def test_pmrid_moves_block_channels_and_residual_streams() -> None:
    found, error = off_by(PMRID(), torch.rand(1, 3, 32, 32))
    assert error < 1e-12
    assert found[:2] == [512, 256]  # the streams of the two deepest stages
    assert found.count(128) >= 4  # inside the four blocks of the deepest stage
    assert min(found) == 16


def test_nafnet_moves_what_its_gates_and_norms_let() -> None:
    found, error = off_by(NAFNet(width=4), torch.rand(1, 3, 16, 16))
    assert error < 1e-12
    assert found.count(32) >= 2  # each half of a gate in the middle, which the norm's function does not see
    assert max(found) == 32


@pytest.mark.parametrize("bilinear", [True, False])
def test_unet_moves_all_but_its_ends(bilinear: bool) -> None:
    found, error = off_by(UNet(width=4, depth=2, bilinear=bilinear), torch.rand(2, 3, 20, 24))
    assert error < 1e-12
    assert sum(found) >= 4 * 2 + 8 * 2 + 16 * 2 + 8 * 2 + 4 * 2


@drawn(20)
@given(plans)
def test_generated_networks_compute_the_same(plan: Plan) -> None:
    inputs = plan.example(1, plan.sizes[0], torch.float64)
    program = capture(build(plan, torch.float64), inputs)
    _, other = shuffled(program)
    expected, got = (run(p.graph_module.eval(), inputs) for p in (program, other))
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10 * float(two.detach().abs().max()))


def test_the_program_stays_as_it_was_and_shares_what_did_not_move() -> None:
    model = trained_like(Between(lambda m, x: m.b(m.a(x)), a=conv(8, 8), b=nn.ChannelShuffle(2)))
    program = capture(model, torch.rand(1, 3, 8, 8))
    state = {key: tensor.clone() for key, tensor in program.state().items()}
    _, other = shuffled(program)
    assert all(torch.equal(tensor, state[key]) for key, tensor in program.state().items())
    moved = {path for path, module in program.modules.items() if other.modules[path] is not module}
    assert moved == {"first", "a"}


def test_in_order_repeats_the_orders_on_the_architecture() -> None:
    program = capture(trained_like(PMRID()).double(), torch.rand(1, 3, 16, 16).double())
    channels = Channels(program)
    orders = {0: tuple(reversed(range(len(channels.orbits[0]))))}
    one, two = reordered(channels, orders), in_order(program, orders)
    assert all(torch.equal(tensor, two.state()[key]) for key, tensor in one.state().items())
    assert in_order(program, {}) is program


def test_gradients_and_buffers_keep_their_kind() -> None:
    layers = {"n": nn.BatchNorm2d(8), "w": nn.Parameter(torch.rand(1, 8, 1, 1), requires_grad=False)}
    model = Between(lambda m, x: m.n(x) * m.w * m.fixed, **layers)
    model.register_buffer("fixed", torch.rand(1, 8, 1, 1))
    model.first.weight.requires_grad_(False)
    _, other = shuffled(capture(model, torch.rand(1, 3, 8, 8)))
    module = other.graph_module
    assert {name for name, p in module.named_parameters() if not p.requires_grad} == {"w", "first.weight"}
    assert "fixed" in dict(module.named_buffers())
    assert tensors(module(torch.rand(2, 3, 8, 8)))[0].requires_grad


def test_orders_in_bundles_keep_their_numbers() -> None:
    """What earlier versions did not permute, groups, comes behind all that they did."""
    model = Between(lambda m, x: m.c(F.relu(m.a(m.n(x)))), n=nn.GroupNorm(4, 8), a=conv(8, 6), c=conv(6, 8)).eval()
    channels = Channels(capture(model, torch.rand(1, 3, 8, 8)))
    assert [len(orbit) for orbit in channels.orbits] == [6, 8, 4]
