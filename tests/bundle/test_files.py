"""Bundles on disk: they run without this package, and what is there before is not lost."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from architectures import PMRID, NAFNet, UNet
from mofa_compiler import Result, apply, capture
from mofa_compiler.analysis.fingerprint import architecture_hash
from mofa_compiler.base.errors import BundleError
from mofa_compiler.bundle import files, load
from mofa_compiler.bundle.original import digest as digest_of_weights
from mofa_compiler.passes import SepConvToPConv
from mofa_compiler.reproduce.replay import replay
from mofa_compiler.rewriting.roadmap import Roadmap
from tests.raising import raising
from tests.rewrites import tiny

FILES = {"model.py", "model.safetensors", "recipe.json", "keymap.json", "report.json", "report.md", "report.html"}

ALONE = """
import os, sys, torch

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mofa_compiler", "architectures", "passes"):
            raise ImportError(name + " is out of reach")

sys.meta_path.insert(0, Refuse())
for name in ("mofa_compiler", "architectures"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " can be imported")
sys.path.insert(0, sys.argv[1])
import model

os.chdir(sys.argv[1])
lines = [line.strip() for line in model.__doc__.splitlines() if line.startswith("    ")]
space = {"Model": model.Model}
exec("\\n".join(lines), space)
model = space["model"]
torch.set_num_threads(int(sys.argv[3]))
expected = torch.load(sys.argv[2])
torch.manual_seed(1)
inputs = [torch.rand(y.shape) for y in expected]
with torch.no_grad():
    for x, y in zip(inputs, expected, strict=True):
        assert torch.equal(model(x), y), "outputs differ"
