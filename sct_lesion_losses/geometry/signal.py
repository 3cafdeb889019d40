"""The part of a scan that has signal, without the planes that padding or stitching left blank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

FAINT = 1e-3  # of the usual range of a slice: what varies by less shows nothing
WINDOW_MM = 24.0  # the side of the square around the cord that a network sees


@dataclass(frozen=True, eq=False)
class Signal:
    """Axial slices with signal, and the rectangle in them beyond which nothing has any.

    A slice is blank if it holds one value throughout, whatever the value. Blank slices between
    others are left out too: those beyond them follow directly.

    Attributes
    ----------
    whole : Grid
        RPI grid of the scan.
    x, y : slice
        Columns and rows from the first to the last that are not blank.
    z : (K,) int
        Slices that are not blank, in rising order.
    """

    whole: Grid
    x: slice
    y: slice
    z: npt.NDArray[np.intp]

    @classmethod
    def of(cls, image: npt.NDArray[Any], grid: Grid) -> Signal:
        """Find the planes of a scan that have signal.

        Parameters
        ----------
        image : (X, Y, Z)
            On `grid`; finite.
        grid : Grid
            RPI grid.

        Returns
        -------
        Signal
            All of the scan where no plane has any.
        """
        nx, ny, nz = grid.shape
        found = cls(grid, slice(0, nx), slice(0, ny), np.arange(nz))
        while True:  # a plane may be blank but for others that are: padded by two values
            smaller = found._trimmed(image)
            if smaller is None or smaller.grid.shape == found.grid.shape:
                return found
            found = smaller

    def along(self, image: npt.NDArray[Any], line: Centerline) -> Signal:
        """Leave out the slices that are blank around the cord as well, as defacing leaves them.

        Parameters
        ----------
        image : (X, Y, Z)
            Of the whole scan.
        line : Centerline
            On its grid. Slices that it does not cover are kept.
        """
        half = np.ceil(WINDOW_MM / 2 / np.array(self.whole.spacing_mm[:2]))
        known = self.z[line.covered[self.z]]
        low = np.maximum(np.floor(line.xy[known] - half), (self.x.start, self.y.start))
        high = np.minimum(np.ceil(line.xy[known] + half) + 1, (self.x.stop, self.y.stop))
        ranges = np.zeros(len(known))
        for k, (x0, y0, x1, y1) in enumerate(np.hstack([low, high]).astype(int)):
            window = image[x0:x1, y0:y1, known[k]]
            ranges[k] = float(window.max()) - float(window.min()) if window.size else 0.0
        blank = known[~_varies(ranges)] if ranges.any() else known[:0]
        return Signal(self.whole, self.x, self.y, np.setdiff1d(self.z, blank))

    @property
    def slices(self) -> Signal:
        """The same slices, each of them whole."""
        nx, ny, _ = self.whole.shape
        return Signal(self.whole, slice(0, nx), slice(0, ny), self.z)

    @property
    def is_whole(self) -> bool:
        """Nothing is left out."""
        return self.grid.shape == self.whole.shape

    @property
    def left_out(self) -> str:
        """Phrase for what is left out."""
        before, after = self.whole.shape, self.grid.shape
        slices, planes = before[2] - after[2], sum(before[:2]) - sum(after[:2])
        parts = [f"{slices} of {before[2]} axial slices"] if slices else []
        return " and ".join(parts + ([f"{planes} planes beside the others"] if planes else []))

    @property
    def grid(self) -> Grid:
        """RPI grid of the part, from its first slice on."""
        shape = (self.x.stop - self.x.start, self.y.stop - self.y.start, len(self.z))
        corner = np.eye(4)
        corner[:3, 3] = self.x.start, self.y.start, self.z[0]
        return Grid(shape, self.whole.affine @ corner)

    def crop(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the part of an array of the whole scan, (X, Y, Z)."""
        return array[self.x, self.y, self._index]

    def uncrop(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Put an array of the part back on the whole scan, (X, Y, Z); zero elsewhere."""
        result = np.zeros(self.whole.shape, array.dtype)
        result[self.x, self.y, self._index] = array
        return result

    def crop_line(self, line: Centerline) -> Centerline:
        """Move a line from the grid of the whole scan to that of the part.

        Raises
        ------
        CenterlineError
            The line lies in blank slices only.
        """
        if not line.covered[self.z].any():
            raise CenterlineError(
                "the centerline lies in slices without signal only; draw it where the cord is seen"
            )
        return Centerline(
            self.grid, line.xy[self.z] - np.array([self.x.start, self.y.start]), line.method
        )

    def uncrop_line(self, line: Centerline) -> Centerline:
        """Move a line back to the grid of the whole scan; blank slices have no point."""
        xy = np.full((self.whole.shape[2], 2), np.nan)
        xy[self.z] = line.xy + np.array([self.x.start, self.y.start])
        return Centerline(self.whole, xy, line.method)

    @property
    def _index(self) -> slice | npt.NDArray[np.intp]:
        first, last = int(self.z[0]), int(self.z[-1])
        return slice(first, last + 1) if last - first + 1 == len(self.z) else self.z

    def _trimmed(self, image: npt.NDArray[Any]) -> Signal | None:
        """Leave out the planes that are blank within this part; None if all are."""
        region = image[self.x, self.y]
        # (X, Z) and (Y, Z)
        over_y = region.min(axis=1).astype(float), region.max(axis=1).astype(float)
        over_x = region.min(axis=0).astype(float), region.max(axis=0).astype(float)
        ranges = over_y[1].max(axis=0)[self.z] - over_y[0].min(axis=0)[self.z]
        if not ranges.any():
            return None
        z = self.z[_varies(ranges)]
        usual = ranges[ranges > 0]
        sides = []
        for (lowest, highest), side in ((over_y, self.x), (over_x, self.y)):
            along = highest[:, z].max(axis=1) - lowest[:, z].min(axis=1)
            seen = np.flatnonzero(_varies(along, usual))
            sides.append(slice(side.start + int(seen[0]), side.start + int(seen[-1]) + 1))
        return Signal(self.whole, sides[0], sides[1], z)


def _varies(
    ranges: npt.NDArray[np.float64], usual: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.bool_]:
    """Tell ranges of intensity that are those of signal from those of rounding."""
    positive = ranges[ranges > 0] if usual is None else usual
    varies: npt.NDArray[np.bool_] = ranges > FAINT * np.median(positive)
    return varies
