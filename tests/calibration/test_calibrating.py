"""Calibration as a whole: what a calibrated result promises."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

import mofa_compiler
from architectures import NAFNet
from mofa_compiler import Result, apply
from mofa_compiler.base.errors import CalibrationError, DataError
from mofa_compiler.calibration import Calibration, in_order
from mofa_compiler.numerics.error_sums import Figures
from mofa_compiler.numerics.running import run as run_call
from mofa_compiler.numerics.running import values
from mofa_compiler.passes import DecoupleDownsampling, DecoupleUpsampling, PConvToPDWConv, SepConvToPConv
from tests.calibration.small import (
    HELD_OUT,
    Between,
    X,
    conv,
    distance,
    error,
    images,
    output_errors,
    run,
    same,
    trained_like,
    unet,
)
from tests.nets import Plan, plans
from tests.raising import raising
from tests.test_properties import build, drawn

pytestmark = [
    pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return unet()


@pytest.fixture(scope="module")
def result(model: nn.Module) -> Result:
    torch.set_num_threads(1)  # as in the tests themselves: other threads add up in another order
    return apply(model, "mofa", X[0], Calibration(X, tuning=8))


def test_the_output_comes_nearer(model: nn.Module, result: Result) -> None:
    free = apply(model, "mofa", X[0])
    assert error(result, model, X) < 0.5 * error(free, model, X)
    others = images(6, 2, size=24)[4:]
    assert error(result, model, others) < error(free, model, others)


def test_what_the_diff_says(model: nn.Module, result: Result) -> None:
    diff, free = result.diffs[-1], apply(model, "mofa", X[0])
    assert diff.pass_name == "calibration"
    assert len(result.diffs) == len(result.roadmap) + 1 == len(result.networks) - 1
    assert result.diffs[:-1] == free.diffs or result.channel_orders  # exact passes name another error then
    assert diff.before == diff.after == free.after
    assert not diff.exact
    assert diff.options["inputs"] == 8
    errors = output_errors(diff)
    assert list(errors) == ["inherited", "channels chosen", "fitted", "tuned"]
    kept = errors[diff.options["kept"]]
    assert kept == min(errors.values())
    assert 100 * error(result, model, HELD_OUT) == pytest.approx(kept, abs=0.01)
    assert errors["inherited"] == pytest.approx(100 * error(free, model, HELD_OUT), rel=0.01)
    assert diff.options["held_out"] == 1


def test_only_what_the_diff_names_differs(model: nn.Module, result: Result) -> None:
    free, state = apply(model, "mofa", X[0]).model.state_dict(), result.model.state_dict()
    assert free.keys() == state.keys()
    edits = {edit.path: edit.fate for edit in result.diffs[-1].edits}
    assert set(edits.values()) <= {"calibrated", "reordered"}
    different = {key for key in state if not torch.equal(state[key], free[key])}
    owners = {path for key in different for path in edits if key == path or key.startswith(f"{path}.")}
    assert owners == edits.keys()
    assert all(any(key == path or key.startswith(f"{path}.") for path in edits) for key in different)


def test_keymap(model: nn.Module, result: Result) -> None:
    state = model.state_dict()
    assert result.keymap.keys() == state.keys()
    kept = [key for key, fate in result.keymap.items() if fate.fate == "kept"]
    assert all(torch.equal(result.model.state_dict()[key], state[key]) for key in kept)
    assert result.keymap["inc.1.running_mean"].fate == "calibrated"
    assert result.keymap["outc.weight"].fate == "calibrated"
    mapped = {key for fate in result.keymap.values() for key in fate.keys}
    assert mapped <= result.model.state_dict().keys()


def test_the_input_model_and_the_inputs_are_left_alone() -> None:
    model, inputs = unet(), [x.clone() for x in X]
    state = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    result = apply(model, "mofa", X[0], Calibration(inputs, tuning=3))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(one, other) for one, other in zip(inputs, X, strict=True))
    storages = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not storages & {tensor.data_ptr() for tensor in result.model.state_dict().values()}
    assert all(parameter.grad is None and parameter.requires_grad for parameter in result.model.parameters())


def test_two_runs_agree_bit_for_bit(model: nn.Module, result: Result) -> None:
    torch.manual_seed(123)
    again = apply(model, "mofa", X[0], Calibration(iter(X), tuning=8))  # can be gone through once only
    assert again.diffs[-1].options == result.diffs[-1].options
    assert again.channel_orders == result.channel_orders
    assert same(again.model, result.model)


def test_files_in_place_of_memory_change_nothing(
    model: nn.Module, result: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("mofa_compiler.calibration.lockstep.IN_MEMORY", 0)
    monkeypatch.setattr("mofa_compiler.calibration.lockstep.Shelf.__init__.__defaults__", (0,))
    monkeypatch.setattr("mofa_compiler.calibration.batches.IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert same(apply(model, "mofa", X[0], Calibration(X, tuning=8)).model, result.model)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_bundle(model: nn.Module, result: Result, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "bundle")
    loaded = mofa_compiler.load(folder)
    assert same(loaded, result.model)
    assert torch.equal(run(loaded, X[0]), run(result.model, X[0]))
    replayed = mofa_compiler.replay(folder, model)
    assert replayed.channel_orders == result.channel_orders
    assert replayed.model.state_dict().keys() == result.model.state_dict().keys()
    verification = mofa_compiler.verify(folder, model)
    assert all(check.ok for check in verification.checks)
    assert all(verdict.holds for verdict in verification.verdicts)


def test_aligned_computes_the_same(model: nn.Module, result: Result) -> None:
    assert result.channel_orders
    aligned = in_order(result.original.program, result.channel_orders).graph_module
    assert distance(run(aligned, X[0]), run(model, X[0])) < 1e-5
    assert not same(aligned, model)


def test_verdicts_are_on_inputs_that_were_held_out(result: Result) -> None:
    assert all(verdict.holds for verdict in result.verdicts)
    assert result.verdicts[-1].measured_on == "held-out input 1x3x16x16"
    assert result.verdicts[-1].accumulated < result.verdicts[-2].accumulated


@pytest.mark.parametrize("order", [True, False])
def test_exact_passes_are_exact_on_reordered_channels_too(order: bool) -> None:
    model = Between(lambda m, x: m.u(F.relu(m.b(x))), b=conv(8, 16, 2, stride=2), u=nn.ConvTranspose2d(16, 8, 2, 2))
    model.b.padding = (0, 0)
    roadmap = [DecoupleDownsampling(convolution="dense"), DecoupleUpsampling(), SepConvToPConv(), PConvToPDWConv()]
    result = apply(trained_like(model), roadmap, X[0], Calibration(X, order=order, tuning=0))
    assert all(verdict.holds for verdict in result.verdicts)


class Two(nn.Module):
    """Takes an image and a map of the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(4, 8, 3), nn.SiLU(), conv(8, 8, 3), nn.SiLU(), conv(8, 3, 3))

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        result: Tensor = self.body(torch.cat([image, noise], 1))
        return result


