"""What a trace would get wrong without a word: each is right, one opaque part, or an error."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mofa_compiler import capture
from mofa_compiler.base.errors import CaptureError
from tests.raising import raising


class Block(nn.Module):
    """A convolution and a batch normalization, and what is done with them."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.other, self.kept, self.function = nn.Conv2d(3, 8, 3, padding=1), {}, function

    def forward(self, x):
        return self.function(self, x)


def dilations(model, x):
    y = 0
    for dilation in (1, 2, 4):
        model.conv.dilation = model.conv.padding = (dilation, dilation)
        y = y + model.conv(x)
    return y


def always_training(model, x):
    model.norm.train()
    return model.norm(model.conv(x))


def data_of_a_value(model, x):
    y = model.conv(x)
    y.data = y.data * 2
    return y


def clamped_weight(model, x):
    model.conv.weight.data = model.conv.weight.data.clamp(-0.01, 0.01)
    return model.conv(x)


def other_weights(model, x):
    return functional_call(model.conv, dict(model.other.named_parameters()), (x,))


def penalty(model, x):
    return model.conv(x) + sum(p.pow(2).sum() for p in model.parameters())


def swallowed(model, x):
    y = model.conv(x)
    try:
        factor = float(y.detach().mean())
    except Exception:
        factor = 7.0
    return y * factor


def written_without_gradient(model, x):
    y = model.conv(x)
    with torch.no_grad():
        y.mul_(2)
    return y


def hooked(model, x):
    handle = model.conv.register_forward_hook(lambda module, args, output: model.kept.update(y=output))
    model.conv(x)
    handle.remove()
    return model.kept.pop("y") * 2


def nested_capture(model, x):
    capture(model.conv, x)
    return model.conv(x)


NOT_KEPT = [
    dilations,
    always_training,
    data_of_a_value,
    clamped_weight,
    other_weights,
    penalty,
    swallowed,
    written_without_gradient,
    hooked,
]


@pytest.mark.parametrize("function", NOT_KEPT)
def test_what_a_graph_cannot_keep_is_one_opaque_part_or_an_error(function):
    torch.manual_seed(0)
    model, x = nn.Sequential(Block(function).eval(), nn.ReLU()), torch.rand(2, 3, 16, 16)
    with pytest.raises(CaptureError):
        capture(model[0], x)
    program = capture(model, x)
    assert "0" in program.opaque
    torch.testing.assert_close(program.graph_module(x), model(x))


def test_a_swallowed_error_is_not_forgotten_over_an_opaque_part():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.inner = nn.Conv2d(3, 3, 1), Block(swallowed)

        def forward(self, x):
            factor = 1.0
            try:
                factor = float(self.before(x).detach().mean())
            except Exception:
                factor = 7.0
            return self.inner(x) * factor

    with raising(CaptureError, "untraceable"):
        capture(Outer(), torch.rand(1, 3, 8, 8))


def test_capture_inside_of_capture_is_an_error():
    with raising(CaptureError, "reentered"):
        capture(Block(nested_capture), torch.rand(2, 3, 16, 16))


RIGHT = {
    "key": lambda model, x: model.conv(x) * {16: 2.0, 32: 3.0}.get(x.shape[2], 1.0),
    "set": lambda model, x: model.conv(x) * (2 if x.shape[2] in {16, 32} else 3),
    "text": lambda model, x: model.conv(x) * (2 if str(x.shape[2]) == "16" else 3),
    "text of a size": lambda model, x: model.conv(x) * (2 if f"{tuple(x.shape[2:])}" == "(16, 16)" else 3),
    "device": lambda model, x: model.conv(x) * (2 if str(x.device) == f"{x.device}" == "cpu" else 3),
    "shape before": lambda model, x: model.kept_shape(model.conv(x).mean((2, 3))) * model.conv(x),
    "pieces": lambda model, x: torch.cat([p - p.mean(1, True) for p in model.conv(x).flatten(2).mT.split(64, 1)], 1),
    "slice of pieces": lambda model, x: sum(model.conv(x).split(8, 2)[1:]),
    "and": lambda model, x: model.conv(x) * model.masked(x.shape[2]),
}


@pytest.mark.parametrize("function", RIGHT.values(), ids=RIGHT)
def test_what_looks_at_sizes_is_right_at_any_or_an_error(function):
    model, x = Block(function).eval(), torch.rand(2, 3, 16, 16)
    model.kept_shape, model.masked = _kept_shape, _masked
    module = capture(model, x).graph_module
    assert torch.equal(module(x), model(x))
    x = torch.rand(2, 3, 32, 32)
    try:
        got = module(x)
    except RuntimeError as error:
        if "capture it again" not in str(error):
            raise
        got = capture(model, x).graph_module(x)
    assert torch.equal(got, model(x))


def _kept_shape(y):
    shape = y.shape
    y.unsqueeze_(0)
    return shape[0]


def _masked(size):
    size &= 24
    return size


def test_another_set_of_keys_is_an_error():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return sum(self.conv(image) * i for i, image in enumerate(images.values(), 1))

    a, b = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    module = capture(Sum(), ({"a": a, "b": b},)).graph_module
    with pytest.raises(RuntimeError, match="the keys of images"):
        module({"b": b, "a": a})


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, levels):
        return (x * levels).round() / levels

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


straight_through = StraightThrough.apply


def test_a_function_bound_at_the_top_of_a_module_keeps_its_backward():
    model, x = Block(lambda model, x: straight_through(model.conv(x), 4)), torch.rand(1, 3, 8, 8)
    module = capture(model, x).graph_module
    module(x).sum().backward()
    assert torch.equal(module(x), model(x))
    assert model.conv.weight.grad.abs().sum() > 0
    assert straight_through.__self__ is StraightThrough


def test_two_threads_capture_at_once():
    models = [Block(lambda model, x: model.conv(x) * x.shape[2]).eval() for _ in range(2)]
    x, found = torch.rand(1, 3, 8, 8), {}

    def run(index):
        found[index] = capture(models[index], x).graph_module(x)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[index], models[index](x)) for index in range(2))


@pytest.mark.parametrize("model", [lambda x: x, 5])
def test_what_is_no_module_is_named(model):
    with raising(CaptureError, "wrong-kind"):
        capture(model, torch.rand(1, 3, 8, 8))
