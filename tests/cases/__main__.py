"""Run the cases of a folder, and show each by name: `python -m tests.cases ../shared/cases`.

Exit codes: 0 all are right, 1 some are wrong or have no test, 2 there is no such folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from .files import CASES, SHARED_VARIABLE, case_files


class _Results:
    """What became of the tests of each case."""

    def __init__(self) -> None:
        self.cases: dict[str, list[str]] = {}
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("case"):
                for name in mark.args:
                    self.cases.setdefault(name, []).append(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed" or report.when == "call":
            self.outcomes[report.nodeid] = report.outcome

    def of(self, case: str) -> tuple[str, int]:
        """A case's result in a word, and how many tests it has."""
        found = [self.outcomes.get(test, "not run") for test in self.cases.get(case, [])]
        worst = next((word for word in ("failed", "not run", "skipped") if word in found), "passed")
        return (worst if found else "no test"), len(found)


def main(folder: str) -> int:
    console = Console()
    if not Path(folder).is_dir():
        console.print(f"there is no folder {folder}", style="red")
        return 2
    os.environ[SHARED_VARIABLE] = str(Path(folder).resolve())
    results = _Results()
    pytest.main(["--tb=short", "-p", "no:cacheprovider", str(Path(__file__).parent)], plugins=[results])
    table = Table("case", "tests", "result")
    wrong = 0
    for case in case_files(Path(folder)):
        word, tests = results.of(case)
        wrong += word != "passed"
        table.add_row(case, str(tests), word, style="" if word == "passed" else "red")
    console.print(table)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else str(CASES)))
