from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses import augment
from sct_lesion_losses.augment import Augmentation


def numbered(side: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A patch whose voxels all differ, and the mask of its even voxels."""
    patch = np.arange(side**3, dtype=np.float32).reshape(side, side, side)
    return patch, patch % 2 == 0


def test_mask_turns_with_its_patch():
    patch, mask = numbered()
    for seed in range(20):
        turned, turned_mask = augment.orient(patch, mask, np.random.default_rng(seed))
        assert np.array_equal(turned % 2 == 0, turned_mask)


def test_all_sixteen_orientations_come_up():
    patch, mask = numbered()
    rng = np.random.default_rng(0)
    seen = {augment.orient(patch, mask, rng)[0].tobytes() for _ in range(500)}
    # 4 rotations and a mirror in the axial plane, times a mirror along z.
    assert len(seen) == 16


def test_the_axis_of_the_cord_stays_the_axis_of_the_cord():
    patch = np.broadcast_to(np.arange(4, dtype=np.float32), (4, 4, 4))
    for seed in range(20):
        turned, _ = augment.orient(patch, patch > 1, np.random.default_rng(seed))
        assert np.ptp(turned, axis=(0, 1)).max() == 0


def test_without_mirrors_and_rotations_nothing_turns():
    patch, mask = numbered()
    still = Augmentation(mirrors=False, rotations=False)
    turned, _ = augment.apply(patch, mask, np.random.default_rng(0), still)
    assert np.array_equal(turned, patch)


def test_shifts_fill_the_margin_evenly():
    rng = np.random.default_rng(0)
    shifts = np.array([augment.shift(rng, 2) for _ in range(2000)])
    # 0 to 4 in each direction, about 400 times each.
    counts = np.stack([np.bincount(column, minlength=5) for column in shifts.T])
    assert counts.shape == (2, 5)
    assert counts.min() > 300


def test_without_a_margin_the_window_stays():
    assert augment.shift(np.random.default_rng(0), 0) == (0, 0)


@pytest.mark.parametrize("seed", range(10))
def test_changed_intensities_are_finite_and_leave_the_patch_alone(seed):
    patch = np.random.default_rng(seed).normal(size=(8, 8, 8)).astype(np.float32)
    kept = patch.copy()
    changed = augment.vary_intensity(patch, np.random.default_rng(seed), 1.0)
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert not np.array_equal(changed, kept)
    assert np.array_equal(patch, kept)


def test_a_constant_patch_survives_every_change():
    patch = np.full((8, 8, 8), 3, np.float32)
    assert np.isfinite(augment.vary_intensity(patch, np.random.default_rng(0), 1.0)).all()


def test_probability_0_changes_no_intensity():
    patch, _ = numbered()
    assert augment.vary_intensity(patch, np.random.default_rng(0), 0.0) is patch
