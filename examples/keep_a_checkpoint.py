"""Rewrite a trained checkpoint and keep its skill: calibrate, verify, recover. PSNR on photographs never used before.

    python examples/keep_a_checkpoint.py [--network pmrid] [--steps 200] [--out out/kept]

The network is this project's NAFNet (denoiser, sigma 25), or PMRID's published raw denoiser if its checkpoint is there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean

import torch
from safetensors.torch import load_file
from torch import nn

import mofa_compiler
from architectures import PMRID, NAFNet
from images import TRAINING, photograph, psnr, write_photographs
from mofa_compiler.data import calibration_batches, parse_degradation, restore

HERE = Path(__file__).resolve().parent
EVALUATED = ("astronaut", "coffee")


def network(name: str, pmrid: Path) -> tuple[nn.Module, int, str]:
    """A trained network, its input channels, and what makes its inputs from photographs."""
    if name == "pmrid":
        model: nn.Module = PMRID(channels=4)
        model.load_state_dict(torch.load(pmrid, map_location="cpu", weights_only=True))
        return model.eval(), 4, "raw:3200-6400"
    model = NAFNet()
    model.load_state_dict(load_file(HERE / "checkpoints/nafnet_denoiser.safetensors"))
    return model.eval(), 3, "gaussian:25"


def quality(model: nn.Module, degradation: str) -> float:
    """PSNR in dB, mean over `EVALUATED`."""
    figures = []
    for index, name in enumerate(EVALUATED):
        image = photograph(name)[:, :384, :512]
        pair = parse_degradation(degradation)(image, torch.Generator().manual_seed(index))
        with torch.no_grad():
            output = model(pair.input[None])[0]
        figures.append(psnr(restore(output, pair.levels), restore(pair.target, pair.levels)))
    return mean(figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("nafnet", "pmrid"), default="nafnet")
    parser.add_argument("--pmrid", type=Path, default=HERE.parent.parent / "shared/data/pmrid_raw_denoiser.ckp")
    parser.add_argument("--crops", type=int, default=64, help="to calibrate on (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of recovery (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/kept"))
    options = parser.parse_args()
    original, channels, degradation = network(options.network, options.pmrid)
    example = torch.rand(1, channels, 128, 128)
    print(f"original         {quality(original, degradation):.2f} dB")

    data_free = mofa_compiler.apply(original, "mofa", example)
    print(f"without data     {quality(data_free.model.eval(), degradation):.2f} dB")

    with tempfile.TemporaryDirectory() as photographs:
        write_photographs(TRAINING, Path(photographs))
        images = calibration_batches(photographs, channels=channels, degradation=degradation, crops=options.crops)
        result = mofa_compiler.apply(original, "mofa", example, calibration=images)
        print(f"calibrated       {quality(result.model.eval(), degradation):.2f} dB")

        result.save(options.out)
        verification = mofa_compiler.verify(options.out, original)
        print(f"verified         {'as it says' if verification.ok else '; '.join(verification.problems)}")

        recovery = mofa_compiler.recover(
            options.out, original, photographs, degradation=degradation, steps=options.steps, lr=3e-4
        )
        kept = quality(mofa_compiler.load(options.out), degradation)
        print(f"recovered        {kept:.2f} dB, after {recovery.steps} steps, {recovery.seconds:.0f} s")
    print(f"bundle in {options.out}")


if __name__ == "__main__":
    main()
