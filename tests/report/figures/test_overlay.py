from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

from sct_lesion_losses.errors import DataError, GeometryError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.report.figures import overlay, style
from sct_lesion_losses.report.figures.overlay import AXIAL, SAGITTAL, Cut, Labelled, cut

SHAPE = (9, 60, 80)
COLOURS = {"TP": overlay.TP_COLOUR, "FN": overlay.FN_COLOUR, "FP": overlay.FP_COLOUR}


@pytest.fixture
def grid() -> Grid:
    return Grid(SHAPE, np.diag([-3.0, 1.0, 1.0, 1.0]))


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE)


@pytest.fixture
def truth() -> np.ndarray:
    """A small lesion at x = 2, and a larger one at x = 6."""
    mask = np.zeros(SHAPE, bool)
    mask[2, 30, 10:12] = True
    mask[6, 28:32, 40:50] = True
    return mask


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


def test_each_kind_of_voxel_has_its_area_and_its_colour(image, grid, truth) -> None:
    mask = np.roll(truth, 3, axis=2)  # of the larger lesion, 7 x 4 voxels overlap
    shown = overlay.shown(image, grid, truth, {"a": mask, "none": np.zeros_like(truth)})
    assert shown.x == 6
    made = overlay.figure(image, grid, truth, {"a": mask, "none": np.zeros_like(truth)})
    alone, manual, first, none = made.axes
    assert filled(alone) == {}
    assert area(filled(manual)["truth"]) == pytest.approx(40, rel=0.05)
    found = filled(first)
    for kind, voxels in {"TP": 28, "FN": 12, "FP": 12}.items():
        assert area(found[kind]) == pytest.approx(voxels, rel=0.1)
        assert tuple(found[kind].get_facecolor()[0]) == to_rgba(COLOURS[kind])
    assert list(filled(none)) == ["FN"]
    # 28 of 40, and 0 of the 2 of the small lesion: 2 * 28 / 84.
    assert [axes.get_title() for axes in made.axes[2:]] == ["a\nV-F1 0.67", "none\nV-F1 0.00"]


def test_false_positives_are_told_apart_without_colour(image, grid, truth) -> None:
    mask = np.roll(truth, 3, axis=2)
    made = overlay.figure(image, grid, truth, {"a": mask})
    found = filled(made.axes[2])
    assert found["FP"].hatches != [None]
    assert found["TP"].hatches == [None]


def test_the_scale_bar_is_as_long_as_it_says(image, grid, truth) -> None:
    made = overlay.figure(image, grid, truth, {})
    axes = made.axes[0]
    (bar,) = axes.lines
    ends = axes.transData.transform(bar.get_xydata())
    inch = (ends[1, 0] - ends[0, 0]) / made.dpi
    box = axes.get_window_extent()
    width_mm = np.diff(axes.get_xlim())[0]
    assert inch * made.dpi / box.width * width_mm == pytest.approx(10)
    height_mm = np.diff(axes.get_ylim())[0]
    assert box.height / box.width == pytest.approx(height_mm / width_mm)  # a mm is a mm both ways
    assert "10 mm" in [text.get_text() for text in axes.texts]


def test_the_picture_does_not_depend_on_how_the_scan_is_stored(image, grid, truth) -> None:
    one = overlay.shown(image, grid, truth, {"a": truth})
    turned = Grid(SHAPE[::-1], np.array(grid.affine)[:, [2, 1, 0, 3]])
    two = overlay.shown(image.T, turned, truth.T, {"a": truth.T})
    assert np.array_equal(one.truth.image, two.truth.image)
    assert np.array_equal(one.models["a"].lesions, two.models["a"].lesions)


def test_the_panel_holds_the_lesions_of_the_slice_and_false_positives_near_them(
    image, grid, truth
) -> None:
    mask = truth.copy()
    mask[6, 30, 70] = True
    shown = overlay.shown(image, grid, truth, {"a": mask})
    extra = (shown.models["a"].lesions >= 0.5) & ~(shown.truth.lesions >= 0.5)
    assert extra.any()


def test_the_same_arrays_give_the_same_bytes_in_both_formats(
    image, grid, truth, tmp_path: Path
) -> None:
    names = {f"model {k}": np.roll(truth, k, axis=1) for k in range(7)}
    for name in ("one", "two"):
        style.save_all(overlay.figure(image, grid, truth, names), tmp_path / name)
    for ending in (".png", ".svg"):
        one, two = ((tmp_path / f"{name}{ending}").read_bytes() for name in ("one", "two"))
        assert one == two


def test_a_scan_without_lesions_is_refused(image, grid) -> None:
    with pytest.raises(DataError, match="holds no lesion"):
        overlay.figure(image, grid, np.zeros(SHAPE, bool), {})


def test_a_mask_on_another_grid_is_named(image, grid, truth) -> None:
    with pytest.raises(GeometryError, match="the bce has shape"):
        overlay.figure(image, grid, truth, {"bce": truth[1:]})


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
