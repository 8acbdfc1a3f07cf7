"""The rewrites that ship with mofa-compiler, one a file; found through the entry point group `mofa_compiler.passes`."""

from .decouple_downsampling import DecoupleDownsampling
from .decouple_upsampling import DecoupleUpsampling
from .lower_pconv import LowerPConv
from .pconv_to_pdwconv import PConvToPDWConv
from .pointwise_first import PointwiseFirst
from .restore_kernels import RestoreKernels
from .sepconv_to_pconv import SepConvToPConv
from .shrink_kernels import ShrinkKernels
from .widen_portion import WidenPortion

__all__ = [
    "DecoupleDownsampling",
    "DecoupleUpsampling",
    "LowerPConv",
    "PConvToPDWConv",
    "PointwiseFirst",
    "RestoreKernels",
    "SepConvToPConv",
    "ShrinkKernels",
    "WidenPortion",
]
