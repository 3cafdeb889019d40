"""The best path through a stack of score maps: one point per slice, smooth along z."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import GeometryError


def best_path(
    scores: npt.NDArray[np.float32],
    spacing_mm: tuple[float, float, float],
    smoothness: float = 1.0,
) -> npt.NDArray[np.intp]:
    """Point of each slice on the path of highest total score minus its bending cost.

    Maximises ``Σ S_z(p_z) − λ Σ |p_z − p_(z−1)|² / dz²`` exactly, by dynamic programming; both
    distances in mm. Each step along z is a distance transform of a quadratic, one axis after the
    other.

    Parameters
    ----------
    scores : (Z, Y, X) float32
        Score of each pixel of each axial slice; finite.
    spacing_mm : tuple of three floats
        Pixel size along x and y, and distance dz between slices.
    smoothness : float
        λ.

    Returns
    -------
    (Z, 2) int
        Voxel indices (x, y), slice by slice.

    References
    ----------
    Felzenszwalb and Huttenlocher 2012, Distance transforms of sampled functions.
    """
    if scores.ndim != 3 or 0 in scores.shape:
        raise GeometryError(f"expected score maps of shape (Z, Y, X), received {scores.shape}")
    dx, dy, dz = spacing_mm
    cost_x, cost_y = smoothness * (dx / dz) ** 2, smoothness * (dy / dz) ** 2
    totals = np.array(scores, np.float32)
    for z in range(1, len(totals)):
        reached = _transform(_transform(totals[z - 1], cost_y, 0), cost_x, 1)
        # Only differences matter; near zero they keep their digits.
        totals[z] += reached - reached.max()
    rows, columns = np.ogrid[: scores.shape[1], : scores.shape[2]]
    path = np.empty((len(scores), 2), np.intp)
    y, x = np.unravel_index(int(totals[-1].argmax()), totals.shape[1:])
    path[-1] = x, y
    for z in range(len(totals) - 2, -1, -1):
        step = cost_y * (rows - y) ** 2 + cost_x * (columns - x) ** 2
        y, x = np.unravel_index(int((totals[z] - step).argmax()), step.shape)
        path[z] = x, y
    return path


def path_scores(
    scores: npt.NDArray[np.float32], path: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Score of each slice at the path's point, (Z,) float32."""
    return scores[np.arange(len(path)), path[:, 1], path[:, 0]]


def _transform(values: npt.NDArray[np.float32], cost: float, axis: int) -> npt.NDArray[np.float32]:
    """Best of ``values[q] − cost (p − q)²`` over q along one axis, for each p.

    Exact: a step that costs more than the whole range of the values never pays.
    """
    source = values if axis == 0 else values.T
    best = source.copy()
    span = float(source.max() - source.min())
    for step in range(1, len(source)):
        price = np.float32(cost * step * step)
        if price >= span:
            break
        np.maximum(best[step:], source[:-step] - price, out=best[step:])
        np.maximum(best[:-step], source[step:] - price, out=best[:-step])
    return best if axis == 0 else best.T
