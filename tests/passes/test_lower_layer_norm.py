from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import NAFNet
from architectures.nafnet import LayerNorm2d, LayerNormFunction
from mofa_compiler.passes import LowerLayerNorm
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import assert_lowers, assert_same_outputs, chain, network, scattered


class Shifted(torch.autograd.Function):
    """Layer normalization under another name, with its arguments in another order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, bias: Tensor, weight: Tensor) -> Tensor:
        return LayerNormFunction.forward(ctx, x, weight, bias, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, bias, _ = LayerNormFunction.backward(ctx, *gradients)
        return x, None, bias, weight


class StraightThrough(LayerNormFunction):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        return gradient, gradient.sum((0, 2, 3)), gradient.sum((0, 2, 3)), None


def _rms(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    scaled = x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)
    return scaled * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


RootMeanSquare = type("LayerNormFunction", (LayerNormFunction,), {"forward": staticmethod(_rms)})


class Custom(LayerNorm2d):
    def __init__(self, channels: int, function: Any):
        super().__init__(channels)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        swapped = self.function is Shifted
        weights = (self.eps, self.bias, self.weight) if swapped else (self.weight, self.bias, self.eps)
        return self.function.apply(x, *weights)


class Permuted(nn.LayerNorm):
    """timm's LayerNorm2d."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class Around(nn.Module):
    """A layer of torch's between two permutations."""

    def __init__(self, norm: nn.Module, back: bool = True):
        super().__init__()
        self.norm, self.back = norm, back

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(torch.permute(x, (0, 2, 3, 1)))
        return y.permute(0, 3, 1, 2) if self.back else (2 * y).permute(0, -1, 1, 2)


class WrittenOut(nn.Module):
    """ConvNeXt's, with channels first."""

    def __init__(self, channels: int, variance: str = "pow"):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.variance = variance

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        if self.variance == "pow":
            spread = (x - mean).pow(2).mean(1, keepdim=True)
        else:
            spread = x.var(dim=1, keepdim=True, unbiased=self.variance == "unbiased")
        x = (x - mean) / torch.sqrt(spread + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def test_nafnet():
    model = scattered(NAFNet(width=8)).double()
    before = network(model, 1, 3, 32, 32)
    after, diff = rewrite(before, LowerLayerNorm())
    assert len(diff.edits) == 14
    assert diff.edits[0].path == "encoders.0.0.norm1"
    assert "checked" not in diff.edits[0].note
    assert "LayerNormFunction is layer normalization over dimension 1 with eps=1e-06" in diff.edits[0].note
    assert not any(hasattr(node.target, "autograd_function") for node in after.program.graph.nodes)
    assert after.program.state().keys() == before.program.state().keys()
    assert after.program.state()["encoders.0.0.norm1.weight"].shape == (1, 8, 1, 1)
    assert diff.edits[0].macs == 2 * 8 * 32 * 32
    assert_same_outputs(model, after, (1, 3, 32, 32))


@pytest.mark.parametrize("channels", [8, 6])
@pytest.mark.parametrize("kind", [lambda c: Custom(c, LayerNormFunction), lambda c: Custom(c, Shifted), Permuted])
def test_custom_functions_and_permutations(kind: Any, channels: int):
    conv = nn.Conv2d(8, channels, 3)
    rewritten, diff = assert_lowers(LowerLayerNorm(), chain(conv, kind(channels), nn.ReLU()), {})
    assert [edit.path for edit in diff.edits] == ["2"]
    names = {getattr(node.target, "__name__", node.target) for node in rewritten.program.graph.nodes}
    assert {"conv2d", "rsqrt"} <= names
    assert not {"permute", "layer_norm"} & names


@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_between_permutations_becomes_parameters(affine: bool):
    model = chain(nn.Conv2d(8, 6, 1), Around(nn.LayerNorm(6, elementwise_affine=affine)), nn.Conv2d(6, 8, 1))
    rewritten, diff = assert_lowers(LowerLayerNorm(), model, {"2.norm": None})
    shapes = {key: tuple(tensor.shape) for key, tensor in rewritten.program.state().items() if key.startswith("2.")}
    assert shapes == ({"2.norm.weight": (1, 6, 1, 1), "2.norm.bias": (1, 6, 1, 1)} if affine else {})
    assert diff.before.parameters == diff.after.parameters


@pytest.mark.parametrize("variance", ["pow", "biased"])
def test_written_out(variance: str):
    rewritten, diff = assert_lowers(LowerLayerNorm(), chain(WrittenOut(8, variance), nn.ReLU()), {})
    assert [(edit.path, edit.before) for edit in diff.edits] == [("1", "layer norm, written out(8)")]
    assert not any(node.target in ("mean", "var") for node in rewritten.program.graph.nodes)


def test_a_norm_that_is_called_twice_is_lowered_at_both_places():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
            self.norm, self.around = Custom(6, LayerNormFunction), Around(nn.LayerNorm(6))

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.a(x))
            return self.around(self.norm(self.b(x) + x) + self.around(x))

    _, diff = assert_lowers(LowerLayerNorm(), Twice(), {"around.norm": None})
    assert [(edit.path, edit.macs) for edit in diff.edits] == [("norm", 1440)] * 2 + [("around.norm", 2880)]
    assert diff.before.parameters == diff.after.parameters


def test_what_computes_something_else_is_left_alone():
    model = chain(Custom(8, RootMeanSquare), WrittenOut(8, "unbiased"))
    _, diff = assert_lowers(LowerLayerNorm(), model, {})
    assert not diff.edits


def test_refusals():
    class Reader(nn.Module):
        """Its weight is a regularizer's business, too."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = Custom(8, LayerNormFunction)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x) + self.norm.weight.sum()

    class Overwritten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Permuted(8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return x.add_(1) + y

    hooked = nn.LayerNorm(8)
    hooked.register_forward_hook(lambda *_: None)
    model = chain(
        Custom(8, StraightThrough),
        Around(nn.LayerNorm(8), back=False),
        Around(nn.LayerNorm((10, 8))),
        Reader(),
        Overwritten(),
        Around(hooked),
    )
    codes = {
        "1": "backward",
        "2.norm": "dimensions",
        "3.norm": "dimensions",
        "4.norm": "read-elsewhere",
        "5.norm": "overwritten",
        "6.norm": "altered",
    }
    _, diff = rewrite(network(scattered(model).double(), 1, 8, 12, 10), LowerLayerNorm())
    assert {skip.path: skip.code for skip in diff.skips} == codes
    assert not diff.edits


def test_a_tied_weight_stays():
    one, two = Custom(8, LayerNormFunction), Custom(8, LayerNormFunction)
    two.weight = one.weight
    _, diff = assert_lowers(
        LowerLayerNorm(),
        chain(one, two),
        {},
        skips={"1": "tied"},
        shape=(1, 8, 9, 9),
    )
    assert not diff.edits


def test_layers_are_globs_over_paths():
    _, diff = rewrite(network(NAFNet(width=8), 1, 3, 32, 32), LowerLayerNorm(layers=("encoders.*.norm2",)))
    assert [edit.path for edit in diff.edits] == [f"encoders.{level}.0.norm2" for level in range(3)]
