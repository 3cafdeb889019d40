from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.centerline import cnn
from sct_lesion_losses.errors import CenterlineError, EngineError
from sct_lesion_losses.geometry.grid import Grid

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])


@pytest.fixture
def bright_is_cord(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the network by a threshold."""
    monkeypatch.setattr(cnn, "_session", lambda _: lambda p: (p > 2).astype(np.float32))


def scan(course: list[tuple[int, int] | None], side: int = 60) -> tuple[np.ndarray, Grid]:
    """Scan of 1 mm voxels with a bright square of 7 mm in some slices."""
    image = np.zeros((side, side, len(course)), np.float32)
    for z, point in enumerate(course):
        if point is not None:
            x, y = point
            image[x - 3 : x + 4, y - 3 : y + 4, z] = 100
    return image, Grid(image.shape, LAS)


@pytest.mark.usefixtures("bright_is_cord")
def test_the_line_follows_the_cord_and_bridges_a_gap() -> None:
    course = [(20 + z // 2, 30) if z not in (9, 10) else None for z in range(24)]
    line = cnn.centerline(*scan(course), b"", "t2")
    expected = [(20 + z // 2, 30) for z in range(24)]
    assert np.abs(line.xy - expected).max() < 1.01


@pytest.mark.usefixtures("bright_is_cord")
@pytest.mark.parametrize(("brain", "last"), [(True, 14), (False, 39)])
def test_the_brain_ends_the_line_unless_it_is_said_to_be_absent(brain: bool, last: int) -> None:
    # Cord, 15 slices without, and something bright at the top.
    course = [(30, 30)] * 15 + [None] * 15 + [(30, 30)] * 10
    line = cnn.centerline(*scan(course), b"", "t2", brain=brain)
    assert np.flatnonzero(line.covered).tolist() == list(range(last + 1))


@pytest.mark.usefixtures("bright_is_cord")
def test_below_the_first_slice_with_a_cord_the_line_goes_straight_on() -> None:
    course = [None] * 10 + [(10 + z, 30) for z in range(10, 40)]
    line = cnn.centerline(*scan(course, side=70), b"", "t2")
    np.testing.assert_allclose(line.xy[0], (10, 30), atol=3)  # held, it would be (20, 30)


def test_a_scan_without_cord_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cnn, "_session", lambda _: np.zeros_like)
    with pytest.raises(CenterlineError, match=r"highest probability is 0\.00"):
        cnn.centerline(*scan([(30, 30)] * 10), b"", "t2")


@pytest.mark.usefixtures("bright_is_cord")
def test_a_cord_on_nothing_is_found() -> None:
    image, grid = scan([None] * 40)
    image[29:32, 29:32] = 100  # fewer voxels than the percentiles leave out
    line = cnn.centerline(image, grid, b"", "t2")
    assert np.abs(line.xy - 30).max() < 1.01


def test_a_damaged_network_is_named() -> None:
    image, grid = scan([(30, 30)] * 5)
    with pytest.raises(EngineError, match="cannot be loaded"):
        cnn.centerline(image, grid, b"not a network", "t2")
