from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofa_compiler import Roadmap, apply, load
from mofa_compiler.nn.partial_conv import PartialConv2d, PConv2d, PDWConv2d
from mofa_compiler.passes import LowerPConv
from mofa_compiler.rewriting.engine import rewrite
from tests.passes.pconv_blocks import FORMS, KINDS, Block, allowed, normed, operators
from tests.rewrites import assert_rewrites, chain, network, output, signatures

PLACES: dict[str, Callable[[type[PartialConv2d]], nn.Module]] = {
    "plain": lambda kind: Block(kind(8, 2)),
    "bias": lambda kind: Block(kind(8, 2, bias=True)),
    "activation": lambda kind: Block(kind(8, 3), between=nn.GELU()),
    "inplace activations": lambda kind: Block(kind(8, 2), between=nn.ReLU(inplace=True), before=nn.ReLU(inplace=True)),
    "prelu": lambda kind: Block(kind(8, 2), between=nn.PReLU(8), before=nn.PReLU()),
    "batch norm": lambda kind: Block(kind(8, 2, bias=True), between=normed(), before=normed()),
    "batch norm and activation": lambda kind: Block(kind(8, 4), between=nn.Sequential(normed(), nn.SiLU())),
    "dilation": lambda kind: Block(kind(8, 2, 5, dilation=2)),
    "uneven kernel": lambda kind: Block(kind(8, 2, (5, 3), dilation=(1, 2), bias=True)),
    "even kernel": lambda kind: Block(kind(8, 2, 4)),
    "reflect": lambda kind: Block(kind(8, 2, padding_mode="reflect")),
    "circular": lambda kind: Block(kind(8, 2, padding_mode="circular")),
    "replicate": lambda kind: Block(kind(8, 2, bias=True, padding_mode="replicate"), between=nn.ReLU()),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.sample(5)
def test_every_form_computes_the_same(form: Any, kind: type[PartialConv2d], place: str):
    model = PLACES[place](kind).double().eval()
    before = network(model, 1, 3, 12, 14)
    after, diff = rewrite(before, LowerPConv(form=form))
    done = [edit for edit in diff.rewritten if edit.fate != "removed"]
    if not allowed(form, kind, place):
        assert not done
        assert [skip.path for skip in diff.skips] == ["partial"]
        return
    assert [(edit.path, edit.exact) for edit in done] == [("partial", True)]
    assert diff.exact
    for size in ((12, 14), (19, 11)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)
    again, second = rewrite(after, LowerPConv(form=form))
    assert not second.edits
    assert signatures(again) == signatures(after)


@pytest.mark.parametrize(
    ("form", "kind"), [(form, kind) for form in FORMS for kind in KINDS if allowed(form, kind, "plain")]
)
@pytest.mark.sample(2)
def test_a_bundle_holds_every_form(form: Any, kind: type[PartialConv2d], tmp_path: Path):
    between = nn.Identity() if form in ("merged", "fused") else nn.ReLU()
    model = Block(kind(8, 2, bias=True), between=between, before=nn.ReLU()).eval()
    result = apply(model, [LowerPConv(form=form)], torch.rand(1, 3, 16, 16))
    assert all(verdict.holds for verdict in result.verdicts)
    result.save(tmp_path)
    loaded, x = load(tmp_path).eval(), torch.rand(1, 3, 20, 12)
    with torch.no_grad():
        assert torch.equal(loaded(x), result.model.eval()(x))


@pytest.mark.parametrize("kind", KINDS)
def test_signatures(kind: type[PartialConv2d]):
    spatial = "Conv2d(2, k3, depthwise)" if kind is PDWConv2d else "Conv2d(2→2, k3)"
    model = chain(nn.Conv2d(8, 8, 1), nn.ReLU(), kind(8, 2), nn.SiLU(), nn.Conv2d(8, 4, 1))
    gone = dict.fromkeys("12345")
    assert_rewrites(
        LowerPConv(form="two-products"),
        model,
        after={
            **dict.fromkeys("345"),
            "3.convolved.spatial": spatial,
            "3.convolved.activation": "SiLU()",
            "3.convolved.pointwise": "Conv2d(2→4, k1)",
            "3.untouched.activation": "SiLU()",
            "3.untouched.pointwise": "Conv2d(8→4, k1, bias)",
        },
    )
    assert_rewrites(
        LowerPConv(form="born-apart"),
        model,
        after={
            **gone,
            "3.convolved.born": "Conv2d(8→2, k1, bias)",
            "3.convolved.before_activation": "ReLU()",
            "3.convolved.spatial": spatial,
            "3.convolved.activation": "SiLU()",
            "3.convolved.pointwise": "Conv2d(2→4, k1)",
            "3.untouched.born": "Conv2d(8→6, k1, bias)",
            "3.untouched.before_activation": "ReLU()",
            "3.untouched.activation": "SiLU()",
            "3.untouched.pointwise": "Conv2d(6→4, k1, bias)",
        },
    )
    assert_rewrites(LowerPConv(form="in-place"), model, after={"3": f"{kind.__name__}(8, k3, portion=1/4, in place)"})
    assert_rewrites(LowerPConv(form="split-cat"), model, after={}, skips={"3": "stays"})
    assert_rewrites(
        LowerPConv(form="merged"),
        chain(kind(8, 2), nn.Conv2d(8, 4, 1)),
        after={"1": "Conv2d(8→4, k3, bias)", "2": None},
    )


def test_identity_kernels_are_one_depthwise_convolution():
    model = chain(PDWConv2d(8, 2, 5, dilation=2, bias=True))
    assert_rewrites(
        LowerPConv(form="identity-kernels"), model, after={"1": "Conv2d(8, k5, d2, bias, depthwise)"}, skips={}
    )


def test_born_apart_without_a_pointwise_layer_joins_the_halves():
    model = chain(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU(), PConv2d(8, 2), nn.Conv2d(8, 8, 3, padding=1))
    after, _ = assert_rewrites(
        LowerPConv(form="born-apart"),
        model,
        after={
            **dict.fromkeys("123"),
            "3.convolved.born": "Conv2d(8→2, k3)",
            "3.convolved.before_activation": "ReLU()",
            "3.convolved.spatial": "Conv2d(2→2, k3)",
            "3.untouched.born": "Conv2d(8→6, k3)",
            "3.untouched.before_activation": "ReLU()",
        },
    )
    assert operators(after.program.graph_module) & {"split", "slice", "cat"} == {"cat"}


def test_transposed_convolution_is_cut_too():
    model = chain(nn.ConvTranspose2d(8, 8, 2, 2), PConv2d(8, 2), nn.Conv2d(8, 4, 1)).double()
    before = network(model)
    after, _ = rewrite(before, LowerPConv(form="born-apart"))
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    assert signatures(after)["2.convolved.born"] == "ConvTranspose2d(8→2, k2, s2, bias)"
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)


