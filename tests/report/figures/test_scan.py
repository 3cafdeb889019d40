from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.report.figures import scan


def straight(grid: Grid) -> Centerline:
    middle = (np.array(grid.shape[:2]) - 1) / 2
    return Centerline(grid, np.tile(middle, (grid.shape[2], 1)))


def grid_of(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    return Grid(shape, np.diag([-spacing[0], spacing[1], spacing[2], 1.0]))


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((60, 60, 40), (0.8, 0.8, 0.8)), ((12, 200, 200), (3.0, 0.6, 0.6)), ((60, 60, 1), (1, 1, 5))],
)
@pytest.mark.parametrize("marked", [True, False])
def test_a_png_is_drawn_of_any_scan(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], marked: bool, tmp_path: Path
) -> None:
    grid = grid_of(shape, spacing)
    image = np.random.default_rng(0).random(shape)
    mask = np.zeros(shape, bool)
    mask[tuple(n // 2 for n in shape)] = marked
    scan.draw(image, grid, straight(grid), mask, None, tmp_path / "a.png", "title")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (1210, 704)


def test_only_the_field_around_the_cord_is_resampled() -> None:
    # 448 x 448 voxels of 0.9 mm are 800 x 800 at 0.5 mm; 120 mm from front to back are shown.
    fine = grid_of((448, 448, 10), (0.9, 0.9, 8.0)).resampled((0.5, 0.5, 0.5))
    around = scan._around(straight(fine))
    assert around.shape[0] <= 2 * 20 / 0.5 + 3
    assert around.shape[1] <= 2 * 60 / 0.5 + 3
    assert around.shape[2] == fine.shape[2]


def test_axial_slices_go_through_the_largest_lesions_and_stay_apart() -> None:
    fine = grid_of((40, 40, 120), (0.5, 0.5, 0.5))
    overlay = np.zeros(fine.shape, np.float32)
    overlay[10:14, 10:14, 30:34] = 1
    overlay[20:30, 20:30, 80] = 1
    overlay[2, 2, 82] = 1  # 1 mm from the largest
    chosen = scan._slices(overlay, straight(fine))
    assert {30, 80} <= set(chosen)
    assert len(chosen) == 4
    assert np.diff(sorted(chosen)).min() * 0.5 >= scan.APART_MM


def outlined_rows(axes) -> list[float]:
    """Heights of all points of the outlines in a panel, in pixels."""
    return [y for lines in axes.collections for path in lines.get_paths() for _, y in path.vertices]


def test_the_side_view_outlines_the_lesions_of_its_own_plane() -> None:
    grid = grid_of((61, 60, 80), (0.5, 0.5, 0.5))
    mask = np.zeros(grid.shape, bool)
    mask[29:32, 28:32, 20:24] = True  # in the middle of the cord
    mask[38:42, 28:32, 60:64] = True  # 5 mm beside it
    side = scan.figure(np.ones(grid.shape), grid, straight(grid), mask, None, "").axes[0]
    rows = outlined_rows(side)
    assert (min(rows), max(rows)) == pytest.approx((19.5, 23.5))
