"""Lesions implanted into a real lesion-free scan: known masks in real anatomy and noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom.acquisition import linear_weights, slice_profile
from sct_lesion_losses.phantom.anatomy import AXIS_MM, LEVELS, Body, Doubles, Floats
from sct_lesion_losses.phantom.lesions import RATIOS, Lesion, Lesions, draw_lesions
from sct_lesion_losses.phantom.scan import DRAWS, Mask, label, labelled_mm3, owners
from sct_lesion_losses.phantom.tissue import lesion_gain

Acquisition = Literal["native", "sagittal", "axial", "isotropic"]

_FINE_MM = 0.5  # of the points at which a lesion is drawn, at most
_BLUR_VOX, _BLUR_REACH = 0.5, 2  # SD and reach of a scan's point spread beside the voxel itself
_COURSE_MM, _BRIGHTNESS_MM = 3.0, 6.0  # SD of what smooths course and section, and brightness
_DEEP = 0.3  # share of a section's depth from which a voxel holds cord alone
_LEAST_SLICES, _LEAST_MM = 10, 20.0
_END_MM = 3.0  # between the ends of the mask and the middle of a lesion
_LEVEL_MM = 17.0  # mean height of a vertebra: places are drawn denser in the neck
_TRIES = 20  # until one of the lesions that are drawn lies where the cord is certain


@dataclass(frozen=True, eq=False)
class Host:
    """A real scan without lesions, in RPI.

    Attributes
    ----------
    image : (X, Y, Z) float32
    cord : (X, Y, Z) bool
    grid : Grid
        In RPI.
    body : Body
        Course and section of its cord, as the phantom's bodies have them; its s is zero at the
        upper end of the cord mask.
    extent_mm : (float, float)
        Range of s that the mask covers, from the middle of its lowest slice to that of its highest.
    level : (Z,) float32
        Brightness of the cord in each slice, above 0.
    certain : (Z,) bool
        Slices in which the mask can be trusted.
    """

    image: Floats
    cord: Mask
    grid: Grid
    body: Body
    extent_mm: tuple[float, float]
    level: Floats
    certain: Mask

    @classmethod
    def of(
        cls, image: npt.NDArray[Any], cord: Mask, grid: Grid, certain: Mask | None = None
    ) -> Host:
        """Take a scan in RPI with its cord mask.

        Parameters
        ----------
        image : (X, Y, Z)
        cord : (X, Y, Z) bool
        grid : Grid
        certain : (Z,) bool, optional
            Slices in which the mask can be trusted; all that it covers by default.

        Raises
        ------
        DataError
            The mask shows too little of a cord, or a longer one than a body has; or the cord's
            brightness is not above 0.
        """
        covered = np.asarray(cord.any((0, 1)))
        trusted = covered if certain is None else covered & certain
        slices = np.flatnonzero(covered)
        height = len(slices) * grid.spacing_mm[2]
        if len(slices) < _LEAST_SLICES or height < _LEAST_MM:
            raise DataError(
                f"the cord mask covers {len(slices)} axial slices, {height:.0f} mm; expected at "
                f"least {_LEAST_SLICES} slices and {_LEAST_MM:.0f} mm"
            )
        if trusted.sum() < _LEAST_SLICES:
            raise DataError(
                f"the border of the cord is certain in {trusted.sum()} axial slices, expected at "
                f"least {_LEAST_SLICES}; give a cord mask"
            )
        values = np.asarray(image, np.float32)
        level = _levels(values, cord, grid, trusted)
        body, length = _body(cord, grid)
        return cls(values, cord, grid, body, (-length, 0.0), level, trusted)


def _body(cord: Mask, grid: Grid) -> tuple[Body, float]:
    """Course and section of a cord mask, and its length in mm.

    Its frame is that of the slices: front is square to the cord and to the axis that runs to the
    left, so that it does not turn with the world in an oblique scan.
    """
    line = Centerline.from_mask(cord, grid).filled()
    slices = np.flatnonzero(line.covered)
    sigma = _COURSE_MM / grid.spacing_mm[2]
    points = grid.to_world(np.column_stack([_smoothed(slices, line.xy[slices], sigma), slices]))
    half = np.array([_half_axes(cord[:, :, z], grid) for z in slices])
    known = np.isfinite(half[:, 0])
    half = np.stack([np.interp(slices, slices[known], h[known]) for h in half.T], axis=1)
    half = ndimage.gaussian_filter1d(half, sigma, axis=0, mode="nearest")

    run = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    run -= run[-1]  # zero at the upper end: points run upwards
    if run[0] < AXIS_MM[0]:
        raise DataError(f"the cord mask is {-run[0]:.0f} mm long, at most {-AXIS_MM[0]:.0f} fit")
    curve = np.stack([_beyond(run, column) for column in points.T], axis=1)
    up = np.gradient(curve, AXIS_MM, axis=0)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    x, y = (grid.affine[:3, :2] / grid.spacing_mm[:2]).T  # to the left, and to the front
    normal = np.cross(y, x)
    normal /= np.linalg.norm(normal)
    right = np.cross(np.broadcast_to(y, up.shape), up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    # A slice cuts a leaning cord longer than its section is.
    across = up @ np.column_stack([x, y])
    along = (up @ normal)[:, None]
    shorter = along / np.hypot(across, along)
    axes = np.stack([np.interp(AXIS_MM, run, h) for h in half.T], axis=1) * shorter
    tables = {
        "cord_u": np.zeros(len(AXIS_MM), np.float32),
        "cord_v": np.zeros(len(AXIS_MM), np.float32),
        "cord_ru": axes[:, 0].astype(np.float32),
        "cord_rv": axes[:, 1].astype(np.float32),
    }
    centres = -_LEVEL_MM * np.arange(0.5, len(LEVELS), dtype=np.float64)
    none = np.empty((0, 6), np.float32)
    body = Body(tables, curve, np.cross(up, right), right, up, centres, {}, {}, none)
    return body, float(-run[0])


def _smoothed(slices: npt.NDArray[np.intp], xy: Doubles, sigma: float) -> Doubles:
    """Smooth a course, (N, 2), about its linear trend, so that its ends stay where they are."""
    trend = np.vander(slices.astype(float), 2) @ np.polyfit(slices, xy, 1)
    result: Doubles = trend + ndimage.gaussian_filter1d(xy - trend, sigma, axis=0, mode="nearest")
    return result


def _half_axes(section: Mask, grid: Grid) -> tuple[float, float]:
    """Half axes, mm, of the ellipse with a section's second moments; NaN for a speck."""
    at = np.argwhere(section)
    if len(at) < 4:
        return np.nan, np.nan
    u, v = 2 * np.sqrt(at.var(0) + 1 / 12) * grid.spacing_mm[:2]  # a voxel has a width of its own
    return float(u), float(v)


