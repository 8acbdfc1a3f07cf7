"""Rules 0xx and 9xx: what the run itself has to say; the runner raises these, no rule checks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..finding import Default, Finding, Level
from ..rule import Rule, Subject


@dataclass(frozen=True)
class _Told(Rule):
    level: ClassVar[Level] = "error"

    def check(self, subject: Subject) -> Iterator[Finding]:
        yield from ()


@dataclass(frozen=True)
class UnusedSuppression(_Told):
    """A comment that suppresses nothing.

    ## What it does
    Finds `# mofa: ignore[...]` on lines where no finding of these rules is, and codes that do not exist.

    ## Why is this bad?
    It hides the next finding on that line, which nobody meant to ignore.

    ## Example
    ```python
    self.conv = nn.Conv2d(64, 64, 1)  # mofa: ignore[MOFA201]
    ```

    ## Use instead
    ```python
    self.conv = nn.Conv2d(64, 64, 1)
    ```

    ## Fix safety
    There is no fix by machine: delete the comment.
    """

    code: ClassVar[str] = "MOFA001"
    name: ClassVar[str] = "unused-suppression"
    level: ClassVar[Level] = "warning"


@dataclass(frozen=True)
class NotBuilt(_Told):
    """The model could not be built.

    ## What it does
    Tells of a target that cannot be imported or constructed: no such file or name, code that raises, arguments that do
    not fit.

    ## Why is this bad?
    Nothing else can be said of the model. Other models of the run are linted all the same; the exit code is 2.

    ## Example
    A class whose constructor needs arguments that the configuration does not give.

    ## Use instead
    ```toml
    [[tool.mofa.models]]
    target = "net.py:Net"
    args = { width = 32 }
    ```

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA901"
    name: ClassVar[str] = "not-built"


@dataclass(frozen=True)
class NotTraced(_Told):
    """The model could not be traced.

    ## What it does
    Tells of a model whose `forward` torch.fx cannot follow, or that does not take the input.

    ## Why is this bad?
    Nothing else can be said of the model. Other models of the run are linted all the same; the exit code is 2.

    ## Example
    ```python
    def forward(self, x):
        return self.a(x) if x.mean() > 0 else self.b(x)
    ```

    ## Use instead
    A `forward` whose course depends on shapes alone, or a smaller part of the model as the target.

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA902"
    name: ClassVar[str] = "not-traced"


@dataclass(frozen=True)
class NotAnalysed(_Told):
    """A rule, or the analysis, failed on this model.

    ## What it does
    Tells of an error that nobody foresaw, and of a graph whose resolutions make no sense.

    ## Why is this bad?
    What the failed rule would have found is not known. `--debug` shows the traceback: please report it.

    ## Example
    None is known.

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA903"
    name: ClassVar[str] = "not-analysed"


@dataclass(frozen=True)
class NoConvolutions(_Told):
    """The network has no convolution.

    ## What it does
    Tells of a model in which no convolution runs on the input.

    ## Why is this bad?
    All other rules are about convolutions: most likely the target is another one than was meant.

    ## Example
    ```python
    nn.Linear(10, 10)
    ```

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA904"
    name: ClassVar[str] = "no-convolutions"


@dataclass(frozen=True)
class OpaquePart(Rule):
    """A part of the network that cannot be seen into.

    ## What it does
    Finds submodules that torch.fx cannot trace, with the cause. Off by default.

    ## Why is this bad?
    No rule looks inside, and no pass rewrites what is there.

    ## Example
    A submodule whose `forward` loops over a number of times that depends on values.

    ## Fix safety
    There is no fix by machine.
    """

    code: ClassVar[str] = "MOFA905"
    name: ClassVar[str] = "opaque-part"
    default: ClassVar[Default] = "off"
    level: ClassVar[Level] = "note"

    def check(self, subject: Subject) -> Iterator[Finding]:
        for path, cause in subject.network.program.opaque.items():
            module = subject.network.program.modules.get(path)
            yield self.finding(subject, path, type(module).__name__, f"cannot be seen into: {cause}")
