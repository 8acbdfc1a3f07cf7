"""What verification finds out: passes that break their promise, by name, and figures on the inputs that were given."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from architectures import NAFNet, UNet
from mofa_compiler import Result, apply
from mofa_compiler.base.errors import RewriteError, VerificationError
from mofa_compiler.passes import DecoupleUpsampling, PConvToPDWConv, SepConvToPConv, WidenPortion
from mofa_compiler.verification.per_pass import as_call
from tests.raising import raising
from tests.rewrites import chain
from tests.verification.broken import Broken


def three() -> nn.Sequential:
    return chain(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)).eval()


def broken(how: str, model: nn.Module | None = None) -> Result:
    return apply(model or three(), [Broken(how=how)], torch.rand(1, 8, 16, 16))


def test_a_wrong_layer_is_refused_when_it_is_built():
    with raising(RewriteError, "not-exact", "broken:", "1"):
        broken("layer")


def test_what_only_the_whole_network_shows_is_caught_by_name():
    verdict = broken("reference").verdicts[0]
    assert verdict.layers == 0
    assert not verdict.holds
    assert verdict.problem.startswith("broken was declared exact, but the whole network's output is off by 0.00")
    assert "from layer '1' (body) on" in verdict.problem
    assert [size.shape for size in verdict.whole.sizes] == ["1x8x16x16", "1x8x8x12"]
    assert all(1e-4 < size.error < 1e-2 for size in verdict.whole.sizes)


def test_the_layer_is_named_deep_in_a_network():
    model = UNet(width=4, depth=2).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    path = "downs.1.1.3"
    result = apply(model, [SepConvToPConv(kinds=("depthwise",)), Broken(path, "reference")], torch.rand(1, 3, 16, 16))
    assert [verdict.holds for verdict in result.verdicts] == [True, False]
    assert f"from layer '{path}' (encoder 2) on" in result.verdicts[1].problem


def test_a_neighbour_adjusted_wrongly_is_caught():
    wrong, right = broken("neighbour").verdicts[0], broken("compensated").verdicts[0]
    assert not wrong.holds
    assert "from layer '1' (body) on" in wrong.problem
    assert right.holds
    assert right.whole.note == "adjusted weights are rounded to the model's precision"


def test_what_is_right_at_the_example_size_only_is_caught():
    verdict = broken("size").verdicts[0]
    assert verdict.relative_error == 0
    assert [size.error for size in verdict.whole.sizes] == [pytest.approx(0, abs=1e-9), math.inf]
    assert "1x8x8x12" in verdict.problem


def test_a_network_of_one_size():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = three()

        def forward(self, x):
            if x.shape[-1] != 16 or x.shape[-2] != 16:
                raise ValueError("16x16 only")
            return self.layers(x)

    x = torch.rand(1, 8, 16, 16)
    result = apply(Fixed(), [SepConvToPConv(), WidenPortion(where=["*"])], x)
    whole = result.verdicts[1].whole
    assert result.verdicts[1].holds
    assert [size.shape for size in whole.sizes] == ["1x8x16x16"]
    assert whole.note.startswith("checked at one size only, as it takes no other (RuntimeError: ")
    caught = apply(Fixed(), [Broken("layers.1", "reference")], x).verdicts[0]
    assert "from layer 'layers.1' (body) on" in caught.problem


@torch.library.custom_op("mofa_tests::halves", mutates_args=())
def halves(x: torch.Tensor) -> torch.Tensor:
    if x.dtype is not torch.float32:
        raise TypeError("float32 only")
    return x / 2


@halves.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("mofa_tests::lowered", mutates_args=())
def lowered(x: torch.Tensor) -> torch.Tensor:
    return x.float() / 2


@lowered.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, dtype=torch.float32)


class Lower(nn.Module):
    """A network with a part that knows float32 only, or that comes back to it."""

    def __init__(self, how: str):
        super().__init__()
        self.layers, self.how = three(), how

    def forward(self, x):
        y = self.layers(x)
        if self.how == "refuses":
            return torch.ops.mofa_tests.halves(y)
        if self.how == "names":
            return (y.to(torch.float32) + torch.ones(8, 1, 1, dtype=torch.float32)).float()
        return torch.ops.mofa_tests.lowered(y)


@pytest.mark.parametrize(
    ("how", "precision", "note"),
    [
        ("refuses", "float32", "cannot run in float64 (TypeError: float32 only)"),
        ("names", "float64", ""),
        ("returns", "float32", "lowered() computes in float32"),
    ],
)
def test_a_network_that_is_not_made_for_float64(how: str, precision: str, note: str):
    x = torch.rand(1, 8, 16, 16)
    result = apply(Lower(how), [SepConvToPConv(), WidenPortion(where=["*"])], x)
    whole = result.verdicts[1].whole
    assert (whole.precision, whole.note) == (precision, note)
    assert whole.holds
    assert len(whole.sizes) == 2
    caught = apply(Lower(how), [Broken("layers.1", "reference")], x).verdicts[0]
    assert f"relative, {precision}" in caught.problem
    assert "from layer 'layers.1' (body) on" in caught.problem


def test_half_precision_is_checked_in_float64():
    model = three().bfloat16()
    x = torch.rand(1, 8, 16, 16).bfloat16()
    result = apply(model, [SepConvToPConv(), WidenPortion(where=["*"])], x)
    assert result.verdicts[1].whole.precision == "float64"
    assert result.verdicts[1].whole.error < 1e-12
    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}


def test_our_exact_passes_hold_at_two_sizes():
    model = NAFNet(width=8)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    roadmap = [SepConvToPConv(), WidenPortion(where="middle"), DecoupleUpsampling(), PConvToPDWConv(threshold=8)]
    verdicts = apply(model, roadmap, torch.rand(1, 3, 32, 32)).verdicts
    assert [verdict.whole is not None for verdict in verdicts] == [False, True, False, False]
    assert [len(verdict.whole.sizes) for verdict in verdicts if verdict.whole] == [2]
    assert all(verdict.holds for verdict in verdicts)


@pytest.fixture(scope="module")
def approximate() -> Result:
    torch.manual_seed(0)
    return apply(UNet(width=4, depth=1).eval(), "mofa", torch.rand(1, 3, 16, 16))


def test_figures_are_of_the_inputs_that_were_given(approximate: Result):
    assert {verdict.measured_on for verdict in approximate.verify()} == {"example input 1x3x16x16"}
    assert apply(three(), []).verdicts == ()
    noise = apply(three(), [SepConvToPConv()]).verdicts[0]
    assert noise.measured_on == "random example input 1x8x256x256"
    batches = [torch.rand(2, 3, 16, 24), torch.rand(1, 3, 16, 24)]
    verdicts = approximate.verify(inputs=iter(batches), name="photograph")
    assert approximate.verdicts == verdicts
    assert {verdict.measured_on for verdict in verdicts} == {"3 photographs of 3x16x24 in 2 batches"}
    networks = [network.program.graph_module.eval() for network in approximate.networks]
    with torch.no_grad():
        before, after = (
            torch.cat([module(x).flatten() for x in batches]).double() for module in (networks[0], networks[-1])
        )
    error = float((after - before).norm() / before.norm())
    assert verdicts[-1].accumulated == pytest.approx(error, rel=1e-6)
    mse = float((after - before).square().mean())
    peak = float(before.max() - before.min())
    assert verdicts[-1].psnr == pytest.approx(10 * math.log10(peak**2 / mse), rel=1e-6)
    assert sum(verdict.relative_error > 0 for verdict in verdicts) > 1
    assert approximate.report["passes"][-1]["verdict"]["measured_on"].startswith("3 photographs")


def test_evaluation_inputs_are_the_default(approximate: Result):
    inputs = [as_call((torch.rand(1, 3, 16, 16),)), as_call(torch.rand(1, 3, 16, 16))]
    result = Result(replace(approximate.record, evaluation=inputs))
    assert result.verify()[0].measured_on == "2 held-out inputs of 3x16x16 in 2 batches"


def test_inputs_that_do_not_fit_are_named(approximate: Result):
    with raising(VerificationError, "wrong-input", "1x4x16x16"):
        approximate.verify(inputs=[torch.rand(1, 4, 16, 16)])
    with raising(VerificationError, "no-data"):
        approximate.verify(inputs=[])
