from __future__ import annotations

import torch
from torch import nn

from mofa_compiler.nn.partial_conv import PConv2d
from mofa_compiler.passes import PConvToPDWConv, RestoreKernels, SepConvToPConv, WidenPortion
from mofa_compiler.rewriting.engine import rewrite
from tests.rewrites import assert_rewrites, chain, network, output


def test_only_wide_layers_become_depthwise():
    assert_rewrites(
        PConvToPDWConv(threshold=4),
        chain(PConv2d(8, 4), nn.Conv2d(8, 8, 1), PConv2d(8, 3, bias=True)),
        after={"1": "PDWConv2d(8, k3, portion=1/2)"},
        skips={"3": "threshold"},
    )


def test_threshold_is_inclusive_and_zero_takes_all():
    _, diff = rewrite(network(chain(PConv2d(8, 1), PConv2d(8, 8))), PConvToPDWConv(threshold=0))
    assert [edit.path for edit in diff.edits] == ["1", "2"]


def test_separable_origin_makes_it_exact():
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    before, _ = rewrite(network(chain(depthwise, nn.Conv2d(8, 8, 1)).double()), SepConvToPConv())
    after, diff = rewrite(before, PConvToPDWConv(threshold=0))
    assert diff.exact
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-12, atol=1e-12)


def test_all_kernels_restored_is_the_original_network():
    """Widened to all channels and restored, a separable network is what it was before."""
    model = chain(nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 8, 1)).double()
    original = network(model)
    wide, _ = rewrite(rewrite(original, SepConvToPConv())[0], WidenPortion(where=("1",), portion=1))  # type: ignore[arg-type]
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    assert not torch.allclose(output(wide, x), output(original, x))
    for last in (RestoreKernels(), PConvToPDWConv(threshold=0)):
        after, diff = rewrite(wide, last)
        assert not diff.exact
        assert diff.edits[0].note.startswith(("6 channels", "7 channels"))
        torch.testing.assert_close(output(after, x), output(original, x), rtol=1e-9, atol=1e-9)


def test_mixing_kernel_moves_into_the_pointwise_layer():
    """A kernel that is one spatial filter a channel, mixed, is a depthwise one with the mixing in the layer behind."""
    partial = PConv2d(8, 4).double()
    with torch.no_grad():
        partial.conv.weight.copy_(
            torch.einsum("oi,ikl->oikl", torch.randn(4, 4).double(), torch.randn(4, 3, 3).double())
        )
    before = network(chain(partial, nn.Conv2d(8, 8, 1)).double())
    after, diff = rewrite(before, PConvToPDWConv(threshold=0))
    assert [(edit.path, edit.fate) for edit in diff.edits] == [("1", "inherited"), ("2", "compensated")]
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-6, atol=1e-9)
