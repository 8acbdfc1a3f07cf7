"""A bundle on disk: written beside its place, checked there, then moved in whole."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..base.atomic_files import put_back, put_in_place, replaced, scratch_folder, umask
from ..base.errors import BundleError
from ..base.plain import versions
from ..base.progress import Progress
from ..base.spelling import json_text
from ..base.torch_state import in_normal_mode, own_randomness
from ..codegen.copied_source import own_classes
from ..codegen.module_tree import carried
from ..codegen.source import emit
from ..report.content import for_reading
from ..report.data import reported as make_reported
from ..report.document import markdown
from ..report.model import Report
from ..report.pictures import Picture, write_pictures
from ..result.rewrite import Rewrite
from .original import marks
from .recipe import FILE, read_recipe, recipe
from .saved_bits import compare

SOURCE, WEIGHTS = "model.py", "model.safetensors"
KEYMAP, REPORT, REPORT_TEXT, REPORT_PAGE = "keymap.json", "report.json", "report.md", "report.html"


def save(
    rewrite: Rewrite,
    directory: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    reported: tuple[Report, Sequence[Picture]] | None = None,
) -> Path:
    """Write a bundle with the weights that `rewrite.model` has now; returns its folder.

    Nothing is there before everything is written and the source was seen to compute the same, bit for bit.

    Args:
        rewrite: what was done; its `model` may have been trained since.
        directory: the folder to make; its parents are made too.
        overwrite: replace a bundle that is there already.
        progress: told before every step.
        reported: the report and its pictures, if they were made already.

    Raises:
        BundleError: the folder is there and is no bundle (or one, without `overwrite`), a layer has no source, or the
            written source computes something else.
    """
    tell = progress or (lambda *_: None)
    target = directory.expanduser().resolve()
    check_destination(target, overwrite)
    tell("writing source", 0, 4)
    source = emit(rewrite.rewritten.program, rewrite.model, rewrite.roadmap.name)
    tell("writing reports", 1, 4)
    report, shown = reported or make_reported(rewrite)
    documents = {FILE: recipe(rewrite), KEYMAP: keymap_data(rewrite)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as scratch:
            (scratch / SOURCE).write_text(source, encoding="utf-8")
            for name, document in documents.items():
                write_json(scratch / name, document)
            write_pictures(shown, scratch)
            write_reports(report, scratch)
            tell("writing weights", 2, 4)
            write_weights(scratch, rewrite)
            tell("checking", 3, 4)
            check(scratch, rewrite)
            put_in_place(scratch, target)
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error.strerror or error}", code="unwritable") from error
    tell("done", 4, 4)
    return directory


@in_normal_mode
def load(directory: str | Path) -> nn.Module:
    """The network of a bundle, in eval mode on the CPU. It runs the bundle's `model.py`, so load what you trust.

    Raises:
        BundleError: there is no bundle of a version that this one reads, or its files are damaged or do not fit.
    """
    folder = Path(directory).expanduser().resolve()
    put_back(folder)
    if not folder.is_dir():
        raise BundleError(
            f"{directory} is a file, not a bundle" if folder.exists() else f"there is no {directory}", code="not-found"
        )
    read_recipe(folder)
    check_complete(folder)
    return _load(folder, native=True)


def check_complete(folder: Path) -> None:
    """Refuse a bundle that lacks its source or its weights.

    Raises:
        BundleError: naming the file.
    """
    for name in (SOURCE, WEIGHTS):
        if not (folder / name).is_file():
            raise BundleError(f"{folder} is incomplete: there is no {name}", code="damaged")


def check_destination(folder: Path, overwrite: bool) -> None:
    """Refuse a place where no bundle may go.

    Raises:
        BundleError: it is a file, or a folder with something other than a bundle, or a bundle without `overwrite`.
    """
    put_back(folder)
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file, not a folder", code="wrong-kind")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        read_recipe(folder)
    except BundleError as error:
        raise BundleError(
            f"{folder} exists and is no bundle that could be replaced ({error}): choose another folder",
            code="wrong-kind",
        ) from error
    if not overwrite:
        raise BundleError(
            f"{folder} holds a bundle already: --overwrite (in Python: overwrite=True) replaces it", code="exists"
        )


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json_text(document) + "\n", encoding="utf-8")


def write_reports(report: Report, folder: Path) -> None:
    """Write a report as JSON, as Markdown and as a page with the images in `folder`; each file whole or not at all."""
    with own_randomness():  # Rich's styles draw numbers when they are imported
        from ..report.page import render as render_page  # what draws is needed for nothing else here

        page = render_page(report, folder)
        texts = {
            REPORT: json_text(report.to_data()) + "\n",
            REPORT_TEXT: markdown(for_reading(report)),
            REPORT_PAGE: page,
        }
    for name, text in texts.items():
        with replaced(folder / name) as file:
            file.write(text)


def write_weights(folder: Path, rewrite: Rewrite) -> None:
    weights = _weights(rewrite)
    metadata = {"format": "pt", "mofa": versions()["mofa-compiler"], **marks(rewrite, weights)}
    save_file(weights, folder / WEIGHTS, metadata)
    (folder / WEIGHTS).chmod(0o666 & ~umask())  # safetensors keeps what it writes to the owner


def read_weights(file: Path) -> dict[str, Tensor]:
    try:
        # Copies, because in the file tensors lie at odd addresses, where sums are taken in another order: bits differ.
        return {key: tensor.clone() for key, tensor in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file} is damaged: {error}", code="damaged") from error


def keymap_data(rewrite: Rewrite) -> dict[str, Any]:
    """What `keymap.json` holds: the keys that each one of the original's became, and how."""
    keys = {key: {"keys": list(fate.keys), "fate": fate.fate.value} for key, fate in rewrite.keymap.items()}
    return {"schema": "mofa-keymap/1", "keys": keys}


