"""Lesions, what a rater marks of them, and what looks like a lesion and is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.anatomy import (
    Body,
    Floats,
    NoiseField,
    field,
    make_table,
)

# Share of lesions by place in the section.
_PLACES = ("lateral", "posterior", "central", "anterior", "transverse")
_PLACE_SHARE = (0.44, 0.33, 0.12, 0.08, 0.03)
_PERIPHERAL = ("lateral", "posterior", "anterior")
_MEDIAN_LENGTH, _LENGTHS = 6.5, (1.8, 26.0)  # half length, mm
MEDIAN_RATIO, SPREAD_RATIO, RATIOS = 1.38, 0.15, (1.12, 2.0)  # log-normal


@dataclass(frozen=True)
class Lesion:
    """One lesion, in cord coordinates.

    Attributes
    ----------
    place : str
        Lateral, posterior, central, anterior or transverse.
    level : str
        Vertebral level of its middle.
    s_mm, half_length_mm : float
        Middle along the cord, and half of its extent.
    angle : float
        Direction in the section, radians, 0 to the right and π/2 to the front.
    centre, radial, tangential : float
        Distance from the cord's centre and half axes, as shares of the cord's radius.
    share : float
        Share of the cord's section, intended.
    ratio : float
        Brightness relative to the tissue it lies in.
    rim_mm, roughness, variation : float
        Width of its soft rim, strength of the warp of its surface, relative deviation inside.
    """

    place: str
    level: str
    s_mm: float
    half_length_mm: float
    angle: float
    centre: float
    radial: float
    tangential: float
    share: float
    ratio: float
    rim_mm: float
    roughness: float
    variation: float

    @property
    def reach_mm(self) -> float:
        """Distance from its middle along the cord that no part of it exceeds."""
        return self.half_length_mm * 1.6 + 1


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of a scan, with the noise that shapes them; shares none with the anatomy.

    Attributes
    ----------
    items : tuple of Lesion
    warp, inner : NoiseField
    haze : float
        Relative brightness of diffuse, unlabelled change; 1 where there is none.
    spread : NoiseField
        Where the haze is.
    """

    items: tuple[Lesion, ...]
    warp: NoiseField
    inner: NoiseField
    haze: float
    spread: NoiseField


def draw_lesions(
    rng: np.random.Generator,
    body: Body,
    extent_mm: tuple[float, float],
    *,
    affected: bool,
    contrast: tuple[float, float] = RATIOS,
    bright_tail: float = 0.0,
) -> Lesions:
    """Draw the lesions of a scan that shows the cord over `extent_mm`.

    Parameters
    ----------
    rng : Generator
    body : Body
    extent_mm : (float, float)
        Range of s that is in view.
    affected : bool
        False: no lesion. Haze does not depend on it: people with multiple sclerosis and no focal
        lesion of the cord have it too, and so it does not tell scans with lesions from others.
    contrast : (float, float)
        Lowest and highest brightness of a lesion relative to the tissue; see `_ratio`.
    bright_tail : float
        Share of lesions brighter than the range of the study's own, up to a ratio of 4.
    """
    coarse, fine = make_table(rng), make_table(rng)
    count = 1 + int(rng.negative_binomial(1.2, 1.2 / (1.2 + 3.0)))
    items = tuple(_draw(rng, body, extent_mm, contrast, bright_tail) for _ in range(count))
    haze = float(rng.uniform(1.04, 1.11)) if rng.random() < 0.45 else 1.0
    return Lesions(
        items=items if affected else (),
        warp=field(rng, coarse, (2.6, 2.6, 5.0)),
        inner=field(rng, fine, (1.6, 1.6, 3.5)),
        haze=haze,
        spread=field(rng, fine, (5.0, 5.0, 25.0)),
    )


def _draw(
    rng: np.random.Generator,
    body: Body,
    extent_mm: tuple[float, float],
    contrast: tuple[float, float],
    bright_tail: float,
) -> Lesion:
    s = _position(rng, body, extent_mm)
    place = str(rng.choice(_PLACES, p=_PLACE_SHARE))
    half = np.clip(_MEDIAN_LENGTH * rng.lognormal(0, 0.62), *_LENGTHS)
    share = np.clip(0.16 * rng.lognormal(0, 0.5), 0.05, 0.30)
    if place == "transverse":
        share = rng.uniform(0.35, 0.6)
    ratio = _ratio(rng, contrast)
    if rng.random() < bright_tail:
        ratio = rng.uniform(2.0, 4.0)
    rim, roughness, variation = rng.uniform((0.2, 0.12, 0.05), (0.55, 0.32, 0.30))
    aspect = rng.uniform(0.6, 1.5)
    if place == "lateral":
        angle = rng.choice([0.0, np.pi]) + rng.normal(0, 0.35)
    elif place == "posterior":
        angle = -np.pi / 2 + rng.normal(0, 0.4)
    elif place == "anterior":
        angle = np.pi / 2 + rng.choice([-1, 1]) * abs(rng.normal(0, 0.5))
    else:
        angle = rng.uniform(-np.pi, np.pi)
    # Half axes in a section of unit radius, whose area is π. Part of a peripheral lesion's shape
    # falls outside the cord; the wedge loses some more.
    visible = 0.77 if place in _PERIPHERAL else 0.95
    radial, tangential = np.sqrt(share / visible * aspect), np.sqrt(share / visible / aspect)
    if place in _PERIPHERAL:
        centre = 1.0 - radial * rng.uniform(0.95, 1.3)
    else:
        centre = rng.uniform(0, 0.2 if place == "central" else 0.25)
    return Lesion(
        place=place,
        level=body.level(s),
        s_mm=s,
        half_length_mm=float(half),
        angle=float(angle),
        centre=float(centre),
        radial=float(radial),
        tangential=float(tangential),
        share=float(share),
        ratio=ratio,
        rim_mm=float(rim),
        roughness=float(roughness),
        variation=float(variation),
    )


