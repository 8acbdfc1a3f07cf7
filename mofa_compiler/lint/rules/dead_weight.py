"""Rule 206: weights that calibration shows to do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from ...base.words import signed
from ...rewriting.engine import rewrite
from ...rewriting.roadmap import Roadmap
from ..finding import Finding
from ..rule import Rule, Subject
from .matching import installed


@dataclass(frozen=True)
class DeadWeight(Rule):
    """A layer, or some of its channels, that does nothing on any calibration input.

    ## What it does
    Finds layers whose output is the same number everywhere, or is read by nothing that is not, and channels of which
    that holds: by the weights, and by what activations let through on calibration inputs, also at other exposures and
    with more noise. It runs where there are such inputs: `mofa lint --calibrate`, or `lint(model, calibration=...)`.

    ## Why is this bad?
    It is computed and shipped all the same. In the weights that PMRID's authors published, the bottleneck's activation
    is zero on every photograph, so that 71 % of the parameters and 19 % of the MACs have no influence on the output.

    ## Example
    ```python
    x = self.upsample(relu(self.bottleneck(x))) + skip  # relu(...) is zero everywhere
    ```

    ## Use instead
    The network without: `mofa rewrite --calibrate` with pass `eliminate-dead-channels`.

    ## Fix safety
    There is no fix by `--fix`: what was seen on some inputs is no proof for all of them.
    """

    code: ClassVar[str] = "MOFA206"
    name: ClassVar[str] = "dead-weight"
    fixes: ClassVar[Literal["exact", "approximate"] | None] = None
    needs_calibration: ClassVar[bool] = True

    def check(self, subject: Subject) -> Iterator[Finding]:
        from ...calibration import Calibration, informed  # slow to import, and most linting needs none

        pass_ = installed("eliminate-dead-channels")
        if pass_ is None or subject.calibration is None:
            return
        calibration = Calibration(subject.calibration)
        roadmap, _ = informed(Roadmap([pass_]), subject.network, calibration, lambda *_: None)
        _, diff = rewrite(subject.network, roadmap.passes[0])
        for edit in diff.edits:
            if edit.macs < 0 or edit.parameters < 0:
                saved = f"{signed(edit.parameters)} parameters, {signed(edit.macs)} MACs"
                text = f"{'does' if not edit.after else 'has channels that do'} nothing on any calibration input"
                yield self.finding(subject, edit.path, edit.before, f"{text}: {saved} without", stage=edit.stage)
