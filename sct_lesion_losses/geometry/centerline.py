"""The course of the cord through a scan: one point per axial slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import CenterlineError, GeometryError
from sct_lesion_losses.geometry.grid import Grid, Reorientation, axis_mapping

# Said where none is found: to train, tune and evaluate, centerlines are part of the cohort.
HOW_TO_GIVE = (
    "with -centerline file -file_centerline <file>, or, where the scan is of a cohort, as a "
    "centerline in the cohort"
)


@dataclass(frozen=True, eq=False)
class Centerline:
    """Centre of the cord in each axial slice of an RPI grid.

    Attributes
    ----------
    grid : Grid
        RPI grid of Z slices.
    xy : (Z, 2) float64
        Voxel coordinates of the cord's centre in each slice; NaN where it is not known.
    method : str
        How it was found, for the sidecar.
    """

    grid: Grid
    xy: npt.NDArray[np.float64]
    method: str = ""

    def __post_init__(self) -> None:
        xy = np.array(self.xy, dtype=np.float64)
        if self.grid.orientation != "RPI":
            raise GeometryError(f"a centerline needs an RPI grid, received {self.grid.orientation}")
        if xy.shape != (self.grid.shape[2], 2):
            raise GeometryError(
                f"a centerline on {self.grid.shape[2]} slices needs as many points of two "
                f"coordinates, received an array of shape {xy.shape}"
            )
        xy[~np.isfinite(xy).all(axis=1)] = np.nan
        if np.isnan(xy).all():
            raise CenterlineError("the centerline has no point; draw one, or use another method")
        xy.setflags(write=False)
        object.__setattr__(self, "xy", xy)

    @classmethod
    def from_mask(cls, mask: npt.NDArray[Any], grid: Grid, method: str = "") -> Centerline:
        """Centre of mass of a cord mask or centerline image, slice by slice.

        Parameters
        ----------
        mask : (X, Y, Z)
            Non-negative weights on `grid`: a mask, or single voxels on the centerline.
        grid : Grid
            RPI grid of the mask.
        method : str

        Raises
        ------
        CenterlineError
            The mask is empty.
        """
        xy = np.full((grid.shape[2], 2), np.nan)
        for z in np.flatnonzero(mask.any(axis=(0, 1))):
            x, y = np.nonzero(mask[:, :, z])
            weights = mask[x, y, z].astype(np.float64)
            xy[z] = np.average(x, weights=weights), np.average(y, weights=weights)
        return cls(grid, xy, method)

    @classmethod
    def from_csv(cls, text: str, grid: Grid, method: str = "") -> Centerline:
        """Read a line as `sct_get_centerline` writes it; the inverse of `to_csv`.

        Parameters
        ----------
        text : str
            One row an axial slice: voxel coordinates in the image as it is stored, the one along
            the cord a whole number.
        grid : Grid
            Of the image as it is stored.
        method : str

        Raises
        ------
        CenterlineError
            A row is something else, or lies outside the image.
        """
        rpi, turn = grid.to_rpi()
        xy = np.full((rpi.shape[2], 2), np.nan)
        for number, row in enumerate(text.split("\n"), start=1):
            if not row.strip():
                continue
            try:
                i, j, k = (float(word) for word in row.split(","))
                x, y, z = _turned((i, j, k), rpi, turn)
                inside = min(x, y) >= -0.5 and x <= rpi.shape[0] and y <= rpi.shape[1]
                good = inside and z == int(z) and 0 <= z < rpi.shape[2] and np.isnan(xy[int(z), 0])
            except (ValueError, OverflowError):
                good = False
            if not good:
                raise CenterlineError(
                    f"row {number} is {row.strip()[:80]!r}, expected voxel coordinates in a stored "
                    f"image of {' × '.join(map(str, grid.shape))} voxels: one point inside it for "
                    "each axial slice"
                )
            xy[int(z)] = x, y
        return cls(rpi, xy, method)

    def to_csv(self, grid: Grid) -> str:
        """Rows of voxel coordinates in an image as it is stored, as by `sct_get_centerline`.

        In full digits, so that the file given back makes the same mask.

        Parameters
        ----------
        grid : Grid
            Of the image as it is stored; turned to RPI it is the line's.
        """
        _, turn = grid.to_rpi()
        z = np.flatnonzero(self.covered)
        rows = np.empty((len(z), 3))
        for axis, flip, size, along in zip(
            turn.axes, turn.flips, self.grid.shape, (*self.xy[z].T, z), strict=True
        ):
            rows[:, axis] = size - 1 - along if flip else along
        return "".join(",".join(f"{value:.18e}" for value in row) + "\n" for row in rows)

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Slices in which the cord's centre is known, (Z,) bool."""
        known: npt.NDArray[np.bool_] = np.isfinite(self.xy[:, 0])
        return known

    def filled(self) -> Centerline:
        """Interpolate the gaps between known slices; the ends stay as they are."""
        known = np.flatnonzero(self.covered)
        z = np.arange(known[0], known[-1] + 1)
        xy = np.full_like(self.xy, np.nan)
        xy[z] = self._between(z)
        return Centerline(self.grid, xy, self.method)

    def only(self, slices: npt.NDArray[np.intp]) -> Centerline:
        """Keep the points in these slices alone."""
        xy = np.full_like(self.xy, np.nan)
        xy[slices] = self.xy[slices]
        return Centerline(self.grid, xy, self.method)

    def on(self, grid: Grid) -> Centerline:
        """Move the line onto the slices of another RPI grid with parallel axes.

        Each known slice keeps its thickness: a slice of `grid` is covered when its centre lies
        within half a slice of a known one. Between the centres of known slices the line is
        interpolated, beyond the outermost it is held. To bridge gaps, call `filled` first.

        Raises
        ------
        GeometryError
            The axes of the two grids are not parallel.
        CenterlineError
            No slice of `grid` is covered.
        """
        scale, offset = axis_mapping(self.grid, grid)
        # Rounded, so that the stored order of the axes does not decide between two slices.
        source = np.round(scale[2] * np.arange(grid.shape[2]) + offset[2], 6)
        nearest = np.clip(np.floor(source + 0.5).astype(int), 0, self.grid.shape[2] - 1)
        xy = np.full((grid.shape[2], 2), np.nan)
        inside = self.covered[nearest] & (np.abs(source - nearest) <= 0.5 + 1e-6)
        xy[inside] = (self._between(source[inside]) - offset[:2]) / scale[:2]
        return Centerline(grid, xy, self.method)

    def _between(self, z: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Interpolate between the known slices, (N, 2), and hold the line beyond them."""
        known = np.flatnonzero(self.covered)
        return np.column_stack([np.interp(z, known, self.xy[known, k]) for k in range(2)])


def _turned(
    stored: tuple[float, float, float], rpi: Grid, turn: Reorientation
) -> tuple[float, float, float]:
    """Voxel coordinates in RPI of those in the stored image."""
    x, y, z = (
        size - 1 - stored[axis] if flip else stored[axis]
        for axis, flip, size in zip(turn.axes, turn.flips, rpi.shape, strict=True)
    )
    return x, y, z
