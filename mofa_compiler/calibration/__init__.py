"""Old weights to new weights with example inputs: channels chosen, layers fitted in closed form, the whole tuned."""

from ..analysis.channel_order import Orders, in_order
from .calibrate import calibrate
from .outcome import NAME, Calibrated, Stage
from .rehearsal import Rehearsal
from .settings import Calibration
from .watching import informed

__all__ = ["NAME", "Calibrated", "Calibration", "Orders", "Rehearsal", "Stage", "calibrate", "in_order", "informed"]
