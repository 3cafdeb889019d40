from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from sct_lesion_losses.errors import DataError, GeometryError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.report.figures import overlay

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
    made = overlay.figure(shown, truth, {"a": mask, "none": np.zeros_like(truth)})
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
    made = overlay.figure(overlay.shown(image, grid, truth, {"a": mask}), truth, {"a": mask})
    found = filled(made.axes[2])
    assert found["FP"].hatches != [None]
    assert found["TP"].hatches == [None]


def test_the_scale_bar_is_as_long_as_it_says(image, grid, truth) -> None:
    made = overlay.figure(overlay.shown(image, grid, truth, {}), truth, {})
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
        overlay.draw(image, grid, truth, names, tmp_path / name)
    for ending in (".png", ".svg"):
        one, two = ((tmp_path / f"{name}{ending}").read_bytes() for name in ("one", "two"))
        assert one == two


def test_a_scan_without_lesions_is_refused(image, grid, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no lesion"):
        overlay.draw(image, grid, np.zeros(SHAPE, bool), {}, tmp_path / "a")


def test_a_mask_on_another_grid_is_named(image, grid, truth, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="the bce has shape"):
        overlay.draw(image, grid, truth, {"bce": truth[1:]}, tmp_path / "a")
