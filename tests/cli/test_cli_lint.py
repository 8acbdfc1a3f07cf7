"""`mofa lint` and `mofa rule`, as a CI step calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import mofa_compiler
import mofa_compiler.passes
from mofa_compiler.base.errors import MofaError
from mofa_compiler.cli import app
from mofa_compiler.cli.lint import _FORMATS
from mofa_compiler.lint.documentation import page
from mofa_compiler.lint.formats import FORMATS
from mofa_compiler.lint.rules import RULES

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16, dense=False):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=1 if dense else width),
            nn.Conv2d(width, width, 1),
        )
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        return x + self.tail(self.body(self.head(x)))

class Clean(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 3, 3, padding=1))

class Shuffling(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 64, 1, bias=False), nn.PixelShuffle(2),
                         nn.Conv2d(16, 3, 3, padding=1))

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        return self.conv(x) if x.mean() > 0 else x

class Linear(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 3))

class Needs(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Conv2d(3, width, 1))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MOFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("net.py").write_text(NET)


def mofa(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def lint(*arguments: str) -> Result:
    return mofa("lint", *arguments)


def codes(result: Result) -> list[str]:
    return [finding["code"] for model in json.loads(result.stdout)["models"] for finding in model["findings"]]


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


def _net() -> torch.nn.Module:
    namespace: dict[str, object] = {}
    exec(NET, namespace)
    return namespace["Net"]()  # type: ignore[operator, no-any-return]


def test_an_unknown_engine_in_the_configuration() -> None:
    Path("mofa.toml").write_text('engine = "xnpack"\n[[models]]\ntarget = "net.py:Net"\n')
    result = lint()
    assert result.exit_code == 2 and result.stderr.startswith("error: mofa.toml:1: engine: ")


def test_formats_of_the_help_are_those_there_are() -> None:
    assert set(_FORMATS) == set(FORMATS)


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
    result = mofa_compiler.apply(_net(), [mofa_compiler.passes.SepConvToPConv()], torch.rand(1, 3, 16, 16))
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
