"""Measures of a healthy cord's brightness, by which simulated cords are held against real ones.

They are taken inside the cord mask, on the axial slices of a near-isotropic scan.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.geometry.grid import Grid

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MEASURES = {
    "fall": "cord brightness, lowest against highest quarter of the scan",
    "range": "range of log brightness along the cord, 5 to 95 %",
    "csf_upper": "CSF / cord, upper quarter",
    "csf_lower": "CSF / cord, lower quarter",
    "grey": "grey / white, median of slices",
    "grey_90": "grey / white, 90th percentile of slices",
    "canal": "canal / cord, median of slices",
    "canal_90": "canal / cord, 90th percentile of slices",
    "noise": "SD / mean, what neighbours along the cord do not share",
    "structure": "SD / mean in a slice, the rest",
    "along": "SD along the cord about an 8 mm trend",
    "spots": "bright spots per 100 mm (> 1.3 × cord, ≥ 15 mm³)",
    "asymmetry": "left-right asymmetry, absolute log",
    "edge": "edge of the cord, 20-80 %, mm",
}
TREND_MM = 8.0
SPOT_RATIO, SPOT_MM3, SPOT_LEVEL_MM = 1.3, 15.0, 10.0
SMALLEST_MM2 = 15.0  # section of a slice that is measured
FEWEST = 20  # slices
_SD = 1.4826  # of normal values, in median absolute deviations


@dataclass(frozen=True, eq=False)
class Section:
    """One axial slice of a cord.

    Attributes
    ----------
    z : int
    a, b : (X, Y) float64
        Right-left and back-front place in half axes of the cord, from its middle.
    radius_mm : float
        Mean half axis.
    values : (X, Y) float64
        Brightness.
    cord : (X, Y) bool
    """

    z: int
    a: Doubles
    b: Doubles
    radius_mm: float
    values: Doubles
    cord: Mask

    @property
    def r(self) -> Doubles:
        """Distance from the middle, in half axes."""
        return np.hypot(self.a, self.b)

    @property
    def inner(self) -> Mask:
        """Cord away from its surface."""
        return self.r <= 0.75

    @property
    def level(self) -> float:
        """Median brightness of the inner cord."""
        return float(np.median(self.values[self.inner]))

    def mean(self, inside: Mask) -> float:
        """Mean brightness where `inside` holds; no number where it holds nowhere."""
        return float(self.values[inside].mean()) if inside.any() else np.nan


def sections(image: Doubles, cord: Mask, grid: Grid) -> Iterator[Section]:
    """Cut a scan in RPI into the slices that show the cord, from inferior to superior."""
    x, y = np.ogrid[: cord.shape[0], : cord.shape[1]]
    dx, dy, _ = grid.spacing_mm
    for z in np.flatnonzero(cord.sum((0, 1)) * dx * dy >= SMALLEST_MM2):
        inside = cord[:, :, z]
        at = np.argwhere(inside)
        middle, half = at.mean(0), 2 * at.std(0) + 1e-6  # of a full ellipse: half axis = 2 SD
        a = np.broadcast_to((x - middle[0]) / half[0], inside.shape)
        b = np.broadcast_to((y - middle[1]) / half[1], inside.shape)
        yield Section(int(z), a, b, float(np.mean(half * (dx, dy))), image[:, :, z], inside)


def measure(image: Doubles, cord: Mask, grid: Grid) -> dict[str, float]:
    """Measure a scan without lesions; keys as in `MEASURES`.

    Parameters
    ----------
    image : (X, Y, Z) float64
    cord : (X, Y, Z) bool
    grid : Grid
        In RPI.

    Raises
    ------
    ValueError
        Fewer than `FEWEST` slices in a row show the cord.
    """
    slices = _longest_run(list(sections(image, cord, grid)))
    if len(slices) < FEWEST:
        raise ValueError(f"{len(slices)} slices in a row show the cord, expected {FEWEST} or more")
    dz, quarter = grid.spacing_mm[2], len(slices) // 4
    level = np.array([s.level for s in slices])
    log = np.log(level)
    smooth = ndimage.gaussian_filter1d(log, TREND_MM / 2 / dz)
    trend = ndimage.gaussian_filter1d(log, TREND_MM / dz)
    csf = np.array([_csf(s) for s in slices]) / level
    grey = np.array([s.mean(_horns(s)) / s.mean(_columns(s)) for s in slices])
    canal = np.array([s.mean(s.r * s.radius_mm <= 0.9) for s in slices]) / level
    sides = [[s.mean(s.inner & (sign * s.a > 0.1)) for sign in (1, -1)] for s in slices]
    noise = _noise(slices)
    total = float(np.median([s.values[s.inner].std() / s.level for s in slices]))
    return {
        "fall": float(np.median(level[:quarter]) / np.median(level[-quarter:])),
        "range": float(np.ptp(np.percentile(smooth, [5, 95]))),
        "csf_upper": float(np.nanmedian(csf[-quarter:])),
        "csf_lower": float(np.nanmedian(csf[:quarter])),
        "grey": float(np.nanmedian(grey)),
        "grey_90": float(np.nanpercentile(grey, 90)),
        "canal": float(np.nanmedian(canal)),
        "canal_90": float(np.nanpercentile(canal, 90)),
        "noise": noise,
        "structure": float(np.sqrt(max(total**2 - noise**2, 0))),
        "along": float(_SD * np.median(np.abs(log - trend))),
        "spots": _spots(slices, level, cord.shape, grid) / (len(slices) * dz) * 100,
        "asymmetry": float(np.nanmedian(np.abs(np.diff(np.log(sides), axis=1)))),
        "edge": float(np.nanmedian([_edge_mm(s) for s in slices])),
    }


def _longest_run(slices: list[Section]) -> list[Section]:
    """Return the most slices that follow each other: neighbours and trends need no gap."""
    starts = [k for k, s in enumerate(slices) if k == 0 or s.z != slices[k - 1].z + 1]
    runs = [slices[a:b] for a, b in itertools.pairwise([*starts, len(slices)])]
    return max(runs, key=len, default=[])


def _csf(s: Section) -> float:
    """Level of the fluid: the upper quarter of a ring from 1 to 3.5 mm outside the cord."""
    out_mm = (s.r - 1) * s.radius_mm
    ring = s.values[(out_mm >= 1.0) & (out_mm <= 3.5) & ~s.cord]
    return float(np.percentile(ring, 75)) if ring.size else np.nan


def _horns(s: Section) -> Mask:
    """Grey matter beside the canal and away from the surface."""
    side = np.abs(s.a)
    return (side >= 0.2) & (side <= 0.5) & (np.abs(s.b) <= 0.5)


def _columns(s: Section) -> Mask:
    """Lateral white matter, away from what the surface mixes in."""
    return (s.r <= 0.8) & (np.abs(s.a) >= 0.55)


def _noise(slices: list[Section]) -> float:
    """Robust deviation between neighbours along the cord, per voxel."""
    steps = [
        (upper.values / upper.level - lower.values / lower.level)[upper.inner & lower.inner]
        for lower, upper in itertools.pairwise(slices)
    ]
    step = np.concatenate(steps)
    return float(_SD * np.median(np.abs(step - np.median(step))) / np.sqrt(2))


def _spots(slices: list[Section], level: Doubles, shape: tuple[int, ...], grid: Grid) -> int:
    """Count what is brighter than the cord around it, away from its surface."""
    bright = np.zeros(shape, bool)
    around = ndimage.gaussian_filter1d(level, SPOT_LEVEL_MM / grid.spacing_mm[2])
    for s, usual in zip(slices, around, strict=True):
        bright[:, :, s.z] = (s.values > SPOT_RATIO * usual) & (s.r <= 0.8)
    labels, count = ndimage.label(bright, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * grid.voxel_volume_mm3
    return int((sizes >= SPOT_MM3).sum())


def _edge_mm(s: Section) -> float:
    """Distance over which brightness rises from 20 to 80 % of the way from cord to fluid."""
    out_mm = (s.r - 1) * s.radius_mm
    sideways = np.abs(s.a) > 0.7 * s.r  # where the fluid is widest
    steps = np.arange(-2.0, 2.51, 0.25)
    profile = np.array([s.mean(sideways & (np.abs(out_mm - at) <= 0.3)) for at in steps])
    low, high = profile[:3].mean(), profile.max()
    if not low < high:  # no number, or no fluid
        return np.nan
    share = np.maximum.accumulate((profile - low) / (high - low))
    return float(np.interp(0.8, share, steps) - np.interp(0.2, share, steps))
