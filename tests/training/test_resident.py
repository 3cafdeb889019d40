from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.preprocessing.sampler import TrainingTube
from sct_lesion_losses.training import resident
from sct_lesion_losses.training.batches import PatchBatches
from sct_lesion_losses.training.resident import ResidentBatches


def tube(length: int, margin: int = 0, order: str = "C") -> TrainingTube:
    side = 48 + 2 * margin
    rng = np.random.default_rng(length)
    values = rng.normal(20, 3, size=(side, side, length)).astype(np.float32)
    return TrainingTube(np.asarray(values, order=order), values > 23)


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_batches_are_those_cut_in_memory(margin, augmentation):
    tubes = [tube(60, margin), tube(75, margin, order="F"), tube(48, margin)]
    settings = {"augmentation": augmentation, "seed": 5}
    host, device = PatchBatches(tubes, 3, **settings), ResidentBatches(tubes, 3, **settings)
    assert len(host) == len(device) == 3
    for epoch in range(3):
        for batches in (host, device):
            batches.go_to(epoch)
        for index in range(len(host)):
            for expected, found in zip(host[index], device[index], strict=True):
                np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)


def test_a_patch_without_contrast_becomes_zeros():
    flat = TrainingTube(np.full((48, 48, 48), 1000.7, np.float32), np.zeros((48, 48, 48), bool))
    patches, lesions = ResidentBatches([flat], 1)[0]
    assert np.abs(np.asarray(patches)).max() == 0
    assert np.asarray(lesions).max() == 0


def test_changed_intensities_stay_in_memory():
    assert not resident.possible([tube(48)], Augmentation(intensity=0.5))
    with pytest.raises(UsageError, match="cannot be cut on the device"):
        ResidentBatches([tube(48)], 1, augmentation=Augmentation(intensity=0.5))


def test_more_voxels_than_a_device_can_count_stay_in_memory(monkeypatch):
    monkeypatch.setattr(resident, "MOST_VOXELS", 48**3 + 1)
    assert resident.possible([tube(48)], None)
    assert not resident.possible([tube(48), tube(48)], None)
