"""Running rules that need an engine, and what fixes are measured to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler.base.errors import EngineError, LintError
from mofa_compiler.lint import Finding, lint
from mofa_compiler.lint.config import Config
from mofa_compiler.lint.rules import RULES
from mofa_compiler.lint.runner import Job, lint_model
from mofa_compiler.lint.session import Options, run
from mofa_compiler.result.decisions import Comparison
from tests.raising import raising

X = torch.rand(1, 3, 16, 16)


class Eigenvalues(nn.Module):
    """ONNX has no such operator."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.linalg.eigvals(x[..., :8, :8]).real.amax()


class ChannelMean(nn.Module):
    """XNNPACK takes no mean over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


def around(inner: nn.Module) -> nn.Sequential:
    first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
    return nn.Sequential(first, nn.Sequential(nn.ReLU(), inner), nn.ReLU(), last).eval()


@pytest.mark.parametrize(
    ("inner", "engine", "message"),
    [(Eigenvalues(), "onnxruntime", "cannot be exported"), (ChannelMean(), "xnnpack", "mean.dim is not delegated")],
)
@pytest.mark.slow
def test_operators_that_an_engine_does_not_take(inner: nn.Module, engine: str, message: str) -> None:
    model = around(inner)
    (finding,) = lint(model, X, select=["MOFA404"], engine=engine).findings
    assert (finding.path, finding.level) == ("1.1", "error" if engine == "onnxruntime" else "warning")
    assert message in finding.message
    assert lint(around(nn.ReLU()), X, select=["MOFA404"], engine=engine).findings == ()


def test_rules_that_need_an_engine() -> None:
    model = around(nn.ReLU())
    with raising(LintError, "needs-option", "MOFA404"):
        lint(model, X, select=["MOFA404"])
    with raising(EngineError, "unknown-name", "'onnxruntime'"):
        lint(model, X, engine="onnxrutime")


BUDGETS = 'reference = "old"\nbudgets = { latency-ratio = 2.0 }\n'
"""With them the network is timed against one of its own, which takes seconds"""


def job(folder: Path, model: nn.Module, budgets: str = "", **more: Any) -> Job:
    """A job for `model` by the settings of a configuration file, perhaps with lines on a reference and its budgets."""
    file = folder / "mofa.toml"
    file.write_text(f'engine = "eager"\n[[models]]\ntarget = "net.py:Net"\n{budgets}')
    config = Config.load(file, RULES)
    settings = config.settings_for(config.models[0])
    return Job("net", "net.py:Net", lambda: (model, {}), lambda _: X, settings, lambda: around(nn.ReLU()), **more)


def findings(job: Job, code: str) -> list[Finding]:
    return [finding for finding in lint_model(job).linted.findings if finding.code == code]


def test_latency_against_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measure(a: nn.Module, b: nn.Module, **settings: Any) -> Any:
        asked.append((a, b, settings["engine"]))
        return type("M", (), {"ratio": ratio, "interval": (ratio - 0.1, ratio + 0.1)})

    monkeypatch.setattr("mofa_compiler.runtime.measure", measure)
    model = around(nn.ReLU())
    for value, found in ((2.05, 0), (2.2, 1)):
        ratio = value
        assert len(findings(job(tmp_path, model, BUDGETS), "MOFA504")) == found
    assert asked[0][0] is model and asked[0][1] is not model and asked[0][2] == "eager"


@pytest.mark.parametrize(("ratio", "found"), [(0.8, 1), (1.3, 0)])
def test_fixes_that_were_measured(ratio: float, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run measures to be slower is no finding there; what was measured once is at hand from then on."""
    monkeypatch.setenv("MOFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "mofa_compiler.lint.timing.Trials.networks",
        lambda *_: [Comparison("fixed", 10 * ratio, 10.0, ratio, (ratio - 0.1, ratio + 0.1), (0.99, 1.01))],
    )
    model = around(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    (plain,) = findings(job(tmp_path, model), "MOFA201")
    assert plain.fix is not None and plain.fix.ratio is None
    measured = lint_model(job(tmp_path, model, measure=True)).linted
    assert len([finding for finding in measured.findings if finding.code == "MOFA201"]) == found
    assert any(text.startswith("slower on eager") for text in measured.suppressed) == (not found)
    (again,) = findings(job(tmp_path, model), "MOFA201")
    assert again.fix is not None
    assert (again.fix.ratio, again.fix.ms) == (ratio, pytest.approx(10 * ratio - 10))


def test_fixes_are_measured_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mofa_compiler.autotune import benchmark

    monkeypatch.setenv("MOFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(benchmark, "WHOLE_SECONDS", 0.05)
    monkeypatch.setattr(benchmark, "NOISY", 1e9)
    model = around(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    lint_model(job(tmp_path, model, measure=True))
    (found,) = findings(job(tmp_path, model), "MOFA201")
    assert found.fix is not None and found.fix.ratio is not None and found.fix.ratio > 0


def test_a_failing_rule_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(RULES["MOFA202"], "message", fail)
    model = around(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)))
    codes = {finding.code: finding.message for finding in lint(model, X).findings}
    assert codes.keys() >= {"MOFA201", "MOFA903"}
    assert "rule MOFA202 (dense-convolution) failed: ZeroDivisionError" in codes["MOFA903"]


def test_the_model_is_not_changed() -> None:
    model = around(nn.Conv2d(4, 4, 3, padding=1, groups=4)).train()
    model[0].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lint(model, X, select=["MOFA"], ignore=["MOFA404", "MOFA504"])
    assert model.training and not model[0].training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Odd(nn.Module):
    """Raises where nobody expects it."""

    def __init__(self, where: str, error: BaseException):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.where, self.error = where, error

    def train(self, mode: bool = True) -> Odd:
        if self.where == "train" and not mode:
            raise self.error
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "forward":
            raise self.error
        return self.conv(x)


@pytest.mark.parametrize("error", [IndexError("no"), SystemExit(5), RuntimeError("no")])
@pytest.mark.parametrize(("where", "code"), [("train", "MOFA901"), ("forward", "MOFA902")])
def test_whatever_a_model_raises_is_a_finding(where: str, code: str, error: BaseException, tmp_path: Path) -> None:
    report = lint_model(job(tmp_path, Odd(where, error), BUDGETS))
    assert [finding.code for finding in report.linted.findings] == [code]


def test_functional_convolutions_are_convolutions() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight, padding=1)

    assert [finding.code for finding in lint(Functional(), X).findings] == []
    scripted = torch.jit.script(around(nn.ReLU()))
    assert [finding.code for finding in lint(scripted, X).findings] == ["MOFA902"]


