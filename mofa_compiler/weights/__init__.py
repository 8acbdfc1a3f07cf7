"""Old weights to new weights in closed form, without data.

Every fit minimizes the expected squared error of a layer's output over inputs whose pixels are correlated as in a
first-order autoregressive field: correlation 0.7 ** distance, the same for every channel, channels uncorrelated.
(Images lie near 0.95 and deep features near 0.5; white noise, 0, would throw the mean of a kernel away and constant
input, 1, everything else.)

On the meta device, where tensors have shapes and no values, everything here gives results of the right shapes and does
none of the work. A bias then counts as one that is not zero, and a dense kernel as one that mixes channels.
"""

from .cheaper import joint_bias, mixed_first, shrunk
from .constants import Facts, constants
from .factors import cheap_convolution, depthwise_from_partial, factor_dense
from .folding import Affine, compensate, scale_inputs, scale_outputs
from .kernels import add_bias, border, depthwise_like, fill, is_diagonal, like, without_bias, wraps_around
from .linear import composed, only_outputs, passes_shift, unshuffled
from .narrowing import mixed_behind, narrow
from .partial import ideal_depthwise, restore_kernels, restored_kernels, separable_from_depthwise, widen
from .partial_forms import merged, of_channels, of_inputs, of_outputs, over_all_channels, without_inputs
from .prior import CORRELATION, convolve_taps, period, projected, projection, single_taps
from .removal import EXACTLY, MEASURED, ChannelMoments, at_all_calls, dearest, take_up
from .selecting import Cut, with_channels
from .upsampling import (
    Enlarged,
    Respond,
    Shuffled,
    Transposed,
    resize,
    resize_like,
    shuffled_taps,
    upsampling_projection,
)

__all__ = [
    "CORRELATION",
    "EXACTLY",
    "MEASURED",
    "ChannelMoments",
    "Facts",
    "constants",
    "add_bias",
    "Cut",
    "at_all_calls",
    "dearest",
    "take_up",
    "with_channels",
    "Affine",
    "composed",
    "joint_bias",
    "only_outputs",
    "passes_shift",
    "scale_inputs",
    "unshuffled",
    "scale_outputs",
    "mixed_first",
    "shrunk",
    "Enlarged",
    "Respond",
    "Shuffled",
    "Transposed",
    "border",
    "cheap_convolution",
    "compensate",
    "convolve_taps",
    "depthwise_from_partial",
    "depthwise_like",
    "factor_dense",
    "fill",
    "ideal_depthwise",
    "is_diagonal",
    "like",
    "merged",
    "mixed_behind",
    "narrow",
    "of_channels",
    "of_inputs",
    "of_outputs",
    "over_all_channels",
    "period",
    "projected",
    "projection",
    "resize",
    "resize_like",
    "restore_kernels",
    "restored_kernels",
    "separable_from_depthwise",
    "shuffled_taps",
    "single_taps",
    "upsampling_projection",
    "widen",
    "without_bias",
    "without_inputs",
    "wraps_around",
]
