"""What capture leaves whole, keeps as it is, or refuses, and what it says then."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from mofa_compiler import apply, capture
from mofa_compiler.base.errors import CaptureError
from tests.raising import raising

einops = pytest.importorskip("einops")
from einops.layers.torch import Rearrange  # noqa: E402


class Model(nn.Module):
    """A convolution, and a function of it and the input."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x):
        return self.function(self, self.conv(x))


def shaped(*shape):
    return torch.rand(*shape)


def refined_parameter(model, x):
    return x * nn.Parameter(torch.ones(4, 1, 1))


def layer_made_in_forward(model, x):
    return nn.Conv2d(4, 4, 1)(x)


def layer_kept_aside(model, x):
    if not hasattr(model, "late"):
        model.late = nn.Conv2d(4, 4, 1)
    return model.late(x)


@pytest.mark.parametrize(
    ("function", "what"),
    [(refined_parameter, "a parameter"), (layer_made_in_forward, "a Conv2d"), (layer_kept_aside, "a Conv2d")],
)
def test_weights_made_in_forward_are_refused(function, what):
    model = nn.Sequential(Model(function), nn.ReLU())
    names = set(vars(model[0])), set(model.state_dict())
    with raising(CaptureError, "untraceable", what):
        capture(model, shaped(1, 3, 8, 8))
    assert (set(vars(model[0])), set(model.state_dict())) == names


MADE_IN_FORWARD = {
    "layers without weights": lambda model, x: nn.Upsample(size=[2 * n for n in x.shape[2:]])(nn.ReLU()(x)),
    "slice": lambda model, x: model.function_layers[1:](model.function_layers[0](x)),
    "container": lambda model, x: nn.Sequential(*model.function_layers, nn.MaxPool2d(3, 2, 1))(x),
}


@pytest.mark.parametrize("function", MADE_IN_FORWARD.values(), ids=MADE_IN_FORWARD)
def test_what_forward_makes_without_weights_of_its_own_is_traced_through(function):
    model = Model(function)
    model.function_layers = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 1))
    program = capture(model, shaped(1, 3, 8, 8))
    x = shaped(1, 3, 6, 10)
    assert not program.opaque
    assert torch.equal(program.graph_module(x), model(x))


@pytest.mark.parametrize("how", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_what_forward_computes_without_gradient_has_none(how):
    def function(model, x):
        with how():
            gate, other = (x.sigmoid() * model.conv.bias.mean()).chunk(2, dim=1)
        return x * torch.cat([gate, other], 1).clone() + x

    model, x = Model(function), shaped(1, 3, 8, 8)
    module = copy.deepcopy(capture(model, x).graph_module)
    for net in (model, module):
        net(x).square().sum().backward()
    assert torch.equal(model(x), module(x))
    for (name, theirs), ours in zip(model.named_parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_gradients_are_kept_where_the_caller_has_switched_them_off():
    model, x = Model(lambda model, x: x * 2), shaped(1, 3, 8, 8)
    with torch.no_grad():
        module = capture(model, x).graph_module
    assert module(x).requires_grad


HOOKS = {
    "forward": lambda m, log: m.register_forward_hook(lambda *_: log.append("forward")),
    "pre": lambda m, log: m.register_forward_pre_hook(lambda *_: log.append("pre")),
    "backward": lambda m, log: m.register_full_backward_hook(lambda *_: log.append("backward")),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_modules_with_hooks_stay_whole_and_are_reported(kind):
    log: list[str] = []
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 3, 3))
    HOOKS[kind](model[0], log)
    program = capture(model, shaped(1, 3, 8, 8))
    assert "has hooks" in program.opaque["0"]
    log.clear()
    program.graph_module(shaped(1, 3, 8, 8).requires_grad_()).sum().backward()
    assert log == [kind]


def test_the_cause_names_the_line_of_the_users_code():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.mean() > 0 else -x  # this line stops the tracer

    inner, x = nn.Sequential(nn.Conv2d(3, 3, 1), Branch()), shaped(1, 3, 8, 8)
    assert "test_refusals.py" in capture(inner, x).opaque["1"]
    assert "return x if x.mean() > 0 else -x" in capture(inner, x).opaque["1"]
    with pytest.raises(
        CaptureError, match=r"cannot trace Branch: .*test_refusals\.py:\d+: return x if x\.mean\(\) > 0"
    ):
        capture(Branch(), x)


class Keeps(nn.Module):
    """Leaves what it has seen on itself, in several ways, and may fail afterwards."""

    def __init__(self, fail=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.seen, self.by_size, self.fail = [], {"sizes": []}, fail

    def forward(self, x):
        self.last = self.conv(x)
        self.seen.append(self.last)
        self.by_size["sizes"].append(x.shape[2])
        self.by_size[x.dtype] = x
        if self.fail:
            raise ValueError("enough")
        return self.last


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_that_forward_leaves_on_the_model_survives_tracing(fail):
    model = Keeps(fail)
    seen, sizes, was = model.seen, model.by_size, set(vars(model))
    if fail:
        with pytest.raises(CaptureError, match="enough"):
            capture(model, shaped(1, 3, 8, 8))
    else:
        capture(model, shaped(1, 3, 8, 8))
    assert set(vars(model)) == was
    assert model.seen is seen and seen == []
    assert model.by_size is sizes and sizes == {"sizes": []}


def test_a_forward_put_on_the_instance_is_what_is_captured():
    model, x = nn.Conv2d(3, 3, 1), shaped(1, 3, 8, 8)
    wrapped = nn.Sequential(model)
    wrapped.forward = lambda x: model(x) * 3
    assert torch.equal(capture(wrapped, x).graph_module(x), wrapped(x))


def test_a_compiled_model_is_unwrapped():
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), shaped(1, 3, 8, 8)
    program = capture(torch.compile(model, backend="eager"), x)
    assert program.name == "Sequential"
    assert torch.equal(program.graph_module(x), model(x))


@pytest.mark.parametrize("parametrize", [True, False], ids=["parametrization", "hook"])
@pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning")
def test_reparametrized_convolutions_are_folded_and_rewritten(parametrize):
    norm = torch.nn.utils.parametrizations.spectral_norm if parametrize else torch.nn.utils.spectral_norm
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm(nn.Conv2d(8, 8, 3, padding=1)), nn.Conv2d(8, 3, 3)).eval()
    x = shaped(1, 3, 16, 16)
    assert torch.equal(capture(model, x).graph_module(x), model(x))
    result = apply(model, "mofa", x)
    assert any(edit.path == "1" for diff in result.diffs for edit in diff.rewritten)


