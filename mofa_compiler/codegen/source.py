"""A program as readable source: nested classes whose state_dict keys are the original's, importing Python and torch."""

from __future__ import annotations

import re

import torch
from torch import fx, nn

from ..base.errors import BundleError
from ..base.spelling import in_docstring
from ..graph.program import Program
from ..loading.importing import class_text
from . import naming
from .classes import CHAIN, Classes
from .constructors import Slot
from .copied_source import Library
from .module_tree import Tree
from .regions import Regions, traced_containers

_HEADER = {
    "math": "import math",
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
}


def emit(program: Program, module: fx.GraphModule, roadmap: str = "") -> str:
    """Source of a module `Model` that computes what `module`, the program's graph module, computes.

    Containers become classes again, plain chains `nn.Sequential`. A container whose calls lie scattered in the graph or
    differ from each other is written out where it is called. The weights are not in the source. The same program gives
    the same text.

    Raises:
        BundleError: a layer is opaque or not one of torch's, or code is called whose source is not to be had.
    """
    _refuse_opaque(program)
    tree = Tree(program, module, traced_containers(program))
    inlined: set[str] = set()
    while True:
        regions = Regions(program, tree, inlined)
        missing = regions.to_inline
        if not missing:
            library = Library()
            classes = Classes(tree, regions, library, root_name(program))
            missing = classes.to_inline
        if not missing - inlined:
            break
        inlined |= missing
    classes.write()
    return _assemble(program, module, classes, library, roadmap)


def root_name(program: Program) -> str:
    """The original class's name, made a valid one that hides nothing."""
    name = naming.identifier(program.name)
    return "Network" if name in ("Sequential", "Chain", "Module") else name


def _refuse_opaque(program: Program) -> None:
    for path, cause in program.opaque.items():
        raise BundleError(untraced(path, program.modules[path], cause), code="no-source")


def untraced(path: str, module: nn.Module, cause: str) -> str:
    """Why a part that could not be seen into cannot be saved."""
    return f"{path} ({class_text(type(module))}) could not be traced, so there is no source for it: {cause}"


def _assemble(program: Program, module: fx.GraphModule, classes: Classes, library: Library, roadmap: str) -> str:
    generated = [wrap(Slot.plain(section)) for section in classes.sections]
    sections = [*library.sections.values(), *([CHAIN] if classes.uses_chain else []), *generated]
    name = root_name(program)
    if name != "Model":
        sections.append(f"Model = {name}")
    body = "\n\n\n".join(sections)
    imports = dict.fromkeys([*_imports(body), *library.imports.values()])
    kept = [line for line in imports if line not in ("from torch import nn", "from torch import Tensor")]
    both = [n for n in ("Tensor", "nn") if re.search(rf"\b{n}\b", body)]
    kept.append(f"from torch import {', '.join(both)}")
    kept.sort(key=lambda line: line.startswith("from"))
    groups = ["\n".join(line for line in kept if _is_torch(line) is own) for own in (False, True)]
    head = [_docstring(name, roadmap, module), "from __future__ import annotations", *filter(None, groups)]
    return "\n\n".join(head) + f"\n\n\n{body}\n"


def _imports(body: str) -> list[str]:
    return [line for name, line in _HEADER.items() if re.search(rf"(?<![\w.\"'])\b{name}\.", body)]


def _is_torch(line: str) -> bool:
    return line.split()[1].partition(".")[0] == "torch"


def _docstring(name: str, roadmap: str, module: fx.GraphModule) -> str:
    made = (
        f', rewritten by mofa-compiler with the roadmap "{in_docstring(roadmap)}"'
        if roadmap
        else ", written by mofa-compiler"
    )
    weights, assign = 'load_file("model.safetensors")', ""
    state = module.state_dict().values()
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in state):
        # Other precisions come in with the weights; copies, because a mapped file's odd addresses cost the last bit.
        weights, assign = f"{{key: value.clone() for key, value in {weights}.items()}}", ", assign=True"
    return f'''"""{name}{made}.

It needs nothing but torch, and safetensors to load the weights:

    from safetensors.torch import load_file
    model = Model()
    model.load_state_dict({weights}{assign})
    model.eval()
"""'''


WIDTH = 110


def wrap(text: str) -> str:
    """The text with its long lines broken; it means the same."""
    return "\n".join(_wrap_line(line) for line in text.split("\n"))


def _wrap_line(line: str) -> str:
    if len(line) <= WIDTH or line.lstrip().startswith('"""'):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    for start, end in sorted(_groups(line), key=lambda group: group[0] - group[1]):
        parts = _split(line[start + 1 : end])
        if not any(parts):
            continue
        inner = [_wrap_line(f"{indent}    {part},") for part in parts]
        return "\n".join([line[: start + 1], *inner, _wrap_line(indent + line[end:])])
    return line


def _groups(line: str) -> list[tuple[int, int]]:
    """Outermost brackets that may take a line per element: of calls, lists and dicts; not of subscripts."""
    groups: list[tuple[int, int]] = []
    opened: list[int] = []
    for position, character in _code(line):
        if character in "([{":
            opened.append(position)
        elif character in ")]}" and opened:
            start = opened.pop()
            called = start > 0 and (line[start - 1].isalnum() or line[start - 1] in "_)]")
            if not opened and called == (line[start] == "("):
                groups.append((start, position))
    return groups


def _split(text: str) -> list[str]:
    """The elements between top-level commas."""
    parts, depth, begin = [], 0, 0
    for position, character in _code(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append(text[begin:position].strip())
            begin = position + 1
    return [*parts, text[begin:].strip()] if text[begin:].strip() else parts


def _code(text: str) -> list[tuple[int, str]]:
    """Characters outside of string literals, with their positions."""
    found, quote, escaped = [], "", False
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "\"'":
            quote = character
        else:
            found.append((position, character))
    return found
