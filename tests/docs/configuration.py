"""TOML and YAML blocks: read by what reads them at a user's; the steps of workflows as commands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = "mofa-compiler/mofa-compiler"
ACTIONS = {"actions/checkout", "actions/setup-python", "actions/upload-artifact"}
"""Other people's, which cannot be run here"""


def readers(source: str, file: Path) -> list[str]:
    """The command that reads this file, a linter's configuration or a roadmap; a project's are on its page.

    Raises:
        AssertionError: it is none of them.
    """
    data = tomllib.loads(source)
    if "pass" in data:
        return [f"python -c 'from mofa_compiler import Roadmap; Roadmap.load(\"{file}\")'"]
    if "mofa" in data.get("tool", {}) or file.name == "mofa.toml":
        rules = "from mofa_compiler.lint.rules import RULES"
        return [f"python -c '{rules}; from mofa_compiler.lint.config import Config; Config.load(\"{file}\", RULES)'"]
    assert "project" in data, f"{file}: what reads this?"
    return []


def steps(source: str, where: str, root: Path) -> Iterator[str]:
    """The commands of a workflow or of pre-commit's configuration, whose other parts are checked.

    Raises:
        AssertionError: it is neither, or names an action, input or hook that does not exist.
    """
    data = yaml.safe_load(source)
    if isinstance(data, list):
        data = {"repos": data}
    assert isinstance(data, dict) and data.keys() & {"jobs", "repos"}, f"{where}: what reads this?"
    for repository in data.get("repos", ()):
        assert repository["repo"] == f"https://github.com/{REPOSITORY}"
        known = {hook["id"]: hook for hook in yaml.safe_load((root / ".pre-commit-hooks.yaml").read_text())}
        for hook in repository["hooks"]:
            yield " ".join([known[hook["id"]]["entry"], *hook.get("args", ())])
    for job in data.get("jobs", {}).values():
        for step in job["steps"]:
            if "run" in step:
                yield step["run"]
            else:
                _check_action(step, where, root)


def _check_action(step: dict[str, Any], where: str, root: Path) -> None:
    name, at, _ = step["uses"].partition("@")
    assert at, f"{where}: {name} without a version"
    if not name.startswith(f"{REPOSITORY}/"):
        assert name in ACTIONS, f"{where}: {name}"
        return
    action = yaml.safe_load((root / name.removeprefix(f"{REPOSITORY}/") / "action.yml").read_text())
    unknown = step.get("with", {}).keys() - action["inputs"].keys()
    assert not unknown, f"{where}: {name} has no input {unknown}"
