"""Weights that are computed from others at every call are folded into plain ones, in the copy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from mofa_compiler import apply, capture, load, verify
from mofa_compiler.base.errors import BundleError
from mofa_compiler.frontend import CaptureWarning
from mofa_compiler.frontend.reparametrized import folded

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::mofa_compiler.frontend.modes.CaptureWarning"),
]

Normalize = Callable[[nn.Module], nn.Module]


class Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Noisy(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + torch.rand_like(weight)


def pruned(module: nn.Module) -> nn.Module:
    prune.l1_unstructured(module, "weight", 0.5)
    return module


def own(module: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", Double())
    parametrize.register_parametrization(module, "bias", Double())
    return module


ALL: list[Normalize] = [
    *(weight_norm, spectral_norm, parametrizations.weight_norm, parametrizations.spectral_norm),
    *(parametrizations.orthogonal, pruned, own),
]
SPECTRAL = [spectral_norm, parametrizations.spectral_norm]


class Net(nn.Module):
    def __init__(self, normalize: Normalize):
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.b = normalize(nn.Conv2d(8, 8, 3, padding=1))
        self.d, self.up = nn.Conv2d(8, 8, 2, stride=2), normalize(nn.ConvTranspose2d(8, 8, 2, stride=2))
        self.line, self.gru = normalize(nn.Linear(8, 8)), nn.GRU(8, 8)
        self.same = self.b

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.d(self.b(self.a(x))).relu())
        y = y + self.line(y.mean((2, 3)))[:, :, None, None]
        return x + self.c(y)  # type: ignore[no-any-return]


def built(normalize: Normalize) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    net, x = Net(normalize), torch.rand(1, 3, 16, 16)
    net(x)  # a spectral normalization has gone some way then
    return net.eval(), x


@pytest.mark.parametrize("normalize", ALL)
def test_the_same_function_without_touching_the_model(normalize: Normalize) -> None:
    net, x = built(normalize)
    kind, state, expected = type(net.b), {key: tensor.clone() for key, tensor in net.state_dict().items()}, net(x)
    with pytest.warns(CaptureWarning, match="b.weight"):
        program = capture(net, x)
    assert torch.equal(program.graph_module(x), expected)
    assert type(program.modules["b"]) is nn.Conv2d
    assert type(net.b) is kind
    assert program.modules["a"].weight is net.a.weight  # what is plain is shared
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())
    with torch.no_grad():
        assert torch.equal(net(x), expected)


@pytest.mark.parametrize("normalize", ALL)
@pytest.mark.sample(2)
def test_keys_lead_to_what_they_became_and_a_bundle_is_written(normalize: Normalize, tmp_path: Path) -> None:
    net, x = built(normalize)
    result = apply(net, "mofa", x)
    assert set(result.keymap) == set(net.state_dict())
    gone = set(net.state_dict()) - set(result.original.program.state())
    assert {key.partition(".")[0] for key in gone} == {"b", "up", "line", "same"}
    assert {result.keymap[key].fate for key in gone} == {"rewritten"}
    assert all("b.pconv.conv.weight" in result.keymap[key].keys for key in gone if key.startswith("b."))
    loaded = load(result.save(tmp_path / "bundle"))
    assert torch.equal(loaded(x), result.model.eval()(x))


@pytest.mark.parametrize("normalize", ALL)
def test_a_folded_model_takes_its_own_state(normalize: Normalize) -> None:
    model = folded(built(normalize)[0]).model
    model.load_state_dict({key: torch.full_like(tensor, 0.5) for key, tensor in model.state_dict().items()})
    assert all(bool((tensor == 0.5).all()) for tensor in model.state_dict().values())


def test_a_bundle_with_a_folded_layer_that_stays_is_verified(tmp_path: Path) -> None:
    net, x = built(spectral_norm)
    assert not verify(apply(net, "mofa", x).save(tmp_path / "bundle"), net).problems


@pytest.mark.parametrize("normalize", [normalize for normalize in ALL if normalize not in SPECTRAL])
def test_what_does_not_depend_on_the_mode_is_folded_in_training_too(normalize: Normalize) -> None:
    net, x = built(normalize)
    assert folded(net.train()).kept == {}
    assert torch.equal(capture(net, x).graph_module(x), net(x))


@pytest.mark.parametrize("normalize", SPECTRAL)
def test_a_spectral_norm_in_training_stays_and_says_so(normalize: Normalize, tmp_path: Path) -> None:
    net, x = built(normalize)
    with pytest.warns(CaptureWarning, match=r"b\.weight.*in training mode"):
        result = apply(net.train(), "mofa", x)
    assert not result.original.program.folded
    with pytest.raises(BundleError, match=r"hooks|parametrized"):
        result.save(tmp_path / "bundle")


def test_what_is_random_stays() -> None:
    def noisy(module: nn.Module) -> nn.Module:
        parametrize.register_parametrization(module, "weight", Noisy())
        parametrize.register_parametrization(module, "bias", Double())
        return module

    conv = nn.Sequential(noisy(nn.Conv2d(3, 4, 1))).eval()
    found = folded(conv)
    assert list(found.kept) == ["0.weight"]
    assert found.keys == {"0.parametrizations.bias.original": "0.bias"}
    assert isinstance(found.model[0].bias, nn.Parameter)
    assert parametrize.is_parametrized(conv[0], "bias")


@pytest.mark.parametrize("normalize", ALL)
def test_what_is_made_of_frozen_parameters_is_frozen(normalize: Normalize) -> None:
    net, _ = built(normalize)
    net.b.requires_grad_(False)
    model = folded(net).model
    assert not model.get_submodule("b").weight.requires_grad  # type: ignore[union-attr]
    assert model.get_submodule("up").weight.requires_grad  # type: ignore[union-attr]


def test_recurrent_weights() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rnn = nn.Conv2d(3, 4, 1), weight_norm(nn.GRU(4, 4, batch_first=True), "weight_hh_l0")

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(self.conv(x).mean(3).mT)[0]  # type: ignore[no-any-return]

    net, x = Steps().eval(), torch.rand(1, 3, 8, 8)
    assert torch.equal(capture(net, x).graph_module(x), net(x))


def test_a_model_without_any_is_that_model() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folded(net).model is net
