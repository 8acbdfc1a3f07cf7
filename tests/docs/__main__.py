"""`python -m tests.docs PAGE...`: execute pages outside pytest, as .ci/run does with those that take minutes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .executor import ROOT
from .preparing import prepared

for argument in sys.argv[1:]:
    with tempfile.TemporaryDirectory() as folder:
        page = prepared((ROOT / argument).resolve(), Path(folder))
        print(f"{page.name}: {page.run()} blocks executed", flush=True)
