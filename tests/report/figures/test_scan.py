import struct
from pathlib import Path

import numpy as np
import pytest
from geometry import rpi_grid, straight
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.report.figures import scan, style
from sct_lesion_losses.report.figures.scan import AXIAL, SAGITTAL, view


@pytest.mark.parametrize(
    ("shape", "spacing", "marked"),
    [
        ((60, 60, 40), (0.8, 0.8, 0.8), True),
        ((12, 200, 200), (3.0, 0.6, 0.6), False),
        ((60, 60, 1), (1, 1, 5), True),
    ],
)
def test_a_png_is_drawn_of_any_scan(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], marked: bool, tmp_path: Path
) -> None:
    grid = rpi_grid(shape, spacing)
    image = np.random.default_rng(0).random(shape)
    mask = np.zeros(shape, bool)
    mask[tuple(n // 2 for n in shape)] = marked
    style.save(scan.figure(image, grid, straight(grid), mask, "title"), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1210, 704)


def test_only_the_field_around_the_cord_is_resampled() -> None:
    # 448 x 448 voxels of 0.9 mm are 800 x 800 at 0.5 mm; 120 mm from front to back are shown.
    fine = rpi_grid((448, 448, 10), (0.9, 0.9, 8.0)).resampled((0.5, 0.5, 0.5))
    x, y, z = scan._around(straight(fine).xy, fine)
    assert x.stop - x.start <= 2 * 20 / 0.5 + 3
    assert y.stop - y.start <= 2 * 60 / 0.5 + 3
    assert z == slice(0, fine.shape[2])


def test_axial_slices_go_through_the_largest_lesions_and_stay_apart() -> None:
    lesions = np.zeros((40, 40, 120), np.float32)
    lesions[10:14, 10:14, 30:34] = 1
    lesions[20:30, 20:30, 80] = 1
    lesions[2, 2, 82] = 1  # 1 mm from the largest
    chosen = scan._slices(lesions, np.arange(120))
    assert {30, 80} <= set(chosen)
    assert len(chosen) == 4
    assert np.diff(sorted(chosen)).min() * 0.5 >= scan.APART_MM


def test_the_side_view_outlines_the_lesions_of_its_own_plane() -> None:
    grid = rpi_grid((61, 60, 80), (0.5, 0.5, 0.5))
    mask = np.zeros(grid.shape, bool)
    mask[29:32, 28:32, 20:24] = True  # in the middle of the cord
    mask[38:42, 28:32, 60:64] = True  # 5 mm beside it
    side = scan.figure(np.ones(grid.shape), grid, straight(grid), mask, "").axes[0]
    rows = [y for lines in side.collections for p in lines.get_paths() for _, y in p.vertices]
    assert (min(rows), max(rows)) == pytest.approx((19.5, 23.5))


def counting(shape: tuple[int, int, int]) -> np.ndarray:
    """A scan whose intensity is 100 x + 10 y + z of its RPI voxel."""
    x, y, z = np.indices(shape)
    return 100.0 * x + 10 * y + z


def test_an_axial_view_of_whole_voxels_is_the_slice_with_the_right_on_the_left() -> None:
    grid = rpi_grid((4, 3, 5), (1.0, 1.0, 4.0))
    seen = view(grid, AXIAL, (2.0, 1.0, 3.4), (10.0, 10.0), pixel_mm=1.0)
    # Slice 3; RPI columns run from right to left, rows from the back, at the bottom, to the front.
    expected = [[100 * x + 10 * y + 3 for x in range(4)] for y in range(3)]
    assert seen.plane(counting(grid.shape)).tolist() == expected
    assert seen.extent == (-2.0, 2.0, -1.5, 1.5)  # 4 x 3 mm in the middle of 10 x 10


def test_a_sagittal_view_has_the_front_on_the_left_and_no_blend_of_slices() -> None:
    grid = rpi_grid((3, 4, 2), (3.0, 1.0, 1.0))
    seen = view(grid, SAGITTAL, (1.4, 0.0, 0.0), (4.0, 2.0), pixel_mm=1.0)
    expected = [[100 + 10 * y + z for y in (3, 2, 1, 0)] for z in range(2)]
    assert seen.plane(counting(grid.shape)).tolist() == expected


def test_a_panel_stays_inside_a_larger_field() -> None:
    grid = rpi_grid((60, 60, 3), (1.0, 1.0, 1.0))
    # The field ends at voxel 59.5, so the middle of the panel is 10 mm before it.
    assert view(grid, AXIAL, (58.0, 30.0, 1.0), (20.0, 20.0), 0.5).middle == (49.5, 30.0, 1.0)


@given(
    n=st.integers(1, 40), spacing=st.floats(0.2, 8), pixel_mm=st.floats(0.2, 2), at=st.floats(0, 1)
)
def test_the_pixels_cover_the_part_of_the_field_in_the_panel(
    n: int, spacing: float, pixel_mm: float, at: float
) -> None:
    grid = rpi_grid((n, n, 2), (spacing, spacing, 1.0))
    seen = view(grid, AXIAL, (at * (n - 1), at * (n - 1), 0.0), (30.0, 30.0), pixel_mm)
    rows, columns = seen.plane(np.zeros(grid.shape)).shape
    left, right, bottom, top = seen.extent
    width = (right - left) / columns
    shown_mm = min(30.0, n * spacing)
    assert left == pytest.approx(-shown_mm / 2, abs=width)
    assert right == pytest.approx(shown_mm / 2, abs=width)
    assert width == pytest.approx((top - bottom) / rows)


SHAPE = (9, 60, 80)
GRID = rpi_grid(SHAPE, (3.0, 1.0, 1.0))
IMAGE = np.random.default_rng(0).random(SHAPE)
TRUTH = np.zeros(SHAPE, bool)  # a small lesion at x = 2, and a larger one at x = 6
TRUTH[2, 30, 10:12] = True
TRUTH[6, 28:32, 40:50] = True


def area(filled) -> float:
    """Area of a filled contour, by the shoelace formula, in mm²."""
    total = 0.0
    for path in filled.get_paths():
        for polygon in path.to_polygons():
            x, y = polygon.T
            total += 0.5 * float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))
    return abs(total)