def _beyond(run: Doubles, values: Doubles) -> Doubles:
    """Interpolate values, (N,), known at `run`, (N,), to `AXIS_MM`; straight on at both ends."""
    n = min(10, len(run) // 4)
    first = (values[n] - values[0]) / (run[n] - run[0])
    last = (values[-1] - values[-1 - n]) / (run[-1] - run[-1 - n])
    below, above = np.minimum(AXIS_MM - run[0], 0), np.maximum(AXIS_MM - run[-1], 0)
    result: Doubles = np.interp(AXIS_MM, run, values) + below * first + above * last
    return result


def _levels(image: Floats, cord: Mask, grid: Grid, certain: Mask) -> Floats:
    """Brightness of the cord in each slice, away from its surface; held beyond the certain ones."""
    slices = np.flatnonzero(certain)
    depth = ndimage.distance_transform_edt(cord, sampling=grid.spacing_mm)
    deep = cord & (depth >= _DEEP * depth.max((0, 1)))
    level = np.array([np.median(image[:, :, z][deep[:, :, z]]) for z in slices])
    if level.min() <= 0:
        raise DataError(
            f"the cord's brightness is {level.min():g} in slice {slices[level.argmin()]}, expected "
            "above 0; give the scan before normalisation"
        )
    smooth = ndimage.gaussian_filter1d(level, _BRIGHTNESS_MM / grid.spacing_mm[2], mode="nearest")
    return np.interp(np.arange(grid.shape[2]), slices, smooth).astype(np.float32)


def implant(host: Host, lesions: Lesions) -> tuple[Floats, Floats]:
    """Implant lesions into a host.

    A lesion adds (ratio - 1) × the local brightness of the cord, as far as it covers a voxel
    and the voxel lies in the cord, blurred by the scan's point spread. Its noise stays as it is.

    Returns
    -------
    signal, inside : (X, Y, Z) float32
        Away from lesions the signal is the host's, to the bit; share of each voxel inside lesions.
    """
    gain, inside = np.zeros((2, *host.grid.shape), np.float32)
    if reached := _reached(host, lesions):
        drawn, inside[reached] = _drawn(host, lesions, reached)
        gain[reached] = ndimage.gaussian_filter(drawn, _BLUR_VOX, radius=_BLUR_REACH)
    return np.where(gain > 0, host.image + gain * host.level, host.image), inside


def _reached(host: Host, lesions: Lesions) -> tuple[slice, ...] | None:
    """Box of the grid that holds what any lesion changes; None where there is no such voxel."""
    voxels = np.argwhere(host.cord)
    s = host.body.coordinates(host.grid.to_world(voxels))[2]
    near = np.zeros(len(voxels), bool)
    for item in lesions.items:
        near |= np.abs(s - item.s_mm) <= item.reach_mm
    if not near.any():
        return None
    low, high = voxels[near].min(0), voxels[near].max(0)
    return tuple(
        slice(max(first - 1 - _BLUR_REACH, 0), min(last + 2 + _BLUR_REACH, n))
        for first, last, n in zip(low, high, host.grid.shape, strict=True)
    )


def _drawn(host: Host, lesions: Lesions, box: tuple[slice, ...]) -> tuple[Floats, Floats]:
    """Relative gain of the voxels in a box, and their share inside lesions."""
    parts = [max(2, int(np.ceil(mm / _FINE_MM))) for mm in host.grid.spacing_mm]
    steps = [
        (np.arange((b.stop - b.start) * n) + 0.5) / n - 0.5 + b.start
        for b, n in zip(box, parts, strict=True)
    ]
    at = np.stack(np.meshgrid(*steps, indexing="ij"))
    # The surface of the mask, at the points between its voxels.
    share = ndimage.map_coordinates(host.cord.astype(np.float32), at, order=1, mode="nearest")
    cord = share >= 0.5
    uvs = host.body.coordinates(host.grid.to_world(at[:, cord].T))
    fine = np.zeros((2, *cord.shape), np.float32)
    fine[:, cord] = lesion_gain(host.body, lesions, *(x.astype(np.float32) for x in uvs))
    x, y, z = (b.stop - b.start for b in box)
    gain, inside = fine.reshape(2, x, parts[0], y, parts[1], z, parts[2]).mean((2, 4, 6))
    return gain, inside


@dataclass(frozen=True, eq=False)
class Implanted:
    """A host with implanted lesions, in RPI.

    Attributes
    ----------
    signal : (X, Y, Z) float32
    grid : Grid
    lesion, cord : (X, Y, Z) bool
        At least half of the voxel inside; the lesions within the cord, without specks.
    centerline : (N, 3) float64
        Centre of the cord in world mm, from inferior to superior.
    lesions : tuple of Lesion
    volumes_mm3 : tuple of float
        Labelled volume of each lesion.
    dropped : int
        Labelled components that were too small to be kept.
    acquisition : dict
        How the host was acquired anew; empty where it was not.
    """

    signal: Floats
    grid: Grid
    lesion: Mask
    cord: Mask
    centerline: Doubles
    lesions: tuple[Lesion, ...]
    volumes_mm3: tuple[float, ...]
    dropped: int
    acquisition: dict[str, Any]


def make_implant(
    rng: np.random.Generator,
    host: Host,
    acquisition: Acquisition = "native",
    *,
    affected: bool,
    contrast: tuple[float, float] = RATIOS,
) -> Implanted:
    """Draw lesions, implant them, and acquire the host anew where that is asked for.

    Parameters
    ----------
    rng : Generator
    host : Host
    acquisition : {"native", "sagittal", "axial", "isotropic"}
        Other than native: slices of 2.4 to 3.3 mm, of 3 to 7 mm, or voxels of 0.8 to 1.1 mm, with
        another resolution in plane, coil, contrast curve and noise.
    affected : bool
        False: no lesion. True: none either where after some draws no lesion is large enough to be
        labelled.
    contrast : (float, float)
        Lowest and highest brightness of a lesion relative to the cord around it.

    Raises
    ------
    DataError
        The host is too coarse to be acquired anew in this way.
    """
    for _ in range(DRAWS if affected else 0):
        drawn = _draw_certain(rng, host, contrast)
        made = _made(rng, host, drawn, acquisition)
        if made.lesion.any():
            return made
    # Where no lesion can be labelled there is none in the signal either.
    none = draw_lesions(rng, host.body, host.extent_mm, affected=False)
    return _made(rng, host, none, acquisition)


def _draw_certain(rng: np.random.Generator, host: Host, contrast: tuple[float, float]) -> Lesions:
    """Draw lesions, and keep those that lie where the cord is certain, from end to end."""
    low, high = host.extent_mm
    for _ in range(_TRIES):
        drawn = draw_lesions(
            rng, host.body, (low + _END_MM, high - _END_MM), affected=True, contrast=contrast
        )
        kept = tuple(item for item in drawn.items if _is_certain(host, item))
        if kept:
            break
    return replace(drawn, items=kept)


def _is_certain(host: Host, lesion: Lesion) -> bool:
    """Say whether the cord is certain in every slice over the length of a lesion."""
    ends = lesion.s_mm + np.array([-1.0, 1.0]) * lesion.half_length_mm
    if ends[0] < host.extent_mm[0] or ends[1] > host.extent_mm[1]:
        return False
    first, last = host.grid.to_voxel(host.body.cord_centre(ends))[:, 2].round().astype(int)
    return bool(host.certain[max(first, 0) : last + 1].all())


def _made(
    rng: np.random.Generator, host: Host, lesions: Lesions, acquisition: Acquisition
) -> Implanted:
    """Implant lesions, acquire the host anew where that is asked for, and label it."""
    signal, inside = implant(host, lesions)
    cord, grid = host.cord.astype(np.float32), host.grid
    how: dict[str, Any] = {}
    if acquisition != "native":
        signal, (inside, cord), grid, how = reacquire(
            rng, host, signal, (inside, cord), acquisition
        )
    lesion, mask, dropped = label(inside, cord, grid)
    low, high = host.extent_mm
    return Implanted(
        signal=signal,
        grid=grid,
        lesion=lesion,
        cord=mask,
        centerline=host.body.cord_centre(np.append(np.arange(low, high, 0.5), high)),
        lesions=lesions.items,
        volumes_mm3=labelled_mm3(
            owners(host.body, lesions, inside > 0, grid), lesion, len(lesions.items), grid
        ),
        dropped=dropped,
        acquisition=how,
    )


# Ranges of what an acquisition sets, mm: between slices and in plane; the axis of its slices.
_SLICES_MM = {"sagittal": (2.4, 3.3), "axial": (3.0, 7.0), "isotropic": (0.8, 1.1)}
_PIXELS_MM = {"sagittal": (0.5, 0.9), "axial": (0.45, 0.8)}
_SLICE_AXIS = {"sagittal": 0, "axial": 2}
_COARSEST = 2.5  # spacing of a host, in shares of the finest that it may be acquired anew with
_GAMMA, _SNR = (0.85, 1.2), (10.0, 25.0)


def require_fine(grid: Grid, acquisition: Acquisition) -> None:
    """Refuse a host that an acquisition would make finer than it is.

    Parameters
    ----------
    grid : Grid
        Of the host, in RPI.
    acquisition : {"native", "sagittal", "axial", "isotropic"}

    Raises
    ------
    DataError
    """
    if acquisition == "native":
        return
    size = " × ".join(f"{mm:.3g}" for mm in grid.spacing_mm)
    for k, (n, mm) in enumerate(zip(grid.shape, grid.spacing_mm, strict=True)):
        ranges = _SLICES_MM if k == _SLICE_AXIS.get(acquisition) else {**_SLICES_MM, **_PIXELS_MM}
        most = _COARSEST * ranges[acquisition][0]
        if mm > most:
            raise DataError(
                f"its voxels of {size} mm are too coarse for -acquisition {acquisition}: "
                f"{mm:.3g} mm along {'xyz'[k]}, expected at most {most:.3g}; use native"
            )
        if n < 2:
            raise DataError(
                f"it has one voxel of {size} mm along {'xyz'[k]}, expected at least 2 for "
                f"-acquisition {acquisition}; use native"
            )


def reacquire(
    rng: np.random.Generator,
    host: Host,
    signal: Floats,
    shares: tuple[Floats, ...],
    acquisition: Acquisition,
) -> tuple[Floats, tuple[Floats, ...], Grid, dict[str, Any]]:
    """Acquire a scan anew: its slices by a slice profile, pixels, coil, contrast curve and noise.

    Parameters
    ----------
    rng : Generator
    host : Host
        Whose field of view is kept.
    signal : (X, Y, Z) float32
    shares : tuple of (X, Y, Z) float32
        Shares of its voxels, inside lesions or the cord. A slice's profile reaches a little beyond
        the slice; they count the slice alone.
    acquisition : {"sagittal", "axial", "isotropic"}

    Returns
    -------
    signal, shares
        The same on the new grid, (X', Y', Z') float32.
    Grid
        In RPI.
    dict
        What was drawn.

    Raises
    ------
    DataError
        The host is too coarse for it.
    """
    require_fine(host.grid, acquisition)
    slice_mm = float(rng.uniform(*_SLICES_MM[acquisition]))
    pixel_mm = float(rng.uniform(*_PIXELS_MM.get(acquisition, (slice_mm, slice_mm))))
    axis = _SLICE_AXIS.get(acquisition)
    size = np.array(host.grid.shape)
    step = np.array([slice_mm if k == axis else pixel_mm for k in range(3)]) / host.grid.spacing_mm
    shape = np.maximum((size / step).astype(int), 1)
    start = (size - 1) / 2 - (shape - 1) / 2 * step + rng.uniform(-0.5, 0.5, 3)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = start
    grid = Grid((int(shape[0]), int(shape[1]), int(shape[2])), host.grid.affine @ affine)
    blurred: list[Floats] = []
    counted: list[Floats] = []
    for k in range(3):
        at, nodes = start[k] + np.arange(shape[k]) * step[k], np.arange(size[k], dtype=float)
        offsets, *weights = _profiles(float(step[k]), across=k == axis)
        parts = [linear_weights(nodes, at + offset * step[k]) for offset in offsets]
        for operators, w in zip((blurred, counted), weights, strict=True):
            operators.append(np.tensordot(w, parts, 1).astype(np.float32))
    acquired: Any = _applied(blurred, signal)
    level, gamma, snr = np.median(host.level), rng.uniform(*_GAMMA), rng.uniform(*_SNR)
    acquired = level * (np.maximum(acquired, 0) / level) ** gamma * _coil(rng, grid.shape)
    noise = rng.standard_normal((2, *grid.shape), dtype=np.float32) * (level / snr)
    acquired = np.hypot(acquired + noise[0], noise[1]).astype(np.float32)
    how = {"slice_mm": slice_mm, "pixel_mm": pixel_mm, "gamma": gamma, "snr": snr}
    drawn = {name: round(float(value), 3) for name, value in how.items()}
    new = tuple(_applied(counted, share) for share in shares)
    return acquired, new, grid, {"acquisition": acquisition, **drawn}


def _profiles(step_vox: float, *, across: bool) -> tuple[Doubles, Doubles, Doubles]:
    """Parts of a new voxel along one axis, two or more in each voxel of the host.

    Parameters
    ----------
    step_vox : float
        Spacing of the new voxels, in voxels of the host.
    across : bool
        The axis of the slices, which have a profile; the others have voxels with straight edges.

    Returns
    -------
    offsets : (N,) float64
        In spacings, from the middle of the voxel.
    signal, share : (N,) float64
        Weights in the image, and in the labels.
    """
    if across:
        offsets, weights = slice_profile(int(np.ceil(0.4 * step_vox)) | 1)
        box = (np.abs(offsets) < 0.5).astype(float)
        return offsets, weights, box / box.sum()
    count = max(3, int(np.ceil(2 * step_vox)) | 1)
    even = np.full(count, 1 / count)
    return (np.arange(count) - count // 2) / count, even, even


def _applied(operators: list[Floats], array: Floats) -> Floats:
    """Apply a matrix, (X', X), along each axis of an array."""
    made = np.einsum("xi,yj,zk,ijk->xyz", *operators, array, optimize=True)
    return np.asarray(made, np.float32)


def _coil(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Smooth change of brightness over the field, mostly along the body."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    w = rng.normal(0, (0.05, 0.1, 0.25, 0.15))
    result: Floats = np.exp(w[0] * x + w[1] * y + w[2] * z + w[3] * z**2).astype(np.float32)
    return result