def test_a_latency_budget_that_cannot_be_looked_at_is_an_error() -> None:
    with raising(LintError, "bad-value", "budgets.latency-ratio", "reference"):
        lint(around(nn.ReLU()), X, engine="eager", budgets={"latency-ratio": 1.0})
    with raising(LintError, "bad-value", "engine"):
        lint(around(nn.ReLU()), X, budgets={"latency-ratio": 1.0})


@pytest.mark.slow
def test_stages_have_budgets_for_memory_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from architectures import UNet\n"
        "def net():\n    return UNet(width=8, depth=2)\n"
        "def small():\n    return UNet(width=2, depth=2)\n"
    )
    config = (
        'engine = "eager"\nselect = ["MOFA5"]\n[[models]]\ntarget = "net.py:net"\nreference = "net.py:{}"\n'
        'input = "1x3x64x64"\n[models.budgets.stages]\n'
        '"encoder 1" = {{ activation-memory = "{}", latency-ratio = {} }}\n'
    )

    def findings(*settings: object) -> list[tuple[str, str | None]]:
        Path("mofa.toml").write_text(config.format(*settings))
        (linted,) = run(Options(), lambda *_: None, lambda _: None).outcome.models
        return [(finding.code, finding.stage) for finding in linted.findings]

    assert findings("net", "1GB", 1000) == []
    assert findings("net", "1kB", 1000) == [("MOFA503", "encoder 1")]
    assert findings("small", "1GB", 0.001) == [("MOFA504", "encoder 1")]
    Path("mofa.toml").write_text(config.format("net", "1GB", 1).replace('engine = "eager"\n', ""))
    with raising(LintError, "bad-value", 'stages."encoder 1".latency-ratio', "engine"):
        run(Options(), lambda *_: None, lambda _: None)
