import dataclasses

import numpy as np
import pytest
from geometry import rpi_grid, straight

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.engine import Network

GRID = rpi_grid((60, 60, 120), (0.5, 0.5, 0.5))
LINE = straight(GRID, 30, 30)


def bundle(tta: bool) -> Bundle:
    shipped = store.load("default")
    preparation = shipped.preparation.model_copy(update={"tta": tta})
    info = shipped.info.model_copy(update={"preparation": preparation})
    return dataclasses.replace(shipped, info=info)


def pmap(infer, *, tta: bool) -> np.ndarray:
    """P-map of noise by a function in the place of the network."""
    image = np.random.default_rng(0).integers(1, 900, GRID.shape).astype(np.float32)
    network = Network("none", "0", "float32", (1, 1, 48, 48, 48), infer)
    return predict.pmap(bundle(tta), image, GRID, LINE, network=network)


def test_what_knows_no_side_predicts_the_same_with_test_time_augmentation():
    def voxelwise(batch):
        return 1 / (1 + np.exp(-batch))

    plain = pmap(voxelwise, tta=False)
    assert plain.std() > 0.1
    # A patch that is moved by a voxel has nearly the same mean and deviation.
    inner = np.s_[10:50, 10:50]
    np.testing.assert_allclose(pmap(voxelwise, tta=True)[inner], plain[inner], atol=5e-3)


@pytest.mark.parametrize(("axis", "halves"), [(0, [0.5, 0.5]), (1, [0.5, 0.5]), (2, [1.0, 0.0])])
def test_a_side_that_the_network_prefers_is_averaged_out_in_plane(axis, halves):
    def first_half(batch):
        marked = np.zeros_like(batch)
        marked[(0, 0, *(slice(None),) * axis, slice(0, 24))] = 1
        return marked

    plain, turned = (pmap(first_half, tta=tta) for tta in (False, True))
    if axis == 2:  # the cord runs one way in every patch
        np.testing.assert_array_equal(turned[10:50, 10:50], plain[10:50, 10:50])
        return
    # The window of 48 voxels begins at 30 - 23 or 24; in the middle slices four patches overlap.
    for part, share in zip((slice(10, 28), slice(34, 52)), halves, strict=True):
        box = [slice(10, 50), slice(10, 50), slice(40, 80)]
        box[axis] = part
        np.testing.assert_allclose(turned[tuple(box)], share, atol=1e-6)
        assert set(np.unique(plain[tuple(box)])) < {0.0, 1.0}
