"""What holds for any U-Net-like network, on generated ones. HYPOTHESIS_PROFILE=nightly draws 500 of them."""

from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from mofa_compiler import Roadmap, apply, capture
from mofa_compiler.passes import DecoupleDownsampling
from mofa_compiler.roadmap import presets
from tests.nets import GeneratedUNet, Plan, plans

ROADMAPS = {name: Roadmap.load(name) for name in presets()}
ROADMAPS["everything"] = Roadmap([*ROADMAPS["mofa"].passes[:-1], DecoupleDownsampling(), ROADMAPS["mofa"].passes[-1]])


@given(plans)
def test_capture_equals_eager_at_other_sizes(plan: Plan):
    model = GeneratedUNet(plan).eval()
    module = capture(model, torch.rand(1, 3, 32, 32)).graph_module
    for size in [(32, 32), (16, 40)]:
        x = torch.rand(1, 3, *size)
        assert torch.equal(module(x), model(x))


@given(plans, st.sampled_from(sorted(ROADMAPS)))
def test_every_roadmap_keeps_shapes_and_gradients(plan: Plan, name: str):
    model = GeneratedUNet(plan).double().eval()
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    result = apply(model, ROADMAPS[name], x)
    other = torch.rand(2, 3, 16, 40, dtype=torch.float64)
    y = result.model.eval()(other)
    assert y.shape == model(other).shape
    assert y.isfinite().all()
    for diff, verdict in zip(result.diffs, result.verdicts, strict=True):
        assert all(edit.error < 1e-9 for edit in diff.edits if edit.exact)
        if diff.exact:
            assert verdict.relative_error < 1e-9, diff.pass_name
        assert diff.after.parameters - diff.before.parameters == sum(edit.parameters for edit in diff.edits)
        assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        result.model(x)
    assert 2 * result.after.macs == counter.get_total_flops()
    assert result.after.parameters == sum(p.numel() for p in result.model.parameters())
    trained = copy.deepcopy(result.model).train()
    trained(torch.rand(2, 3, 32, 32, dtype=torch.float64)).square().mean().backward()
    assert [key for key, p in trained.named_parameters() if p.grad is None] == []
    mapped = {key for fate in result.keymap.values() for key in fate.keys}
    assert mapped <= set(result.model.state_dict())
