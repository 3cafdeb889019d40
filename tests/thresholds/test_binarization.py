import numpy as np
import pytest

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.thresholds import binarize


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_voxel_at_the_threshold_is_lesion_in_every_precision(dtype):
    # float32(0.35) < 0.35: without the cast this voxel would be lost.
    pmap = np.array([0.35], dtype)
    assert binarize(pmap, 0.35).all()


def test_threshold_0_gives_everything():
    assert binarize(np.zeros((2, 2, 2), np.float32), 0).all()


def test_threshold_1_gives_certain_voxels_alone():
    pmap = np.array([0.5, np.nextafter(np.float32(1), np.float32(0)), 1], np.float32)
    assert binarize(pmap, 1).tolist() == [False, False, True]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_thresholds_that_are_no_probability_are_refused(threshold):
    with pytest.raises(UsageError, match="expected a number from 0 to 1"):
        binarize(np.zeros(3, np.float32), threshold)


def test_a_mask_in_place_of_a_pmap_is_refused():
    with pytest.raises(UsageError, match="was a mask given"):
        binarize(np.zeros(3, np.uint8), 0.5)
