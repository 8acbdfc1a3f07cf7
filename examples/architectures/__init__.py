"""Architectures that the examples, tests and benchmarks rewrite: PMRID, NAFNet and a plain dense U-Net."""

from .nafnet import NAFNet
from .pmrid import PMRID
from .unet import UNet

__all__ = ["PMRID", "NAFNet", "UNet"]
