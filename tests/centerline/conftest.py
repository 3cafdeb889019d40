from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.space.centerline import Centerline
from sct_lesion_losses.space.grid import Grid

Loader = Callable[[str], tuple[np.ndarray, Grid]]


@pytest.fixture
def load(shared: Path) -> Loader:
    """Array and grid of one of SCT's testing scans, by its path without the extension."""

    def read(stem: str) -> tuple[np.ndarray, Grid]:
        image = nib.load(shared / "data/sct_testing_data" / f"{stem}.nii.gz")
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
