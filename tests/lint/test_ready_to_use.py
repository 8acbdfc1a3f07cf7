"""What other repositories take over: the pre-commit hook and the GitHub Action, whose steps are run here."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(*(nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 16), (16, 16), (16, 3))))
"""
CONFIG = '[[models]]\ntarget = "net.py:Net"\ninput = "1x3x32x32"\n'
ENVIRON = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PIP_NO_INDEX": "1"}

OFFLINE = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": "installed"}
"""Everything is installed already; pip reads 0 as the value of the option `build isolation`"""


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    Path("mofa.toml").write_text(CONFIG)


def run_steps(inputs: dict[str, str]) -> tuple[dict[str, int], dict[str, str]]:
    """Every step of the action in bash, as GitHub runs composite actions; the exit codes, and what steps put out."""
    action = yaml.safe_load((ROOT / ".github" / "actions" / "lint" / "action.yml").read_text())
    values = {f"inputs.{name}": inputs.get(name, one["default"]) for name, one in action["inputs"].items()}
    clone = Path("action").absolute()  # building leaves files behind
    subprocess.run(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), str(clone)], check=True)
    values["github.action_path"] = str(clone / ".github" / "actions" / "lint")
    assert inputs.keys() <= action["inputs"].keys()
    codes: dict[str, int] = {}
    for step in action["runs"]["steps"]:
        if "run" not in step:
            assert step["uses"].startswith("github/codeql-action/upload-sarif@")
            continue
        given = {k: re.sub(r"\$\{\{ (.*?) \}\}", lambda m: values[m[1]], v) for k, v in step.get("env", {}).items()}
        outputs = Path("outputs").absolute()
        outputs.write_text("")
        environ = {**ENVIRON, **given, "GITHUB_OUTPUT": str(outputs)}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        folder = "." if "working-directory" not in step else values["inputs.working-directory"]
        if step["name"] == "Install":
            environ |= OFFLINE
        codes[step["name"]] = subprocess.run(command, env=environ, cwd=folder, check=False).returncode
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{name}"] = value
        if codes[step["name"]]:
            break
    return codes, values


@pytest.mark.slow
def test_the_action_uploads_findings_and_fails_after_that() -> None:
    codes, _ = run_steps({})
    assert codes == {"Install": 0, "Lint": 0, "Result": 1}
    (run,) = json.loads(Path("mofa.sarif").read_text())["runs"]
    (result,) = run["results"]
    assert result["ruleId"] == "MOFA202"
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "net.py"


@pytest.mark.slow
def test_the_action_on_a_clean_model() -> None:
    codes, _ = run_steps({"args": "--select MOFA5", "sarif-file": "other.sarif"})
    assert codes == {"Install": 0, "Lint": 0, "Result": 0}
    assert json.loads(Path("other.sarif").read_text())["runs"][0]["results"] == []


@pytest.mark.slow
def test_the_action_says_what_is_wrong_with_the_configuration() -> None:
    Path("mofa.toml").write_text("modls = []\n")
    codes, _ = run_steps({})
    assert codes == {"Install": 0, "Lint": 1}


@pytest.mark.slow
def test_the_hook_runs() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == "mofa-lint" and hook["language"] == "python" and not hook["pass_filenames"]
    done = subprocess.run(shlex.split(hook["entry"]), env=ENVIRON, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "MOFA202" in done.stdout


def test_the_guide_shows_what_there_is() -> None:
    guide = (ROOT / "examples" / "guides" / "how-to" / "ci.md").read_text(encoding="utf-8")
    for shown in (".github/actions/lint", "id: mofa-lint", "pytest.mark.mofa_clean", "assert_clean"):
        assert shown in guide
