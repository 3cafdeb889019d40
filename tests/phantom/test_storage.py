from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom.sites import ORIENTATIONS, SITES, draw_protocol, stored_grid, typed


@given(st.sampled_from(ORIENTATIONS), st.integers(2, 5), st.integers(2, 5), st.integers(2, 5))
@settings(max_examples=30)
def test_every_voxel_keeps_its_place_in_storage(orientation: str, x: int, y: int, z: int) -> None:
    rpi = Grid((x, y, z), np.array([[-2, 0, 0, 5], [0, 3, 0, -7], [0, 0, 4, 1], [0, 0, 0, 1.0]]))
    array = np.arange(x * y * z).reshape(x, y, z)
    stored, turn = stored_grid(rpi, orientation)
    assert stored.orientation == orientation
    kept = turn.undo(array)
    assert kept.shape == stored.shape
    for voxel in np.ndindex(*stored.shape):
        place = np.round(rpi.to_voxel(stored.to_world(voxel))).astype(int)
        assert array[tuple(place)] == kept[voxel]


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        # -0.5, 1.24, 50 and 100 times 1000; whole numbers end at the largest of their type.
        ("int16", np.int16, [0, 1240, 32767, 32767]),
        ("int16-scaled", np.int16, [0, 1240, 32767, 32767]),
        ("uint16", np.uint16, [0, 1240, 50000, 65535]),
        ("float32", np.float32, [-500, 1240, 50000, 100000]),
    ],
)
def test_the_signal_is_scaled_rounded_and_clipped_to_its_type(
    dtype: str, stored: type, expected: list[float]
) -> None:
    protocol = draw_protocol(np.random.default_rng(0), SITES[0])
    signal = np.array([-0.5, 1.24, 50, 100], np.float32)
    found = typed(signal, replace(protocol, dtype=dtype, scale=1000.0))
    assert found.dtype == stored
    assert found.tolist() == pytest.approx(expected)
