"""The rewrites that ship with mofa-compiler, one a file; found through the entry point group `mofa_compiler.passes`."""

from .channels_last import ChannelsLast as ChannelsLast
from .decouple_downsampling import DecoupleDownsampling as DecoupleDownsampling
from .decouple_upsampling import DecoupleUpsampling as DecoupleUpsampling
from .drop_block import DropBlock as DropBlock
from .eliminate_dead_channels import EliminateDeadChannels as EliminateDeadChannels
from .lower_gates import LowerGates as LowerGates
from .lower_layer_norm import LowerLayerNorm as LowerLayerNorm
from .lower_pconv import LowerPConv as LowerPConv
from .lower_shuffle import LowerShuffle as LowerShuffle
from .merge_linear import MergeLinear as MergeLinear
from .narrow_hidden import NarrowHidden as NarrowHidden
from .narrow_portion import NarrowPortion as NarrowPortion
from .pconv_to_pdwconv import PConvToPDWConv as PConvToPDWConv
from .pointwise_first import PointwiseFirst as PointwiseFirst
from .restore_kernels import RestoreKernels as RestoreKernels
from .sepconv_to_pconv import SepConvToPConv as SepConvToPConv
from .shrink_kernels import ShrinkKernels as ShrinkKernels
from .unshare import Unshare as Unshare
from .widen_portion import WidenPortion as WidenPortion
