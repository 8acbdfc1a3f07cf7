"""PMRID (Wang et al., "Practical Deep Raw Image Denoising on Mobile Devices", ECCV 2020).

The module names match the state_dict that its authors published, so their checkpoint loads as it is.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    separable: bool = True,
    relu: bool = False,
) -> nn.Sequential:
    """One convolution that keeps the size at stride 1, separable by default."""
    padding = kernel_size // 2
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if separable:
        layers["depthwise"] = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, padding, groups=in_channels, bias=False
        )
        layers["pointwise"] = nn.Conv2d(in_channels, out_channels, 1)
    else:
        layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)
    if relu:
        layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


class EncoderBlock(nn.Module):
    """Bottleneck residual block of two 5x5 separable convolutions."""

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv(in_channels, mid_channels, 5, stride, relu=True)
        self.conv2 = conv(mid_channels, out_channels, 5)
        keeps_shape = stride == 1 and in_channels == out_channels
        self.proj = nn.Identity() if keeps_shape else conv(in_channels, out_channels, 3, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.conv1(x)) + self.proj(x))


def encoder_stage(in_channels: int, out_channels: int, num_blocks: int) -> nn.Sequential:
    """A block that halves the resolution, then `num_blocks` - 1 that keep it."""
    mid_channels = out_channels // 4
    blocks = [EncoderBlock(in_channels, mid_channels, out_channels, stride=2)]
    blocks += [EncoderBlock(out_channels, mid_channels, out_channels) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)


class DecoderBlock(nn.Module):
    """Residual block of two 3x3 separable convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv0 = conv(channels, channels, 3, relu=True)
        self.conv1 = conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(self.conv0(x)) + x


class DecoderStage(nn.Module):
    """Decode, double the resolution, add the projected skip connection."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        self.decode_conv = DecoderBlock(in_channels)
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, 2, 2)
        self.proj_conv = conv(skip_channels, out_channels, 3, relu=True)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.upsample(self.decode_conv(x)) + self.proj_conv(skip)


class PMRID(nn.Module):
    """Input and output: (N, `channels`, H, W), H and W multiples of 16; 4 channels for packed RGGB raw images."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.conv0 = conv(channels, 16, 3, separable=False, relu=True)
        self.enc1 = encoder_stage(16, 64, 2)
        self.enc2 = encoder_stage(64, 128, 2)
        self.enc3 = encoder_stage(128, 256, 4)
        self.enc4 = encoder_stage(256, 512, 4)
        self.encdec = conv(512, 64, 3, relu=True)
        self.dec1 = DecoderStage(64, 256, 64)
        self.dec2 = DecoderStage(64, 128, 32)
        self.dec3 = DecoderStage(32, 64, 32)
        self.dec4 = DecoderStage(32, 16, 16)
        self.out0 = DecoderBlock(16)
        self.out1 = conv(16, channels, 3, separable=False)

    def forward(self, image: Tensor) -> Tensor:
        conv0 = self.conv0(image)
        conv1 = self.enc1(conv0)
        conv2 = self.enc2(conv1)
        conv3 = self.enc3(conv2)
        x = self.encdec(self.enc4(conv3))
        x = self.dec1(x, conv3)
        x = self.dec2(x, conv2)
        x = self.dec3(x, conv1)
        x = self.dec4(x, conv0)
        return image + self.out1(self.out0(x))
