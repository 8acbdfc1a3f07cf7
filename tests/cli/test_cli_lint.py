"""`mofa lint` and `mofa rule`, as a CI step calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mofa_compiler
import mofa_compiler.passes
from mofa_compiler.cli.lint import _FORMATS
from mofa_compiler.lint.documentation import page
from mofa_compiler.lint.formats import FORMATS
from mofa_compiler.lint.rules import RULES
from tests.cli.linted import NET, codes, lint, mofa

pytestmark = pytest.mark.usefixtures("folder")


def test_a_finding_points_at_the_line_that_made_the_layer() -> None:
    result = lint("net.py:Net", "--output-format", "concise", "--input", "1x3x32x32")
    assert result.exit_code == 1
    line = next(n for n, text in enumerate(NET.splitlines(), 1) if "groups=1 if dense" in text)
    assert result.stdout.startswith(f"net.py:{line}:13: MOFA201 depthwise convolution of all 16 channels")
    assert "[body.0]" in result.stdout


def test_exit_codes() -> None:
    assert lint("net.py:Clean").exit_code == 0
    assert lint("net.py:Net").exit_code == 1
    assert lint("net.py:Net", "--exit-zero").exit_code == 0
    assert lint("net.py:Net", "--ignore", "MOFA201").exit_code == 0
    assert lint("net.py:Branching").exit_code == 2


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("net.py:Branching", "MOFA902", "Branching"),
        ("net.py:Linear", "MOFA904", "has no Conv2d"),
        ("net.py:Needs", "MOFA901", "width"),
        ("net.py:Nothing", "MOFA901", "has no 'Nothing'"),
        ("nowhere.py:Other", "MOFA901", "there is no file"),
        ("broken.py:Other", "MOFA901", "ZeroDivisionError"),
        ("leaving.py:Other", "MOFA901", "SystemExit"),
    ],
)
def test_what_cannot_be_linted_is_a_finding(target: str, code: str, message: str) -> None:
    Path("broken.py").write_text("1 / 0\n")
    Path("leaving.py").write_text("import sys\nsys.exit(3)\n")
    result = lint(target, "net.py:Net", "--output-format", "json")
    assert result.exit_code == 2
    assert codes(result) == [code, "MOFA201"], "the other model is linted all the same"
    assert message in json.loads(result.stdout)["models"][0]["findings"][0]["message"]
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nowhere.toml"], "nowhere.toml"),
        ([], "nothing to lint"),
        (["net.py:Net", "--select", "MOFA7"], "--select"),
        (["net.py:Net", "--select", "MOFA9"], "(did you mean 'MOFA905'?)"),
        (["net.py:Net", "--output-format", "sariff"], "did you mean 'sarif'"),
        (["net.py:Net", "--engine", "xnpack"], "did you mean 'xnnpack'"),
        (["net.py:Net", "--measure"], "--measure needs an engine"),
        (["net.py:Net", "--fix"], "--out"),
        (["net.py:Net", "--unsafe-fixes"], "needs --fix"),
        (["net.py:Net", "--write-baseline"], "--baseline"),
        (["net.py:Net", "--baseline", "nowhere.json"], "--write-baseline"),
        (["net.py:Net", "--select", "MOFA504"], "MOFA504 needs an engine"),
        (["nett"], "neither a configured model"),
        (["net.py:Net", "net.py:Net"], "two models are called Net"),
        (["--arg", "width=3"], "needs a target"),
    ],
)
def test_bad_usage(arguments: list[str], message: str) -> None:
    result = lint(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


CONFIG = """
[tool.mofa]
ignore = ["MOFA403"]

[[tool.mofa.models]]
target = "net.py:Net"
args = { width = 8 }
input = "1x3x32x32"
per-path-ignores = { "body.*" = ["MOFA2"] }

