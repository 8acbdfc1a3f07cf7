"""What no bundle can hold is known beforehand, all of it, and the same wherever it is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import mofa_compiler
from architectures import NAFNet, UNet
from architectures.nafnet import LayerNorm2d, LayerNormFunction
from mofa_compiler import Roadmap, capture
from mofa_compiler.base.errors import BundleError
from mofa_compiler.bundle.obstacles import Obstacle, obstacles, sentence
from mofa_compiler.cli import app
from mofa_compiler.passes import LowerLayerNorm
from tests.raising import raising


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 4 else -x


class Scaled(nn.Conv2d):
    """Computes as a convolution does, but its own `train` is no code that a bundle can do without."""

    def train(self, mode: bool = True) -> Scaled:
        super().train(mode)
        return self


def hooked() -> nn.Conv2d:
    layer = nn.Conv2d(4, 4, 1)
    layer.register_forward_hook(lambda module, args, output: output * 2)
    return layer


@torch.fx.wrap
def unknown(x: Tensor) -> Tensor:
    return x * FACTORS.sum()


FACTORS = torch.ones(2)


class Calls(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return unknown(x)


class Held(nn.Module):
    def __init__(self, tensor: Tensor):
        super().__init__()
        self.register_buffer("held", tensor)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize(
    ("make", "path", "said"),
    [
        (Branch, "1", "could not be traced"),
        (lambda: Scaled(4, 4, 1), "1", "not torch's own"),
        (hooked, "1", "hooks"),
        (Calls, "1", "unknown uses 'FACTORS'"),
        (lambda: Held(torch.zeros(1, dtype=torch.complex128)), "1.held", "torch.complex128"),
    ],
    ids=["opaque", "own layer", "hooks", "function", "precision"],
)
def test_every_kind_is_found_at_its_place(make: Callable[[], nn.Module], path: str, said: str) -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), make()).eval()
    (found,) = obstacles(capture(network, torch.rand(1, 4, 8, 8)))
    assert found.path == path and said in found.reason


def test_all_of_them_are_found() -> None:
    network = nn.Sequential(Branch(), Scaled(4, 4, 1), nn.Conv2d(4, 4, 1), hooked(), Calls(), Calls()).eval()
    found = obstacles(capture(network, torch.rand(1, 4, 8, 8)))
    assert [one.path for one in found] == ["0", "1", "3", "4", "5"]
    assert sentence(found).endswith("(4 more: see `mofa capture`)")


@pytest.mark.parametrize("network", [UNet(width=4, depth=2), NAFNet(width=4, enc_blk_nums=(1,), dec_blk_nums=(1,))])
@pytest.mark.sample(1)
def test_what_can_be_saved_has_none(network: nn.Module, tmp_path: Path) -> None:
    result = mofa_compiler.apply(network.eval(), "mofa", torch.rand(1, 3, 16, 16), to_save=True)
    assert not obstacles(result.original.program) and not obstacles(result.rewritten.program)
    result.save(tmp_path / "bundle")


def test_what_the_parts_come_to_is_found_by_writing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    program = capture(UNet(width=4, depth=2).eval(), torch.rand(1, 3, 16, 16))
    for text in ("class", "Model = 1 / 0", "from torch import nn\nclass Model(nn.Module): pass"):
        monkeypatch.setattr("mofa_compiler.bundle.obstacles.emit", lambda *_, text=text: text)
        known = set(sys.modules)
        (found,) = obstacles(program)
        assert isinstance(found, Obstacle) and found.reason
        assert not {name for name in set(sys.modules) - known if name.startswith("mofa_bundle")}


def test_it_is_refused_before_any_pass_runs() -> None:
    steps: list[str] = []
    network = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Branch()).eval()
    with raising(BundleError, "no-source"):
        mofa_compiler.apply(
            network, "mofa", torch.rand(1, 4, 16, 16), to_save=True, progress=lambda name, *_: steps.append(name)
        )
    assert steps == ["capturing"]
    assert mofa_compiler.apply(network, "mofa", torch.rand(1, 4, 16, 16)).diffs  # but not where it is not to be saved


def test_constants_that_go_into_the_weights_are_looked_at() -> None:
    class Constants(nn.Module):
        def __init__(self, dtype: torch.dtype):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.register_buffer("noise", torch.rand(1, 8, 16, 16).to(dtype), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.noise.abs()

    x = torch.rand(1, 3, 16, 16)
    (found,) = obstacles(capture(Constants(torch.complex128).eval(), x))
    assert found.path == "noise"
    with raising(BundleError, "no-source"):  # also among such
        mofa_compiler.apply(nn.Sequential(Constants(torch.float32), Branch()).eval(), "mofa", x, to_save=True)


# Without a file behind it there is no source
Sourceless: Any = type("Sourceless", (LayerNormFunction,), {"__module__": "nowhere"})


class Norm(LayerNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return Sourceless.apply(x, self.weight, self.bias, self.eps)


def test_what_a_pass_takes_away_is_no_obstacle(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Norm(4), nn.Conv2d(4, 3, 3, padding=1)).eval()
    x = torch.rand(1, 3, 16, 16)
    with raising(BundleError, "no-source"):
        mofa_compiler.apply(network, [], x, to_save=True)
    result = mofa_compiler.apply(network, Roadmap([LowerLayerNorm()], name="lower"), x, to_save=True)
    mofa_compiler.load(result.save(tmp_path / "bundle"))


NETWORK = """
from torch import nn

class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 4 else -x

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.branch, self.last = nn.Conv2d(3, 8, 3, padding=1), Branch(), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        return self.last(self.branch(self.first(x)))
"""


@pytest.fixture
def mofa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "branching.py").write_text(NETWORK)

    def run(command: str, *more: str) -> Result:
        return CliRunner().invoke(app, [command, "branching.py:Net", "--input", "1x3x16x16", *more])

    return run


def test_every_command_says_the_same(mofa: Callable[..., Result], tmp_path: Path) -> None:
    captured = mofa("capture", "--json")
    (found,) = json.loads(captured.stdout)["obstacles"]
    assert captured.exit_code == 0 and found["path"] == "branch"
    assert found["reason"] in mofa("capture").stdout
    for more in ((), ("--roadmap", "mofa")):
        assert json.loads(mofa("analyze", "--json", *more).stdout)["obstacles"] == [found]
        assert found["reason"] in mofa("analyze", *more).stdout
    rewritten, dry = mofa("rewrite", "--out", "out"), mofa("rewrite", "--dry-run")
    assert rewritten.exit_code == dry.exit_code == 1
    assert found["reason"] in rewritten.stderr and found["reason"] in dry.stderr
    assert not rewritten.stdout and "Parameters" in dry.stdout
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["branching.py"]
