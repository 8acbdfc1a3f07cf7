"""What pages say of the code is what the code says."""

from __future__ import annotations

import pytest

import mofa_compiler.passes

from .written import BLOCKS, ROOT, layers, markers, own_passes


@pytest.mark.parametrize("name", BLOCKS)
def test_a_written_block_is_that_of_the_code(name: str) -> None:
    page, lines = BLOCKS[name]
    start, end = markers(name)
    block = (ROOT / page).read_text(encoding="utf-8").partition(start)[2].partition(end)[0]
    assert block.strip().splitlines() == list(lines()), "run `make readme`"


def test_every_folder_has_its_line() -> None:
    named = {name for names in layers() for name in names}
    found = {one.parent.name for one in (ROOT / "mofa_compiler").glob("*/__init__.py")}
    assert found <= named
    _, lines = BLOCKS["house"]
    described = dict(row.strip("| ").split(" | ", 1) for row in list(lines())[2:])
    assert {name for name, what in described.items() if len(what) > 20} == {f"`{name}/`" for name in found}


def test_a_pass_of_ours_can_be_imported_by_its_name() -> None:
    for one in own_passes():
        assert getattr(mofa_compiler.passes, one.__name__, None) is one, f"import {one.__name__} in passes/__init__.py"
