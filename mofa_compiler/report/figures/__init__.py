"""Figures for papers, READMEs and the HTML report, drawn with matplotlib.

Each function takes a report and returns a `matplotlib.figure.Figure` made without pyplot, so that
nothing global is touched and no window opens. `save` writes one to a file, `inline_svg` makes it a part of a page.
"""

from .drawn_network import unet
from .front_chart import front
from .output import FORMATS, check_format, inline_svg, save
from .pareto_front import AXES, pareto
from .stage_chart import flops
from .steps_chart import roadmap

__all__ = ["AXES", "FORMATS", "check_format", "flops", "front", "inline_svg", "pareto", "roadmap", "save", "unet"]
