"""What capturing imports, and that torch is afterwards as it was; each in a process where nothing is imported yet."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = "HEAVY = {'torch._dynamo', 'torch._inductor', 'torch.onnx', 'sympy', 'networkx', 'triton'}\n"


def run(code: str) -> None:
    """Run statements in a fresh process, with `examples` to import from; they assert what is to hold."""
    path = f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'examples')!r}]\n"
    command = [sys.executable, "-c", path + HEAVY + textwrap.dedent(code)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr


FRONT_END = """
import torch
from architectures import PMRID, NAFNet, UNet
from mofa_compiler.analysis.anatomy import infer
from mofa_compiler.base.errors import MofaError
from mofa_compiler.analysis.network import Network
from mofa_compiler.rewriting.registry import available
from mofa_compiler.rewriting.pass_api import match
from mofa_compiler.frontend import capture

for model in (PMRID(), NAFNet(), UNet()):
    program = capture(model.eval())
    network = Network(program, infer(program))
    assert network.totals.macs > 0
    for kind in available().values():
        try:
            kind().prepare(network)
        except MofaError:
            continue
        match(network, kind())
assert not HEAVY & sys.modules.keys(), HEAVY & sys.modules.keys()
"""


def test_the_front_end_imports_no_compiler_of_torchs() -> None:
    run(FRONT_END)


COMPILED = """
import torch._dynamo

def compute(x):
    y = torch._refs.sub(torch._refs.mean(x, 1, keepdim=True), torch._refs.pow(x, 2))
    return torch._refs.nn.functional.relu(y) + (x.mean(1, keepdim=True) - x.pow(2)).relu()

report = torch._dynamo.explain(compute)(torch.rand(1, 4, 8, 8))
breaks = report.graph_break_count, [str(reason.reason) for reason in report.break_reasons]
torch._dynamo.reset()
x = torch.rand(1, 4, 8, 8)
assert torch.allclose(torch.compile(compute, backend="eager")(x), compute(x))
open(RESULT, "w").write(repr(breaks))
"""


def test_torch_compiles_afterwards_as_it_did_before(tmp_path: Path) -> None:
    for name, before in (("alone", "import torch\n"), ("after", FRONT_END)):
        run(before + f"RESULT = {str(tmp_path / name)!r}\n" + COMPILED)
    assert (tmp_path / "after").read_text() == (tmp_path / "alone").read_text()


UNTOUCHED = """
import builtins, gc, math
import torch
from torch import nn

HOMES = (torch, torch.jit, torch.autograd.Function, nn.Module, math, builtins)
before = [dict(vars(home)) for home in HOMES], list(sys.meta_path)

def check():
    for home, was in zip(HOMES, before[0]):
        changed = {name for name, value in was.items() if vars(home).get(name) is not value}
        assert changed <= {"manual_seed"}, changed  # torch._dynamo's own doing
    assert sys.meta_path == before[1]
    for function in gc.get_objects():
        if type(function) is type(check):
            assert getattr(function, "__dynamo_disable", None) is not function, function
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        assert "mofa" not in type(dynamo.__loader__).__module__ + type(dynamo.__spec__.loader).__module__
        assert dynamo.utils.unpatched_nn_module_call is nn.Module.__call__
        assert dynamo.utils.unpatched_nn_module_getattr is nn.Module.__getattr__
"""

ASKS = """
import threading
import torch.utils.checkpoint
from mofa_compiler.frontend import capture, lean

class Asks(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
    def forward(self, x):
        torch.zeros(x.shape)  # a patched name, before and after
        y = self.conv(x).relu()
        {statement}
        torch.zeros(y.shape)
        return self.conv(y)

assert not HEAVY & sys.modules.keys()
{first}
graphs = [str(capture(Asks().eval(), torch.rand(1, 3, 8, 8)).graph) for _ in range(2)]
assert graphs[0] == graphs[1], graphs
assert graphs[0].count("torch.zeros") == graphs[0].count("target=conv]") == 2, graphs[0]
found = {{"torch._dynamo", "sympy"}} & sys.modules.keys()
assert found == set({imported}), found
check()
"""

BOTH = ("torch._dynamo", "sympy")
THREAD = "t = threading.Thread(target=__import__, args=('torch._dynamo',)); t.start(); t.join()"


@pytest.mark.parametrize(
    ("statement", "imported"),
    [
        ("y = y if torch.compiler.is_compiling() else y * 2", ()),
        ("y = torch.utils.checkpoint.checkpoint(torch.sigmoid, y, use_reentrant=False)", BOTH),
        ("y = y if torch._dynamo.is_compiling() else y * 2", BOTH),
        ("from torch.fx.experimental.symbolic_shapes import guard_or_false, ShapeEnv", ("sympy",)),
        ("import sympy.core; y = y * int(sympy.Integer(2))", ("sympy",)),
        (THREAD, BOTH),
    ],
)
def test_what_forward_asks_for_is_really_imported(statement: str, imported: tuple[str, ...]) -> None:
    run(UNTOUCHED + ASKS.format(statement=statement, imported=imported, first=""))


def test_with_other_threads_about_nothing_is_put_off() -> None:
    first = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    run(UNTOUCHED + ASKS.format(statement="pass", imported=BOTH, first=first))


def test_other_internals_of_torchs_import_what_they_need() -> None:
    run(UNTOUCHED + ASKS.format(statement="pass", imported=("sympy",), first="lean._KERNELS = ('elsewhere',)"))
