"""The table of the paper's figures in the guide to benchmarks, made by running every row.

python -m tests.benchmarks.paper_table [--write examples/guides/benchmarks.md]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from tests.benchmarks.files import replace_block
from tests.paper_rows import ROWS, measured

MARKERS = ("<!-- paper table: `make readme` -->", "<!-- end of the paper table -->")


def table() -> str:
    """Markdown, one line a row."""
    lines = ["| model | roadmap | parameters | MACs | the paper prints |", "|---|---|---:|---:|---|"]
    for index, row in enumerate(ROWS):
        parameters, _, macs = measured(index)
        lines.append(f"| {row.model.__name__} | {row.name} | {parameters:,} | {macs:,} | {row.printed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="replace the table in this file")
    options = parser.parse_args()
    if options.write:
        replace_block(options.write, table(), MARKERS)
    else:
        print(table())
