"""Options of commands that decide: the target that they make of a roadmap, bounds in words, inputs to calibrate on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn

from mofa_compiler import Bound, Roadmap
from mofa_compiler.base.errors import DataError
from mofa_compiler.cli import deciding
from mofa_compiler.data import CalibrationImages
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.runtime import usual_engine
from tests.raising import raising

PLAIN = Roadmap([SepConvToPConv()])
TARGETED = PLAIN.with_target("xnnpack", 4, input="1x3x64x64", keep_if="always")


@pytest.mark.parametrize(
    ("roadmap", "engine", "threads", "options", "expected"),
    [
        (PLAIN, None, None, {}, (usual_engine(), 1, None, "faster")),
        (PLAIN, "eager", 2, {}, ("eager", 2, None, "faster")),
        (PLAIN, None, None, {"as_told": True}, (usual_engine(), 1, None, "told")),
        (PLAIN, "eager", None, {"trained": False}, ("eager", 1, None, "faster")),
        (TARGETED, None, None, {}, ("xnnpack", 4, (1, 3, 64, 64), "always")),
        (TARGETED, "eager", 1, {}, ("eager", 1, (1, 3, 64, 64), "always")),
        (TARGETED, None, None, {"as_told": True}, ("xnnpack", 4, (1, 3, 64, 64), "told")),
        (TARGETED, None, None, {"trained": False}, ("xnnpack", 4, (1, 3, 64, 64), "always")),
    ],
)
def test_where_it_is_decided(
    roadmap: Roadmap, engine: str | None, threads: int | None, options: dict[str, bool], expected: tuple[Any, ...]
) -> None:
    target = deciding.target(roadmap, engine, threads, **options).target
    assert target is not None
    assert (target.engine, target.threads, target.shape, target.keep_if) == expected


def test_without_trained_weights_nothing_is_decided_unasked() -> None:
    assert deciding.target(PLAIN, None, None, trained=False) is PLAIN


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, None), None),
        (("0.15dB", None, None), Bound("loss", 0.15)),
        (("0", None, None), Bound("loss", 0.0)),
        ((None, " 45 DB ", None), Bound("psnr", 45.0)),
        ((None, None, "99.5%"), Bound("agreement", 0.995)),
        ((None, None, "99.5"), Bound("agreement", 0.995)),
    ],
)
def test_a_bound_in_words(given: tuple[str | None, ...], expected: Bound | None) -> None:
    assert deciding.bound(*given) == expected


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (("-1dB", None, None), "--max-loss"),
        (("", None, None), "--max-loss"),
        (("nan", None, None), "--max-loss"),
        ((None, "0", None), "--min-psnr-to-original"),
        ((None, "inf", None), "--min-psnr-to-original"),
        ((None, None, "101%"), "--min-agreement"),
        ((None, None, "99 dB"), "--min-agreement"),
        (("1", None, "99"), "--min-agreement"),
    ],
)
def test_a_bound_that_makes_no_sense_is_a_usage_error(given: tuple[str | None, ...], option: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        deciding.bound(*given)
    assert caught.value.param_hint == option


class Strided(nn.Module):
    """Takes images whose sides are multiples of 16."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, 16)).flatten(-2)


class Several(nn.Module):
    def forward(self, image: Tensor, level: Tensor) -> Tensor:
        return image * level


def calibration(model: nn.Module, example: Any, source: str, **settings: Any) -> list[Any]:
    return list(deciding.calibration(model, example, source, settings))


def test_images_of_the_size_that_the_network_takes() -> None:
    batches = deciding.calibration(Strided(), torch.rand(1, 2, 32, 64), "synthetic", {"crops": 3})
    assert isinstance(batches, CalibrationImages)
    assert [tuple(batch.shape) for batch in batches] == [(3, 2, 32, 32)]


def test_arrays_arrive_as_calls_in_the_inputs_types(tmp_path: Path) -> None:
    file = tmp_path / "inputs.npz"
    np.savez(file, level=np.arange(5.0)[:, None, None, None], image=np.ones((5, 1, 4, 4)))
    example = (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 1, 1))
    batches = calibration(Several(), example, str(file))
    assert [len(batch.args[0]) for batch in batches] == [4, 1]
    assert batches[1].args[0].shape == (1, 1, 4, 4) and batches[1].args[1].flatten().tolist() == [4.0]
    assert {tensor.dtype for batch in batches for tensor in batch.args} == {torch.float32}


@pytest.mark.parametrize(
    ("model", "example", "settings", "names"),
    [
        (Strided(), torch.rand(1, 3, 32, 32), {"size": 24}, ("--crop-size",)),
        (Several(), (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 1, 1)), {}, ("--calibrate FILE.npz", "--as-told")),
    ],
    ids=["size", "inputs"],
)
def test_what_the_network_does_not_take(model: nn.Module, example: Any, settings: Any, names: tuple[str, ...]) -> None:
    with raising(DataError, "wrong-input", *names):
        calibration(model, example, "synthetic", **settings)
