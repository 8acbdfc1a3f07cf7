"""Least squares from moments: ridge regression towards a prior, and reduced-rank regression."""

from __future__ import annotations

import torch
from torch import Tensor

from .moments import Moments

SMALLEST = 1e-9
"""Of the mean energy of a feature: smaller eigenvalues than this are rounding"""


def ridge(moments: Moments, prior: Tensor, strength: float, *, intercept: bool = True) -> Tensor:
    """The solution (..., F, O) of least squares, drawn towards `prior` (..., F, O) by `strength`.

    `strength` is in units of the mean energy of a feature: what hardly varies on these images may do so on others, and
    gets no large weight. The constant feature, the last one, is not drawn; without `intercept` it keeps its prior.
    """
    gram, cross = moments.gram, moments.cross - moments.gram @ prior
    system, right = gram[..., :-1, :-1].clone(), cross[..., :-1, :]
    energy = system.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True).clamp_min(torch.finfo(gram.dtype).tiny)
    mean = gram[..., :-1, -1:] / moments.count
    if intercept:
        system -= mean @ mean.mT * moments.count
        right = right - mean @ cross[..., -1:, :]
    system.diagonal(dim1=-2, dim2=-1).add_(max(strength, SMALLEST) * energy)
    change = _solve(system, right)
    constant = (
        cross[..., -1:, :] / moments.count - mean.mT @ change if intercept else torch.zeros_like(cross[..., -1:, :])
    )
    return prior + torch.cat([change, constant], dim=-2)


def _solve(system: Tensor, right: Tensor) -> Tensor:
    """Of symmetric positive definite systems; least squares where rounding has left them none."""
    factor, failed = torch.linalg.cholesky_ex(system)
    if bool(failed.any()):
        solution: Tensor = torch.linalg.pinv(system, hermitian=True) @ right
        return solution
    return torch.cholesky_solve(right, factor)


def nearest(reach: Tensor, solution: Tensor) -> Tensor:
    """The mix (G, O) for which reach.T @ mix, with `reach` (G, F), is nearest to a solution (F, O).

    `torch.linalg.lstsq` on the CPU is not the same bit for bit from call to call.
    """
    system = reach @ reach.T
    system.diagonal().add_(SMALLEST * system.diagonal().mean())
    return _solve(system, reach @ solution)


def reduced_rank(moments: Moments, prior: Tensor, free: int, rank: int, strength: float, *, intercept: bool) -> Tensor:
    """The (rank, free) combinations of the first `free` features that explain the targets best, beside the others.

    Reduced-rank regression (Izenman, 1975): the directions in which what the other features cannot explain of the ridge
    solution has most energy. The most important come first; there are fewer than `rank` where there are fewer targets.
    Their scale means nothing.
    """
    gram = moments.gram
    solution = ridge(moments, prior, strength, intercept=intercept)[:free]
    others = gram[free:, free:].clone()
    others.diagonal().add_(SMALLEST * others.diagonal().mean())
    rest = gram[:free, :free] - gram[:free, free:] @ _solve(others, gram[free:, :free])
    values, vectors = torch.linalg.eigh((rest + rest.T) / 2)
    values = values.clamp_min(SMALLEST * float(values.max().clamp_min(torch.finfo(values.dtype).tiny)))
    half, inverse = (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T
    left, singular, _ = torch.linalg.svd(half @ solution, full_matrices=False)
    combinations: Tensor = (inverse @ left[:, : min(rank, int((singular > 0).sum()))]).T
    return combinations
