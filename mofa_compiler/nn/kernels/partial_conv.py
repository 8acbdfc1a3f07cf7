"""Partial convolution, pointwise convolution, bias and ReLU in one Triton kernel.

What is convolved is never written to memory: every program computes it for its pixels and mixes it at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _kernel(
    x_ptr,
    spatial_ptr,
    spatial_bias_ptr,
    pointwise_ptr,
    bias_ptr,
    out_ptr,
    channels,
    convolved,
    outputs,
    height,
    width,
    dilation_y,
    dilation_x,
    KERNEL_Y: tl.constexpr,
    KERNEL_X: tl.constexpr,
    DEPTHWISE: tl.constexpr,
    HAS_SPATIAL_BIAS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One program: BLOCK_O output channels of BLOCK_P pixels of one image. All tensors are contiguous."""
    pixels = height * width
    image = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    row, column = p // width, p % width
    x_ptr += image * channels * pixels
    sums = tl.zeros((BLOCK_O, BLOCK_P), dtype=tl.float32)

    # The convolved channels, a block at a time: all their taps, then their share of the mix.
    for start in range(0, convolved, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        made = tl.zeros((BLOCK_C, BLOCK_P), dtype=tl.float32)
        if HAS_SPATIAL_BIAS:
            made += tl.load(spatial_bias_ptr + c, mask=c < convolved, other=0.0).to(tl.float32)[:, None]
        for tap in tl.static_range(KERNEL_Y * KERNEL_X):
            y_at = row + (tap // KERNEL_X - KERNEL_Y // 2) * dilation_y
            x_at = column + (tap % KERNEL_X - KERNEL_X // 2) * dilation_x
            inside = (p < pixels) & (y_at >= 0) & (y_at < height) & (x_at >= 0) & (x_at < width)
            at = y_at * width + x_at
            if DEPTHWISE:
                taken = (c < convolved)[:, None] & inside[None, :]
                values = tl.load(x_ptr + c[:, None] * pixels + at[None, :], mask=taken, other=0.0)
                weight = tl.load(spatial_ptr + c * (KERNEL_Y * KERNEL_X) + tap, mask=c < convolved, other=0.0)
                made += values.to(tl.float32) * weight.to(tl.float32)[:, None]
            else:
                for first in range(0, convolved, BLOCK_C):
                    i = first + tl.arange(0, BLOCK_C)
                    taken = (i < convolved)[:, None] & inside[None, :]
                    values = tl.load(x_ptr + i[:, None] * pixels + at[None, :], mask=taken, other=0.0)
                    place = (c[:, None] * convolved + i[None, :]) * (KERNEL_Y * KERNEL_X) + tap
                    known = (c < convolved)[:, None] & (i < convolved)[None, :]
                    weight = tl.load(spatial_ptr + place, mask=known, other=0.0)
                    made = tl.dot(weight, values, made, input_precision=PRECISION)
        known = (o < outputs)[:, None] & (c < convolved)[None, :]
        mix = tl.load(pointwise_ptr + o[:, None] * channels + c[None, :], mask=known, other=0.0)
        sums = tl.dot(mix, made.to(mix.dtype), sums, input_precision=PRECISION)

    for start in range(convolved, channels, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        taken = (c < channels)[:, None] & (p < pixels)[None, :]
        values = tl.load(x_ptr + c[:, None] * pixels + p[None, :], mask=taken, other=0.0)
        known = (o < outputs)[:, None] & (c < channels)[None, :]
        mix = tl.load(pointwise_ptr + o[:, None] * channels + c[None, :], mask=known, other=0.0)
        sums = tl.dot(mix, values, sums, input_precision=PRECISION)

    if HAS_BIAS:
        sums += tl.load(bias_ptr + o, mask=o < outputs, other=0.0).to(tl.float32)[:, None]
    if RELU:
        sums = tl.maximum(sums, 0.0)
    written = (o < outputs)[:, None] & (p < pixels)[None, :]
    place = out_ptr + image * outputs * pixels + o[:, None] * pixels + p[None, :]
    tl.store(place, sums.to(out_ptr.dtype.element_ty), mask=written)


@torch.library.custom_op("mofa::fused_pconv", mutates_args=())
def fused_pconv(
    x: Tensor,
    spatial: Tensor,
    spatial_bias: Tensor | None,
    pointwise: Tensor,
    bias: Tensor | None,
    dilation: list[int],
    relu: bool,
) -> Tensor:
    """Convolve the first channels of `x`, mix them with the others, add a bias, and clamp at 0 where `relu` says so.

    Zero padding that keeps the size; no gradients. Sums are in float32.

    Args:
        x: (N, C, H, W), float32, float16 or bfloat16; all other tensors have its dtype.
        spatial: (c, c or 1, k, k), odd k; with 1 each of the c channels has a kernel of its own.
        spatial_bias: (c,) or None.
        pointwise: (O, C, 1, 1).
        bias: (O,) or None.
        dilation: of the kernel, by row and by column.
        relu: as said.
    """
    x, spatial, pointwise = x.contiguous(), spatial.contiguous(), pointwise.contiguous()
    images, channels, height, width = x.shape
    outputs, convolved = pointwise.shape[0], spatial.shape[0]
    out = x.new_empty((images, outputs, height, width))
    block_o = min(128, max(16, triton.next_power_of_2(outputs)))
    block_c = min(32, max(16, triton.next_power_of_2(convolved)))
    block_p = 64
    grid = (triton.cdiv(height * width, block_p), triton.cdiv(outputs, block_o), images)
    precision = "tf32" if torch.backends.cudnn.allow_tf32 and x.dtype == torch.float32 else "ieee"
    _kernel[grid](
        x,
        spatial,
        spatial_bias if spatial_bias is not None else x,
        pointwise,
        bias if bias is not None else x,
        out,
        channels,
        convolved,
        outputs,
        height,
        width,
        dilation[0],
        dilation[1],
        KERNEL_Y=spatial.shape[2],
        KERNEL_X=spatial.shape[3],
        DEPTHWISE=spatial.shape[1] == 1,
        HAS_SPATIAL_BIAS=spatial_bias is not None,
        HAS_BIAS=bias is not None,
        RELU=relu,
        PRECISION=precision,
        BLOCK_O=block_o,
        BLOCK_C=block_c,
        BLOCK_P=block_p,
    )
    return out


@fused_pconv.register_fake
def _shape(
    x: Tensor,
    spatial: Tensor,
    spatial_bias: Tensor | None,
    pointwise: Tensor,
    bias: Tensor | None,
    dilation: list[int],
    relu: bool,
) -> Tensor:
    return x.new_empty((x.shape[0], pointwise.shape[0], *x.shape[2:]))
