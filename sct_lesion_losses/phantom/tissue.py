"""Signal of every tissue: the spinal canal with the cord and its lesions, and all around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.anatomy import Body, Floats
from sct_lesion_losses.phantom.lesions import Lesions, distance
from sct_lesion_losses.phantom.sites import Contrast, Protocol

RADIUS_MM = 16.0  # the canal and its walls lie inside
Layers = Iterable[tuple[Floats, Floats | float]]  # share of the points that is covered, and colour


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a body, and what is needed to paint them.

    Attributes
    ----------
    body : Body
    protocol : Protocol
    u, v, s : (N,) float32
        Cord coordinates, mm.
    edge_mm : float
        Width of the transition between tissues: about one sampling step.
    """

    body: Body
    protocol: Protocol
    u: Floats
    v: Floats
    s: Floats
    edge_mm: float

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> Points:
        """Return some of the points."""
        return replace(self, u=self.u[chosen], v=self.v[chosen], s=self.s[chosen])

    @property
    def contrast(self) -> Contrast:
        """Signal of the tissues."""
        return self.protocol.contrast

    def noise(self, name: str, *at: Floats) -> Any:
        """Return the values of one of the body's noise fields, (N,) float32, by default here."""
        return self.body.noise[name](*(at or (self.u, self.v, self.s)))

    def cover(self, distance_mm: npt.NDArray[Any], more_mm: float = 0.0) -> Floats:
        """Return the share inside a surface, whose edge is softer than others by `more_mm`."""
        return cover(distance_mm, self.edge_mm + more_mm)


def cover(distance_mm: Floats, edge_mm: float) -> Floats:
    """Share of a point's surroundings inside a surface: 1 inside, 0 outside, linear between.

    Parameters
    ----------
    distance_mm : (...) float32
        Signed distance to the surface, negative inside.
    edge_mm : float
        Width of the transition.
    """
    share = distance_mm * np.float32(-1.0 / edge_mm)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def ellipse_distance(u: Floats, v: Floats, ru: Floats | float, rv: Floats | float) -> Floats:
    """Signed distance, mm, to an ellipse around the origin; exact to first order at its edge."""
    a, b = u / ru, v / rv
    e = np.sqrt(a * a + b * b) + np.float32(1e-4)
    slope = np.hypot(a / ru, b / rv) / e + np.float32(1e-4)
    return np.asarray((e - 1) / slope, np.float32)


def painted(value: Floats, layers: Layers) -> Floats:
    """Lay colours over a signal, one after the other, where and as far as each covers it."""
    value = value.copy()
    for share, colour in layers:
        value += share * (colour - value)
    return value