def test_functional_activations_between():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.expand = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
            self.partial, self.mix, self.tail = PDWConv2d(8, 2), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.partial(F.relu(self.expand(self.head(x)), inplace=True))
            return self.tail(self.mix(F.leaky_relu(x, 0.2).sigmoid()))

    before = network(Net().double())
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    for form in ("two-products", "born-apart"):
        after, diff = rewrite(before, LowerPConv(form=form))
        assert not diff.skips
        torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)


class Around(nn.Module):
    """A partial convolution between convolutions, joined to them by functions of `x`, the layer and what is behind."""

    def __init__(self, around: Callable[[Tensor, nn.Module, nn.Module], Tensor], kind: type[PartialConv2d] = PDWConv2d):
        super().__init__()
        self.head, self.expand = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.partial, self.mix, self.tail = kind(8, 2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.around = around

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.around(self.expand(self.head(x)), self.partial, self.mix))


NO_POINTWISE = "no-neighbour"
AROUND: dict[str, tuple[Callable[[Tensor, Any, Any], Tensor], dict[str, str | None]]] = {
    "residual reads the input": (
        lambda x, partial, mix: mix(partial(x)) + x,
        {
            "in-place": "read-elsewhere",
            "identity-kernels": None,
            "two-products": None,
            "born-apart": "no-neighbour",
            "merged": None,
        },
    ),
    "residual reads the output": (
        lambda x, partial, mix: (y := partial(x)) + mix(y),
        {
            "in-place": None,
            "identity-kernels": None,
            "two-products": NO_POINTWISE,
            "born-apart": None,
            "merged": NO_POINTWISE,
        },
    ),
    "called twice": (
        lambda x, partial, mix: mix(partial(F.relu(partial(x)))),
        {
            "in-place": None,
            "identity-kernels": None,
            "two-products": NO_POINTWISE,
            "born-apart": "no-neighbour",
            "merged": NO_POINTWISE,
        },
    ),
    "reads a view": (
        lambda x, partial, mix: mix(partial(x.flip(1).view(x.shape))),
        {
            "in-place": "memory",
            "identity-kernels": None,
            "two-products": None,
            "born-apart": "no-neighbour",
            "merged": None,
        },
    ),
    "something reads what an in-place activation overwrites": (
        lambda x, partial, mix: mix(partial(F.relu(x, inplace=True))) + x,
        {"in-place": "memory", "two-products": None},
    ),
    "softmax between": (
        lambda x, partial, mix: mix(partial(x).softmax(1)),
        {"in-place": None, "two-products": NO_POINTWISE, "merged": NO_POINTWISE},
    ),
    "the size between is asked for": (
        lambda x, partial, mix: mix(y := partial(x)) / y.shape[1],
        {
            "in-place": None,
            "two-products": "size-asked",
            "merged": "size-asked",
            "born-apart": None,
        },
    ),
    "functional activation between": (
        lambda x, partial, mix: mix(partial(x).relu()),
        {"two-products": None, "born-apart": None, "merged": "between"},
    ),
}


