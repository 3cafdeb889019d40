"""The body of one subject: course of the spine, sections of cord, canal and neighbours.

Cord coordinates are in mm: u to the right, v to the front, both from the axis of the spinal
canal; s along that axis, upwards, zero at the upper edge of C1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.noise import Floats, NoiseField, field, make_tables, smooth_walk

Doubles = npt.NDArray[np.float64]

STEP_MM = 0.25  # of every table over s
TOP_MM = 100.0
BOTTOM_MM = -460.0
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

    def index(self, s: Floats) -> npt.NDArray[np.int32]:
        """Index into the tables of coordinates s."""
        at = (s - np.float32(BOTTOM_MM)) * np.float32(1 / STEP_MM) + np.float32(0.5)
        index = at.astype(np.int32)
        return np.clip(index, 0, len(self.curve) - 1, out=index)

    def at(self, s: Floats, *names: str) -> list[Any]:
        """Values of some tables at coordinates s."""
        index = self.index(s)
        return [self.tables[name].take(index) for name in names]

    def level(self, s: float) -> str:
        """Name of the vertebral level at s."""
        return LEVELS[int(np.argmin(np.abs(self.centres - s)))]

    def cord_centre(self, s: Doubles) -> Doubles:
        """World coordinates, (N, 3) mm, of the cord's centre at s, (N,)."""
        along = axis_mm()
        points = _lookup(s, along, self.curve)
        for name, vectors in (("cord_u", self.right), ("cord_v", self.front)):
            shift = np.interp(s, along, self.tables[name])
            points = points + shift[:, None] * _lookup(s, along, vectors)
        return points

    def coordinates(self, world_mm: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Cord coordinates u, v, s, each (...), of world coordinates, (..., 3)."""
        along = axis_mm()
        s = np.interp(world_mm[..., 2], self.curve[:, 2], along)
        for _ in range(4):
            offset = world_mm - _lookup(s, along, self.curve)
            s = s + 0.9 * (offset * _lookup(s, along, self.up)).sum(-1)
        offset = world_mm - _lookup(s, along, self.curve)
        u = (offset * _lookup(s, along, self.right)).sum(-1)
        v = (offset * _lookup(s, along, self.front)).sum(-1)
        return u, v, s


def axis_mm() -> Doubles:
    """S of every table entry, (S,) mm."""
    return np.arange(BOTTOM_MM, TOP_MM + STEP_MM / 2, STEP_MM)


def _lookup(s: Doubles, along: Doubles, table: Doubles) -> Doubles:
    return np.stack([np.interp(s, along, table[:, k]) for k in range(3)], axis=-1)


def make_body(rng: np.random.Generator) -> Body:
    """Draw a subject."""
    along = axis_mm()
    edges, level = _levels(rng, along)
    curve, up = _curve(rng, along, level)
    right = np.cross(np.broadcast_to([0.0, 1.0, 0.0], up.shape), up)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    numbers = _numbers(rng)
    tables = {
        **_sections(rng, along, level, edges, numbers["flat"]),
        **_column(rng, along, level, edges),
        **_outline(along, numbers),
    }
    return Body(
        tables={name: np.asarray(t, dtype=np.float32) for name, t in tables.items()},
        curve=curve,
        front=np.cross(up, right),
        right=right,
        up=up,
        centres=(edges[:-1] + edges[1:]) / 2,
        noise=_noise(rng),
        numbers=numbers,
        tubes=_tubes(rng),
    )


def _knots(level: Doubles, knots: tuple[tuple[float, ...], tuple[float, ...]]) -> Doubles:
    return np.interp(level, *knots)


def _levels(rng: np.random.Generator, along: Doubles) -> tuple[Doubles, Doubles]:
    """Edges of the levels, 21 values of s from C1's upper edge down, and the level at each s."""
    numbers = np.arange(1, len(LEVELS) + 1)
    heights = _knots(numbers.astype(float), _HEIGHT) * rng.normal(1, 0.06)
    heights *= rng.normal(1, 0.025, len(heights))
    edges = np.concatenate([[0.0], -np.cumsum(heights)])
    level = np.interp(along, edges[::-1], np.arange(len(LEVELS), -1, -1) + 0.5)
    return edges, level


def _curve(rng: np.random.Generator, along: Doubles, level: Doubles) -> tuple[Doubles, Doubles]:
    """Axis of the canal and its tangent: integrated angles, lordosis, kyphosis and noise."""
    lordosis, kyphosis = rng.normal(4, 6), rng.normal(15, 5)
    lean = rng.normal(4, 5)
    # Tangent angle in the sagittal plane, degrees; positive leans to the front going up.
    angle = lean + np.interp(
        level,
        [0.5, 2, 5, 8, 10, 14, 19],
        np.array([-lordosis * 1.3, -lordosis, 0, lordosis, lordosis * 0.6 + 4, 0, -kyphosis]),
    )
    size = len(along)
    angle += smooth_walk(rng, size, STEP_MM, 60, 1.2)
    side = smooth_walk(rng, size, STEP_MM, 120, 1.0) + rng.normal(0, 1.0)
    theta, phi = np.deg2rad(angle), np.deg2rad(np.clip(side, -3, 3))
    up = np.stack([np.sin(phi), np.sin(theta) * np.cos(phi), np.cos(theta) * np.cos(phi)], -1)
    curve = np.cumsum(up, axis=0) * STEP_MM
    curve -= curve[int(np.argmin(np.abs(along)))]
    return curve, up


def _sections(
    rng: np.random.Generator, along: Doubles, level: Doubles, edges: Doubles, flat: float
) -> dict[str, Doubles]:
    """Half axes of cord and dural sac, their offsets and the bulges of the discs."""
    size = len(along)
    scale, shape = rng.normal(1, 0.04), rng.normal(1, 0.03)
    wobble = 1 + smooth_walk(rng, size, STEP_MM, 25, 0.012)
    ap = _knots(level, _CORD_AP) * scale * shape * wobble / 2
    rl = _knots(level, _CORD_RL) * scale / shape * wobble / 2
    # Above the first level the cord widens into the medulla.
    above = np.clip(along / 25, 0, 1)
    ap, rl = ap * (1 + 0.7 * above), rl * (1 + 0.45 * above)
    area = _knots(level, _CANAL_AREA) * rng.normal(1, 0.09) * 0.9
    ratio = _knots(level, _CANAL_RATIO) * rng.normal(1, 0.04)
    sac_v = np.sqrt(area / np.pi / ratio) * (1 + smooth_walk(rng, size, STEP_MM, 20, 0.025))
    sac_u = np.sqrt(area / np.pi * ratio) * (1 + smooth_walk(rng, size, STEP_MM, 20, 0.025))
    sac_v, sac_u = np.maximum(sac_v, ap + 0.9), np.maximum(sac_u, rl + 1.2)
    sac_v, sac_u = sac_v * (1 + 0.6 * above), sac_u * (1 + 0.5 * above)
    bulge, fold = _bulges(rng, along, edges)
    # The sac is flat in front: `flat` of its half axis remains there.
    sac_v = np.maximum(sac_v, (ap + 0.8) / flat)
    room, ahead = sac_v - ap, sac_v * flat - ap
    # The cord lies nearer to the front where the spine bends forward.
    drift = np.interp(level, [1, 4, 8, 13, 19], [0.0, 0.05, 0.1, 0.4, -0.1])
    push = (drift + rng.normal(0, 0.2) + smooth_walk(rng, size, STEP_MM, 50, 0.12)) * room
    front = np.maximum(ahead - bulge * 0.7 - 0.2, -room + 0.31)
    return {
        "cord_ru": rl,
        "cord_rv": ap * (1 - 0.03 * bulge),
        "sac_ru": sac_u,
        "sac_rv": sac_v,
        "bulge": bulge,
        "fold": fold,
        "cord_u": rng.normal(0, 0.3) + smooth_walk(rng, size, STEP_MM, 60, 0.3),
        "cord_v": np.clip(push, -room + 0.3, front),
    }


def _bulges(rng: np.random.Generator, along: Doubles, edges: Doubles) -> tuple[Doubles, Doubles]:
    """Indentation of the sac by discs (front) and ligaments (back), mm."""
    bulge, fold = np.zeros_like(along), np.zeros_like(along)
    worn = rng.random() < 0.5
    for k in range(2, len(edges) - 1):
        size = min(rng.exponential(0.9 if worn and k <= 7 else 0.25), 3.2)
        bulge += size * np.exp(-0.5 * ((along - edges[k]) / rng.uniform(1.8, 3.2)) ** 2)
        size = min(rng.exponential(0.35), 1.6)
        fold += size * np.exp(-0.5 * ((along - edges[k]) / 3.0) ** 2)
    return bulge, fold


def _column(
    rng: np.random.Generator, along: Doubles, level: Doubles, edges: Doubles
) -> dict[str, Doubles]:
    """Vertebrae and discs along s."""
    inner = edges[1:-1]
    nearest = np.argmin(np.abs(along[:, None] - inner[None]), axis=1)
    thickness = _knots(np.arange(1.5, len(inner) + 1), _DISC) * rng.normal(1, 0.12, len(inner))
    centres = (edges[:-1] + edges[1:]) / 2
    own = np.argmin(np.abs(along[:, None] - centres[None]), axis=1)
    marrow = 1 + 0.06 * rng.standard_normal(len(centres))
    water = np.clip(rng.normal(1, 0.35, len(inner)), 0.3, 1.8)
    # The spinous processes differ from one vertebra to the next.
    longer, taller = rng.normal(1, 0.13, len(centres)), rng.normal(1, 0.14, len(centres))
    leaning, aside = rng.normal(0, 0.07, len(centres)), rng.normal(0, 1.1, len(centres))
    return {
        "level": level,
        # mm inside the disc, negative in the vertebra
        "disc": thickness[nearest] / 2 - np.abs(along - inner[nearest]),
        "middle": along - centres[own],  # mm above the middle of the vertebra
        "marrow": marrow[own],
        "water": water[nearest],
        "depth": _knots(level, _BODY_DEPTH) * rng.normal(1, 0.06),
        "width": _knots(level, _BODY_WIDTH) * rng.normal(1, 0.06),
        "spinous": _knots(level, _SPINOUS) * rng.normal(1, 0.1),
        "tilt": _knots(level, _SPINOUS_TILT) * rng.normal(1, 0.15),
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


def _outline(along: Doubles, n: dict[str, float]) -> dict[str, Doubles]:
    """Skin: half axes and centre over s; head above, neck, then shoulders and chest."""
    knots = [-200, -150, -110, -70, -20, 15, 60, 100]
    rl = [n["chest_rl"], n["chest_rl"], n["chest_rl"] * 0.85, n["neck_rl"] * 1.15, n["neck_rl"]]
    rl += [n["neck_rl"] * 1.05, 78, 76]
    ap = [n["chest_ap"], n["chest_ap"] * 0.9, n["chest_ap"] * 0.75, n["neck_ap"] * 1.05]
    ap += [n["neck_ap"], n["neck_ap"] * 1.25, 92, 95]
    back = [48, 46, 44, 44, 44, 48, 62, 70]  # from the canal to the muscles' back
    centre = [a - b - n["nape"] for a, b in zip(ap, back, strict=True)]
    return {
        "skin_ru": np.interp(along, knots, rl),
        "skin_rv": np.interp(along, knots, ap),
        "skin_v": np.interp(along, knots, centre),
    }


def _noise(rng: np.random.Generator) -> dict[str, NoiseField]:
    a, b, c, d = make_tables(rng, 4)
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
