"""`mofa engines`: where networks can be measured here."""

from __future__ import annotations

import json

from . import options


def engines(
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the engines, and what installs those that are missing.

    \b
    mofa engines
    mofa engines --json

    \b
    Exit codes:
      0    done
      2    wrong usage
    """
    from ..runtime import engines as known

    data = []
    for name, engine in known().items():
        missing = engine.missing()
        version = None if missing else engine.version()
        data.append(
            {
                "name": name,
                "summary": engine.summary,
                "version": version,
                "precisions": engine.precisions,
                "missing": missing,
            }
        )
    if as_json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
        return
    from ..report.printing.measured import print_engines

    print_engines(data, options.stdout_console())
