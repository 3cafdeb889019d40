from __future__ import annotations

import numpy as np
import pytest
from small_tubes import with_voxel as tube

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.training.batches import PatchBatches

STILL = Augmentation(mirrors=False, rotations=False)


def test_batches_are_normalised_patches_and_their_masks():
    batches = PatchBatches([tube(lesion_at=30)], 2, augmentation=STILL)
    patches, lesions = batches[0]
    assert patches.shape == lesions.shape == (2, 48, 48, 48, 1)
    assert patches.dtype == lesions.dtype == np.float32
    assert patches.mean(axis=(1, 2, 3, 4)) == pytest.approx(0, abs=1e-4)
    assert patches.std(axis=(1, 2, 3, 4)) == pytest.approx(1, abs=1e-4)
    assert lesions.sum(axis=(1, 2, 3, 4)).tolist() == [1, 1]


def test_the_last_batch_is_filled_up():
    batches = PatchBatches([tube(72)], 2)  # 3 patches
    assert len(batches) == 2
    assert np.array_equal(batches[1][0][1], batches[0][0][0])


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    batches = PatchBatches([tube(90, margin=4)], 2, augmentation=Augmentation(), seed=3)
    first = batches[1][0]
    batches[0]
    assert np.array_equal(batches[1][0], first)


def test_epochs_differ_and_can_be_gone_to():
    batches = PatchBatches([tube(90, margin=4)], 2, augmentation=Augmentation(), seed=3)
    first = batches[0][0]
    batches.go_to(1)
    second = batches[0][0]
    assert not np.array_equal(first, second)
    again = PatchBatches([tube(90, margin=4)], 2, augmentation=Augmentation(), seed=3)
    again.go_to(1)
    assert np.array_equal(again[0][0], second)


def test_validation_shows_the_same_centred_patches_in_every_epoch():
    wide = tube(48, margin=4)
    batches = PatchBatches([wide], 1)
    inner = wide.values[4:-4, 4:-4]
    expected = (inner - inner.mean()) / inner.std()
    first = batches[0][0][0, ..., 0]
    assert first == pytest.approx(expected, abs=1e-4)
    batches.go_to(1)
    assert np.array_equal(batches[0][0][0, ..., 0], first)


def test_tubes_are_left_as_they_are():
    one = tube(60, margin=4, lesion_at=30)
    before = one.values.copy()
    batches = PatchBatches([one], 2, augmentation=Augmentation(intensity=1.0))
    for index in range(len(batches)):
        batches[index]
    assert np.array_equal(one.values, before)


def test_no_scan_at_all_is_refused():
    with pytest.raises(DataError, match="no scan to draw patches from"):
        PatchBatches([])
