"""Configuration files: what they say, and what is said about bad ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_compiler.base.errors import LintError
from mofa_compiler.lint import config as configuration
from mofa_compiler.lint.config import Config, General, Model
from mofa_compiler.lint.settings import ModelBudgets, Selection, Settings, Thresholds, parse_prefixes
from tests.raising import raising

KNOWN = ("MOFA001", "MOFA101", "MOFA201", "MOFA202", "MOFA304", "MOFA404", "MOFA501", "MOFA901")

FULL = """\
select = ["MOFA1", "MOFA201"]
extend-select = ["MOFA5"]
ignore = ["MOFA304"]
engine = "xnnpack"
threads = 2

[thresholds]
portion = 0.3
pdwconv = 16
cheap-below = 0.4
kernel = 5
contraction = 3

[budgets]
parameters = "1.2M"
macs = "2G"
activation-memory = "20MiB"

[per-path-ignores]
"encoders.*" = ["MOFA201"]

[[models]]
target = "nets/net.py:NAFNet"
args = { width = 32, blocks = [1, 2] }
input = "1x3x256x256"
reference = "nets/net.py:Baseline"
ignore = ["MOFA101"]
budgets = { macs = "850k", latency-ratio = 1.1, stages = { "encoder 1" = { parameters = "1M", macs = 7 } } }
[models.per-path-ignores]
"encoders.*" = ["MOFA1"]
"head" = ["MOFA"]

