"""Old weights to new weights in closed form, without data.

Every fit minimizes the expected squared error of a layer's output over inputs whose pixels are correlated as in a
first-order autoregressive field: correlation 0.7 ** distance, the same for every channel, channels uncorrelated.
(Images lie near 0.95 and deep features near 0.5; white noise, 0, would throw the mean of a kernel away and constant
input, 1, everything else.)
"""

from .factors import cheap_convolution, depthwise_from_partial, factor_dense
from .kernels import depthwise_like, fill, is_diagonal, like, without_bias
from .partial import restore_kernels, restored_kernels, separable_from_depthwise, widen
from .prior import convolve_taps, period, projection, single_taps

__all__ = [
    "cheap_convolution",
    "convolve_taps",
    "depthwise_from_partial",
    "depthwise_like",
    "factor_dense",
    "fill",
    "is_diagonal",
    "like",
    "period",
    "projection",
    "restore_kernels",
    "restored_kernels",
    "separable_from_depthwise",
    "single_taps",
    "widen",
    "without_bias",
]
