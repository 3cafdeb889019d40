from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom.acquisition import Acquired
from sct_lesion_losses.phantom.anatomy import Body, make_body
from sct_lesion_losses.phantom.lesions import Lesions, draw_lesions
from sct_lesion_losses.phantom.scan import label

SHAPE = (9, 9, 9)


@pytest.fixture(scope="module")
def body() -> Body:
    return make_body(np.random.default_rng(5))


@pytest.fixture(scope="module")
def lesions(body: Body) -> Lesions:
    return draw_lesions(np.random.default_rng(5), body, (-140.0, 0.0), affected=True)


def shares(**values: float) -> Acquired:
    """A scan that lies in the cord, but for the voxel (4, 4, 4); no voxel holds any lesion."""
    cord = np.ones(SHAPE, np.float32)
    cord[4, 4, 4] = values.get("cord", 1.0)
    return Acquired(np.ones(SHAPE, np.float32), cord, np.zeros(SHAPE, np.float32))


def cube(size_mm: float) -> Grid:
    """Grid of `SHAPE` near the cord, of voxels of a given size."""
    affine = np.diag([-size_mm, size_mm, size_mm, 1.0])
    affine[:3, 3] = (3, -3, -60)
    return Grid(SHAPE, affine)


def test_half_of_a_voxel_makes_it_cord_and_less_does_not(body: Body, lesions: Lesions) -> None:
    assert label(body, lesions, shares(cord=0.5), cube(1.0)).cord[4, 4, 4]
    assert not label(body, lesions, shares(cord=0.49), cube(1.0)).cord[4, 4, 4]


def test_half_of_a_voxel_makes_it_lesion_and_less_does_not(body: Body, lesions: Lesions) -> None:
    acquired = shares()
    acquired.lesion[2:5, 2:5, 2:5] = 0.49
    acquired.lesion[2:5, 2:5, 2] = 0.5
    found = label(body, lesions, acquired, cube(1.0)).lesion
    assert np.array_equal(found, acquired.lesion == 0.5)


def test_a_lesion_outside_the_cord_is_none(body: Body, lesions: Lesions) -> None:
    acquired = shares(cord=0.49)
    acquired.lesion[3:6, 3:6, 3:6] = 1.0
    found = label(body, lesions, acquired, cube(1.0)).lesion
    assert found.sum() == 26
    assert not found[4, 4, 4]


@pytest.mark.parametrize(("volume_mm3", "kept"), [(4.9, False), (5.0, True)])
def test_a_speck_under_5_mm3_is_dropped_and_counted(
    body: Body, lesions: Lesions, volume_mm3: float, kept: bool
) -> None:
    acquired = shares()
    acquired.lesion[1:3, 1:3, 1:3] = 1.0  # 8 voxels
    grid = Grid(SHAPE, np.diag([-1.0, 1.0, volume_mm3 / 8, 1.0]))
    found = label(body, lesions, acquired, grid)
    assert found.lesion.any() == kept
    assert found.dropped == (not kept)
    assert sum(record.volume_mm3 for record in found.records) == pytest.approx(5.0 * kept)
    assert sum(record.labelled for record in found.records) == kept


def test_voxels_that_touch_by_a_corner_are_one_component(body: Body, lesions: Lesions) -> None:
    acquired = shares()
    for k in range(5):
        acquired.lesion[k, k, k] = 1.0  # 5 mm³ together, 1 mm³ each
    found = label(body, lesions, acquired, cube(1.0))
    assert found.lesion.sum() == 5
    assert found.dropped == 0


def test_every_rater_has_a_mask_without_specks(body: Body, lesions: Lesions) -> None:
    acquired = shares()
    acquired.lesion[1:4, 1:4, 1:4] = 1.0
    acquired.lesion[7, 7, 7] = 1.0
    raters = tuple(np.random.default_rng(k) for k in range(3))
    found = label(body, lesions, acquired, cube(1.0), raters)
    assert len(found.raters) == 3
    assert not any(mask[7, 7, 7] for mask in found.raters)
