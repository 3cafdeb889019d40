"""Intensity standardisation: one scale for scans whose units are arbitrary.

Two mappings share the same landmarks (percentiles of a scan and the values they are mapped to, part
of a bundle's preparation): `standardise`, piecewise linear with its end segments extended, and
`standardise_sct`, the mapping of SCT's lesion model with its exponential tails. `zscore` then gives
each patch zero mean and unit standard deviation.

References
----------
Nyul & Udupa, "On standardizing the MR image intensity scale", Magn Reson Med 42, 1999.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from sct_lesion_losses.bundle.schema import (
    Preparation,
    SctPreparation,
    StudyPreparation,
    problems,
)
from sct_lesion_losses.errors import DataError, ImageError

PERCENTILES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
FAR_CONTRAST = 15.0  # of 100: landmark distance at which a scan looks unlike those trained on
FULL_SCALE = 100.0
# Percentiles closer than this fraction of their whole range are one and the same: a slope through
# them would be rounding noise.
TIE = 1e-6
# Deviation of a patch, of its mean, above which the mean's rounding to float32 does not count.
_PLAIN_CONTRAST = 0.1
_PLAIN_DEVIATION = 1e-12  # the squares of smaller numbers are too small for float32
_FLOAT32 = np.finfo(np.float32)

logger = logging.getLogger(__name__)


def measure(
    sample: NDArray[Any], percentiles: tuple[float, ...] = PERCENTILES
) -> NDArray[np.float64]:
    """Percentiles of one scan, all that `fit` needs of it.

    Parameters
    ----------
    sample : ndarray
        Any shape and unit; finite.
    percentiles : tuple of P float
        Strictly rising, in [0, 100].

    Returns
    -------
    (P,) float64
    """
    if sample.size == 0:
        raise ImageError("intensities: there is no voxel to take percentiles of")
    if not np.isfinite(sample).all():
        raise ImageError("intensities: NaN or infinite voxels; replace them before standardising")
    return np.asarray(np.percentile(sample, percentiles), dtype=np.float64)


def fit(measured: Iterable[ArrayLike]) -> StudyPreparation:
    """Learn landmarks from training scans.

    The percentiles of each scan are scaled so that the first becomes 0 and the last 100; the
    landmarks are their average over the scans (Nyul & Udupa 1999).

    Parameters
    ----------
    measured : iterable of (11,) array or sequence
        One per scan, by `measure`.

    Raises
    ------
    DataError
        There is no scan, one has no contrast at all, or neighbouring percentiles of all coincide.
    """
    own = np.array(list(measured), dtype=np.float64)
    if len(own) == 0:
        raise DataError("intensity landmarks: no sample to fit them on; check the training set")
    low, high = own[:, :1], own[:, -1:]
    if not (high > low).all():
        flat = int((high > low).argmin())
        raise DataError(
            f"intensity landmarks: sample {flat} is {low[flat, 0]:g} from percentile "
            f"{PERCENTILES[0]:g} to {PERCENTILES[-1]:g}; leave this scan out"
        )
    landmarks = (FULL_SCALE * (own - low) / (high - low)).mean(axis=0)
    try:
        return StudyPreparation(percentiles=PERCENTILES, landmarks=tuple(landmarks.tolist()))
    except ValidationError as error:
        raise DataError(
            f"intensity landmarks: {problems(error)}; the training scans have too few grey values"
        ) from error


def standardise(
    values: NDArray[Any], preparation: StudyPreparation, reference: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Map the percentiles of a scan linearly, piece by piece, onto the landmarks.

    Beyond the first and the last percentile the end segments are extended. Percentiles that
    coincide (a scan that is mostly background) are mapped to the mean of their landmarks, and a
    constant scan to the mean of all landmarks.

    Parameters
    ----------
    values : ndarray
        Any shape and unit.
    preparation : StudyPreparation
        Its landmarks.
    reference : ndarray, optional
        What the percentiles are taken of; `values` itself by default.

    Returns
    -------
    ndarray of float32
        The shape of `values`.
    """
    own = measure(values if reference is None else reference, preparation.percentiles)
    x, y = _merge_ties(own, np.asarray(preparation.landmarks))
    data = np.asarray(values, dtype=np.float64)
    mapped = np.interp(data, x, y)
    if len(x) > 1:
        first, last = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])
        mapped += np.minimum(data - x[0], 0) * first + np.maximum(data - x[-1], 0) * last
    return np.asarray(mapped, dtype=np.float32)


