import nibabel as nib
import numpy as np
import pytest
from geometry import AXIS_ORDERS, affine_of, grids
from hypothesis import given
from hypothesis import strategies as st
from nibabel.processing import resample_from_to

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.grid import Grid, resample

OPPOSITE = str.maketrans("RLAPSI", "LRPAIS")


@given(grids())
def test_to_rpi_gives_rpi(grid: Grid) -> None:
    assert grid.to_rpi()[0].orientation == "RPI"


@pytest.mark.parametrize(("axes", "signs"), AXIS_ORDERS)
def test_orientation_is_nibabels_with_each_letter_turned_round(axes, signs) -> None:
    affine = affine_of(axes, signs, (0.5, 0.8, 3.0), (8.0, -5.0, 3.0))
    expected = "".join(nib.aff2axcodes(affine)).translate(OPPOSITE)
    assert Grid((4, 5, 6), affine).orientation == expected


@given(grids())
def test_undo_takes_every_voxel_back(grid: Grid) -> None:
    stored = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    rpi, reorientation = grid.to_rpi()
    turned = reorientation.apply(stored)
    assert turned.shape == rpi.shape
    np.testing.assert_array_equal(reorientation.undo(turned), stored)


@given(grids())
def test_rpi_voxels_stay_where_they_are_in_the_world(grid: Grid) -> None:
    stored = np.moveaxis(np.indices(grid.shape), 0, -1)
    rpi, reorientation = grid.to_rpi()
    here = np.moveaxis(np.indices(rpi.shape), 0, -1)
    np.testing.assert_allclose(
        rpi.to_world(here), grid.to_world(reorientation.apply(stored)), atol=1e-9
    )


@given(grids(), st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_to_voxel_inverts_to_world(grid: Grid, point: list[float]) -> None:
    np.testing.assert_allclose(grid.to_voxel(grid.to_world(point)), point, atol=1e-6)


@given(grids())
def test_resampled_keeps_the_first_voxel_and_the_field_of_view(grid: Grid) -> None:
    fine = grid.resampled((0.5, 0.5, 0.5))
    np.testing.assert_allclose(fine.to_world([0, 0, 0]), grid.to_world([0, 0, 0]))
    field = np.multiply(grid.shape, grid.spacing_mm)
    np.testing.assert_allclose(np.multiply(fine.shape, fine.spacing_mm), field)


def test_resampled_rounds_as_sct_does() -> None:
    # 60 slices of 2.81 mm are 337.2 voxels of 0.5 mm: 337, whose spacing is 168.6 / 337 mm.
    grid = Grid((60, 10, 10), np.diag([2.81, 0.5, 0.5, 1.0]))
    fine = grid.resampled((0.5, 0.5, None))
    assert fine.shape == (337, 10, 10)
    assert fine.spacing_mm[0] == pytest.approx(168.6 / 337)


def test_voxel_volume_of_a_sheared_grid_is_its_determinant() -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 1] = 0.5
    assert Grid((2, 2, 2), affine).voxel_volume_mm3 == pytest.approx(6.0)


def test_matches_sees_half_a_voxel() -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    moved = affine.copy()
    moved[0, 3] = 0.5
    assert Grid((4, 4, 4), affine).matches(Grid((4, 4, 4), affine))
    assert not Grid((4, 4, 4), affine).matches(Grid((4, 4, 4), moved))
    assert not Grid((4, 4, 4), affine).matches(Grid((4, 4, 5), affine))


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.full((4, 4), np.nan),
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
    ids=["zero", "nan", "coincident axes"],
)
def test_an_affine_that_cannot_be_inverted_is_refused(affine) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Grid((3, 3, 3), affine)


def test_tiny_voxels_are_not_singular() -> None:
    assert Grid((3, 3, 3), np.diag([0.01, 0.01, 0.01, 1])).spacing_mm[0] == pytest.approx(0.01)


@given(grids(), st.integers(0, 2**32 - 1))
def test_values_agree_with_nibabel_on_any_grid(grid: Grid, seed: int) -> None:
    array = np.random.default_rng(seed).uniform(0, 1000, grid.shape).astype(np.float32)
    onto = grid.resampled((0.7, 0.7, 0.7))
    expected = resample_from_to(
        nib.Nifti1Image(array, grid.affine), (onto.shape, onto.affine), order=1, mode="nearest"
    )
    np.testing.assert_allclose(resample(array, grid, onto), expected.get_fdata(), atol=2e-4)


@given(grids(), st.data())
def test_a_box_holds_what_the_whole_holds_there(grid: Grid, data: st.DataObject) -> None:
    array = np.random.default_rng(0).uniform(0, 1, grid.shape)
    onto = grid.resampled((1.0, 1.0, 1.0))
    box = []
    for n in onto.shape:
        start = data.draw(st.integers(0, n - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, n))))
    whole = resample(array, grid, onto)
    part = resample(array, grid, onto, (box[0], box[1], box[2]))
    np.testing.assert_allclose(part, whole[tuple(box)], atol=1e-6)


def test_beyond_the_grid_the_edge_value_holds() -> None:
    grid = Grid((2, 1, 1), np.eye(4))
    box = (slice(-2, 4), slice(0, 1), slice(0, 1))
    result = resample(np.array([10.0, 20.0]).reshape(2, 1, 1), grid, grid, box)
    np.testing.assert_array_equal(result[:, 0, 0], [10, 10, 10, 20, 20, 20])


@given(grids())
def test_a_ramp_comes_back_from_a_finer_grid(grid: Grid) -> None:
    ramp = np.indices(grid.shape).sum(axis=0).astype(np.float32)
    fine = grid.resampled(tuple(s / 2 for s in grid.spacing_mm))
    back = resample(resample(ramp, grid, fine), fine, grid)
    np.testing.assert_allclose(back, ramp, atol=1e-3)


def test_nearest_neighbour_invents_no_value() -> None:
    grid = Grid((3, 3, 3), np.diag([2.0, 2.0, 2.0, 1.0]))
    mask = (np.arange(27).reshape(3, 3, 3) % 2).astype(np.uint8)
    result = resample(mask, grid, grid.resampled((0.7, 0.7, 0.7)), order=0)
    assert set(np.unique(result)) == {0.0, 1.0}


def test_grids_with_other_axes_are_refused() -> None:
    straight = Grid((8, 8, 8), np.eye(4))
    tilted = Grid((8, 8, 8), affine_of((0, 1, 2), (1, 1, 1), (1, 1, 1), (5.0, 0.0, 0.0)))
    with pytest.raises(GeometryError, match="different axes"):
        resample(np.zeros((8, 8, 8)), straight, tilted)
