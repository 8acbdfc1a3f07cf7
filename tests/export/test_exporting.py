"""`export`: every format computes what the network does, at its size and at others, or says which layer is at fault."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mofa_compiler
from architectures import NAFNet, UNet
from mofa_compiler.base.errors import CalibrationError, ExportError
from mofa_compiler.base.precision import Precision
from mofa_compiler.export import Exported, export, formats
from mofa_compiler.formats.base import Format, Source, Written
from mofa_compiler.formats.comparing import compare
from mofa_compiler.formats.pt2 import Pt2
from mofa_compiler.graph.call_spec import CallSpec
from mofa_compiler.nn.partial_conv import PConv2d
from tests.raising import raising

SUFFIX = {name: one.suffixes[0] for name, one in formats().items()}


class Small(nn.Module):
    """A partial convolution and a pixel shuffle around a stride of 2; sides have to be even."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 2, 2)
        self.partial = PConv2d(8, 4)
        self.up = nn.Sequential(nn.Conv2d(8, 12, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.partial(self.down(x)))


class Around(nn.Module):
    """A layer in the middle of others, two levels deep."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.ModuleList([nn.Sequential(nn.ReLU(), inner), nn.Conv2d(4, 3, 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for module in self.body:
            x = module(x)
        return x


class Eigenvalues(nn.Module):
    """ONNX has no such operator."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.linalg.eigvals(x[..., :8, :8]).real.amax()


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


class Position(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.rand(1, 4, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class RowByRow(nn.Module):
    """Takes any size; as many operators as rows, which no traced graph has."""

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(x[:, :, row : row + 1].mean() for row in range(x.shape[2]))


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("to", sorted(SUFFIX))
@pytest.mark.sample("onnx")
def test_every_format_computes_the_same(tmp_path: Path, to: str, dynamic: bool) -> None:
    network, file = Small().eval(), tmp_path / f"net{SUFFIX[to]}"
    before = {key: value.clone() for key, value in network.state_dict().items()}
    done = export(network, to, file, dynamic=dynamic, inputs=torch.rand(1, 3, 16, 24))
    assert files(tmp_path) == sorted(one.name for one in done.files)
    assert done.size == sum(one.stat().st_size for one in done.files) > 500
    assert done.relative_error < 1e-5
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert any("1 split and 1 cat from partial convolutions" in note and "partial" in note for note in done.notes)
    run = formats()[to].open(file)
    sizes = [(1, 3, 16, 24), *([(1, 3, 20, 18)] if dynamic else [])]
    for size in sizes:
        x = torch.rand(size)
        with torch.no_grad():
            torch.testing.assert_close(run([x])[0], network(x), atol=1e-5, rtol=1e-4)
    if dynamic:
        assert done.sizes is not None and done.sizes.multiple == 2
        second = "1x3x14x28" if to == "executorch" else "2x3x14x28"
        assert [one.inputs for one in done.comparisons] == ["1x3x16x24", second]
    elif to not in ("torchscript", "pt2"):
        with pytest.raises(Exception, match=r"dimensions|shape|set_inputs"):
            run([torch.rand(1, 3, 20, 18)])


@pytest.mark.slow
def test_executorch_says_what_xnnpack_leaves(tmp_path: Path) -> None:
    network = NAFNet(width=4, middle_blk_num=1, enc_blk_nums=(), dec_blk_nums=())
    done = export(network.eval(), "executorch", tmp_path / "net.pte", inputs=torch.rand(1, 3, 16, 16))
    operators = {(one["kind"], one["backend"]): one for one in done.to_data()["operators"]}
    assert operators["mean.dim", "portable"]["count"] == 4
    assert operators["mean.dim", "portable"]["layers"] == ["middle_blks.0.norm1", "middle_blks.0.norm2"]
    assert ("convolution", "xnnpack") in operators and ("convolution", "portable") not in operators
    note = "not delegated to XNNPACK: mean.dim (4), left to an unoptimized portable kernel, in middle_blks.0.norm1, mid"
    assert any(one.startswith(note) for one in done.notes)
    assert any("LayerNormFunction is a custom autograd function" in one for one in done.notes)


@pytest.mark.slow
def test_a_pixel_shuffle_that_is_permuted_is_noted(tmp_path: Path) -> None:
    for to, noted in (("executorch", True), ("onnx", False)):
        done = export(Small().eval(), to, tmp_path / f"net{SUFFIX[to]}", inputs=torch.rand(1, 3, 16, 16))
        found = [
            note for note in done.notes if note.startswith("1 pixel (un)shuffle run as reshapes and a permutation")
        ]
        assert bool(found) == noted
        assert all("in up.1: pass lower-shuffle" in note for note in found)


def test_torchscript_holds_the_forward_pass_of_a_custom_autograd_function(tmp_path: Path) -> None:
    network = NAFNet(width=4, enc_blk_nums=(1,), dec_blk_nums=(1,)).eval()
    apply = torch.autograd.Function.__dict__["apply"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = export(network, "torchscript", tmp_path / "net.pt", dynamic=True, inputs=torch.rand(1, 3, 16, 16))
    assert torch.autograd.Function.__dict__["apply"] is apply
    assert done.sizes is not None and done.sizes.multiple == 1  # it pads within
    assert done.comparisons[1].inputs == "2x3x15x18"


@pytest.mark.slow
def test_padding_by_the_size_is_noted_and_provable_multiples_are_found(tmp_path: Path) -> None:
    network = NAFNet(width=4, enc_blk_nums=(1,), dec_blk_nums=(1,)).eval()
    done = export(network, "pt2", tmp_path / "net.pt2", dynamic=True, inputs=torch.rand(1, 3, 16, 16))
    assert done.sizes is not None and done.sizes.multiple in (1, 2)
    assert any(note.startswith("padding computed from the input's size (1)") for note in done.notes)
    still = export(network, "pt2", tmp_path / "still.pt2", inputs=torch.rand(1, 3, 16, 16))
    assert any(note.startswith("padding by nothing at this size (1)") for note in still.notes)


def test_no_note_without_partial_convolutions(tmp_path: Path) -> None:
    network = UNet(width=4, depth=1).eval()
    done = export(network, "pt2", tmp_path / "net.pt2", inputs=torch.rand(1, 3, 16, 16))
    assert not any("partial" in note for note in done.notes)
    assert done.operators["conv2d", None] == sum(isinstance(one, nn.Conv2d) for one in network.modules())


@pytest.mark.parametrize(
    ("inner", "to", "dynamic", "message"),
    [
        (
            Eigenvalues(),
            "onnx",
            False,
            r"to ONNX: layer 'body\.0\.1' \(Eigenvalues\).*linalg_eig.*--to pt2 or torchscript",
        ),
        (Branch(), "pt2", False, r"to PT2: layer 'body\.0\.1' \(Branch\).*test_exporting\.py:\d+: return x \* 2 if"),
        (Branch(), "onnx", False, r"to ONNX: layer 'body\.0\.1' \(Branch\).*try another format \(--to torchscript\)"),
        (Position(), "onnx", True, r"does not take 1x3x\d+x\d+ .*layer 'body\.0\.1' \(Position\).*without --dynamic"),
        (RowByRow(), "pt2", True, r"with dynamic sizes: layer 'body\.0\.1' \(RowByRow\).*without --dynamic"),
    ],
)
@pytest.mark.slow
def test_the_layer_at_fault_is_named(tmp_path: Path, inner: nn.Module, to: str, dynamic: bool, message: str) -> None:
    network, file = Around(inner).eval(), tmp_path / f"net{SUFFIX[to]}"
    with pytest.raises(ExportError, match=message) as caught:
        export(network, to, file, dynamic=dynamic, inputs=torch.rand(1, 3, 16, 16))
    assert "\n" not in str(caught.value)
    assert "site-packages" not in str(caught.value)  # lines of the exporters, which are not at fault
    assert files(tmp_path) == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_what_torchscript_fixes_is_noted(tmp_path: Path) -> None:
    done = export(Around(Branch()).eval(), "torchscript", tmp_path / "net.pt", inputs=torch.rand(1, 3, 16, 16))
    assert any(note.startswith("values that depend on the input were fixed") for note in done.notes)


class Doubled(Pt2):
    """A format that writes something else than it was given."""

    def write(self, source: Source, file: Path) -> Written:
        written = super().write(source, file)
        assert source.program is not None
        for value in source.program.state_dict.values():
            value.data.mul_(1.001)
        super().write(source, file)
        return written


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofa_compiler.export.exporting.find", lambda name: Doubled())
    with raising(ExportError, "computes-else"):
        export(Small().eval(), "pt2", tmp_path / "net.pt2", inputs=torch.rand(1, 3, 16, 16))
    assert files(tmp_path) == []


class Returning(Format):
    """Its file returns the same whatever it is given."""

    title = "such a"

    def __init__(self, value: Tensor):
        self.value = value

    def write(self, source: Source, file: Path) -> Written:
        raise AssertionError

    def open(self, file: Path):
        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            return [self.value]

        return run


@pytest.mark.parametrize(
    ("value", "code"),
    [(torch.full((1, 2), torch.nan), "computes-else"), (torch.ones(2), "wrong-output")],
)
def test_what_is_compared(value: Tensor, code: str) -> None:
    network, call = nn.Identity(), CallSpec((torch.ones(1, 2),))
    assert compare(Returning(torch.ones(1, 2)), Path(), network, [call])[0].relative_error == 0
    with raising(ExportError, code):
        compare(Returning(value), Path(), network, [call])


def test_a_bundle_and_where_its_file_goes(tmp_path: Path) -> None:
    bundle = tmp_path / "small"
    mofa_compiler.apply(UNet(width=4, depth=1).eval(), "mofa", torch.rand(1, 3, 16, 16)).save(bundle)
    done: Exported = export(bundle, "torchscript")
    assert done.files == (tmp_path.resolve() / "small.pt",)
    assert (done.inputs, done.sizes) == ("1x3x16x16", None)
    assert json.loads(json.dumps(done.to_data()))["schema"] == "mofa-export/1"
    with raising(ExportError, "exists", "small.pt"):
        export(bundle, "torchscript")
    again = export(bundle, "torchscript", overwrite=True, inputs=torch.rand(1, 3, 32, 32))
    assert again.inputs == "1x3x32x32"


def test_what_is_refused(tmp_path: Path) -> None:
    network, example = Small().eval(), torch.rand(1, 3, 16, 16)
    (tmp_path / "net.bin").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    for to, name, code in [
        ("onxx", "net.onnx", "unknown-name"),
        ("onnx", "net.pt", "wrong-kind"),
        ("onnx", "nowhere/net.onnx", "not-found"),
        ("onnx", "folder.onnx", "wrong-kind"),
        ("openvino", "net.xml", "exists"),
    ]:
        with raising(ExportError, code):
            export(network, to, tmp_path / name, inputs=example)
    with raising(ExportError, "needs-option", "destination"):
        export(network, "onnx", inputs=example)
    with raising(ExportError, "too-small", "8x8"):
        export(UNet(width=4, depth=2), "pt2", tmp_path / "net.pt2", inputs=torch.rand(1, 3, 4, 16), dynamic=True)
    with raising(ExportError, "wrong-input", "1x4x8x8"):
        export(network, "pt2", tmp_path / "net.pt2", inputs=torch.rand(1, 4, 8, 8))
    with raising(ExportError, "wrong-input", "--dynamic"):
        export(nn.Linear(4, 4), "pt2", tmp_path / "net.pt2", inputs=torch.rand(1, 4), dynamic=True)
    assert (tmp_path / "net.bin").read_text() == "mine"


def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofa_compiler.formats.openvino.OpenVino.packages", ("no-such-distribution",))
    with raising(ExportError, "not-installed", "mofa-compiler[openvino]"):
        export(Small().eval(), "openvino", tmp_path / "net.xml", inputs=torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("to", "precision"),
    [("onnx", "fp16"), ("onnx", "int8"), ("executorch", "fp16"), ("executorch", "int8"), ("pt2", "bf16")],
)
@pytest.mark.sample("onnx")
def test_a_file_in_a_precision(to: str, precision: Precision, tmp_path: Path) -> None:
    net, file = Small().eval(), tmp_path / f"net{SUFFIX[to]}"
    calibration = torch.rand(2, 3, 8, 8) if precision == "int8" else None
    options = {"precision": precision, "calibration": None if calibration is None else [calibration]}
    found = export(net, to, file, inputs=torch.rand(1, 3, 16, 16), **options)
    assert found.to_data()["precision"] == precision
    assert 1e-6 < found.relative_error < 0.1
    (y,) = formats()[to].open(file)([torch.rand(1, 3, 16, 16)])
    assert y.dtype == torch.float32


def test_layers_of_a_file_stay_in_float(tmp_path: Path) -> None:
    inputs = torch.rand(1, 3, 16, 16)
    options = {"precision": "int8", "inputs": inputs, "calibration": [inputs]}
    names = [*Small()._modules]
    whole, less = (
        export(Small().eval(), "onnx", tmp_path / f"{len(floating)}.onnx", floating=floating, **options)
        for floating in ([], names)
    )
    assert whole.operators["QuantizeLinear", None] > less.operators["QuantizeLinear", None]
    assert less.floating == tuple(names)
    with raising(ExportError, "unknown-name", "dwon", "down"):
        export(Small().eval(), "onnx", tmp_path / "2.onnx", floating=["dwon"], **options)


def test_precisions_that_cannot_be(tmp_path: Path) -> None:
    with raising(ExportError, "bad-value", "OpenVINO", "bf16"):
        export(Small().eval(), "openvino", tmp_path / "a.xml", inputs=torch.rand(1, 3, 16, 16), precision="bf16")
    with raising(CalibrationError, "needs-option", "--calibrate"):
        export(Small().eval(), "onnx", tmp_path / "a.onnx", inputs=torch.rand(1, 3, 16, 16), precision="int8")
    assert not [*tmp_path.iterdir()]
