"""Peak activation memory, against hand-made sums and against what runs on real tensors allocate."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import apply, capture
from mofa_compiler.analysis.activation_memory import peak_activation
from mofa_compiler.nn.partial_conv import PConv2d
from tests.nets import Plan, plans
from tests.rewrites import Net, network
from tests.test_properties import build, drawn

KB = 32 * 32  # one channel of (1, C, 16, 16) in float32


class Allocated(TorchDispatchMode):
    """The most bytes that the storages of CPU tensors made in here took at once; their addresses tell them apart."""

    def __init__(self, *held: Tensor):
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in held}
        self.live = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in self.known and size:
            self.known.add(address)
            self.live += size
            self.most = max(self.most, self.live)
            weakref.finalize(storage, self.remove, address, size)

    def remove(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.live -= size


def allocated(module: nn.Module, *inputs: Tensor) -> int:
    """What a run without gradients allocates at its peak, with its inputs."""
    module, held = copy.deepcopy(module), [*inputs]
    with torch.no_grad(), Allocated(*module.parameters(), *module.buffers(), *held) as memory:
        module(*inputs)
    return memory.most + sum(tensor.untyped_storage().nbytes() for tensor in held)


def net(steps: Any, **modules: nn.Module) -> Net:
    return Net(steps, **(modules or {"conv": nn.Conv2d(4, 4, 1)}))


def halves(net: Any, x: Tensor) -> Tensor:
    first, second = net.conv(x).chunk(2, dim=1)
    return first.reshape(1, 2, -1) * second.flatten(2)


def skipped(net: Any, x: Tensor) -> Tensor:
    kept = net.conv(x)
    return torch.cat([kept, torch.sigmoid(torch.sigmoid(torch.sigmoid(kept)))], 1)


@pytest.mark.parametrize(
    ("model", "channels", "node"),
    [
        (net(lambda net, x: net.conv(x)), 4 + 4, "conv"),
        (net(lambda net, x: torch.sigmoid(torch.sigmoid(net.conv(x)))), 4 + 8, "sigmoid"),
        (net(lambda net, x: F.relu(net.conv(x), inplace=True).sigmoid_().add_(1)), 4 + 4, "conv"),
        (net(halves), 4 + 4 + 2, "mul"),
        (net(skipped), 4 + 4 + 4 + 8, "cat"),
        (net(lambda net, x: net.partial(x), partial=PConv2d(4, 1)), 4 + 1 + 4, "partial"),
        (net(lambda net, x: F.interpolate(net.conv(x), scale_factor=2, mode="bilinear")), 4 + 4 + 16, "interpolate"),
        (net(lambda net, x: torch.zeros_like(x) if x.shape[2] > 9 else x), 4 + 4, "zeros_like"),
        (net(lambda net, x: x.view(1, 4, -1)), 4, ""),
    ],
    ids=["one", "freed", "in-place", "views", "skip", "inside", "resize", "sizes", "input"],
)
@pytest.mark.sample(5)
def test_by_hand(model: nn.Module, channels: int, node: str):
    peak = peak_activation(network(model.eval(), 1, 4, 16, 16).program)
    assert (peak.bytes, peak.node) == (channels * KB, node)
    assert peak.bytes == max([4 * KB, *peak.live.values()])
    doubled = peak_activation(capture(model.double(), torch.rand(1, 4, 16, 16, dtype=torch.float64)))
    assert doubled.bytes == 2 * peak.bytes


def test_path_of_the_peak():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.Conv2d(4, 9, 1), nn.Conv2d(9, 1, 1)))
    assert peak_activation(network(model, 1, 4, 16, 16).program).path == "1.0"
    assert peak_activation(network(UNet(width=4, depth=2), 1, 3, 32, 32).program).path == "ups.1"


@pytest.mark.parametrize("kind", [PMRID, NAFNet, UNet], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("roadmap", [[], "mofa"], ids=["original", "rewritten"])
@pytest.mark.sample(1)
def test_is_what_a_run_allocates(kind: type[nn.Module], roadmap: Any):
    model, x = kind().eval(), torch.rand(1, 3, 128, 128)
    result = apply(model, roadmap, x)
    told = peak_activation(result.rewritten.program).bytes
    assert told == pytest.approx(allocated(result.model.eval(), x), rel=0.01)
    assert told <= allocated(result.model, x)
    if not roadmap:
        assert told <= allocated(model, x)  # whose frames hold values that nothing reads any longer


@pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning")
@drawn(6)
@given(plans)
def test_generated_networks(plan: Plan) -> None:
    inputs = plan.example(1, plan.sizes[0])
    program = capture(build(plan), inputs)
    assert peak_activation(program).bytes == pytest.approx(allocated(program.graph_module, *inputs), rel=0.05)


def test_what_cannot_run_without_values_counts_with_its_results():
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if float(x.sum()) > 0 else x * 3

    program = capture(nn.Sequential(nn.Conv2d(4, 4, 1), Gated()), torch.rand(1, 4, 16, 16))
    assert program.opaque.keys() == {"1"}
    assert peak_activation(program).bytes == 12 * KB


def test_nothing_is_left_behind():
    program = capture(NAFNet(width=8).train(), torch.rand(1, 3, 32, 32))
    state, rng = {key: t.clone() for key, t in program.state().items()}, torch.get_rng_state()
    values = {node: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    assert peak_activation(program) == peak_activation(program)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(tensor, state[key]) for key, tensor in program.state().items())
    assert all(node.meta["val"] is value for node, value in values.items())
