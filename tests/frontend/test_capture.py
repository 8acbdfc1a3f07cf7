from __future__ import annotations

import copy
import threading
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import mofa_compiler
from architectures import PMRID, NAFNet, UNet
from mofa_compiler import capture
from mofa_compiler.base.errors import CaptureError
from mofa_compiler.graph.call_spec import InputSpec
from tests.frontend.small import Noisy, Sizes, WithMode
from tests.raising import raising

MODELS = [
    lambda: PMRID(),
    lambda: NAFNet(width=8),
    lambda: UNet(width=4, depth=3),
    lambda: UNet(width=4, depth=3, bilinear=True),
]


@pytest.mark.parametrize("build", MODELS, ids=["pmrid", "nafnet", "unet", "unet-bilinear"])
@pytest.mark.sample("nafnet", "unet")
def test_equals_eager_at_other_sizes_and_in_both_modes(build):
    model = build()
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    program = capture(model, torch.rand(1, 3, 256, 256))
    assert program.opaque == {}
    module = program.graph_module
    assert set(module.state_dict()) == set(model.state_dict())
    for size in [(320, 192), (64, 48)]:
        x = torch.rand(2, 3, *size)
        for mode in (True, False):
            expected = copy.deepcopy(model).train(mode)(x)
            torch.testing.assert_close(copy.deepcopy(module).train(mode)(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("build", MODELS, ids=["pmrid", "nafnet", "unet", "unet-bilinear"])
@pytest.mark.sample("unet")
def test_leaves_the_model_as_it_was(build):
    model = build()
    modules = {id(m): dict(m.__dict__) for m in model.modules()}
    x, apply = torch.rand(1, 3, 64, 64), torch.autograd.Function.__dict__["apply"]
    rng = torch.get_rng_state()
    capture(model, x)
    mofa_compiler.apply(model, "mofa", x)
    assert {id(m): dict(m.__dict__) for m in model.modules()} == modules
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.autograd.Function.__dict__["apply"] is apply


def test_no_activation_is_computed():
    """16 Gpixel would not fit into memory."""
    program = capture(PMRID(), torch.empty(1, 3, 131072, 131072, device="meta"))
    assert program.inputs[0].shape == (1, 3, 131072, 131072)


def test_custom_autograd_function_keeps_its_backward():
    calls = []

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            calls.append(1)
            return 3 * gradient  # wrong on purpose: autograd would say 2

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return Double.apply(self.conv(x))

    module = capture(Model()).graph_module
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    module(x).sum().backward()
    gradient = x.grad.clone()
    x.grad = None
    module.conv(x).sum().backward()
    assert calls
    torch.testing.assert_close(gradient, 3 * x.grad)


def test_weight_that_forward_looks_at():
    class Model(nn.Module):
        def __init__(self, read):
            super().__init__()
            self.conv, self.last, self.read = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1), read

        def forward(self, x):
            return self.last(self.read(self.conv(x.to(self.conv.weight.dtype)), self.conv.weight))

    x = torch.rand(1, 3, 8, 8)
    for read in (lambda y, weight: y, lambda y, weight: y * weight.mean()):
        model = Model(read)
        program = capture(model, x)
        assert torch.equal(program.graph_module(x), model(x))
        assert set(program.graph_module.state_dict()) == set(model.state_dict())


def test_convolution_called_by_keyword():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.last = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

        def forward(self, x):
            return self.last(self.conv(input=self.first(x)))

    result = mofa_compiler.apply(Model(), "mofa", torch.rand(1, 4, 16, 16))
    assert [edit.path for edit in result.diffs[0].edits] == ["conv"]


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


def test_untraceable_submodule_becomes_one_opaque_leaf():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(Branching(), nn.ReLU()))
    program = capture(model, torch.rand(1, 3, 16, 16))
    assert list(program.opaque) == ["1.0"]
    assert "values of a tensor" in program.opaque["1.0"]
    x = torch.rand(1, 3, 8, 12)
    assert torch.equal(program.graph_module(x), model(x))
    assert mofa_compiler.apply(model, "mofa", torch.rand(1, 3, 16, 16)).model(x).shape == x.shape


def test_opaque_batch_norm_is_not_run_on_the_users_module():
    class Norm(Branching):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return super().forward(self.norm(x))

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Norm()).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    capture(model, torch.rand(2, 3, 16, 16))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_untraceable_root_is_an_error_that_says_why():
    with raising(CaptureError, "untraceable", "Branching", "bool()"):
        capture(Branching(), torch.rand(1, 3, 16, 16))


def test_rejected_shape_names_the_layer():
    with raising(CaptureError, "wrong-input", "PMRID", "1x4x64x64", "'conv0.conv'"):
        capture(PMRID(), torch.rand(1, 4, 64, 64))


def test_data_dependent_sizes_are_no_matter_of_the_example():
    with raising(CaptureError, "untraceable", "Sizes"):
        capture(Sizes(lambda x: torch.unique(x).mean() * x), torch.rand(1, 3, 8, 8))


def test_wrong_number_of_inputs():
    with raising(CaptureError, "wrong-input", "PMRID.forward(image)"):
        capture(PMRID(), (torch.rand(1, 3, 64, 64),) * 2)


def test_input_is_inferred_from_the_first_convolution():
    assert capture(PMRID(4)).inputs[0].shape == (1, 4, 256, 256)
    with raising(CaptureError, "wrong-input", "example_inputs"):
        capture(nn.Sequential(nn.Linear(3, 3)))


