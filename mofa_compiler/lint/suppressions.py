"""Comments that take findings out, on the source lines that make a layer: `# mofa: ignore[MOFA201]`."""

from __future__ import annotations

import io
import re
import tokenize
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import nearest
from .finding import Finding, Position
from .settings import takes_out
from .source_positions import relative_to

CODE = "MOFA001"
NAME = "unused-suppression"

_DIRECTIVE = re.compile(r"#\s*mofa\s*:\s*ignore(?!\w)(?P<codes>\s*\[[^\]#]*\])?(?P<rest>[^#]*)", re.IGNORECASE)
_EVERY = "MOFA"  # what all codes begin with


@dataclass(frozen=True)
class Suppression:
    """One comment.

    Attributes:
        position: of the comment, or of this part of it.
        text: that part, as it is written.
        codes: of rules, or what they begin with, in capitals, in order; none where it takes out every finding.
        blanket: whether it takes out every finding.
    """

    position: Position
    text: str
    codes: tuple[str, ...]
    blanket: bool = False

    def takes(self, code: str) -> bool:
        """Whether it takes out findings of this rule."""
        prefixes = (_EVERY,) if self.blanket else self.codes
        return any(takes_out(prefix, code) for prefix in prefixes if prefix.startswith(_EVERY))


class Suppressions:
    """The comments in the sources of all models of a run, and which of them have taken something out.

    Several models may be built by the same lines, so that only the end of a run knows what is unused.
    """

    def __init__(self, known: Mapping[str, str], root: Path | None = None):
        """`known`: names of all rules by code; `root`: where files are named from, else the working folder."""
        self._known = {**known, CODE: NAME}
        self._root = root or Path.cwd()
        self._read: dict[str, Sequence[Suppression]] = {}
        self._used: set[Suppression] = set()
        self._touched: dict[str, str] = {}
        self._ran: dict[str, set[str]] = {}
        self._unsure: set[str] = set()

    def split(
        self, model: str, findings: Iterable[Finding], files: Iterable[str], ran: Collection[str]
    ) -> tuple[list[Finding], list[Finding]]:
        """A model's findings: those that stand, and those that a comment takes out; each in their order.

        A comment counts on every line of the call that made the layer, from `position.line` to `position.end_line`.

        Args:
            model: its name.
            findings: before any other choice is made among them, so that a comment that is needed counts as used.
            files: in which its layers were made; absolute, as in the findings' positions.
            ran: the codes of the rules that looked at this model. None at all say that it could not be linted: what is
                unused in its files is then not known.
        """
        for file in files:
            self._touched.setdefault(file, model)
            self._ran.setdefault(file, set()).update(ran)
            if not ran:
                self._unsure.add(file)
        standing: list[Finding] = []
        taken: list[Finding] = []
        for finding in findings:
            comments = [comment for comment in self._at(finding.position) if comment.takes(finding.code)]
            self._used.update(comments)
            (taken if comments else standing).append(finding)
        return standing, taken

    def report(self) -> list[Finding]:
        """What is wrong with the comments in all files so far: unused ones, and those that cannot be understood.

        A comment is unused where none of its codes has met a finding of any model. Codes whose rules did not look at
        any model that the file builds are not held against it. A comment that names this rule itself is not reported.
        """
        found: list[Finding] = []
        for file in sorted(self._touched):
            seen: Counter[str] = Counter()
            for comment in self._comments(file):
                seen[comment.text] += 1
                place = f"{relative_to(comment.position, self._root)}: {comment.text}"
                if seen[comment.text] > 1:
                    place += f" ({seen[comment.text]})"  # no line number: it moves
                complaints = "; ".join(self._complaints(comment))
                if complaints:
                    message = f"`{comment.text}` {complaints}"
                    found.append(
                        Finding(CODE, NAME, self._touched[file], "", place, message, position=comment.position)
                    )
        return found

    def _complaints(self, comment: Suppression) -> Iterator[str]:
        if not comment.blanket and not comment.codes:
            yield "takes nothing out, as it is not of the form `# mofa: ignore[MOFA201, MOFA3]` or `# mofa: ignore`"
        if any(code.startswith(f"{_EVERY}0") and CODE.startswith(code) for code in comment.codes):
            return
        unknown = [code for code in comment.codes if not self._is_known(code)]
        for code in unknown:
            named = next((known for known, name in self._known.items() if name.upper() == code), None)
            remedy = f"'s code: write {named}" if named else nearest(code, self._known)
            yield f"names {code.lower() if named else code}, which is no rule{remedy}"
        file = comment.position.file
        if comment in self._used or file in self._unsure:
            return
        ran = self._ran[file]
        idle = [code for code in comment.codes if code not in unknown and any(rule.startswith(code) for rule in ran)]
        if idle:
            yield f"takes nothing out: nothing made here is a finding of {' or '.join(idle)}"
        elif comment.blanket:
            yield "takes nothing out: nothing made here is a finding"

    def _is_known(self, code: str) -> bool:
        return code.startswith(_EVERY) and any(known.startswith(code) for known in self._known)

    def _at(self, position: Position | None) -> list[Suppression]:
        if position is None:
            return []
        last = position.end_line or position.line
        comments = self._comments(position.file)
        return [comment for comment in comments if position.line <= comment.position.line <= last]

    def _comments(self, file: str) -> Sequence[Suppression]:
        if file not in self._read:
            self._read[file] = read_suppressions(file)
        return self._read[file]


def read_suppressions(file: str) -> list[Suppression]:
    """The suppressions in a source file, in order; none where it cannot be read, or is no Python."""
    try:
        with tokenize.open(file) as opened:
            text = opened.read()
        if "mofa" not in text.lower():  # most files: tokens are slow to make
            return []
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        return []
    comments = (token for token in tokens if token.type == tokenize.COMMENT)
    return [suppression for token in comments for suppression in _parse(file, token)]


def _parse(file: str, comment: tokenize.TokenInfo) -> Iterator[Suppression]:
    line, start = comment.start
    for match in _DIRECTIVE.finditer(comment.string):
        inside, rest = match["codes"], match["rest"].strip()
        blanket = inside is None and not rest
        codes = tuple(dict.fromkeys(re.findall(r"[^\s,\[\]]+", (inside or "").upper())))
        end = match.end("codes") if codes else match.start() + len(match[0].rstrip())
        text = comment.string[match.start() : end]
        yield Suppression(Position(file, line, line, start + match.start() + 1, start + end + 1), text, codes, blanket)
