"""Cases of rewriting: what a pass may take for what it is, weights, precision, fitting, and global states."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from mofa_compiler import apply


@pytest.mark.case("reliability/02_forward_replaced_on_a_layer.py")
def test_a_layer_whose_forward_was_replaced_is_not_taken_for_a_plain_one(case: ModuleType) -> None:
    torch.manual_seed(0)
    net, x = case.Net().eval(), torch.rand(1, 3, 32, 32)
    plain = apply(net, "mofa", x).model.eval()(x)
    inner = net.depth.forward
    net.depth.forward = lambda t: inner(t) * 100
    result = apply(net, "mofa", x)
    assert not torch.equal(result.model.eval()(x), plain)
    assert torch.equal(result.original.program.graph_module(x), net(x))
    assert "depth" not in {edit.path for diff in result.diffs for edit in diff.rewritten}
