"""Small equivalents of segmentation_models_pytorch: encoders of other packages with its own decoders.

Module names and graph are that package's, the check of the input size in forward included.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import timm, torchvision


class ResNetEncoder(torchvision.ResNet):
    """Six feature maps, the input first, each half as large as the one before."""

    def __init__(self, width: int = 64):
        super().__init__(width)
        del self.fc, self.avgpool
        self.out_channels = (3, width, width, 2 * width, 4 * width, 8 * width)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x, self.relu(self.bn1(self.conv1(x)))]
        features.append(self.layer1(self.maxpool(features[-1])))
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features


class MobileNetV2Encoder(torchvision.MobileNetV2):
    def __init__(self, width: float = 1.0, last_channels: int = 1280):
        super().__init__(width, last_channels)
        del self.classifier
        self.ends = (1, 3, 6, 13, len(self.features) - 1)
        inner = (torchvision.scaled(channels, width) for channels in (16, 24, 32, 96))
        self.out_channels = (3, *inner, last_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x]
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self.ends:
                features.append(x)
        return features


class EfficientNetEncoder(timm.EfficientNet):
    """EfficientNet-B0; the head of the classifier is there, and never called."""

    def __init__(self, width: float = 1.0, num_features: int = 1280):
        style = timm.Style(timm.Swish, squeeze=0.25)
        super().__init__(timm.EFFICIENTNET_B0, style, width, num_features, drop_path_rate=0.2)
        del self.classifier
        self.out_channels = (3, *(torchvision.scaled(channels, width) for channels in (32, 24, 40, 112, 320)))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x]
        x = self.bn1(self.conv_stem(x))
        features.append(x)
        x = self.blocks[1](self.blocks[0](x))
        features.append(x)
        x = self.blocks[2](x)
        features.append(x)
        x = self.blocks[4](self.blocks[3](x))
        features.append(x)
        x = self.blocks[6](self.blocks[5](x))
        features.append(x)
        return features


class Conv2dReLU(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Attention(nn.Module):
    """The place of an attention block, empty unless one is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


