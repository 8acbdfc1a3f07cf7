"""Engines that run networks, and how long the networks take there."""

from .cache import Cache, measurement_key
from .engine import Compiled, Engine, Operator
from .engines import engine, engines, usual_engine
from .measuring import Measurement, measure
from .peak_memory import peak_memory
from .racing import Race, race

__all__ = [
    "Cache",
    "Compiled",
    "Engine",
    "Measurement",
    "Operator",
    "Race",
    "engine",
    "engines",
    "measure",
    "measurement_key",
    "peak_memory",
    "race",
    "usual_engine",
]
