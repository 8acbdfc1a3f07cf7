"""A pass in a separate package is found through its entry point, at the command line and in roadmaps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"

SCRIPT = """
import torch
from architectures import PMRID
from mofa_compiler import Roadmap, apply

roadmap = Roadmap.from_toml('[[pass]]\\nname = "crop-kernels"\\nkeep = 0.2\\n[[pass]]\\nname = "sepconv-to-pconv"')
result = apply(PMRID(), roadmap, torch.rand(1, 3, 32, 32))
print(len(result.diffs[0].edits), result.diffs[0].edits[0].after, result.diffs[1].edits[0].before)
"""


def test_installed_package_is_found(tmp_path: Path):
    package = tmp_path / "package"
    package.mkdir()
    for file in (EXAMPLES / "third_party_pass").glob("*.*"):
        (package / file.name).write_bytes(file.read_bytes())
    site = tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(package)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(EXAMPLES)])}
    listed = subprocess.run(
        [sys.executable, "-m", "mofa_compiler.cli", "passes"], env=env, capture_output=True, text=True, check=True
    )
    assert "crop-kernels" in listed.stdout
    applied = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    assert applied.stdout.split(maxsplit=1) == [
        "20",
        "Conv2d(16, k3, depthwise) Conv2d(16, k3, depthwise)\n",
    ]