def standardise_sct(values: NDArray[Any], preparation: SctPreparation) -> NDArray[np.float32]:
    """Map a crop as SCT's lesion model has it: linear pieces with exponential tails.

    Below the first landmark the tail is built on the first segment; above the last one on the
    segment before the last (SCT takes landmarks -3 and -2). Unlike SCT, a tail whose segment has no
    width is flat at its end landmark instead of NaN.

    Parameters
    ----------
    values : ndarray
        The whole crop, zeros outside the centerline's slices included.
    preparation : SctPreparation
        Its landmarks.

    Returns
    -------
    ndarray of float32
        The shape of `values`.
    """
    data = np.asarray(values, dtype=np.float32)
    x, y = measure(data, preparation.percentiles), np.asarray(preparation.landmarks)
    mapped = np.interp(data, x, y)
    below, above = data < x[0], data > x[-1]
    mapped[below] = _sct_tail(data[below], x[:2], y[:2], float(y[0]))
    mapped[above] = _sct_tail(data[above], x[-3:-1], y[-3:-1], float(y[-1]))
    return np.asarray(mapped, dtype=np.float32)


def landmark_distance(values: NDArray[Any], preparation: Preparation) -> float:
    """Say how far the shape of a scan's histogram is from the training set's.

    Both sets of landmarks are scaled to 0-100 first, so brightness and gain do not count.

    Returns
    -------
    float
        Mean absolute distance over the landmarks, 0 (the same shape) to 100; a constant scan, which
        has no shape, is at 100.
    """
    own = measure(values, preparation.percentiles)
    if not own[-1] > own[0]:
        return FULL_SCALE
    stored = np.asarray(preparation.landmarks)
    scaled = FULL_SCALE * (own - own[0]) / (own[-1] - own[0])
    expected = FULL_SCALE * (stored - stored[0]) / (stored[-1] - stored[0])
    return float(np.abs(scaled - expected).mean())


def warn_if_unlike(values: NDArray[Any], preparation: Preparation) -> None:
    """Warn where a scan's intensities are unlike those of the training scans.

    Parameters
    ----------
    values : array
        Untouched intensities around the cord.
    preparation : Preparation
        Of the network.
    """
    distance = landmark_distance(values, preparation)
    if distance > FAR_CONTRAST:
        logger.warning(
            "intensities around the cord are unlike those of the training scans (landmark distance "
            "%.0f of 100): has the scan the contrast that the model was trained for, and is the "
            "centerline on the cord?",
            distance,
        )


def zscore(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give each patch zero mean and unit standard deviation.

    Parameters
    ----------
    patches : (N, 48, 48, 48) float32
        Any patch size; every patch is taken by itself.

    Returns
    -------
    (N, 48, 48, 48) float32
        A patch without contrast becomes zeros.
    """
    scaled = np.empty(patches.shape, np.float32)
    for patch, out in zip(patches, scaled, strict=True):
        np.multiply(out, centre(patch, out), out=out)
    return scaled


def centre(patch: NDArray[np.float32], out: NDArray[np.float32]) -> np.float32:
    """Take the mean of a patch away; the first half of `zscore`.

    Parameters
    ----------
    patch : (48, 48, 48) float32
        Any patch size.
    out : (48, 48, 48) float32
        Where the result goes, `patch` itself perhaps.

    Returns
    -------
    float32
        What `out` is to be multiplied by to have unit standard deviation; 0 for a patch without
        contrast.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # taken care of
        mean = _sum(patch) / patch.size
        if not np.isfinite(mean):
            mean = float(patch.mean(dtype=np.float64))
        np.subtract(patch, np.float32(mean), out=out)
        deviation = float(np.sqrt(_sum(np.square(out)) / patch.size))
    if not max(_PLAIN_DEVIATION, _PLAIN_CONTRAST * abs(mean)) < deviation < np.inf:
        out -= out.mean(dtype=np.float64).astype(np.float32)
        deviation = float(out.std(dtype=np.float64))
        # A constant patch may show a deviation of the order of the mean's own rounding.
        if not deviation > max(_FLOAT32.tiny, _FLOAT32.eps * abs(mean)):
            return np.float32(0)
    return np.float32(1 / deviation)


def _sum(values: NDArray[np.float32]) -> float:
    # einsum sums a row in many lanes at once; unlike a BLAS, the same way wherever the row lies.
    rows = np.einsum("ij->i", values.reshape(len(values), -1))
    return float(rows.sum(dtype=np.float64))


def _merge_ties(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Join percentiles that coincide into one point at the mean of their landmarks."""
    apart = max(TIE * (x[-1] - x[0]), np.finfo(np.float32).tiny)
    new = np.concatenate([[True], np.diff(x) > apart])
    group = np.cumsum(new) - 1
    size = np.bincount(group)
    return np.bincount(group, x) / size, np.bincount(group, y) / size


def _sct_tail(
    values: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64], end: float
) -> NDArray[np.floating[Any]]:
    """Exponential through the far point of one segment with its slope, towards `end`.

    With slope m and w = y[1] - end: end + w * exp(m / w * (values - x[1])).
    """
    if not x[1] > x[0]:
        return np.full(values.shape, end)
    slope, reach = (y[1] - y[0]) / (x[1] - x[0]), y[1] - end
    return np.asarray(end + reach * np.exp(slope / reach * (values - x[1])))
