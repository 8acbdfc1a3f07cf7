"""Lines of keys in TOML files."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_compiler.lint.toml_lines import line_of, written

TEXT = '''\
# a comment with models = 1
threads = 1
select = [
  "MOFA1",  # [why]

  "MOFA2"
  , "MOFA3",
]
note = """
threads = 2
budgets = 3
"""
[budgets]
macs = "2G"

[per-path-ignores]
"encoders.*" = ["MOFA2"]

[[models]]
name = "one"
budgets.stages."encoder 1" = { macs = "1M", parameters = 2 }

  [[models]]
  name = "two"
  [models.budgets.stages.head]
  macs = 3
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("threads",), 2),
        (("select",), 3),
        (("select", 0), 4),
        (("select", 1), 6),
        (("select", 2), 7),
        (("note",), 9),
        (("budgets",), 13),
        (("budgets", "macs"), 14),
        (("per-path-ignores", "encoders.*", 0), 17),
        (("models",), 19),
        (("models", 0), 19),
        (("models", 0, "name"), 20),
        (("models", 0, "budgets"), 21),
        (("models", 0, "budgets", "stages", "encoder 1", "parameters"), 21),
        (("models", 1), 23),
        (("models", 1, "name"), 24),
        (("models", 1, "budgets", "stages", "head"), 25),
        (("models", 1, "budgets", "stages", "head", "macs"), 26),
        pytest.param(("models", 1, "target"), 23, id="missing in its table"),
        pytest.param(("select", 7), 3, id="missing in its list"),
        pytest.param(("nothing", "at", "all"), 1, id="missing"),
        pytest.param(("threads", "deeper"), 2, id="deeper than there is"),
    ],
)
def test_line_of_a_key(key, line):
    assert line_of(TEXT, key) == line
    assert line_of(TEXT.replace("\n", "\r\n"), key) == line


NAMES = st.text("ab.- \"'é\n", min_size=1, max_size=3)
FILLING = st.sampled_from(["", "# x = 1\n", "\n\n", "#]\n"])
VALUES = st.sampled_from(["1", '"]"', "[\n1,\n2\n]", '"""\n[a]\nb = 2\n"""', "{ a = [1, 2] }", "'''\n'''"])


@given(tables=st.dictionaries(NAMES, st.dictionaries(NAMES, st.tuples(FILLING, VALUES), max_size=4), max_size=4))
def test_line_of_every_key_of_a_generated_file(tables):
    text, expected = "", {}
    for table, entries in tables.items():
        expected[(table,)] = text.count("\n") + 1
        text += f"[{json.dumps(table)}]\n"
        for name, (filling, value) in entries.items():
            text += filling
            expected[table, name] = text.count("\n") + 1
            text += f"{json.dumps(name)} = {value}\n"
    assert {key: line_of(text, key) for key in expected} == expected


def test_keys_are_written_as_toml_reads_them():
    assert written(("models", 1, "per-path-ignores", 'a."b"*', 0)) == r'models.per-path-ignores."a.\"b\"*"'
    assert tomllib.loads(f"{written(('a b', 'ü', 'c'))} = 1") == {"a b": {"ü": {"c": 1}}}
