"""What a tab completes in bash, zsh and fish, and that nobody waits for torch meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer

from mofa_compiler.cli import app, completion
from mofa_compiler.export import formats
from mofa_compiler.lint.rules import RULES
from mofa_compiler.rewriting.registry import available
from mofa_compiler.rewriting.roadmap import presets
from mofa_compiler.runtime import engines

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
SCRIPT = """
import sys
sys.argv[0] = "mofa"
from mofa_compiler.cli import main
try:
    main()
finally:
    print(*sorted({"torch", "numpy", "matplotlib"} & sys.modules.keys()), file=sys.stderr)
"""


def complete(line: str, shell: str = "bash") -> list[str]:
    """What the shell is told for a line that ends at the cursor."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    if shell != "bash":
        asked = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "_MOFA_COMPLETE": f"complete_{shell}", **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "", "completion imported what takes long, or failed"
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mofa ", COMMANDS),
        ("mofa rew", ["rewrite"]),
        ("mofa rewrite --roadmap ", presets()),
        ("mofa analyze --roadmap paper-p", ["paper-pmrid"]),
        ("mofa rewrite --engine x", ["xnnpack"]),
        ("mofa measure --engine eager,onn", ["eager,onnxruntime"]),
        ("mofa lint --output-format s", ["sarif"]),
        ("mofa export --to exec", ["executorch"]),
        ("mofa passes widen", ["widen-portion"]),
        ("mofa rule MOFA50", ["MOFA501", "MOFA502", "MOFA503", "MOFA504"]),
        ("mofa rewrite net.p", []),  # the shell itself offers files
    ],
)
def test_bash_completes(line: str, expected: list[str]) -> None:
    assert sorted(complete(line)) == sorted(expected)


def test_other_shells_complete() -> None:
    assert "rewrite" in "".join(complete("mofa rew", "zsh"))
    assert complete("mofa rew", "fish")[0] == "rewrite"


def test_what_is_offered_is_what_there_is() -> None:
    assert completion.engines("") == sorted(engines())
    assert completion.export_formats("") == sorted(formats())
    assert completion.roadmaps("") == presets()
    assert completion.passes("") == sorted(available())
    assert completion.rules("") == sorted(RULES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_can_be_shown(shell: str) -> None:
    environ = {**os.environ, "_MOFA_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, check=False)
    assert f"_MOFA_COMPLETE=complete_{shell}" in done.stdout, done.stderr
