"""Least squares from moments against torch's own solver."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mofa_compiler.calibration import moments as moments_module
from mofa_compiler.calibration.moments import Moments
from mofa_compiler.calibration.regression import nearest, reduced_rank, ridge


def data(pixels: int = 200, features: int = 6, outputs: int = 4) -> tuple[Tensor, Tensor]:
    """Features with a constant at the end, correlated and off center, and targets that are nearly linear in them."""
    mixed = torch.randn(pixels, features, dtype=torch.float64) @ torch.randn(features, features, dtype=torch.float64)
    x = torch.cat([mixed + 2, torch.ones(pixels, 1, dtype=torch.float64)], dim=1)
    y = x @ torch.randn(features + 1, outputs, dtype=torch.float64)
    return x, y + 0.1 * torch.randn_like(y)


def nothing(x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros(*x.shape[:-2], x.shape[-1], y.shape[-1], dtype=torch.float64)


def test_ridge_without_strength_is_least_squares() -> None:
    x, y = data()
    expected = torch.linalg.lstsq(x, y).solution
    for prior in (nothing(x, y), torch.randn_like(expected)):
        torch.testing.assert_close(ridge(Moments.of(x, y), prior, 0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strength", [1e-3, 0.1, 2.0])
def test_ridge_is_drawn_towards_the_prior(strength: float) -> None:
    """The same as least squares with more rows: features about their mean that ask for the prior."""
    x, y = data()
    prior = torch.randn(7, 4, dtype=torch.float64)
    mean = x[:, :-1].mean(0)
    centered, scale = x[:, :-1] - mean, float(x[:, :-1].square().sum(0).mean())
    rows = torch.cat([centered, (strength * scale) ** 0.5 * torch.eye(6, dtype=torch.float64)])
    rest = y - y.mean(0) - centered @ prior[:-1]
    change = torch.linalg.lstsq(rows, torch.cat([rest, torch.zeros(6, 4, dtype=torch.float64)])).solution
    kernel = prior[:-1] + change
    expected = torch.cat([kernel, (y.mean(0) - mean @ kernel)[None]])
    torch.testing.assert_close(ridge(Moments.of(x, y), prior, strength), expected, rtol=1e-8, atol=1e-8)


def test_without_intercept_the_constant_keeps_its_prior() -> None:
    x, y = data()
    prior = torch.randn(7, 4, dtype=torch.float64)
    solution = ridge(Moments.of(x, y), prior, 0, intercept=False)
    assert torch.equal(solution[-1], prior[-1])
    expected = torch.linalg.lstsq(x[:, :-1], y - prior[-1]).solution
    torch.testing.assert_close(solution[:-1], expected, rtol=1e-4, atol=1e-5)


def test_the_prior_is_kept_where_nothing_is_known() -> None:
    x, y = data()
    prior = torch.randn(7, 4, dtype=torch.float64)
    torch.testing.assert_close(ridge(Moments.of(x, y), prior, 1e12)[:-1], prior[:-1])
    x[:, 1] = 0  # dead
    x[:, 3] = 0.7  # constant: its weight cannot be told from the intercept
    solution = ridge(Moments.of(x, y), prior, 1e-3)
    torch.testing.assert_close(solution[[1, 3]], prior[[1, 3]])
    assert not torch.allclose(solution[0], prior[0])


@pytest.mark.parametrize("strength", [0, 1e-3])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.mul_(0),
        lambda x: x[:, :-1].mul_(0),
        lambda x: x[:, 1].copy_(x[:, 0]),
        lambda x: x[:, :-1].copy_(x[:, :1].expand(-1, 6)),
        lambda x: x[:, :-1].fill_(1e8),
        lambda x: x[:, 0].mul_(1e12),
        lambda x: x[:, :-1].mul_(1e-30),
    ],
    ids=["nothing at all", "zero", "twins", "one", "constant", "huge", "tiny"],
)
@pytest.mark.sample(8)
def test_singular_systems_have_finite_solutions(spoil: object, intercept: bool, strength: float) -> None:
    x, y = data()
    spoil(x)  # type: ignore[operator]
    prior = torch.randn(7, 4, dtype=torch.float64)
    found = Moments.of(x, y)
    solution = ridge(found, prior, strength, intercept=intercept)
    assert solution.isfinite().all()
    assert found.error(solution) <= found.error(prior) * (1 + 1e-6) + 1e-6 * float(y.square().sum())
    assert reduced_rank(found, prior, 4, 2, strength, intercept=intercept).isfinite().all()


def test_one_pixel() -> None:
    x, y = data(pixels=1)
    for strength in (0.0, 1e-2):
        solution = ridge(Moments.of(x, y), nothing(x, y), strength)
        assert solution.isfinite().all()
        torch.testing.assert_close(x @ solution, y)


def test_several_at_once_are_as_one_by_one() -> None:
    pairs = [data(outputs=1) for _ in range(3)]
    x, y = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    x[1, :, 2] = 0
    priors = torch.randn(3, 7, 1, dtype=torch.float64)
    together = ridge(Moments.of(x, y), priors, 1e-2)
    for index, pair in enumerate(zip(x, y, strict=True)):
        torch.testing.assert_close(together[index], ridge(Moments.of(*pair), priors[index], 1e-2))


def test_moments_in_pieces_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    whole = Moments.of(x, y)
    pieces = Moments.sum([Moments.of(a, b) for a, b in zip(x.split(33), y.split(33), strict=True)])
    monkeypatch.setattr(moments_module, "AT_ONCE", 50)
    for other in (pieces, Moments.of(x, y)):
        assert other.count == whole.count == 200
        for name in ("gram", "cross", "energy"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), rtol=1e-12, atol=1e-10)


def test_error_and_maps_from_moments() -> None:
    x, y = data()
    found, solution = Moments.of(x, y), torch.randn(7, 4, dtype=torch.float64)
    assert found.error(solution) == pytest.approx(float((y - x @ solution).square().sum()))
    exact = Moments.of(x, x @ solution)
    assert 0 <= exact.error(solution) < 1e-9 * float(exact.energy.sum())
    reach = torch.randn(3, 7, dtype=torch.float64)
    reach[-1] = torch.eye(7, dtype=torch.float64)[-1]
    direct = Moments.of(x @ reach.T, y)
    torch.testing.assert_close(found.through(reach).gram, direct.gram)
    torch.testing.assert_close(found.through(reach).cross, direct.cross)
    assert found.is_finite
    assert not Moments.of(x / 0, y).is_finite


def residual(found: Moments, kernel: Tensor, free: int) -> float:
    """Of the best mix behind a kernel on the first features, beside the others."""
    reach = torch.block_diag(kernel, torch.eye(len(found.gram) - free, dtype=torch.float64))
    through = found.through(reach)
    return through.error(torch.linalg.lstsq(through.gram, through.cross).solution)


def test_reduced_rank_is_the_best_of_its_rank() -> None:
    x, y = data(features=9, outputs=5)
    found, free = Moments.of(x, y), 6
    everything = found.error(torch.linalg.lstsq(x, y).solution)
    last = float("inf")
    for rank in range(1, 6):
        kernel = reduced_rank(found, nothing(x, y), free, rank, 0, intercept=True)
        assert kernel.shape == (rank, free)
        best = residual(found, kernel, free)
        assert everything * (1 - 1e-6) <= best <= last * (1 + 1e-9)
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            random = torch.randn(rank, free, dtype=torch.float64, generator=generator)
            assert best <= residual(found, random, free) * (1 + 1e-9)
            near = kernel + 0.1 * kernel.std() * random
            assert best <= residual(found, near, free) * (1 + 1e-9)
        last = best
    assert last == pytest.approx(everything, rel=1e-4)  # as many combinations as targets: nothing is lost


def test_reduced_rank_gives_no_more_than_there_is() -> None:
    x, y = data(features=9, outputs=2)
    kernel = reduced_rank(Moments.of(x, y), nothing(x, y), 6, 5, 1e-3, intercept=True)
    assert kernel.shape == (2, 6)


@pytest.mark.parametrize("twins", [False, True])
def test_nearest_mix_is_the_same_every_time(twins: bool) -> None:
    reach, wanted = torch.randn(20, 60, dtype=torch.float64), torch.randn(60, 5, dtype=torch.float64)
    if twins:
        reach[3] = reach[4]
    first = nearest(reach, wanted)
    expected = reach.T @ torch.linalg.lstsq(reach.T, wanted, driver="gelsd").solution
    torch.testing.assert_close(reach.T @ first, expected, rtol=1e-5, atol=1e-5)
    for size in range(1, 30):
        kept = torch.rand(size * 37) + size  # other memory
        assert torch.equal(nearest(reach, wanted), first), kept.shape
