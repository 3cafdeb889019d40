"""Signal inside the spinal canal: fat, dura, fluid, roots, cord and its lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.lesions import Lesions, coverage, distance
from sct_lesion_losses.phantom.noise import Floats, cover, ellipse_distance, paint
from sct_lesion_losses.phantom.sites import Contrast

RADIUS_MM = 16.0  # the canal and its walls lie inside


@dataclass(frozen=True, eq=False)
class CanalValues:
    """What :func:`canal` finds at its points, each (N,) float32.

    Attributes
    ----------
    signal : relative signal
    cord, lesion : 1 inside, 0 outside
    pulsating : share of pulsating fluid
    """

    signal: Floats
    cord: Floats
    lesion: Floats
    pulsating: Floats


def canal(
    body: Body,
    contrast: Contrast,
    lesions: Lesions,
    value: Floats,
    u: Floats,
    v: Floats,
    s: Floats,
    edge_mm: float,
    flow: float,
) -> CanalValues:
    """Paint the content of the canal over the surroundings.

    Parameters
    ----------
    value : (N,) float32
        Signal of the surroundings; not changed.
    u, v, s : (N,) float32
        Cord coordinates, mm.
    edge_mm : float
        Width of the transition between tissues.
    flow : float
        Strength of the flow voids in the fluid, 0 to 1.
    """
    index = body.index(s)
    t = {k: body.tables[k].take(index) for k in ("sac_ru", "sac_rv", "bulge", "fold")}
    value = value.copy()
    outer = sac_distance(body, t["sac_ru"], t["sac_rv"], u, v)
    front = v - t["sac_rv"] * np.float32(body.numbers["flat"]) + t["bulge"] * np.exp(-u * u / 60)
    back = -v - t["sac_rv"] + t["fold"] * np.exp(-u * u / 30)
    outer = np.maximum(outer, np.maximum(front, back))
    fluid = _wall(body, contrast, value, outer, u, v, s, edge_mm)
    inside = np.flatnonzero(outer < 0.6)
    cord, lesion = np.zeros_like(value), np.zeros_like(value)
    pulsating = fluid
    if len(inside):
        some = value[inside]
        cord[inside], lesion[inside] = _content(
            body, contrast, lesions, some, u[inside], v[inside], s[inside], fluid[inside],
            edge_mm, flow,
        )  # fmt: skip
        value[inside] = some
        pulsating = fluid * (1 - cord)
    return CanalValues(value, cord, lesion, pulsating)


def sac_distance(body: Body, ru: Floats, rv: Floats, u: Floats, v: Floats) -> Floats:
    """Signed distance, mm, to an ellipse that is narrower behind than in front."""
    taper = np.float32(body.numbers["taper"])
    return ellipse_distance(u / (1 + taper * np.clip(v / rv, -1, 1)), v, ru, rv)


def _wall(
    body: Body,
    c: Contrast,
    value: Floats,
    outer: Floats,
    u: Floats,
    v: Floats,
    s: Floats,
    edge_mm: float,
) -> Floats:
    """Epidural fat and dura; return the share of fluid."""
    thick = np.float32(body.numbers["epidural"]) * (
        1 + np.float32(0.7) * body.noise["flow"](u, v, s)
    )
    behind = np.exp(-u * u / 18) * np.clip(np.float32(-0.3) * v, 0, 1)
    beside = np.clip((np.abs(u) - 5) * np.float32(0.15), 0, 0.7) * (np.abs(v + 1) < 5)
    layer = np.maximum(thick * np.maximum(behind * np.float32(1.15), beside), 0)
    paint(value, cover(outer - layer - np.float32(0.7), edge_mm), np.float32(c.cortex * 2))
    paint(value, cover(outer - layer - np.float32(0.2), edge_mm), np.float32(c.fat * 0.85))
    paint(value, cover(outer - np.float32(0.3), edge_mm), np.float32(c.cortex * 2.5))
    return cover(outer, edge_mm)


def _content(
    body: Body,
    c: Contrast,
    lesions: Lesions,
    value: Floats,
    u: Floats,
    v: Floats,
    s: Floats,
    fluid: Floats,
    edge_mm: float,
    flow: float,
) -> tuple[Floats, Floats]:
    """Fluid with flow voids and roots, then the cord; paint `value`, return cord and lesion."""
    index = body.index(s)
    t = {k: body.tables[k].take(index) for k in ("cord_ru", "cord_rv", "cord_u", "cord_v")}
    du, dv = u - t["cord_u"], v - t["cord_v"]
    surface = ellipse_distance(du, dv, t["cord_ru"], t["cord_rv"])
    surface += np.float32(0.12) * body.noise["surface"](u, v, s)
    csf = np.float32(c.csf) * np.ones_like(value)
    voids = np.maximum(body.noise["flow"](u, v, s) - np.float32(0.3), 0)
    voids += np.maximum(body.noise["pulse"](u, v, s) - np.float32(0.7), 0)
    csf *= np.clip(1 - np.float32(flow) * voids, 0.25, 1)
    _roots(body, csf, du, dv, s, surface)
    paint(value, fluid, csf)
    # The ventral fissure and the shallow dorsal one: fluid between two lips of the cord.
    n = body.numbers
    depth = t["cord_rv"] * np.float32(n["fissure_depth"])
    lip = np.float32(n["fissure"]) * np.clip((dv - t["cord_rv"] + depth) / depth, 0, 1)
    cleft = np.where(dv > t["cord_rv"] - depth, np.abs(du) - lip, np.float32(5))
    shallow = np.where(dv < -t["cord_rv"] * np.float32(0.88), np.abs(du) - 0.15, np.float32(5))
    tissue = np.maximum(surface, -np.minimum(cleft, shallow))
    cord = cover(tissue, edge_mm)
    within = np.flatnonzero(surface < 0.5)
    lesion = np.zeros_like(value)
    if len(within):
        p = [x[within] for x in (u, v, s, du / t["cord_ru"], dv / t["cord_rv"])]
        radius = (t["cord_ru"][within] + t["cord_rv"][within]) * np.float32(0.5)
        signal, inside = _cord(body, c, lesions, p[0], p[1], p[2], p[3], p[4], radius, edge_mm)
        value[within] += cord[within] * (signal - value[within])
        lesion[within] = inside
    hard = (surface < 0).astype(np.float32)
    return hard, lesion * hard


def _roots(body: Body, csf: Floats, du: Floats, dv: Floats, s: Floats, surface: Floats) -> None:
    """Rootlets and denticulate ligaments: faint dark strands that leave the cord."""
    strength = np.float32(body.numbers["rootlets"])
    side = np.abs(du)
    dorsal = np.abs(dv + np.float32(0.75) * side - np.float32(0.5)) - np.float32(0.35)
    ventral = np.abs(dv - np.float32(0.7) * side + np.float32(0.3)) - np.float32(0.3)
    ligament = np.abs(dv) - np.float32(0.2)
    here = body.noise["roots"](du, dv, s + side) > -0.2
    sheet = np.minimum(np.minimum(dorsal, ventral), ligament)
    csf *= 1 - strength * cover(sheet, 0.6) * here * (side > 1.2)


def _cord(
    body: Body,
    c: Contrast,
    lesions: Lesions,
    u: Floats,
    v: Floats,
    s: Floats,
    a: Floats,
    b: Floats,
    radius: Floats,
    edge_mm: float,
) -> tuple[Floats, Floats]:
    """Signal of the cord and whether a lesion covers the point."""
    texture = body.noise["white"](u, v, s) + np.float32(0.6) * body.noise["grain"](u, v, s)
    signal = np.ones_like(u)
    signal += cover(grey_matter_distance(a, b, body.numbers["gm_size"]) * radius, edge_mm + 0.3) * (
        c.gm - 1
    )
    if lesions.haze > 1:
        spread = np.clip(lesions.spread(u, v, s) + np.float32(0.3), 0, 1)
        signal *= 1 + np.float32(lesions.haze - 1) * spread
    signal *= 1 + np.float32(0.022) * texture
    line = body.numbers["canal_line"]
    if line:
        signal += np.float32(0.8 * (c.csf - 1)) * cover(
            np.hypot(a, b) * radius - np.float32(line), edge_mm
        )
    inside = np.zeros_like(u)
    gain = np.zeros_like(u)
    for item in lesions.items:
        reach = item.half_length_mm * 1.6 + 1
        chosen = np.flatnonzero(np.abs(s - np.float32(item.s_mm)) < reach)
        if not len(chosen):
            continue
        p = [x[chosen] for x in (a, b, s, u, v, radius)]
        d = distance(item, lesions, *p)
        varied = 1 + np.float32(item.variation) * lesions.inner(p[3], p[4], p[2])
        more = coverage(item, d) * np.float32(item.ratio - 1) * np.maximum(varied, 0.2)
        gain[chosen] = np.maximum(gain[chosen], more)
        inside[chosen] = np.maximum(inside[chosen], d < 0)
    signal *= 1 + gain
    return signal, inside


def grey_matter_distance(a: Floats, b: Floats, size: float) -> Floats:
    """Signed distance to the grey matter, in cord radii: horns and commissure."""
    x = np.abs(a)
    ventral = _capsule(x, b, (0.14, 0.02), (0.34, 0.40)) - np.float32(0.106 * size)
    dorsal = _capsule(x, b, (0.14, -0.05), (0.42, -0.68)) - np.float32(0.058 * size)
    bridge = np.hypot(np.maximum(x - np.float32(0.14), 0), b) - np.float32(0.05 * size)
    result: Floats = np.minimum(np.minimum(ventral, dorsal), bridge)
    return result


def _capsule(x: Floats, y: Floats, p: tuple[float, float], q: tuple[float, float]) -> Floats:
    """Distance to the segment from p to q."""
    dx, dy = q[0] - p[0], q[1] - p[1]
    t = ((x - np.float32(p[0])) * np.float32(dx) + (y - np.float32(p[1])) * np.float32(dy)) / (
        np.float32(dx * dx + dy * dy)
    )
    np.clip(t, 0, 1, out=t)
    result: Floats = np.hypot(
        x - np.float32(p[0]) - t * np.float32(dx), y - np.float32(p[1]) - t * np.float32(dy)
    )
    return result
