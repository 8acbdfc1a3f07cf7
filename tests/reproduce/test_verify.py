"""`verify`: bundles as they were saved, tampered with in every file, and trained since."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mofa_compiler
from architectures import NAFNet, UNet
from mofa_compiler import Result, Verification, apply
from mofa_compiler.base.errors import BundleError, VerificationError
from mofa_compiler.calibration import Calibration
from mofa_compiler.compiler import applying
from mofa_compiler.passes import MergeLinear, SepConvToPConv
from mofa_compiler.report.printing.verification import print_verification
from mofa_compiler.reproduce import replay as replay_module
from tests.raising import raising
from tests.rewrites import chain
from tests.verification.broken import Broken

PATH = "downs.0.1.0"


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    model = UNet(width=4, depth=1).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def result(original: nn.Module) -> Result:
    return apply(original, "mofa", mofa_compiler.capture(original, torch.rand(1, 3, 16, 16)).call)


@pytest.fixture(scope="module")
def saved(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("verify") / "bundle")


@pytest.fixture
def bundle(saved: Path, tmp_path: Path) -> Path:
    """A bundle of its own, to be tampered with."""
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def failed(verification: Verification) -> dict[str, str]:
    return {check.name: check.detail for check in verification.checks if not check.ok}


def test_a_bundle_as_it_was_saved(saved: Path, original: nn.Module, result: Result):
    found = mofa_compiler.verify(saved, original)
    assert found.ok
    assert found.problems == ()
    assert [check.name for check in found.checks] == [
        *("files", "original", "recipe", "keymap", "weights", "source", "report", "exactness", "output"),
        "another size",
    ]
    details = {check.name: check.detail for check in found.checks}
    assert "all 2" in details["weights"] or "all " in details["weights"]
    assert details["report"].startswith("parameters, MACs and output errors repeat, on the random example input")
    assert details["another size"] == "1x3x8x12 is taken, the output is finite"
    assert "1 pass is exact in float64" in details["exactness"]
    assert found.verdicts == result.verdicts
    assert found.relative_error == pytest.approx(result.verdicts[-1].accumulated, rel=1e-5)
    assert found.psnr == pytest.approx(result.verdicts[-1].psnr, abs=1e-3)
    json.dumps(found.to_data(), allow_nan=False)


def test_a_replay_captures_the_model_once(saved: Path, original: nn.Module, monkeypatch: pytest.MonkeyPatch):
    captured = Mock(side_effect=replay_module.capture)
    for module in (replay_module, applying):
        monkeypatch.setattr(module, "capture", captured)
    mofa_compiler.replay(saved, original)
    assert captured.call_count == 1


def test_a_pass_that_keeps_its_promise_is_exact_as_in_a_rewrite(saved: Path, original: nn.Module):
    data = mofa_compiler.verify(saved, original).to_data()
    exact = [step["name"] for step in data["passes"] if step["exact"] and step["verdict"]["holds"]]
    console = Console(file=io.StringIO(), width=100)
    print_verification(data, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    rows = {cells[1]: cells[2] for line in lines if (cells := line.split()) and cells[0].isdigit()}
    assert exact and {name for name, moved in rows.items() if moved == "exact"} == set(exact)


def test_other_inputs_are_told(saved: Path, original: nn.Module):
    batches = (torch.rand(2, 3, 16, 24) for _ in range(2))
    found = mofa_compiler.verify(saved, original, batches, name="photograph (holiday)")
    assert found.ok
    assert found.measured_on == "4 photographs of 3x16x24 in 2 batches (holiday)"
    assert any("not compared" in check.detail for check in found.checks if check.name == "report")


def rewritten(bundle: Path, change: Callable[[dict[str, Tensor]], None], metadata: dict[str, str] | None) -> None:
    """Replace the weights of a bundle, as another program would."""
    file = bundle / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata)


def scaled(weights: dict[str, Tensor]) -> None:
    weights["outc.weight"] = weights["outc.weight"] * 1.1


def test_weights_that_were_changed_in_place(bundle: Path, original: nn.Module):
    file = bundle / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x01
    file.write_bytes(data)
    problem = failed(mofa_compiler.verify(bundle, original))["weights"]
    assert problem.startswith("model.safetensors was changed since it was saved: its checksum does not fit; the first ")


@pytest.mark.slow
def test_weights_that_another_program_wrote(bundle: Path, original: nn.Module):
    rewritten(bundle, scaled, {"format": "pt"})
    found = mofa_compiler.verify(bundle, original)
    assert set(failed(found)) == {"weights"}
    assert "and outc.weight is not what the recipe makes of this original" in found.problems[0]
    assert "--trained" in found.problems[0]
    assert found.relative_error > 0.05
    trained = mofa_compiler.verify(bundle, original, trained=True)
    assert trained.ok
    assert trained.relative_error == found.relative_error


def test_weights_that_are_the_same_need_no_marks(bundle: Path, original: nn.Module):
    rewritten(bundle, lambda weights: None, None)
    assert mofa_compiler.verify(bundle, original).ok


def test_weights_that_are_not_finite(bundle: Path, original: nn.Module):
    def spoil(weights: dict[str, Tensor]) -> None:
        weights["outc.weight"][0] = float("nan")

    rewritten(bundle, spoil, None)
    problems = failed(mofa_compiler.verify(bundle, original, trained=True))
    assert problems["weights"] == "outc.weight in model.safetensors holds NaN or infinite values"
    assert "not finite" in problems["output"]
    assert "not finite" in problems["another size"]


@pytest.mark.slow
def test_weights_that_were_trained_before_they_were_saved(result: Result, original: nn.Module, tmp_path: Path):
    trained = Result(replace(result.record, model=copy.deepcopy(result.model)))
    with torch.no_grad():
        trained.model.get_parameter("outc.weight").mul_(1.1)
    trained.save(tmp_path / "trained")
    found = mofa_compiler.verify(tmp_path / "trained", original)
    assert found.ok
    assert "the others come from training: not compared" in next(c.detail for c in found.checks if c.name == "weights")
    assert found.relative_error != pytest.approx(found.verdicts[-1].accumulated, rel=1e-2)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.sample(1)
def test_a_network_that_was_converted_before_it_was_saved(precision: torch.dtype, original: nn.Module, tmp_path: Path):
    result = apply(original, "mofa", torch.rand(1, 3, 16, 16))
    result.model.to(precision)
    verification = mofa_compiler.verify(result.save(tmp_path / "converted"), original)
    assert not verification.problems
    assert verification.relative_error < 1


def test_source_that_was_changed(bundle: Path, original: nn.Module):
    source = (bundle / "model.py").read_text()
    line = next(line for line in source.splitlines() if "self.outc(" in line)
    (bundle / "model.py").write_text(source.replace(line, line.replace("self.outc(", "1.01 * self.outc(")))
    problem = failed(mofa_compiler.verify(bundle, original))["source"]
    number = source.splitlines().index(line) + 1
    assert problem.startswith(f"model.py is not what the recipe makes: line {number} is ")


@pytest.mark.parametrize("end", ["\x0c", "\x0b", "\x1c", "\x85", "\u2028"])
@pytest.mark.sample(1)
def test_source_whose_lines_end_for_no_python(end: str, bundle: Path, original: nn.Module):
    source = (bundle / "model.py").read_text()
    (bundle / "model.py").write_text(source.replace("\n", end, 1), encoding="utf-8")
    assert failed(mofa_compiler.verify(bundle, original))["source"].startswith("model.py is not what the recipe makes")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("report.html", "</svg>", "<script>alert(1)</script></svg>"),
        ("report.html", "<g ", "<g onclick='alert(1)' "),
        ("report.html", "<g ", "<a href='https://example.com'><g "),
        ("report.html", "</svg>", "<foreignObject><p>exact</p></foreignObject></svg>"),
        ("report.html", "</h1>", "</h1><svg><text>exact</text></svg>"),
        ("report.md", "\n\n", "\n\n<svg><text>exact</text></svg>\n"),
    ],
)
@pytest.mark.sample(1)
def test_what_hides_in_a_drawing(file: str, old: str, new: str, bundle: Path, original: nn.Module):
    text = (bundle / file).read_text(encoding="utf-8")
    assert old in text
    (bundle / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert failed(mofa_compiler.verify(bundle, original))["report"].startswith(f"{file} does not show report.json")


def test_a_checkpoint_whose_name_breaks_lines(bundle: Path, original: nn.Module):
    document = json.loads((bundle / "recipe.json").read_text())
    document["original"] = {"sha256": "0" * 64, "checkpoint": "a\x1b[31m\nb"}
    (bundle / "recipe.json").write_text(json.dumps(document))
    assert failed(mofa_compiler.verify(bundle, original))["original"].isprintable()


@pytest.mark.slow
def test_a_report_that_does_not_repeat(bundle: Path, original: nn.Module):
    file = bundle / "report.json"
    report = json.loads(file.read_text())
    report["passes"][0]["verdict"]["relative_error"] *= 0.5
    file.write_text(json.dumps(report))
    assert (
        "report.json says sepconv-to-pconv moved the output by "
        in failed(mofa_compiler.verify(bundle, original))["report"]
    )
    report["after"]["macs"] += 1
    file.write_text(json.dumps(report))
    assert "macs after the rewrite" in failed(mofa_compiler.verify(bundle, original))["report"]
    file.write_text("{}")
    assert "report.json is no report" in failed(mofa_compiler.verify(bundle, original))["report"]
    file.unlink()
    assert failed(mofa_compiler.verify(bundle, original)) == {
        "files": "there is no report.json",
        "report": "there is no report.json",
    }


def test_another_checkpoint(saved: Path, original: nn.Module):
    other = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    problems = failed(mofa_compiler.verify(saved, other))
    assert "is not what the recipe makes of this original: another checkpoint?" in problems["weights"]
    assert "made from another checkpoint, or changed" in problems["report"]


def test_another_architecture(saved: Path):
    with raising(BundleError, "other-original", "architectures.unet.UNet"):
        mofa_compiler.verify(saved, NAFNet(width=4))
    with raising(VerificationError, "no-data"):
        mofa_compiler.verify(saved)


def test_a_result(result: Result):
    found = mofa_compiler.verify(result)
    assert found.ok
    assert [check.name for check in found.checks] == ["exactness", "output", "another size"]


def test_a_broken_pass_is_named():
    model = chain(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)).eval()
    found = mofa_compiler.verify(apply(model, [Broken(how="reference")], torch.rand(1, 8, 16, 16)))
    assert not found.ok
    assert found.problems[0].startswith("broken was declared exact, but the whole network's output is off by")
    size = mofa_compiler.verify(apply(model, [Broken(how="size")], torch.rand(1, 8, 16, 16)))
    assert [check.name for check in size.checks if not check.ok] == ["exactness", "another size"]


def test_what_is_lowered_behind_a_calibration(original: nn.Module, tmp_path: Path):
    batches = [torch.rand(2, 3, 16, 16) for _ in range(3)]
    passes = [SepConvToPConv(), MergeLinear()]
    result = apply(original, passes, batches[0], Calibration(batches, tuning=0))
    assert [step.name for step in result.steps] == ["sepconv-to-pconv", "calibration", "merge-linear"]
    assert mofa_compiler.verify(result.save(tmp_path / "bundle"), original).problems == ()
