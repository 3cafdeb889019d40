"""The cord's surface, estimated from the edge between cord and fluid around its centerline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import Centerline

Floats = npt.NDArray[np.float32]

_ANGLES = 48
_PASSES = 2  # the second one from the middle of what the first one found
_STEP_MM, _REACH_MM = 0.25, 10.0
_INNER_MM = 2.0  # surely cord
_RADII_MM = (2.2, 8.5)  # from an atrophic cord to a cervical enlargement, from its middle
_ALONG_MM, _ACROSS = 3.0, 1.5  # the surface is smooth: mm along the cord, steps of the angle
_LEVEL = 0.35  # of the way from cord to fluid, as those who draw cords see the border
_CONTRAST = 1.25  # of fluid to cord, under which an edge says little
_ROUGH_MM = 0.8  # between an edge as it is seen and the smooth surface
_DOUBTFUL = 0.5  # share of a slice's edges that may be so


@dataclass(frozen=True, eq=False)
class CordEstimate:
    """An estimated cord mask.

    Attributes
    ----------
    mask : (X, Y, Z) bool
        On the centerline's grid.
    certain : (Z,) bool
        Slices in which the edge is seen around most of the cord.
    """

    mask: npt.NDArray[np.bool_]
    certain: npt.NDArray[np.bool_]


def estimate(image: npt.NDArray[np.generic], line: Centerline) -> CordEstimate:
    """Estimate the cord mask of a T2-weighted scan, in which fluid is brighter than the cord.

    Rays leave the centerline in every axial slice; the surface is where brightness has risen by a
    third (`_LEVEL`) of the way from the cord to the brightest on the ray, made smooth along the
    cord and around it.

    Parameters
    ----------
    image : (X, Y, Z)
        On the centerline's grid.
    line : Centerline

    Raises
    ------
    CenterlineError
        No slice shows an edge.
    """
    slices = np.flatnonzero(line.covered)
    sigma = _ALONG_MM / line.grid.spacing_mm[2]
    values = np.asarray(image, np.float32)
    middle = line.xy[slices]
    unit = _directions() / np.array(line.grid.spacing_mm[:2])[:, None]
    surface = np.zeros((len(slices), _ANGLES))
    for _ in range(_PASSES):
        # Rays from beside the middle of a circle: a shift d along e lengthens them by about d·e.
        middle = middle + 2 * (surface[:, None] * unit).mean(2)
        edge, seen = _edges(values, line, slices, middle, sigma)
        if not seen.any():
            raise CenterlineError("no edge between cord and fluid is seen; give a cord mask")
        surface = _smooth(edge, seen, sigma)
    mask = np.zeros(line.grid.shape, bool)
    x, y = np.meshgrid(*(np.arange(n) for n in mask.shape[:2]), indexing="ij")
    for k, z in enumerate(slices):
        across = (x - middle[k, 0]) * line.grid.spacing_mm[0]
        ahead = (y - middle[k, 1]) * line.grid.spacing_mm[1]
        turn = (np.arctan2(ahead, across) / (2 * np.pi) * _ANGLES) % _ANGLES
        reach = np.interp(turn, np.arange(_ANGLES + 1), [*surface[k], surface[k][0]])
        mask[:, :, z] = np.hypot(across, ahead) <= reach
    certain = np.zeros(line.grid.shape[2], bool)
    rough = ~seen | (np.abs(edge - surface) > _ROUGH_MM)
    certain[slices] = rough.mean(1) <= _DOUBTFUL
    return CordEstimate(mask, certain)


def _directions() -> npt.NDArray[np.float64]:
    """Return the unit vectors of the rays, (2, A)."""
    angles = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    return np.stack([np.cos(angles), np.sin(angles)])


def _edges(
    image: Floats,
    line: Centerline,
    slices: npt.NDArray[np.intp],
    middle: npt.NDArray[np.float64],
    sigma: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Distance to the edge along each ray, (S, A) mm, and whether it is seen."""
    radii = np.arange(0, _REACH_MM + _STEP_MM / 2, _STEP_MM)
    spacing = np.array(line.grid.spacing_mm[:2])
    at = middle[:, :, None, None] + (_directions() / spacing[:, None])[:, :, None] * radii
    z = np.broadcast_to(slices[:, None, None], at[:, 0].shape)
    rays = ndimage.map_coordinates(image, [at[:, 0], at[:, 1], z], order=1, mode="nearest")
    rays = ndimage.gaussian_filter(rays, (sigma, 1.0, 0), mode=("nearest", "wrap", "nearest"))
    inner = np.median(rays[:, :, radii <= _INNER_MM], axis=(1, 2))
    inner = ndimage.gaussian_filter1d(inner, sigma)[:, None, None]
    near = (radii >= _RADII_MM[0]) & (radii <= _RADII_MM[1] + 1.0)
    bright = rays[:, :, near].max(2, keepdims=True)
    above = (rays > inner + _LEVEL * (bright - inner)) & (radii >= _INNER_MM)
    edge = radii[above.argmax(2)]
    seen = (bright > _CONTRAST * inner)[:, :, 0] & above.any(2) & (edge <= _RADII_MM[1])
    return edge, seen


def _smooth(
    edge: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_], sigma: float
) -> npt.NDArray[np.float64]:
    """Smooth surface through the edges that are seen, outliers taken out once."""
    weight = seen.astype(float)
    for _ in range(2):
        blurred = [
            ndimage.gaussian_filter(a, (sigma, _ACROSS), mode=("nearest", "wrap"))
            for a in (edge * weight, weight)
        ]
        along = [
            ndimage.gaussian_filter1d(a.mean(1), 3 * sigma)[:, None]
            for a in (edge * weight, weight)
        ]
        surface = (blurred[0] + 0.1 * along[0]) / (blurred[1] + 0.1 * along[1] + 1e-9)
        weight = (seen & (np.abs(edge - surface) <= 2 * _ROUGH_MM)).astype(float)
    return np.asarray(np.clip(surface, *_RADII_MM))
