"""The cord mask that is estimated around a centerline."""

import numpy as np
import pytest

from sct_lesion_losses.centerline import cord
from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom import make_scan


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def scan():
    return make_scan(3, preset="tiny", lesions=False)


def line_of(scan, off_mm=0.0):
    grid, turn = scan.grid.to_rpi()
    line = Centerline.from_mask(turn.apply(scan.cord), grid)
    return Centerline(grid, line.xy + off_mm / np.array(grid.spacing_mm[:2]))


@pytest.mark.parametrize("off_mm", [0.0, 0.7])
def test_the_estimate_is_the_cord(scan, off_mm):
    line = line_of(scan, off_mm)
    turn = scan.grid.to_rpi()[1]
    found = cord.estimate(turn.apply(scan.image), line)
    assert overlap(found.mask, turn.apply(scan.cord) > 0) > 0.85
    assert found.certain[line.covered].mean() > 0.9


def test_the_mask_is_drawn_around_the_points_that_its_surface_was_measured_from():
    # A bright field with a dark disc of 5 mm: whatever the line is off, its middle stays.
    grid = Grid((41, 41, 30), np.diag([-1.0, 1.0, 1.0, 1.0]))
    x, y = np.meshgrid(np.arange(41), np.arange(41), indexing="ij")
    disc = np.hypot(x - 20, y - 20)
    image = np.broadcast_to(np.clip(disc - 4.5, 0, 1)[..., None] * 3 + 1, grid.shape)
    line = Centerline(grid, np.tile([21.2, 19.2], (30, 1)))
    found = cord.estimate(image, line).mask[:, :, 15]
    np.testing.assert_allclose(np.argwhere(found).mean(0), 20, atol=0.12)
    assert overlap(found, disc < 4.85) > 0.95  # a third of the way from 4.5 to 5.5


def test_an_image_without_edges_is_refused(scan):
    with pytest.raises(CenterlineError, match="no edge between cord and fluid"):
        cord.estimate(np.ones(scan.grid.to_rpi()[0].shape), line_of(scan))
