"""The convolutions of a network in their places: what passes look at, and all that they need to know."""

from .convolutions import survey
from .functional import functional_convolutions
from .layer import Layer, Site, Step, is_pointwise, keeps_size, nearest
from .neighbours import has_hooks, resize_options
from .signature import signature

__all__ = [
    "Layer",
    "Site",
    "Step",
    "functional_convolutions",
    "has_hooks",
    "is_pointwise",
    "keeps_size",
    "nearest",
    "resize_options",
    "signature",
    "survey",
]
