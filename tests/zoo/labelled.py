"""Networks whose stages were written down before the code knew them: how many are right shows `labels.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .context import CONTEXTS, ContextUNet
from .medical import ResidualEncoderUNet, ResUnet, U2Net
from .mobile import CamNet, SpeechNet
from .models import Stages, ZooModel, add, cat, monai
from .restoration import CGNet, PromptIR, PyNET


class Spectrogram(ZooModel):
    """Of a network whose input has a frequency more than a power of two: the frequencies come last."""

    def inputs(self, height: int, width: int, batch: int = 1) -> tuple[Any, ...]:
        return super().inputs(height, width + 1, batch)


class Spectrum(ZooModel):
    """Of a network whose input is the complex spectrum as real numbers: (N, frequencies, frames, 2)."""

    def inputs(self, height: int, width: int, batch: int = 1) -> tuple[Any, ...]:
        return (torch.rand(batch, width + 1, height, 2),)


def nafnet_like(depth: int, middle: str) -> Stages:
    return {
        "stem": (0, ("intro",)),
        **{f"encoder {i + 1}": (i, (*([f"downs.{i - 1}"] if i else []), f"encoders.{i}")) for i in range(depth)},
        "bottleneck": (depth, (f"downs.{depth - 1}", middle)),
        **{f"decoder {i + 1}": (depth - 1 - i, (f"ups.{i}", f"decoders.{i}")) for i in range(depth)},
        "head": (0, ("ending",)),
    }


def residual_encoder(depth: int) -> Stages:
    last = depth - 2
    return {
        "stem": (0, ("encoder.stem",)),
        **{f"encoder {i + 1}": (i, (f"encoder.stages.{i}",)) for i in range(depth)},
        **{
            f"decoder {i + 1}": (last - i, (f"decoder.transpconvs.{i}", f"decoder.stages.{i}"))
            for i in range(depth - 1)
        },
        "head": (0, (f"decoder.seg_layers.{last}",)),
    }


def named(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{name}" for name in names.split())


CAMNET: Stages = {
    "stem": (0, ("stem",)),
    "encoder 1": (0, ("enc1",)),
    "encoder 2": (1, ("down1", "enc2")),
    "bottleneck": (2, ("down2", "mid")),
    "decoder 1": (1, ("up2",)),
    "decoder 2": (0, ("up1",)),
    "head": (0, ("head",)),
}
SEPARATE_UP: Stages = {"decoder 1": (1, ("up2", "dec2")), "decoder 2": (0, ("up1", "dec1"))}
SPEECH: Stages = {
    "stem": (1, ("en_convs.0",)),
    "encoder 1": (2, ("en_convs.1",)),  # first labelled "bottleneck": but a level of the stem only has none else
    "bottleneck": (2, named("", "en_convs.2 en_convs.3 dpgrnn de_convs.0 de_convs.1")),
    "decoder 1": (1, ("de_convs.2",)),
    "decoder 2": (0, ("de_convs.3",)),
}

LABELLED: Mapping[str, ZooModel] = {
    "camnet": ZooModel(lambda: CamNet().eval(), CAMNET, skips=cat(1, 0)),
    "camnet-two-blocks": ZooModel(lambda: CamNet(2).eval(), CAMNET, skips=cat(1, 0)),
    "camnet-without-stem": ZooModel(
        lambda: CamNet(stem=False).eval(), {name: CAMNET[name] for name in CAMNET if name != "stem"}, skips=cat(1, 0)
    ),
    "camnet-separate-up": ZooModel(lambda: CamNet(separate_up=True).eval(), CAMNET | SEPARATE_UP, skips=cat(1, 0)),
    "cgnet": ZooModel(lambda: CGNet().eval(), nafnet_like(4, "middle_blks"), skips=add(3, 2, 1, 0)),
    "cgnet-two-blocks": ZooModel(lambda: CGNet(blocks=2).eval(), nafnet_like(4, "middle_blks"), skips=add(3, 2, 1, 0)),
    "nnunet-residual-encoder": ZooModel(
        lambda: ResidualEncoderUNet().eval(), residual_encoder(4), skips=cat(2, 1, 0), channels=1
    ),
    "nnunet-residual-encoder-two-convolutions": ZooModel(
        lambda: ResidualEncoderUNet(decoder=2).eval(), residual_encoder(4), skips=cat(2, 1, 0), channels=1
    ),
    "monai-mednext": ZooModel(
        lambda: monai(
            "MedNeXt",
            init_filters=4,
            kernel_size=3,
            use_residual_connection=True,
            blocks_down=(1, 2, 1),
            blocks_bottleneck=1,
            blocks_up=(1, 2, 1),
        ).eval(),
        {
            "stem": (0, ("stem",)),
            "encoder 1": (0, ("enc_stages.0",)),
            "encoder 2": (1, ("down_blocks.0", "enc_stages.1")),
            "encoder 3": (2, ("down_blocks.1", "enc_stages.2")),
            "bottleneck": (3, ("down_blocks.2", "bottleneck")),
            **{f"decoder {i + 1}": (2 - i, (f"up_blocks.{i}", f"dec_stages.{i}")) for i in range(3)},
            "head": (0, ("out_0",)),
        },
        skips=add(2, 1, 0),
        channels=1,
    ),
    "resunet": ZooModel(
        lambda: ResUnet().eval(),
        {
            "stem": (0, ("input_layer", "input_skip")),
            "encoder 1": (1, ("residual_conv_1",)),
            "encoder 2": (2, ("residual_conv_2",)),
            "encoder 3": (3, ("bridge",)),
            **{f"decoder {i}": (3 - i, (f"upsample_{i}", f"up_residual_conv{i}")) for i in (1, 2, 3)},
            "head": (0, ("output_layer",)),
        },
        skips=cat(2, 1, 0),
    ),
    "u2net": ZooModel(
        lambda: U2Net().eval(),
        {
            **{f"encoder {i}": (i - 1, (f"stage{i}",)) for i in (1, 2, 3)},
            "bottleneck": (3, ("stage4",)),
            "decoder 1": (2, ("stage3d",)),
            "decoder 2": (1, ("stage2d",)),
            "decoder 3": (0, ("stage1d",)),
            "head": (0, ("side1", "outconv")),
            "aux head": (1, ("side2", "side3", "side4")),
        },
        skips=cat(2, 1, 0),
    ),
    "pynet": ZooModel(
        lambda: PyNET().eval(),
        {
            **{f"encoder {i}": (i - 1, (f"conv_l{i}_d1",)) for i in (1, 2, 3, 4)},
            "bottleneck": (4, named("conv_l5_d", "1 2 3 4")),
            "decoder 1": (3, named("conv_", "t4a l4_d3 l4_d4 l4_d5 l4_d6 t4b l4_d8")),
            "decoder 2": (2, named("conv_", "t3a l3_d3 l3_d4 l3_d5 l3_d6 t3b l3_d8")),
            "decoder 3": (1, named("conv_", "t2a l2_d3 l2_d5 l2_d6 l2_d7 l2_d8 l2_d10 t2b l2_d12")),
            "decoder 4": (
                0,
                named("conv_", "t1a l1_d3 l1_d5 l1_d6 l1_d7 l1_d8 l1_d9 l1_d10 l1_d12 t1b l1_d14"),
            ),
            "head": (-1, ("conv_t0", "conv_l0_d1")),
        },
        skips=cat(3, 2, 1, 0),
        channels=4,
    ),
    "promptir": ZooModel(
        lambda: PromptIR().eval(),
        {
            "stem": (0, ("patch_embed",)),
            "encoder 1": (0, ("encoder_level1",)),
            "encoder 2": (1, ("down1_2", "encoder_level2")),
            "encoder 3": (2, ("down2_3", "encoder_level3")),
            "bottleneck": (3, ("down3_4", "latent", "prompt3", "noise_level3", "reduce_noise_level3")),
            "decoder 1": (
                2,
                named("", "up4_3 reduce_chan_level3 decoder_level3 prompt2 noise_level2 reduce_noise_level2"),
            ),
            "decoder 2": (
                1,
                named("", "up3_2 reduce_chan_level2 decoder_level2 prompt1 noise_level1 reduce_noise_level1"),
            ),
            "decoder 3": (0, ("up2_1", "decoder_level1")),
            "head": (0, ("refinement", "output")),
        },
        skips=cat(2, 1, 0),
    ),
    "speech": Spectrogram(lambda: SpeechNet(recurrent=False).eval(), SPEECH, skips=add(1), channels=2),
    "speech-recurrent": Spectrogram(lambda: SpeechNet().eval(), SPEECH, skips=add(1), channels=2),
    "speech-spectrum": Spectrum(lambda: SpeechNet(spectrum=True).eval(), SPEECH, skips=add(1)),
    **{
        f"context-{name.lower()}-{where}": ZooModel(
            lambda kind=kind, where=where: ContextUNet(kind, where).eval(), nafnet_like(2, "middle"), skips=add(1, 0)
        )
        for name, kind in CONTEXTS.items()
        for where in ("ed", "emd", "m")
    },
}
