"""Small equivalents of networks that restore images: PromptIR, PyNET and CGNet.

Module names and graph are those of va1shn9v/PromptIR, aiff22/PyNET-PyTorch and Ascend-Research/CascadedGaze.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeedForward(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.project_in = nn.Conv2d(dim, 4 * dim, 1, bias=False)
        self.dwconv = nn.Conv2d(4 * dim, 4 * dim, 3, padding=1, groups=4 * dim, bias=False)
        self.project_out = nn.Conv2d(2 * dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(x1) * x2)


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = (part.reshape(b, self.num_heads, -1, h * w) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention @ v).reshape(b, c, h, w))


class LayerNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.body = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        return self.body(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, h, w)


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm1, self.attn = LayerNorm(dim), Attention(dim, num_heads)
        self.norm2, self.ffn = LayerNorm(dim), FeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Resample(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, shuffle: nn.Module):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _down(dim: int) -> Resample:
    return Resample(dim, dim // 2, nn.PixelUnshuffle(2))


def _up(dim: int) -> Resample:
    return Resample(dim, 2 * dim, nn.PixelShuffle(2))


class PromptGenBlock(nn.Module):
    def __init__(self, prompt_dim: int, prompt_size: int, lin_dim: int, prompt_len: int = 5):
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, prompt_len, prompt_dim, prompt_size, prompt_size))
        self.linear_layer = nn.Linear(lin_dim, prompt_len)
        self.conv3x3 = nn.Conv2d(prompt_dim, prompt_dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = F.softmax(self.linear_layer(x.mean(dim=(-2, -1))), dim=1)
        prompt = weights[..., None, None, None] * self.prompt_param.repeat(x.shape[0], 1, 1, 1, 1)
        return self.conv3x3(F.interpolate(prompt.sum(dim=1), x.shape[-2:], mode="bilinear"))


class PromptIR(nn.Module):
    """Potlapalli et al., "PromptIR: Prompting for All-in-One Image Restoration": Restormer and prompts."""

    def __init__(self, dim: int = 8, blocks: Sequence[int] = (1, 1, 1, 1), refinement: int = 2):
        super().__init__()
        d1, d2, d3, d4 = dim, 2 * dim, 4 * dim, 8 * dim

        def level(width: int, heads: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(width, heads) for _ in range(count)))

        self.patch_embed = nn.Sequential(nn.Conv2d(3, d1, 3, padding=1, bias=False))
        self.prompt1, self.prompt2, self.prompt3 = (
            PromptGenBlock(d1, 8, d2), PromptGenBlock(d2, 4, d3), PromptGenBlock(d3, 2, d4),
        )  # fmt: skip
        self.encoder_level1, self.down1_2 = level(d1, 1, blocks[0]), _down(d1)
        self.encoder_level2, self.down2_3 = level(d2, 2, blocks[1]), _down(d2)
        self.encoder_level3, self.down3_4 = level(d3, 4, blocks[2]), _down(d3)
        self.latent = level(d4, 8, blocks[3])
        self.up4_3, self.reduce_chan_level3 = _up(d4), nn.Conv2d(2 * d3, d3, 1, bias=False)
        self.noise_level3, self.reduce_noise_level3 = (
            TransformerBlock(d4 + d3, 4),
            nn.Conv2d(d4 + d3, d4, 1, bias=False),
        )
        self.decoder_level3 = level(d3, 4, blocks[2])
        self.up3_2, self.reduce_chan_level2 = _up(d3), nn.Conv2d(2 * d2, d2, 1, bias=False)
        self.noise_level2, self.reduce_noise_level2 = (
            TransformerBlock(d3 + d2, 4),
            nn.Conv2d(d3 + d2, d3, 1, bias=False),
        )
        self.decoder_level2 = level(d2, 2, blocks[1])
        self.up2_1 = _up(d2)
        self.noise_level1, self.reduce_noise_level1 = (
            TransformerBlock(d2 + d1, 4),
            nn.Conv2d(d2 + d1, d2, 1, bias=False),
        )
        self.decoder_level1 = level(d2, 1, blocks[0])
        self.refinement = level(d2, 1, refinement)
        self.output = nn.Conv2d(d2, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        enc1 = self.encoder_level1(self.patch_embed(image))
        enc2 = self.encoder_level2(self.down1_2(enc1))
        enc3 = self.encoder_level3(self.down2_3(enc2))
        latent = self.latent(self.down3_4(enc3))
        latent = self.noise_level3(torch.cat([latent, self.prompt3(latent)], 1))
        x = torch.cat([self.up4_3(self.reduce_noise_level3(latent)), enc3], 1)
        x = self.decoder_level3(self.reduce_chan_level3(x))
        x = self.reduce_noise_level2(self.noise_level2(torch.cat([x, self.prompt2(x)], 1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), enc2], 1)))
        x = self.reduce_noise_level1(self.noise_level1(torch.cat([x, self.prompt1(x)], 1)))
        x = self.decoder_level1(torch.cat([self.up2_1(x), enc1], 1))
        return self.output(self.refinement(x)) + image


class ConvLayer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, relu: bool = True):
        super().__init__()
        self.conv2d = nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(in_channels, out_channels, kernel))
        self.relu = nn.LeakyReLU(0.2) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2d(x))


class ConvMultiBlock(nn.Module):
    """Pairs of convolutions of several sizes beside each other, up to `max_conv_size`."""

    def __init__(self, in_channels: int, out_channels: int, max_conv_size: int):
        super().__init__()
        self.sizes = tuple(range(3, max_conv_size + 1, 2))
        for size in self.sizes:
            setattr(self, f"conv_{size}a", ConvLayer(in_channels, out_channels, size))
            setattr(self, f"conv_{size}b", ConvLayer(out_channels, out_channels, size))

    def forward(self, x: Tensor) -> Tensor:
        parts = [getattr(self, f"conv_{size}b")(getattr(self, f"conv_{size}a")(x)) for size in self.sizes]
        return torch.cat(parts, 1)


class UpsampleConvLayer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.reflection_pad = nn.ReflectionPad2d(1)
        self.conv2d = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.conv2d(self.reflection_pad(x))


class PyNET(nn.Module):
    """Ignatov et al., "Replacing Mobile Camera ISP with a Single Deep Learning Model"; at its last stage of training.

    The raw image comes packed, (N, 4, H, W); what goes out is twice as large.
    """

    def __init__(self, width: int = 2):
        super().__init__()
        a, b, c, d, e = (width * 2**i for i in range(5))
        self.conv_l1_d1, self.pool1 = ConvMultiBlock(4, a, 3), nn.MaxPool2d(2, 2)
        self.conv_l2_d1, self.pool2 = ConvMultiBlock(a, b, 3), nn.MaxPool2d(2, 2)
        self.conv_l3_d1, self.pool3 = ConvMultiBlock(b, c, 3), nn.MaxPool2d(2, 2)
        self.conv_l4_d1, self.pool4 = ConvMultiBlock(c, d, 3), nn.MaxPool2d(2, 2)
        self.conv_l5_d1, self.conv_l5_d2 = ConvMultiBlock(d, e, 3), ConvMultiBlock(e, e, 3)
        self.conv_l5_d3, self.conv_l5_d4 = ConvMultiBlock(e, e, 3), ConvMultiBlock(e, e, 3)
        self.conv_t4a, self.conv_t4b = UpsampleConvLayer(e, d), UpsampleConvLayer(e, d)
        self.conv_l4_d3, self.conv_l4_d4 = ConvMultiBlock(2 * d, d, 3), ConvMultiBlock(d, d, 3)
        self.conv_l4_d5, self.conv_l4_d6 = ConvMultiBlock(d, d, 3), ConvMultiBlock(d, d, 3)
        self.conv_l4_d8 = ConvMultiBlock(2 * d, d, 3)
        self.conv_t3a, self.conv_t3b = UpsampleConvLayer(d, c), UpsampleConvLayer(d, c)
        self.conv_l3_d3, self.conv_l3_d4 = ConvMultiBlock(2 * c, c, 5), ConvMultiBlock(2 * c, c, 5)
        self.conv_l3_d5, self.conv_l3_d6 = ConvMultiBlock(2 * c, c, 5), ConvMultiBlock(2 * c, c, 5)
        self.conv_l3_d8 = ConvMultiBlock(4 * c, c, 3)
        self.conv_t2a, self.conv_t2b = UpsampleConvLayer(c, b), UpsampleConvLayer(c, b)
        self.conv_l2_d3, self.conv_l2_d5 = ConvMultiBlock(2 * b, b, 5), ConvMultiBlock(3 * b, b, 7)
        self.conv_l2_d6, self.conv_l2_d7 = ConvMultiBlock(3 * b, b, 7), ConvMultiBlock(3 * b, b, 7)
        self.conv_l2_d8, self.conv_l2_d10 = ConvMultiBlock(3 * b, b, 7), ConvMultiBlock(4 * b, b, 5)
        self.conv_l2_d12 = ConvMultiBlock(3 * b, b, 3)
        self.conv_t1a, self.conv_t1b = UpsampleConvLayer(b, a), UpsampleConvLayer(b, a)
        self.conv_l1_d3, self.conv_l1_d5 = ConvMultiBlock(2 * a, a, 5), ConvMultiBlock(3 * a, a, 7)
        self.conv_l1_d6, self.conv_l1_d7 = ConvMultiBlock(3 * a, a, 9), ConvMultiBlock(4 * a, a, 9)
        self.conv_l1_d8, self.conv_l1_d9 = ConvMultiBlock(4 * a, a, 9), ConvMultiBlock(4 * a, a, 9)
        self.conv_l1_d10, self.conv_l1_d12 = ConvMultiBlock(4 * a, a, 7), ConvMultiBlock(4 * a, a, 5)
        self.conv_l1_d14 = ConvMultiBlock(4 * a, a, 3)
        self.conv_t0 = UpsampleConvLayer(a, a)
        self.conv_l0_d1 = ConvLayer(a, 3, 3, relu=False)

    def level_4(self, l4: Tensor, l5: Tensor) -> Tensor:
        x = self.conv_l4_d3(torch.cat([l4, self.conv_t4a(l5)], 1))
        x = self.conv_l4_d4(x) + x
        x = self.conv_l4_d6(self.conv_l4_d5(x) + x)
        return self.conv_l4_d8(torch.cat([x, self.conv_t4b(l5)], 1))

    def level_3(self, l3: Tensor, l4: Tensor) -> Tensor:
        x = torch.cat([l3, self.conv_t3a(l4)], 1)
        x = self.conv_l3_d3(x) + x
        x = self.conv_l3_d4(x) + x
        x = self.conv_l3_d6(self.conv_l3_d5(x) + x)
        return self.conv_l3_d8(torch.cat([x, l3, self.conv_t3b(l4)], 1))

    def level_2(self, l2: Tensor, l3: Tensor) -> Tensor:
        x = torch.cat([self.conv_l2_d3(torch.cat([l2, self.conv_t2a(l3)], 1)), l2], 1)
        x = self.conv_l2_d5(x) + x
        x = self.conv_l2_d6(x) + x
        x = self.conv_l2_d8(self.conv_l2_d7(x) + x)
        x = self.conv_l2_d10(torch.cat([x, l2], 1))
        return self.conv_l2_d12(torch.cat([x, self.conv_t2b(l3)], 1))

    def level_1(self, l1: Tensor, l2: Tensor) -> Tensor:
        x = self.conv_l1_d3(torch.cat([l1, self.conv_t1a(l2)], 1))
        x = self.conv_l1_d6(self.conv_l1_d5(torch.cat([x, l1], 1)))
        x = self.conv_l1_d7(x) + x
        x = self.conv_l1_d8(x) + x
        x = self.conv_l1_d10(self.conv_l1_d9(x) + x)
        x = self.conv_l1_d12(torch.cat([x, l1], 1))
        return self.conv_l1_d14(torch.cat([x, self.conv_t1b(l2), l1], 1))

    def forward(self, x: Tensor) -> Tensor:
        l1 = self.conv_l1_d1(x)
        l2 = self.conv_l2_d1(self.pool1(l1))
        l3 = self.conv_l3_d1(self.pool2(l2))
        l4 = self.conv_l4_d1(self.pool3(l3))
        l5 = self.conv_l5_d4(self.conv_l5_d3(self.conv_l5_d2(self.conv_l5_d1(self.pool4(l4)))))
        l3 = self.level_3(l3, self.level_4(l4, l5))
        return self.conv_l0_d1(self.conv_t0(self.level_1(l1, self.level_2(l2, l3)))).sigmoid()


class NAFBlock(nn.Module):
    """With the cascaded global context of CGNet, or the pooled one of NAFNet where `context` is empty."""

    def __init__(self, c: int, context: Sequence[tuple[int, int]] = ()):
        super().__init__()
        wide = 2 * c
        self.norm1, self.norm2 = nn.GroupNorm(1, c), nn.GroupNorm(1, c)
        self.conv1, self.conv2 = nn.Conv2d(c, wide, 1), nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.GCE = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, kernel, stride, groups=c), nn.Conv2d(c, c, 1)) for kernel, stride in context
        )
        after = wide + len(context) * c if context else c
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(after, after, 1))
        self.project_out = nn.Conv2d(after, c, 1)
        self.conv4, self.conv5 = nn.Conv2d(c, wide, 1), nn.Conv2d(c, c, 1)

    def forward(self, inp: Tensor) -> Tensor:
        x = self.conv2(self.conv1(self.norm1(inp)))
        first, second = x.chunk(2, dim=1)
        if len(self.GCE):
            upsample = nn.Upsample(size=inp.shape[-2:])
            y, parts = first + second, [F.gelu(x)]
            for conv in self.GCE:
                y = F.gelu(conv(y))
                parts.append(upsample(y))
            x = torch.cat(parts, dim=1)
        else:
            x = first * second
        y = inp + self.project_out(self.sca(x) * x)
        first, second = self.conv4(self.norm2(y)).chunk(2, dim=1)
        return y + self.conv5(first * second)


class CGNet(nn.Module):
    """Ghasemabadi et al., "CascadedGaze: Efficiency in Global Context Extraction for Image Restoration"."""

    def __init__(self, width: int = 4, blocks: int = 1, context: Sequence[int] = (3, 3, 2, 2), decoder: int = 0):
        super().__init__()
        kinds = {3: ((3, 2), (3, 3), (5, 4)), 2: ((3, 2), (3, 3)), 0: ()}

        def stage(c: int, convolutions: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(c, kinds[convolutions]) for _ in range(blocks)))

        widths = [width * 2**i for i in range(len(context))]
        self.intro, self.ending = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.encoders = nn.ModuleList(stage(c, n) for c, n in zip(widths, context, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, 2) for c in widths)
        self.middle_blks = stage(2 * widths[-1], 0)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, 4 * c, 1, bias=False), nn.PixelShuffle(2)) for c in reversed(widths)
        )
        self.decoders = nn.ModuleList(stage(c, decoder) for c in reversed(widths))

    def forward(self, inp: Tensor) -> Tensor:
        x = self.intro(inp)
        encs = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            encs.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            x = decoder(up(x) + encs.pop())
        return self.ending(x) + inp
