"""Multiple sclerosis lesions of the cord: where they lie, their shape and brightness."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.noise import Floats, NoiseField, cover, field, make_tables

# Share of lesions by place in the section.
_PLACES = ("lateral", "posterior", "central", "anterior", "transverse")
_PLACE_SHARE = (0.44, 0.33, 0.12, 0.08, 0.03)
_MEDIAN_LENGTH, _LENGTHS = 6.5, (1.8, 26.0)  # half length, mm
MEDIAN_RATIO, SPREAD_RATIO, _RATIOS = 1.38, 0.15, (1.12, 2.0)  # log-normal


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
    bright_tail : float
        Share of lesions brighter than the range of the study's own, up to a ratio of 4.
    """
    tables = make_tables(rng, 2)
    count = 1 + int(rng.negative_binomial(1.2, 1.2 / (1.2 + 3.0)))
    items = tuple(_draw(rng, body, extent_mm, bright_tail) for _ in range(count))
    haze = float(rng.uniform(1.04, 1.11)) if rng.random() < 0.45 else 1.0
    return Lesions(
        items=items if affected else (),
        warp=field(rng, tables[0], (2.6, 2.6, 5.0)),
        inner=field(rng, tables[1], (1.6, 1.6, 3.5)),
        haze=haze,
        spread=field(rng, tables[1], (5.0, 5.0, 25.0)),
    )


def _draw(
    rng: np.random.Generator, body: Body, extent_mm: tuple[float, float], bright_tail: float
) -> Lesion:
    s = _position(rng, body, extent_mm)
    place = str(rng.choice(_PLACES, p=_PLACE_SHARE))
    half = float(np.clip(_MEDIAN_LENGTH * rng.lognormal(0, 0.62), *_LENGTHS))
    share = float(np.clip(0.16 * rng.lognormal(0, 0.5), 0.05, 0.30))
    if place == "transverse":
        share = float(rng.uniform(0.35, 0.6))
    ratio = float(np.clip(MEDIAN_RATIO * rng.lognormal(0, SPREAD_RATIO), *_RATIOS))
    if rng.random() < bright_tail:
        ratio = float(rng.uniform(2.0, 4.0))
    lesion = Lesion(
        place=place,
        level=body.level(s),
        s_mm=s,
        half_length_mm=half,
        angle=0.0,
        centre=0.0,
        radial=0.3,
        tangential=0.3,
        share=share,
        ratio=ratio,
        rim_mm=float(rng.uniform(0.2, 0.55)),
        roughness=float(rng.uniform(0.12, 0.32)),
        variation=float(rng.uniform(0.05, 0.30)),
    )
    return _shaped(rng, lesion)


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


def _shaped(rng: np.random.Generator, lesion: Lesion) -> Lesion:
    """Place and half axes in a section of unit radius, whose area is π."""
    share = lesion.share
    angle, centre = 0.0, 0.0
    aspect = rng.uniform(0.6, 1.5)
    if lesion.place == "lateral":
        angle = float(rng.choice([0.0, np.pi]) + rng.normal(0, 0.35))
    elif lesion.place == "posterior":
        angle = float(-np.pi / 2 + rng.normal(0, 0.4))
    elif lesion.place == "anterior":
        angle = float(np.pi / 2 + rng.choice([-1, 1]) * abs(rng.normal(0, 0.5)))
    else:
        angle = float(rng.uniform(-np.pi, np.pi))
    # Part of a peripheral lesion's shape falls outside the cord; the wedge loses some more.
    visible = 0.95 if lesion.place in ("central", "transverse") else 0.77
    radial = float(np.sqrt(share / visible * aspect))
    tangential = float(np.sqrt(share / visible / aspect))
    if lesion.place in ("lateral", "posterior", "anterior"):
        centre = float(1.0 - radial * rng.uniform(0.95, 1.3))
    elif lesion.place == "central":
        centre = float(rng.uniform(0, 0.2))
    else:
        centre = float(rng.uniform(0, 0.25))
    return replace(lesion, angle=angle, centre=centre, radial=radial, tangential=tangential)


def distance(
    lesion: Lesion,
    lesions: Lesions,
    a: Floats,
    b: Floats,
    s: Floats,
    u: Floats,
    v: Floats,
    radius_mm: Floats,
) -> Floats:
    """Signed distance, mm, to a lesion's surface, negative inside.

    Parameters
    ----------
    a, b : (N,) float32
        u and v from the cord's centre, relative to its half axes.
    s, u, v : (N,) float32
        Cord coordinates, mm.
    radius_mm : (N,) float32
        Mean radius of the cord.
    """
    cos, sin = np.float32(np.cos(lesion.angle)), np.float32(np.sin(lesion.angle))
    outward = (a * cos + b * sin - np.float32(lesion.centre)) / np.float32(lesion.radial)
    across = (b * cos - a * sin) / np.float32(lesion.tangential)
    if lesion.place in ("lateral", "posterior", "anterior"):
        # A wedge: wide at the pia, narrow towards the middle.
        across = across / np.clip(np.float32(0.8) + np.float32(0.45) * outward, 0.3, 1.3)
    along = np.abs(s - np.float32(lesion.s_mm)) / np.float32(lesion.half_length_mm)
    along *= np.sqrt(along)  # blunt ends: the squared term below grows with the third power
    size = np.sqrt(outward * outward + across * across + along * along)
    size += np.float32(lesion.roughness) * lesions.warp(u, v, s)
    thin = np.float32(min(lesion.radial, lesion.tangential) * 0.9)
    result: Floats = (size - 1) * radius_mm * thin
    return result


def coverage(lesion: Lesion, distance_mm: Floats) -> Floats:
    """Share of a lesion's brightness that a point gets: soft over its rim."""
    return cover(distance_mm, 2 * lesion.rim_mm)
