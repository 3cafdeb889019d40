import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.patches import FOUR_WAYS, extract, patch_starts, stitch


@given(st.integers(48, 700))
def test_patches_cover_the_crop_and_end_with_it(length: int) -> None:
    starts = patch_starts(length)
    assert starts[0] == 0
    assert starts[-1] + 48 == length
    assert all(0 < b - a <= 12 for a, b in itertools.pairwise(starts))


def test_the_last_patch_is_moved_back() -> None:
    assert patch_starts(61) == [0, 12, 13]
    assert patch_starts(48) == [0]


@given(st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_stitch_inverts_extract(length: int, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0, 1, (3, 2, length)).astype(np.float32)
    starts = patch_starts(length, size=8, stride=2)
    back = stitch(extract(values, starts, 8), starts, length)
    np.testing.assert_allclose(back, values, atol=1e-6)


@given(st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_the_mean_is_naive_overlap_averaging(length: int, seed: int) -> None:
    starts = patch_starts(length, size=8, stride=2)
    patches = np.random.default_rng(seed).uniform(0, 1, (len(starts), 3, 2, 8)).astype(np.float32)
    expected = np.zeros((3, 2, length))
    for z in range(length):
        inside = [patches[k][:, :, z - s] for k, s in enumerate(starts) if 0 <= z - s < 8]
        expected[:, :, z] = np.mean(inside, axis=0, dtype=np.float64)
    np.testing.assert_allclose(stitch(patches, starts, length), expected, atol=1e-6)


def test_a_crop_shorter_than_a_patch_is_refused() -> None:
    with pytest.raises(GeometryError, match="47 slices"):
        patch_starts(47)


@given(st.integers(48, 150), st.integers(0, 2**32 - 1))
@example(48, 0)
@example(61, 0)
def test_patches_that_lie_in_four_ways_are_put_back(length: int, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0.1, 1, (7, 6, length)).astype(np.float32)
    starts = patch_starts(length)
    patches = extract(values, starts, ways=FOUR_WAYS)
    assert patches.shape == (len(starts), 5, 4, 48)
    back = stitch(patches, starts, length, FOUR_WAYS)
    np.testing.assert_allclose(back, values[1:-1, 1:-1], atol=1e-6)


def test_four_patches_in_a_row_are_mirrored_and_moved_in_four_ways() -> None:
    # Voxels 4 x + y; a patch has two by two of them, in the middle 5, 6 and 9, 10.
    values = np.broadcast_to(np.arange(16.0).reshape(4, 4, 1), (4, 4, 96))
    patches = extract(values, patch_starts(96), ways=FOUR_WAYS)
    assert patches[:, :, :, 7].tolist() == [
        [[5, 6], [9, 10]],
        [[5, 6], [1, 2]],  # from x = 0, mirrored along x
        [[7, 6], [11, 10]],  # from y = 2, mirrored along y
        [[9, 8], [5, 4]],  # from y = 0, along both
        [[5, 6], [9, 10]],
    ]


def test_a_crop_of_one_patch_is_seen_as_it_is_and_the_last_patch_is_not_moved() -> None:
    values = np.broadcast_to(np.arange(16.0).reshape(4, 4, 1), (4, 4, 61))
    one = extract(values[:, :, :48], patch_starts(48), ways=FOUR_WAYS)
    assert one[:, :, :, 0].tolist() == [[[5, 6], [9, 10]]]
    last = extract(values, patch_starts(61), ways=FOUR_WAYS)[-1]
    assert last[:, :, 0].tolist() == [[6, 5], [10, 9]]  # mirrored along y