class DecoderBlock(nn.Module):
    """Enlarges to `size` (or by two), concatenates the skip connection, convolves twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = Conv2dReLU(in_channels + skip_channels, out_channels, 3)
        self.attention1 = Attention()
        self.conv2 = Conv2dReLU(out_channels, out_channels, 3)
        self.attention2 = Attention()

    def forward(self, x: Tensor, skip: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0) if size is None else F.interpolate(x, size=size, mode="nearest")
        if skip is not None:
            x = self.attention1(torch.cat([x, skip], dim=1))
        return self.attention2(self.conv2(self.conv1(x)))


class UnetDecoder(nn.Module):
    def __init__(self, encoder_channels: Sequence[int], decoder_channels: Sequence[int]):
        super().__init__()
        deepest, *skips = reversed(encoder_channels[1:])
        inputs = (deepest, *decoder_channels[:-1])
        self.center = nn.Identity()
        self.blocks = nn.ModuleList(map(DecoderBlock, inputs, (*skips, 0), decoder_channels))

    def forward(self, features: list[Tensor]) -> Tensor:
        shapes = [feature.shape[2:] for feature in features][::-1]
        skips = features[1:][::-1]
        x = self.center(skips[0])
        for i, block in enumerate(self.blocks):
            height, width = shapes[i + 1]
            skip = skips[i + 1] if i + 1 < len(skips) else None
            x = block(x, skip, (height, width))
        return x


class UnetPlusPlusDecoder(nn.Module):
    """Every level enlarges the one below it, again and again; `x_{depth}_{layer}` is the block that ends there."""

    def __init__(self, encoder_channels: Sequence[int], decoder_channels: Sequence[int]):
        super().__init__()
        deepest, *skips = reversed(encoder_channels[1:])
        inputs = (deepest, *decoder_channels[:-1])
        self.depth = len(skips)
        self.center = nn.Identity()
        blocks = {}
        for layer in range(self.depth):
            blocks[f"x_0_{layer}"] = DecoderBlock(inputs[layer], skips[layer] * (layer + 1), decoder_channels[layer])
            for depth in range(1, layer + 1):
                merged = skips[layer] * (layer + 1 - depth)
                blocks[f"x_{depth}_{layer}"] = DecoderBlock(skips[layer - 1], merged, skips[layer])
        blocks[f"x_0_{self.depth}"] = DecoderBlock(inputs[-1], 0, decoder_channels[-1])
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, features: list[Tensor]) -> Tensor:
        features = features[1:][::-1]
        dense: dict[str, Tensor] = {}
        for distance in range(self.depth):
            for depth in range(self.depth - distance):
                layer = depth + distance
                if distance:
                    x = dense[f"x_{depth}_{layer - 1}"]
                    beside = [dense[f"x_{i}_{layer}"] for i in range(depth + 1, layer + 1)]
                    skip = torch.cat([*beside, features[layer + 1]], dim=1)
                else:
                    x, skip = features[depth], features[depth + 1]
                dense[f"x_{depth}_{layer}"] = self.blocks[f"x_{depth}_{layer}"](x, skip)
        return self.blocks[f"x_0_{self.depth}"](dense[f"x_0_{self.depth - 1}"])


class TransposeX2(nn.Sequential):
    def __init__(self, channels: int):
        up = nn.ConvTranspose2d(channels, channels, 4, 2, 1)
        super().__init__(up, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class LinknetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        narrow = in_channels // 4
        self.block = nn.Sequential(
            Conv2dReLU(in_channels, narrow, 1), TransposeX2(narrow), Conv2dReLU(narrow, out_channels, 1)
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.block(x)
        if skip is not None and skip.shape[1] != 0:
            x = x + skip
        return x


class LinknetDecoder(nn.Module):
    def __init__(self, encoder_channels: Sequence[int], prefinal_channels: int = 32):
        super().__init__()
        channels = (*reversed(encoder_channels[1:]), prefinal_channels)
        self.blocks = nn.ModuleList(LinknetBlock(a, b) for a, b in pairwise(channels))

    def forward(self, features: list[Tensor]) -> Tensor:
        features = features[1:][::-1]
        x, skips = features[0], features[1:]
        for i, block in enumerate(self.blocks):
            x = block(x, skips[i] if i < len(skips) else None)
        return x


class Activation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x)


class SegmentationHead(nn.Sequential):
    def __init__(self, in_channels: int, classes: int, kernel_size: int):
        convolution = nn.Conv2d(in_channels, classes, kernel_size, padding=kernel_size // 2)
        super().__init__(convolution, nn.Identity(), Activation())


class SegmentationModel(nn.Module):
    """(N, 3, H, W) → (N, 1, H, W), H and W multiples of 32."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, channels: int, kernel_size: int = 3):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.segmentation_head = SegmentationHead(channels, 1, kernel_size)
        self.classification_head = None

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 32 != 0 or width % 32 != 0:
            raise RuntimeError(f"wrong input shape {height}x{width}: expected multiples of 32")
        return self.segmentation_head(self.decoder(self.encoder(x)))


def unet(encoder: nn.Module, channels: Sequence[int] = (256, 128, 64, 32, 16)) -> SegmentationModel:
    return SegmentationModel(encoder, UnetDecoder(encoder.out_channels, channels), channels[-1])


def unet_plus_plus(encoder: nn.Module, channels: Sequence[int] = (256, 128, 64, 32, 16)) -> SegmentationModel:
    return SegmentationModel(encoder, UnetPlusPlusDecoder(encoder.out_channels, channels), channels[-1])


def linknet(encoder: nn.Module, prefinal_channels: int = 32) -> SegmentationModel:
    return SegmentationModel(encoder, LinknetDecoder(encoder.out_channels, prefinal_channels), prefinal_channels, 1)