def _ratio(rng: np.random.Generator, contrast: tuple[float, float]) -> float:
    """Draw a lesion's brightness relative to the tissue, log-normal, within a range.

    What lies beyond the default range, 8 % at its lower end, is drawn as its ends; another range
    is drawn from by the inverse of the distribution that it cuts off, so that it has no such heap.
    """
    drawn = MEDIAN_RATIO * rng.lognormal(0, SPREAD_RATIO)
    if contrast != RATIOS:
        # By shares above, which stay exact in the bright tail.
        highest, lowest, here = (
            0.5 * math.erfc(math.log(ratio / MEDIAN_RATIO) / SPREAD_RATIO / math.sqrt(2))
            for ratio in (contrast[1], contrast[0], drawn)
        )
        above = highest + (lowest - highest) * here
        drawn = MEDIAN_RATIO * math.exp(-SPREAD_RATIO * NormalDist().inv_cdf(above))
    return float(np.clip(drawn, *contrast))


def _position(rng: np.random.Generator, body: Body, extent_mm: tuple[float, float]) -> float:
    """Middle of a lesion: density 1 at C1-C4, 0.8 at C5-C7, 0.4 below."""
    low, high = extent_mm
    for _ in range(100):
        s = float(rng.uniform(low, high))
        level = body.level(s)
        density = 0.4 if level[0] != "C" else 1.0 if int(level[1]) <= 4 else 0.8
        if rng.random() < density:
            return s
    return float(rng.uniform(low, high))


def distance(
    lesion: Lesion, lesions: Lesions, body: Body, u: Floats, v: Floats, s: Floats
) -> Floats:
    """Signed distance, mm, to the surface of one of the lesions, negative inside.

    Parameters
    ----------
    lesion, lesions, body
    u, v, s : (N,) float32
        Cord coordinates, mm.
    """
    middle_u, middle_v, ru, rv = body.at(s, "cord_u", "cord_v", "cord_ru", "cord_rv")
    a, b = (u - middle_u) / ru, (v - middle_v) / rv
    cos, sin = float(np.cos(lesion.angle)), float(np.sin(lesion.angle))
    outward = (a * cos + b * sin - lesion.centre) / lesion.radial
    across = (b * cos - a * sin) / lesion.tangential
    if lesion.place in _PERIPHERAL:
        # A wedge: wide at the pia, narrow towards the middle.
        across = across / np.clip(0.8 + 0.45 * outward, 0.3, 1.3)
    along = np.abs(s - lesion.s_mm) / lesion.half_length_mm
    along *= np.sqrt(along)  # blunt ends: the squared term below grows with the third power
    size = np.sqrt(outward * outward + across * across + along * along)
    size += lesion.roughness * lesions.warp(u, v, s)
    radius_mm = (ru + rv) * 0.5
    return np.asarray(
        (size - 1) * radius_mm * (min(lesion.radial, lesion.tangential) * 0.9), np.float32
    )


# Where half of a voxel is lesion, the border is right; a rater's own share moves it by up to about
# half a voxel to either side.
_BORDER = (0.1, 0.9)
_OVERLOOKED = (0.1, 0.2)  # share of all lesions, the faintest


def rater_mask(
    rng: np.random.Generator,
    share: Floats,
    cord: npt.NDArray[np.bool_],
    owners: npt.NDArray[np.int32],
    ratios: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Draw what one rater marks in a scan.

    Parameters
    ----------
    rng : Generator
    share : (X, Y, Z) float32
        Share of each voxel inside a lesion.
    cord : (X, Y, Z) bool
    owners : (X, Y, Z) int32
        Index of the lesion that a voxel belongs to; -1 where it belongs to none.
    ratios : (N,) float64
        Brightness of the lesions relative to the tissue around them.

    Returns
    -------
    (X, Y, Z) bool
        Inside the cord. A lesion is overlooked where its ratio is among the lowest 10 to 20 % of
        the distribution that lesions are drawn from, so many scans lose none.
    """
    border = rng.uniform(*_BORDER)
    overlooked = rng.uniform(*_OVERLOOKED)
    faint = MEDIAN_RATIO * np.exp(SPREAD_RATIO * NormalDist().inv_cdf(overlooked))
    seen = np.append(ratios >= faint, False)  # the last is that of voxels without a lesion
    mask: npt.NDArray[np.bool_] = (share >= border) & cord & seen[owners]
    return mask
