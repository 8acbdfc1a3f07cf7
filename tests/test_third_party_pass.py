"""A pass in a separate package is found through its entry point, at the command line and in roadmaps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

SCRIPT = """
import torch
from architectures import PMRID
from mofa_compiler import Roadmap, apply

roadmap = Roadmap.from_toml('[[pass]]\\nname = "crop-kernels"\\nkeep = 0.2\\n[[pass]]\\nname = "sepconv-to-pconv"')
result = apply(PMRID(), roadmap, torch.rand(1, 3, 32, 32))
print(len(result.diffs[0].edits), result.diffs[0].edits[0].after, result.diffs[1].edits[0].before)
"""


SEARCH = """
import torch
from mofa_compiler import Roadmap, apply
from mofa_compiler.autotune import search
from tests.autotune.small import Tower, depthwise_taps, invented

search.Trials = invented(depthwise_taps)
tower = Tower().eval()
for block in tower.blocks:
    for conv in (block.narrow[0], block.wide[0]):
        conv.weight.data[..., (0, 4), :] = conv.weight.data[..., (0, 4)] = 0
result = apply(tower, Roadmap([]).with_target("eager"), torch.rand(1, 3, 32, 32))
print(*(one.chosen for one in result.decisions.layers), *(pass_.name for pass_ in result.roadmap), sep="; ")
print({conv.kernel_size for conv in result.model.modules() if getattr(conv, "groups", 1) > 1})
"""

MISSPELT = '[[pass]]\nname = "crop-kernels"\nkeeep = 0.9\n'


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds the installed package."""
    folder = tmp_path_factory.mktemp("third-party")
    package, site = folder / "package", folder / "site"
    package.mkdir()
    for file in (EXAMPLES / "third_party_pass").glob("*.*"):
        (package / file.name).write_bytes(file.read_bytes())
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(package)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(EXAMPLES)])}


def mofa(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mofa_compiler.cli", *arguments], env=env, capture_output=True, text=True
    )


@pytest.mark.slow
def test_installed_package_is_found(env: dict[str, str]):
    listed = mofa(env, "passes")
    assert listed.returncode == 0
    assert "crop-kernels" in listed.stdout
    applied = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    assert applied.stdout.split(maxsplit=1) == [
        "20",
        "Conv2d(16, k3, depthwise) Conv2d(16, k3, depthwise)\n",
    ]


@pytest.mark.slow
def test_an_approximate_pass_takes_part_in_the_search(env: dict[str, str]):
    """No roadmap names it, and it follows one of ours; the times are invented."""
    path = os.pathsep.join([env["PYTHONPATH"], str(EXAMPLES.parent)])
    done = subprocess.run(
        [sys.executable, "-c", SEARCH], env={**env, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    chosen, kernels = done.stdout.splitlines()
    assert chosen == "pointwise-first + crop-kernels; crop-kernels; pointwise-first; crop-kernels"
    assert kernels == "{(3, 3)}"


@pytest.mark.slow
def test_a_misspelt_option_is_an_error_that_names_it(env: dict[str, str], tmp_path: Path):
    """The package does not forbid unknown options itself."""
    roadmap = tmp_path / "mine.toml"
    roadmap.write_text(MISSPELT)
    model = f"{EXAMPLES / 'architectures' / 'pmrid.py'}:PMRID"
    out = tmp_path / "out"
    refused = mofa(env, "rewrite", model, "--input", "1x3x32x32", "--roadmap", str(roadmap), "--out", str(out))
    assert refused.returncode == 1
    assert "pass 1: crop-kernels has no option 'keeep' (did you mean 'keep'?)" in " ".join(refused.stderr.split())
    assert not out.exists()


@pytest.mark.slow
def test_what_holds_for_every_pass_is_checked_on_its_own_example(env: dict[str, str]):
    """Once from its own package, once by this repository's test, which finds it as installed."""
    own = (
        "from crop_kernels import CropKernels; from gelu_to_relu import GeluToRelu; "
        "from mofa_compiler.testing import check_pass; check_pass(CropKernels); check_pass(GeluToRelu)"
    )
    subprocess.run([sys.executable, "-c", own], env=env, capture_output=True, text=True, check=True)
    test = f"{Path(__file__).parent / 'passes' / 'test_every_pass.py'}::test_rewrites_its_example"
    tests = [f"{test}[{name}]" for name in ("crop-kernels", "gelu-to-relu")]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], env=env, capture_output=True, text=True, check=True)