[[tool.mofa.models]]
name = "dense"
target = "net.py:Net"
args = { dense = true }
input = "1x3x32x32"
budgets = { parameters = "1k" }
"""


def test_configured_models(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text(CONFIG)
    result = lint("--output-format", "json")
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)["models"]
    assert (first["model"], first["findings"], first["suppressed"]) == ("Net", [], {"per-path-ignores": 1})
    assert [finding["code"] for finding in second["findings"]] == ["MOFA202", "MOFA501"]
    assert codes(lint("dense", "--output-format", "json", "--select", "MOFA5")) == ["MOFA501"]
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert codes(lint("--output-format", "json")) == ["MOFA202", "MOFA501"]


def test_a_bad_configuration() -> None:
    Path("mofa.toml").write_text('[[models]]\ntarget = "net.py:Net"\nbudgets = { macs = "2Q" }\n')
    result = lint()
    assert result.exit_code == 2
    assert result.stderr.startswith("error: mofa.toml:3: models.budgets.macs: ")


def test_an_unknown_stage_in_a_budget() -> None:
    Path("mofa.toml").write_text(
        '[[models]]\ntarget = "net.py:Net"\nbudgets = { stages = { "encoder 9" = { macs = "2M" } } }\n'
    )
    result = lint()
    assert result.exit_code == 2
    assert "mofa.toml:3: models.budgets.stages" in result.stderr and "'encoder 9' is no stage of Net" in result.stderr


def test_suppressions_and_unused_ones() -> None:
    text = NET.replace("else width),", "else width),  # mofa: ignore[MOFA201]")
    Path("net.py").write_text(text.replace("Conv2d(width, width, 1),", "Conv2d(width, width, 1),  # mofa: ignore"))
    result = lint("net.py:Net", "--output-format", "json")
    assert codes(result) == ["MOFA001"]
    assert json.loads(result.stdout)["models"][0]["suppressed"] == {"comment": 1}


def test_a_baseline() -> None:
    assert lint("net.py:Net", "--baseline", "known.json", "--write-baseline").exit_code == 0
    assert lint("net.py:Net", "--baseline", "known.json").exit_code == 0
    Path("net.py").write_text("# moved\n" * 7 + NET)
    assert lint("net.py:Net", "--baseline", "known.json").exit_code == 0
    result = lint("net.py:Net", "--baseline", "known.json", "--arg", "dense=True", "--output-format", "json")
    assert (result.exit_code, codes(result)) == (1, ["MOFA202"]), "a new finding"
    assert "1 finding of known.json is mended" in result.stderr
    lint("net.py:Net", "--baseline", "known.json", "--arg", "dense=True", "--write-baseline")
    assert [entry["code"] for entry in json.loads(Path("known.json").read_text())["models"]["Net"]] == ["MOFA202"]


def test_two_versions() -> None:
    Path("old.py").write_text(NET)
    Path("net.py").write_text(NET.replace("nn.Conv2d(width, width, 1),", "nn.Conv2d(width, width, 3, padding=1),"))
    result = lint("net.py:Net", "--diff", "old.py:Net", "--output-format", "json")
    (model,) = json.loads(result.stdout)["models"]
    assert result.exit_code == 1
    assert [finding["code"] for finding in model["new"]] == ["MOFA202"]
    assert model["after"]["parameters"] > model["before"]["parameters"]
    text = lint("net.py:Net", "--diff", "old.py:Net", "--output-format", "markdown")
    assert "MOFA202" in text.stdout and "| Parameters |" in text.stdout
    assert lint("net.py:Net", "--diff", "net.py:Net").exit_code == 0


def test_a_bundle_as_the_other_version() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1)).eval()
    mofa_compiler.apply(model, [], torch.rand(1, 3, 32, 32)).save("bundle")
    result = lint("net.py:Net", "--diff", "bundle", "--output-format", "json")
    assert [finding["code"] for finding in json.loads(result.stdout)["models"][0]["new"]] == ["MOFA201"]


def test_two_folders_with_modules_of_the_same_name() -> None:
    for folder, groups in (("old", 16), ("new", 1)):
        Path(folder).mkdir()
        Path(folder, "blocks.py").write_text(
            f"from torch import nn\ndef block(): return nn.Conv2d(16, 16, 3, padding=1, groups={groups})\n"
        )
        Path(folder, "net.py").write_text(
            "from blocks import block\nfrom torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
            "        super().__init__(nn.Conv2d(3, 16, 3), block(), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 3, 3))\n"
        )
    result = lint("new/net.py:Net", "--diff", "old/net.py:Net", "--output-format", "json")
    assert [finding["code"] for finding in json.loads(result.stdout)["models"][0]["new"]] == ["MOFA202"]


def test_what_diff_cannot_compare() -> None:
    for reference, message in (("release/ne", "there is no such bundle"), ("net.py:Branching", "Branching")):
        result = lint("net.py:Net", "--diff", reference)
        assert result.exit_code == 2 and message in result.stderr and "--diff" in result.stderr
    several = lint("net.py:Net", "net.py:Clean", "--diff", "net.py:Net")
    assert several.exit_code == 2 and "a folder with a bundle Net" in several.stderr


def test_comments_are_no_difference() -> None:
    Path("net.py").write_text(NET.replace("nn.Conv2d(width, width, 1),", "nn.Conv2d(width, width, 1),  # mofa: ignore"))
    assert lint("net.py:Net").exit_code == 1
    assert lint("net.py:Net", "--diff", "net.py:Net").exit_code == 0


def test_a_model_that_cannot_be_linted_is_never_clean() -> None:
    Path("mofa.toml").write_text('per-path-ignores = { "*" = ["MOFA"] }\n')
    Path("net.py").write_text(NET.replace("class Branching(nn.Module):", "class Branching(nn.Module):  # mofa: ignore"))
    assert lint("net.py:Branching").exit_code == 2


def test_files_are_named_from_the_repository() -> None:
    Path(".git").mkdir()
    Path("ml").mkdir()
    Path("net.py").rename("ml/net.py")
    Path("ml/mofa.toml").write_text('[[models]]\ntarget = "net.py:Net"\n')
    assert lint("--config", "ml/mofa.toml", "--output-format", "concise").stdout.startswith("ml/net.py:")


def test_an_unknown_engine_in_the_configuration() -> None:
    Path("mofa.toml").write_text('engine = "xnpack"\n[[models]]\ntarget = "net.py:Net"\n')
    result = lint()
    assert result.exit_code == 2 and result.stderr.startswith("error: mofa.toml:1: engine: ")


def test_formats_of_the_help_are_those_there_are() -> None:
    assert set(_FORMATS) == set(FORMATS)


def test_a_glob_that_matches_nothing_is_told() -> None:
    Path("mofa.toml").write_text(
        'per-path-ignores = { "bodyy.*" = ["MOFA2"], "body.*" = ["MOFA2"] }\n[[models]]\ntarget = "net.py:Net"\n'
    )
    assert "'bodyy.*' matches no layer" in (told := lint().stderr) and "'body.*'" not in told


NOISY = """
import atexit, os, sys, warnings
import torch
from torch import nn
print("importing")
os.write(1, b"loudly\\n")
atexit.register(print, "leaving")
os.chdir("/")
torch.set_default_dtype(torch.float64)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("building")
        self.conv = nn.Conv2d(3, 3, 3, padding=1).float()
    def forward(self, x):
        print("running")
        return self.conv(x)
