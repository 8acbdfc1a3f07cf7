"""The model of images that every closed form minimizes its error over, and the fits that follow from it alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CORRELATION = 0.7
"""Between neighbouring pixels. On the published PMRID weights: 0.95 loses 0.5 dB against 0.7, 0.5 loses 0.1 dB"""


def covariance(height: int, width: int, step: tuple[int, int] = (1, 1)) -> Tensor:
    """(h*w, h*w) correlation of the pixels under a kernel whose taps lie `step` (the dilation) apart."""
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) * step[0],
        torch.arange(width, dtype=torch.float64) * step[1],
        indexing="ij",
    )
    positions = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    return CORRELATION ** torch.cdist(positions, positions)


def gains(kernels: Tensor, correlation: Tensor) -> Tensor:
    """The scalar that best replaces each kernel. (..., k, k) → (...); the center tap is the pixel that it scales."""
    taps = kernels.flatten(-2).double()
    height, width = kernels.shape[-2:]
    center = (height - 1) // 2 * width + (width - 1) // 2
    return taps @ correlation[:, center]


def correlation_of(conv: nn.Conv2d) -> Tensor:
    height, width = conv.kernel_size
    return covariance(height, width, (conv.dilation[0], conv.dilation[1]))


def single_taps(height: int, width: int) -> Tensor:
    """(h*w, 1, h, w): one kernel for each tap."""
    return torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)


def convolve_taps(x: Tensor, kernel_size: int) -> Tensor:
    """Responses of every single tap of a k x k kernel, zero padded: (n, 1, h, w) → (n, k*k, h, w)."""
    return F.conv2d(x, single_taps(kernel_size, kernel_size), padding=kernel_size // 2)


def period(responses: Tensor, factor: int) -> Tensor:
    """The `factor` x `factor` output pixels of one period in the middle: (n, t, h, w) → (n, t, factor²)."""
    start = responses.shape[-1] // 2 // factor * factor
    return responses[..., start : start + factor, start : start + factor].flatten(2)


def projection(old: Callable[[Tensor], Tensor], new: Callable[[Tensor], Tensor], window: int) -> Tensor:
    """The matrix that maps an old operator's kernel taps to the new operator's taps that fit it best.

    Args:
        old, new: map every unit impulse in a window, (window², 1, window, window), to the responses of every single
            tap at the output pixels of one period: (window², taps, pixels).
        window: side of the window, in input pixels.

    Returns:
        (old taps, new taps): new kernel = old kernel @ matrix.
    """
    impulses = torch.eye(window * window, dtype=torch.float64).view(-1, 1, window, window)
    was, is_ = (torch.cat([respond(part) for part in torch.split(impulses, 16)]) for respond in (old, new))
    correlation = covariance(window, window)
    gram = torch.einsum("itp,ij,jsp->ts", is_, correlation, is_)
    cross = torch.einsum("itp,ij,jsp->ts", was, correlation, is_)
    ridge = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    matrix: Tensor = torch.linalg.solve(gram + ridge, cross.T).T
    return matrix


def projected(taps: Tensor, size: int, projection_to: Callable[[int], Tensor]) -> Tensor:
    """Old kernels (..., old taps) as those of `size` x `size` (..., size²), by the projection to that size."""
    if taps.is_meta:
        return taps.new_empty(*taps.shape[:-1], size**2)
    return taps @ projection_to(size).to(taps)
