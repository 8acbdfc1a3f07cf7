"""The convolutions of a network in their places: what passes look at, and all that they need to know."""

from .convolutions import functional_convolutions, survey
from .layer import Layer, Site, Step, is_pointwise, keeps_size, nearest, signature
from .neighbours import kind_of, readers, resize_options, writes_in_place

__all__ = [
    "Layer",
    "Site",
    "Step",
    "functional_convolutions",
    "is_pointwise",
    "keeps_size",
    "kind_of",
    "nearest",
    "readers",
    "resize_options",
    "signature",
    "survey",
    "writes_in_place",
]
