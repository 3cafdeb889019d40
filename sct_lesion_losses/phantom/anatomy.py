"""The body of one subject: course of the spine, sections of cord, canal and neighbours.

Cord coordinates are in mm: u to the right, v to the front, both from the axis of the spinal
canal; s along that axis, upwards, zero at the upper edge of C1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

STEP_MM = 0.25  # of every table over s
BOTTOM_MM, TOP_MM = -460.0, 100.0
AXIS_MM = np.arange(BOTTOM_MM, TOP_MM + STEP_MM / 2, STEP_MM)  # s of every table entry
LEVELS = (*(f"C{k}" for k in range(1, 8)), *(f"T{k}" for k in range(1, 13)), "L1")

# Knots over the vertebral level (C1 = 1 … T12 = 19): adults, means of published MRI series.
_CORD_AP = ((1, 2, 5, 7, 9, 11, 13, 19), (7.9, 7.7, 7.4, 6.5, 6.0, 5.4, 5.3, 6.2))
_CORD_RL = ((1, 2, 5, 7, 9, 11, 13, 19), (11.6, 11.7, 12.9, 10.8, 8.6, 7.6, 7.2, 8.4))
_CANAL_AREA = ((1, 2, 4.5, 7, 10, 15, 19), (285, 245, 208, 192, 145, 150, 170))
_CANAL_RATIO = ((1, 4, 7, 10, 19), (1.35, 1.5, 1.5, 1.22, 1.2))
_HEIGHT = ((1, 2, 3, 7, 8, 12, 19, 20), (15, 19, 16.5, 16.5, 20, 23.5, 28, 29))
_DISC = ((1, 2, 3, 7, 9, 19), (0.6, 0.6, 5.2, 5.2, 3.8, 5.5))
_BODY_DEPTH = ((1, 3, 7, 12, 19), (11, 15.5, 16.5, 22, 29))
_BODY_WIDTH = ((1, 3, 7, 12, 19), (9.5, 9.5, 12, 13.5, 18))  # half
_SPINOUS = ((1, 2, 3, 6, 7, 10, 19), (3, 17, 13, 18, 28, 30, 26))
_SPINOUS_TILT = ((1, 3, 7, 10, 14, 19), (0.15, 0.3, 0.55, 1.0, 1.2, 0.5))

_SIZE = 64  # samples along each axis of a periodic table of noise; a power of two
_PITCH = _SIZE + 1  # the first sample is repeated at the end, so that neighbours need no wrapping
_CORNERS = tuple(
    a * _PITCH * _PITCH + b * _PITCH + c for a in (0, 1) for b in (0, 1) for c in (0, 1)
)
_STEPS = 4  # samples per correlation length: close enough for a nearest-neighbour look-up


@dataclass(frozen=True, eq=False)
class NoiseField:
    """A stationary random field of three coordinates, zero mean and unit variance.

    Attributes
    ----------
    table : (65 * 65 * 65,) float32
        One period of the field and its first samples once more, raveled.
    scale : (3,) float64
        Table samples per mm along u, v and s.
    offset : (3,) float64
        Where the origin lies in the table, in samples.
    """

    table: Floats
    scale: Doubles
    offset: Doubles

    def __call__(self, u: Floats, v: Floats, s: Floats) -> Floats:
        """Values of the field at coordinates in mm, arrays of one shape.

        Fine fields are looked up, coarse ones (steps of over 1 mm) interpolated linearly.
        """
        at = [
            x * np.float32(f) + np.float32(o)
            for x, f, o in zip((u, v, s), self.scale, self.offset, strict=True)
        ]
        low = [x.astype(np.int32) for x in at]
        i, j, k = (x & (_SIZE - 1) for x in low)
        i *= _PITCH * _PITCH
        j *= _PITCH
        i += j
        i += k
        if self.scale[:2].min() >= 1.0:
            return self.table.take(i)
        values = [self.table[step:].take(i) for step in _CORNERS]
        for x, n in zip(reversed(at), reversed(low), strict=True):  # along s, v, then u
            weight = x - n.astype(np.float32)
            for one, other in zip(values[::2], values[1::2], strict=True):
                other -= one
                other *= weight
                other += one
            values = values[1::2]
        return values[0]


def make_table(rng: np.random.Generator) -> Floats:
    """Draw a periodic table of smooth noise."""
    white = rng.standard_normal((_SIZE, _SIZE, _SIZE), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, _STEPS / 2, mode="wrap")
    smooth -= smooth.mean()
    smooth /= smooth.std()
    return np.pad(smooth, (0, _PITCH - _SIZE), mode="wrap").ravel().astype(np.float32)


def field(
    rng: np.random.Generator, table: Floats, length_mm: float | tuple[float, float, float]
) -> NoiseField:
    """Field with the given correlation length, isotropic or along u, v and s.

    Fields from one table differ by a random shift only; take tables of their own where two
    fields must not be related.
    """
    # A large positive offset keeps the truncation to integers away from zero.
    offset = rng.uniform(0, _SIZE, 3) + 64 * _SIZE
    return NoiseField(table, _STEPS / np.broadcast_to(length_mm, 3), offset)


def smooth_walk(rng: np.random.Generator, length_mm: float, sd: float) -> Doubles:
    """Smooth random function of s, (S,), with correlation length and deviation given."""
    sigma = length_mm / STEP_MM / 2
    margin, size = int(3 * sigma) + 1, len(AXIS_MM)
    white = rng.standard_normal(size + 2 * margin)
    smooth = ndimage.gaussian_filter1d(white, sigma, mode="wrap")[margin : margin + size]
    # Deviation of white noise after a Gaussian filter, known in advance: no division by a sample.
    expected = 1 / np.sqrt(2 * sigma * np.sqrt(np.pi))
    return np.asarray(smooth * (sd / expected), np.float64)


@dataclass(frozen=True, eq=False)
class Body:
    """Everything about a subject that does not depend on the scan.

    Attributes
    ----------
    tables : dict of str to (S,) float32
        Functions of s, every `STEP_MM` from `BOTTOM_MM` to `TOP_MM`.
    curve : (S, 3) float64
        Axis of the canal in world mm.
    front, right, up : (S, 3) float64
        Unit vectors of v, u and s along the axis.
    centres : (20,) float64
        s of the middle of the vertebrae C1 … L1.
    noise : dict of str to NoiseField
    numbers : dict of str to float
        Sizes that do not change along s.
    tubes : (N, 6) float32
        Vessels and other strands: u and v at s = 0, their slopes, radius, brightness class.
    has_column : bool
        False in a part of the body where there is no spine.
    """

    tables: dict[str, Floats]
    curve: Doubles
    front: Doubles
    right: Doubles
    up: Doubles
    centres: Doubles
    noise: dict[str, NoiseField]
    numbers: dict[str, float]
    tubes: Floats
    has_column: bool = True

    def at(self, s: Floats, *names: str) -> list[Any]:
        """Values of some tables at coordinates s."""
        rounded = (s - np.float32(BOTTOM_MM)) * np.float32(1 / STEP_MM) + np.float32(0.5)
        index = np.clip(rounded.astype(np.int32), 0, len(AXIS_MM) - 1)
        return [self.tables[name].take(index) for name in names]

    def level(self, s: float) -> str:
        """Name of the vertebral level at s."""
        return LEVELS[int(np.argmin(np.abs(self.centres - s)))]

    def cord_centre(self, s: Doubles) -> Doubles:
        """World coordinates, (N, 3) mm, of the cord's centre at s, (N,)."""
        points = _lookup(s, self.curve)
        for name, vectors in (("cord_u", self.right), ("cord_v", self.front)):
            shift = np.interp(s, AXIS_MM, self.tables[name])
            points = points + shift[:, None] * _lookup(s, vectors)
        return points

    def coordinates(self, world_mm: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Cord coordinates u, v, s, each (...), of world coordinates, (..., 3)."""
        s = np.interp(world_mm[..., 2], self.curve[:, 2], AXIS_MM)
        for _ in range(4):
            offset = world_mm - _lookup(s, self.curve)
            s = s + 0.9 * (offset * _lookup(s, self.up)).sum(-1)
        offset = world_mm - _lookup(s, self.curve)
        u, v = ((offset * _lookup(s, axis)).sum(-1) for axis in (self.right, self.front))
        return u, v, s


def _lookup(s: Doubles, table: Doubles) -> Doubles:
    return np.stack([np.interp(s, AXIS_MM, column) for column in table.T], axis=-1)


def make_body(rng: np.random.Generator) -> Body:
    """Draw a subject."""
    edges, level = _levels(rng)
    centres = (edges[:-1] + edges[1:]) / 2
    curve, up = _curve(rng, level)
    right = np.cross(np.broadcast_to([0.0, 1.0, 0.0], up.shape), up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    numbers = _numbers(rng)
    tables = {
        **_sections(rng, level, edges, numbers["flat"]),
        **_column(rng, level, edges, centres),
        **_outline(numbers),
    }
    noise, tubes = _noise(rng), _tubes(rng)
    tables |= _unevenness(rng)
    return Body(
        tables={name: np.asarray(t, dtype=np.float32) for name, t in tables.items()},
        curve=curve,
        front=np.cross(up, right),
        right=right,
        up=up,
        centres=centres,
        noise=noise | {"mottle": field(rng, make_table(rng), (2.4, 2.0, 6.0))},
        numbers=numbers,
        tubes=tubes,
    )


def _levels(rng: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Edges of the levels, 21 values of s from C1's upper edge down, and the level at each s."""
    numbers = np.arange(1, len(LEVELS) + 1)
    heights = np.interp(numbers, *_HEIGHT) * rng.normal(1, 0.06)
    heights *= rng.normal(1, 0.025, len(heights))
    edges = np.concatenate([[0.0], -np.cumsum(heights)])
    level = np.interp(AXIS_MM, edges[::-1], np.arange(len(LEVELS), -1, -1) + 0.5)
    return edges, level


def _curve(rng: np.random.Generator, level: Doubles) -> tuple[Doubles, Doubles]:
    """Axis of the canal and its tangent: integrated angles, lordosis, kyphosis and noise."""
    lordosis, kyphosis = rng.normal(4, 6), rng.normal(15, 5)
    lean = rng.normal(4, 5)
    # Tangent angle in the sagittal plane, degrees; positive leans to the front going up.
    angle = lean + np.interp(
        level,
        [0.5, 2, 5, 8, 10, 14, 19],
        np.array([-lordosis * 1.3, -lordosis, 0, lordosis, lordosis * 0.6 + 4, 0, -kyphosis]),
    )
    angle += smooth_walk(rng, 60, 1.2)
    side = smooth_walk(rng, 120, 1.0) + rng.normal(0, 1.0)
    theta, phi = np.deg2rad(angle), np.deg2rad(np.clip(side, -3, 3))
    up = np.stack([np.sin(phi), np.sin(theta) * np.cos(phi), np.cos(theta) * np.cos(phi)], -1)
    curve = np.cumsum(up, axis=0) * STEP_MM
    curve -= curve[int(np.argmin(np.abs(AXIS_MM)))]
    return curve, up


def _sections(
    rng: np.random.Generator, level: Doubles, edges: Doubles, flat: float
) -> dict[str, Doubles]:
    """Half axes of cord and dural sac, their offsets and the bulges of the discs."""
    scale, shape = rng.normal(1, 0.04), rng.normal(1, 0.03)
    wobble = 1 + smooth_walk(rng, 25, 0.012)
    ap = np.interp(level, *_CORD_AP) * scale * shape * wobble / 2
    rl = np.interp(level, *_CORD_RL) * scale / shape * wobble / 2
    # Above the first level the cord widens into the medulla.
    above = np.clip(AXIS_MM / 25, 0, 1)
    ap, rl = ap * (1 + 0.7 * above), rl * (1 + 0.45 * above)
    area = np.interp(level, *_CANAL_AREA) * rng.normal(1, 0.09) * 0.9
    ratio = np.interp(level, *_CANAL_RATIO) * rng.normal(1, 0.04)
    sac_v = np.sqrt(area / np.pi / ratio) * (1 + smooth_walk(rng, 20, 0.025))
    sac_u = np.sqrt(area / np.pi * ratio) * (1 + smooth_walk(rng, 20, 0.025))
    sac_v, sac_u = np.maximum(sac_v, ap + 0.9), np.maximum(sac_u, rl + 1.2)
    sac_v, sac_u = sac_v * (1 + 0.6 * above), sac_u * (1 + 0.5 * above)
    bulge, fold = _bulges(rng, edges)
    # The sac is flat in front: `flat` of its half axis remains there.
    sac_v = np.maximum(sac_v, (ap + 0.8) / flat)
    room, ahead = sac_v - ap, sac_v * flat - ap
    # The cord lies nearer to the front where the spine bends forward.
    drift = np.interp(level, [1, 4, 8, 13, 19], [0.0, 0.05, 0.1, 0.4, -0.1])
    push = (drift + rng.normal(0, 0.2) + smooth_walk(rng, 50, 0.12)) * room
    front = np.maximum(ahead - bulge * 0.7 - 0.2, -room + 0.31)
    return {
        "cord_ru": rl,
        "cord_rv": ap * (1 - 0.03 * bulge),
        "sac_ru": sac_u,
        "sac_rv": sac_v,
        "bulge": bulge,
        "fold": fold,
        "cord_u": rng.normal(0, 0.3) + smooth_walk(rng, 60, 0.3),
        "cord_v": np.clip(push, -room + 0.3, front),
    }


def _bulges(rng: np.random.Generator, edges: Doubles) -> tuple[Doubles, Doubles]:
    """Indentation of the sac by discs (front) and ligaments (back), mm."""
    bulge, fold = np.zeros_like(AXIS_MM), np.zeros_like(AXIS_MM)
    worn = rng.random() < 0.5
    for k in range(2, len(edges) - 1):
        size = min(rng.exponential(0.9 if worn and k <= 7 else 0.25), 3.2)
        bulge += size * np.exp(-0.5 * ((AXIS_MM - edges[k]) / rng.uniform(1.8, 3.2)) ** 2)
        size = min(rng.exponential(0.35), 1.6)
        fold += size * np.exp(-0.5 * ((AXIS_MM - edges[k]) / 3.0) ** 2)
    return bulge, fold


def _column(
    rng: np.random.Generator, level: Doubles, edges: Doubles, centres: Doubles
) -> dict[str, Doubles]:
    """Vertebrae and discs along s."""
    inner = edges[1:-1]
    nearest = np.argmin(np.abs(AXIS_MM[:, None] - inner), axis=1)
    thickness = np.interp(np.arange(1.5, len(inner) + 1), *_DISC) * rng.normal(1, 0.12, len(inner))
    own = np.argmin(np.abs(AXIS_MM[:, None] - centres), axis=1)
    marrow = 1 + 0.06 * rng.standard_normal(len(centres))
    water = np.clip(rng.normal(1, 0.35, len(inner)), 0.3, 1.8)
    # The spinous processes differ from one vertebra to the next.
    longer, taller = rng.normal(1, 0.13, len(centres)), rng.normal(1, 0.14, len(centres))
    leaning, aside = rng.normal(0, 0.07, len(centres)), rng.normal(0, 1.1, len(centres))
    return {
        # mm inside the disc, negative in the vertebra
        "disc": thickness[nearest] / 2 - np.abs(AXIS_MM - inner[nearest]),
        "middle": AXIS_MM - centres[own],  # mm above the middle of the vertebra
        "marrow": marrow[own],
        "water": water[nearest],
        "depth": np.interp(level, *_BODY_DEPTH) * rng.normal(1, 0.06),
        "width": np.interp(level, *_BODY_WIDTH) * rng.normal(1, 0.06),
        "spinous": np.interp(level, *_SPINOUS) * rng.normal(1, 0.1),
        "tilt": np.interp(level, *_SPINOUS_TILT) * rng.normal(1, 0.15),
        "process_length": longer[own],
        "process_height": taller[own],
        "process_lean": leaning[own],
        "process_aside": aside[own],
    }


def _numbers(rng: np.random.Generator) -> dict[str, float]:
    u = rng.uniform
    return {
        "neck_ap": u(50, 66),
        "neck_rl": u(52, 70),
        "chest_ap": u(85, 120),
        "chest_rl": u(140, 190),
        "nape": u(6, 22),  # subcutaneous fat behind, mm
        "septa": u(0.05, 0.22),
        "deep_fat": u(1.0, 2.1),
        "airway_u": u(6, 10),
        "airway_v": u(4, 8),
        "airway_gap": u(5, 11),
        "taper": u(0.1, 0.38),  # how much narrower the sac is behind than in front
        "flat": u(0.72, 0.95),
        "fissure": u(0.15, 0.4),
        "fissure_depth": u(0.25, 0.45),
        "canal_line": u(0.15, 0.5) if rng.random() < 0.4 else 0.0,
        "gm_size": u(0.85, 1.12),
        "epidural": u(0.3, 2.2),
        "rootlets": u(0.05, 0.45),
        "disc_slant": rng.normal(-0.12, 0.06),
    }


def _outline(n: dict[str, float]) -> dict[str, Doubles]:
    """Skin: half axes and centre over s; head above, neck, then shoulders and chest."""
    knots = [-200, -150, -110, -70, -20, 15, 60, 100]
    rl = [n["chest_rl"], n["chest_rl"], n["chest_rl"] * 0.85, n["neck_rl"] * 1.15, n["neck_rl"]]
    rl += [n["neck_rl"] * 1.05, 78, 76]
    ap = [n["chest_ap"], n["chest_ap"] * 0.9, n["chest_ap"] * 0.75, n["neck_ap"] * 1.05]
    ap += [n["neck_ap"], n["neck_ap"] * 1.25, 92, 95]
    back = [48, 46, 44, 44, 44, 48, 62, 70]  # from the canal to the muscles' back
    centre = [a - b - n["nape"] for a, b in zip(ap, back, strict=True)]
    return {
        "skin_ru": np.interp(AXIS_MM, knots, rl),
        "skin_rv": np.interp(AXIS_MM, knots, ap),
        "skin_v": np.interp(AXIS_MM, knots, centre),
    }


def _noise(rng: np.random.Generator) -> dict[str, NoiseField]:
    a, b, c, d = (make_table(rng) for _ in range(4))
    return {
        "septa": field(rng, a, (11.0, 8.0, 45.0)),
        "septa_fine": field(rng, b, (6.0, 5.0, 25.0)),
        "pockets": field(rng, c, (14.0, 14.0, 40.0)),
        "skin": field(rng, b, 45.0),
        "bend_u": field(rng, c, (13.0, 13.0, 20.0)),
        "bend_v": field(rng, d, (13.0, 13.0, 20.0)),
        "grain": field(rng, d, 2.2),
        "trabecula": field(rng, c, 3.0),
        "streaks": field(rng, a, (2.0, 9.0, 2.2)),
        "flow": field(rng, b, (5.0, 5.0, 22.0)),
        "pulse": field(rng, c, (2.5, 2.5, 7.0)),
        "roots": field(rng, d, (2.0, 2.0, 5.0)),
        "surface": field(rng, a, (4.0, 4.0, 9.0)),
        "white": field(rng, d, (1.3, 1.3, 4.0)),
        "folia": field(rng, a, (12.0, 5.0, 2.5)),
    }


def _unevenness(rng: np.random.Generator) -> dict[str, Doubles]:
    """Course of what makes a healthy cord uneven along s, of unit variance.

    Beside it the share of the canal's line that is seen, over 0 in about a tenth of the cord.
    """
    return {
        "drift": smooth_walk(rng, 60, 1.0),
        "uneven": smooth_walk(rng, 7, 1.0),
        "aside": smooth_walk(rng, 12, 1.0),
        "stripe": smooth_walk(rng, 20, 1.0),
        "canal": np.clip(2 * smooth_walk(rng, 10, 1.0) - 2.2, 0, 1),
    }


def _tubes(rng: np.random.Generator) -> Floats:
    """Carotids, jugulars, vertebral arteries and some strands without a name."""
    rows: list[list[float]] = []
    for side in (-1, 1):
        rows.append([side * rng.uniform(15, 19), rng.uniform(7, 13), 0, 0, rng.uniform(1.4, 2.6)])
        rows.append([side * rng.uniform(24, 34), rng.uniform(18, 34), 0, 0, rng.uniform(2.5, 4)])
        rows.append([side * rng.uniform(28, 40), rng.uniform(14, 34), 0, 0, rng.uniform(3, 7)])
    for _ in range(int(rng.integers(6, 16))):
        u, v = rng.uniform(-55, 55), rng.uniform(-50, 60)
        if abs(u) > 20 or v > 30:
            rows.append([u, v, *rng.normal(0, 0.25, 2), rng.uniform(1, 4)])
    kinds = rng.uniform(0, 1, (len(rows), 1))
    kinds[[0, 3]] = 0.0  # the vertebral arteries are dark
    return np.concatenate([np.array(rows), kinds], axis=1).astype(np.float32)