def test_inputs_of_every_form_give_the_same() -> None:
    model = trained_like(Two())
    pairs = [(x, x[:, :1] * 0.1) for x in X]

    def generated() -> Iterator[list[Tensor]]:
        for pair in pairs:
            yield list(pair)

    forms = [pairs, [{"image": x, "noise": y} for x, y in pairs], generated()]
    one, *others = (apply(model, "mofa", pairs[0], Calibration(form, tuning=2)) for form in forms)
    assert one.diffs[-1].options["kept"] != "inherited"
    assert all(same(one.model, other.model) for other in others)


@pytest.mark.slow
def test_an_iterable_alone_is_a_calibration(model: nn.Module) -> None:
    result = apply(model, [SepConvToPConv()], X[0], calibration=X[:1])
    assert result.diffs[-1].options["tuning"] == 200
    assert error(result, model, X[:1]) < error(apply(model, [SepConvToPConv()], X[0]), model, X[:1])


BAD: dict[str, tuple[Any, ...]] = {
    "nothing": ([], "no-data"),
    "a used iterator": (iter(()), "no-data"),
    "channels": ([X[0], torch.rand(1, 4, 16, 16)], "wrong-input", "batch 1"),
    "NaN": ([X[0], X[0] / 0 - X[0] / 0], "not-finite", "batch 1"),
    "infinite": ([X[0] / 0], "not-finite", "batch 0"),
    "None": ([X[0], None], "wrong-input", "batch 1"),
    "a number": (5, "bad-value"),
    "numbers": ([5], "wrong-input", "batch 0"),
    "an array": (X[0].numpy(), "wrong-input", "batch 0", "ndarray"),
    "pairs": ([(X[0], X[0])], "wrong-input", "batch 0"),
    "no images": ([X[0][:0]], "no-values", "batch 0"),
    "no pixels": ([torch.rand(1, 3, 0, 0)], "no-values", "batch 0"),
    "no data": ([X[0].to("meta")], "no-values", "batch 0"),
    "one image": (
        [X[0][0]],
        "wrong-input",
        "batch 0",
    ),
    "bytes": ([(X[0] * 255).byte()], "wrong-input", "batch 0"),
    "a folder in a Calibration": ("images", "bad-value", "CalibrationImages"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs_are_named(name: str) -> None:
    given, *said = BAD[name]
    model = nn.Sequential(conv(3, 8, 3), nn.ReLU(), conv(8, 8, 3), nn.ReLU(), conv(8, 3, 3))
    with raising(CalibrationError, *said) as caught:
        apply(model, "mofa", X[0], Calibration(given, tuning=0))
    assert "\n" not in str(caught.value)


def test_no_folder_and_no_image_input() -> None:
    with raising(DataError, "not-found", "nowhere"):
        apply(unet(), "mofa", X[0], calibration="nowhere")
    with raising(CalibrationError, "wrong-input"):
        apply(Two(), "mofa", (X[0], X[0][:, :1]), calibration="synthetic")


@pytest.mark.sample(2)
@pytest.mark.parametrize("settings", [{"order": False}, {"fit": False}, {"order": False, "fit": False}])
def test_steps_can_be_left_out(settings: dict[str, bool], model: nn.Module) -> None:
    result = apply(model, "mofa", X[0], Calibration(X[:2], tuning=2, **settings))
    steps = list(output_errors(result.diffs[-1]))
    assert ("channels chosen" in steps) == settings.get("order", True)
    assert ("fitted" in steps) == settings.get("fit", True)
    assert "tuned" in steps
    assert bool(result.channel_orders) <= settings.get("order", True)


@pytest.mark.slow
def test_nafnet() -> None:
    torch.manual_seed(0)
    model = trained_like(NAFNet(width=4, enc_blk_nums=(1, 1), dec_blk_nums=(1, 1)))
    result = apply(model, [SepConvToPConv()], X[0], Calibration(X, tuning=0))
    assert error(result, model, X) < 0.9 * error(apply(model, [SepConvToPConv()], X[0]), model, X)


@pytest.mark.slow
@drawn(4)
@given(plans)
def test_generated_networks_come_no_further_away(plan: Plan) -> None:
    torch.manual_seed(0)
    batches = [plan.example(2, plan.sizes[0]), plan.example(1, plan.sizes[0])]
    model = build(plan)
    state = copy.deepcopy(model.state_dict())
    results = [
        apply(model, "mofa", batches[0], calibration)
        for calibration in (None, Calibration(batches, tuning=2), Calibration(batches, tuning=2))
    ]
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    free, calibrated, again = results
    state = again.model.state_dict()
    assert [key for key, t in calibrated.model.state_dict().items() if not torch.equal(t, state[key])] == []
    assert calibrated.diffs[-1].options == again.diffs[-1].options
    assert {name: m.training for name, m in calibrated.model.named_modules()} == {
        name: m.training for name, m in free.model.named_modules()
    }
    figures = Figures(), Figures()
    for call in calibrated.evaluation or ():
        expected = values("original", run_call(free.original.program.graph_module, call))
        for figure, result in zip(figures, (free, calibrated), strict=True):
            figure.add(expected, values("rewritten", run_call(result.rewritten.program.graph_module, call)))
    assert figures[1].relative_error <= figures[0].relative_error
    aligned = values(
        "aligned", run_call(in_order(calibrated.original.program, calibrated.channel_orders).graph_module, call)
    )
    torch.testing.assert_close(aligned, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