"""


@pytest.mark.slow
def test_what_a_model_prints_does_not_get_into_the_result() -> None:
    Path("noisy.py").write_text(NOISY)
    command = [sys.executable, "-m", "mofa_compiler.cli", "lint", "noisy.py:Net", "net.py:Clean"]
    done = subprocess.run([*command, "--output-format", "json"], capture_output=True, text=True, check=False)
    assert [model["findings"] for model in json.loads(done.stdout)["models"]] == [[], []], done.stderr
    assert all(word in done.stderr for word in ("importing", "loudly", "building", "leaving"))
    assert done.returncode == 0


def test_a_file_for_the_result() -> None:
    result = lint("net.py:Net", "--output-format", "sarif", "-o", "mofa.sarif")
    assert result.stdout == ""
    (run,) = json.loads(Path("mofa.sarif").read_text())["runs"]
    assert [one["ruleId"] for one in run["results"]] == ["MOFA201"]


def test_rule_list_and_page() -> None:
    listed = mofa("rule").stdout
    assert all(code in listed for code in RULES)
    assert max(map(len, listed.splitlines())) <= 80
    assert mofa("rule", "mofa201").stdout.startswith("# separable-convolution (MOFA201)")
    assert mofa("rule", "--all").stdout == page()
    unknown = mofa("rule", "MOFA999")
    assert unknown.exit_code == 1 and "there is no rule MOFA999" in unknown.stderr
    assert json.loads(mofa("rule", "MOFA101", "--json").stdout)["fix"] == "exact"


def test_the_page_of_the_guides_is_the_generated_one() -> None:
    guide = Path(__file__).parents[2] / "examples" / "guides" / "rules.md"
    assert guide.read_text(encoding="utf-8") == page(), "run: mofa rule --all > examples/guides/rules.md"