[[models]]
name = "plain"
target = "package.nets:Two.make"
input = ["1x3x64x64", "1x1"]
reference = "out/bundle"
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes a file into the working folder."""
    monkeypatch.chdir(tmp_path)

    def writer(text: str, name: str = "mofa.toml") -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return writer


def test_everything_that_a_file_can_say(write, tmp_path: Path):
    config = Config.load(write(FULL), KNOWN)
    assert config.root == tmp_path.resolve()
    first, second = config.models
    assert (first.name, first.target) == ("NAFNet", "nets/net.py:NAFNet")
    assert first.args == {"width": 32, "blocks": [1, 2]}
    assert first.input == ((1, 3, 256, 256),)
    assert second.input == ((1, 3, 64, 64), (1, 1))

    settings = config.settings_for(first)
    assert settings.selections == (
        Selection(("MOFA1", "MOFA201"), ("MOFA5",), ("MOFA304",)),
        Selection(None, (), ("MOFA101",)),
    )
    assert (settings.engine, settings.threads) == ("xnnpack", 2)
    assert settings.thresholds == Thresholds(
        portion=Fraction(3, 10), pdwconv=16, cheap_below=0.4, kernel=5, contraction=3.0
    )
    assert settings.budgets.parameters == 1_200_000  # the general one
    assert settings.budgets.macs == 850_000  # the model's instead
    assert settings.budgets.activation_memory == 20 * 2**20
    assert settings.budgets.latency_ratio == 1.1
    assert settings.budgets.stages["encoder 1"].parameters == 1_000_000
    assert settings.budgets.stages["encoder 1"].macs == 7
    assert settings.per_path_ignores == {"encoders.*": ("MOFA201", "MOFA1"), "head": ("MOFA",)}
    assert settings.reference == f"{tmp_path.resolve()}/nets/net.py:Baseline"

    settings = config.settings_for(second)
    assert settings.budgets.macs == 2_000_000_000
    assert settings.reference == f"{tmp_path.resolve()}/out/bundle"
    assert config.located(second.target) == "package.nets:Two.make"

    settings = config.settings_for()
    assert settings.selections == (Selection(("MOFA1", "MOFA201"), ("MOFA5",), ("MOFA304",)),)
    assert settings.reference is None
    assert settings.budgets.stages == {}


def test_pyproject_holds_the_same_keys_below_tool_mofa(write):
    write(FULL)
    tables = FULL.replace("[[models", "[[tool.mofa.models").replace("\n[models", "\n[tool.mofa.models")
    for name in ("thresholds", "budgets", "per-path-ignores"):
        tables = tables.replace(f"\n[{name}", f"\n[tool.mofa.{name}")
    write(f"[project]\nname = 'x'\n[tool.mofa]\n{tables}", "pyproject.toml")
    assert Config.load("pyproject.toml").general == Config.load("mofa.toml").general


def test_an_empty_file_leaves_all_to_the_rules(write):
    config = Config.load(write("\ufeff"))
    assert config.models == ()
    assert config.settings_for() == Settings(selections=(Selection(),))


def test_discovery_goes_upwards_and_passes_over_what_is_not_ours(write, tmp_path: Path):
    write("threads = 3")
    write("[tool.mofa]\nthreads = 4", "pyproject.toml")
    write("[tool.other]", "a/pyproject.toml")
    write("[tool.mofa]\nthreads = 5", "a/b/pyproject.toml")
    write("", "a/b/c/x.py")
    threads = {
        folder: found.general.threads
        for folder in (".", "a", "a/b", "a/b/c")
        if (found := Config.discover(tmp_path / folder))
    }
    assert threads == {".": 3, "a": 3, "a/b": 5, "a/b/c": 5}
    Path("mofa.toml").unlink()
    assert Config.discover("a").root == tmp_path.resolve()  # type: ignore[union-attr]
    Path("pyproject.toml").unlink()
    assert Config.discover("a") is None


def test_load_of_what_is_not_there(write, tmp_path: Path):
    with raising(LintError, "unreadable", "none.toml"):
        Config.load("none.toml")
    with raising(LintError, "not-found", "pyproject.toml"):
        Config.load(write("[tool]", "pyproject.toml"))


MODEL = '[[models]]\ntarget = "a:B"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\n[budgets]\nmacs = "2Q"', "mofa.toml:3: budgets.macs: '2Q' is not a number such as 2G"),
        (
            'budgets = { activation-memory = "20M" }',
            "mofa.toml:1: budgets.activation-memory: '20M' is not a size in bytes such as 20MB or 20MiB",
        ),
        ("budgets.macs = 0", "mofa.toml:1: budgets.macs: 0 is less than 1"),
        ("[budgets]\nmac = 1", "mofa.toml:2: budgets.mac: there is no such key (did you mean 'macs'?)"),
        ("extend_select = []", "mofa.toml:1: extend_select: there is no such key (did you mean 'extend-select'?)"),
        (f"{MODEL}[[model]]", "mofa.toml:3: model: there is no such key (did you mean 'models'?)"),
        (f"{MODEL}inputs = '1x3'", "mofa.toml:3: models.inputs: there is no such key (did you mean 'input'?)"),
        ("[tool.mofa]", "mofa.toml:1: tool: keys stand at the top level here; [tool.mofa] is for pyproject.toml"),
        (
            "[budgets.stages.head]\nmacs = 1",
            "mofa.toml:1: budgets.stages: stages are a model's own: give their budgets under [[models]]",
        ),
        ("threads = 'two'", "mofa.toml:1: threads: 'two' must be a whole number"),
        ("threads = true", "mofa.toml:1: threads: True must be a whole number"),
        ("threads = 0", "mofa.toml:1: threads: 0: must be greater than or equal to 1"),
        ("engine = ' '", "mofa.toml:1: engine: ' ' must be printable text, and not empty"),
        ("engine = 3", "mofa.toml:1: engine: 3 must be text"),
        ("thresholds = 3", "mofa.toml:1: thresholds: 3 must be a table"),
        ("thresholds.portion = 2", "mofa.toml:1: thresholds.portion: 2: must be less than or equal to 1"),
        ("thresholds.portion = 'x'", "mofa.toml:1: thresholds.portion: 'x' must be a portion such as 1/4"),
        ("thresholds.contraction = inf", "mofa.toml:1: thresholds.contraction: inf: must be a finite number"),
        ("select = 'MOFA1'", "mofa.toml:1: select: 'MOFA1' must be a list"),
        ("select = [\n'MOFA1',\n3]", "mofa.toml:3: select: 3 must be text"),
        (
            "select = [\n'MOFA1',\n'MOFA305']",
            "mofa.toml:3: select: no rule's code begins with 'MOFA305' (did you mean 'MOFA304'?)",
        ),
        (
            "ignore = ['mofa201']",
            "mofa.toml:1: ignore: 'mofa201' is not the beginning of a rule's code such as MOFA2 or MOFA201",
        ),
        (
            "[per-path-ignores]\n'enc.*' = ['MOFA']\n'dec.*' = ['X']",
            "mofa.toml:3: per-path-ignores.\"dec.*\": 'X' is not the beginning of a rule's code such as MOFA2 or "
            "MOFA201",
        ),
        ("[models]\ntarget = 'a:B'", "mofa.toml:1: models: {'target': 'a:B'} must be a list"),
        (f"{MODEL}[[models]]\nname = 'x'", "mofa.toml:3: models.target: is missing"),
        (
            "[[models]]\ntarget = 'net.py'",
            "mofa.toml:2: models.target: 'net.py' names no class or function: a target is package.module:Class or "
            "path/to/file.py:Class",
        ),
        (f"{MODEL}{MODEL}", "mofa.toml:3: models.name: there is another model 'B': give each a name"),
        (
            f"{MODEL}[[models]]\ntarget = 'c:D'\nname = 'B'",
            "mofa.toml:5: models.name: there is another model 'B'",
        ),
        (f'{MODEL}name = "a\\nb"', "mofa.toml:3: models.name: 'a\\nb' must be printable text, and not empty"),
        (f"{MODEL}input = '1x3x'", "mofa.toml:3: models.input: '1x3x' is not a shape such as 1x3x256x256"),
        (f"{MODEL}input = ['1',\n\n1]", "mofa.toml:5: models.input: 1 is not a shape such as 1x3x256x256"),
        (f"{MODEL}input = []", "mofa.toml:3: models.input: names no shape; leave it out for the compiler to choose"),
        (
            f"{MODEL}[models.budgets]\nlatency-ratio = 1.0",
            "mofa.toml:4: models.budgets.latency-ratio: needs the model's reference: a target or a bundle's folder",
        ),
        (
            f"{MODEL}budgets.stages.'encoder 1'.mac = 3",
            "mofa.toml:3: models.budgets.stages.\"encoder 1\".mac: there is no such key (did you mean 'macs'?)",
        ),
        ("threads = 1\nmacs =", "mofa.toml:2: malformed TOML: invalid value"),
        ("threads = 1\n\nthreads = 2\n", "mofa.toml:3: malformed TOML: cannot overwrite a value"),
        ("select = [\n'MOFA1'", "mofa.toml:2: malformed TOML: unclosed array"),
        (f"threads = {'1' * 5000}", "mofa.toml: malformed TOML: Exceeds the limit"),
        (f"threads = {'[' * 5000}", "mofa.toml: malformed TOML: maximum recursion depth exceeded"),
        pytest.param(
            "engine = 3\nthreads = 0", "mofa.toml:1: engine: 3 must be text", id="the first of several in the file"
        ),
        pytest.param(
            "threads = 0\nengine = 3", "mofa.toml:1: threads: 0: must be", id="the first in the file, not in the model"
        ),
        pytest.param(f"engine = [{'1, ' * 99}]", f"mofa.toml:1: engine: [{'1, ' * 18}1,... must be text", id="long"),
    ],
)
def test_errors_name_file_line_and_key(write, text: str, message: str):
    with pytest.raises(LintError) as caught:
        Config.load(write(text), KNOWN)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_errors_in_pyproject_name_the_whole_key(write):
    write("[project]\nname = 'x'\n[[tool.mofa.models]]\ntarget = 'a:B'\nname = ''", "pyproject.toml")
    with raising(LintError, "bad-value", "pyproject.toml:5", "tool.mofa.models.name"):
        Config.discover()
    with raising(LintError, "bad-value", "pyproject.toml:1", "tool"):
        Config.load(write("tool = 3", "pyproject.toml"))
    with raising(LintError, "bad-value", "pyproject.toml:2", "tool.mofa"):
        Config.load(write("[tool]\nmofa = 3", "pyproject.toml"))


def test_a_file_that_is_no_text(write):
    Path("mofa.toml").write_bytes(b"threads = 1\n# caf\xe9\n")
    with raising(LintError, "damaged", "mofa.toml:2"):
        Config.discover()


def test_prefixes_are_not_checked_without_known_codes(write):
    assert Config.load(write('select = ["MOFA777"]')).general.select == ("MOFA777",)


def test_what_shows_later_is_blamed_on_its_line(write):
    config = Config.load(write(FULL))
    assert str(config.blames("there is no engine 'xnnpack'", "engine")) == (
        "mofa.toml:4: engine: there is no engine 'xnnpack'"
    )
    assert str(config.blames("no such stage", "models", 0, "budgets", "stages", "encoder 1")) == (
        'mofa.toml:28: models.budgets.stages."encoder 1": no such stage'
    )


DEFAULTS = {"MOFA001": "on", "MOFA201": "on", "MOFA202": "off", "MOFA404": "engine", "MOFA405": "engine"}


@pytest.mark.parametrize(
    ("selections", "engine", "codes"),
    [
        pytest.param([], None, "001 201", id="defaults"),
        pytest.param([], "eager", "001 201 404 405", id="with an engine"),
        pytest.param([Selection(extend_select=("MOFA202",))], None, "001 201 202", id="besides"),
        pytest.param([Selection(("MOFA2",))], "eager", "201 202", id="only these"),
        pytest.param([Selection(("MOFA",))], None, "001 201 202 404 405", id="all, without an engine"),
        pytest.param([Selection(())], "eager", "", id="none"),
        pytest.param([Selection(ignore=("MOFA2",))], None, "001", id="but these"),
        pytest.param([Selection(("MOFA2",), ignore=("MOFA201",))], None, "202", id="ignore is longer"),
        pytest.param([Selection(("MOFA201",), ignore=("MOFA2",))], None, "201", id="select is longer"),
        pytest.param([Selection(("MOFA201",), ignore=("MOFA201",))], None, "", id="a draw"),
        pytest.param([Selection(ignore=("MOFA",), extend_select=("MOFA20",))], None, "201 202", id="both lengths"),
        pytest.param([Selection(("MOFA2",)), Selection(("MOFA0",))], None, "001", id="a later select is all"),
        pytest.param(
            [Selection(ignore=("MOFA201",)), Selection(extend_select=("MOFA2",))], None, "001 201 202", id="later wins"
        ),
        pytest.param([Selection(("MOFA2",)), Selection(ignore=("MOFA202",))], None, "201", id="later takes away"),
        pytest.param([Selection(("MOFA404",)), Selection(ignore=("MOFA4",))], None, "", id="no engine, not wanted"),
    ],
)
def test_selection(selections, engine, codes: str):
    settings = Settings(engine=engine)
    for selection in selections:
        settings = settings.overridden(selection)
    assert settings.selected(DEFAULTS) == tuple(f"MOFA{code}" for code in codes.split())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (Selection(("MOFA2",)), True),
        (Selection(()), True),
        (Selection(ignore=("MOFA",)), True),
        (Selection(ignore=("MOFA9",)), False),
        (Selection(extend_select=("MOFA901",), ignore=("MOFA9",)), True),
    ],
)
def test_that_a_model_cannot_be_linted_is_said_unless_it_is_ignored_as_such(selection, said: bool):
    assert bool(Settings().overridden(selection).selected({"MOFA901": "on"})) is said


def test_ignored_on_paths():
    settings = Settings(
        per_path_ignores={"encoders.*": ("MOFA2", "MOFA304"), "head": ("MOFA",), "*.[ab]": ("MOFA101",)}
    )
    assert settings.ignored("MOFA201", "encoders.0.conv")
    assert settings.ignored("MOFA304", "encoders.0")
    assert not settings.ignored("MOFA101", "encoders.0")
    assert not settings.ignored("MOFA201", "encoders")
    assert not settings.ignored("MOFA201", "Encoders.0")
    assert settings.ignored("MOFA401", "head") and not settings.ignored("MOFA901", "head")
    assert settings.ignored("MOFA101", "x.b") and not settings.ignored("MOFA101", "x.c")
    assert not settings.ignored("MOFA201", "")


def test_prefixes_from_the_command_line():
    assert parse_prefixes(["MOFA1,MOFA201", " MOFA5 "], KNOWN, "--select") == ("MOFA1", "MOFA201", "MOFA5")
    with raising(LintError, "bad-value", "--ignore", "'MOFA111'", "'MOFA101'"):
        parse_prefixes(["MOFA111"], KNOWN, "--ignore")


def test_a_selection_that_looks_at_nothing_is_refused(tmp_path: Path):
    """Every network would pass for clean."""
    with raising(LintError, "bad-value", "--select", "'MOFA9'", "'MOFA901'"):
        parse_prefixes(["MOFA9"], KNOWN, "--select")
    with raising(LintError, "bad-value", "select", "'MOFA9'"):
        configuration.settings({"select": ["MOFA9"]}, KNOWN)
    for text, line in (("select = ['MOFA9']", 1), ("[[models]]\ntarget = 'a:B'\nselect = ['MOFA9', 'MOFA90']", 3)):
        (file := tmp_path / "mofa.toml").write_text(text)
        with raising(LintError, "bad-value", f"mofa.toml:{line}", "select", "'MOFA9'"):
            Config.load(file, KNOWN)


@pytest.mark.parametrize("prefixes", [["MOFA901"], ["MOFA9", "MOFA2"], ["MOFA"], []])
def test_other_selections_are_taken(prefixes: list[str]):
    assert parse_prefixes(prefixes, KNOWN, "--select") == tuple(prefixes)
    assert parse_prefixes(["MOFA9"], KNOWN, "--ignore") == ("MOFA9",)


def test_reading_a_configuration_does_not_wait_for_torch():
    code = "import sys, mofa_compiler.lint.config; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def _inline(table: dict[str, str]) -> str:
    return f"{{{', '.join(f'{key} = {value}' for key, value in table.items())}}}"


TABLES = (General, Model, ModelBudgets, Thresholds)
NAMES = st.sampled_from(["unknown", *(field.alias or "" for table in TABLES for field in table.model_fields.values())])
TEXTS = ["", "1M", "1/4", "a:B", "MOFA2", "1x3"]
VALUES = st.recursive(
    st.sampled_from(["1", "-1", "0.5", "nan", "true", "1979-05-27", *map(json.dumps, TEXTS)]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]")
        | st.dictionaries(NAMES, inner, max_size=3).map(_inline)
    ),
    max_leaves=6,
)
_TARGET = {"target": '"a:B"'}
MODELS = st.dictionaries(NAMES, VALUES, max_size=3).map(lambda table: f"[{_inline(_TARGET | table)}]")


@given(st.dictionaries(NAMES, VALUES, max_size=4), MODELS)
def test_whatever_a_file_holds_is_read_or_one_clear_error(tmp_path_factory, table, models):
    file = tmp_path_factory.mktemp("config") / "mofa.toml"
    table = {"models": models, **table}
    file.write_text("\n".join(f"{key} = {value}" for key, value in table.items()))
    try:
        config = Config.load(file, KNOWN)
    except LintError as error:
        found = str(error)
    else:
        for model in (None, *config.models):
            assert config.settings_for(model).threads == config.general.threads
        return
    named = re.match(r"(?P<file>.*/mofa\.toml):(?P<line>\d+): (?P<key>[a-z-]+)", found)
    assert named is not None, found
    assert named["key"] == list(table)[int(named["line"]) - 1]
