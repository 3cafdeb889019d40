"""Planes without signal beside and between those of a scan, as padding and stitching leave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sct_lesion_losses.geometry.grid import Grid


@dataclass(frozen=True)
class Padding:
    """Planes to add to an RPI scan.

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
