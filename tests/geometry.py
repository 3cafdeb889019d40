"""Grids that real scanners and converters produce, and planes without signal around them."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from sct_lesion_losses.geometry.centerline import Centerline
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


def rpi_grid(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """Grid whose axes run to the left, to the front and upwards."""
    return Grid(shape, affine_of((0, 1, 2), (-1, 1, 1), spacing, origin=origin))


def straight(
    grid: Grid, x: float | None = None, y: float | None = None, slices: slice = slice(None)
) -> Centerline:
    """Line through the middle of the slices of an RPI grid, or through (x, y), in some of them."""
    nx, ny, nz = grid.shape
    xy = np.full((nz, 2), np.nan)
    xy[slices] = (nx - 1) / 2 if x is None else x, (ny - 1) / 2 if y is None else y
    return Centerline(grid, xy)


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


@dataclass(frozen=True)
class Padding:
    """Planes to add to an RPI scan, as padding and stitching leave them.

    Attributes
    ----------
    before, after : tuple of int
        Planes below and above each axis.
    value : float
        In all of them.
    between : tuple of int
        Slices of the padded scan that are blank as well, between others.
    """

    before: tuple[int, int, int]
    after: tuple[int, int, int]
    value: float
    between: tuple[int, ...] = ()

    def of(self, array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
        """Padded array and its grid."""
        width = list(zip(self.before, self.after, strict=True))
        padded = np.pad(array, width, constant_values=array.dtype.type(self.value))
        for z in self.between:
            padded = np.insert(padded, z, array.dtype.type(self.value), axis=2)
        corner = np.eye(4)
        corner[:3, 3] = -np.array(self.before)
        return padded, Grid(padded.shape, grid.affine @ corner)

    def undone(self, array: np.ndarray) -> np.ndarray:
        """The array without the planes."""
        rest = np.delete(array, self.between, axis=2)
        box = zip(self.before, self.after, rest.shape, strict=True)
        return rest[tuple(slice(low, n - high) for low, high, n in box)]


PADDINGS = (
    Padding((0, 0, 25), (0, 0, 50), 0.0),
    Padding((0, 0, 7), (0, 0, 0), 250.0),
    Padding((20, 0, 0), (20, 0, 0), 0.0),
    Padding((3, 11, 13), (20, 2, 5), -37.0),
    Padding((0, 0, 0), (0, 0, 0), 0.0, tuple(range(22, 31))),
    Padding((4, 0, 9), (0, 6, 3), 12.0, (20, 21, 22, 40)),
)