def test_the_example_is_kept_as_it_was_given():
    x = torch.rand(1, 3, 8, 8)
    program = capture(nn.Sequential(nn.Conv2d(3, 4, 1)), [x])
    assert program.example.args[0] is x
    assert program.call.args == (InputSpec((1, 3, 8, 8)),)
    assert capture(nn.Sequential(nn.Conv2d(3, 4, 1))).example.args == (InputSpec((1, 3, 256, 256)),)


def test_root_hooks_and_autocast_are_not_dropped_silently():
    class Cast(WithMode):
        def forward(self, x):
            with torch.autocast("cpu"):
                return self.conv(x)

    model = WithMode()
    model.register_forward_hook(lambda module, args, output: output * 2)
    with raising(CaptureError, "hooks"):
        capture(model)

    program = capture(nn.Sequential(Cast(), nn.ReLU()), torch.rand(1, 3, 8, 8))
    assert "autocast" in program.opaque["0"]


def test_plain_tensor_attributes():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mean = nn.Conv2d(3, 3, 1), torch.rand(1, 3, 1, 1)
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1))
            self.inner[0].shift = torch.rand(1, 3, 1, 1)

        def forward(self, x):
            return self.inner(self.conv(x - self.mean)) + self.mean + self.inner[0].shift

    model, x = Model(), torch.rand(1, 3, 8, 8)
    module = capture(model, x).graph_module
    assert torch.equal(module(x), model(x))
    assert set(copy.deepcopy(module).state_dict()) == set(model.state_dict())


def test_tensors_that_are_made_tensors():
    model, x = Sizes(lambda x: torch.as_tensor(x) + torch.asarray(x, requires_grad=True)), torch.rand(1, 3, 8, 8)
    assert torch.equal(capture(model, x).graph_module(x), model(x))


PLAIN = {
    "type": lambda x: x.float() if "Half" in x.type() else x * 2,
    "device type": lambda x: x * 2 if x.device.type == "cpu" else x,
    "device equality": lambda x: x * 2 if torch.ones(1).device == x.device else x,
    "device inequality": lambda x: x if x.device != torch.device("cpu") else x * 2,
    "is_cpu": lambda x: x * 2 if x.is_cpu and not x.is_meta else x,
    "numpy scalar": lambda x: np.sqrt(4.0) * x * np.float64(1) + np.int64(0),
}


@pytest.mark.parametrize("body", PLAIN.values(), ids=PLAIN)
def test_what_does_not_depend_on_the_size_is_decided(body):
    model, x = Sizes(body), torch.rand(1, 3, 6, 10)
    program = capture(model, torch.rand(1, 3, 8, 8))
    assert torch.equal(program.graph_module(x), model.conv(x) * 2)
    assert torch.equal(model(x), model.conv(x) * 2)


def test_plain_tensor_attribute_that_forward_rebinds():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mean = nn.Conv2d(3, 3, 1), torch.rand(1, 3, 1, 1)

        def forward(self, x):
            self.mean = self.mean.type_as(x)
            return self.conv(x - self.mean) + self.mean

    model, x = Model(), torch.rand(1, 3, 8, 8)
    module = capture(model, x).graph_module
    assert isinstance(model.mean, torch.Tensor)
    assert torch.equal(module(x), model(x))


def test_keyword_names_are_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleDict({"in": nn.Conv2d(3, 3, 1)})

        def forward(self, x):
            return self.parts["in"](x)

    with raising(CaptureError, "bad-name", "parts.in"):
        capture(Model())


def test_names_that_no_file_can_hold_are_refused():
    model = nn.Sequential(OrderedDict({"half \ud800": nn.Conv2d(3, 3, 1)}))
    with raising(CaptureError, "bad-name", "ud800"):
        capture(model)


def test_copies_keep_every_key():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.alias, self.unused = self.conv, nn.Linear(2, 2)

        def forward(self, x):
            return self.conv(x) * torch.arange(3.0).view(1, 3, 1, 1)

    model = Model()
    twin = copy.deepcopy(copy.deepcopy(capture(model).graph_module))
    assert set(twin.state_dict()) == set(model.state_dict())
    assert twin.alias is twin.conv


def test_unused_and_twice_registered_state_survives():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.alias = self.conv
            self.unused = nn.ModuleDict({"aux": nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1))})
            self.scale = nn.Parameter(torch.ones(3, 1, 1))
            self.register_buffer("step", torch.zeros(()))
            self.register_buffer("cache", torch.zeros(3), persistent=False)

        def forward(self, x):
            return self.alias(x) * self.scale

    model = Model()
    program = capture(model, torch.rand(1, 3, 8, 8))
    assert set(program.graph_module.state_dict()) == set(model.state_dict())
    assert program.parameters == sum(p.numel() for p in model.parameters())
    assert program.graph_module.alias is program.graph_module.conv


def test_half_precision():
    program = capture(NAFNet(width=8).bfloat16(), torch.rand(1, 3, 32, 32, dtype=torch.bfloat16))
    assert program.graph_module(torch.rand(1, 3, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


# --- decisions on sizes ----------------------------------------------------------------------------------------------


def test_random_values_of_training_stay_random():
    module = capture(Noisy(lambda x: x + torch.randn(1)).train(), torch.rand(1, 3, 8, 8)).graph_module
    x = torch.rand(1, 3, 8, 8)
    assert not torch.equal(module(x), module(x))


@pytest.mark.slow
def test_another_thread_may_run_models_meanwhile():
    model, x = NAFNet(width=4), torch.rand(1, 3, 16, 16)
    expected, outcomes = model(x), []
    stop = threading.Event()

    def run():
        while not stop.is_set():
            outcomes.append(torch.equal(model(x), expected))

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(5):
        capture(NAFNet(width=4), x)
    stop.set()
    thread.join()
    assert outcomes
    assert all(outcomes)
