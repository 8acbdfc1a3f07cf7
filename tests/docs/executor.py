"""Runs the code blocks of a page in order, in a folder of their own, and compares what they print with what it shows.

| fence | what happens |
|---|---|
| `python` | executed in the page's namespace; with `title="net.py"` written to that file; tests are run by pytest |
| `sh`, `bash` | every command is run; variables and the folder are kept from block to block |
| `console` | what follows `$ ` is run, and prints the lines below, all of them; `# exit code 1` says how it ends |
| `text` | has to be found in what was printed so far |
| `toml`, `yaml` | parsed by whom they are for; written to their `title`; `run:` steps are run |

A line that is `…` alone stands for any lines, `…` in a line for any text. Durations and rounding errors (`2e-16`) are
not compared, measured figures in % and dB roughly, spaces as one. A block in another language, or without one, is an
error: nothing is left out. With `MOFA_UPDATE=1`, what differs in `console` blocks is written into the page.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sybil import Document, Example, Lexeme, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from .configuration import readers, steps
from .pages import BEFORE, ELSEWHERE, SMALLER

ROOT = Path(__file__).resolve().parents[2]
UPDATE = bool(os.environ.get("MOFA_UPDATE"))

_LEXER = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))
_BASH = """
set -a -o pipefail
[ -f "$STATE" ] && . "$STATE" && cd "$PWD"
trap '_code=$?; export -p > "$STATE"; exit $_code' EXIT
"""
"""Assigned variables are exported, and kept in a file with the folder, which the next command starts from"""


_PROGRESS = re.compile(r"\w[\w ]*: .+ \(\d+ of \d+\)")
"""A line that tells how far a command is, printed after some seconds"""


@dataclass
class Page:
    """A page and the folder that it is executed in.

    Attributes:
        path: the Markdown file.
        folder: empty at first, but for what a table in `pages.py` says.
        used: entries of the tables that were needed.
        printed: everything so far.
    """

    path: Path
    folder: Path
    used: set[str] = field(default_factory=set)
    printed: str = ""

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    def run(self) -> int:
        """Evaluate every block; the number of them.

        Raises:
            AssertionError: a block fails, or prints something else; the message names file and line.
        """
        document = Sybil(parsers=[self._parse]).parse(self.path)
        self._updates: list[tuple[Region, str]] = []
        examples = list(document)
        for example in examples:
            example.evaluate()
        text = document.text
        for region, new in reversed(self._updates):
            start = region.start + region.parsed.offset
            text = text[:start] + new + text[start + len(region.parsed) :]
        if self._updates:
            self.path.write_text(text, encoding="utf-8")
        return len(examples)

    def _parse(self, document: Document) -> Iterator[Region]:
        for region in _LEXER(document):
            region.parsed = region.lexemes["source"]
            region.evaluator = self._evaluate
            yield region

    def _evaluate(self, example: Example) -> None:
        language, _, attributes = example.region.lexemes["info"].strip().partition(" ")
        evaluators = {
            "python": self._python,
            "sh": self._sh,
            "bash": self._sh,
            "console": self._console,
            "text": self._text,
            "toml": self._data,
            "yaml": self._data,
        }
        where = f"{self.name}:{example.line}"
        assert language in evaluators, f"{where}: {language!r} is no language that is executed: {sorted(evaluators)}"
        title = re.search(r'title="([^"]+)"', attributes)
        with _inside(self.folder / self._before(example)[0]):
            evaluators[language](example, where, title[1] if title else None)

    def _before(self, example: Example) -> tuple[str, str]:
        """The folder that a block is in, and code that makes what it needs."""
        for first, (folder, code) in BEFORE.get(self.name, {}).items():
            if example.parsed.startswith(first):
                self.used.add(first)
                return folder, code
        return ".", ""

    def _smaller(self, text: str) -> str:
        """The text with the files that it includes, and with what the table makes smaller."""
        text = re.sub(r"(?m)^# include (\S+)$", lambda line: (ROOT / line[1]).read_text().rstrip("\n"), text)
        for pattern, new, _ in SMALLER.get(self.name, ()):
            text, count = re.subn(pattern, new, text)
            if count:
                self.used.add(pattern)
        return text

    def _python(self, example: Example, where: str, title: str | None) -> None:
        source, before = self._smaller(example.parsed), self._before(example)[1]
        functions = [node.name for node in ast.parse(source, where).body if isinstance(node, ast.FunctionDef)]
        if title:
            _write(Path(title), source)
        elif any(name.startswith("test_") for name in functions):
            _write(Path("test_block.py"), f"{before}\n{source}")
            self._command("python -m pytest -q -p no:cacheprovider test_block.py", where)
        else:
            printed = io.StringIO()
            example.parsed = Lexeme(source, example.parsed.offset, example.parsed.line_offset)
            with contextlib.redirect_stdout(printed):
                exec(compile(before, f"before {where}", "exec"), example.namespace)
                PythonEvaluator()(example)
            self.printed += printed.getvalue()

    def _sh(self, example: Example, where: str, title: str | None) -> None:
        for command in _commands(example.parsed):
            self._command(command, where)

    def _console(self, example: Example, where: str, title: str | None) -> None:
        shown = re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)
        assert not shown[0].strip() and len(shown) > 1, f"{where}: a console block begins with '$ '"
        new = ""
        for part in shown[1:]:
            first, _, expected = part.partition("\n")
            while first.endswith("\\"):
                line, _, expected = expected.partition("\n")
                first += "\n" + line
            printed = _plain(self._command(first, where))
            matches = _shows(expected, printed, whole=True)
            new += f"$ {first}\n{expected if matches else printed}"
            assert matches or UPDATE, f"{where}: {first}\nshown:\n{expected}\nprinted:\n{printed}"
        if new != example.parsed:
            self._updates.append((example.region, textwrap.indent(new, "", bool)))

    def _text(self, example: Example, where: str, title: str | None) -> None:
        found = _shows(example.parsed, _plain(self.printed), whole=False)
        assert found, f"{where}: nothing printed so far holds\n{example.parsed}\nprinted:\n{self.printed}"

    def _data(self, example: Example, where: str, title: str | None) -> None:
        source = self._smaller(example.parsed)
        language = example.region.lexemes["info"].partition(" ")[0]
        file = Path(title or {"toml": "pyproject.toml", "yaml": "untitled.yml"}[language])
        _write(file, source)
        for command in readers(source, file) if language == "toml" else steps(source, where, ROOT):
            self._command(command, where)

    def _command(self, command: str, where: str) -> str:
        """Run one command as a shell does; what it prints, to stdout or stderr.

        Raises:
            AssertionError: it ends with another code than it should. Without `# exit code N` that is 0, of `mofa lint`
                also 1, which means findings.
        """
        bare = re.sub(r"\s+#.*", "", command)
        for pattern, (instead, why) in ELSEWHERE.items():
            if re.fullmatch(pattern, bare):
                self.used.add(pattern)
                if not instead:
                    return ""
                assert why
                command = bare = instead
        expected = re.search(r"# exit code (\d+)", command)
        codes = {int(expected[1])} if expected else {0, 1} if re.match(r"mofa lint\b", bare) else {0}
        done = subprocess.run(
            ["bash", "-c", _BASH + self._smaller(command)],
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode in codes, f"{where}: {command}\nends with {done.returncode}:\n{done.stdout}"
        self.printed += done.stdout
        return done.stdout

    def _environment(self) -> dict[str, str]:
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GITHUB"))}
        return {
            **outside,
            "STATE": str(self.folder / ".state"),
            "HOME": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "site"),
            "COLUMNS": "80",
            "OMP_NUM_THREADS": "1",
            "MOFA_CACHE": str(self.folder / ".measurements"),
            # Everything is installed; what a page installs itself goes beside it. pip reads 0 as the option's value.
            **{"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"},
            "PIP_TARGET": str(self.folder / "site"),
        }


def _commands(source: str) -> Iterator[str]:
    """The commands of a shell script, comments left out; a backslash goes on in the next line."""
    pending = ""
    for line in source.splitlines():
        pending += line
        if line.endswith("\\"):
            pending += "\n"
        elif pending.strip() and not pending.lstrip().startswith("#"):
            yield pending
            pending = ""
        else:
            pending = ""
    assert not pending, f"{pending!r} ends with a backslash"


def _plain(text: str) -> str:
    """Without spaces at the ends of lines, without empty lines at both ends and what only a slow machine prints."""
    lines = [line.rstrip() for line in text.splitlines() if not _PROGRESS.fullmatch(line)]
    text = "\n".join(lines).strip("\n")
    return f"{text}\n" if text else ""


def _shows(shown: str, printed: str, whole: bool) -> bool:
    """Whether these lines of a page are what was printed, or, unless `whole`, stand somewhere in it."""
    pattern, figures = "", []
    for line in _plain(shown).splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
            continue
        for part in re.split(
            r"(…|(?:< 0\.001|(?<!\S)0) %| +|\b[\d.]+ (?:ms|s)\b|\b\d\S*e-\d+|\b[\d.]+ (?:%|dB))", line
        ):
            if re.fullmatch(r"(?:< 0\.001|0) %", part):  # rounding, which depends on the processor
                pattern += r"(?:< 0\.001|0) %"
            elif figure := re.fullmatch(r"([\d.]+) (%|dB)", part):
                figures.append((float(figure[1]), figure[2]))
                pattern += rf"([\d.e-]+) {figure[2]}"
            elif re.fullmatch(r"[\d.]+ m?s", part):
                pattern += r"[\d.]+ m?s"
            elif re.fullmatch(r"\d\S*e-\d+", part):
                pattern += r"(?:0|\d\S*e-\d+)"
            else:
                pattern += ".*" if part == "…" else " +" if part.startswith(" ") else re.escape(part)
        pattern += r"\n"
    found = re.fullmatch(pattern, printed) if whole else re.search(rf"(?m:^){pattern}", printed)
    return found is not None and all(
        _close(value, float(now), unit) for (value, unit), now in zip(figures, found.groups(), strict=True)
    )


def _close(shown: float, now: float, unit: str) -> bool:
    """Whether a measured figure is what a page shows, on another processor."""
    return abs(shown - now) <= (1.5 if unit == "dB" else max(0.3, 0.3 * shown))


def _write(file: Path, source: str) -> None:
    assert not file.is_absolute() and ".." not in file.parts, f"{file} is outside the page's folder"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Meanwhile this is the working folder, and modules are imported from there; they are forgotten afterwards."""
    was, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(was)
        sys.path[:] = path
        for name in sys.modules.keys() - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if Path(file).is_relative_to(folder):
                del sys.modules[name]
