"""Partial convolutions in a chain, where what becomes of one depends on the one before."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mofa_compiler.analysis.network import Network
from mofa_compiler.nn.partial_conv import PartialConv2d, PConv2d, PDWConv2d
from mofa_compiler.passes import LowerPConv, lower_pconv
from mofa_compiler.rewriting.engine import match, rewrite
from mofa_compiler.rewriting.pass_api import Match
from tests.rewrites import network, output, scattered

TAKING = ("two-products", "two-slices", "born-apart", "merged", "fused")


def pairs(*between: tuple[type[PartialConv2d], bool]) -> nn.Sequential:
    """Partial convolutions p0, p1, ... each with a pointwise one behind it, and where said with a softmax between."""
    model = nn.Sequential()
    model.add_module("head", nn.Conv2d(6, 6, 3, padding=1))
    for index, (kind, is_cut_off) in enumerate(between):
        model.add_module(f"p{index}", kind(6, 2, bias=True))
        if is_cut_off:
            model.add_module(f"softmax{index}", nn.Softmax(1))
        model.add_module(f"w{index}", nn.Conv2d(6, 6, 1))
    model.add_module("tail", nn.Conv2d(6, 6, 3, padding=1))
    return scattered(model)


def takes_behind(form: str, pair: tuple[type[PartialConv2d], bool], *, free: bool) -> bool:
    """Whether a pair becomes one layer: `free` where the convolution before it may be cut in two."""
    kind, is_cut_off = pair
    if form == "auto":
        form = "identity-kernels" if kind is PDWConv2d else ("born-apart" if free else "two-slices")
    return form in TAKING and not is_cut_off and (form != "born-apart" or free)


PAIRS = st.lists(st.tuples(st.sampled_from([PConv2d, PDWConv2d]), st.booleans()), min_size=1, max_size=6)


@given(PAIRS, st.sampled_from(["auto", "born-apart", "two-slices", "merged"]))
def test_a_convolution_is_cut_for_the_partial_one_behind_it_unless_the_one_before_took_it(
    given_pairs: list[tuple[type[PartialConv2d], bool]], form: Any
):
    before = network(pairs(*given_pairs), 1, 6, 8, 8)
    pass_, taken = LowerPConv(form=form), False
    after, diff = rewrite(before, pass_)
    notes = {edit.path: edit.note for edit in diff.edits if edit.fate != "removed"}
    for index, pair in enumerate(given_pairs):
        free = index > 0 and not taken  # the input convolution is never cut
        if form in ("auto", "born-apart") and not (form == "auto" and pair[0] is PDWConv2d):
            assert (notes.get(f"p{index}") == "born-apart") == free
        taken = takes_behind(form, pair, free=free)
    fresh = Network(before.program, before.anatomy)
    backwards = {path: pass_.match(layer, fresh) for path, layer in reversed(fresh.layers.items())}
    assert {path for path, found in backwards.items() if isinstance(found, Match)} == set(notes)
    x = torch.randn(1, 6, 9, 7)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-4, atol=1e-4)


def test_a_layer_costs_the_same_in_a_long_chain():
    def looks(length: int) -> int:
        before = network(pairs(*[(PConv2d, False)] * length), 1, 6, 8, 8)
        with patch.object(lower_pconv, "convolution_before", wraps=lower_pconv.convolution_before) as looked:
            matches, _ = match(before, LowerPConv())
        assert len(matches) == length
        return looked.call_count

    first, second, third = looks(2), looks(12), looks(22)
    assert third - second == second - first > 0
