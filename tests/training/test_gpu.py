"""What can be seen on a GPU alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_tubes import with_block

from sct_lesion_losses.training import devices, fit, steps
from sct_lesion_losses.training.recipe import study
from sct_lesion_losses.training.steps import Machine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(devices.device() != "gpu", reason="there is no GPU"),
]
RECIPE = study(
    patches_per_epoch=32, validation_patches=8, epochs=2, rate=1e-3, precision="mixed_bfloat16"
)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_training_lowers_the_validation_loss_in_every_precision(precision, tmp_path):
    recipe = replace(RECIPE, precision=precision)
    history = fit.fit(
        [with_block(0, 120), with_block(1, 120)], [with_block(2, 120)], recipe, tmp_path
    ).progress.history
    assert history[1].val_loss < history[0].val_loss


def test_steps_are_compiled_and_the_cohort_lies_on_the_device_by_default():
    assert devices.jit_compile()
    assert steps.laid_out(Machine(), 8, [with_block(0, 120)], RECIPE.augmentation).on_device


def test_a_batch_beyond_the_memory_is_taken_in_parts(tmp_path, caplog):
    huge = replace(RECIPE, batch_size=2048, patches_per_epoch=2048, epochs=1)
    fitted = fit.fit([with_block(0, 120), with_block(1, 120)], [with_block(2, 120)], huge, tmp_path)
    assert "of the 2048 patches of a batch are taken at a time" in caplog.text
    assert np.isfinite(fitted.progress.history[0].loss)
