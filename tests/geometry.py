"""Grids that real scanners and converters produce, for property tests."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from sct_lesion_losses.geometry.grid import Grid

AXIS_ORDERS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(
    axes: tuple[int, ...],
    signs: tuple[int, ...],
    spacing: tuple[float, ...],
    tilt_deg: tuple[float, ...] = (0.0, 0.0, 0.0),
    origin: tuple[float, ...] = (0.0, 0.0, 0.0),
    shear: float = 0.0,
) -> npt.NDArray[np.float64]:
    """Affine whose voxel axis k runs along world axis ``axes[k]``, tilted afterwards."""
    linear = np.zeros((3, 3))
    for k in range(3):
        linear[axes[k], k] = signs[k] * spacing[k]
    linear[axes[0], 1] += shear * spacing[1]
    for axis, angle in enumerate(np.deg2rad(tilt_deg)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        linear = turn @ linear
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = origin
    return affine


@st.composite
def grids(draw: st.DrawFn, min_side: int = 4, max_side: int = 12) -> Grid:
    """Any of the 48 axis orders, oblique up to 15°, sheared a little, 0.3 to 6 mm voxels."""
    axes, signs = draw(st.sampled_from(AXIS_ORDERS))
    spacing = tuple(draw(st.floats(0.3, 6.0)) for _ in range(3))
    tilt = tuple(draw(st.floats(-15, 15)) for _ in range(3))
    origin = tuple(draw(st.floats(-200, 200)) for _ in range(3))
    shear = draw(st.sampled_from([0.0, 0.0, 0.05]))
    shape = tuple(draw(st.integers(min_side, max_side)) for _ in range(3))
    return Grid(
        (shape[0], shape[1], shape[2]), affine_of(axes, signs, spacing, tilt, origin, shear)
    )
