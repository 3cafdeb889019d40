"""Augmentation of training patches: mirrors and 90° rotations, and changes of intensity.

Mirrors and rotations are the study's. The changes of intensity (gamma, bias, blur, noise) and the
bright middle of a healthy cord are options for training on few people or on simulated scans, whose
appearance varies less than that of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MIRRORS, ROTATIONS = "mirrors", "90-degree rotations"  # names in a recipe
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Orientation:
    """One of the ways a patch may lie.

    Attributes
    ----------
    mirrored : tuple of 3 bool
        Whether each axis is.
    quarter_turns : int
        Rotations by 90° in the axial plane afterwards, 0 to 3.
    """

    mirrored: tuple[bool, bool, bool] = (False, False, False)
    quarter_turns: int = 0

    def along_cord(self, patch: NDArray[Any]) -> NDArray[Any]:
        """Return the patch, (X, Y, Z), with z as it shall lie; a view."""
        return patch[:, :, ::-1] if self.mirrored[2] else patch

    def in_plane(self, patch: NDArray[Any]) -> NDArray[Any]:
        """Return the patch, (P, P, Z), with x and y as they shall lie; a view."""
        axes = tuple(axis for axis in (0, 1) if self.mirrored[axis])
        return np.rot90(np.flip(patch, axes), self.quarter_turns)


def draw_orientation(rng: np.random.Generator, mirrors: bool, rotations: bool) -> Orientation:
    """Draw how a patch shall lie.

    Planes that hold z are not rotated: the cord runs along z in every patch a network will see.

    Parameters
    ----------
    rng : numpy.random.Generator
    mirrors : bool
        Mirror each axis with probability 1/2 (Hussein et al. 2023, section 2.4).
    rotations : bool
        Rotate by a multiple of 90° in the axial plane (Hussein et al. 2023, section 2.4).
    """
    mirrored, turns = (False, False, False), 0
    if mirrors:
        x, y, z = (rng.random(3) < 0.5).tolist()
        mirrored = (x, y, z)
    if rotations:
        turns = int(rng.integers(4))
    return Orientation(mirrored, turns)


def shift(rng: np.random.Generator, margin: int) -> tuple[int, int]:
    """First voxel of a window in x and y, drawn evenly over a margin of that many voxels a side."""
    x, y = rng.integers(0, 2 * margin + 1, 2)
    return int(x), int(y)


def brighten_middle(
    patch: FloatArray,
    centre: tuple[float, float],
    rng: np.random.Generator,
    probability: float = 0.5,
) -> FloatArray:
    """Lay a bright stripe along the middle of the cord, with the given probability.

    It is no lesion: grey matter or a central canal that shows, or a line where the bright fluid's
    signal is truncated, may run through a whole healthy cord (Bronskill et al. 1988, Radiology
    166).

    Parameters
    ----------
    patch : (P, P, P) float32
        Standardised intensities, of a background near 0; the cord runs along z.
    centre : tuple of 2 float
        The cord's centre in x and y, voxels.
    rng : numpy.random.Generator
    probability : float

    Returns
    -------
    (P, P, P) float32
        A new array, or `patch` itself where nothing was drawn. The gain is 1 + h(z) exp(-(x / u)²
        - (y / v)²) with x and y the distances from a line up to 2 voxels beside the centre in each,
        u and v of 1.6 to 6 voxels, and h uneven along z, 0.1 to 0.6 at most.
    """
    if rng.random() >= probability:
        return patch
    height = rng.uniform(0.1, 0.6)
    x, y = (
        np.exp(-np.square((np.arange(n) - c - rng.uniform(-2, 2)) / rng.uniform(1.6, 6)))
        for n, c in zip(patch.shape, centre, strict=False)
    )
    course = ndimage.gaussian_filter1d(rng.standard_normal(patch.shape[2]), rng.uniform(1, 12))
    z = height * np.clip(0.7 + 0.3 * course / max(course.std(), 1e-6), 0, 1)
    gain: FloatArray = (1 + x[:, None, None] * y[:, None] * z).astype(np.float32)
    return patch * gain


def vary_intensity(
    patch: FloatArray, rng: np.random.Generator, probability: float = 0.5
) -> FloatArray:
    """Change gamma, bias, sharpness and noise of a patch, each with the given probability.

    Linear changes are left out: every patch is brought to zero mean and unit deviation afterwards.

    Parameters
    ----------
    patch : (P, P, P) float32
    rng : numpy.random.Generator
    probability : float

    Returns
    -------
    (P, P, P) float32
        A new array, or `patch` itself where nothing was drawn.
    """
    gamma, bias, blur, noise = rng.random(4) < probability
    if gamma:
        low, high = float(patch.min()), float(patch.max())
        if high > low:
            exponent = float(np.exp(rng.uniform(-0.4, 0.4)))
            patch = ((patch - low) / (high - low)) ** np.float32(exponent)
    if bias:
        slopes = rng.uniform(-0.3, 0.3, 3)
        ramps = [np.linspace(-s, s, n) for s, n in zip(slopes, patch.shape, strict=True)]
        field = np.exp(ramps[0][:, None, None] + ramps[1][:, None] + ramps[2])
        low = float(patch.min())
        patch = (patch - low) * field.astype(np.float32)
    if blur:
        sigma = [float(s) for s in rng.uniform(0, 0.9, 3)]
        patch = ndimage.gaussian_filter(patch, sigma, mode="nearest", truncate=3)
    if noise:
        grain = rng.standard_normal(patch.shape, dtype=np.float32)
        if rng.random() < 0.5:  # resampled scans carry noise that is smooth over some voxels
            grain = ndimage.gaussian_filter(grain, 0.8, mode="nearest", truncate=3) * np.float32(4)
        level = float(rng.uniform(0, 0.2)) * float(patch.std())
        patch = patch + np.float32(level) * grain
    return patch
