"""The codes of `MofaError`: what went wrong, in a word that programs and tests compare; the type says at which stage.

A code keeps its meaning; messages may change. An error without a closer one has that of its type, such as `capture`.
"""

from __future__ import annotations

from collections.abc import Mapping

ERROR_CODES: Mapping[str, str] = {
    # what was asked for
    "unknown-name": "there is no pass, roadmap, engine, format, entry or argument of that name",
    "unknown-option": "there is no option, key or argument of that name",
    "bad-value": "an option or entry has a value that it cannot have",
    "bad-name": "a name that cannot stand where it would have to",
    "needs-option": "an option makes no sense, or is not enough, without another one",
    "ambiguous": "two things are meant, or given, where there can be one",
    "order": "a pass comes before one that it has to follow",
    # files
    "not-found": "there is no such file, folder, module or bundle",
    "exists": "what is there already is not replaced unasked",
    "wrong-kind": "it is something else than what was asked for: a folder, say, or a class of another kind",
    "unreadable": "it cannot be read",
    "unwritable": "it cannot be written",
    "damaged": "it is cut off, malformed, or does not fit together",
    "other-version": "another version wrote it, which this one does not read",
    "not-installed": "a package, or a device, is not there",
    # networks and inputs
    "untraceable": "the network does what a graph cannot hold",
    "hooks": "it has hooks, which are not traced",
    "reentered": "capture was called by a forward that is being captured",
    "random": "its outputs are random in eval mode, so that nothing could be compared with them",
    "wrong-input": "the network, engine or format does not take the input, or the input is of another form",
    "wrong-output": "what the network returns is of another form than what it is compared with",
    "no-values": "it has no values yet",
    "not-finite": "it holds or gives NaN or infinite values",
    "too-small": "an image or input is too small for what is to be done",
    "bad-image": "an image, or a pair of them, is of a form that is not taken",
    "no-data": "there is nothing to work on",
    # what was made
    "does-not-fit": "weights or layers do not fit where they should stand",
    "lossy": "more was lost on held-out inputs than is accepted unasked",
    "not-exact": "what was promised to compute the same does not",
    "computes-else": "the graph, or the written source, computes something else than the model",
    "bug": "a pass, or this package, broke a rule of its own",
    "no-source": "a part of the network cannot be written as source",
    "other-original": "it was made from another network, or from other weights",
    "other-run": "the interrupted run had other options, data or weights",
    "decided-otherwise": "the recipe's decisions do not repeat",
    "diverged": "the loss is no number any longer",
    "device": "it is on another device than it has to be",
    "failed": "code of the user or of another package failed",
}
"""Every code beside those of the types, and what it means"""