def canal(p: Points, lesions: Lesions, under: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Paint the content of the canal over the surroundings.

    Parameters
    ----------
    p : Points
    lesions : Lesions
    under : (N,) float32
        Signal of the surroundings.

    Returns
    -------
    signal : (N,) float32
    cord, lesion, pulsating : (N,) float32
        Shares inside cord and lesions, and of pulsating fluid.
    """
    u, v = p.u, p.v
    ru, rv, bulge, fold = p.body.at(p.s, "sac_ru", "sac_rv", "bulge", "fold")
    outer = sac_distance(p.body, ru, rv, u, v)
    front = v - rv * p.body.numbers["flat"] + bulge * np.exp(-u * u / 60)
    back = -v - rv + fold * np.exp(-u * u / 30)
    outer = np.maximum(outer, np.maximum(front, back))
    signal = painted(under, _wall(p, outer))
    fluid = p.cover(outer)
    cord, lesion = np.zeros_like(fluid), np.zeros_like(fluid)
    inside = np.flatnonzero(outer < 0.6)
    signal[inside], cord[inside], lesion[inside] = _content(
        p[inside], lesions, signal[inside], fluid[inside]
    )
    return signal, cord, lesion, fluid * (1 - cord)


def sac_distance(body: Body, ru: Floats, rv: Floats, u: Floats, v: Floats) -> Floats:
    """Signed distance, mm, to an ellipse that is narrower behind than in front."""
    return ellipse_distance(u / (1 + body.numbers["taper"] * np.clip(v / rv, -1, 1)), v, ru, rv)


def _wall(p: Points, outer: Floats) -> Layers:
    """Epidural fat and dura."""
    u, v, c = p.u, p.v, p.contrast
    thick = p.body.numbers["epidural"] * (1 + 0.7 * p.noise("flow"))
    behind = np.exp(-u * u / 18) * np.clip(-0.3 * v, 0, 1)
    beside = np.clip((np.abs(u) - 5) * 0.15, 0, 0.7) * (np.abs(v + 1) < 5)
    layer = np.maximum(thick * np.maximum(behind * 1.15, beside), 0)
    yield p.cover(outer - layer - 0.7), c.cortex * 2
    yield p.cover(outer - layer - 0.2), c.fat * 0.85
    yield p.cover(outer - 0.3), c.cortex * 2.5


def _content(
    p: Points, lesions: Lesions, under: Floats, fluid: Floats
) -> tuple[Floats, Floats, Floats]:
    """Fluid with flow voids and roots, then the cord; return signal, cord and lesion."""
    n = p.body.numbers
    ru, rv, middle_u, middle_v = p.body.at(p.s, "cord_ru", "cord_rv", "cord_u", "cord_v")
    du, dv = p.u - middle_u, p.v - middle_v
    surface = ellipse_distance(du, dv, ru, rv)
    surface += 0.12 * p.noise("surface")
    left = np.exp(np.minimum(p.s, 0) * (-np.log(p.protocol.csf_fall) / 100))
    csf = np.asarray(p.contrast.csf * left, np.float32)
    voids = np.maximum(p.noise("flow") - 0.3, 0)
    voids += np.maximum(p.noise("pulse") - 0.7, 0)
    csf *= np.clip(1 - p.protocol.flow * voids, 0.25, 1)
    csf *= 1 - n["rootlets"] * _roots(p, du, dv)
    # The ventral fissure and the shallow dorsal one: fluid between two lips of the cord.
    depth = rv * n["fissure_depth"]
    lip = n["fissure"] * np.clip((dv - rv + depth) / depth, 0, 1)
    cleft = np.where(dv > rv - depth, np.abs(du) - lip, np.float32(5))
    shallow = np.where(dv < -rv * 0.88, np.abs(du) - 0.15, np.float32(5))
    cord = p.cover(np.maximum(surface, -np.minimum(cleft, shallow)), p.protocol.soft_mm)
    within = np.flatnonzero(surface < 0.5 + 0.5 * p.protocol.soft_mm)
    a, b, radius = (x[within] for x in (du / ru, dv / rv, (ru + rv) * 0.5))
    signal, lesion = painted(under, [(fluid, csf)]), np.zeros_like(fluid)
    colour, lesion[within] = _cord(p[within], lesions, a, b, radius)
    signal[within] += cord[within] * (colour - signal[within])
    hard = (surface < 0).astype(np.float32)
    return signal, hard, lesion * hard


def _roots(p: Points, du: Floats, dv: Floats) -> Floats:
    """Share of rootlets and denticulate ligaments: faint strands that leave the cord."""
    side = np.abs(du)
    dorsal = np.abs(dv + 0.75 * side - 0.5) - 0.35
    ventral = np.abs(dv - 0.7 * side + 0.3) - 0.3
    ligament = np.abs(dv) - 0.2
    here = p.noise("roots", du, dv, p.s + side) > -0.2
    sheet = np.minimum(np.minimum(dorsal, ventral), ligament)
    return np.asarray(cover(sheet, 0.6) * here * (side > 1.2), np.float32)


def _cord(
    p: Points, lesions: Lesions, a: Floats, b: Floats, radius: Floats
) -> tuple[Floats, Floats]:
    """Signal of the cord and whether a lesion covers the point."""
    c, n = p.contrast, p.body.numbers
    texture = p.noise("white") + 0.6 * p.noise("grain")
    signal = np.ones_like(p.u)
    grey = grey_matter_distance(a, b, n["gm_size"]) * radius
    signal += p.cover(grey, 0.8) * (c.gm - 1)
    if lesions.haze > 1:
        spread = np.clip(lesions.spread(p.u, p.v, p.s) + 0.3, 0, 1)
        signal *= 1 + (lesions.haze - 1) * spread
    uneven, aside, stripe, seen = p.body.at(p.s, "uneven", "aside", "stripe", "canal")
    # Truncation of the bright fluid beside a narrow cord leaves a stripe in its middle.
    stripe *= np.exp(-np.square(a * radius * np.float32(1 / 1.8)))
    change = 0.022 * texture + p.protocol.mottle * p.noise("mottle")
    change += p.protocol.uneven * (uneven + 0.3 * a * aside) + p.protocol.stripe * stripe
    signal *= np.exp(change)
    if line := n["canal_line"]:
        signal += 0.8 * (c.csf - 1) * seen * p.cover(np.hypot(a, b) * radius - line)
    gain, inside = lesion_gain(p.body, lesions, p.u, p.v, p.s)
    signal *= 1 + gain
    return signal, inside


def lesion_gain(
    body: Body, lesions: Lesions, u: Floats, v: Floats, s: Floats
) -> tuple[Floats, Floats]:
    """Brightness that lesions add to points of the cord.

    Parameters
    ----------
    body : Body
    lesions : Lesions
    u, v, s : (N,) float32
        Cord coordinates, mm.

    Returns
    -------
    gain : (N,) float32
        Relative to the tissue.
    inside : (N,) float32
        1 where a lesion covers the point, else 0.
    """
    inside, gain = np.zeros_like(u), np.zeros_like(u)
    for item in lesions.items:
        chosen = np.flatnonzero(np.abs(s - np.float32(item.s_mm)) < item.reach_mm)
        here = u[chosen], v[chosen], s[chosen]
        d = distance(item, lesions, body, *here)
        varied = 1 + item.variation * lesions.inner(*here)
        more = cover(d, 2 * item.rim_mm) * (item.ratio - 1) * np.maximum(varied, 0.2)
        gain[chosen] = np.maximum(gain[chosen], more)
        inside[chosen] = np.maximum(inside[chosen], d < 0)
    return gain, inside


def grey_matter_distance(a: Floats, b: Floats, size: float) -> Floats:
    """Signed distance to the grey matter, in cord radii: horns and commissure."""
    x = np.abs(a)
    ventral = _capsule(x, b, (0.14, 0.02), (0.34, 0.40)) - 0.106 * size
    dorsal = _capsule(x, b, (0.14, -0.05), (0.42, -0.68)) - 0.058 * size
    bridge = np.hypot(np.maximum(x - 0.14, 0), b) - 0.05 * size
    return np.asarray(np.minimum(np.minimum(ventral, dorsal), bridge), np.float32)


def _capsule(x: Floats, y: Floats, p: tuple[float, float], q: tuple[float, float]) -> Floats:
    """Distance to the segment from p to q."""
    dx, dy = q[0] - p[0], q[1] - p[1]
    t = ((x - p[0]) * dx + (y - p[1]) * dy) / (dx * dx + dy * dy)
    np.clip(t, 0, 1, out=t)
    return np.hypot(x - p[0] - t * dx, y - p[1] - t * dy)


def surroundings(p: Points) -> Floats:
    """Relative signal, (N,) float32, without the canal's content."""
    u, v, s = p.u, p.v, p.s
    # A smooth shift, so that nothing away from the canal is quite regular.
    far = np.clip(np.sqrt(u * u + v * v) * 0.1 - 0.7, 0, 1.5)
    u, v = u + far * p.noise("bend_u"), v + far * p.noise("bend_v")
    p = replace(p, u=u, v=v)
    value, depth = _soft_tissue(p), _skin_depth(p)
    beside, near = np.abs(u), (np.abs(u) < 26) & (s < 6)
    column = np.full(u.shape, p.body.has_column)
    # One over the other: where each tissue may be, and what paints it there.
    layers: tuple[tuple[npt.NDArray[np.bool_], Callable[[Points], Layers]], ...] = (
        (column & (beside < 42) & (v > -62) & (v < -4), _back),
        ((v > 8) & (beside < 80), _organs),
        (s < -105, _lungs),
        (s > 8, _head),
        (np.ones_like(column), _vessels),
        (column & near & (v > -14) & (v < 14), _pillars),
        (column & near & (v > -48) & (v < 0), _arches),
        (column & near & (v > 2) & (v < 48), _vertebrae),
        (depth > -(p.body.numbers["nape"] + 4), _skin),
    )
    for where, layer in layers:
        chosen = np.flatnonzero(where)
        value[chosen] = painted(value[chosen], layer(p[chosen]))
    value *= p.cover(depth, 0.2)  # the air outside
    return value


def _soft_tissue(p: Points) -> Floats:
    """Muscle in fat septa, with deposits of fat."""
    c, n = p.contrast, p.body.numbers
    grain = p.noise("grain")
    ridge = np.abs(p.noise("septa")) - n["septa"] * (1 + 0.5 * grain)
    ridge *= 7.0
    fine = np.abs(p.noise("septa_fine")) - np.float32(n["septa"]) * np.float32(0.3)
    pockets = p.noise("pockets") - n["deep_fat"]
    share = np.maximum(p.cover(ridge, 0.4), 0.6 * p.cover(fine * 4.0, 0.5))
    share = np.maximum(share, p.cover(pockets * -6.0, 0.5))
    muscle = c.muscle * (1 + 0.07 * grain)
    return painted(muscle, [(share, c.fat * 0.9 * (1 + 0.08 * grain))])


def _back(p: Points) -> Layers:
    """Paraspinal muscles: layers around the spinous processes, parted by thin fat."""
    r = np.sqrt(p.u * p.u * 0.55 + (p.v + 12) ** 2)
    bend = p.noise("skin")
    layer = np.abs(np.sin(r * 0.33 + bend * 2.2)) - 0.12
    share = 0.75 * p.cover(layer * 3.0, 0.3)
    share *= p.noise("septa_fine") > -0.4
    middle = np.abs(p.u + 0.6 * bend)
    share = np.maximum(share, p.cover(middle - 1.3, 0.5) * 0.8)
    yield share, p.contrast.fat * 0.85
    yield p.cover(middle - 0.5), p.contrast.cortex * 2


def _organs(p: Points) -> Layers:
    """Airway with its wall, oesophagus, thyroid, prevertebral muscles and their fat plane."""
    u, v, s, c, n = p.u, p.v, p.s, p.contrast, p.body.numbers
    depth, sac = p.body.at(s, "depth", "sac_rv")
    ahead = v - (sac * n["flat"] + depth + 1.5)  # of the vertebral column
    yield p.cover(np.abs(ahead - 5.5) - 0.7), c.fat
    longus = np.hypot((np.abs(u) - 9) * 0.6, ahead - 3) - 3.2
    yield p.cover(longus, 0.3), c.muscle
    neck = cover(np.abs(s + 65) - 25, 4.0)
    thyroid = np.hypot((np.abs(u) - 16) * 1.2, (ahead - 14) * 0.7)
    yield p.cover(thyroid - 7.5, 0.5) * neck, c.gland
    gullet = np.hypot(u - 3, (ahead - 6) * 1.4) - 5
    yield p.cover(gullet, 0.5) * (s < -70), c.muscle * 1.5
    centre = n["airway_gap"] + n["airway_v"] + 0.06 * np.abs(s + 40)
    wide = 1 + 0.5 * p.noise("pockets", np.zeros_like(u), np.zeros_like(v), s)
    tube = ellipse_distance(u, ahead - centre, n["airway_u"], n["airway_v"] * wide.clip(0.3, 1.6))
    yield p.cover(tube - 2.0) * (s < 22), c.gland * 0.8
    yield p.cover(tube) * (s < 22), 0.01


def _lungs(p: Points) -> Layers:
    """Lungs beside the thoracic spine, with their vessels; the aorta in front."""
    u, v, s = p.u, p.v, p.s
    wall = np.abs(u) - 24 - 2.5 * p.noise("skin")
    inside = np.minimum(np.minimum(wall, -(s + 105)), v + 22)
    chest = -_skin_distance(p) - 28
    share = p.cover(-np.minimum(inside, chest), 0.8)
    yield share, 0.03 + 0.15 * np.maximum(p.noise("septa_fine") - 1.6, 0)
    aorta = np.hypot(u + 14, v - 38) - 11
    yield p.cover(aorta, 0.4) * (s < -140), p.contrast.vessel


def _head(p: Points) -> Layers:
    """Skull base: clivus, cisterns, brain stem and cerebellum above the first vertebra."""
    u, v, s, c = p.u, p.v, p.s, p.contrast
    floor = s - 14 - 0.25 * np.abs(v + 20)
    ring = np.maximum(ellipse_distance(u, v + 22, 52, 42), -floor)
    yield p.cover(ring - 5, 0.5), c.bone
    yield p.cover(ring - 1.5, 0.5), c.cortex
    yield p.cover(ring, 0.3), c.csf
    lobe = np.hypot((np.abs(u) - 18) / 24, (v + 28) / 24)
    lobe = np.maximum((lobe - 1) * 20, 20 - s)
    yield p.cover(lobe, 0.5), 1.05 + 0.25 * np.maximum(p.noise("folia"), 0)
    stem = np.hypot(u / 13, (v - 2) / (8 + np.clip(s - 25, 0, 12) * 0.5))
    yield p.cover(np.maximum((stem - 1) * 10, 5 - s)), 1.0


def _vessels(p: Points) -> Layers:
    """Tubes along s; dark where blood flows, else bright."""
    for u0, v0, du, dv, radius, kind in p.body.tubes.tolist():
        across = p.u - u0 - du * p.s
        share, near = np.zeros_like(p.u), np.flatnonzero(np.abs(across) < radius + 2)
        ahead = p.v[near] - v0 - dv * p.s[near]
        share[near] = p.cover(np.hypot(across[near], ahead) - radius, 0.3)
        yield share, p.contrast.vessel if kind < 0.6 else p.contrast.slow


def _pillars(p: Points) -> Layers:
    """Articular pillars and pedicles beside the canal; between them the foramina with a root."""
    u, v, c = p.u, p.v, p.contrast
    sac_u, middle, marrow, disc = p.body.at(p.s - 0.35 * v, "sac_ru", "middle", "marrow", "disc")
    out = np.abs(u) - sac_u - 1.5
    slope = v + 0.25 * out  # the pillars lean backwards
    wide, deep = np.abs(out - 5.5) - 3.0, np.abs(slope + 2) - 5.0
    box = np.hypot(np.maximum(wide, 0), np.maximum(deep, 0)) - 2.8
    box += 0.5 * p.noise("trabecula", u * 0.4, v * 0.4, p.s)
    yield p.cover(box), c.cortex * 1.4
    inner = p.cover(box + 1.1)
    yield inner, c.bone * marrow * (1 + 0.1 * p.noise("trabecula"))
    joint = np.abs(disc + 3.0) - 0.6
    yield inner * p.cover(joint, 0.3) * (v < -1), c.cortex
    gap = np.maximum(np.abs(np.abs(middle) - 8) - 3.2, np.abs(v - 1.5) - 4.0)
    gap = np.maximum(gap, -out - 0.5)
    hole = p.cover(gap, 0.5) * (out < 13)
    yield hole, c.fat * 0.85
    root = np.hypot(gap + 2.6, (v - 1.5) * 0.5) - 1.5
    yield hole * p.cover(root, 0.4), 0.95


def _arches(p: Points) -> Layers:
    """Laminae, flaval ligaments, spinous processes and what lies between them."""
    u, v, c = p.u, p.v, p.contrast
    sac_u, sac_v, length, tilt = p.body.at(p.s, "sac_ru", "sac_rv", "spinous", "tilt")
    back = -v - sac_v  # mm behind the sac
    shifted = p.s + tilt * np.maximum(back, 0) + 2.0
    middle, marrow = p.body.at(shifted, "middle", "marrow")
    roof = sac_distance(p.body, sac_u + 2, sac_v + 2, u, v) * (v < 2)
    lamina = np.maximum(np.abs(roof - 2.6) - 2.6, np.abs(middle) - 6.2)
    lamina = np.where(v < 0, lamina, np.float32(9))
    between = np.maximum(np.abs(roof - 1.5) - 1.8, v + 1)
    yield p.cover(between), c.cortex * 2.2
    strip = np.maximum(np.abs(u) - 5, np.maximum(-back + 5, back - length - 8))
    streak = p.noise("streaks") + 0.7 * p.noise("septa_fine")
    mixed = c.muscle + np.clip(0.45 + 0.4 * streak, 0, 1) * (c.fat * 0.9 - c.muscle)
    yield p.cover(strip, 0.5) * 0.9, mixed
    solid = np.minimum(lamina, _spinous(p, shifted, back, length))
    yield p.cover(solid - 0.4), c.cortex
    yield p.cover(solid + 1.0), c.bone * marrow * (1 + 0.1 * p.noise("trabecula"))


def _spinous(p: Points, shifted: Floats, back: Floats, length: Floats) -> Floats:
    """Signed distance to the spinous processes: rounded, with a club at the end, none alike."""
    names = ("middle", "process_length", "process_height", "process_lean", "process_aside")
    middle, longer, taller, lean, aside = p.body.at(shifted, *names)
    rough = p.noise("pockets", p.u * 1.6, p.v * 1.6, p.s * 3.0)
    end = length * longer - back  # mm before the tip
    club = np.clip(1 - end / 8, 0, 1)
    half = (4.2 + 1.3 * club) * taller + 0.7 * rough
    outside = (
        np.abs(p.u - aside * np.clip(back / 20, 0, 1)) - (2.0 + 1.6 * club),
        np.abs(middle + lean * np.maximum(back, 0)) - half + 0.02 * back,
        np.maximum(4.5 - back, -end - 4),
    )
    rounding = 2.0
    squares: Any = sum(np.square(np.maximum(x + rounding, 0)) for x in outside)
    return np.asarray(np.sqrt(squares) - rounding, np.float32)


def _vertebrae(p: Points) -> Layers:
    """Bodies and discs in front of the canal, their end plates and long ligaments."""
    u, c, n = p.u, p.contrast, p.body.numbers
    sac_v, depth, width = p.body.at(p.s, "sac_rv", "depth", "width")
    ahead = p.v - sac_v * n["flat"] - 0.8  # mm in front of the canal's wall
    slanted = p.s + n["disc_slant"] * (ahead - 8)
    disc, middle, marrow, water = p.body.at(slanted, "disc", "middle", "marrow", "water")
    waist = 0.9 * np.clip(-disc / 7, 0, 1)
    half = depth / 2
    a, b = np.abs(ahead - half) / (half - waist * 0.5), np.abs(u) / (width - waist)
    shape = (np.cbrt(a * a * a + b * b * b) - 1) * 8.0
    inside = p.cover(shape)
    yield p.cover(shape - 1.1), c.cortex
    bone = c.bone * marrow * (1 + 0.07 * p.noise("trabecula"))
    nucleus = cover(shape + 3.0 - disc * 0.3, 3.5)
    pulp = c.disc * water * (0.35 + 0.65 * nucleus)
    vein = np.maximum(np.hypot(middle, u * 0.35) - 1.2, ahead - half)
    content = (
        (p.cover(-disc), pulp),
        (p.cover(vein, 0.4) * 0.5, c.slow),
        (p.cover(np.abs(disc + 0.2) - 0.45) * 0.8, c.cortex),
    )
    yield inside, painted(bone, content)


def _skin_distance(p: Points) -> Floats:
    """Signed distance, mm, to the smooth outline of the body."""
    ru, rv, middle = p.body.at(p.s, "skin_ru", "skin_rv", "skin_v")
    return ellipse_distance(p.u, p.v - middle, ru, rv)


def _skin_depth(p: Points) -> Floats:
    """Signed distance, mm, to the uneven skin."""
    return np.asarray(_skin_distance(p) + 1.8 * p.noise("skin"), np.float32)


def _skin(p: Points) -> Layers:
    """Subcutaneous fat and skin."""
    c, d = p.contrast, _skin_depth(p)
    layer = p.body.numbers["nape"] * np.clip(0.4 - p.v * 0.025, 0.25, 1)
    strand = np.clip(1 - np.abs(p.noise("streaks")) * 4, 0, 1)
    fat = c.fat * (1 - 0.2 * strand + 0.05 * p.noise("septa"))
    yield p.cover(-d - layer, 0.3), fat
    yield p.cover(-d - 1.8, 0.3), c.skin
