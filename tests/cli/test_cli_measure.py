"""`mofa engines` and `mofa measure`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from mofa_compiler.base.significance import verdict
from mofa_compiler.cli import app, options
from mofa_compiler.cli.measure import _labels
from mofa_compiler.report.printing.measured import plot_measured, print_measured
from mofa_compiler.runtime import engines
from mofa_compiler.runtime.engines.mnn import Mnn

ARCHITECTURES = Path(__file__).parents[2] / "examples" / "architectures"
UNET = f"{ARCHITECTURES / 'unet.py'}:UNet"
SMALL = ["--arg", "width=4", "--arg", "depth=2"]
QUICK = [*SMALL, "--input", "1x3x16x16", "--seconds", "0.1", "--engine", "eager"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))


def mofa(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def measured(**changes: Any) -> dict[str, Any]:
    """What `--json` prints, with times made up."""
    first = {"name": "UNet", "ms": 20.0, "ratio": None, "interval": None, "widened": None, "verdict": None}
    layers = [
        {"layer": "enc.0", "ms": 3.0, "operators": [{"name": "conv", "kind": "Conv", "ms": 3.0}]},
        {"layer": None, "ms": 1.0, "operators": [{"name": "pad", "kind": "Pad", "ms": 1.0}]},
    ]
    other = {
        "name": "a-folder-with-quite-a-long-name-that-somebody-chose",
        "ms": 16.4,
        "ratio": 0.82,
        "interval": [0.81, 0.83],
        "widened": [0.80, 0.84],
        "verdict": "faster",
        "peak_mib": 12.34,
        "layers": layers,
        **changes,
    }
    engine = {
        "engine": "xnnpack",
        "precision": "fp32",
        "version": "1.5.1",
        "threads": 1,
        "processor": "AMD EPYC",
        "rounds": 42,
        "stopped": "narrow enough",
        "control": 1.001,
        "control_interval": [0.99, 1.012],
        "noise": 0.012,
        "results": [{**first, "peak_mib": 20.0}, other],
    }
    return {"inputs": [{"shape": [1, 3, 256, 256], "dtype": "float32"}], "engines": [engine]}


def printed(data: dict[str, Any], width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), highlight=False)  # noqa: SIM115
    with console.capture() as capture:
        print_measured(data, console)
    console.file.close()
    return capture.get()


def test_engines_are_listed() -> None:
    result = mofa("engines")
    assert result.exit_code == 0
    for name in ("eager", "channels-last", "inductor", "onnxruntime", "xnnpack", "openvino"):
        assert f"\n{name} " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_engines_say_their_precisions() -> None:
    found = {one["name"]: one["precisions"] for one in json.loads(mofa("engines", "--json").stdout)}
    assert found["onnxruntime"] == ["fp32", "fp16", "int8"]
    assert found["eager"] == ["fp32", "fp16", "bf16"]


def test_a_precision_that_the_engine_lacks() -> None:
    refused = mofa("measure", UNET, "--engine", "eager", "--precision", "int8")
    assert refused.exit_code == 1 and "int8" in refused.stderr


def test_a_missing_engine_is_listed_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "MNN is not installed: pip install 'mofa-compiler[mnn]'"
    monkeypatch.setattr(Mnn, "missing", lambda self: reason)
    assert f"mnn: {reason}" in mofa("engines").stdout
    (entry,) = (entry for entry in json.loads(mofa("engines", "--json").stdout) if entry["name"] == "mnn")
    assert entry["version"] is None and entry["missing"] == reason
    refused = mofa("measure", UNET, "--engine", "mnn")
    assert refused.exit_code == 1
    assert refused.stderr == f"error: the engine mnn cannot run here: {reason}\n"


@pytest.mark.slow
def test_measure_as_json() -> None:
    result = mofa("measure", UNET, UNET, *QUICK, "--engine", "channels-last,eager", "--json", "--per-layer")
    assert (result.exit_code, result.stderr) == (0, "")
    data = json.loads(result.stdout)
    assert data["schema"] == "mofa-measurement/1"
    assert data["inputs"] == [{"shape": [1, 3, 16, 16], "dtype": "float32"}]
    assert [network["name"] for network in data["networks"]] == ["UNet", "UNet (2)"]
    assert [engine["engine"] for engine in data["engines"]] == ["eager", "channels-last"]
    for engine in data["engines"]:
        first, second = engine["results"]
        assert first["ratio"] is None
        assert second["ratio"] == pytest.approx(second["ms"] / first["ms"])
        assert second["verdict"] in ("faster", "slower", "inside the noise")
        assert {"inc.0", "outc"} <= {layer["layer"] for layer in first["layers"]}
        times = [layer["ms"] for layer in first["layers"]]
        assert times == sorted(times, reverse=True)


@pytest.mark.slow
def test_a_bundle_is_measured_on_its_own_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "LINE_EVERY", float("inf"))  # however slow the machine is
    made = mofa("rewrite", UNET, *SMALL, "--input", "1x3x48x16", "--roadmap", "mofa", "--out", str(tmp_path / "net"))
    assert made.exit_code == 0, made.stderr
    result = mofa(
        "measure", "net", UNET, *SMALL, "--seconds", "0.1", "--engine", "eager", "--memory", "--plot", "t.svg"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "input 1x3x48x16" in result.stdout
    assert "\nnet " in result.stdout and "\nUNet " in result.stdout
    assert "peak MiB" in result.stdout
    assert "the first network against itself" in " ".join(result.stdout.lower().split())
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert (tmp_path / "t.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.py:Net"], 1, "there is no file missing.py"),
        (["folder"], 1, "folder"),
        ([UNET, "--engine", "eagre"], 1, "no engine 'eagre' (did you mean 'eager'?)"),
        ([UNET, "--engine", "eager", *SMALL, "--input", "1x5x16x16"], 1, "eager does not take UNet"),
        ([UNET, "--input", "3xx"], 2, "not a shape"),
        ([UNET, "--plot", "times.txt"], 2, "its name has to end in"),
        ([UNET, "--json", "--quiet"], 2, "contradicts --quiet"),
        ([UNET, "--threads", "0"], 2, "--threads"),
        ([UNET, "--engine", "xnnpack", "--checkpoint", "x"], 2, "No such option"),
    ],
)
def test_wrong_use(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    result = mofa("measure", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


@pytest.mark.sample(1)
@pytest.mark.parametrize("installed", [("xnnpack", "eager"), ("onnxruntime", "eager"), ("eager",)])
def test_without_an_engine_the_first_is_taken_that_is_there(
    installed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, one in engines().items():
        monkeypatch.setattr(one, "missing", lambda name=name: None if name in installed else "not installed")
        monkeypatch.setattr(one, "compile", engines()["eager"].compile)
    data = json.loads(mofa("measure", UNET, *SMALL, "--input", "1x3x8x8", "--seconds", "0.1", "--json").stdout)
    assert [one["engine"] for one in data["engines"]] == [installed[0]]


def test_quiet_prints_nothing() -> None:
    result = mofa("measure", UNET, *QUICK, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits(width: int) -> None:
    shown = printed(measured(), width)
    assert max(map(len, shown.splitlines())) <= width
    row = next(line for line in shown.splitlines() if "16.4" in line)
    assert row.split()[1:] == ["16.4", "0.820", "0.800", "to", "0.840", "12.3", "faster"]
    text = " ".join(shown.split())
    assert "42 rounds, enough for the tolerance." in text
    assert "1.001 (0.990 to 1.012), so noise widens every interval by 1.2 %; one that holds 1" in text
    assert "enc.0 3.000 75.0 % Conv" in text
    assert "(not known) 1.000 25.0 % Pad" in text


@pytest.mark.parametrize("width", [80, 120])
def test_layers_keep_their_times_however_long_their_names_are(width: int) -> None:
    kinds = (
        "mean.out",
        "Subtract",
        "Square",
        "Add",
        "Square Root",
        "Divide",
        "Multiply",
        "Transpose",
        "Static Reshape",
    )
    operators = [{"name": kind, "kind": kind, "ms": 13.7} for kind in kinds]
    layers = [
        {"layer": f"decoder.stages.{index}.blocks.0.conv2.depthwise.weighted", "ms": 123.3, "operators": operators}
        for index in range(22)
    ]
    lines = printed(measured(layers=layers), width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.startswith("decoder")]
    assert len(rows) == 20
    assert all(line.split()[1:5] == ["123.300", "4.5", "%", "mean.out,"] for line in rows)
    assert lines[-1].strip() == "and 2 more"


def test_what_an_engine_cannot_tell_is_said() -> None:
    shown = " ".join(printed(measured(layers=None, peak_mib=None), 120).split())
    assert "xnnpack does not tell what the layers of a-folder" in shown
    assert "not known" in shown


def test_the_plot_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    plot_measured(measured(), tmp_path / "times.svg")
    drawn = (tmp_path / "times.svg").read_text()
    for content in ("xnnpack: UNet", "× 0.82", "faster"):
        assert content in drawn
    assert [file.name for file in tmp_path.iterdir()] == ["times.svg"]


@pytest.mark.parametrize(
    ("sources", "labels"),
    [
        (["a.py:Net", "out/net/"], ["Net", "net"]),
        (["a.py:Net", "b.py:Net"], ["a.py:Net", "b.py:Net"]),
        (["a.py:Net", "a.py:Net", "net"], ["Net", "Net (2)", "net"]),
    ],
)
def test_labels_tell_networks_apart(sources: list[str], labels: list[str]) -> None:
    assert _labels(sources) == labels


@pytest.mark.slow
def test_recorded_times_stand_in_the_bundles_report() -> None:
    mofa("rewrite", UNET, *SMALL, "--input", "1x3x16x16", "--out", "net", "--quiet")
    first = mofa("measure", UNET, "net", *QUICK, "--record")
    assert (first.exit_code, first.stderr.splitlines()[-1]) == (0, "recorded in net")
    assert mofa("measure", UNET, "net", *QUICK, "--record").exit_code == 0  # in place of the first
    (entry,) = json.loads(Path("net/report.json").read_text())["measurements"]
    assert (entry["engine"], entry["threads"], entry["input"]) == ("eager", 1, [[1, 3, 16, 16]])
    assert entry["ratio"] == pytest.approx(entry["rewritten_ms"] / entry["original_ms"])
    assert entry["interval"][0] <= entry["ratio"] <= entry["interval"][1]
    assert entry["verdict"] == verdict(entry["interval"], entry["control"])
    assert mofa("measure", "net", UNET, *QUICK, "--record").exit_code == 2
    wrong = ["--arg", "width=8", "--arg", "depth=2", *QUICK[len(SMALL) :]]
    refused = mofa("measure", UNET, "net", *wrong, "--record")
    assert refused.exit_code == 1 and "another one" in refused.stderr
    assert json.loads(Path("net/report.json").read_text())["measurements"] == [entry]
