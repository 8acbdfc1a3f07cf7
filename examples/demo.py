"""What a rewritten checkpoint is worth: its time beside the original's, and both of them on photographs.

    python examples/demo.py out/demo [--picture out/demo.png] [--seconds 8]

Reads the bundle that `mofa rewrite` decided for the project's own denoiser (see `make demo`), runs it in turns with the
original on the engine that it was decided on, and both on photographs that nothing was trained on or fitted to.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import fmean

import matplotlib
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

import mofa_compiler
from architectures import NAFNet
from images import photograph, psnr
from mofa_compiler.data import add_noise
from mofa_compiler.runtime import measure

CHECKPOINT = Path(__file__).parent / "checkpoints" / "nafnet_denoiser.safetensors"
PHOTOGRAPHS = ("astronaut", "coffee")
SIGMA = 25 / 255
ENGINE = "onnxruntime"
SHAPE = (1, 3, 256, 256)


def restore(network: nn.Module, noisy: Tensor) -> Tensor:
    """(3, H, W) to (3, H, W), clipped to [0, 1]."""
    with torch.no_grad():
        restored: Tensor = network.eval()(noisy[None])[0]
    return restored.clamp(0, 1)


def draw(path: Path, panels: dict[str, Tensor]) -> None:
    """Write the panels (3, H, W) side by side as a PNG; a half-written file never takes its place."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.6), layout="constrained")
    for axis, (title, image) in zip(axes, panels.items(), strict=True):
        axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    figure.savefig(partial, dpi=80, format="png")
    pyplot.close(figure)
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="folder that `mofa rewrite` wrote")
    parser.add_argument("--picture", type=Path, default=Path("out/demo.png"))
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring, at most")
    options = parser.parse_args()
    original = NAFNet()
    original.load_state_dict(load_file(CHECKPOINT))
    rewritten = mofa_compiler.load(options.bundle)
    timed = measure(rewritten, original, ENGINE, input_shape=SHAPE, seconds=options.seconds)
    low, high = timed.widened
    generator = torch.Generator().manual_seed(0)
    table = Table("photograph", "noisy (dB)", "original (dB)", "rewritten (dB)", title="PSNR, Gaussian noise, sigma 25")
    for column in table.columns[1:]:
        column.justify = "right"
    panels: dict[str, Tensor] = {}
    quality: list[tuple[float, float]] = []
    for name in PHOTOGRAPHS:
        clean = photograph(name)
        noisy = add_noise(clean, SIGMA, 0, generator)
        before, after = restore(original, noisy), restore(rewritten, noisy)
        values = [psnr(image, clean) for image in (noisy, before, after)]
        quality.append((values[1], values[2]))
        table.add_row(name, *(f"{value:.2f}" for value in values))
        if not panels:
            crop = (slice(None), slice(40, 240), slice(130, 330))
            panels = {
                f"noisy, {values[0]:.1f} dB": noisy[crop],
                f"original, {values[1]:.1f} dB": before[crop],
                f"rewritten, {values[2]:.1f} dB": after[crop],
                "difference x 4": 0.5 + 4 * (after - before)[crop],
            }
    draw(options.picture, panels)
    Console().print(table)
    was, now = (fmean(values) for values in zip(*quality, strict=True))
    shape = "x".join(map(str, SHAPE))
    print(f"picture: {options.picture}")
    print(f"measured on {ENGINE} {timed.version}, 1 thread, {shape}, {timed.processor}:")
    print(f"{timed.ratio:.2f} of the time ({low:.2f} to {high:.2f}) at {now:.2f} of {was:.2f} dB", end="")
    print(" on photographs that nothing saw")


if __name__ == "__main__":
    main()