def filled(axes) -> dict[str, object]:
    return {c.get_label(): c for c in axes.collections if not c.get_label().startswith("_")}


def test_each_kind_of_voxel_has_its_area_its_colour_and_false_positives_a_hatch() -> None:
    mask = np.roll(TRUTH, 3, axis=2)  # of the larger lesion, 7 x 4 voxels overlap
    masks = {"a": mask, "none": np.zeros_like(TRUTH)}
    made = scan.comparison(IMAGE, GRID, TRUTH, masks)
    alone, manual, first, none = made.axes
    assert filled(alone) == {}
    assert area(filled(manual)["truth"]) == pytest.approx(40, rel=0.05)
    found = filled(first)
    for kind, voxels in {"TP": 28, "FN": 12, "FP": 12}.items():
        assert area(found[kind]) == pytest.approx(voxels, rel=0.1)
        colour = to_rgba(scan.KINDS[kind][1]["facecolor"])
        assert tuple(found[kind].get_facecolor()[0]) == colour
        assert (found[kind].hatches == [None]) is (kind != "FP")
    assert list(filled(none)) == ["FN"]
    # 28 of 40, and 0 of the 2 of the small lesion: 2 * 28 / 84.
    assert [axes.get_title() for axes in made.axes[2:]] == ["a\nV-F1 0.67", "none\nV-F1 0.00"]


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    axes = scan.comparison(IMAGE, GRID, TRUTH, {}).axes[0]
    ends = axes.transData.transform(axes.lines[0].get_xydata())
    box = axes.get_window_extent()
    width_mm, height_mm = np.diff(axes.get_xlim())[0], np.diff(axes.get_ylim())[0]
    assert (ends[1, 0] - ends[0, 0]) / box.width * width_mm == pytest.approx(10)
    assert box.height / box.width == pytest.approx(height_mm / width_mm)  # a mm is a mm both ways
    assert "10 mm" in [text.get_text() for text in axes.texts]


def test_the_picture_is_the_same_however_the_scan_is_stored(tmp_path: Path) -> None:
    masks = {f"model {k}": np.roll(TRUTH, k, axis=1) for k in range(7)}
    style.save_all(scan.comparison(IMAGE, GRID, TRUTH, masks), tmp_path / "one")
    turned = Grid(SHAPE[::-1], np.array(GRID.affine)[:, [2, 1, 0, 3]])
    content = (IMAGE.T, turned, TRUTH.T, {name: mask.T for name, mask in masks.items()})
    style.save_all(scan.comparison(*content), tmp_path / "two")
    for ending in (".png", ".svg"):
        one, two = ((tmp_path / f"{name}{ending}").read_bytes() for name in ("one", "two"))
        assert one == two


def test_the_panel_holds_the_lesions_of_the_slice_and_false_positives_near_them() -> None:
    mask = TRUTH.copy()
    mask[6, 30, 70] = True
    assert "FP" in filled(scan.comparison(IMAGE, GRID, TRUTH, {"a": mask}).axes[2])


def test_a_scan_without_lesions_is_refused() -> None:
    with pytest.raises(DataError, match="holds no lesion"):
        scan.comparison(IMAGE, GRID, np.zeros(SHAPE, bool), {})
