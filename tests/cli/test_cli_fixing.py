"""`mofa lint --fix`: what is exact by itself, what is unsafe when asked for, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import mofa_compiler
import mofa_compiler.passes
from mofa_compiler.base.errors import MofaError
from tests.cli.linted import NET, codes, lint, model

pytestmark = pytest.mark.usefixtures("folder")


def test_exact_fixes() -> None:
    common = ["net.py:Shuffling", "--select", "MOFA406", "--select", "MOFA302", "--input", "1x3x16x16"]
    result = lint(*common, "--fix", "--out", "fixed", "--output-format", "json")
    assert codes(result) == ["MOFA302"], "the approximate one stays"
    assert result.exit_code == 1
    assert "1 of 2 findings fixed" in result.stderr
    fixed = mofa_compiler.load("fixed")
    assert any(isinstance(module, torch.nn.ConvTranspose2d) for module in fixed.modules())
    again = lint(*common, "--fix", "--out", "fixed")
    assert (again.exit_code == 2 and "--overwrite" in again.stderr + again.stdout) or "overwrite" in again.stderr


def test_what_is_called_fixable_is_fixed() -> None:
    Path("partial.py").write_text(
        "from torch import nn\nfrom mofa_compiler.nn.partial_conv import PDWConv2d\nclass Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(\n"
        "            nn.Conv2d(3, 16, 3), PDWConv2d(16, 4), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU(),\n"
        "            nn.Conv2d(16, 3, 3))\n"
    )
    common = ["partial.py:Net", "--select", "MOFA401", "--select", "MOFA407", "--input", "1x3x16x16"]
    assert len(codes(lint(*common, "--output-format", "json"))) == 2
    fixed = lint(*common, "--fix", "--out", "fixed", "--output-format", "json")
    assert (fixed.exit_code, codes(fixed)) == (0, [])


def test_no_model_is_saved_outside_the_folder() -> None:
    Path("mofa.toml").write_text(
        '[[models]]\ntarget = "net.py:Net"\nname = "../evil"\n[[models]]\ntarget = "net.py:Clean"\n'
    )
    result = lint("--fix", "--out", "below/out")
    assert result.exit_code == 2 and "'../evil' is no folder's name" in result.stderr


def test_unsafe_fixes() -> None:
    common = ["net.py:Net", "--fix", "--unsafe-fixes", "--input", "1x3x16x16"]
    result = lint(*common, "--out", "fixed", "--output-format", "json")
    assert (result.exit_code, codes(result)) == (0, [])
    assert type(mofa_compiler.load("fixed").get_submodule("body.0")).__name__ == "PConv2d"
    assert lint(*common, "--out", "other", "--exit-non-zero-on-fix").exit_code == 1


def test_fixes_keep_the_weights_of_a_checkpoint() -> None:
    torch.manual_seed(1)
    namespace: dict[str, object] = {}
    exec(NET, namespace)
    trained = namespace["Shuffling"]()  # type: ignore[operator]
    torch.save({"params": trained.state_dict()}, "net.pth")
    common = ["net.py:Shuffling", "--select", "MOFA406", "--input", "1x3x16x16", "--fix"]
    result = lint(*common, "--checkpoint", "net.pth", "--out", "fixed")
    assert "random" not in result.stderr
    x = torch.rand(1, 3, 16, 16)
    assert torch.allclose(mofa_compiler.load("fixed")(x), trained.eval()(x), atol=1e-5)
    Path("mofa.toml").write_text(
        '[[models]]\ntarget = "net.py:Shuffling"\ncheckpoint = "net.pth"\nselect = ["MOFA406"]\ninput = "1x3x16x16"\n'
    )
    assert "random" not in lint("--fix", "--out", "configured").stderr
    assert torch.allclose(mofa_compiler.load("configured")(x), trained.eval()(x), atol=1e-5)
    assert lint("--checkpoint", "net.pth").exit_code == 2


def test_a_checkpoint_that_does_not_fit_is_a_finding_of_its_model() -> None:
    torch.save({"other": torch.zeros(3)}, "other.pth")
    result = lint("net.py:Net", "--checkpoint", "other.pth", "--output-format", "json")
    assert (result.exit_code, codes(result)) == (2, ["MOFA901"])
    assert "other.pth" in json.loads(result.stdout)["models"][0]["findings"][0]["message"]


def test_a_bundle_is_linted_as_what_it_was_made_to_be() -> None:
    result = mofa_compiler.apply(model(), [mofa_compiler.passes.SepConvToPConv()], torch.rand(1, 3, 16, 16))
    result.save("bundle")
    found = lint("bundle", "--select", "MOFA2", "--output-format", "json")
    assert codes(found) == [], "its partial convolution is one"
    assert "MOFA201" in codes(lint("net.py:Net", "--select", "MOFA2", "--output-format", "json"))
    compared = lint(
        "net.py:Net", "--select", "MOFA2", "--diff", "bundle", "--input", "1x3x16x16", "--output-format", "json"
    )
    assert [one["code"] for one in json.loads(compared.stdout)["models"][0]["new"]] == ["MOFA201"]
    assert lint("bundle", "--arg", "width=3").exit_code == 2


def test_what_cannot_be_built_or_traced_is_shown_where_it_was_raised() -> None:
    Path("broken.py").write_text("1 / 0\n")
    for target, line in (("net.py:Branching", "x.mean() > 0"), ("broken.py:Other", "1 / 0")):
        findings = json.loads(lint(target, "--output-format", "json").stdout)["models"][0]["findings"]
        position = findings[0]["position"]
        assert line in Path(position["file"]).read_text().splitlines()[position["line"] - 1]


def test_one_model_whose_fix_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    save = mofa_compiler.Result.save

    def failing(self: mofa_compiler.Result, folder: Path, **options: object) -> Path:
        if Path(folder).name == "first":
            raise MofaError("no room")
        return save(self, folder, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(mofa_compiler.Result, "save", failing)
    model = '[[models]]\ntarget = "net.py:Shuffling"\nselect = ["MOFA406"]\ninput = "1x3x16x16"\nname = "{}"\n'
    Path("mofa.toml").write_text(model.format("first") + model.format("second"))
    result = lint("--fix", "--out", "fixed", "--output-format", "json")
    first, second = json.loads(result.stdout)["models"]
    assert result.exit_code == 2
    assert [finding["code"] for finding in first["findings"]] == ["MOFA406", "MOFA903"]
    assert second["findings"] == [] and [finding["code"] for finding in second["fixed"]] == ["MOFA406"]
    assert Path("fixed/second/model.py").is_file()
