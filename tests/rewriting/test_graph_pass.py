"""Where a pass is anchored, and whether what it makes is exact, are two questions: all four answers can be written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler import Roadmap, apply, load
from mofa_compiler.base.errors import RewriteError, RoadmapError
from mofa_compiler.calibration import Calibration
from mofa_compiler.graph.node_names import path_of
from mofa_compiler.passes import LowerGates, MergeLinear, SepConvToPConv
from mofa_compiler.rewriting import Fate, GraphPass, Lowering, Match, Replacement, Rewiring
from mofa_compiler.rewriting.engine import rewrite
from mofa_compiler.rewriting.registry import available
from mofa_compiler.testing import check_pass, check_rewrites
from tests.rewrites import Net, chain, network, output

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "third_party_pass"))
from gelu_to_relu import GeluToRelu

from tests.raising import raising


@dataclass(frozen=True)
class Doing(GraphPass):
    """What a function does to the graph, as a pass; its promise is that of the class."""

    name: ClassVar[str] = "doing"

    how: Callable[[Rewiring], None] = lambda wiring: None

    def rewire(self, wiring: Rewiring) -> None:
        self.how(wiring)


@dataclass(frozen=True)
class DoingExactly(Doing, Lowering):
    """The same with the promise of a lowering."""


@dataclass(frozen=True)
class Doubling(Lowering):
    """A layer pass that breaks its promise."""

    name: ClassVar[str] = "doubling"

    def match(self, layer, network):  # type: ignore[no-untyped-def]
        return Match()

    def build(self, layer, modules):  # type: ignore[no-untyped-def]
        return Replacement(nn.Sequential(modules[layer.path], nn.Identity()))


def activated(activation: nn.Module | None = None) -> nn.Sequential:
    return chain(nn.Conv2d(8, 8, 3, padding=1), activation or nn.GELU(), nn.Conv2d(8, 8, 1), channels=8)


def test_an_approximate_pass_over_places_of_the_graph():
    before = network(activated())
    after, diff = rewrite(before, GeluToRelu())
    (edit,) = diff.edits
    assert (edit.path, edit.after, edit.fate, edit.error) == ("2", "ReLU()", Fate.INHERITED, None)
    assert not edit.exact and not diff.exact
    x = torch.randn(1, 8, 24, 16)
    torch.testing.assert_close(output(after, x), output(network(activated_like(before)), x))
    assert isinstance(before.program.modules["2"], nn.GELU)


def activated_like(before):  # type: ignore[no-untyped-def]
    model = activated(nn.ReLU())
    model.load_state_dict(before.program.state())
    return model


def test_what_holds_for_every_pass_holds_for_it(monkeypatch: pytest.MonkeyPatch):
    installed = {**available(), GeluToRelu.name: GeluToRelu}
    monkeypatch.setattr("mofa_compiler.rewriting.roadmap.available", lambda: installed)
    check_pass(GeluToRelu)
    check_rewrites(GeluToRelu(), activated(), torch.rand(1, 8, 16, 16), [SepConvToPConv()])


def test_it_runs_before_calibration_and_lowerings_and_its_error_is_told(tmp_path: Path):
    torch.manual_seed(0)
    images = [torch.randn(4, 8, 16, 16) for _ in range(2)]
    fresh, fitted = (
        apply(activated(), [SepConvToPConv(), GeluToRelu(), MergeLinear()], images[0], calibration)
        for calibration in (None, Calibration(images))
    )
    names = [diff.pass_name for diff in fitted.diffs]
    assert names == [
        "sepconv-to-pconv",
        "gelu-to-relu",
        "calibration",
        "merge-linear",
    ]
    verdict = fresh.verdicts[1]
    assert not verdict.exact and verdict.whole is None and verdict.relative_error > 1e-3 and verdict.holds
    assert "GELU" in str(fresh.report["passes"][1]["edits"][0]["before"])
    x = images[0]
    bundle = fresh.save(tmp_path / "bundle")
    assert torch.equal(load(bundle).eval()(x), fresh.model.eval()(x))
    with raising(RoadmapError, "order", "gelu-to-relu"):
        Roadmap([LowerGates(), GeluToRelu()])


@pytest.mark.parametrize("tuning", [0, 2])
def test_calibration_makes_up_for_it(tuning: int):
    torch.manual_seed(0)
    model, images = activated().eval(), [torch.randn(8, 8, 16, 16) for _ in range(2)]
    with torch.no_grad():
        inherited, fitted = (
            (apply(model, [GeluToRelu()], images[0], calibration).model.eval()(images[1]) - model(images[1])).norm()
            for calibration in (None, Calibration(images, tuning=tuning))
        )
    assert fitted < 0.7 * inherited


def test_layers_that_must_stay_are_refused():
    shared = nn.GELU()
    _, diff = rewrite(network(chain(shared, nn.Conv2d(8, 8, 1), shared)), GeluToRelu())
    assert not diff.edits and [skip.code for skip in diff.skips] == ["called-twice"]


def functional(wiring: Rewiring) -> None:
    for node in wiring.nodes:
        if node.target is F.gelu:
            with wiring.at(node):
                new = wiring.call(F.relu, node.args[0])
            wiring.substitute(node, new)
            wiring.tell(path_of(node) or "gelu", "gelu", "relu", Fate.INHERITED)


def test_calls_of_functions_can_be_replaced():
    model = Net(lambda m, x: F.gelu(m.conv(x)), conv=nn.Conv2d(8, 8, 1))
    after, diff = rewrite(network(model), Doing(how=functional))
    assert len(diff.edits) == 1 and not diff.exact
    x = torch.randn(1, 8, 8, 8)
    assert torch.equal(output(after, x), F.relu(model.conv(x)))


def reshaped(new: nn.Module) -> Callable[[Rewiring], None]:
    def how(wiring: Rewiring) -> None:
        wiring.put("2", new)
        wiring.tell("2", "GELU", "other", Fate.FRESH)

    return how


def narrowed(wiring: Rewiring) -> None:
    """Half the channels between two convolutions, with everything on the way."""
    conv, act, behind = (next(n for n in wiring.nodes if n.target == path) for path in ("1", "2", "3"))
    first, last = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 8, 1)
    for node, new in ((conv, first), (act, None), (behind, last)):
        with wiring.changing(node):
            if new is not None:
                wiring.put(str(node.target), new)
    wiring.tell("1", "wide", "narrow", Fate.FRESH)
    wiring.tell("3", "wide", "narrow", Fate.FRESH)


def test_shapes_are_checked_where_exactness_is_not():
    before = network(activated())
    with pytest.raises(RewriteError, match="doing"):
        rewrite(before, Doing(how=reshaped(nn.MaxPool2d(2))))
    with pytest.raises(RewriteError, match="doing"):
        rewrite(before, Doing(how=reshaped(nn.Linear(3, 3))))
    _, diff = rewrite(before, Doing(how=narrowed))
    assert diff.after.macs - diff.before.macs == sum(edit.macs for edit in diff.edits) < 0


def smaller_output(wiring: Rewiring) -> None:
    last = next(node for node in wiring.nodes if node.target == "4")
    with wiring.changing(last):
        wiring.put("4", nn.Conv2d(8, 8, 3))
    wiring.tell("4", "padded", "not", Fate.FRESH)


def test_the_output_keeps_its_shape():
    with raising(RewriteError, "bug", "doing"):
        rewrite(network(activated()), Doing(how=smaller_output))


def test_a_lowering_that_is_approximate_is_refused():
    with raising(RewriteError, "bug", "Lowering"):
        rewrite(network(activated()), DoingExactly(how=reshaped(nn.ReLU())))
    with raising(RewriteError, "bug", "Lowering"):
        rewrite(network(activated()), Doubling())


def unchecked(wiring: Rewiring) -> None:
    wiring.put("2", nn.ReLU())
    wiring.tell("2", "GELU", "ReLU", Fate.EXACT)


def test_exactness_is_not_claimed_without_a_check():
    with raising(RewriteError, "bug", "2"):
        rewrite(network(activated()), Doing(how=unchecked))


def removing(wiring: Rewiring) -> None:
    node = next(node for node in wiring.nodes if node.target == "2")
    source = node.args[0]
    wiring.substitute(node, source)  # type: ignore[arg-type]
    wiring.release("2")
    wiring.tell("2", "GELU", "", Fate.REMOVED)


def test_a_layer_that_is_gone_is_no_exact_edit():
    _, diff = rewrite(network(activated()), Doing(how=removing))
    assert [edit.fate for edit in diff.edits] == [Fate.REMOVED]
    assert not diff.exact


def checked(wiring: Rewiring) -> None:
    node = next(node for node in wiring.nodes if node.target == "2")
    source = node.args[0]
    old = wiring.piece(source, node)  # type: ignore[arg-type]
    wiring.put("2", Written())
    error = wiring.check("2", old, wiring.piece(source, node), 8)  # type: ignore[arg-type]
    wiring.tell("2", "GELU", "written out", Fate.EXACT, error=error)


class Written(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.erf(x / 2**0.5)) / 2


@pytest.mark.parametrize("kind", [Doing, DoingExactly])
def test_an_exact_edit_is_checked_whatever_the_pass_promises(kind: type[Doing]):
    _, diff = rewrite(network(activated()), kind(how=checked))
    assert diff.exact and diff.edits[0].error is not None and diff.edits[0].error < 1e-12


@pytest.mark.parametrize("inside", ["module", "function"])
def test_a_change_that_costs_nothing_has_to_be_told_too(inside: str):
    def untold(wiring: Rewiring) -> None:
        for node in wiring.nodes:
            if isinstance(wiring.module(node), nn.GELU):
                wiring.put(str(node.target), nn.ReLU())
            elif node.target is F.gelu:
                with wiring.at(node):
                    new = wiring.call(F.relu, *node.args)
                wiring.substitute(node, new)

    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(x)

    model = chain(nn.GELU() if inside == "module" else Functional())
    with raising(RewriteError, "bug", "no edit tells"):
        rewrite(network(model), Doing(how=untold))


@pytest.mark.parametrize("inside", ["module", "function"])
def test_a_change_before_an_exact_edit_of_something_else_has_to_be_told_too(inside: str):
    def one_untold(wiring: Rewiring) -> None:
        node = next(node for node in wiring.nodes if node.target in ("3", F.silu))
        if inside == "module":
            wiring.put("3", nn.ReLU())
        else:
            with wiring.at(node):
                new = wiring.call(F.relu, *node.args)
            wiring.substitute(node, new)
        checked(wiring)

    model = chain(nn.Conv2d(8, 8, 1), nn.GELU(), nn.SiLU() if inside == "module" else Net(lambda m, x: F.silu(x)))
    with raising(RewriteError, "bug", "no edit tells"):
        rewrite(network(model), Doing(how=one_untold))


def test_what_was_checked_is_told_of_with_the_edit_of_its_layer_and_what_is_changed_again_is_not():
    def split(again: bool) -> Callable[[Rewiring], None]:
        def how(wiring: Rewiring) -> None:
            node = next(node for node in wiring.nodes if node.target == "2")
            source = node.args[0]
            old = wiring.piece(source, node)
            with wiring.at(node):
                new = wiring.call(F.gelu, source)
            wiring.substitute(node, new)
            error = wiring.check("1", old, wiring.piece(source, new), 8)
            if again:
                with wiring.at(new):
                    other = wiring.call(F.relu, source)
                wiring.substitute(new, other)
            wiring.release("2")
            wiring.tell("1", "Conv2d", "with a function behind it", Fate.EXACT, error=error)

        return how

    _, diff = rewrite(network(activated()), Doing(how=split(again=False)))
    assert diff.exact and [edit.path for edit in diff.edits] == ["1"]
    with raising(RewriteError, "bug", "no edit tells"):
        rewrite(network(activated()), Doing(how=split(again=True)))


def test_two_places_of_one_container_are_two_edits():
    model = chain(Net(lambda m, x: F.gelu(F.gelu(x)) + F.gelu(m.conv(x)), conv=nn.Conv2d(8, 8, 1)), channels=8)
    _, diff = rewrite(network(model), Doing(how=functional))
    assert [edit.path for edit in diff.edits] == ["1"] * 3 and len(diff.rewritten) == 3


def test_a_layer_that_is_told_of_twice_is_one_edit():
    def twice(wiring: Rewiring) -> None:
        for new in (nn.ReLU(), nn.SiLU()):
            before = wiring.describe("2")
            wiring.put("2", new)
            wiring.tell("2", before, wiring.describe("2"), Fate.INHERITED)

    _, diff = rewrite(network(activated()), Doing(how=twice))
    assert [(edit.path, edit.before[:4], edit.after) for edit in diff.edits] == [("2", "GELU", "SiLU()")]
