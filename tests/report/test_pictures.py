"""Images in a report: what is shown of both networks, and the figures beside it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from mofa_compiler import apply
from mofa_compiler.data import CalibrationImages, Sample
from mofa_compiler.report.model import Closeness
from mofa_compiler.report.pictures import pictures, psnr, ssim, write_pictures
from tests.distillation.small import network


class Scaled(nn.Module):
    def __init__(self, factor: float, channels: int | None = None) -> None:
        super().__init__()
        self.factor, self.channels = factor, channels

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.channels] * self.factor


class FixedSize(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 16:
            raise IndexError("a table of positions has no more")
        return super().forward(x)


def image(channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(channels, side, side, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000), st.sampled_from([1, 3]), st.floats(0, 1))
def test_ssim_is_that_of_scikit_image(seed: int, channels: int, share: float) -> None:
    one, noise = image(channels, 24, seed), image(channels, 24, seed + 1)
    other = (1 - share) * one + share * noise
    expected = structural_similarity(
        one.double().numpy(),
        other.double().numpy(),
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
    )
    assert ssim(one, other) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_an_image_smaller_than_its_window_is_unknown() -> None:
    assert ssim(image(side=10), image(side=10)) is None


def test_figures_are_of_both_outputs_against_the_target() -> None:
    x = image()
    (picture,) = pictures(Scaled(1.0), Scaled(0.5), [Sample("a", 0.9 * x, x)])
    assert picture.data.psnr.original == pytest.approx(psnr(0.9 * x, x))
    assert picture.data.psnr.rewritten == pytest.approx(psnr(0.45 * x, x))
    assert picture.data.psnr.input == picture.data.psnr.original
    assert picture.data.psnr.between == pytest.approx(psnr(0.9 * x, 0.45 * x))
    assert picture.data.ssim.original == pytest.approx(ssim(0.9 * x, x))


def test_without_a_target_only_the_outputs_are_compared() -> None:
    (picture,) = pictures(Scaled(1.0), Scaled(1.0), [Sample("a", image())])
    assert picture.data.target is None
    assert picture.data.psnr == Closeness(input=None, original=None, rewritten=None, between=None)


def test_a_difference_is_amplified_until_it_is_seen() -> None:
    x = torch.full((3, 16, 16), 0.5)
    (small,) = pictures(Scaled(1.0), Scaled(1.02), [Sample("a", x)])
    (large,) = pictures(Scaled(1.0), Scaled(1.9), [Sample("a", x)])
    assert (small.data.gain, large.data.gain) == (16, 1)
    assert float(small.panels["images/1-difference.png"].mean()) == pytest.approx(0.5 + 16 * 0.01, abs=1e-5)


def test_values_of_another_range_are_shown_in_it() -> None:
    (picture,) = pictures(Scaled(10.0), Scaled(10.0), [Sample("a", image() - 0.5)])
    low, high = picture.data.levels
    assert low == pytest.approx(-5, abs=0.2) and high == pytest.approx(5, abs=0.2)
    assert 0 <= float(picture.panels["images/1-original.png"].min()) < 0.01


def test_what_goes_beyond_the_originals_range_is_not_cut_off() -> None:
    (picture,) = pictures(Scaled(2.0), Scaled(200.0), [Sample("a", image())])
    assert picture.data.levels[1] > 100 and picture.data.psnr.between < 10


def test_what_is_no_image_is_shown_in_its_own_range_and_said_to_be() -> None:
    (classes,) = pictures(Scaled(0.1), Scaled(0.1), [Sample("a", image(2))])
    assert classes.data.shown.startswith("channel 1 of 2, black is ")
    assert classes.data.levels[1] == pytest.approx(0.1, abs=0.001)
    assert float(classes.panels["images/1-original.png"].max()) > 0.95
    (many,) = pictures(Scaled(1.0), Scaled(1.0), [Sample("a", image(4))])
    assert many.data.shown.startswith("channels 1 to 3 of 4, black is ")
    (colours,) = pictures(Scaled(1.0), Scaled(1.0), [Sample("a", image(3))])
    (beyond,) = pictures(Scaled(10.0), Scaled(10.0), [Sample("a", torch.full((1, 16, 16), -0.5))])
    assert (colours.data.shown, beyond.data.shown) == ("", "black is −5, white −4")


def test_constant_outputs_are_shown_and_others_than_numbers_are_not() -> None:
    (picture,) = pictures(Scaled(0.0), Scaled(0.0), [Sample("a", image() + 5, levels=torch.tensor([2.0, 3.0]))])
    assert picture.data.levels == (0, 1) and picture.data.psnr.between is None
    assert pictures(Scaled(1.0), Scaled(math.nan), [Sample("a", image())]) == []


def test_four_channels_are_raw_only_where_they_are_said_to_be() -> None:
    x = image(4) * 2
    (plain,) = pictures(Scaled(1.0), Scaled(1.0), [Sample("a", x)])
    (raw,) = pictures(Scaled(1.0), Scaled(1.0), [Sample("a", x, raw=True)])
    name = "images/1-original.png"
    assert torch.equal(plain.panels[name], ((x - x.min()) / (x.max() - x.min()))[:3])
    assert not torch.equal(plain.panels[name], raw.panels[name])


def test_a_network_of_one_size_gets_a_crop_of_that_and_others_are_left_out() -> None:
    cropped = Sample("a", image(), image(seed=1), side=16)
    (picture,) = pictures(FixedSize(1.0), FixedSize(1.0), [cropped, Sample("b", image())])
    assert picture.data.name == "a" and picture.data.size == (16, 16)
    assert picture.data.psnr.original == pytest.approx(psnr(image()[:, :16, :16], image(seed=1)[:, :16, :16]))


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (3, 3), (4, 3), (7, 1)])
def test_any_number_of_channels_makes_a_file(channels: int, shown: int, tmp_path) -> None:
    found = pictures(Scaled(1.0), Scaled(0.9), [Sample("a", image(channels))])
    write_pictures(found, tmp_path)
    for name in ("input", "original", "rewritten", "difference"):
        with Image.open(tmp_path / getattr(found[0].data, name)) as file:
            assert file.size == (32, 32) and len(file.getbands()) == shown
    assert not (tmp_path / "images/1-target.png").exists()


@pytest.mark.slow
def test_a_calibrated_bundle_has_its_images(tmp_path) -> None:
    images = CalibrationImages("synthetic", channels=3, size=32, degradation="gaussian:25", crops=4)
    result = apply(network(), "mofa", torch.rand(1, 3, 32, 32), calibration=images)
    bundle = result.save(tmp_path / "bundle")
    entries = json.loads((bundle / "report.json").read_text())["images"]
    assert [entry["name"] for entry in entries] == ["dead leaves 1", "dead leaves 2", "dead leaves 3"]
    sample = images.samples(1)[0]
    assert entries[0]["size"] == [64, 64] == list(sample.input.shape[1:])
    with torch.no_grad():
        expected = result.model.eval()(sample.input[None])[0].clamp(0, 1)
    assert entries[0]["psnr"]["rewritten"] == pytest.approx(psnr(expected, sample.target), abs=1e-4)
    with Image.open(bundle / entries[0]["rewritten"]) as file:
        pixels = torch.from_numpy(np.asarray(file).copy()).permute(2, 0, 1) / 255
    assert torch.allclose(pixels, expected, atol=0.51 / 255)
