"""Old weights to new weights with example inputs: channels chosen, layers fitted in closed form, blocks tuned."""

from .calibrate import NAME, Calibrated, Calibration, Stage, calibrate
from .channels import Orders, in_order

__all__ = ["NAME", "Calibrated", "Calibration", "Orders", "Stage", "calibrate", "in_order"]
