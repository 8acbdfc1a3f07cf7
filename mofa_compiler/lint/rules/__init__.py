"""The rules, one family a file."""

from __future__ import annotations

from collections.abc import Mapping

from ..rule import Rule
from .budgets import TooManyMacs, TooManyParameters, TooMuchMemory, TooSlow
from .convolutions import DenseConvolution, DepthwiseBeforeContraction, LargeKernel, SeparableConvolution, WidePConv
from .dead_weight import DeadWeight
from .deployment import (
    ChannelGate,
    ChannelLayerNorm,
    DynamicPadding,
    PixelShuffle,
    SplitConcatenate,
    UnmergedLinear,
    UnsupportedOperator,
)
from .failures import NoConvolutions, NotAnalysed, NotBuilt, NotTraced, OpaquePart, UnusedSuppression
from .half_range import HalfRange
from .portions import CheapStage, CheapStageNarrow, MiddleStageNarrow, PortionTooWide
from .resampling import ConvolutionPixelShuffle, StridedConvolution, TransposedConvolution, UpsampleBeforeConvolution

RULES: Mapping[str, type[Rule]] = {
    rule.code: rule
    for rule in (
        UnusedSuppression,
        CheapStageNarrow,
        MiddleStageNarrow,
        PortionTooWide,
        CheapStage,
        SeparableConvolution,
        DenseConvolution,
        WidePConv,
        LargeKernel,
        DepthwiseBeforeContraction,
        DeadWeight,
        TransposedConvolution,
        ConvolutionPixelShuffle,
        UpsampleBeforeConvolution,
        StridedConvolution,
        SplitConcatenate,
        ChannelLayerNorm,
        DynamicPadding,
        UnsupportedOperator,
        ChannelGate,
        PixelShuffle,
        UnmergedLinear,
        HalfRange,
        TooManyParameters,
        TooManyMacs,
        TooMuchMemory,
        TooSlow,
        NotBuilt,
        NotTraced,
        NotAnalysed,
        NoConvolutions,
        OpaquePart,
    )
}
"""Every rule by code; a code is never used for anything else, not even after its rule is gone"""
