from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.metrics.lesionwise import bounding_box, components


def two_voxels(*second: int) -> np.ndarray:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[second] = True
    return mask


@pytest.mark.parametrize(
    ("second", "counts"),
    [
        ((1, 0, 0), {6: 1, 18: 1, 26: 1}),  # a face in common
        ((1, 1, 0), {6: 2, 18: 1, 26: 1}),  # an edge
        ((1, 1, 1), {6: 2, 18: 2, 26: 1}),  # a corner
        ((2, 0, 0), {6: 2, 18: 2, 26: 2}),  # nothing
    ],
)
def test_connectivity_is_by_faces_edges_or_corners(
    second: tuple[int, int, int], counts: dict[int, int]
) -> None:
    found = {c: int(components(two_voxels(*second), c).max()) for c in (6, 18, 26)}
    assert found == counts


def test_the_default_is_18_neighbours() -> None:
    assert components(two_voxels(1, 1, 0)).max() == 1
    assert components(two_voxels(1, 1, 1)).max() == 2


def test_the_largest_component_is_number_1_and_ties_keep_their_order() -> None:
    mask = np.zeros((9, 1, 1), bool)
    mask[[0, 2, 3, 5, 6, 8], 0, 0] = True  # sizes 1, 2, 2, 1
    assert components(mask)[:, 0, 0].tolist() == [3, 0, 1, 1, 0, 2, 2, 0, 4]


@given(arrays(bool, (5, 4, 3)), st.sampled_from([6, 18, 26]))
def test_labels_cover_the_mask_and_sizes_never_grow(mask: np.ndarray, connectivity: int) -> None:
    labels = components(mask, connectivity)
    assert np.array_equal(labels > 0, mask)
    sizes = np.bincount(labels.ravel())[1:]
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()


@given(arrays(bool, (5, 4, 3)))
def test_the_bounding_box_is_the_smallest_that_holds_the_mask(mask: np.ndarray) -> None:
    box = bounding_box(mask)
    if box is None:
        assert not mask.any()
        return
    assert mask[box].sum() == mask.sum()
    for axis in range(3):
        sides = np.moveaxis(mask[box], axis, 0)
        assert sides[0].any()
        assert sides[-1].any()
