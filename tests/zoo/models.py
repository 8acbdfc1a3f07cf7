"""The visible zoo: networks as their users build them, small, each with the stages that a person would name.

MONAI and diffusers are the real packages, imported when one of their networks is built, for that takes seconds; what
needs torchvision is an equivalent in this folder that the real one's weights fit, with outputs equal bit for bit
(checked once with segmentation_models_pytorch 0.6.0 and timm 1.0.31).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from architectures import PMRID, NAFNet, UNet

from . import segmentation_models, timm
from .local_pooling import localized

Stages = Mapping[str, tuple[int | None, tuple[str, ...]]]
"""Level and units of each stage, by name, in execution order."""


@dataclass(frozen=True)
class ZooModel:
    """A network and what there is to know about it.

    Attributes:
        build: makes it, in the mode to capture it in.
        stages: see `Stages`; None for a network that is no U-Net.
        transitions: the units that only change the resolution, and their role; all others have their stage's.
        skips: kind and level of the long skip connections, in execution order.
        reason: why it is no U-Net.
        channels: of the input image.
        follows_mode: whether its Python code does the same in train and in eval mode.
    """

    build: Callable[[], nn.Module]
    stages: Stages | None = None
    transitions: Mapping[str, str] = field(default_factory=dict)
    skips: tuple[tuple[str, int], ...] = ()
    reason: str = ""
    channels: int = 3
    follows_mode: bool = True

    def inputs(self, height: int, width: int, batch: int = 1) -> tuple[Any, ...]:
        return (torch.rand(batch, self.channels, height, width),)


class Denoiser(ZooModel):
    """A diffusion model: an image and a time step; it returns a dataclass."""

    def inputs(self, height: int, width: int, batch: int = 1) -> tuple[Any, ...]:
        return (*super().inputs(height, width, batch), torch.tensor([7]))


def unet2d() -> nn.Module:
    from diffusers import UNet2DModel

    widths = (8, 16, 16, 32)
    return UNet2DModel(layers_per_block=1, block_out_channels=widths, norm_num_groups=4, attention_head_dim=4)


def units(prefix: str, first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{prefix}.{i}" for i in range(first, last + 1))


def cat(*levels: int) -> tuple[tuple[str, int], ...]:
    return tuple(("cat", level) for level in levels)


def add(*levels: int) -> tuple[tuple[str, int], ...]:
    return tuple(("add", level) for level in levels)


UNET_DECODER: Stages = {f"decoder {i + 1}": (4 - i, (f"decoder.blocks.{i}",)) for i in range(5)}
SEGMENTATION_HEAD: Stages = {"head": (0, ("segmentation_head",))}
RESNET_ENCODER: Stages = {
    "stem": (1, ("encoder.conv1",)),
    **{f"encoder {i}": (i + 1, (f"encoder.layer{i}",)) for i in range(1, 5)},
}
NAFNET: Stages = {
    "stem": (0, ("intro",)),
    "encoder 1": (0, ("encoders.0",)),
    "encoder 2": (1, ("downs.0", "encoders.1")),
    "encoder 3": (2, ("downs.1", "encoders.2")),
    "bottleneck": (3, ("downs.2", "middle_blks")),
    "decoder 1": (2, ("ups.0", "decoders.0")),
    "decoder 2": (1, ("ups.1", "decoders.1")),
    "decoder 3": (0, ("ups.2", "decoders.2")),
    "head": (0, ("ending",)),
}
NAFNET_TRANSITIONS = {f"{kind}s.{i}": f"{kind} transition" for kind in ("down", "up") for i in range(3)}


def monai(name: str, **arguments: Any) -> nn.Module:
    """A network of MONAI's for one channel in two dimensions."""
    import monai.networks.nets

    network: nn.Module = getattr(monai.networks.nets, name)(spatial_dims=2, **arguments)
    return network


def dynunet(mode: bool) -> nn.Module:
    return monai(
        "DynUNet",
        in_channels=1, out_channels=2, kernel_size=[3] * 4, strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3, filters=[8, 16, 32, 64], deep_supervision=True, deep_supr_num=2,
    ).train(mode)  # fmt: skip


DYNUNET: Stages = {
    "stem": (0, ("input_block",)),
    "encoder 1": (1, ("downsamples.0",)),
    "encoder 2": (2, ("downsamples.1",)),
    "encoder 3": (3, ("bottleneck",)),
    "decoder 1": (2, ("upsamples.0",)),
    "aux head": (1, ("deep_supervision_heads.1", "deep_supervision_heads.0")),
    "decoder 2": (1, ("upsamples.1",)),
    "decoder 3": (0, ("upsamples.2",)),
    "head": (0, ("output_block",)),
}