def _state(rewrite: Rewrite) -> dict[str, Tensor]:
    """The state_dict of the saved model: that of `rewrite.model`, and constants too large for source."""
    constants = {path: rewrite.model.get_buffer(path) for path in sorted(carried(rewrite.rewritten.program))}
    return {**rewrite.model.state_dict(), **constants}


def _weights(rewrite: Rewrite) -> dict[str, Tensor]:
    """The state as safetensors takes it: on the CPU, contiguous, no two sharing memory."""
    weights: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in _state(rewrite).items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        weights[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return weights


def _load(folder: Path, *, native: bool = False) -> nn.Module:
    """The network of a bundle; `native`: with the package's own classes where the bundle has copies of them."""
    weights = read_weights(folder / WEIGHTS)
    module = run_source(folder / SOURCE)
    if native:
        vars(module).update(own_classes((folder / SOURCE).read_text(encoding="utf-8")))
    try:
        with own_randomness():  # weights are drawn before they are read
            model = module.Model()
        model.load_state_dict(weights, assign=True)
    except Exception as error:
        lines = " ".join(str(error).split())
        raise BundleError(
            f"{SOURCE} and {WEIGHTS} in {folder} do not fit together: {lines[:500]}", code="damaged"
        ) from error
    assert isinstance(model, nn.Module)
    return model.eval()


def run_source(file: Path) -> types.ModuleType:
    """Execute a source file as a module of its own. No bytecode is cached, so a replaced bundle is never stale."""
    text = file.read_bytes()
    name = f"mofa_bundle_{hashlib.sha256(str(file).encode() + text).hexdigest()[:16]}"
    module = types.ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # so that inspect and pickle find its classes
    try:
        exec(compile(text, file, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise BundleError(f"{file} cannot be run: {type(error).__name__}: {error}", code="damaged") from error
    return module


def check(folder: Path, rewrite: Rewrite) -> None:
    """Refuse a bundle that does not compute what `rewrite.model` computes."""
    saved = _load(folder)
    sys.modules.pop(type(saved).__module__, None)
    theirs, ours = saved.state_dict(), _state(rewrite)
    if theirs.keys() != ours.keys():
        differing = sorted(theirs.keys() ^ ours.keys())[:5]
        raise BundleError(
            f"the written source has other state_dict keys, {differing}: a bug, please report it", code="bug"
        )
    compare(rewrite.model, saved, rewrite.original.program.call)
