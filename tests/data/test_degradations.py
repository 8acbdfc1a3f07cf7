"""Degradations: what they were asked for is what they measure, and the same generator gives the same pair."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import default_collate

from images import photograph
from mofa_compiler.base.errors import DataError
from mofa_compiler.data import Degradation, Pair, parse_degradation, raw, restore
from mofa_compiler.data.degradations import KNOWN
from mofa_compiler.data.raw import add_noise
from mofa_compiler.data.seeding import generator
from tests.raising import raising

SPECS = ["gaussian:25", "poisson-gaussian:0.01,0.02", "jpeg:30", "blur:1.6", "raw:3200", "raw:3200,6400"]
RANGES = ["gaussian:5-50", "poisson-gaussian:0.001-0.01,0.02", "jpeg:20-80", "blur:0.5-2", "raw:800-6400,100"]


def ramp(channels: int, height: int, width: int) -> torch.Tensor:
    """(C, H, W) from 0 to 1."""
    return torch.linspace(0, 1, channels * height * width).view(channels, height, width)


def test_all_are_covered_here():
    assert {spec.partition(":")[0] for spec in SPECS} == set(KNOWN) == {spec.partition(":")[0] for spec in RANGES}


@pytest.mark.parametrize("spec", SPECS + RANGES)
def test_text_round_trips(spec: str):
    degradation = parse_degradation(spec)
    assert str(degradation) == spec
    assert parse_degradation(f" {spec.upper()} ") == degradation
    assert parse_degradation(degradation) is degradation


@pytest.mark.parametrize("spec", SPECS + RANGES)
@given(height=st.integers(8, 20), width=st.integers(8, 20), grey=st.booleans(), seed=st.integers(0, 2**32))
def test_pairs(spec: str, height: int, width: int, grey: bool, seed: int):
    degradation = parse_degradation(spec)
    channels = 4 if spec.startswith("raw") else 1 if grey else 3
    clean = ramp(degradation.clean_channels(channels), height * degradation.scale, width * degradation.scale)
    before = clean.clone()
    first, second, other = (degradation(clean, generator(s)) for s in (seed, seed, seed + 1))
    assert torch.equal(clean, before)
    assert first.input.shape == first.target.shape == (channels, height, width)
    assert first.input.dtype == first.target.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    alike = torch.equal(first.input, other.input)
    if spec != "jpeg:20-80":  # which may draw the same quality twice
        assert alike == (spec in ("jpeg:30", "blur:1.6"))
    wanted = raw.pack_raw(clean) if spec.startswith("raw") else clean
    torch.testing.assert_close(restore(first.target, first.levels), wanted, rtol=0, atol=1e-5)


def measured(degradation: Degradation, value: float, channels: int = 1) -> torch.Tensor:
    """What a flat image becomes, (C, 300, 300)."""
    side = 300 * degradation.scale
    return degradation(torch.full((channels, side, side), value), generator(0)).input


@pytest.mark.parametrize(
    ("spec", "value", "variance"),
    [
        ("gaussian:25", 0.5, (25 / 255) ** 2),
        ("poisson-gaussian:0.01,0.02", 0.0, 0.02**2),
        ("poisson-gaussian:0.01,0.02", 0.5, 0.01 * 0.5 + 0.02**2),
    ],
)
def test_variance_of_noise(spec: str, value: float, variance: float):
    noisy = measured(parse_degradation(spec), value)
    assert float(noisy.mean()) == pytest.approx(value, abs=5 * (variance / 90_000) ** 0.5)
    assert float(noisy.var()) == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("iso", [800, 3200, 6400])
def test_variance_of_raw_noise(iso: float):
    """As the README beside the checkpoint has it: K·(V·x) + S in units of V·x; the transform gives that of ISO 1600."""
    value = 0.7
    noisy = measured(parse_degradation(f"raw:{iso}"), value, 3)[1] / raw.SCALE  # green, whose gain is 1
    linear = value**2.2 * 0.6
    k, s = 0.0005995267 * iso + 0.00868861, 7.11772e-7 * iso**2 + 6.514934e-4 * iso + 0.11492713
    variance = (k * linear * 959 + s) / 959**2
    assert float(raw.inverse_k_sigma(noisy, iso).var()) == pytest.approx(variance, rel=0.03)
    mean, anchor = float(noisy.double().mean()), 0.0005995267 * 1600 + 0.00868861
    anchor_s = 7.11772e-7 * 1600**2 + 6.514934e-4 * 1600 + 0.11492713
    assert float(noisy.var()) == pytest.approx((anchor * mean * 959 + anchor_s) / 959**2, rel=0.03)


def test_a_range_is_drawn_from_uniformly():
    degradation = parse_degradation("gaussian:0-100")
    flat = torch.zeros(1, 64, 64)
    sigmas = torch.stack([degradation(flat, generator(seed)).input.std() * 255 for seed in range(200)])
    assert float(sigmas.min()) < 10 < 90 < float(sigmas.max()) < 105
    assert float(sigmas.mean()) == pytest.approx(50, abs=8)


def test_one_of_several_isos_is_drawn():
    degradation = parse_degradation("raw:100,3200-6400")
    whites = {float(degradation(torch.zeros(3, 2, 2), generator(seed)).levels[1]) for seed in range(20)}
    assert pytest.approx(raw.levels(100)[1]) in list(whites)
    assert len(whites) > 3


@given(iso=st.floats(50, 25600), value=st.floats(0, 1))
def test_k_sigma_round_trip(iso: float, value: float):
    x = torch.tensor(value, dtype=torch.float64)
    assert float(raw.inverse_k_sigma(raw.k_sigma(x, iso), iso)) == pytest.approx(value, abs=1e-12)
    assert torch.equal(raw.k_sigma(x, raw.ANCHOR_ISO), x)


def test_packing_keeps_the_bayer_pattern():
    image = torch.zeros(3, 4, 6)
    image[0, ::2, ::2] = image[1, ::2, 1::2] = image[1, 1::2, ::2] = image[2, 1::2, 1::2] = 1
    packed = raw.pack_raw(image)
    assert packed.shape == (4, 2, 3)
    torch.testing.assert_close(packed[:, 0, 0], torch.tensor([0.3, 0.6, 0.6, 0.6 / 1.7]))
    assert bool((packed == packed[:, :1, :1]).all())


def test_a_batch_of_pairs_is_restored_by_its_own_levels():
    degradation = parse_degradation("raw:100,6400")
    clean = [ramp(3, 8, 8), ramp(3, 8, 8).flip(0), ramp(3, 8, 8).flip(1)]
    made = [degradation(image, generator(seed)) for seed, image in enumerate(clean)]
    batch = default_collate(made)
    assert isinstance(batch, Pair)
    assert len({float(pair.levels[1]) for pair in made}) == 2
    expected = torch.stack([raw.pack_raw(image) for image in clean])
    torch.testing.assert_close(restore(batch.target, batch.levels), expected, rtol=0, atol=1e-5)


def test_levels_that_lie_outside_are_clipped():
    assert restore(torch.tensor([[[-0.5, 0.5, 1.5]]]), torch.tensor([0.0, 1.0])).flatten().tolist() == [0.0, 0.5, 1.0]


def test_blur_is_a_gaussian():
    spot = torch.zeros(1, 33, 33)
    spot[0, 16, 16] = 1
    blurred = parse_degradation("blur:2")(spot, generator(0)).input[0]
    torch.testing.assert_close(blurred, blurred.T)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float(blurred[16, 18] / blurred[16, 16]) == pytest.approx(2.718281828**-0.5, rel=1e-4)


def test_jpeg_loses_more_at_a_lower_quality():
    clean = photograph("chelsea")[:, :64, :64]
    errors = [
        float((parse_degradation(f"jpeg:{q}")(clean, generator(0)).input - clean).square().mean()) for q in (95, 50, 5)
    ]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.001 < errors[2]


def test_add_noise_draws_nothing_for_no_noise():
    image = torch.rand(1, 4, 4)
    assert torch.equal(add_noise(image, 0, 0, generator(0)), image)


WRONG: dict[str, Sequence[str]] = {
    "gausian:25": ["there is no degradation 'gausian' (did you mean 'gaussian'?)", "raw:3200,6400 (ISO"],
    "zzz": ["there is no degradation 'zzz'. Known: gaussian:25 (sigma in 1/255); "],
    "gaussian": ["'gaussian' is no degradation of the form gaussian:25"],
    "gaussian:1,2": ["'gaussian:1,2' is no degradation of the form gaussian:25 (sigma in 1/255)"],
    "gaussian:-3": ["'-3' is neither a number nor a range"],
    "gaussian:50-5": ["the range 50-5 is empty"],
    "poisson-gaussian:0.1": ["of the form poisson-gaussian:0.01,0.02"],
    "gaussian:0.1": ["sigma 0.1 of 255 is next to no noise", "gaussian:25.5"],
    "gaussian:0.02-0.2": ["gaussian:51"],
    "poisson-gaussian:0.01,25": ["sigma 25 is more than white", "0.098"],
    "jpeg:0": ["quality goes from 1 to 100"],
    "jpeg:50-101": ["quality goes from 1 to 100"],
    "blur:0": ["sigma must be above 0"],
    "raw:": ["of the form raw:3200,6400"],
    "raw:0": ["ISOs must be above 0"],
}


@pytest.mark.parametrize(("spec", "messages"), WRONG.items(), ids=WRONG.keys())
def test_wrong_specs(spec: str, messages: Sequence[str]):
    with pytest.raises(DataError) as caught:
        parse_degradation(spec)
    assert all(message in str(caught.value) for message in messages), caught.value


def test_channels_that_do_not_fit():
    with raising(DataError, "wrong-input", "raw:100"):
        parse_degradation("raw:100").clean_channels(3)
    with raising(DataError, "wrong-input", "jpeg:30"):
        parse_degradation("jpeg:30").clean_channels(4)


def test_images_that_a_blur_does_not_fit():
    with raising(DataError, "too-small", "blur:3", "9x30"):
        parse_degradation("blur:3")(torch.zeros(1, 9, 30), generator(0))


def test_jpeg_without_pillow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with raising(DataError, "not-installed", "jpeg:30", "pillow"):
        parse_degradation("jpeg:30")(torch.zeros(1, 8, 8), generator(0))
