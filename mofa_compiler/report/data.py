"""A result as plain data, schema `mofa-report/1`: what `report.json` holds and what every other format is made from.

Keys, in order:

- `schema`: `"mofa-report/1"`
- `versions`: `{"mofa-compiler", "torch"}`
- `model`: class name of the original
- `checkpoint`: what its weights were read from, in words; empty where they are those that it is built with, null where
  that is not known
- `roadmap`: `{"name", "description", "pass": [{"name", <options>...}]}`, as `Roadmap.from_dict` reads it
- `inputs`: one `{"shape": [int], "dtype"}` an example input
- `anatomy`: `{"is_unet", "reason", "stages": [{"name", "kind", "level", "units": [path]}]}`
- `opaque`: `[{"path", "cause"}]`, the modules that tracing could not see into
- `guards`: `[{"module", "fixes", "line"}]`, what was decided for this input size, as in `report.captured`
- `structure`: the original drawn as a U, and which of its stages are cheap (below)
- `layers`, `rewritten_layers`: `[{"path", "stage", "layer", "parameters", "macs"}]`, the modules with parameters or
  MACs of the original and of the rewritten network, in execution order, `layer` being the short form as in `edits`; of
  a module that tracing could not see into, its class
- `before`, `after`: totals (below) of the original and of the rewritten network
- `passes`: one object a pass, in order, and one named `calibration`, before the lowerings, if there was one:
    - `name`, `options`
    - `exact`: whether every edit keeps the function that the network computes
    - `edits`: `[{"path", "stage", "before", "after", "parameters", "macs", "fate", "exact", "note", "error"}]`: the
      layer's short form before and after (`""` where it is gone), the changes in parameters and MACs, and where its
      weights come from: `exact`, `merged`, `inherited`, `compensated`, `calibrated`, `reordered` (channels
      permuted), `fresh` or `removed`; `error` is null or the largest error
      of an exact edit, relative to the largest output, in float64
    - `skips`: `[{"path", "stage", "layer", "code", "reason"}]`, layers of the right kind that were left alone; a code
      is one of `rewriting.SKIP_CODES` or a pass's own, and stays where the words of the reason may change
    - `before`, `after`: totals of the network before and after this pass
    - `verdict`: `{"relative_error", "step_psnr", "accumulated", "psnr", "measured_on", "holds", "problem", "layers",
      "whole"}`: how far the pass moved the output, how far all passes so far did, against the original, with PSNR in dB
      (null where the outputs agree), and on what inputs; whether what was declared exact is, and a sentence on it where
      it is not; the largest `error` of its edits or null; and null or, for a pass that claims to be exact, the check of
      the whole network:
        - `sizes`: `[{"shape", "error"}]`, the largest difference relative to the largest output, at each input size
        - `tolerance`, `precision`: what rounding may come to, in what was computed (`"float64"` where the network can)
        - `note`: why one size only, or another precision; `departs`: the layer from which on values differ; or `""`
- `recoveries`: one object a training by distillation since the rewrite: `{"steps", "seconds", "psnr_before",
  "psnr_after", "psnr_original", "best_step", "history": [{"step", "seconds", "loss", "psnr"}], "data", "settings"}`;
  PSNR in dB of validation examples against the ground truth or, where `psnr_original` is null, the original's output;
  `best_step` is the step whose weights were kept, 0 where none was better than the start
- `decisions`: null, or what was decided by measurement on a target: `conditions` (`engine`, `version`, `torch`,
  `processor`, `threads`, `input`), `layers` (`[{"paths", "layer", "chosen", "reason", "alternatives": [{"name", "ms",
  "ratio", "interval", "problem"}]}]`: layers that are alike, the piece of the network around one of them timed
  with every alternative, the first being the original), `networks` and `limit` (`{"name", "ms", "original_ms", "ratio",
  "interval", "control"}`: whole networks against the original), `chosen`, and all of it in a `sentence`
- `measurements`: what `mofa measure --record` timed: `[{"engine", "version", "processor", "threads", "input",
  "original_ms", "rewritten_ms", "ratio", "interval", "verdict", "control"}]`: medians in ms, the second divided by the
  first with its 95 % interval, whether the rewritten network is `faster`, `slower` or that is `inside the noise`, and
  the interval of the original against itself, in the same rounds, which tells that noise (`base/significance.py`)
- `images`: one object an image that both networks were run on, with the weights that the rewritten one has now:
    - `name`, `source` (in words: whether the network was fitted on it), `size` (`[height, width]` of the output),
      `levels`: which values of the output are black and white, `shown`: of an output that is no usual image, in words
      what one sees; empty for others
    - `input`, `original`, `rewritten`, `target`, `difference`: PNG files in the bundle, two of them the networks'
      outputs, `difference` grey plus `gain` times the second minus the first; `target` may be null
    - `psnr` in dB, `ssim`: `{"input", "original", "rewritten", "between"}`, of values clipped to [0, 1], against the
      target (null where it is unknown), the last of the two outputs against each other (`psnr` null where equal)

The structure is `{"passes", "skips", "aside", "cheap"}`, all in names of stages: `passes`, `skips` and `aside` are as
in `report.distribution`, and empty for what is no U-Net; `cheap` is `{"below", "reference", "limit", "rule",
"stages"}`: as there, with the names of the cheap stages.

Totals are `{"parameters", "macs", "stages"}`; a stage is `{"name", "parameters", "macs", "vanilla", "parameters_share",
"macs_share", "vanilla_share"}`: `vanilla` is the MACs by the paper's estimate, as if every convolution were a vanilla
one, and the shares are those of the network's, in [0, 1]. The `stage` of an edit or a skip is null where the layer is
in none. Numbers that JSON does not have are null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..analysis.anatomy import Anatomy
from ..analysis.layers import signature
from ..analysis.network import Network, Totals
from ..base.plain import plain_data, versions
from ..result.rewrite import Rewrite, Step
from ..result.verdict import Verdict, verdict_data
from ..rewriting.roadmap import plain_options
from .guards import guards
from .pictures import Picture, pictures_of
from .structure import cheap_rule, structure

SCHEMA = "mofa-report/1"


def report(rewrite: Rewrite, shown: Sequence[Picture] | None = None) -> dict[str, Any]:
    """The whole report of a rewrite that was verified.

    Args:
        rewrite: what was done, with its verdicts.
        shown: its pictures, if they were made already.
    """
    program = rewrite.original.program
    if rewrite.verdicts is None:
        raise ValueError("a report says how far outputs moved: verify the rewrite first")
    document = {
        "schema": SCHEMA,
        "versions": versions(),
        "model": program.name,
        "checkpoint": rewrite.provenance.checkpoint,
        "roadmap": rewrite.roadmap.to_dict(),
        "inputs": [{"shape": spec.shape, "dtype": str(spec.dtype).removeprefix("torch.")} for spec in rewrite.inputs],
        "anatomy": anatomy_data(rewrite.original.anatomy),
        "opaque": [{"path": path, "cause": cause} for path, cause in program.opaque.items()],
        "guards": guards(program.graph),
        "structure": structure_data(rewrite.original),
        "layers": layers_data(rewrite.original),
        "rewritten_layers": layers_data(rewrite.rewritten),
        "before": totals_data(rewrite.before),
        "after": totals_data(rewrite.after),
        "passes": [_pass(step, verdict) for step, verdict in zip(rewrite.steps, rewrite.verdicts, strict=True)],
        "recoveries": [recovery.to_data() for recovery in rewrite.provenance.recoveries],
        "decisions": None if rewrite.provenance.decisions is None else rewrite.provenance.decisions.to_data(),
        "measurements": [],
        "images": [picture.data for picture in (pictures_of(rewrite) if shown is None else shown)],
    }
    plain: dict[str, Any] = plain_data(document)
    return plain


def anatomy_data(anatomy: Anatomy) -> dict[str, Any]:
    """What the inference found, as far as a reader of a report needs it."""
    stages = [{"name": s.name, "kind": s.kind, "level": s.level, "units": s.units} for s in anatomy.stages]
    return {"is_unet": anatomy.is_unet, "reason": anatomy.reason, "stages": stages}


def structure_data(network: Network) -> dict[str, Any]:
    """What a drawing needs to know of a network besides its anatomy."""
    cheap = [stage.name for stage in network.anatomy.stages if network.is_cheap(stage)[0]]
    return {**asdict(structure(network)), "cheap": {**cheap_rule(network), "stages": cheap}}


def layers_data(network: Network) -> list[dict[str, Any]]:
    """The modules of a network with parameters or MACs, each once, in execution order."""
    program, anatomy, convolutions = network.program, network.anatomy, network.layers
    macs: dict[str, int] = {path: layer.macs for path, layer in convolutions.items()}
    for node, number in network.other_macs.items():
        if node.op == "call_module":
            macs[str(node.target)] = macs.get(str(node.target), 0) + number
    found = []
    for path in dict.fromkeys(str(node.target) for node in program.graph.nodes if node.op == "call_module"):
        module = program.modules[path]
        parameters = sum(parameter.numel() for parameter in module.parameters())
        if not parameters and not macs.get(path):
            continue
        stage = anatomy.stage_of(path)
        found.append(
            {
                "path": path,
                "stage": stage.name if stage else None,
                "layer": type(module).__name__ if path in program.opaque else signature(module),
                "parameters": parameters,
                "macs": macs.get(path, 0),
            }
        )
    return found


def totals_data(totals: Totals) -> dict[str, Any]:
    """Totals with each stage's share of them."""
    sums = {
        "parameters": totals.parameters,
        "macs": totals.macs,
        "vanilla": sum(share.vanilla for share in totals.stages),
    }
    stages = []
    for share in totals.stages:
        amounts = {key: getattr(share, key) for key in sums}
        shares = {f"{key}_share": amounts[key] / whole if whole else 0.0 for key, whole in sums.items()}
        stages.append({"name": share.stage, **amounts, **shares})
    return {"parameters": totals.parameters, "macs": totals.macs, "stages": stages}


def _pass(step: Step, verdict: Verdict) -> dict[str, Any]:
    diff = step.diff
    return {
        "name": diff.pass_name,
        "options": plain_options(step.pass_) if step.pass_ else dict(diff.options),
        "exact": diff.exact,
        "edits": [asdict(edit) for edit in diff.edits],
        "skips": [asdict(skip) for skip in diff.skips],
        "before": totals_data(diff.before),
        "after": totals_data(diff.after),
        "verdict": verdict_data(verdict),
    }
