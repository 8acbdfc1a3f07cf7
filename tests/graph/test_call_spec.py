"""Example inputs of every kind, and outputs that are more than a tensor."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mofa_compiler import apply, capture
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.graph.call_spec import CallSpec, InputSpec


class WithConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Diffusion(WithConv):
    """A time step as a number or a tensor, optional conditions by keyword."""

    def forward(self, sample, timestep, label=None, *, scale: float = 1.0, mode="plain"):
        if not torch.is_tensor(timestep):
            timestep = torch.tensor([timestep], dtype=torch.long, device=sample.device)
        embedding = torch.sin(timestep.float() / 10)[:, None, None, None]
        if label is not None:
            embedding = embedding + label
        return self.conv(sample) * embedding * scale + (1 if mode == "plain" else 2)


class Batch(WithConv):
    def forward(self, batch):
        x = self.conv(batch["image"]) + sum(batch["others"])
        if "mask" in batch:
            x = x * batch["mask"]
        return {key: x * factor for key, factor in batch["factors"].items()}


class Images(WithConv):
    def forward(self, *images, **options):
        return torch.cat([self.conv(image) for image in images]) * options.get("gain", 1)


class Stereo(WithConv):
    def forward(self, views):
        return Pair(self.conv(views.left), self.conv(views.right))


def image(*, size=8):
    return torch.rand(1, 3, size, size + 4)


CALLS = {
    "number": (Diffusion(), lambda i: (image(size=8 + i), 3 + i)),
    "number as a tensor": (Diffusion(), lambda i: (image(size=8 + i), torch.tensor([3 + i]))),
    "none": (Diffusion(), lambda i: (image(size=8 + i), 3.5 + i, None)),
    "keywords": (Diffusion(), lambda i: {"timestep": 3 + i, "scale": 0.5 * i, "sample": image(), "mode": "other"}),
    "keywords with a gap": (Diffusion(), lambda i: {"sample": image(), "timestep": 3, "scale": 0.5}),
    "one dict": (Batch(), lambda i: {"image": image(size=8 + i), "others": [1, 2.0 * i], "factors": {"a": 2, "b": i}}),
    "dict in a tuple": (
        Batch(),
        lambda i: ({"image": image(), "others": [image()], "mask": image(), "factors": {"a": 2}},),
    ),
    "variable": (Images(), lambda i: (image(size=8 + i), image(size=8 + i))),
    "variable keywords": (Images(), lambda i: {"gain": 2.0 + i}),
    "named tuple": (Stereo(), lambda i: (Pair(image(), image()),)),
}


def called(module, call):
    """Call a module as `example_inputs` says."""
    if isinstance(call, dict):
        known = {"sample", "timestep", "gain"}
        return module(**call) if known & call.keys() else module(call)
    return module(*call)


def leaves(output):
    if isinstance(output, dict):
        return list(output.values())
    return list(output) if isinstance(output, tuple) else [output]


@pytest.mark.parametrize(("model", "call"), [pair for name, pair in CALLS.items() if name != "variable keywords"])
def test_any_kind_of_argument_is_bound_and_stays_an_argument(model, call):
    program = capture(model, call(0))
    for i in range(2):
        arguments = call(i)
        expected, got = (called(m, arguments) for m in (model, program.graph_module))
        assert type(got) is type(expected)
        assert all(torch.equal(a, b) for a, b in zip(leaves(expected), leaves(got), strict=True))


@pytest.mark.parametrize("name", ["number", "keywords", "one dict", "named tuple"])
def test_apply_takes_and_passes_on_what_capture_takes(name):
    model, call = CALLS[name]
    result = apply(model, "mofa", call(0))
    assert [verdict.holds for verdict in result.verdicts] == [True] * len(result.diffs)
    for i in range(2):
        expected, got = (leaves(called(module, call(i))) for module in (model, result.model))
        assert [tensor.shape for tensor in expected] == [tensor.shape for tensor in got]


def test_the_call_survives_as_plain_data():
    call = CallSpec(
        (InputSpec((1, 3, 8, 8)), {"a": [InputSpec((2,), torch.int64), None]}, (1, 2.5)),
        {"mode": "x", "dtype": torch.float16, "device": torch.device("cpu"), "flag": True},
    )
    assert CallSpec.from_data(call.to_data()) == call
    assert call.tensors == (InputSpec((1, 3, 8, 8)), InputSpec((2,), torch.int64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"sample": image(), "timestep": 3, "scale": 0.5, "mode": "other"}, "captured with mode='other', not 'plain'"),
    ],
)
def test_another_text_than_in_the_example_is_an_error(call, message):
    module = capture(Diffusion(), call).graph_module
    with pytest.raises(RuntimeError, match=message):
        module(**{**call, "mode": "plain"})


def test_a_list_of_another_length_is_an_error():
    module = capture(Batch(), {"image": image(), "others": [1, 2], "factors": {"a": 1}}).graph_module
    with pytest.raises(RuntimeError, match="captured with 2 parts, which now are 3"):
        module({"image": image(), "others": [1, 2, 3], "factors": {"a": 1}})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((image(), object()), "example input 1 is a object, expected a tensor"),
        ({"sample": image(), "timestep": {"t": [object()]}}, r"'timestep'\['t'\]\[0\] is a object"),
        ((image(),), r"1 example input was given, which do not fit Diffusion.forward\(.*missing .* 'timestep'"),
        ({"sample": image(), "timestep": 1, "other": 2}, "Diffusion.forward.*missing a required argument"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, message):
    with pytest.raises(CaptureError, match=message):
        capture(Diffusion(), call)


@dataclass
class Output:
    sample: Tensor
    extra: Tensor | None = None


@dataclass
class DictOutput(OrderedDict):
    """Both a dataclass and a dict, as the outputs of diffusers and transformers are."""

    sample: Tensor

    def __post_init__(self):
        self["sample"] = self.sample


class NamedDict(OrderedDict):
    """A dict with attributes, without dataclasses."""

    def __init__(self, sample):
        super().__init__(sample=sample)
        self.sample = sample


@pytest.mark.parametrize("kind", [Output, DictOutput, NamedDict])
def test_dataclass_outputs_keep_their_type(kind):
    class Model(WithConv):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return kind(sample=self.inner(x).sample)

    class Inner(WithConv):
        def forward(self, x):
            return kind(sample=self.conv(x))

    model, x = Model(), image()
    output = capture(model, x).graph_module(x)
    assert type(output) is kind
    assert torch.equal(output.sample, model(x).sample)
    result = apply(model, "mofa", x)
    assert result.model(x).sample.shape == x.shape
    assert result.verdicts[-1].accumulated >= 0
