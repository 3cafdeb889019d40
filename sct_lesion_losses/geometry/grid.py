"""The grid of voxels of a scan, its orientation and spacing, and resampling to another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import GeometryError

Array = npt.NDArray[Any]
Box = tuple[slice, slice, slice]

# Letters of SCT's convention: where each axis starts, so RPI has x running right to left,
# y posterior to anterior, z inferior to superior. World axes are nibabel's: left-to-right
# (x grows to the right), posterior-to-anterior, inferior-to-superior.
_STARTS = (("L", "R"), ("P", "A"), ("I", "S"))
SINGULAR = 1e-3  # volume that the unit vectors along the voxel axes span; 1 at right angles
_ALIGNED_VOX = 1e-3  # largest drift, in source voxels, over the whole target grid
_RPI_SIGNS = (-1, 1, 1)  # sign of each world axis along x, y, z of an RPI array


@dataclass(frozen=True)
class Reorientation:
    """The way of the axes of an array to those of its RPI view, and back.

    Attributes
    ----------
    axes : tuple of int
        ``axes[k]`` is the stored axis that becomes axis k in RPI.
    flips : tuple of bool
        Whether axis k is reversed, after the transposition.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: Array) -> Array:
        """RPI view of a stored array, (X, Y, Z, ...); nothing is copied."""
        rest = tuple(range(3, array.ndim))
        return array.transpose(*self.axes, *rest)[self._slices()]

    def undo(self, array: Array) -> Array:
        """Stored-orientation view of an RPI array, (X, Y, Z, ...); nothing is copied."""
        inverse = tuple(int(k) for k in np.argsort(self.axes))
        rest = tuple(range(3, array.ndim))
        return array[self._slices()].transpose(*inverse, *rest)

    def _slices(self) -> tuple[slice, slice, slice]:
        x, y, z = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return x, y, z


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels in world space.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along the three axes.
    affine : (4, 4) float64
        Voxel indices to world mm (x to the right, y to the front, z up: nibabel's RAS+).

    Raises
    ------
    GeometryError
        The shape is not three positive numbers, or the affine is not finite and invertible.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"grid shape is {self.shape}, expected three positive numbers")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("grid affine must be a finite 4 x 4 matrix; check the header")
        # Of the unit axes: tiny voxels are no reason to call an affine singular.
        scale = np.linalg.norm(affine[:3, :3], axis=0)
        if scale.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / scale)) < SINGULAR:
            raise GeometryError("grid affine is singular: two voxel axes coincide; fix the header")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, mm³; below the product of the spacings where the grid is sheared."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def orientation(self) -> str:
        """Orientation by SCT's convention, one letter an axis: where the axis starts."""
        axes, signs = self._nearest_axes()
        return "".join(_STARTS[a][0 if s > 0 else 1] for a, s in zip(axes, signs, strict=True))

    def to_rpi(self) -> tuple[Grid, Reorientation]:
        """Grid of the same voxels with RPI axis order, and the reorientation that leads there."""
        world_axes, signs = self._nearest_axes()
        axes = tuple(int(k) for k in np.argsort(world_axes))
        flips = tuple(bool(signs[axes[k]] != _RPI_SIGNS[k]) for k in range(3))
        move = np.zeros((4, 4))
        move[3, 3] = 1.0
        for k in range(3):
            move[axes[k], k] = -1.0 if flips[k] else 1.0
            move[axes[k], 3] = self.shape[axes[k]] - 1 if flips[k] else 0.0
        shape = (self.shape[axes[0]], self.shape[axes[1]], self.shape[axes[2]])
        return Grid(shape, self.affine @ move), Reorientation(
            (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])
        )

    def resampled(self, spacing_mm: Sequence[float | None]) -> Grid:
        """Grid over the same field of view with another spacing; None keeps an axis.

        SCT's rule (`sct_resample`): the number of voxels is rounded, the spacing gives way, and
        the centre of the first voxel stays where it is.
        """
        shape, factors = [], []
        for n, old, new in zip(self.shape, self.spacing_mm, spacing_mm, strict=True):
            # float32 steps: header spacings such as 0.8000001 must not tip the rounding.
            count = n if new is None else int(np.round(n * float(np.float32(old)) / new))
            shape.append(max(count, 1))
            factors.append(n / max(count, 1))
        return Grid((shape[0], shape[1], shape[2]), self.affine @ np.diag([*factors, 1.0]))

    def to_world(self, voxels: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """World coordinates, (..., 3) mm, of voxel coordinates, (..., 3)."""
        points = np.asarray(voxels, dtype=np.float64)
        return points @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxel(self, world_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Voxel coordinates, (..., 3), of world coordinates, (..., 3) mm."""
        points = np.asarray(world_mm, dtype=np.float64) - self.affine[:3, 3]
        solved: npt.NDArray[np.float64] = points @ np.linalg.inv(self.affine[:3, :3]).T
        return solved

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """World coordinates of the centres of the corner voxels, (8, 3) mm."""
        ends = np.meshgrid(*[(0, n - 1) for n in self.shape])
        return self.to_world(np.stack(ends, -1).reshape(-1, 3))

    def matches(self, other: Grid, tolerance_mm: float = 0.01) -> bool:
        """Tell if both grids have the same shape and put every corner in the same place."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners - other.corners).max() <= tolerance_mm)

    def _nearest_axes(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """World axis nearest to each voxel axis, and its sign; a permutation for every affine.

        The polar factor of the direction matrix removes shear first, as nibabel does.
        """
        directions = self.affine[:3, :3] / np.array(self.spacing_mm)
        u, _, vt = np.linalg.svd(directions)
        rotation = u @ vt
        axes = [-1, -1, -1]
        left = np.abs(rotation).copy()
        for _ in range(3):
            world, voxel = np.unravel_index(int(np.argmax(left)), left.shape)
            axes[int(voxel)] = int(world)
            left[world, :] = -1
            left[:, voxel] = -1
        signs = [1 if rotation[axes[k], k] > 0 else -1 for k in range(3)]
        return (axes[0], axes[1], axes[2]), (signs[0], signs[1], signs[2])


def axis_mapping(grid: Grid, onto: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and offset that lead, axis by axis, from voxels of `onto` to voxels of `grid`.

    Raises
    ------
    GeometryError
        The axes of the two grids are not parallel.
    """
    mapping = np.linalg.inv(grid.affine) @ onto.affine
    scale = np.diag(mapping)[:3].copy()
    drift = np.abs(mapping[:3, :3] - np.diag(scale)) @ np.array(onto.shape, dtype=np.float64)
    if drift.max() > _ALIGNED_VOX or scale.min() <= 0:
        raise GeometryError(
            "the two grids have different axes; bring both to RPI (Grid.to_rpi), or resample the "
            "image onto the other one's grid first"
        )
    return scale, mapping[:3, 3].copy()


def resample(
    array: Array,
    grid: Grid,
    onto: Grid,
    box: Box | None = None,
    order: Literal[0, 1] = 1,
) -> npt.NDArray[np.float32]:
    """Interpolate an array at the voxels of another grid, inside `box` only.

    Linear (`order` 1) or nearest-neighbour (`order` 0) interpolation, one axis after the other;
    beyond the outermost voxel centres the edge value holds. Agrees with nibabel's
    ``resample_from_to(..., order=1, mode="nearest")``.

    Parameters
    ----------
    array : (X, Y, Z)
        Values on `grid`; any real dtype, only the part under the box is converted.
    grid, onto : Grid
        Grids whose axes are parallel and in the same order (oblique ones too, if both are).
    box : tuple of three slices, optional
        Part of `onto`, in its voxels; it may reach beyond the grid. Everything by default.
    order : {0, 1}

    Returns
    -------
    (x, y, z) float32

    Raises
    ------
    GeometryError
        The axes of the two grids are not parallel.
    """
    if box is None:
        box = (slice(0, onto.shape[0]), slice(0, onto.shape[1]), slice(0, onto.shape[2]))
    scale, offset = axis_mapping(grid, onto)
    coordinates = []
    for k in range(3):
        at = scale[k] * np.arange(box[k].start, box[k].stop) + offset[k]
        # Rounded, so that grids that share voxels share their values to the bit.
        coordinates.append(np.clip(np.round(at, 9), 0, grid.shape[k] - 1))
    window = tuple(slice(int(at[0]), int(np.ceil(at[-1])) + 1) for at in coordinates)
    result = array[window].astype(np.float32, copy=False)
    # The axis that shrinks the array most goes first.
    for axis in sorted(range(3), key=lambda k: len(coordinates[k]) / result.shape[k]):
        result = _along(result, axis, coordinates[axis] - window[axis].start, order)
    return np.ascontiguousarray(result)


def _along(
    array: npt.NDArray[np.float32], axis: int, at: npt.NDArray[np.float64], order: int
) -> npt.NDArray[np.float32]:
    """Interpolate one axis at increasing coordinates `at`, all of them inside the array."""
    if order == 0:
        return np.take(array, np.floor(at + 0.5).astype(np.intp), axis=axis)
    low = np.floor(at).astype(np.intp)
    weight = (at - low).astype(np.float32)
    below = np.take(array, low, axis=axis)
    if not weight.any():
        return below
    above = np.take(array, np.minimum(low + 1, array.shape[axis] - 1), axis=axis)
    above -= below
    above *= np.expand_dims(weight, [k for k in range(3) if k != axis])
    below += above
    return below
