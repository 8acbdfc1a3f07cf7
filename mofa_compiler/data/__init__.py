"""Example images: files, degradations, synthetic ones; batches to calibrate on and pairs to train on.

All images are float32 tensors (C, H, W) on the CPU. What is wrong with a file is a `DataError` that names it.
"""

from .calibration import SYNTHETIC, CalibrationImages, calibration_batches
from .degradations import Degradation, Pair, parse_degradation, restore
from .files import image_files, read_image
from .leaves import dead_leaves
from .pairing import Pairs, pairs, split
from .raw import add_noise
from .samples import Sample
from .validation import ValidationImages

__all__ = [
    "SYNTHETIC",
    "CalibrationImages",
    "Degradation",
    "Pair",
    "Pairs",
    "Sample",
    "ValidationImages",
    "add_noise",
    "calibration_batches",
    "dead_leaves",
    "image_files",
    "pairs",
    "parse_degradation",
    "read_image",
    "restore",
    "split",
]
