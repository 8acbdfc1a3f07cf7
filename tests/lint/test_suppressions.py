"""Suppressions: which comments take findings out, and which are reported as unused."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from torch import nn

from mofa_compiler.lint.finding import Finding, Position
from mofa_compiler.lint.source_positions import recording
from mofa_compiler.lint.suppressions import Suppressions, read_suppressions
from mofa_compiler.loading.import_target import load_target

KNOWN = ["MOFA101", "MOFA201", "MOFA202", "MOFA301", "MOFA304", "MOFA501"]
NAMES = {code: f"rule-{code[-3:]}" for code in KNOWN}
MALFORMED = "as it is not of the form"

# A comment, and the codes that it takes out.
COMMENTS = {
    "# mofa: ignore": KNOWN,
    "# mofa: ignore[MOFA201]": ["MOFA201"],
    "# mofa: ignore[MOFA201, MOFA3]": ["MOFA201", "MOFA301", "MOFA304"],
    "#MOFA:ignore[mofa201,MOFA202]": ["MOFA201", "MOFA202"],
    "#  Mofa :  Ignore  [ MOFA201  MOFA202, ]  because the gate needs it": ["MOFA201", "MOFA202"],
    "# noqa: E501  # mofa: ignore[MOFA101]  # type: ignore": ["MOFA101"],
    "# mofa: ignore  # because": KNOWN,
    "# mofa: ignore[MOFA1]  # mofa: ignore[MOFA5]": ["MOFA101", "MOFA501"],
    "# mofa: ignore[MOFA]": KNOWN,
    "# mofa: ignore[]": [],
    "# mofa: ignore[MOFA201": [],
    "# mofa: ignore MOFA201": [],
    "# mofa: ignore, it is slow": [],
    "# mofa: ignore[M]": [],
    "# mofa: ignored": [],
    "# see mofa: ignore": [],
    "# type: ignore": [],
}


def _finding(file: Path, line: int, code: str = "MOFA201", end_line: int | None = None) -> Finding:
    return Finding(code, "rule", "net", "conv", "Conv2d(4)", "why", position=Position(str(file), line, end_line))


def _source(folder: Path, text: str) -> Path:
    file = folder / "net.py"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


@pytest.mark.parametrize("comment", COMMENTS)
def test_which_codes_a_comment_takes_out(comment: str, tmp_path: Path):
    file = _source(tmp_path, f"a = 1\nb = 2  {comment}\n")
    findings = [_finding(file, 2, code) for code in KNOWN]
    standing, taken = Suppressions(NAMES).split("net", findings, [str(file)], KNOWN)
    assert [finding.code for finding in taken] == COMMENTS[comment]
    assert [finding.code for finding in standing] == [code for code in KNOWN if code not in COMMENTS[comment]]


def test_text_in_strings_is_no_comment(tmp_path: Path):
    file = _source(
        tmp_path,
        '''
        a = "# mofa: ignore"
        b = """
        # mofa: ignore
        """  # mofa: ignore[MOFA201]
        c = f"{a}# mofa: ignore"
        ''',
    )
    (only,) = read_suppressions(str(file))
    assert (only.position.line, only.codes) == (5, ("MOFA201",))


def test_the_position_of_a_comment_is_its_own_part_in_characters(tmp_path: Path):
    file = _source(tmp_path, 'ä = "𝒜"  # noqa  # mofa: ignore[MOFA201] slow  # x\n')
    (only,) = read_suppressions(str(file))
    position = only.position
    assert only.text == "# mofa: ignore[MOFA201]"
    assert position.column and position.end_column
    assert file.read_text(encoding="utf-8")[position.column - 1 : position.end_column - 1] == only.text


@pytest.mark.parametrize(
    "content",
    [b"a = (  # mofa: ignore\n", b"\xff\xfe # mofa: ignore\n", b"# coding: nonsense\n# mofa: ignore\n", None],
    ids=["unfinished", "not UTF-8", "unknown encoding", "missing"],
)
def test_a_file_that_cannot_be_read_has_none(content: bytes | None, tmp_path: Path):
    file = tmp_path / "net.py"
    if content is not None:
        file.write_bytes(content)
    assert read_suppressions(str(file)) == []
    findings = [_finding(file, 1)]
    assert Suppressions(NAMES).split("net", findings, [str(file)], KNOWN) == (findings, [])


def test_a_file_in_another_encoding_is_read_as_python_reads_it(tmp_path: Path):
    file = tmp_path / "net.py"
    file.write_bytes("# coding: latin-1\nä = 1  # mofa: ignore\n".encode("latin-1"))
    assert [(each.position.line, each.position.column) for each in read_suppressions(str(file))] == [(2, 8)]


CALL = """
conv = make(  # mofa: ignore[MOFA101]
    3,
    # mofa: ignore[MOFA201]
)  # mofa: ignore[MOFA301]
# mofa: ignore[MOFA501]
"""


@pytest.mark.parametrize(
    ("end_line", "taken"), [(5, ["MOFA101", "MOFA201", "MOFA301"]), (None, ["MOFA101"]), (2, ["MOFA101"])]
)
def test_a_comment_counts_on_every_line_of_the_call_and_on_no_other(
    end_line: int | None, taken: list[str], tmp_path: Path
):
    file = _source(tmp_path, CALL)
    findings = [_finding(file, 2, code, end_line) for code in KNOWN]
    _, suppressed = Suppressions(NAMES).split("net", findings, [str(file)], KNOWN)
    assert [finding.code for finding in suppressed] == taken


def test_findings_without_a_position_or_from_other_files_stand(tmp_path: Path):
    file = _source(tmp_path, "a = 1  # mofa: ignore\n")
    other = tmp_path / "other.py"
    other.write_text("a = 1\n")
    findings = [Finding("MOFA201", "rule", "net", "", "", "why"), _finding(other, 1)]
    assert Suppressions(NAMES).split("net", findings, [str(file)], KNOWN) == (findings, [])


def _messages(suppressions: Suppressions) -> list[str]:
    return [finding.message for finding in suppressions.report()]


def test_an_unused_comment_is_a_finding_at_the_comment(tmp_path: Path):
    file = _source(tmp_path, "a = 1  # mofa: ignore[MOFA201, MOFA3]\nb = 2  # mofa: ignore\n")
    suppressions = Suppressions(NAMES, tmp_path)
    suppressions.split("net", [], [str(file)], KNOWN)
    first, second = suppressions.report()
    assert first == Finding(
        code="MOFA001",
        rule="unused-suppression",
        model="net",
        path="",
        signature="net.py: # mofa: ignore[MOFA201, MOFA3]",
        message="`# mofa: ignore[MOFA201, MOFA3]` takes nothing out: nothing made here is a finding of "
        "MOFA201 or MOFA3",
        level="warning",
        position=Position(str(file), 1, 1, 8, 38),
    )
    assert second.message == "`# mofa: ignore` takes nothing out: nothing made here is a finding"
    assert second.position == Position(str(file), 2, 2, 8, 22)


def test_what_one_model_of_a_run_needs_is_used(tmp_path: Path):
    file = _source(
        tmp_path, "a = 1  # mofa: ignore[MOFA201]\nb = 2  # mofa: ignore[MOFA2]\nc = 3  # mofa: ignore[MOFA202]\n"
    )
    suppressions = Suppressions(NAMES)
    suppressions.split("first", [_finding(file, 1)], [str(file)], KNOWN)
    suppressions.split("second", [_finding(file, 2, "MOFA202")], [str(file)], KNOWN)
    (unused,) = suppressions.report()
    assert unused.position and unused.position.line == 3
    assert unused.model == "first"


def test_one_code_that_is_needed_is_enough(tmp_path: Path):
    file = _source(tmp_path, "a = 1  # mofa: ignore[MOFA201, MOFA301]\n")
    suppressions = Suppressions(NAMES)
    suppressions.split("net", [_finding(file, 1)], [str(file)], KNOWN)
    assert suppressions.report() == []


@pytest.mark.parametrize(
    ("comment", "ran", "named"),
    [
        ("ignore[MOFA201]", ["MOFA101"], None),
        ("ignore[MOFA201, MOFA101]", ["MOFA101"], "of MOFA101"),
        ("ignore[MOFA3]", ["MOFA301"], "of MOFA3"),
        ("ignore[MOFA3]", ["MOFA201"], None),
        ("ignore", ["MOFA201"], "is a finding"),
        ("ignore", [], None),
        ("ignore[MOFA201]", [], None),
        ("ignore[MOFA201, MOFA001]", ["MOFA201"], None),
    ],
)
def test_codes_of_rules_that_did_not_run_are_not_reported(
    comment: str, ran: list[str], named: str | None, tmp_path: Path
):
    file = _source(tmp_path, f"a = 1  # mofa: {comment}\n")
    suppressions = Suppressions(NAMES)
    suppressions.split("net", [], [str(file)], ran)
    messages = _messages(suppressions)
    assert len(messages) == (named is not None)
    assert all(message.endswith(f" {named}") for message in messages)


def test_a_rule_that_ran_on_another_files_model_says_nothing_about_this_one(tmp_path: Path):
    file = _source(tmp_path, "a = 1  # mofa: ignore[MOFA201]\n")
    suppressions = Suppressions(NAMES)
    suppressions.split("net", [], [str(file)], ["MOFA101"])
    suppressions.split("other", [], [str(tmp_path / "other.py")], ["MOFA201"])
    assert suppressions.report() == []


def test_a_model_that_could_not_be_linted_leaves_its_files_unsure(tmp_path: Path):
    file = _source(tmp_path, "a = 1  # mofa: ignore[MOFA201]\nb = 1  # mofa: ignore[MOFA999]\n")
    suppressions = Suppressions(NAMES)
    suppressions.split("net", [], [str(file)], KNOWN)
    suppressions.split("broken", [], [str(file)], [])
    (message,) = _messages(suppressions)
    assert "names MOFA999" in message


def test_files_in_which_nothing_was_made_are_not_looked_at(tmp_path: Path):
    _source(tmp_path, "a = 1  # mofa: ignore\n")
    suppressions = Suppressions(NAMES)
    suppressions.split("net", [], [], KNOWN)
    assert suppressions.report() == []


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("ignore[MOFA20]", None),
        ("ignore[MOFA203]", "names MOFA203, which is no rule (did you mean 'MOFA20"),
        ("ignore[MOFA201, E501]", "names E501, which is no rule (did you mean 'MOFA501'?)"),
        ("ignore[M]", "names M, which is no rule (known: MOFA001, MOFA101,"),
        ("ignore[]", MALFORMED),
        ("ignore[MOFA201", MALFORMED),
        ("ignore MOFA201", MALFORMED),
    ],
)
def test_what_cannot_be_understood_is_reported_also_where_it_is_used(comment: str, message: str | None, tmp_path: Path):
    file = _source(tmp_path, f"a = 1  # mofa: {comment}\n")
    suppressions = Suppressions(NAMES)
    suppressions.split("net", [_finding(file, 1)], [str(file)], KNOWN)
    messages = _messages(suppressions)
    assert len(messages) == (message is not None)
    assert all(message in each and f"`# mofa: {comment}`" in each for each in messages if message)


def test_all_that_is_wrong_with_a_comment_is_one_finding(tmp_path: Path):
    file = _source(tmp_path, "a = 1  # mofa: ignore[MOFA999, MOFA201]\n")
    suppressions = Suppressions({"MOFA201": "separable-convolution"})
    suppressions.split("net", [], [str(file)], ["MOFA201"])
    assert _messages(suppressions) == [
        "`# mofa: ignore[MOFA999, MOFA201]` names MOFA999, which is no rule (did you mean 'MOFA201'?); "
        "takes nothing out: nothing made here is a finding of MOFA201"
    ]


def test_fingerprints_differ_and_survive_moved_lines_and_folders(tmp_path: Path):
    text = "a = 1  # mofa: ignore\nb = 2  # mofa: ignore\nc = 3  # mofa: ignore[MOFA999]\n"
    prints = []
    for folder, moved in (("here", ""), ("there", "\n\nx = 0\n")):
        (tmp_path / folder).mkdir()
        file = _source(tmp_path / folder, moved + text)
        suppressions = Suppressions(NAMES, tmp_path / folder)
        suppressions.split("net", [], [str(file)], KNOWN)
        prints.append([finding.fingerprint for finding in suppressions.report()])
    assert prints[0] == prints[1]
    assert len(set(prints[0])) == 3


def test_comments_meet_the_positions_that_were_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = _source(
        tmp_path,
        """
        from torch import nn
        class Net(nn.Module):  # mofa: ignore[MOFA501]
            def __init__(self):
                super().__init__()
                self.a = nn.Conv2d(
                    3, 4, 3,
                )  # mofa: ignore[MOFA201]
                self.b = nn.Sequential(*[nn.Conv2d(4, 4, 3) for _ in range(2)])  # mofa: ignore[MOFA2]
                self.c = nn.Conv2d(4, 4, 3)
                if self.training is None:
                    self.d = nn.Conv2d(4, 4, 3)  # mofa: ignore
        """,
    )
    monkeypatch.syspath_prepend(tmp_path)
    with recording() as recorder:
        model = load_target(f"{file}:Net")
    positions = recorder.positions(model)
    findings = [
        Finding("MOFA201", "rule", "net", path, "Conv2d", "why", position=positions[path])
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    budget = Finding("MOFA501", "rule", "net", "", "", "why", position=positions[""])
    suppressions = Suppressions(NAMES)
    standing, taken = suppressions.split("net", [budget, *findings], recorder.files, KNOWN)
    assert [finding.path for finding in standing] == ["c"]
    assert [finding.path for finding in taken] == ["", "a", "b.0", "b.1"]
    (unused,) = suppressions.report()
    assert unused.position and unused.position.line == 12


def test_the_name_of_a_rule_is_answered_with_its_code(tmp_path):
    file = _source(tmp_path, "x = 1  # mofa: ignore[rule-201]")
    suppressions = Suppressions(NAMES, tmp_path)
    suppressions.split("net", [], [str(file)], KNOWN)
    (finding,) = suppressions.report()
    assert "names rule-201, which is no rule's code: write MOFA201" in finding.message
