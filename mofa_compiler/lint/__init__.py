"""`mofa lint`: rules on a network, and what they found, for people and for CI.

    from mofa_compiler.lint import assert_clean, lint
    lint(model, torch.rand(1, 3, 256, 256)).findings

`mofa_compiler.lint` is this package; the function is `mofa_compiler.lint.lint`.
"""

from .api import assert_clean, lint
from .finding import Finding, Fix, Linted, Outcome, Position

__all__ = ["Finding", "Fix", "Linted", "Outcome", "Position", "assert_clean", "lint"]
