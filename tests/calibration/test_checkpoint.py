"""What calibration is for: a trained checkpoint keeps its skill, measured on photographs that it never saw."""

from __future__ import annotations

import pytest
import torch

from architectures import PMRID
from images import HELD_OUT, TRAINING, photograph
from mofa_compiler import apply
from mofa_compiler.calibration import Calibration
from mofa_compiler.data import calibration_batches
from raw_images import raw_cases, raw_psnr


def test_nothing_is_evaluated_on_what_was_calibrated_on() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    training = {photograph(name).numpy().tobytes() for name in TRAINING}
    assert not training & {photograph(name).numpy().tobytes() for name in HELD_OUT}


@pytest.mark.slow
def test_a_denoiser_keeps_its_skill_with_synthetic_images_alone(pmrid: PMRID) -> None:
    cases = raw_cases(["astronaut"], [6400])
    images = calibration_batches("synthetic", channels=4, degradation="raw:3200-6400", crops=16, size=64)
    example = torch.rand(1, 4, 64, 64)
    result = apply(pmrid, "mofa", example, Calibration(images, tuning=20))
    noisy, original = raw_psnr(pmrid, cases)
    _, inherited = raw_psnr(apply(pmrid, "mofa", example).model.eval(), cases)
    _, calibrated = raw_psnr(result.model.eval(), cases)
    assert noisy < inherited < calibrated
    assert original - calibrated < 0.5 * (original - inherited)
