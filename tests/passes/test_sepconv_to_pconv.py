from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mofa_compiler.passes import DecoupleDownsampling, SepConvToPConv
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import assert_rewrites, chain, network, output


def depthwise(channels: int = 8, kernel_size: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, **options)  # type: ignore[arg-type]


def test_separable():
    assert_rewrites(
        SepConvToPConv(),
        chain(depthwise(bias=False), nn.Conv2d(8, 16, 1)),
        after={"1": "PConv2d(8, k3, portion=1/4)"},
        skips={"0": "input", "3": "output"},
    )


def test_separable_with_dropped_bias():
    _, diff = assert_rewrites(
        SepConvToPConv(pointwise_bias="drop"),
        chain(depthwise(kernel_size=5, bias=False), nn.Conv2d(8, 16, 1)),
        after={"1": "PConv2d(8, k5, portion=1/4)", "2": "Conv2d(8→16, k1)"},
    )
    assert [(edit.path, edit.fate, edit.parameters) for edit in diff.edits] == [
        ("1", "inherited", 2 * 2 * 25 - 8 * 25),
        ("2", "compensated", -16),
    ]


def test_dense():
    assert_rewrites(
        SepConvToPConv(portion=Fraction(1, 2)),
        chain(nn.Conv2d(8, 12, 3, padding=1)),
        after={"1": None, "1.pconv": "PConv2d(8, k3, portion=1/2)", "1.pointwise": "Conv2d(8→12, k1, bias)"},
    )


def test_norm_and_activation_between():
    assert_rewrites(
        SepConvToPConv(),
        chain(depthwise(), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 16, 1)),
        after={"1": "PConv2d(8, k3, bias, portion=1/4)"},
    )


def test_dilation_and_padding_mode_survive():
    conv = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, padding_mode="reflect")
    rewritten, _ = assert_rewrites(SepConvToPConv(), chain(conv), after={"1": "PConv2d(8, k3, d2, bias, portion=1/4)"})
    assert rewritten.program.modules["1"].conv.padding_mode == "reflect"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        (nn.Conv2d(8, 8, 3, padding=1, stride=2), "resolution"),
        (nn.Conv2d(8, 8, 3, padding=1, groups=2), "grouped"),
        (nn.Conv2d(8, 16, 3, padding=1, groups=8), "grouped"),
        (nn.Conv2d(8, 8, 3), "padding"),
    ],
)
def test_refusals(layer: nn.Conv2d, code: str):
    _, diff = assert_rewrites(SepConvToPConv(), chain(layer), after={})
    assert code in {skip.code for skip in diff.skips}


