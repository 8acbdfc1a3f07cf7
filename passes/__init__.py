"""The rewrites that ship with mofa-compiler, one a file; found through the entry point group `mofa_compiler.passes`."""

from .channels_last import ChannelsLast
from .decouple_downsampling import DecoupleDownsampling
from .decouple_upsampling import DecoupleUpsampling
from .lower_gates import LowerGates
from .lower_layer_norm import LowerLayerNorm
from .lower_pconv import LowerPConv
from .lower_shuffle import LowerShuffle
from .merge_linear import MergeLinear
from .narrow_portion import NarrowPortion
from .pconv_to_pdwconv import PConvToPDWConv
from .pointwise_first import PointwiseFirst
from .restore_kernels import RestoreKernels
from .sepconv_to_pconv import SepConvToPConv
from .shrink_kernels import ShrinkKernels
from .widen_portion import WidenPortion

__all__ = [
    "ChannelsLast",
    "DecoupleDownsampling",
    "DecoupleUpsampling",
    "LowerGates",
    "LowerLayerNorm",
    "LowerShuffle",
    "MergeLinear",
    "LowerPConv",
    "NarrowPortion",
    "PConvToPDWConv",
    "PointwiseFirst",
    "RestoreKernels",
    "SepConvToPConv",
    "ShrinkKernels",
    "WidenPortion",
]
