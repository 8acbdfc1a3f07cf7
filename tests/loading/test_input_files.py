"""Files of inputs: the forms of recipes and of JSON itself are read, and what is wrong is named by file and key."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mofa_compiler.base.errors import InputError, TargetError
from mofa_compiler.graph.call_spec import CallSpec, InputSpec
from mofa_compiler.loading.input_files import of_shapes, read_inputs
from tests.raising import raising

HALF = nn.Conv2d(3, 3, 1).half()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def read(data: Any) -> Any:
    Path("in.json").write_text(json.dumps(data))
    return read_inputs("in.json")(HALF)


IMAGE = {"shape": [1, 3, 8, 8]}
HALF_IMAGE = InputSpec((1, 3, 8, 8), torch.float16)


@pytest.mark.parametrize(
    ("data", "call"),
    [
        ([IMAGE], CallSpec((HALF_IMAGE,))),
        ({"args": [IMAGE, None, True, 3, 0.5, "text"]}, CallSpec((HALF_IMAGE, None, True, 3, 0.5, "text"))),
        ({"kwargs": {"x": IMAGE, "flag": False}}, CallSpec((), {"x": HALF_IMAGE, "flag": False})),
        (
            {"args": [{"shape": [0], "dtype": "int64"}, {"shape": [], "dtype": "torch.bool"}]},
            CallSpec((InputSpec((0,), torch.int64), InputSpec((), torch.bool))),
        ),
        ([[IMAGE, [None]]], CallSpec(([HALF_IMAGE, [None]],))),
        ([{"tuple": [IMAGE, 1]}, {"list": []}], CallSpec(((HALF_IMAGE, 1), []))),
        ([{"dict": {"shape": IMAGE, "b": {"value": None}}}], CallSpec(({"shape": HALF_IMAGE, "b": None},))),
        ([{"dtype": "int8"}, {"device": "cpu"}], CallSpec((torch.int8, torch.device("cpu")))),
    ],
)
def test_what_json_may_say(data: Any, call: CallSpec) -> None:
    assert read(data) == call


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from([torch.int64, torch.float16, torch.device("cpu")]),
    st.builds(
        InputSpec,
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
        st.sampled_from([torch.float32, torch.int64, torch.bool, torch.complex64]),
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(args=st.lists(TREES, max_size=3), kwargs=st.dictionaries(st.text(max_size=5), TREES, max_size=3))
def test_what_a_recipe_records_is_read_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    call = CallSpec(tuple(args), kwargs)
    assert read(call.to_data()) == call
    assert CallSpec.from_data(json.loads(json.dumps(call.to_data()))) == call


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, 'in.json: 3 must be an object with "args"'),
        ({}, "in.json: {} must be an object"),
        ({"arg": []}, "in.json: "),
        ({"args": [], "kwarg": {}}, "in.json: there is no key 'kwarg' (did you mean 'kwargs'?)"),
        ({"args": 3}, "in.json: args: 3 must be a list"),
        ({"args": [], "kwargs": [1]}, "in.json: kwargs: [1] must be an object by name"),
        ([{"shape": "1x3"}], 'in.json: args[0].shape: "1x3" must be a list of whole numbers'),
        ([{"shape": [1, -1]}], "in.json: args[0].shape: [1, -1] must be"),
        ([{"shape": [True]}], "in.json: args[0].shape: [true] must be"),
        (
            [1, {"shape": [1], "dtype": "flaot32"}],
            "args[1].dtype: \"flaot32\" must be a dtype of torch (did you mean 'float32'?)",
        ),
        ([{"shape": [1], "dtype": "nn"}], 'args[0].dtype: "nn" must be a dtype'),
        ([{"shpae": [1]}], "args[0]: there is no 'shpae' (did you mean 'shape'?)"),
        ([{"shape": [1], "value": 3}], "args[0]: there is no 'value'"),
        ([{}], "args[0]: it is empty"),
        ([{"device": "gpuu"}], 'args[0].device: "gpuu" must be a device'),
        ([{"value": [1]}], "args[0].value: [1] must be a number, text"),
        ({"kwargs": {"x": {"list": [{"tuple": 3}]}}}, "in.json: kwargs.x.list[0].tuple: 3 must be a list"),
        ({"kwargs": {"x": {"dict": 3}}}, "kwargs.x.dict: 3 must be an object"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(data: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read(data)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [b"{", b"\xff", b"[" * 100_000],
)
def test_what_is_no_json(text: bytes) -> None:
    Path("in.json").write_bytes(text)
    with raising(InputError, "damaged", "in.json"):
        read_inputs("in.json")


def test_no_file() -> None:
    with raising(InputError, "unreadable", "none.json"):
        read_inputs("none.json")
    with raising(TargetError, "not-found", "none.py"):
        read_inputs("none.py")


CODE = """
import torch

print("this must not reach stdout")
example_inputs = (torch.ones(2), None)


def named():
    return {"x": torch.zeros(1)}


def fails():
    raise ValueError("of mine")
"""


def test_python_code(capsys: pytest.CaptureFixture[str]) -> None:
    Path("made.py").write_text(CODE)
    Path("other.py").write_text("def example():\n    return 3\n")
    first, second = read_inputs("made.py")(HALF)
    assert torch.equal(first, torch.ones(2)) and second is None
    assert read_inputs("made.py:named")(HALF).keys() == {"x"}
    assert read_inputs("other.py")(HALF) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("made.py:nmaed", ("unknown-name", "made.py", "nmaed", "'named'")),
        ("empty.py", ("unknown-name", "empty.py", "example_inputs")),
        ("made.py:fails", ("failed", "fails()", "made.py", "ValueError: of mine")),
    ],
)
def test_what_is_wrong_with_code(source: str, said: tuple[str, ...]) -> None:
    Path("made.py").write_text(CODE)
    Path("empty.py").write_text("")
    with raising(InputError, *said):
        read_inputs(source)(HALF)


def test_shapes_are_of_the_precision_of_the_weights() -> None:
    assert of_shapes([(1, 3, 8, 8)])(HALF) == CallSpec((HALF_IMAGE,))
