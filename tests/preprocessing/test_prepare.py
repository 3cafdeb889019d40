from __future__ import annotations

import logging

import numpy as np
import pytest
from geometry import AXIS_ORDERS, affine_of

from sct_lesion_losses.bundle.schema import StudyPreparation
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.preprocessing import intensity, scan

PREPARATION = StudyPreparation(
    percentiles=intensity.PERCENTILES, landmarks=tuple(float(k) for k in range(0, 110, 10))
)


def scan_of(shape=(40, 44, 50), spacing=(1.0, 1.0, 1.0), axes=(0, 1, 2), signs=(-1, 1, 1)):
    grid = Grid(shape, affine_of(axes, signs, spacing, (4.0, -3.0, 2.0)))
    rpi, _ = grid.to_rpi()
    image = np.random.default_rng(0).uniform(0, 1000, shape).astype(np.float32)
    middle = np.array([(rpi.shape[0] - 1) / 2, (rpi.shape[1] - 1) / 2])
    return image, grid, Centerline(rpi, np.tile(middle, (rpi.shape[2], 1)))


@pytest.mark.parametrize(("axes", "signs"), AXIS_ORDERS)
def test_the_tube_is_the_same_in_every_axis_order(axes, signs) -> None:
    image, grid, line = scan_of()
    expected = scan.scan(image, grid, line, PREPARATION).values
    stored = np.transpose(image, axes)
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for k in range(3):
        move[axes[k], k] = signs[k]
        move[axes[k], 3] = 0 if signs[k] > 0 else image.shape[axes[k]] - 1
    stored = stored[tuple(slice(None, None, s) for s in signs)]
    turned = Grid(stored.shape, grid.affine @ move)
    found = scan.scan(stored, turned, line, PREPARATION).values
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_map_of_ones_comes_back_as_ones_in_the_tube_and_zeros_outside() -> None:
    image, grid, line = scan_of()
    prepared = scan.scan(image, grid, line, PREPARATION)
    native = prepared.to_native(np.ones_like(prepared.values))
    assert native.shape == grid.shape
    # 24 mm around the middle of 40 x 44 mm: voxels 8 to 31 and 10 to 33, the tube starting 23
    # half millimetres before the centre.
    assert native[20, 22].min() == 1.0
    assert native[:7].max() == 0.0
    assert native[33:].max() == 0.0


def test_a_short_cord_is_padded_said_and_undone(caplog: pytest.LogCaptureFixture) -> None:
    image, grid, line = scan_of(shape=(40, 44, 10))
    with caplog.at_level(logging.WARNING):
        prepared = scan.scan(image, grid, line, PREPARATION)
    assert prepared.values.shape == (48, 48, 48)
    assert "covered over" in caplog.text
    counted = np.broadcast_to(np.arange(48, dtype=np.float32), (48, 48, 48))
    native = prepared.to_native(counted)
    # 20 slices of 0.5 mm, the last without half a native slice of its own, in the middle of 48.
    inner = native[20, 22]
    np.testing.assert_allclose(np.diff(inner), 2.0, atol=1e-4)
    assert inner[0] == prepared.pad


def test_a_field_narrower_than_the_window_repeats_its_edge() -> None:
    image, grid, line = scan_of(shape=(16, 44, 50))
    values = scan.scan(image, grid, line, PREPARATION).values
    np.testing.assert_array_equal(values[0], values[1])
    assert np.isfinite(values).all()


def test_a_single_slice_is_prepared() -> None:
    image, grid, line = scan_of(shape=(40, 44, 1), spacing=(1.0, 1.0, 5.0))
    prepared = scan.scan(image, grid, line, PREPARATION)
    assert prepared.to_native(np.ones_like(prepared.values)).shape == (40, 44, 1)


def test_intensities_unlike_the_training_scans_are_said(caplog: pytest.LogCaptureFixture) -> None:
    image, grid, line = scan_of()
    with caplog.at_level(logging.WARNING):
        scan.scan(image, grid, line, PREPARATION)
        assert "unlike" not in caplog.text
        scan.scan(image**6, grid, line, PREPARATION)
    assert "intensities around the cord are unlike" in caplog.text


def test_units_of_the_scan_do_not_matter() -> None:
    image, grid, line = scan_of()
    one = scan.scan(image, grid, line, PREPARATION).values
    other = scan.scan(image * 0.01 + 7, grid, line, PREPARATION).values
    np.testing.assert_allclose(one, other, atol=0.01)