@pytest.mark.parametrize(
    ("place", "form", "code"),
    [(place, form, why) for place, (_, all_) in AROUND.items() for form, why in all_.items()],
)
@pytest.mark.sample(8)
def test_surroundings_allow_a_form_or_the_reason_is_given(place: str, form: Any, code: str | None):
    before = network(Around(AROUND[place][0]).double().eval())
    after, diff = rewrite(before, LowerPConv(form=form))
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    assert [skip.code for skip in diff.skips] == ([] if code is None else [code])
    assert all(f"(form {form})" in skip.reason for skip in diff.skips)
    assert bool(diff.edits) == (code is None)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)  # nothing was overwritten


@pytest.mark.parametrize(
    ("form", "model", "code"),
    [
        (
            "identity-kernels",
            chain(PConv2d(8, 2)),
            "mixing",
        ),
        ("identity-kernels", chain(PDWConv2d(8, 2, 4, dilation=2)), "kernel"),
        ("two-products", chain(PConv2d(8, 8), nn.Conv2d(8, 8, 1)), "all-channels"),
        ("two-products", chain(PConv2d(8, 2), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1)), "between"),
        ("merged", chain(PConv2d(8, 2), nn.ReLU(), nn.Conv2d(8, 8, 1)), "between"),
        ("merged", chain(PConv2d(8, 2), nn.Conv2d(8, 8, 1, padding=1)), "neighbour"),
        ("merged", chain(PConv2d(8, 2), normed().train(), nn.Conv2d(8, 8, 1)), "training"),
        ("born-apart", chain(nn.Conv2d(8, 8, 3, groups=8), PConv2d(8, 2)), "neighbour"),
        ("born-apart", chain(PConv2d(8, 2), nn.Conv2d(8, 8, 1)), "neighbour-held"),
        ("two-products", nn.Sequential(*chain(PConv2d(8, 2)), nn.Conv2d(8, 8, 1)), NO_POINTWISE),
    ],
)
def test_refusals_say_why(form: Any, model: nn.Module, code: str):
    _, diff = rewrite(network(model), LowerPConv(form=form))
    assert not diff.edits
    assert [skip.code for skip in diff.skips] == [code]


