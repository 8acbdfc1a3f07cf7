"""Every error and warning of this package, by their stable names; written in `mofa_compiler.base`."""

from .base.error_codes import ERROR_CODES
from .base.errors import (
    AnatomyError,
    BundleError,
    CalibrationError,
    CaptureError,
    CheckpointError,
    DataError,
    EngineError,
    ExportError,
    InputError,
    LintError,
    MofaError,
    RecoveryError,
    ReportError,
    RewriteError,
    RoadmapError,
    TargetError,
    VerificationError,
)

__all__ = [
    "ERROR_CODES",
    "AnatomyError",
    "BundleError",
    "CalibrationError",
    "CaptureError",
    "CheckpointError",
    "DataError",
    "EngineError",
    "ExportError",
    "InputError",
    "LintError",
    "MofaError",
    "RecoveryError",
    "ReportError",
    "RewriteError",
    "RoadmapError",
    "TargetError",
    "VerificationError",
]
