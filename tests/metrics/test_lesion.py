from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.metrics.lesionwise import components, measures


def test_an_empty_mask_has_no_lesion() -> None:
    labels = components(np.zeros((4, 4, 4), bool))
    assert labels.max() == 0
    assert measures(labels, np.zeros((4, 4, 4), np.float32), np.eye(4)) == []


def test_measures_of_a_bar_worked_out_by_hand() -> None:
    # Voxels 0.5 x 1 x 2 mm; axis 2 runs downwards: it is the one nearest to superior-inferior.
    affine = np.array([[0.5, 0, 0, 10], [0, 1, 0, 20], [0, 0, -2, 30], [0, 0, 0, 1.0]])
    pmap = np.zeros((4, 5, 6), np.float32)
    pmap[1, 2, 3:6] = [0.5, 0.75, 1.0]
    (lesion,) = measures(components(pmap > 0), pmap, affine)
    assert lesion.label == 1
    assert lesion.volume_mm3 == pytest.approx(3)  # 3 voxels of 1 mm3
    assert lesion.length_mm == pytest.approx(6)  # 3 slices of 2 mm
    assert lesion.centre_mm == pytest.approx((10.5, 22, 22))  # (1, 2, 4) -> 10.5, 22, 30 - 8
    assert lesion.mean_probability == pytest.approx(0.75)
    assert lesion.highest_probability == 1.0


def test_length_follows_the_world_axis_and_not_the_array_axis() -> None:
    # Stored (S, P, L) with 3 mm along S: two voxels along array axis 0.
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
    pmap = np.zeros((4, 4, 4), np.float32)
    pmap[1:3, 0:3, 2] = 0.6
    (lesion,) = measures(components(pmap > 0), pmap, affine)
    assert lesion.length_mm == pytest.approx(6)


def test_a_lesion_is_there_at_its_own_threshold_and_gone_at_the_next() -> None:
    pmap = np.zeros((3, 3, 3), np.float32)
    pmap[1, 1, 1] = 0.35
    (lesion,) = measures(components(pmap >= np.float32(0.1)), pmap, np.eye(4))
    at = np.float32(lesion.vanishes_above)
    assert (pmap >= at).sum() == 1
    assert (pmap >= np.nextafter(at, np.float32(1))).sum() == 0


def test_the_mean_of_many_small_probabilities_does_not_drift() -> None:
    pmap = np.full((100, 100, 30), 0.1, np.float32)
    (lesion,) = measures(components(pmap > 0), pmap, np.eye(4))
    assert lesion.mean_probability == pytest.approx(float(np.float32(0.1)), abs=1e-9)


def test_labels_on_another_grid_are_refused() -> None:
    with pytest.raises(GeometryError, match="different grids"):
        measures(
            np.zeros((2, 2, 2), np.int32),
            np.zeros((2, 2, 3), np.float32),
            np.eye(4),
        )
