"""Cord coordinates all over a scan, interpolated from a coarse lattice of exact ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.noise import Floats
from sct_lesion_losses.space.grid import Grid

_NODE_MM = 6.0  # spacing of the lattice on which cord coordinates are computed exactly


@dataclass(frozen=True, eq=False)
class Lattice:
    """Cord coordinates on a coarse lattice over a grid.

    Attributes
    ----------
    nodes : (3, A, B, C) float32
        Coordinates u, v and s.
    at : tuple of (N,) float64
        Positions of the lattice along the slice axis and the two axes in plane, in voxels.
    """

    nodes: Floats
    at: tuple[npt.NDArray[np.float64], ...]

    def coordinates(
        self, k: float, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
    ) -> Floats:
        """u, v, s, (3, R, C), at rows and columns of the plane k; all in voxels."""
        across = _weights(self.at[0], np.array([k]))
        plane = np.tensordot(self.nodes, across[0], axes=([1], [0]))
        left, right = _weights(self.at[1], rows), _weights(self.at[2], columns)
        result: Floats = np.matmul(np.matmul(left, plane), right.T)
        return result


def make_lattice(body: Body, grid: Grid, order: tuple[int, ...]) -> Lattice:
    """Lattice over an RPI grid; `order` names the slice axis and the two axes in plane."""
    at = []
    for k in range(3):
        n, step = grid.shape[k], grid.spacing_mm[k]
        count = max(int(np.ceil((n + 1) * step / _NODE_MM)), 2) + 1
        at.append(np.linspace(-1.0, n, count))
    nodes = np.stack(np.meshgrid(*at, indexing="ij"), axis=-1)
    uvs = np.stack(body.coordinates(grid.to_world(nodes))).astype(np.float32)
    moved = uvs.transpose(0, *(k + 1 for k in order))
    return Lattice(np.ascontiguousarray(moved), tuple(at[k] for k in order))


def _weights(nodes: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> Floats:
    """Matrix, (len(at), len(nodes)), that interpolates linearly between nodes."""
    step = nodes[1] - nodes[0]
    x = np.clip((at - nodes[0]) / step, 0, len(nodes) - 1 - 1e-9)
    low = x.astype(int)
    matrix = np.zeros((len(at), len(nodes)), np.float32)
    rows = np.arange(len(at))
    matrix[rows, low] = 1 - (x - low)
    matrix[rows, low + 1] += x - low
    return matrix