class Attention(nn.Module):
    """Window attention as einops users write it."""

    def __init__(self, window=4):
        super().__init__()
        self.window, self.mix = window, nn.Linear(8, 8)
        self.to_windows = Rearrange("b c (h p) (w q) -> (b h w) (p q) c", p=window, q=window)

    def forward(self, x):
        windows = self.mix(self.to_windows(x))
        attention = einops.einsum(windows, windows, "b i c, b j c -> b i j").softmax(-1)
        x = einops.rearrange(
            attention @ windows, "(b h w) (p q) c -> b c (h p) (w q)", p=self.window, h=x.shape[2] // self.window, b=1
        )
        pooled = einops.reduce(x, "b c h w -> b c 1 1", "mean")
        tiled = einops.repeat(pooled, "b c 1 1 -> b c h w", h=x.shape[2], w=x.shape[3])
        packed, shapes = einops.pack([x, tiled], "b * h w")
        first, second = einops.unpack(packed, shapes, "b * h w")
        return first + second


def test_einops_is_traced_into_plain_operations_that_take_other_sizes():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Attention(), nn.Conv2d(8, 3, 3, padding=1)).double()
    program = capture(model, shaped(1, 3, 16, 24).double())
    assert not program.opaque
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert not [target for target in called if "einops" in getattr(target, "__module__", "")]
    for size in ((16, 24), (8, 12)):
        x = shaped(1, 3, *size).double()
        torch.testing.assert_close(program.graph_module(x), model(x))
    x = shaped(1, 4, 8, 8)
    assert einops.rearrange(x, "b c h w -> b (h w) c").shape == (1, 64, 4)  # as before, outside


def test_einops_keeps_no_proxies():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Attention())
    graph = weakref.ref(capture(model, shaped(1, 3, 16, 16)).graph)
    gc.collect()
    assert graph() is None


def test_numpy_computes_constants_on_sizes_that_it_has_to_know():
    import numpy as np

    model = Model(lambda model, x: x * torch.from_numpy(np.linspace(0, 1, x.shape[3])))
    module = capture(model, shaped(1, 3, 8, 8)).graph_module
    assert torch.equal(module(x := shaped(2, 3, 8, 8)), model(x))
    with pytest.raises(RuntimeError, match="captured where a size was"):
        module(shaped(1, 3, 16, 16))
