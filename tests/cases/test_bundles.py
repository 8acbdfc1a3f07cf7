"""Bundles that were tampered with, damaged or left half written; names that break code; another original."""

from __future__ import annotations

import copy
import json
import runpy
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import mofa_compiler
from architectures import UNet
from mofa_compiler import Verification
from mofa_compiler.base.errors import BundleError, CheckpointError, MofaError, RecoveryError
from mofa_compiler.bundle.original import digest
from mofa_compiler.cli import app
from mofa_compiler.loading.checkpoint import load_checkpoint
from mofa_compiler.passes import SepConvToPConv
from tests.cases.files import imported
from tests.killing import killed_at
from tests.raising import raising

X = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return UNet(width=4, depth=1).eval()


@pytest.fixture(scope="module")
def saved(original: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = mofa_compiler.apply(original, "mofa", X, checkpoint="net.pth")
    return result.save(tmp_path_factory.mktemp("cases") / "bundle")


@pytest.fixture
def bundle(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of its own, in a folder with `out/`."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def run_on(case: ModuleType, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a case's file as a script, as its first line says."""
    assert case.__file__
    monkeypatch.setattr(sys, "argv", [case.__file__, str(bundle)])
    runpy.run_path(case.__file__, run_name="__main__")


def failed(verification: Verification) -> set[str]:
    return {check.name for check in verification.checks if not check.ok}


@pytest.mark.case("reliability/04_verify_says_ok_to_other_source.py")
@pytest.mark.sample(1)
def test_other_source_is_seen_before_it_is_run(
    case: ModuleType, bundle: Path, original: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (bundle / "model.py").read_text().splitlines()
    run_on(case, bundle, monkeypatch)
    changed = (bundle / "model.py").read_text().splitlines()
    number = next(n for n, (was, now) in enumerate(zip(text, changed, strict=False), 1) if was != now)
    found = mofa_compiler.verify(bundle, original)
    assert failed(found) == {"source"}
    assert f"line {number} " in found.problems[0]
    assert not Path("out/this_ran").exists()


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def tamper(bundle: Path) -> None:
        file = bundle / name
        document = json.loads(file.read_text())
        file.write_text(json.dumps(change(document) or document))

    return tamper


def written(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def tamper(bundle: Path) -> None:
        (bundle / name).write_text(change((bundle / name).read_text()))

    return tamper


def first_reason(recipe: Mapping[str, Any]) -> None:
    next(one for one in recipe["decisions"] if "reason" in one)["reason"] = "it is not wanted"


RUN = "open('out/this_ran', 'w').close()\n"

SOURCE: Mapping[str, Callable[[str], str]] = {
    "code behind it": lambda text: f"{text}\n{RUN}",
    "code before it": lambda text: RUN + text,
    "a comment": lambda text: text.replace("import torch\n", "import torch  # \n", 1),
    "a line less": lambda text: text.rsplit("\n", 2)[0] + "\n",
    "nothing": lambda _: "",
}
KEYMAP: Mapping[str, Callable[[Any], Any]] = {
    "a key that was made up": lambda keymap: keymap["keys"].update(made={"keys": ["up"], "fate": "kept"}),
    "another fate": lambda keymap: keymap["keys"]["outc.bias"].update(fate="dropped"),
    "no keys": lambda keymap: keymap.pop("keys") and None,
}
RECIPE: Mapping[str, Callable[[Any], Any]] = {
    "a reason": first_reason,
    "orders of channels": lambda recipe: recipe.update(channel_orders={"0": [1, 0]}),
    "another class": lambda recipe: recipe["architecture"].update({"class": "a.Net"}),
    "frozen parameters that are not there": lambda recipe: recipe.update(frozen=["a"]),
}
REPORT: Mapping[str, Callable[[Any], Any]] = {
    "model": lambda report: report.update(model="Other"),
    "checkpoint": lambda report: report.update(checkpoint="b.pth"),
    "roadmap": lambda report: report["roadmap"].update(name="other"),
    "layers": lambda report: report["layers"].pop() and None,
    "edits": lambda report: report["passes"][0]["edits"][0].update(note="as it was"),
    "versions": lambda report: report["versions"].update(torch="9"),
    "no passes": lambda report: report.update(passes=None),
}
TAMPERED: Mapping[str, tuple[Callable[[Path], None], str]] = {
    **{f"source: {name}": (written("model.py", change), "source") for name, change in SOURCE.items()},
    **{f"key map: {name}": (edited("keymap.json", change), "keymap") for name, change in KEYMAP.items()},
    **{f"recipe: {name}": (edited("recipe.json", change), "recipe") for name, change in RECIPE.items()},
    **{f"report: {name}": (edited("report.json", change), "report") for name, change in REPORT.items()},
    "key map: too deep": (written("keymap.json", lambda _: "[" * 200_000), "keymap"),
    "report: too deep": (written("report.json", lambda _: "[" * 200_000), "report"),
    "report.md": (written("report.md", lambda _: "hello"), "report"),
    "report.md: a word": (written("report.md", lambda text: text.replace("MACs", "FLOPs", 1)), "report"),
    "report.html": (written("report.html", lambda _: "hello"), "report"),
    "report.html: a script": (
        written("report.html", lambda text: text.replace("</body>", "<script>1</script></body>")),
        "report",
    ),
    "source: frozen": (
        edited("recipe.json", lambda recipe: recipe.update(frozen=["outc.bias", "outc.weight"])),
        "source",
    ),
    "recipe: the checkpoint's name": (
        edited("recipe.json", lambda recipe: recipe["original"].update(checkpoint="b.pth")),
        "report",
    ),
}


@pytest.mark.case("reliability/04_verify_says_ok_to_other_source.py")
@pytest.mark.parametrize("name", TAMPERED)
@pytest.mark.sample(4)
def test_what_was_tampered_with_is_found(bundle: Path, original: nn.Module, name: str) -> None:
    tamper, where = TAMPERED[name]
    tamper(bundle)
    assert failed(mofa_compiler.verify(bundle, original)) == {where}
    assert not Path("out/this_ran").exists()


@pytest.mark.case("reliability/04_verify_says_ok_to_other_source.py")
@pytest.mark.slow
def test_another_version_is_named_where_the_source_differs(bundle: Path, original: nn.Module) -> None:
    written("model.py", lambda text: text.replace("It needs nothing", "It wants nothing"))(bundle)
    here = mofa_compiler.verify(bundle, original).problems[0]
    edited("recipe.json", lambda recipe: recipe.update(mofa="0.0.9"))(bundle)
    edited("report.json", lambda report: report["versions"].update({"mofa-compiler": "0.0.9"}))(bundle)
    elsewhere = mofa_compiler.verify(bundle, original).problems[0]
    assert "0.0.9" in elsewhere
    assert "may be why" in elsewhere
    assert "may be why" not in here


@pytest.mark.case("reliability/05_killed_between_two_renames.py")
@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.slow
def test_a_kill_at_any_rename_leaves_a_bundle(tmp_path: Path, original: nn.Module, can_exchange: bool) -> None:
    result, where = mofa_compiler.apply(original, [], X), tmp_path / "b"
    result.save(where)
    number = 0
    while killed_at(number := number + 1, False, lambda: result.save(where), can_exchange):
        assert mofa_compiler.load(where)
        result.save(where)
        assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert number == 3 + (2 if can_exchange else 4)  # three reports, and the folder; the last number was not reached


@pytest.mark.case("reliability/06_names_that_break_code.py")
@pytest.mark.parametrize("number", range(4))
@pytest.mark.sample(1)
def test_names_break_nothing(case: ModuleType, number: int, tmp_path: Path) -> None:
    model = case.Net(case.NAMES[number]).eval()
    result = mofa_compiler.apply(model, "mofa", X)
    folder = result.save(tmp_path / "bundle")
    with torch.no_grad():
        assert torch.equal(mofa_compiler.load(folder)(X), result.model.eval()(X))
    assert mofa_compiler.verify(folder, model).ok
    text = (folder / "report.md").read_text()
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.case("reliability/11_damaged_recipe.py")
def test_a_damaged_recipe_is_named(
    case: ModuleType, bundle: Path, original: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_on(case, bundle, monkeypatch)
    for use in (lambda: mofa_compiler.verify(bundle, original), lambda: mofa_compiler.load(bundle)):
        with raising(BundleError, "damaged", "recipe.json", "args"):
            use()


@pytest.mark.case("reliability/15_roadmap_name_in_source.py")
@pytest.mark.parametrize(
    "name", ['x"""\nprint("out of the docstring")\n"""', "\\N{bad}", "a\\", '"', "\x1b[31m\u202e", "\r"]
)
@pytest.mark.sample(1)
def test_a_roadmaps_name_is_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with imported("reliability/01_onecycle_of_ten_steps.py") as case:  # whose network it takes; its own is no Python
        model = case.Net().eval()
    roadmap = mofa_compiler.Roadmap([SepConvToPConv()], name=name)
    folder = mofa_compiler.apply(model, roadmap, X).save(tmp_path / "bundle")
    assert mofa_compiler.load(folder)
    assert mofa_compiler.verify(folder, model).ok
    assert not capsys.readouterr().out
    for file in ("model.py", "report.md"):
        assert all(line.isprintable() for line in (folder / file).read_text().split("\n"))
    assert mofa_compiler.Roadmap.from_toml(roadmap.to_toml()) == roadmap


@pytest.mark.case("users/README.md")
def test_another_original_is_told_from_the_one_that_was_rewritten(bundle: Path, original: nn.Module) -> None:
    other = copy.deepcopy(original)
    with torch.no_grad():
        other.get_parameter("outc.bias")[0] += 1e-3
    digests = [digest(model)[:12] for model in (original, other)]
    found = mofa_compiler.verify(bundle, other, trained=True)
    assert "original" in failed(found)
    assert all(text in found.problems[0] for text in (*digests, "net.pth"))
    images = [torch.rand(3, 32, 32) for _ in range(4)]
    result = mofa_compiler.apply(original, "mofa", X, checkpoint="net.pth")
    for kind, use in (
        (BundleError, lambda: mofa_compiler.replay(bundle, other)),
        (BundleError, lambda: mofa_compiler.recover(bundle, other, images, steps=1)),
        (RecoveryError, lambda: mofa_compiler.recover(result, other, images, steps=1)),
    ):
        with pytest.raises(MofaError) as refused:
            use()
        assert refused.type is kind
        assert all(text in str(refused.value) for text in digests)


@pytest.mark.case("users/README.md")
@pytest.mark.slow
def test_a_bundle_that_does_not_say_its_original_stays_usable(bundle: Path, original: nn.Module) -> None:
    edited("recipe.json", lambda recipe: {key: value for key, value in recipe.items() if key != "original"})(bundle)
    found = mofa_compiler.verify(bundle, original)
    (check,) = (check for check in found.checks if check.name == "original")
    assert check.ok
    assert "not compared" in check.detail
    assert mofa_compiler.replay(bundle, original)


@pytest.mark.case("reliability/04_verify_says_ok_to_other_source.py")
def test_what_runs_a_bundles_code_says_so(bundle: Path) -> None:
    runner = CliRunner()
    for command in ("lint", "measure", "export", "verify"):
        assert "model.py" in runner.invoke(app, [command, "--help"]).output
    told = runner.invoke(app, ["lint", str(bundle)]).stderr
    assert f"note: this runs {bundle}/model.py" in told
    quick = ["--engine", "eager", "--seconds", "0.1"]
    measured = runner.invoke(app, ["measure", str(bundle), *quick], env={"COLUMNS": "300"})
    assert f"{bundle}/model.py was run" in measured.stdout


@pytest.mark.case("users/README.md")
@pytest.mark.slow
def test_measuring_bundles_of_different_originals_is_told(bundle: Path) -> None:
    other = bundle.with_name("other")
    shutil.copytree(bundle, other)
    edited("recipe.json", lambda recipe: recipe["original"].update(sha256="0" * 64))(other)
    quick = ["--engine", "eager", "--seconds", "0.1"]
    told = CliRunner().invoke(app, ["measure", str(bundle), str(other), *quick]).stderr
    assert "different weights" in told
    assert "0" * 12 in told


@pytest.mark.case("reliability/11_damaged_recipe.py")
def test_a_checkpoint_that_is_cut_off_is_damaged(original: nn.Module, tmp_path: Path) -> None:
    torch.save(original.state_dict(), tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    for size in (0, 10, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        with raising(CheckpointError, "damaged", "cut.pth"):
            load_checkpoint(tmp_path / "cut.pth", original)
