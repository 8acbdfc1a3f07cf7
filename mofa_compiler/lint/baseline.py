"""A baseline: the findings that were there when lint was introduced, and do not count until they are gone."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from ..base.atomic_files import replaced
from ..base.errors import LintError
from .comparison import unmatched
from .finding import BUDGETS, UNLINTABLE, Finding, Linted

SCHEMA = "mofa-lint-baseline/1"


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Entry:
    """What a finding is known by: its rule, and its layer's dotted path and signature."""

    code: str
    path: str
    signature: str


@dataclass(frozen=True)
class Baseline:
    """Known findings, by the name of their model.

    The file is JSON with one finding a line, in the order of the layers' paths, so that a change of it can be read:
    `{"schema": "mofa-lint-baseline/1", "models": {"nafnet": [{"code": …, "path": …, "signature": …}, …]}}`.
    """

    models: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, file: str | Path) -> Baseline:
        """Read what `save` wrote.

        Raises:
            LintError: there is no such file, it is damaged, or it is something else.
        """
        file = Path(file)
        try:
            data = json.loads(file.read_bytes())
        except FileNotFoundError as error:
            raise LintError(
                f"there is no baseline {file}: write one with --write-baseline", code="not-found"
            ) from error
        except OSError as error:
            raise LintError(f"cannot read the baseline {file}: {error.strerror}", code="unreadable") from error
        except json.JSONDecodeError as error:
            raise _damaged(file, f"line {error.lineno}: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise _damaged(file, str(error)) from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            other = isinstance(schema, str) and schema.startswith(SCHEMA.rpartition("/")[0])
            what = f"a baseline of another version ({schema!r})" if other else "not a baseline of mofa lint"
            raise LintError(
                f"{file} is {what}: name another file, or delete it and use --write-baseline", code="wrong-kind"
            )
        try:
            models = _ENTRIES.validate_python(data.get("models"))
        except ValidationError as error:
            problem = error.errors()[0]
            where = "".join(f"[{json.dumps(part)}]" for part in ("models", *problem["loc"]))
            raise _damaged(file, f"{where}: {problem['msg']}") from error
        return cls({name: tuple(entries) for name, entries in models.items()})

    def save(self, file: str | Path) -> None:
        """Write the file; all of it, or nothing.

        Raises:
            LintError: it cannot be written.
        """
        try:
            with replaced(Path(file)) as handle:
                handle.write(self.to_json())
        except OSError as error:
            raise LintError(f"cannot write the baseline {file}: {error.strerror}", code="unwritable") from error

    def to_json(self) -> str:
        """The text of the file."""
        models = []
        for name, entries in sorted(self.models.items()):
            lines = [_line(entry) for entry in sorted(entries, key=_order)]
            if lines:
                models.append(f"  {json.dumps(name)}: [\n   " + ",\n   ".join(lines) + "\n  ]")
        inside = "{\n" + ",\n".join(models) + "\n }" if models else "{}"
        return f'{{\n "schema": {json.dumps(SCHEMA)},\n "models": {inside}\n}}\n'

    def apply(self, linted: Linted) -> Linted:
        """The same without the findings that are known; how many that were is added to `suppressed` as "baseline".

        A finding is known if one of the same rule, path and signature is in the baseline, or one whose path differs
        only in numbers, so that moved and reordered layers stay known. Each entry makes one finding known.
        """
        _, new = unmatched(self.models.get(linted.model, ()), _baselined(linted))
        keep = {id(finding) for finding in new}
        findings = tuple(f for f in linted.findings if id(f) in keep or not _may(f))
        known = len(linted.findings) - len(findings)
        return replace(
            linted, findings=findings, suppressed={**linted.suppressed, **({"baseline": known} if known else {})}
        )

    def fixed(self, linted: Linted, codes: Collection[str] | None = None) -> tuple[Entry, ...]:
        """The entries of a model that nothing in it matches any more, of the rules that ran (None: all).

        Args:
            linted: the model, as it was before `apply`.
            codes: of the rules that ran.
        """
        if _failed(linted):
            return ()
        gone, _ = unmatched(self.models.get(linted.model, ()), _baselined(linted))
        return tuple(entry for entry in gone if codes is None or entry.code in codes)

    def refreshed(self, run: Iterable[Linted], codes: Collection[str] | None = None) -> Baseline:
        """The baseline of the findings that are there now: new ones come in, fixed ones drop out.

        Entries stay that this run can tell nothing about: of other models, of models that could not be linted, and of
        rules that did not run.

        Args:
            run: the models, as they were before `apply`.
            codes: of the rules that ran; None: all.
        """
        models = dict(self.models)
        for linted in run:
            if _failed(linted):
                continue
            stay = [e for e in models.get(linted.model, ()) if codes is not None and e.code not in codes]
            found = [Entry(f.code, f.path, f.signature) for f in _baselined(linted)]
            models[linted.model] = tuple(sorted((*stay, *found), key=_order))
        return Baseline({name: entries for name, entries in models.items() if entries})


def refresh(file: str | Path, run: Iterable[Linted], codes: Collection[str] | None = None) -> Baseline:
    """Write the findings of a run into a baseline's file, which need not be there yet; see `Baseline.refreshed`.

    Raises:
        LintError: the file is no baseline, and stays as it is, or it cannot be written.
    """
    file = Path(file)
    before = Baseline.load(file) if file.exists() else Baseline()
    after = before.refreshed(run, codes)
    after.save(file)
    return after


_ENTRIES = TypeAdapter(dict[str, list[Entry]])


def _may(finding: Finding) -> bool:
    """Whether it can be known: not that a model cannot be linted, nor a broken budget, which may break further."""
    return not finding.code.startswith((UNLINTABLE, BUDGETS))


def _baselined(linted: Linted) -> list[Finding]:
    return [finding for finding in linted.findings if _may(finding)]


def _failed(linted: Linted) -> bool:
    return any(finding.level == "error" and finding.code.startswith(UNLINTABLE) for finding in linted.findings)


def _damaged(file: Path, cause: str) -> LintError:
    return LintError(
        f"the baseline {file} is damaged ({cause}): restore it, or delete it and use --write-baseline", code="damaged"
    )


def _line(entry: Entry) -> str:
    return json.dumps({"code": entry.code, "path": entry.path, "signature": entry.signature})


def _order(entry: Entry) -> Any:
    """By path as people count: blocks.2 before blocks.10."""
    parts = re.split(r"(\d+)", entry.path, flags=re.ASCII)
    path = [(len(part.lstrip("0")) if index % 2 else 0, part) for index, part in enumerate(parts)]
    return path, entry.code, entry.signature
