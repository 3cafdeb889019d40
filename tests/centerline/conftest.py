from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cord_detector import Example

from sct_lesion_losses.centerline import detector
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

Loader = Callable[..., tuple[np.ndarray, Grid]]


@pytest.fixture
def load(shared: Path) -> Loader:
    """Array and grid of a part of SCT's testing scans, by their path without the extension."""

    def read(stem: str, box: tuple[slice, ...] = np.s_[:, :, :]) -> tuple[np.ndarray, Grid]:
        image = nib.load(shared / "data/sct_testing_data" / f"{stem}.nii.gz").slicer[box]
        return np.asarray(image.dataobj), Grid(image.shape, image.affine)

    return read


@pytest.fixture
def errors_mm(load: Loader) -> Callable[[Centerline, str], np.ndarray]:
    """In-plane distance to the centre of a cord mask, for each of its slices."""

    def measure(line: Centerline, mask_stem: str) -> np.ndarray:
        mask, grid = load(mask_stem)
        rpi, reorientation = grid.to_rpi()
        truth = Centerline.from_mask(reorientation.apply(mask), rpi)
        assert rpi.shape == line.grid.shape
        apart = (line.xy - truth.xy)[truth.covered] * line.grid.spacing_mm[:2]
        assert np.isfinite(apart).all()
        return np.hypot(*apart.T)

    return measure


@pytest.fixture(scope="session")
def example() -> Callable[..., Example]:
    """Make examples in which the cord is a dark disc of 9 mm in a bright one of 17 mm."""
    return disc_example


def disc_example(seed: int, cord: bool = True) -> Example:
    """Six slabs of random stripes, the disc nearly straight through them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:60, :50]
    images, points = [], []
    x, y = rng.uniform(15, 35), rng.uniform(18, 42)
    for _ in range(6):
        x, y = x + rng.normal(0, 0.5), y + rng.normal(0, 0.5)
        stripes = 60 + 30 * np.sin(rows * rng.uniform(0.2, 1) + columns * rng.uniform(0.2, 1))
        away = np.hypot(columns - x, rows - y)
        disc = np.where(away < 8.5, 200, stripes) * np.where(away < 4.5, 0.5, 1)
        image = (disc if cord else stripes) + rng.normal(0, 5, rows.shape)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
        points.append((x, y))
    grid = Grid((50, 60, 6), np.diag([-1, 1, 4.0, 1]))
    pictures = detector.Slabs(grid, np.stack(images), np.arange(6.0))
    return Example(pictures, np.array(points) if cord else np.full((6, 2), np.nan))
