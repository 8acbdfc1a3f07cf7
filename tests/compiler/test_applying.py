from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import mofa_compiler
from architectures import PMRID, NAFNet, UNet
from mofa_compiler.base.errors import CalibrationError, CaptureError, RewriteError, RoadmapError
from mofa_compiler.passes import PConvToPDWConv, SepConvToPConv, WidenPortion
from tests.raising import raising
from tests.rewrites import tiny


def trained_like(model: nn.Module) -> nn.Module:
    """Weights as after training: no zero scales, no unit statistics."""
    for parameter in model.parameters():
        if parameter.dim() <= 1 or parameter.shape[0] == 1:
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def result() -> mofa_compiler.Result:
    torch.manual_seed(0)
    return mofa_compiler.apply(trained_like(NAFNet(width=8)), "mofa", torch.rand(1, 3, 64, 64))


def test_input_model_is_untouched_and_two_calls_agree():
    model = trained_like(UNet(width=4, depth=2))
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = torch.rand(1, 3, 32, 32)
    one, two = mofa_compiler.apply(model, "mofa", x), mofa_compiler.apply(model, "mofa", x)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, two.model.state_dict()[key]) for key, tensor in one.model.state_dict().items())
    storages = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not storages & {tensor.data_ptr() for tensor in one.model.state_dict().values()}


def test_trains_copies_and_keeps_names(result: mofa_compiler.Result):
    model = copy.deepcopy(result.model).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.rand(2, 3, 48, 32)).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters() if p.grad.abs().max() > 1e-6)
    original = result.original.program.state()
    untouched = [key for key, fate in result.keymap.items() if fate.fate == "kept"]
    assert len(untouched) > 50
    assert all(torch.equal(result.model.state_dict()[key], original[key]) for key in untouched)


def test_keymap_covers_every_key(result: mofa_compiler.Result):
    original, new = set(result.original.program.state()), set(result.model.state_dict())
    assert set(result.keymap) == original
    mapped = {key for fate in result.keymap.values() for key in fate.keys}
    assert mapped <= new
    assert result.keymap["encoders.0.0.conv2.weight"].keys == (
        "encoders.0.0.conv2.conv.weight",
        "encoders.0.0.conv2.conv.bias",
    )
    assert result.keymap["encoders.0.0.conv1.weight"].fate == "compensated"
    assert {key.rpartition(".")[0] for key in new - mapped} == set()


def test_verdicts(result: mofa_compiler.Result):
    assert [verdict.pass_name for verdict in result.verdicts] == [diff.pass_name for diff in result.diffs]
    for diff, verdict in zip(result.diffs, result.verdicts, strict=True):
        assert verdict.exact == diff.exact
        assert verdict.holds
    assert result.verdicts[0].relative_error > 1e-4
    assert result.verdicts[-1].accumulated > 1e-4


@pytest.mark.slow
def test_verdicts_do_not_change_with_training():
    model = trained_like(NAFNet(width=8))
    fresh, trained = (mofa_compiler.apply(model, "mofa", torch.ones(1, 3, 32, 32)) for _ in range(2))
    with torch.no_grad():
        for parameter in (*trained.model.parameters(), *model.parameters()):
            parameter.mul_(2)
    assert trained.verdicts == fresh.verdicts


@pytest.mark.parametrize("build", [lambda: PMRID(), lambda: NAFNet(width=8), lambda: UNet(width=4, depth=2)])
@pytest.mark.sample(1)
def test_widening_is_exact_in_the_whole_network(build):
    model, x = trained_like(build()).double(), torch.rand(1, 3, 64, 48, dtype=torch.float64)
    narrow = mofa_compiler.apply(model, mofa_compiler.Roadmap([SepConvToPConv()]), x).model.eval()
    wide = mofa_compiler.apply(model, mofa_compiler.Roadmap([SepConvToPConv(), WidenPortion(where="middle")]), x)
    assert wide.diffs[1].edits
    with torch.no_grad():
        torch.testing.assert_close(wide.model.eval()(x), narrow(x), rtol=1e-10, atol=1e-12)


def test_nothing_to_rewrite():
    result = mofa_compiler.apply(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3)), "mofa")
    assert not any(diff.edits for diff in result.diffs)
    assert result.before == result.after


@pytest.mark.slow
def test_export_and_compile():
    result = mofa_compiler.apply(trained_like(NAFNet(width=4)), "mofa", torch.rand(1, 3, 32, 32))
    model, x = result.model.eval(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        exported = torch.export.export(model, (x,)).module()(x)
        compiled = torch.compile(model, backend="aot_eager")(x)
    torch.testing.assert_close(exported, expected)
    torch.testing.assert_close(compiled, expected)


def test_half_precision():
    result = mofa_compiler.apply(tiny().bfloat16(), "mofa", torch.rand(1, 3, 32, 32).bfloat16())
    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}
    assert result.model(torch.rand(1, 3, 32, 32).bfloat16()).dtype == torch.bfloat16
    assert result.verdicts[-1].accumulated < 1


def test_nan_weights_are_named():
    model = NAFNet(width=8)
    with torch.no_grad():
        model.middle_blks[0].conv3.weight[0, 0] = float("nan")
    with raising(RewriteError, "not-finite", "middle_blks.0.conv3.weight"):
        mofa_compiler.apply(model, "mofa")


def test_meta_weights_are_refused():
    with torch.device("meta"):
        model = NAFNet(width=8)
    with raising(RewriteError, "no-values"):
        mofa_compiler.apply(model, "mofa")


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:intro.weight. computed from other parameters")
def test_models_that_keep_tensors_with_a_history():
    class Keeps(NAFNet):
        def forward(self, inp):
            self.outputs = [super().forward(inp)]
            return self.outputs[0]

    model, x = Keeps(width=4), torch.rand(1, 3, 16, 16)
    model(x)
    torch.nn.utils.weight_norm(model.intro)
    assert mofa_compiler.apply(model, "mofa", x).diffs[0].edits


def test_bad_shape_and_roadmap():
    with raising(CaptureError, "wrong-input", "1x4x32x32"):
        mofa_compiler.apply(tiny(), "mofa", torch.rand(1, 4, 32, 32))
    with raising(RoadmapError, "unknown-name", "mofo"):
        mofa_compiler.apply(tiny(), "mofo")
    with raising(CalibrationError, "wrong-input", "batch 1"):
        mofa_compiler.apply(tiny(), "mofa", calibration=[torch.rand(1, c, 32, 32) for c in (3, 4)])


def test_a_list_of_passes_is_a_roadmap():
    result = mofa_compiler.apply(tiny(), [SepConvToPConv(), PConvToPDWConv(threshold=0)])
    assert [diff.pass_name for diff in result.diffs] == ["sepconv-to-pconv", "pconv-to-pdwconv"]


def test_a_network_that_reads_its_mode():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3)

        def forward(self, x):
            return self.c(torch.nn.functional.dropout(self.b(self.a(x)), 0.5, self.training))

    result = mofa_compiler.apply(Model().eval(), "mofa", torch.rand(1, 3, 16, 16))
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(result.model(x), result.model(x))
    assert not torch.equal(result.model.train()(x), result.model(x))


def test_progress_is_told():
    steps: list[tuple[str, int, int]] = []
    mofa_compiler.apply(tiny(), "mofa", progress=lambda *step: steps.append(step))
    assert [step[0] for step in steps[:2]] == ["capturing", "sepconv-to-pconv"]
    assert [step[1] for step in steps] == list(range(len(steps)))
    assert steps[-1][1] == steps[-1][2]
