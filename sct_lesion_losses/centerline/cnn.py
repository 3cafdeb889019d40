"""The cord's centerline from SCT's centerline network: its heatmap, and the best path through it.

SCT itself runs OptiC on top of the heatmap; the path through the heatmap itself is nearer to the
cord. The network is the caller's; this package carries none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from scipy import ndimage

from sct_lesion_losses.centerline.optic import Doubles, Floats, best_path, upright
from sct_lesion_losses.errors import CenterlineError, EngineError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid, resample

PIXEL_MM = 0.5
PATCH_PX = 80
# Mean and standard deviation of the intensities, 0-255, each network was trained on.
INTENSITIES = {
    "t1": (55.7359, 64.3149),
    "t2": (51.1417, 57.4408),
    "t2s": (68.8591, 71.4659),
    "dwi": (55.744, 45.003),
}

_STRIDE_PX = 60  # of the patches that search a whole slice
_SEARCH_MM = 8.0  # distance between the slices that are searched whole
_BLUR_MM = 2.0  # the middle of the cord's section, not its rim, becomes the peak
_SMOOTHNESS = 0.2  # λ of the path for scores in [0, 1]
_DETECTED = 0.5
_BRAIN_SLICES = 10  # more slices in a row without a cord are taken for the brain, as in SCT
_STRAIGHT_MM = 20.0  # how far the line goes straight on beyond the last slice with a cord

Network = Callable[[Floats], Floats]


def centerline(
    image: npt.NDArray[Any],
    grid: Grid,
    network: bytes,
    contrast: str,
    brain: bool = True,
) -> Centerline:
    """Centerline of a scan by SCT's network.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes; finite.
    grid : Grid
        Grid of the scan.
    network : bytes
        ONNX network from patches (N, 80, 80, 1) to probabilities of the same shape.
    contrast : {"t1", "t2", "t2s", "dwi"}
        Contrast the network was trained for.
    brain : bool
        Whether the scan may show the brain: the line then ends below the first ten slices in a
        row without a cord.

    Returns
    -------
    Centerline
        On the scan's grid in RPI.

    Raises
    ------
    CenterlineError
        No slice shows a cord, or the scan cannot show one.
    """
    turned, rpi = upright(image, grid)
    working = rpi.resampled((PIXEL_MM, PIXEL_MM, None))
    slices = _standardised(resample(turned, rpi, working), contrast)
    run = _session(network)
    apart = max(1, int(_SEARCH_MM / rpi.spacing_mm[2]))
    search = np.unique(np.append(np.arange(0, len(slices), apart), len(slices) - 1))
    found = np.stack([_searched(slices[z], run) for z in search])
    course = _course(found, working, search)
    heatmap = _followed(slices, course, run)[:, : working.shape[0], : working.shape[1]]
    detected = np.flatnonzero(heatmap.max(axis=(1, 2)) >= _DETECTED)
    if len(detected) == 0:
        raise CenterlineError(
            f"the network found no cord: its highest probability is {heatmap.max():.2f}, a cord "
            f"has {_DETECTED:g}; check the contrast (-c), or try -centerline svm or file"
        )
    xy = _continued(_course(heatmap, working, np.arange(len(slices))), detected, working)
    if brain:
        breaks = np.flatnonzero(np.diff(detected) > _BRAIN_SLICES)
        if len(breaks):
            detected = detected[: breaks[0] + 1]
    # Above the last slice with a cord lies the brain; below the first, the cord goes on.
    xy[detected[-1] + 1 :] = np.nan
    name = "cnn (SCT's network, best path computed here)"
    return Centerline(working, xy, name).on(rpi)


def _standardised(image: Floats, contrast: str) -> Floats:
    """Slices (Z, X, Y) in the network's intensities, padded to at least one patch."""
    missing = [(0, max(PATCH_PX - n, 0)) for n in image.shape[:2]]
    padded = np.pad(image, [*missing, (0, 0)])
    low, high = np.percentile(padded, (2, 98))
    if low == high:  # nearly everything is background
        low, high = float(image.min()), float(image.max())
    mean, std = INTENSITIES[contrast]
    scaled = (np.clip(padded, low, high) - low) * (255.0 / (high - low))
    return np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1), dtype=np.float32)


def _session(network: bytes) -> Network:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(
            f"SCT's centerline network cannot be loaded ({error}); reinstall SCT's "
            "deepseg_sc_models"
        ) from error
    name = session.get_inputs()[0].name

    def run(patches: Floats) -> Floats:
        result = session.run(None, {name: np.ascontiguousarray(patches[..., None])})
        return np.asarray(result[0], np.float32)[..., 0]

    return run


def _searched(image: Floats, run: Network) -> Floats:
    """Probabilities over a whole slice (X, Y), from overlapping patches."""
    starts = []
    for n in image.shape:
        count = 1 + int(np.ceil((n - PATCH_PX) / _STRIDE_PX))
        starts.append(np.linspace(0, n - PATCH_PX, count).round().astype(int))
    windows = [np.s_[x : x + PATCH_PX, y : y + PATCH_PX] for x, y in itertools.product(*starts)]
    patches = np.stack([image[window] for window in windows])
    result = np.zeros_like(image)
    for window, patch in zip(windows, run(patches), strict=True):
        result[window] = np.maximum(result[window], patch)
    return result


def _followed(slices: Floats, course: Doubles, run: Network) -> Floats:
    """Probabilities in one patch of each slice around a known course, zero elsewhere."""
    result = np.zeros_like(slices)
    limits = np.array(slices.shape[1:]) - PATCH_PX
    for z, centre in enumerate(course):
        x, y = np.clip(np.rint(centre).astype(int) - PATCH_PX // 2, 0, limits)
        window = np.s_[z : z + 1, x : x + PATCH_PX, y : y + PATCH_PX]
        result[window] = run(slices[window])
    return result


def _course(probabilities: Floats, grid: Grid, z: npt.NDArray[np.integer[Any]]) -> Doubles:
    """Best path through the maps of the slices `z`, interpolated to every slice, (Z, 2) x, y."""
    sigma = (0, _BLUR_MM / grid.spacing_mm[1], _BLUR_MM / grid.spacing_mm[0])
    scores = ndimage.gaussian_filter(probabilities.transpose(0, 2, 1), sigma, mode="constant")
    dz = grid.spacing_mm[2] * (float(np.diff(z).mean()) if len(z) > 1 else 1.0)
    path = best_path(scores, (grid.spacing_mm[0], grid.spacing_mm[1], dz), _SMOOTHNESS)
    every = np.arange(grid.shape[2])
    return np.column_stack([np.interp(every, z, path[:, k]) for k in range(2)])


def _continued(xy: Doubles, detected: npt.NDArray[np.intp], grid: Grid) -> Doubles:
    """Take the line on below its first slice with a cord: straight, then held."""
    reach = max(1, round(_STRAIGHT_MM / grid.spacing_mm[2]))
    first = int(detected[0])
    fitted = detected[detected <= first + reach]
    xy = xy.copy()
    if first == 0 or len(fitted) < 2:
        return xy
    z = np.maximum(np.arange(first), first - reach)
    for k in range(2):
        slope = np.polyfit(fitted, xy[fitted, k], 1)[0]
        xy[:first, k] = np.clip(xy[first, k] + slope * (z - first), 0, grid.shape[k] - 1)
    return xy
