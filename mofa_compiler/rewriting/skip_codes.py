"""The codes of `Skip`: why a layer of a pass's kind was left alone, in a word that programs and tests compare.

A code keeps its meaning; the words beside it may change. Passes of other packages may use these or their own.
"""

from __future__ import annotations

from collections.abc import Mapping

OTHER = "other"

SKIP_CODES: Mapping[str, str] = {
    OTHER: "a reason that was given without a code",
    # what no pass touches
    "input": "the input convolution, which only a roadmap that names it changes",
    "output": "the output convolution",
    "functional": "a convolution called in forward, whose weight belongs to no layer",
    "tied": "it, or what has to change with it, shares a parameter or is held under another name, too",
    "altered": "it has hooks, parametrized weights or replaced methods, which a new module would lose",
    "subclass": "its class is derived from one that is known, and may compute something else",
    "complex": "it has complex weights",
    "unbatched": "it reads (C, H, W), or something else that is no batch of images",
    # the layer by itself
    "grouped": "it is a grouped convolution",
    "pointwise": "it has a 1x1 kernel, where a larger one is needed",
    "kernel": "its kernel is not square, has no centre, or has another size than the pass takes",
    "padding": "its padding changes the size, or does not fit what it would be applied to",
    "resolution": "it changes the resolution, where it has to stay",
    "factor": "it enlarges or shrinks by no whole factor",
    "too-far": "it enlarges or shrinks by more at once than the pass takes",
    "not-enlarged": "it reads a tensor that is resized, but not enlarged",
    "geometry": "its stride, dilation, padding or call has no counterpart in what would replace it",
    "bias": "its bias has no counterpart in what would replace it",
    "one-channel": "it has a single channel",
    "all-channels": "it convolves all its channels, so that there is nothing to take apart",
    "mixing": "it mixes channels that would have to stay apart",
    "done": "it is already what the pass would make of it",
    # options of the pass, places in the network
    "place": "it is in none of the places that the pass is for",
    "no-unet": "the network is no U-Net, so that the stages that the pass is for do not exist",
    "threshold": "it is on the other side of a limit that an option sets",
    "stays": "the form that the pass would give it is the one that it has",
    # what is around it
    "no-neighbour": "there is no convolution of the right kind directly next to it",
    "neighbour": "the layer next to it is of a kind, or has a geometry, that the pass does not take",
    "neighbour-held": "the layer next to it is shared, hooked, or the network's first or last",
    "between": "something lies between it and the layer that it would be joined with",
    "taken": "the layer next to it goes to another one that is rewritten",
    "called-twice": "it, or what has to change with it, is called at several places",
    "read-elsewhere": "something else reads what it reads, what it makes, or its weights",
    "overwritten": "a value that it needs is changed in place",
    "memory": "what it reads may share memory with something else, or is the network's own input",
    "size-asked": "the network asks for the size of a value that would have another one, or be gone",
    "joined": "what it reads is joined with other channels first",
    "stream": "what it makes is added to, or joined with, what others make, and keeps its width",
    "parts": "what it makes is cut into parts, or joined with others, of which each goes its own way",
    # norms, scales and gates
    "training": "it is in training mode, where it normalizes every batch by its own statistics",
    "no-statistics": "it has no running statistics",
    "shift": "its shift cannot pass the layer behind it",
    "macs": "the result would take more MACs",
    "dimensions": "it normalizes other dimensions than the pass takes",
    "backward": "its backward pass is not the gradient of what it computes",
    "no-convolution": "what is split is not made by a convolution",
    "overlap": "its output is read in parts that overlap",
    "layout": "something behind it needs another order in memory",
    # calibration
    "no-counterpart": "nothing in the original network stands where its output could be compared",
    "worse": "fitting it made the output worse",
    "too-large": "it has more inputs than a fit in closed form takes",
    "no-scale": "it has no scale and shift to be fitted",
}
"""Every code that the passes and the calibration of this package give, and what it means"""
