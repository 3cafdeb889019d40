from __future__ import annotations

import itertools

import numpy as np
import pytest

from sct_lesion_losses.preprocessing import augmentation
from sct_lesion_losses.preprocessing.augmentation import Orientation

PATCH = np.arange(64, dtype=np.float32).reshape(4, 4, 4)  # all voxels differ


def lying(orientation: Orientation) -> np.ndarray:
    return orientation.in_plane(orientation.along_cord(PATCH))


@pytest.mark.parametrize("mirrored", list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("quarter_turns", range(4))
def test_a_patch_is_mirrored_and_then_rotated_in_the_axial_plane(mirrored, quarter_turns):
    expected = np.rot90(np.flip(PATCH, np.flatnonzero(mirrored)), quarter_turns)
    assert np.array_equal(lying(Orientation(mirrored, quarter_turns)), expected)


def test_all_sixteen_orientations_come_up():
    rng = np.random.default_rng(0)
    drawn = [augmentation.draw_orientation(rng, True, True) for _ in range(500)]
    # 4 rotations and a mirror in the axial plane, times a mirror along z.
    assert len({lying(orientation).tobytes() for orientation in drawn}) == 16


def test_without_mirrors_and_rotations_nothing_turns():
    drawn = augmentation.draw_orientation(np.random.default_rng(0), False, False)
    assert drawn == Orientation()


def test_shifts_fill_the_margin_evenly():
    rng = np.random.default_rng(0)
    shifts = np.array([augmentation.shift(rng, 2) for _ in range(2000)])
    # 0 to 4 in each direction, about 400 times each.
    counts = np.stack([np.bincount(column, minlength=5) for column in shifts.T])
    assert counts.shape == (2, 5)
    assert counts.min() > 300


@pytest.mark.parametrize("seed", range(10))
def test_changed_intensities_are_finite_and_leave_the_patch_alone(seed):
    patch = np.random.default_rng(seed).normal(size=(8, 8, 8)).astype(np.float32)
    kept = patch.copy()
    changed = augmentation.vary_intensity(patch, np.random.default_rng(seed), 1.0)
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert not np.array_equal(changed, kept)
    assert np.array_equal(patch, kept)


def test_a_constant_patch_survives_every_change():
    patch = np.full((8, 8, 8), 3, np.float32)
    assert np.isfinite(augmentation.vary_intensity(patch, np.random.default_rng(0), 1.0)).all()


def test_probability_0_changes_no_intensity():
    assert augmentation.vary_intensity(PATCH, np.random.default_rng(0), 0.0) is PATCH


@pytest.mark.parametrize("seed", range(10))
def test_a_stripe_is_brightest_near_the_middle_and_lasts_to_no_edge(seed):
    patch = np.full((48, 48, 48), 20, np.float32)
    gain = augmentation.brighten_middle(patch, (25.5, 21.5), np.random.default_rng(seed), 1.0) / 20
    assert gain.dtype == np.float32
    assert gain.min() >= 1
    assert 1.03 < gain.max() <= 1.6
    middle = np.argwhere(gain == gain.max())[0, :2]
    assert np.abs(middle - (25.5, 21.5)).max() <= 2.5
    x, y = np.indices((48, 48)) - np.reshape((25.5, 21.5), (2, 1, 1))
    assert gain[np.hypot(x, y) > 16].max() < 1.01
    assert (patch == 20).all()


def test_a_stripe_comes_as_often_as_asked():
    rng = np.random.default_rng(0)
    drawn = [augmentation.brighten_middle(PATCH, (1.5, 1.5), rng, 0.3) is PATCH for _ in range(900)]
    assert 0.65 < np.mean(drawn) < 0.75
