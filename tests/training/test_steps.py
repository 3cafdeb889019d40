from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.errors import TrainingError, UsageError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.preprocessing.sampler import TrainingTube
from sct_lesion_losses.training import devices, steps
from sct_lesion_losses.training.steps import Machine


def laid_out(machine: Machine, **augmentation: float) -> Machine:
    tube = TrainingTube(np.zeros((48, 48, 48), np.float32), np.zeros((48, 48, 48), bool))
    return steps.laid_out(machine, 8, [tube], Augmentation(**augmentation))


def test_on_a_cpu_patches_are_cut_in_memory_by_default(monkeypatch):
    monkeypatch.setattr(devices, "device", lambda: "cpu")
    assert laid_out(Machine()).on_device is False
    assert laid_out(Machine(on_device=True)).on_device is True


def test_on_a_gpu_patches_are_cut_there_where_that_is_possible(monkeypatch):
    monkeypatch.setattr(devices, "device", lambda: "gpu")
    assert laid_out(Machine()).on_device is True
    assert laid_out(Machine(), intensity=0.5).on_device is False
    assert laid_out(Machine(devices=2)).on_device is False
    assert laid_out(Machine(micro_batch=2)).on_device is False


def test_parts_as_large_as_the_batch_are_the_batch():
    assert laid_out(Machine(micro_batch=8)).micro_batch is None
    assert laid_out(Machine(micro_batch=7)).micro_batch == 7


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine(devices=3), "a batch of 8 patches cannot be shared by 3 devices"),
        (Machine(devices=2, micro_batch=2), "either shared among devices or taken in parts"),
    ],
)
def test_what_does_not_fit_together_is_refused(machine, said):
    with pytest.raises(UsageError, match=said):
        steps.check(8, machine)


def test_memory_is_saved_in_steps_until_nothing_is_left_to_save():
    machine = Machine(on_device=True)
    for on_device, micro in ((False, None), (False, 4), (False, 2), (False, 1)):
        machine = steps.smaller(machine, 8)
        assert (machine.on_device, machine.micro_batch) == (on_device, micro)
    with pytest.raises(TrainingError, match="a single patch does not fit"):
        steps.smaller(machine, 8)


def test_shared_batches_are_not_taken_in_parts():
    with pytest.raises(TrainingError, match="smaller -batch"):
        steps.smaller(Machine(devices=2, on_device=False), 8)
