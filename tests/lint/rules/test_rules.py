"""Every rule finds what it is for, and nothing in what its documentation advises instead."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler.lint import lint
from mofa_compiler.lint.finding import Finding
from mofa_compiler.lint.rules import RULES
from mofa_compiler.nn.partial_conv import PConv2d, PDWConv2d

FAILURES = {"MOFA001", "MOFA901", "MOFA902", "MOFA903", "MOFA904"}
"""Rules that the run itself raises; tests/lint/test_runner.py"""


def between(*inner: nn.Module, channels: int = 16) -> nn.Sequential:
    """Layers between a first and a last convolution, which no pass touches."""
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *inner, nn.Conv2d(channels, 3, 3, padding=1))


def found(code: str, model: nn.Module, size: int = 32, **settings: object) -> list[Finding]:
    settings = {"select": [code], **settings}
    return list(lint(model.eval(), torch.rand(1, 3, size, size), **settings).findings)  # type: ignore[arg-type]


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, -x.shape[3] % 16, 0, 1 + -x.shape[2] % 16)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.both = nn.Conv2d(16, 32, 1)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.both(self.first(x)).chunk(2, dim=1)
        return self.last(a * b)


class Skipping(nn.Module):
    """A U-Net of partial convolutions: two stages down, so that the last encoder stage is a middle one."""

    def __init__(self, portions: tuple[int, int, int] = (4, 8, 16), blocks: int = 2) -> None:
        super().__init__()
        first, second, third = portions

        def body(channels: int, convolved: int) -> nn.Sequential:
            layers = [
                (PConv2d(channels, convolved), nn.Conv2d(channels, channels, 1), nn.ReLU()) for _ in range(blocks)
            ]
            return nn.Sequential(*(one for layer in layers for one in layer))

        self.head = nn.Conv2d(3, 16, 3, padding=1)
        self.enc1, self.down1 = body(16, first), nn.Conv2d(16, 32, 2, 2)
        self.enc2, self.down2 = body(32, second), nn.Conv2d(32, 64, 2, 2)
        self.bottom = body(64, third)
        self.up2, self.dec2 = nn.ConvTranspose2d(64, 32, 2, 2), body(32, second)
        self.up1, self.dec1 = nn.ConvTranspose2d(32, 16, 2, 2), body(16, first)
        self.tail = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(self.head(x))
        b = self.enc2(self.down1(a))
        y = self.bottom(self.down2(b))
        y = self.dec2(self.up2(y) + b)
        return self.tail(self.dec1(self.up1(y) + a))


BAD: dict[str, Callable[[], nn.Module]] = {
    "MOFA101": lambda: PMRIDWithPConvs(),
    "MOFA102": lambda: Skipping(),
    "MOFA103": lambda: Skipping((8, 8, 16)),
    "MOFA104": lambda: PMRID(),
    "MOFA201": lambda: between(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)),
    "MOFA202": lambda: between(nn.Conv2d(16, 16, 3, padding=1)),
    "MOFA203": lambda: between(PConv2d(128, 32), nn.Conv2d(128, 128, 1), channels=128),
    "MOFA204": lambda: between(
        nn.AvgPool2d(2), nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Conv2d(16, 16, 1), nn.Upsample(scale_factor=2)
    ),
    "MOFA205": lambda: between(nn.Conv2d(16, 64, 1), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 16, 1)),
    "MOFA301": lambda: between(nn.ConvTranspose2d(16, 16, 2, 2)),
    "MOFA302": lambda: between(nn.Conv2d(16, 64, 1), nn.PixelShuffle(2)),
    "MOFA303": lambda: between(nn.Upsample(scale_factor=2), nn.Conv2d(16, 16, 1)),
    "MOFA304": lambda: between(nn.Conv2d(16, 16, 3, 2, 1)),
    "MOFA401": lambda: between(PDWConv2d(16, 4), nn.Conv2d(16, 16, 1)),
    "MOFA402": lambda: NAFNet(width=8, enc_blk_nums=(1,), dec_blk_nums=(1,)),
    "MOFA403": lambda: Padded(),
    "MOFA405": lambda: Gated(),
    "MOFA406": lambda: between(nn.Conv2d(16, 64, 1, bias=False), nn.PixelShuffle(2)),
    "MOFA407": lambda: between(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)),
    "MOFA905": lambda: Hidden(),
}
GOOD: dict[str, Callable[[], nn.Module]] = {
    "MOFA101": lambda: PMRID(),
    "MOFA102": lambda: Skipping((4, 16, 16)),
    "MOFA103": lambda: Skipping((4, 8, 16)),
    "MOFA104": lambda: between(nn.Conv2d(16, 16, 3, padding=1)),
    "MOFA201": lambda: between(PConv2d(16, 4), nn.Conv2d(16, 16, 1)),
    "MOFA202": lambda: between(PConv2d(16, 4), nn.Conv2d(16, 16, 1)),
    "MOFA203": lambda: between(PDWConv2d(128, 32), nn.Conv2d(128, 128, 1), channels=128),
    "MOFA204": lambda: between(nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Conv2d(16, 16, 1)),
    "MOFA205": lambda: between(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)),
    "MOFA301": lambda: between(nn.Conv2d(16, 16, 1), nn.Upsample(scale_factor=2)),
    "MOFA302": lambda: between(nn.Conv2d(16, 16, 1), nn.Upsample(scale_factor=2)),
    "MOFA303": lambda: between(nn.Conv2d(16, 16, 1), nn.Upsample(scale_factor=2), nn.ReLU()),
    "MOFA304": lambda: between(nn.AvgPool2d(2), PConv2d(16, 4), nn.Conv2d(16, 16, 1)),
    "MOFA401": lambda: between(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)),
    "MOFA402": lambda: UNet(width=4, depth=1),
    "MOFA403": lambda: between(nn.ZeroPad2d(1)),
    "MOFA405": lambda: between(nn.Conv2d(16, 16, 1)),
    "MOFA406": lambda: between(nn.ConvTranspose2d(16, 16, 2, 2)),
    "MOFA407": lambda: between(nn.Conv2d(16, 16, 1), nn.ReLU()),
    "MOFA905": lambda: between(nn.ReLU()),
}


class PMRIDWithPConvs(nn.Sequential):
    """PMRID after the first pass, whose partial convolutions are at their minimum in every stage."""

    def __init__(self) -> None:
        import mofa_compiler
        from mofa_compiler.passes import SepConvToPConv

        super().__init__()
        self.net = mofa_compiler.apply(PMRID().eval(), [SepConvToPConv()], torch.rand(1, 3, 64, 64)).model

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Hidden(nn.Module):
    """A part that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.inner = Looping()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.conv(x))


