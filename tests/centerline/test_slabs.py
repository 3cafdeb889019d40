from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.centerline import detector
from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.grid import Grid


def grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    return Grid(shape, np.diag([-spacing_mm[0], spacing_mm[1], spacing_mm[2], 1.0]))


def test_thin_slices_are_averaged_over_three_millimetres() -> None:
    image = np.zeros((4, 5, 8), np.float32)
    image[:, :, 3:] = [90, 60, 30, 255, 255]
    result = detector.cut(image, grid(image.shape, (1, 1, 1)))
    # Slices 0-2, 3-5 and 6-7: means 0, 60 and 255.
    assert result.images[:, 0, 0].tolist() == [0, 60, 255]
    assert result.z.tolist() == [1, 4, 6.5]
    assert result.images.shape == (3, 5, 4)


def test_thick_slices_stay_single() -> None:
    image = np.random.default_rng(0).normal(size=(4, 5, 3))
    result = detector.cut(image, grid(image.shape, (1, 1, 7.5)))
    assert result.z.tolist() == [0, 1, 2]
    assert result.spacing_mm == (1, 1, 7.5)


@pytest.mark.parametrize("size_mm", [0.5, 0.8, 1.0, 2.5])
def test_pixels_are_a_millimetre_and_nothing_shifts(size_mm: float) -> None:
    # A blob 20.3 mm from the left edge and 14.1 mm from the back.
    nx, ny = round(40 / size_mm), round(50 / size_mm)
    x, y = np.ogrid[:nx, :ny]
    blob = np.exp(
        -(((x + 0.5) * size_mm - 20.3) ** 2 + ((y + 0.5) * size_mm - 14.1) ** 2) / (2 * 3**2)
    )
    result = detector.cut(blob[:, :, None], grid((nx, ny, 1), (size_mm, size_mm, 4)))
    rows, columns = np.indices(result.images.shape[1:])
    weight = result.images[0].astype(float) ** 2
    centre = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
    np.testing.assert_allclose(centre, (19.8, 13.6), atol=0.15)


@given(
    st.tuples(st.floats(0, 300), st.floats(0, 300)),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
)
@settings(max_examples=30)
def test_pixels_and_voxels_are_inverse(
    point: tuple[float, float], size_mm: tuple[float, float]
) -> None:
    pictures = detector.Slabs(
        grid((4, 4, 1), (*size_mm, 1)), np.zeros((1, 4, 4), np.uint8), np.zeros(1)
    )
    np.testing.assert_allclose(pictures.to_voxels(pictures.to_pixels(point)), point, atol=1e-6)


def test_a_few_extreme_voxels_do_not_darken_the_rest() -> None:
    image = np.random.default_rng(0).uniform(0, 100, (40, 40, 4))
    image[0, 0, 0] = 1e6
    assert detector.cut(image, grid(image.shape, (1, 1, 4))).images.mean() > 100


def test_a_small_object_on_nothing_is_kept() -> None:
    image = np.zeros((40, 40, 4))
    image[20, 20, :] = 50
    assert detector.cut(image, grid(image.shape, (1, 1, 4))).images.max() == 255


def test_a_constant_image_is_refused() -> None:
    with pytest.raises(CenterlineError, match="every voxel of the image is 3"):
        detector.cut(np.full((9, 9, 2), 3), grid((9, 9, 2), (1, 1, 1)))


def test_a_cord_is_looked_for_inside_the_picture_only() -> None:
    inside = detector.inner((20, 11))
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 15, 3, 7)
    assert inside.sum() == 12 * 5


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9])
def test_a_narrow_picture_still_has_an_inside(n: int) -> None:
    assert detector.inner((n, 50)).any()