def test_a_subclass_with_a_forward_of_its_own_is_a_function():
    class Standardized(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    _, diff = assert_rewrites(SepConvToPConv(), chain(Standardized(8, 8, 3, padding=1)), after={})
    assert [skip.layer for skip in diff.skips if skip.code == "functional"] == ["conv2d(8→8, k3, bias)"]


def test_functional_convolutions_are_named():
    class Functional(nn.Module):
        def __init__(self, groups: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8 // groups, 3, 3))
            self.groups = groups

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(x, self.weight, None, 1, padding=[1, 1], groups=self.groups)

    _, diff = assert_rewrites(SepConvToPConv(), chain(Functional(1), Functional(8)), after={})
    skips = {skip.path: (skip.layer, skip.code) for skip in diff.skips}
    assert skips["1"] == ("conv2d(8→8, k3)", "functional")
    assert skips["2"] == ("conv2d(8, k3, depthwise)", "functional")
    before = network(chain(Functional(1), Functional(8)))
    for pass_, named in [(SepConvToPConv(kinds=("depthwise",)), {"2"}), (DecoupleDownsampling(), set())]:
        assert {skip.path for skip in rewrite(before, pass_)[1].skips} == named


def test_unbatched_input_is_refused():
    class Unbatched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(self.first(x)[0]).unsqueeze(0))

    assert_rewrites(SepConvToPConv(), Unbatched(), after={}, skips={"conv": "unbatched"})


def test_complex_weights_are_refused():
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.conv = nn.Conv2d(8, 8, 3, padding=1, dtype=torch.complex64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(torch.fft.fft2(self.first(x))).real)

    assert_rewrites(SepConvToPConv(), Complex(), after={}, skips={"conv": "complex"})


def test_a_size_that_is_asked_for_hides_no_neighbour():
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.spatial, self.last = nn.Conv2d(8, 8, 1), depthwise(), nn.Conv2d(8, 8, 1)
            self.pointwise = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.spatial(self.first(x))
            assert x.shape[1] == 8
            return self.last(self.pointwise(x))

    _, diff = assert_rewrites(SepConvToPConv(), Checked(), after={"spatial": "PConv2d(8, k3, bias, portion=1/4)"})
    assert [(edit.path, edit.fate) for edit in diff.edits] == [("spatial", "inherited"), ("pointwise", "compensated")]


def test_hooked_layer_is_refused():
    conv = depthwise()
    conv.register_forward_hook(lambda *_: None)
    _, diff = assert_rewrites(SepConvToPConv(), chain(conv, nn.Conv2d(8, 8, 1)), after={})
    assert {skip.path: skip.code for skip in diff.skips}["1"] == "altered"


def test_kinds():
    model = chain(depthwise(), nn.Conv2d(8, 8, 3, padding=1))
    assert_rewrites(SepConvToPConv(kinds=("depthwise",)), model, after={"1": "PConv2d(8, k3, bias, portion=1/4)"})


@pytest.mark.parametrize(
    ("channels", "convolved"), [(2, 1), (3, 1), (5, 1), (6, 2), (10, 2), (11, 2), (18, 4), (27, 8), (24, 6)]
)
def test_portion_that_does_not_divide_is_rounded_and_said(channels: int, convolved: int):
    """To 1, 2, 4 or a multiple of 4, which engines compute at once; what divides is left as it is."""
    model = chain(depthwise(channels), nn.Conv2d(channels, channels, 1), channels=channels)
    after, diff = rewrite(network(model, 1, channels, 32, 32), SepConvToPConv())
    assert after.program.modules["1"].convolved == convolved
    expected = "" if channels == 24 else f"1/4 of {channels} channels rounded to {convolved}"
    assert diff.edits[0].note == expected


def test_shared_module_is_rewritten_at_every_call():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.tail = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.spatial = depthwise()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.spatial(self.head(x))
            return self.tail(self.spatial(x.relu()))

    rewritten, diff = assert_rewrites(SepConvToPConv(), Twice(), after={"spatial": "PConv2d(8, k3, bias, portion=1/4)"})
    assert len(rewritten.layers["spatial"].nodes) == 2
    assert diff.edits[0].macs == 2 * (2 * 2 * 9 - 8 * 9) * 32 * 32


def test_neighbours_that_serve_another_place_are_not_adjusted():
    class SharedPointwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.a, self.b, self.pointwise = depthwise(), depthwise(), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.pointwise(self.a(self.first(x).sin()))
            return self.last(self.pointwise(self.b(x.cos())))

    _, diff = assert_rewrites(
        SepConvToPConv(),
        SharedPointwise(),
        after={"a": "PConv2d(8, k3, bias, portion=1/4)", "b": "PConv2d(8, k3, bias, portion=1/4)"},
    )
    assert {edit.path for edit in diff.edits} == {"a", "b"}
    assert all("not compensated" in edit.note for edit in diff.edits)


def test_tied_parameters_are_refused():
    model = chain(depthwise(), nn.Conv2d(8, 8, 1), depthwise(), nn.Conv2d(8, 8, 1))
    model[3].weight = model[1].weight
    _, diff = assert_rewrites(SepConvToPConv(), model, after={})
    assert {skip.path for skip in diff.skips if skip.code == "tied"} == {"1", "3"}


def test_output_convolution_is_left_alone_with_its_depthwise_part():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), depthwise(), nn.Conv2d(8, 8, 1))
    _, diff = assert_rewrites(SepConvToPConv(pointwise_bias="drop"), model, after={})
    assert {skip.path: skip.code for skip in diff.skips} == {
        "0": "input",
        "1": "output",
    }


def test_input_convolution_takes_up_nothing():
    class Lone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.lone, self.last = nn.Conv2d(8, 8, 3, padding=1), depthwise(), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.lone(self.first(x)).sin())

    _, diff = assert_rewrites(SepConvToPConv(), Lone(), after={"lone": "PConv2d(8, k3, bias, portion=1/4)"})
    assert {edit.path for edit in diff.edits} == {"lone"}


@pytest.mark.filterwarnings("ignore:.*is not folded")
def test_hooked_neighbour_takes_up_nothing():
    """Spectral norm recomputes the weight before every call, so that an adjusted one would be undone."""
    pointwise = torch.nn.utils.spectral_norm(nn.Conv2d(8, 8, 1))
    _, diff = assert_rewrites(
        SepConvToPConv(),
        chain(nn.GELU(), depthwise(), pointwise),
        after={"2": "PConv2d(8, k3, bias, portion=1/4)"},
    )
    assert {edit.path for edit in diff.edits} == {"2"}


def test_frozen_layers_stay_frozen():
    model = chain(depthwise(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)).requires_grad_(False)
    after, diff = rewrite(network(model), SepConvToPConv())
    assert diff.edits
    assert not any(p.requires_grad for p in after.program.graph_module.parameters())


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Conv2d(8, 8, 1), depthwise(), nn.Conv2d(8, 8, 3, padding=1)],
        lambda: [nn.Conv2d(8, 8, 3, padding=1), depthwise(), nn.GELU(), nn.Conv2d(8, 8, 1)],
        lambda: [nn.Conv2d(8, 8, 1), depthwise(), depthwise(), nn.Conv2d(8, 8, 1)],
    ],
    ids=["depthwise-dense", "dense-depthwise", "depthwise-depthwise"],
)
def test_neighbours_that_are_rewritten_too(layers: Callable[[], list[nn.Module]]):
    """One pass does to them what two passes, one for each kind, do one after the other."""
    model = chain(*layers()).double()
    before, x = network(model), torch.randn(1, 8, 12, 14, dtype=torch.float64)
    at_once, _ = rewrite(before, SepConvToPConv())
    in_turn = before
    for kind in ("depthwise", "dense"):
        in_turn, _ = rewrite(in_turn, SepConvToPConv(kinds=(kind,)))
    error = (output(at_once, x) - output(before, x)).norm()
    assert error < 1.5 * (output(in_turn, x) - output(before, x)).norm()