class Looping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while float(x.abs().max()) > 1:
            x = x / 2
        return x


@pytest.mark.parametrize("code", BAD)
@pytest.mark.sample(3)
def test_a_rule_finds_what_it_is_for(code: str) -> None:
    findings = found(code, BAD[code](), size=64)
    assert findings and {finding.code for finding in findings} == {code}
    for finding in findings:
        assert finding.rule == RULES[code].name
        assert finding.message and not finding.message.endswith(".")
        assert finding.signature
        if RULES[code].fixes is not None:
            assert finding.fix is not None and finding.fix.passes
            assert finding.fix.exact or RULES[code].fixes == "approximate"


@pytest.mark.parametrize("code", GOOD)
@pytest.mark.sample(6)
def test_a_rule_is_silent_on_what_it_advises(code: str) -> None:
    assert found(code, GOOD[code](), size=64) == []


def test_every_rule_is_tried() -> None:
    assert BAD.keys() == GOOD.keys()
    elsewhere = {"MOFA206", "MOFA404", "MOFA408", "MOFA501", "MOFA502", "MOFA503", "MOFA504"}
    assert BAD.keys() | FAILURES | elsewhere == RULES.keys()


@pytest.mark.parametrize("code", RULES)
def test_a_rule_is_documented(code: str) -> None:
    rule = RULES[code]
    text = inspect.getdoc(rule) or ""
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections[:3] == ["What it does", "Why is this bad?", "Example"] and sections[-1] == "Fix safety"
    assert set(sections[3:-1]) <= {"Use instead"}
    assert rule.summary() and re.fullmatch(r"[a-z0-9-]+", rule.name) and re.fullmatch(r"MOFA[0-59]\d\d", code)
    safety = text.partition("## Fix safety")[2].strip()
    start = {"exact": "Safe", "approximate": ("Unsafe", "Safe for"), None: "There is no fix"}[rule.fixes]
    assert safety.startswith(start)


def test_names_and_codes_are_unique() -> None:
    assert len({rule.name for rule in RULES.values()}) == len(RULES)
    assert all(code == rule.code for code, rule in RULES.items())


def test_thresholds_are_taken() -> None:
    model = BAD["MOFA203"]()
    assert found("MOFA203", model, thresholds={"pdwconv": 32})
    assert not found("MOFA203", model, thresholds={"pdwconv": 33})


def test_budgets() -> None:
    model = between(nn.Conv2d(16, 16, 3, padding=1))
    parameters = sum(p.numel() for p in model.parameters())
    select = ["MOFA5"]
    assert not found("", model, select=select, budgets={"parameters": parameters})
    (finding,) = found("", model, select=select, budgets={"parameters": parameters - 1})
    assert finding.code == "MOFA501" and f"{parameters:,}" in finding.message and finding.level == "error"
    codes = [f.code for f in found("", model, select=select, budgets={"macs": "1k", "activation-memory": "1kB"})]
    assert codes == ["MOFA502", "MOFA503"]


def test_what_cannot_be_seen_into_passes_no_budget() -> None:
    (finding,) = found("", Hidden(), select=["MOFA5"], budgets={"macs": "1G", "parameters": "1G"})
    assert finding.code == "MOFA502" and "inner cannot be seen into" in finding.message


def test_a_stage_budget() -> None:
    (finding,) = found("", Skipping(), select=["MOFA5"], budgets={"stages": {"encoder 1": {"macs": 1}}})
    assert (finding.code, finding.stage) == ("MOFA502", "encoder 1")