model.train()
model(inputs[0]).square().mean().backward()
missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
assert not missing, missing
print("alone")
"""


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A network whose every weight counts (NAFNet starts with zeros where its branches join)."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.uniform_(-0.5, 0.5)
    return model.eval()


def small(roadmap: Any = "mofa", size: int = 32) -> Result:
    return apply(seeded(tiny), roadmap, torch.rand(1, 3, size, size))


@functools.cache
def unchanged() -> Result:
    """Of no passes; no test modifies it."""
    return small([])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small().save(tmp_path_factory.mktemp("made") / "out")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "out")


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "PMRID": (PMRID, "mofa"),
    "NAFNet": (lambda: NAFNet(width=16), "mofa"),
    "NAFNet as published": (lambda: NAFNet(width=16), "paper-nafnet"),
    "UNet": (lambda: UNet(width=16, depth=3), "mofa"),
    "UNet, bilinear": (lambda: UNet(width=16, depth=3, bilinear=True), "mofa"),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.sample("UNet")
def test_a_bundle_stands_alone(name: str, tmp_path: Path) -> None:
    make, roadmap = NETWORKS[name]
    original = seeded(make)
    result = apply(original, roadmap, torch.rand(1, 3, 64, 64))
    out = result.save(tmp_path / "out")
    assert {path.name for path in out.iterdir()} == FILES

    torch.manual_seed(1)
    inputs = [torch.rand(1, 3, 64, 64), torch.rand(2, 3, 96, 64)]
    result.model.eval()
    with torch.no_grad():
        expected = [result.model(x) for x in inputs]
    torch.save(expected, tmp_path / "expected.pt")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-I", "-c", ALONE, str(out), str(tmp_path / "expected.pt"), str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.stdout == "alone\n", done.stderr

    loaded = load(out)
    assert not loaded.training
    with torch.no_grad():
        assert all(torch.equal(loaded(x), y) for x, y in zip(inputs, expected, strict=True))

    keymap = json.loads((out / "keymap.json").read_text())
    state, kept = loaded.state_dict(), 0
    assert keymap["schema"] == "mofa-keymap/1"
    assert set(keymap["keys"]) == set(original.state_dict())
    for key, tensor in original.state_dict().items():
        entry = keymap["keys"][key]
        assert set(entry["keys"]) <= state.keys()
        if entry["fate"] == "kept":
            kept += 1
            assert torch.equal(state[key], tensor)
    assert kept


def test_the_documents_say_what_was_done(bundle: Path) -> None:
    recipe = json.loads((bundle / "recipe.json").read_text())
    assert recipe["schema"] == "mofa-recipe/1"
    assert recipe["architecture"]["class"] == "architectures.nafnet.NAFNet"
    assert len(recipe["architecture"]["sha256"]) == 64
    assert recipe["inputs"] == {"args": [{"shape": [1, 3, 32, 32], "dtype": "float32"}], "kwargs": {}}
    carried_out = [pass_ for pass_ in Roadmap.load("mofa") if pass_.name != "unshare"]  # which found nothing
    assert list(Roadmap.from_dict(recipe["roadmap"])) == carried_out
    first = recipe["decisions"][0]
    assert first["pass"] == "sepconv-to-pconv"
    assert {"path", "before", "after", "fate", "exact"} < first.keys()
    assert any(decision["fate"] == "skipped" and decision["reason"] for decision in recipe["decisions"])
    assert json.loads((bundle / "report.json").read_text())["schema"].startswith("mofa-report/")
    assert "NAFNet" in (bundle / "report.md").read_text()
    assert "<title>NAFNet rewritten by mofa</title>" in (bundle / "report.html").read_text(encoding="utf-8")


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (small().save(tmp_path / name) for name in ("first", "second"))
    for name in sorted(FILES - {"model.safetensors"}):  # safetensors writes its metadata in any order
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_trained_weights_are_saved(tmp_path: Path) -> None:
    result = small()
    result.model.train()
    optimizer = torch.optim.SGD(result.model.parameters(), lr=0.1)
    result.model(torch.rand(1, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    loaded = load(result.save(tmp_path / "out"))
    assert result.model.training, "saving changed the mode"
    untrained = result.rewritten.program.graph_module.state_dict()
    trained = result.model.state_dict()
    assert not torch.equal(trained["intro.weight"], untrained["intro.weight"])
    assert all(torch.equal(tensor, trained[key]) for key, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, tmp_path: Path) -> None:
    model = seeded(lambda: UNet(width=8, depth=2)).to(dtype)
    result = apply(model, "mofa", torch.rand(1, 3, 32, 32, dtype=dtype))
    loaded = load(result.save(tmp_path / "out"))
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    x = torch.rand(1, 3, 32, 48, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(loaded(x), result.model.eval()(x))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with raising(BundleError, "wrong-kind"):
            unchanged().save(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with raising(BundleError, "wrong-kind"):
        unchanged().save(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "new/deep/out"):
        assert load(unchanged().save(tmp_path / place))
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "new"}


def test_overwriting_needs_to_be_said(bundle: Path) -> None:
    before = (bundle / "model.py").read_text()
    with raising(BundleError, "exists", "--overwrite"):
        unchanged().save(bundle, overwrite=False)
    assert (bundle / "model.py").read_text() == before
    unchanged().save(bundle, overwrite=True)
    assert (bundle / "model.py").read_text() != before
    assert [path.name for path in bundle.parent.iterdir()] == ["out"]
    assert load(bundle)


def test_a_failure_leaves_the_old_bundle(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BundleError("found out late")

    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    monkeypatch.setattr(files, "check", fail)
    with pytest.raises(BundleError, match="found out late"):
        unchanged().save(bundle, overwrite=True)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == ["out"]


def test_source_that_computes_something_else_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emit = files.emit
    monkeypatch.setattr(files, "emit", lambda *given: emit(*given).replace("x1 * x2", "x1 + x2"))
    with raising(BundleError, "computes-else"):
        small().save(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_saving_tells_how_far_it_is(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    unchanged().save(tmp_path / "out", progress=lambda *step: steps.append(step))
    assert [done for _, done, _ in steps] == list(range(len(steps)))
    assert {total for *_, total in steps} == {len(steps) - 1}


def damage(bundle: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (bundle / name).write_bytes(change((bundle / name).read_bytes()))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("model.safetensors", lambda data: data[:100], ("damaged", "model.safetensors")),
        ("recipe.json", lambda data: data[:100], ("damaged", "recipe.json", "line ")),
        ("recipe.json", lambda _: b"[1]", ("wrong-kind", "recipe.json")),
        (
            "recipe.json",
            lambda data: data.replace(b"mofa-recipe/1", b"mofa-recipe/9"),
            ("other-version", "mofa-recipe/9"),
        ),
        ("model.py", lambda data: data + b"\n1 / 0\n", ("damaged", "model.py", "ZeroDivisionError")),
        ("model.py", lambda data: data.replace(b"self.intro", b"self.entry"), ("damaged", "entry.weight")),
    ],
)
@pytest.mark.sample(2)
def test_damage_is_named(bundle: Path, name: str, change: Callable[[bytes], bytes], said: tuple[str, ...]) -> None:
    damage(bundle, name, change)
    with raising(BundleError, *said):
        load(bundle)


def test_what_is_missing_is_named(bundle: Path, tmp_path: Path) -> None:
    with raising(BundleError, "not-found", "nowhere"):
        load(tmp_path / "nowhere")
    with raising(BundleError, "not-found", "recipe.json"):
        load(tmp_path)
    (bundle / "model.safetensors").unlink()
    with raising(BundleError, "damaged", "model.safetensors"):
        load(bundle)


def test_a_loaded_bundle_can_be_rewritten_and_saved_again(bundle: Path, tmp_path: Path) -> None:
    loaded = load(bundle)
    again = apply(loaded, [], torch.rand(1, 3, 32, 32)).save(tmp_path / "again")
    x = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        assert torch.equal(load(again)(x), loaded(x))
    assert set(load(again).state_dict()) == set(loaded.state_dict())


@pytest.mark.slow
def test_replaying_gives_the_same_model(bundle: Path) -> None:
    model = seeded(tiny)
    x = torch.rand(1, 3, 40, 32)
    with torch.no_grad():
        expected = load(bundle)(x)
        for source in (bundle, bundle / "recipe.json", json.loads((bundle / "recipe.json").read_text())):
            again = replay(source, model).model.eval()
            assert torch.equal(again(x), expected)


@pytest.mark.slow
def test_replaying_takes_other_weights(bundle: Path) -> None:
    torch.manual_seed(7)
    assert replay(bundle, tiny(), other_weights=True).diffs


def test_other_weights_are_refused_unless_they_are_wanted(bundle: Path) -> None:
    torch.manual_seed(7)
    other = tiny()
    with pytest.raises(BundleError) as refused:
        replay(bundle, other)
    for model in (other, seeded(tiny)):
        assert digest_of_weights(model)[:12] in str(refused.value)


@pytest.mark.parametrize(
    "other", [PMRID(), NAFNet(width=16), NAFNet(width=8, enc_blk_nums=(1, 2, 1)), PMRID(channels=4)]
)
@pytest.mark.sample(1)
def test_another_architecture_is_refused(bundle: Path, other: nn.Module) -> None:
    with raising(BundleError, "other-original", "architectures.nafnet.NAFNet"):
        replay(bundle, other)


def test_other_decisions_are_refused(bundle: Path) -> None:
    recipe = json.loads((bundle / "recipe.json").read_text())
    decision = next(d for d in recipe["decisions"] if d["fate"] not in ("skipped", "compensated"))
    decision["after"] = "Conv2d(1→1, k1)"
    with raising(BundleError, "decided-otherwise"):
        replay(recipe, seeded(tiny))


def digest(model: nn.Module, shape: Sequence[int] = (1, 3, 32, 32)) -> str:
    return architecture_hash(capture(model, torch.rand(shape)))


def test_the_hash_is_of_the_architecture_only() -> None:
    reference = digest(tiny())
    assert digest(tiny(), (2, 3, 64, 48)) == reference
    assert digest(tiny().eval()) == reference
    assert digest(tiny().half().float()) == reference
    padded = tiny()
    padded.intro.padding_mode = "reflect"
    assert digest(padded) != reference
    assert digest(tiny(16)) != reference


def test_tied_weights_survive(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = nn.Conv2d(3, 3, 3, padding=1)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Any:
            return self.second(self.first(x))

    result = apply(Tied(), [], torch.rand(1, 3, 16, 16))
    loaded = load(result.save(tmp_path / "out"))
    assert set(loaded.state_dict()) == set(result.model.state_dict())
    assert loaded.get_parameter("first.weight") is loaded.get_parameter("second.weight")


def test_a_pass_with_options_is_replayed(tmp_path: Path) -> None:
    model = seeded(lambda: UNet(width=8, depth=2))
    result = apply(model, Roadmap([SepConvToPConv(kinds=("dense",))], name="own"), torch.rand(1, 3, 32, 32))
    again = replay(result.save(tmp_path / "out"), model)
    assert again.roadmap == result.roadmap


def test_guards_come_along(tmp_path: Path) -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            parts = [x[..., index * 8 : index * 8 + 8].softmax(-1) for index in range(x.shape[-1] // 8)]
            return self.last(torch.cat(parts, dim=-1))

    result = apply(Halves().eval(), [], torch.rand(1, 3, 8, 16))
    result.save(tmp_path / "out")
    loaded, x = load(tmp_path / "out"), torch.rand(1, 3, 12, 16)
    assert torch.equal(loaded(x), result.model(x))
    with pytest.raises(RuntimeError, match="captured where a size was 2, which now is 3"):
        loaded(torch.rand(1, 3, 8, 24))
