"""What a trained checkpoint keeps when its weights are inherited in closed form: PMRID's raw denoiser, without data.

    python tests/benchmarks/inheritance.py [--checkpoint pmrid_raw_denoiser.ckp]

Prints a table of PSNR (dB, raw domain, mean over ISO 3200 and 6400 on photographs that the network never saw).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from architectures import PMRID
from mofa_compiler import Roadmap, apply
from mofa_compiler.passes import DecoupleUpsampling, PConvToPDWConv, RestoreKernels, SepConvToPConv, WidenPortion
from raw_images import raw_cases, raw_psnr

CHECKPOINT = Path(__file__).parents[3] / "shared/data/pmrid_raw_denoiser.ckp"

PCONV = [SepConvToPConv()]
WIDE = [*PCONV, WidenPortion(where=("middle",)), WidenPortion(where=("cheap",))]
FULL = [*WIDE, PConvToPDWConv(threshold=32)]
ROADMAPS = {
    "sepconv → PConv": Roadmap(PCONV),
    "… + widened (exact)": Roadmap(WIDE),
    "full roadmap, upsampling left alone": Roadmap(FULL),
    "the same with kernels restored": Roadmap([*WIDE, RestoreKernels(), PConvToPDWConv(threshold=32)]),
    "PDWConv everywhere (threshold 0)": Roadmap([*WIDE, PConvToPDWConv(threshold=0)]),
    "full roadmap (preset mofa)": Roadmap.load("mofa"),
    "upsampling decoupled only, separable": Roadmap([DecoupleUpsampling(convolution="separable")]),
    "upsampling decoupled only, dense": Roadmap([DecoupleUpsampling(convolution="dense")]),
    "upsampling decoupled only, PConv": Roadmap([DecoupleUpsampling()]),
    "authors' choices, biases dropped (preset paper-pmrid)": Roadmap.load("paper-pmrid"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    network = PMRID(channels=4)
    network.load_state_dict(torch.load(options.checkpoint, map_location="cpu", weights_only=True))
    network.eval()
    cases = raw_cases()
    noisy, original = raw_psnr(network, cases)
    table = Table("network", "parameters", "PSNR (dB)")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("noisy input", "", f"{noisy:.2f}")
    table.add_row("original", f"{sum(p.numel() for p in network.parameters()):,}", f"{original:.2f}")
    naive = apply(network, ROADMAPS["sepconv → PConv"]).model
    naive.load_state_dict({**naive.state_dict(), **{k: v for k, v in network.state_dict().items() if "pointwise" in k}})
    table.add_row("sepconv → PConv, kernels copied, no compensation", "", f"{raw_psnr(naive, cases)[1]:.2f}")
    for name, roadmap in ROADMAPS.items():
        result = apply(network, roadmap)
        table.add_row(name, f"{result.after.parameters:,}", f"{raw_psnr(result.model, cases)[1]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
