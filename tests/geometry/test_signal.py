import numpy as np
import pytest
from geometry import PADDINGS, Padding
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.signal import Signal

GRID = Grid((31, 33, 45), np.diag([-0.8, 0.8, 2.0, 1.0]))


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, GRID.shape).astype(np.int16)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_padding_is_left_out(padding: Padding) -> None:
    padded, grid = padding.of(noise(), GRID)
    signal = Signal.of(padded, grid)
    np.testing.assert_array_equal(signal.crop(padded), noise())
    assert signal.grid.matches(GRID)
    assert not signal.is_whole


def test_a_scan_with_signal_everywhere_is_whole() -> None:
    signal = Signal.of(noise(), GRID)
    assert signal.is_whole
    assert signal.left_out == ""
    assert signal.crop(noise()).shape == GRID.shape


@given(st.sets(st.integers(0, 44), max_size=40), st.integers(0, 9), st.integers(0, 9))
def test_uncrop_puts_every_voxel_back(blank: set[int], x: int, y: int) -> None:
    image = noise()
    image[:, :, sorted(blank)] = 7
    image[:x], image[:, GRID.shape[1] - y :] = 7, 7
    signal = Signal.of(image, GRID)
    assert len(signal.z) == 45 - len(blank)
    back = signal.uncrop(signal.crop(image).astype(np.float32) - 7)
    np.testing.assert_array_equal(back, image - 7)


def test_rounding_is_no_signal_and_one_bright_voxel_hides_none() -> None:
    image = noise().astype(np.float32)
    image[:, :, 40:] = np.random.default_rng(1).uniform(0, 1e-4, (31, 33, 5))
    image[3, 3, 3] = 1e9
    assert Signal.of(image, GRID).z.tolist() == list(range(40))


def test_what_is_left_out_is_said_by_slices_and_by_planes_beside_them() -> None:
    image = noise()
    image[:, :, [0, 1, 20]] = 0
    assert Signal.of(image, GRID).left_out == "3 of 45 axial slices"
    image[:4] = 0
    assert Signal.of(image, GRID).left_out == "3 of 45 axial slices and 4 planes beside the others"


def test_a_scan_without_any_signal_is_left_whole() -> None:
    assert Signal.of(np.full(GRID.shape, 3), GRID).is_whole


def test_a_line_comes_back_to_its_place_and_has_no_point_in_blank_slices() -> None:
    padding = Padding((5, 3, 2), (0, 0, 4), 0.0, (20,))
    padded, grid = padding.of(noise(), GRID)
    signal = Signal.of(padded, grid)
    xy = np.column_stack([np.linspace(5, 25, 45), np.linspace(20, 8, 45)])
    line = signal.uncrop_line(Centerline(GRID, xy))
    np.testing.assert_array_equal(np.flatnonzero(~line.covered), [0, 1, 20, *range(48, 52)])
    np.testing.assert_allclose(signal.crop_line(line).xy, xy, atol=1e-12)
    np.testing.assert_allclose(line.xy[2], xy[0] + (5, 3))


def test_a_line_in_blank_slices_alone_is_refused() -> None:
    image = noise()
    image[:, :, 30:] = 0
    line = Centerline(GRID, np.full((45, 2), 10.0)).only(np.arange(30, 45))
    with pytest.raises(CenterlineError, match="slices without signal only"):
        Signal.of(image, GRID).crop_line(line)


def test_slices_that_are_blank_around_the_cord_are_left_out_along_it() -> None:
    grid = Grid((80, 80, 20), np.diag([-1.0, 1.0, 1.0, 1.0]))
    image = np.random.default_rng(0).uniform(0, 100, grid.shape)
    image[:60, :, 15:] = 0  # as defacing leaves the upper slices
    signal = Signal.of(image, grid)
    line = Centerline(grid, np.full((20, 2), 40.0))
    assert signal.is_whole
    assert signal.along(image, line).z.tolist() == list(range(15))
    # 12 mm around it reach into what is left.
    assert signal.along(image, Centerline(grid, np.full((20, 2), 49.0))).is_whole
