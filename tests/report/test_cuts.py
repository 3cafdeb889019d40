from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.report.figures.overlay import AXIAL, SAGITTAL, Cut, Labelled, cut


def labelled(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Labelled:
    """A scan whose intensity is 100 x + 10 y + z of its RPI voxel."""
    x, y, z = np.indices(shape)
    masks = np.zeros(shape, bool), np.zeros(shape, bool)
    grid = Grid(shape, np.diag([-spacing[0], spacing[1], spacing[2], 1.0]))
    return Labelled(100.0 * x + 10 * y + z, *masks, grid, np.zeros((shape[2], 2)))


def pixel(shown: Cut) -> tuple[float, float]:
    left, right, bottom, top = shown.extent
    height, width = shown.image.shape
    return (right - left) / width, (top - bottom) / height


def test_an_axial_cut_of_whole_voxels_is_the_slice_with_the_right_on_the_left() -> None:
    scan = labelled((4, 3, 5), (1.0, 1.0, 4.0))
    shown = cut(scan, AXIAL, (2.0, 1.0, 3.4), (10.0, 10.0), pixel_mm=1.0)
    # Slice 3; RPI columns run from right to left, rows from the back, at the bottom, to the front.
    assert shown.image.tolist() == [[100 * x + 10 * y + 3 for x in range(4)] for y in range(3)]
    assert shown.extent == (-2.0, 2.0, -1.5, 1.5)  # 4 x 3 mm in the middle of 10 x 10


def test_a_sagittal_cut_has_the_front_on_the_left_and_no_blend_of_slices() -> None:
    scan = labelled((3, 4, 2), (3.0, 1.0, 1.0))
    shown = cut(scan, SAGITTAL, (1.4, 0.0, 0.0), (4.0, 2.0), pixel_mm=1.0)
    assert shown.image.tolist() == [[100 + 10 * y + z for y in (3, 2, 1, 0)] for z in range(2)]


def test_a_panel_stays_inside_a_larger_field() -> None:
    scan = labelled((60, 60, 3), (1.0, 1.0, 1.0))
    shown = cut(scan, AXIAL, (58.0, 30.0, 1.0), (20.0, 20.0), pixel_mm=0.5)
    # The field ends at voxel 59.5, so the middle of the panel is 10 mm before it.
    assert shown.middle == (49.5, 30.0, 1.0)


def test_without_lesions_the_middle_of_the_cord_is_shown() -> None:
    scan = labelled((4, 4, 30), (1.0, 1.0, 1.0))
    scan.cord[1:3, 1:3, 10:15] = True
    assert scan.slice_to_show == 12


@given(
    n=st.integers(1, 40),
    spacing=st.floats(0.2, 8),
    pixel_mm=st.floats(0.2, 2),
    at=st.floats(0, 1),
)
def test_the_pixels_cover_the_part_of_the_field_in_the_panel(
    n: int, spacing: float, pixel_mm: float, at: float
) -> None:
    scan = labelled((n, n, 2), (spacing, spacing, 1.0))
    centre = (at * (n - 1), at * (n - 1), 0.0)
    shown = cut(scan, AXIAL, centre, (30.0, 30.0), pixel_mm)
    width, height = pixel(shown)
    shown_mm = min(30.0, n * spacing)
    left, right, _, _ = shown.extent
    assert left == pytest.approx(-shown_mm / 2, abs=width)
    assert right == pytest.approx(shown_mm / 2, abs=width)
    assert shown.lesions.shape == shown.image.shape
    assert width == pytest.approx(height)
