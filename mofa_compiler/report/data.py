"""A result as a report: made once a run, and handed to whatever renders or saves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..analysis.anatomy import Anatomy as Inferred
from ..analysis.layers import signature
from ..analysis.network import Network
from ..analysis.network import Totals as Counted
from ..base.plain import plain_data, versions
from ..graph.program import Program
from ..result.rewrite import Rewrite, Step
from ..result.verdict import Verdict, verdict_data
from ..rewriting.roadmap import plain_options
from .guards import guards
from .model import SCHEMA, Anatomy, Layer, Opaque, Report, TensorShape, Totals
from .pictures import Picture, pictures_of
from .structure import Structure, cheap_rule, structure


def report(rewrite: Rewrite, shown: Sequence[Picture]) -> Report:
    """The whole report of a rewrite that was verified.

    Args:
        rewrite: what was done, with its verdicts.
        shown: its pictures.
    """
    program = rewrite.original.program
    if rewrite.verdicts is None:
        raise ValueError("a report says how far outputs moved: verify the rewrite first")
    document = {
        "roadmap": rewrite.roadmap.to_dict(),
        "recoveries": [recovery.to_data() for recovery in rewrite.provenance.recoveries],
        "decisions": None if rewrite.provenance.decisions is None else rewrite.provenance.decisions.to_data(),
        "quality": None if rewrite.quality is None else rewrite.quality.to_data(),
        "validation": None if rewrite.validation is None else rewrite.validation.to_data(),
        "passes": [_step(step, verdict) for step, verdict in zip(rewrite.steps, rewrite.verdicts, strict=True)],
    }
    return Report(
        schema_=SCHEMA,
        versions=versions(),
        model=program.name,
        checkpoint=rewrite.provenance.checkpoint,
        inputs=inputs_data(program),
        anatomy=anatomy_data(rewrite.original.anatomy),
        opaque=opaque_data(program),
        guards=tuple(guards(program.graph)),
        structure=structure_data(rewrite.original),
        layers=layers_data(rewrite.original),
        rewritten_layers=layers_data(rewrite.rewritten),
        before=totals_data(rewrite.before),
        after=totals_data(rewrite.after),
        measurements=(),
        images=tuple(picture.data for picture in shown),
        **plain_data(document),
    )


def reported(rewrite: Rewrite) -> tuple[Report, Sequence[Picture]]:
    """The report and the pictures that it names: made once, and handed on."""
    shown = pictures_of(rewrite)
    return report(rewrite, shown), shown


def inputs_data(program: Program) -> tuple[TensorShape, ...]:
    """The example inputs."""
    return tuple(TensorShape(shape=spec.shape, dtype=str(spec.dtype).removeprefix("torch.")) for spec in program.inputs)


def opaque_data(program: Program) -> tuple[Opaque, ...]:
    """What tracing could not see into."""
    return tuple(Opaque(path=path, cause=cause) for path, cause in program.opaque.items())


def anatomy_data(found: Inferred) -> Anatomy:
    """What the inference found, as far as a reader of a report needs it."""
    stages = [{"name": s.name, "kind": s.kind, "level": s.level, "units": s.units} for s in found.stages]
    return Anatomy(is_unet=found.is_unet, reason=found.reason, stages=stages)


def structure_data(network: Network) -> Structure:
    """What a drawing needs to know of a network besides its anatomy."""
    cheap = [stage.name for stage in network.anatomy.stages if network.is_cheap(stage)[0]]
    return Structure(**dict(structure(network)), cheap={**dict(cheap_rule(network)), "stages": cheap})


def layers_data(network: Network) -> tuple[Layer, ...]:
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
            Layer(
                path=path,
                stage=stage.name if stage else None,
                layer=type(module).__name__ if path in program.opaque else signature(module),
                parameters=parameters,
                macs=macs.get(path, 0),
            )
        )
    return tuple(found)


def totals_data(totals: Counted) -> Totals:
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
    return Totals(parameters=totals.parameters, macs=totals.macs, stages=stages)


def _step(step: Step, verdict: Verdict) -> dict[str, Any]:
    diff = step.diff
    return {
        "name": diff.pass_name,
        "options": plain_options(step.pass_) if step.pass_ else dict(diff.options),
        "exact": diff.exact,
        "edits": [vars(edit) for edit in diff.edits],
        "skips": [vars(skip) for skip in diff.skips],
        "before": totals_data(diff.before).to_data(),
        "after": totals_data(diff.after).to_data(),
        "verdict": verdict_data(verdict),
    }