ZOO: Mapping[str, ZooModel] = {
    "smp-unet-mobilenet_v2": ZooModel(
        lambda: segmentation_models.unet(segmentation_models.MobileNetV2Encoder(0.25, 64), (32, 16, 16, 8, 8)).eval(),
        {
            "stem": (1, units("encoder.features", 0, 1)),
            "encoder 1": (2, units("encoder.features", 2, 3)),
            "encoder 2": (3, units("encoder.features", 4, 6)),
            "encoder 3": (4, units("encoder.features", 7, 13)),
            "encoder 4": (5, ("encoder.features.14",)),
            "bottleneck": (5, units("encoder.features", 15, 18)),
            **UNET_DECODER,
            **SEGMENTATION_HEAD,
        },
        skips=cat(4, 3, 2, 1),
    ),
    "smp-unet-efficientnet_b0": ZooModel(
        lambda: segmentation_models.unet(segmentation_models.EfficientNetEncoder(0.25, 64), (32, 16, 16, 8, 8)).eval(),
        {
            "stem": (1, ("encoder.conv_stem", "encoder.blocks.0")),
            "encoder 1": (2, ("encoder.blocks.1",)),
            "encoder 2": (3, ("encoder.blocks.2",)),
            "encoder 3": (4, ("encoder.blocks.3", "encoder.blocks.4")),
            "encoder 4": (5, ("encoder.blocks.5",)),
            "bottleneck": (5, ("encoder.blocks.6",)),
            **UNET_DECODER,
            **SEGMENTATION_HEAD,
        },
        skips=cat(4, 3, 2, 1),
    ),
    "smp-linknet-resnet18": ZooModel(
        lambda: segmentation_models.linknet(segmentation_models.ResNetEncoder(8), 8).eval(),
        RESNET_ENCODER | UNET_DECODER | SEGMENTATION_HEAD,
        skips=add(4, 3, 2, 1),
    ),
    "smp-unet++-resnet18": ZooModel(
        lambda: segmentation_models.unet_plus_plus(segmentation_models.ResNetEncoder(8), (32, 16, 16, 8, 8)).eval(),
        {
            **RESNET_ENCODER,
            "decoder 1": (4, ("decoder.blocks.x_0_0",)),
            "skip": (1, tuple(f"decoder.blocks.x_{name}" for name in ("1_1", "2_2", "3_3", "1_2", "2_3", "1_3"))),
            **{f"decoder {i + 1}": (4 - i, (f"decoder.blocks.x_0_{i}",)) for i in range(1, 5)},
            **SEGMENTATION_HEAD,
        },
        skips=cat(4, 3, 2, 1),
    ),
    "monai-basicunet": ZooModel(
        lambda: monai("BasicUNet", in_channels=1, out_channels=2, features=(8, 8, 16, 32, 64, 8)).eval(),
        {
            "stem": (0, ("conv_0",)),
            **{f"encoder {i}": (i, (f"down_{i}",)) for i in range(1, 5)},
            **{f"decoder {i}": (4 - i, (f"upcat_{5 - i}",)) for i in range(1, 5)},
            "head": (0, ("final_conv",)),
        },
        skips=cat(3, 2, 1, 0),
        channels=1,
    ),
    "monai-unet": ZooModel(
        lambda: monai(
            "UNet", in_channels=1, out_channels=2, channels=(8, 16, 32, 64), strides=(2, 2, 2), num_res_units=2
        ).eval(),
        {
            "encoder 1": (1, ("model.0",)),
            "encoder 2": (2, ("model.1.submodule.0",)),
            "encoder 3": (3, ("model.1.submodule.1.submodule.0",)),
            "bottleneck": (3, ("model.1.submodule.1.submodule.1",)),
            "decoder 1": (2, ("model.1.submodule.1.submodule.2",)),
            "decoder 2": (1, ("model.1.submodule.2",)),
            "decoder 3": (0, ("model.2",)),
        },
        skips=cat(2, 1),
        channels=1,
    ),
    "monai-dynunet": ZooModel(lambda: dynunet(False), DYNUNET, skips=cat(2, 1, 0), channels=1, follows_mode=False),
    "monai-dynunet-training": ZooModel(
        lambda: dynunet(True), DYNUNET, skips=cat(2, 1, 0), channels=1, follows_mode=False
    ),
    "diffusers-unet2d": Denoiser(
        lambda: unet2d().eval(),
        {
            "conditioning": (None, ("time_embedding",)),
            "stem": (0, ("conv_in",)),
            "encoder 1": (0, ("down_blocks.0",)),
            "encoder 2": (1, ("down_blocks.1",)),
            "encoder 3": (2, ("down_blocks.2",)),
            "bottleneck": (3, ("down_blocks.3", "mid_block")),
            "decoder 1": (3, ("up_blocks.0",)),
            "decoder 2": (2, ("up_blocks.1",)),
            "decoder 3": (1, ("up_blocks.2", "up_blocks.3")),
            "head": (0, ("conv_out",)),
        },
        skips=cat(2, 2, 1, 1, 0, 0),
    ),
    "timm-mobilenetv2": ZooModel(
        lambda: timm.mobilenet_v2(0.25, 64, 10).eval(),
        reason="the resolution goes down 5 times and never up again",
    ),
    "unet": ZooModel(
        lambda: UNet(width=8).eval(),
        {
            "stem": (0, ("inc",)),
            **{f"encoder {i + 1}": (i + 1, (f"downs.{i}",)) for i in range(4)},
            **{f"decoder {i + 1}": (3 - i, (f"ups.{i}",)) for i in range(4)},
            "head": (0, ("outc",)),
        },
        skips=cat(3, 2, 1, 0),
    ),
    "pmrid": ZooModel(
        lambda: PMRID().eval(),
        {
            "stem": (0, ("conv0",)),
            **{f"encoder {i}": (i, (f"enc{i}",)) for i in range(1, 5)},
            "bottleneck": (4, ("encdec",)),
            **{f"decoder {i}": (5 - i, (f"dec{i}",)) for i in range(1, 5)},
            "head": (0, ("out0", "out1")),
        },
        skips=add(3, 2, 1, 0),
    ),
    "nafnet": ZooModel(lambda: NAFNet(width=8).eval(), NAFNET, NAFNET_TRANSITIONS, add(2, 1, 0)),
    "nafnet-local": ZooModel(
        lambda: localized(NAFNet(width=8).eval(), (32, 32)), NAFNET, NAFNET_TRANSITIONS, add(2, 1, 0)
    ),
}


QUICK = ("monai-basicunet", "nafnet", "unet")
"""Those that `make test` takes"""


def build(name: str) -> nn.Module:
    """A network of the zoo whose every weight counts, those that start as zeros or ones included."""
    torch.manual_seed(0)
    model = ZOO[name].build()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.uniform_(-0.5, 0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
    return model
