"""Train a small NAFNet to remove Poisson-Gaussian noise from photographs, on a CPU, in about 25 minutes.

It learns from crops of the photographs `images.TRAINING` and of dead leaves images, blind to the noise level, and is
tested on whole photographs of `images.HELD_OUT` (of which motorcycle_right shows a scene that it was trained on, from
another viewpoint). With --steps a run is reproducible on one machine; with --minutes
the number of steps depends on the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn

from architectures import NAFNet
from images import HELD_OUT, TRAINING, photograph, psnr
from mofa_compiler.data import add_noise, dead_leaves

ARCHITECTURE: dict[str, Any] = {
    "img_channel": 3,
    "width": 16,
    "middle_blk_num": 1,
    "enc_blk_nums": [1, 1, 1],
    "dec_blk_nums": [1, 1, 1],
}
CHECKPOINT = Path(__file__).parent / "checkpoints" / "nafnet_denoiser.safetensors"
GAUSSIAN = (5.0, 50.0)  # range of the read noise's standard deviation in training, in 1/255
POISSON = 0.01  # largest gain of the shot noise in training, for images in [0, 1]
SMALLEST_SCALE = 0.5  # of a training crop with respect to its photograph
LEAVES = 32  # dead leaves images, each LEAVES_SIZE wide
LEAVES_SIZE = 192
LEAVES_SHARE = 0.2  # of the crops
TESTS = tuple((sigma, poisson) for poisson in (0.0, POISSON) for sigma in (15.0, 25.0, 50.0))


class Crops:
    """An endless source of (noisy, clean) batches, each (`batch`, 3, `crop`, `crop`)."""

    def __init__(self, batch: int, crop: int, generator: torch.Generator) -> None:
        self.batch, self.crop, self.generator = batch, crop, generator
        self.photographs = [photograph(name) for name in TRAINING]
        self.leaves = [dead_leaves(LEAVES_SIZE, 3, generator) for _ in range(LEAVES)]

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def _integer(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def clean(self) -> Tensor:
        """A random crop, rescaled, flipped, rotated by quarter turns and with its channels permuted."""
        images = self.leaves if self._uniform(0, 1) < LEAVES_SHARE else self.photographs
        image = images[self._integer(len(images))]
        side = round(self.crop / self._uniform(SMALLEST_SCALE, 1))
        top, left = (self._integer(length - side + 1) for length in image.shape[1:])
        image = image[torch.randperm(3, generator=self.generator), top : top + side, left : left + side]
        if self._integer(2):
            image = image.flip(2)
        image = image.rot90(self._integer(4), (1, 2))[None]
        return F.interpolate(image, size=(self.crop, self.crop), mode="bilinear", antialias=True)[0].clamp(0, 1)

    def next(self) -> tuple[Tensor, Tensor]:
        clean = [self.clean() for _ in range(self.batch)]
        noisy = [
            add_noise(image, self._uniform(*GAUSSIAN) / 255, self._uniform(0, POISSON), self.generator)
            for image in clean
        ]
        return torch.stack(noisy), torch.stack(clean)


def train(network: nn.Module, crops: Crops, lr: float, minutes: float, steps: int | None, console: Console) -> int:
    """Train in place for `steps`, or for `minutes` if that is None, with a cosine schedule; returns the steps made."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.9), weight_decay=1e-4)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    start, step, done, losses = time.monotonic(), 0, 0.0, list[float]()
    network.train()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=1.0)
        while done < 1:
            rate = lr * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(done * math.pi))
            for group in optimizer.param_groups:
                group["lr"] = rate
            noisy, clean = crops.next()
            output = network(noisy.contiguous(memory_format=torch.channels_last))  # faster than NCHW on a CPU
            errors = (output - clean).square().mean((1, 2, 3))
            loss = 10 * torch.log10(errors + 1e-8).mean()  # minus the mean PSNR of the crops, in dB
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            losses.append(loss.item())
            step += 1
            before = done
            done = min(1.0, step / steps if steps is not None else (time.monotonic() - start) / (60 * minutes))
            progress.update(task, completed=done, description=f"step {step}")
            if int(20 * done) > int(20 * before):
                progress.console.print(f"step {step}, {done:4.0%}: {-mean(losses):.2f} dB on the training crops")
                losses.clear()
    return step


def evaluate(network: nn.Module, seed: int) -> dict[str, dict[str, tuple[float, float]]]:
    """{photograph: {noise: (noisy dB, denoised dB)}} of the held-out photographs at each noise of `TESTS`."""
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    results: dict[str, dict[str, tuple[float, float]]] = {}
    for name in HELD_OUT:
        clean = photograph(name)[None]
        results[name] = {}
        for sigma, poisson in TESTS:
            noisy = add_noise(clean, sigma / 255, poisson, generator)
            with torch.no_grad():
                denoised = network(noisy).clamp(0, 1)
            noise = f"sigma {sigma:g}" + (f", poisson {poisson:g}" if poisson else "")
            results[name][noise] = psnr(noisy, clean), psnr(denoised, clean)
    return results


def print_results(results: dict[str, dict[str, tuple[float, float]]], console: Console) -> None:
    table = Table("photograph", "noise", *(f"{title} dB" for title in ("noisy", "denoised", "gain")))
    for noise in results[HELD_OUT[0]]:
        rows = {name: results[name][noise] for name in HELD_OUT}
        rows["mean"] = mean(noisy for noisy, _ in rows.values()), mean(denoised for _, denoised in rows.values())
        for name, (noisy, denoised) in rows.items():
            figures = (f"{noisy:.2f}", f"{denoised:.2f}", f"{denoised - noisy:+.2f}")
            table.add_row(name, noise, *figures, end_section=name == "mean")
    console.print(table)


def save(network: nn.Module, path: Path, metadata: dict[str, Any]) -> None:
    """Write the float32 weights with `metadata`, whose values become JSON; `path` is replaced in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.float().contiguous() for name, tensor in network.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        save_file(weights, temporary, {key: json.dumps(value) for key, value in metadata.items()})
        temporary.chmod(0o644)
        os.replace(temporary, path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    duration = parser.add_mutually_exclusive_group()
    duration.add_argument("--minutes", type=float, default=25.0, help="training time (default: %(default)s)")
    duration.add_argument("--steps", type=int, help="training steps, instead of --minutes")
    parser.add_argument("--batch", type=int, default=16, help="crops in a batch (default: %(default)s)")
    parser.add_argument("--crop", type=int, default=64, help="side of a crop in pixels, <= 96 (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, crops and noise (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="the checkpoint (default: %(default)s)")
    args = parser.parse_args(arguments)

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    console = Console()
    network = NAFNet(**ARCHITECTURE)
    crops = Crops(args.batch, args.crop, torch.Generator().manual_seed(args.seed))
    steps = train(network, crops, args.lr, args.minutes, args.steps, console)
    results = evaluate(network, args.seed)
    print_results(results, console)
    options = {**vars(args), "steps": steps, "out": args.out.name}
    save(network, args.out, {"architecture": {"NAFNet": ARCHITECTURE}, "args": options, "held_out_psnr": results})
    console.print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB after {steps} steps")


if __name__ == "__main__":
    main()
