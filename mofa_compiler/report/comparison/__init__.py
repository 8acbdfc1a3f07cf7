"""Several bundles side by side: sizes, times and quality, and where their layers differ.

The data form, schema `mofa-comparison/1`:

- `schema`
- `networks`: one summary a bundle, as `report.summary.summary` describes it, and `original_sha256`: of the weights that
  its original had, empty where that is not known
- `same_original`: whether all were made from the same architecture, by its name and its layers
- `notes`: sentences on what of this cannot be compared, such as MACs at different input sizes
- `differences`: one a bundle after the first: `{"first", "other", "same", "only_first", "only_other", "different"}`:
  the two names, how many layers of the rewritten networks are the same by path and form, and lists of layers `{"path",
  "stage", "layer", "parameters", "macs"}`: those that only one of the two has, by path, and those of different form,
  where `layer`, `parameters` and `macs` are pairs. It is null where a report, of an older version, has no layers
"""

from .data import compare
from .html import render as html
from .markdown import render as markdown
from .terminal import print_comparison

__all__ = ["compare", "html", "markdown", "print_comparison"]
