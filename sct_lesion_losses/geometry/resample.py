"""Values of an array on another grid with the same axes, computed only where they are wanted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.geometry.grid import Grid, axis_mapping

Box = tuple[slice, slice, slice]


def values(
    array: npt.NDArray[Any],
    grid: Grid,
    onto: Grid,
    box: Box | None = None,
    order: Literal[0, 1] = 1,
) -> npt.NDArray[np.float32]:
    """Values of `array` at the voxels of `onto`, inside `box` only.

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
