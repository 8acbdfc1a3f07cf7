"""Two networks on a validation set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from architectures import UNet
from mofa_compiler import apply
from mofa_compiler.base.errors import VerificationError
from mofa_compiler.data.degradations import Pair
from mofa_compiler.data.validation import Named
from mofa_compiler.result.quality import Quality
from mofa_compiler.verification.validation import MULTIPLE, validate
from tests.raising import raising

UNIT = torch.tensor([0.0, 1.0])


class Calling(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def images(*shapes: tuple[int, ...], noise: float = 0.1) -> list[Named]:
    torch.manual_seed(0)
    clean = [0.4 + 0.2 * torch.rand(shape) for shape in shapes]
    return [Named(f"{i}", Pair(one + noise * torch.randn_like(one), one, UNIT)) for i, one in enumerate(clean)]


def judged(original: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], given: list[Named]) -> Quality:
    return validate(Calling(original), Calling(other), given, sides=(16, 16), name="val")


def test_against_the_clean_images() -> None:
    found = judged(lambda x: x.clamp(0.4, 0.6), lambda x: x.clamp(0.3, 0.7), images((3, 16, 20), (3, 24, 16)))
    assert found.measure == "loss" and found.inputs == 2 and found.where == "2 images of val"
    assert found.degraded < found.rewritten < found.original
    assert found.value == pytest.approx(found.original - found.rewritten)


def test_without_clean_images_against_the_original() -> None:
    given = [Named(one.name, Pair(one.pair.input, one.pair.input[:0], UNIT)) for one in images((3, 16, 20))]
    found = judged(lambda x: x, lambda x: x + 0.01, given)
    peak = float(given[0].pair.input.max() - given[0].pair.input.min())
    assert found.measure == "psnr" and found.chain == ""
    assert found.value == pytest.approx(20 * np.log10(peak / 0.01), abs=0.01)
    assert judged(lambda x: x, lambda x: x, given).value == 120


def test_labels_and_what_is_not_finite() -> None:
    given = [Named("a", Pair(torch.rand(3, 16, 16), torch.empty(0, 16, 16), UNIT))]
    twice = lambda x: torch.cat([x, x.flip(1)], 1)  # noqa: E731
    assert judged(twice, lambda x: 3 * twice(x), given).value == 1
    assert judged(twice, lambda x: -twice(x), given).value < 0.1
    assert not judged(twice, lambda x: twice(x) / 0, given).is_acceptable


def test_a_network_gets_what_it_takes() -> None:
    def even(x: Tensor) -> Tensor:
        if x.shape[2] % MULTIPLE or x.shape[3] % MULTIPLE:
            raise RuntimeError("odd")
        return x

    def fixed(x: Tensor) -> Tensor:
        assert x.shape[2:] == (16, 16)
        return x

    given = images((3, 40, 70))
    assert "of 1 the centre" in judged(even, even, given).where
    assert "of 1 the centre" in judged(fixed, fixed, given).where
    with raising(VerificationError, "wrong-input"):
        judged(fixed, fixed, images((3, 8, 8)))
    with raising(VerificationError, "no-data"):
        judged(even, even, [])


def test_a_result_is_judged_and_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((3, 24, 40), dtype=np.float32))
    result = apply(UNet(width=4, depth=2), "mofa", torch.rand(1, 3, 16, 16))
    found = result.evaluate(tmp_path, "gaussian:25")
    assert result.report["validation"]["sentence"] == found.sentence
    assert found.said in repr(result)
    result.record = replace(result.record, validation=replace(found, where="elsewhere"))
    assert "elsewhere" in repr(result)
    several = apply(Two(), [], (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)))
    with raising(VerificationError, "wrong-input"):
        several.evaluate(tmp_path)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + y