def test_dead_channels_with_batch_norm_stay_dead():
    conv, norm = constant_response(depthwise()), nn.BatchNorm2d(8)
    with torch.no_grad():
        conv.weight[4:] = 0
        norm.running_mean.normal_()
        norm.weight.normal_()
    _assert_same_function(chain(conv, norm, nn.ReLU6(), nn.Conv2d(8, 16, 1)).double())


# --- weights ---------------------------------------------------------------------------------------------------------


def constant_response(conv: nn.Conv2d) -> nn.Conv2d:
    """Kernels that pass their centre only, scaled per channel: a gain replaces them exactly."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[..., conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = torch.randn(conv.weight.shape[:2]) * 2
    return conv


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "between",
    [[], [nn.Identity()], [nn.BatchNorm2d(8)], [nn.BatchNorm2d(8), nn.ReLU6()]],
    ids=lambda between: "-".join(type(m).__name__ for m in between) or "nothing",
)
def test_gains_and_biases_go_into_the_layer_behind(between: list[nn.Module], bias: bool):
    for module in between:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model = chain(constant_response(depthwise(bias=bias)), *between, nn.Conv2d(8, 16, 1)).double()
    _assert_same_function(model)


def test_gains_and_biases_go_into_the_convolution_before():
    class Gate(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, dim=1)
            return a * b

    model = chain(nn.Conv2d(8, 8, 1), constant_response(depthwise()), Gate(), nn.Conv2d(4, 8, 1)).double()
    _assert_same_function(model)


class Forked(nn.Module):
    """What comes before the depthwise convolution is read twice, so that only what follows can take up the gains."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.head, self.tail, self.end = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.conv, self.activation = constant_response(depthwise(bias=False)), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        return self.end(x + self.tail(self.activation(self.conv(x))))


class FunctionalReLU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.1), FunctionalReLU()])
def test_positive_gains_commute_with_relu(activation: nn.Module):
    model = Forked(activation)
    with torch.no_grad():
        model.conv.weight.abs_()
    _assert_same_function(model.double())


def test_what_cannot_be_compensated_is_said():
    _, diff = assert_rewrites(SepConvToPConv(), Forked(nn.GELU()), after={"conv": "PConv2d(8, k3, portion=1/4)"})
    alone = "untouched channels not compensated: no linear layer next to it that only it uses"
    assert diff.edits[0].note == alone
    biased = Forked(nn.GELU())
    biased.conv = depthwise()
    _, diff = rewrite(network(biased), SepConvToPConv(pointwise_bias="drop"))
    assert diff.edits[0].note == f"{alone}; bias of the convolved channels dropped"


class Channelwise(nn.Module):
    """ConvNeXt's layout: what mixes the channels behind the depthwise convolution is a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.last = nn.Conv2d(8, 8, 1), depthwise(), nn.Conv2d(8, 8, 1)
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x + self.linear(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2))


def test_layouts_that_take_up_nothing_are_said():
    for model in (Channelwise(), Forked(nn.GroupNorm(2, 8)), Forked(nn.InstanceNorm2d(8))):
        _, diff = rewrite(network(model), SepConvToPConv())
        assert [(edit.path, "not compensated" in edit.note) for edit in diff.edits] == [("conv", True)]


def _assert_same_function(model: nn.Module) -> None:
    """Kernels that a gain replaces exactly have to leave the function as it is."""
    model.eval()
    x = torch.randn(1, 8, 12, 14, dtype=torch.float64)
    before = network(model)
    after, _ = rewrite(before, SepConvToPConv(kinds=("depthwise",)))
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)


def test_dense_low_rank_kernel_is_kept_exactly():
    """A dense kernel that is a quarter's worth of products and a gain for the rest has an exact partial form."""
    conv = nn.Conv2d(8, 8, 3, padding=1).double()
    with torch.no_grad():
        kernel, mix = torch.randn(2, 2, 3, 3).double(), torch.randn(8, 8).double()
        weight = torch.zeros_like(conv.weight)
        weight[:, :2] = torch.einsum("oc,cikl->oikl", mix[:, :2], kernel)
        weight[:, 2:, 1, 1] = mix[:, 2:]
        conv.weight.copy_(weight)
    before = network(chain(conv).double())
    after, _ = rewrite(before, SepConvToPConv())
    x = torch.randn(1, 8, 12, 14, dtype=torch.float64)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)