def test_neighbours_that_share_a_convolution_are_not_both_born_apart():
    model = chain(nn.Conv2d(8, 8, 1), PConv2d(8, 2), nn.Conv2d(8, 8, 1), PDWConv2d(8, 4), nn.Conv2d(8, 8, 1)).double()
    before = network(model)
    after, diff = rewrite(before, LowerPConv(form="born-apart"))
    assert [(skip.path, skip.code) for skip in diff.skips] == [("4", "taken")]
    alone, diff = rewrite(before, LowerPConv(form="born-apart", layers=("4",)))
    assert not diff.skips
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    for changed in (after, alone):
        torch.testing.assert_close(output(changed, x), output(before, x), rtol=1e-9, atol=1e-9)


def test_every_layer_can_have_its_own_form():
    model = chain(nn.Conv2d(8, 8, 1), PConv2d(8, 2), nn.Conv2d(8, 8, 1), PDWConv2d(8, 4), nn.Conv2d(8, 8, 1))
    passes = [LowerPConv(form="merged", layers=("2",)), LowerPConv(form="identity-kernels", layers=("4",))]
    roadmap = Roadmap.from_toml(Roadmap(passes).to_toml())
    result = apply(model, roadmap, torch.rand(1, 8, 16, 16))
    assert [[edit.path for edit in diff.edits] for diff in result.diffs] == [["2", "3"], ["4"]]
    assert not any(isinstance(module, PartialConv2d) for module in result.model.modules())
    assert all(verdict.holds for verdict in result.verdicts)


def test_auto_chooses_by_what_the_layer_allows():
    contracts, expands = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 16, 1)
    head = nn.Conv2d(8, 8, 1)
    for layers, form in (
        ((PDWConv2d(8, 2), contracts), "two-slices"),
        ((head, PDWConv2d(8, 2), contracts), "born-apart"),
        ((PConv2d(8, 2), expands), "two-slices"),
        ((PDWConv2d(8, 2), expands), "identity-kernels"),
        ((head, PConv2d(8, 2), expands), "born-apart"),
    ):
        _, diff = rewrite(network(chain(*layers)), LowerPConv())
        assert [edit.note for edit in diff.edits if edit.fate == "exact"] == [form]
    assert_rewrites(LowerPConv(), chain(PConv2d(8, 2)), after={}, skips={"1": "stays"})


def test_auto_takes_another_form_where_a_neighbour_has_the_convolution():
    links = [layer for _ in range(12) for layer in (PConv2d(8, 2), nn.Conv2d(8, 8, 1))]
    before = network(chain(nn.Conv2d(8, 8, 1), *links).double())
    after, diff = rewrite(before, LowerPConv())
    assert [edit.note for edit in diff.edits if edit.fate == "exact"] == ["born-apart", *["two-slices"] * 11]
    x = torch.randn(1, 8, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(output(after, x), output(before, x), rtol=1e-9, atol=1e-9)


# Fused


def test_fused_takes_the_relu_along_and_is_one_layer_of_its_bundle(tmp_path: Path):
    model = chain(PDWConv2d(8, 2, 5, bias=True), nn.Conv2d(8, 4, 1), nn.ReLU(inplace=True))
    after, _ = assert_rewrites(
        LowerPConv(form="fused"),
        model,
        after={
            "1": "FusedPConv2d(PDWConv2d(8, k5, bias, portion=1/4) + Conv2d(8→4, k1, bias) + ReLU)",
            **dict.fromkeys("23"),
        },
    )
    assert {"1.partial.conv.weight", "1.pointwise.weight"} <= set(after.program.state())
    result = apply(model, [LowerPConv(form="fused")], torch.rand(1, 8, 16, 16))
    result.save(tmp_path)
    call = "FusedPConv2d(8, 2, 4, kernel_size=5, depthwise=True, spatial_bias=True, relu=True)"
    assert call in (tmp_path / "model.py").read_text()
