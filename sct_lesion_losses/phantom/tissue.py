"""Signal of everything around the spinal canal: column, muscle, fat, organs, skin, air."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.canal import sac_distance
from sct_lesion_losses.phantom.noise import Floats, cover, ellipse_distance, paint
from sct_lesion_losses.phantom.sites import Contrast

Part = Callable[[Body, Contrast, Floats, Floats, Floats, Floats, float], None]


def surroundings(
    body: Body,
    contrast: Contrast,
    u: Floats,
    v: Floats,
    s: Floats,
    edge_mm: float,
    *,
    with_column: bool = True,
) -> Floats:
    """Relative signal at points in cord coordinates, without the canal's content.

    Parameters
    ----------
    u, v, s : (N,) float32
        Cord coordinates, mm.
    edge_mm : float
        Width of the transition between tissues: about one sampling step.
    with_column : bool
        False leaves out the spine, for scans of another part of the body.

    Returns
    -------
    (N,) float32
    """
    u, v = _bent(body, u, v, s)
    value = _soft_tissue(body, contrast, u, v, s, edge_mm)
    if with_column:
        _where(
            (np.abs(u) < 42) & (v > -62) & (v < -4), _back, body, contrast, value, u, v, s, edge_mm
        )
    _where((v > 8) & (np.abs(u) < 80), _organs, body, contrast, value, u, v, s, edge_mm)
    _where(s < -105, _lungs, body, contrast, value, u, v, s, edge_mm)
    _where(s > 8, _head, body, contrast, value, u, v, s, edge_mm)
    _vessels(body, contrast, value, u, v, s, edge_mm)
    if with_column:
        near = (np.abs(u) < 26) & (s < 6)
        _where(near & (v > -14) & (v < 14), _pillars, body, contrast, value, u, v, s, edge_mm)
        _where(near & (v > -48) & (v < 0), _arches, body, contrast, value, u, v, s, edge_mm)
        _where(near & (v > 2) & (v < 48), _vertebrae, body, contrast, value, u, v, s, edge_mm)
    _skin(body, contrast, value, u, v, s, edge_mm)
    return value


def _bent(body: Body, u: Floats, v: Floats, s: Floats) -> tuple[Floats, Floats]:
    """Coordinates with a smooth shift, so that nothing away from the canal is quite regular."""
    far = np.clip(np.sqrt(u * u + v * v) * np.float32(0.1) - np.float32(0.7), 0, 1.5)
    shifted_u = u + far * body.noise["bend_u"](u, v, s)
    shifted_v = v + far * body.noise["bend_v"](u, v, s)
    return shifted_u, shifted_v


def _where(
    mask: npt.NDArray[np.bool_],
    part: Part,
    body: Body,
    contrast: Contrast,
    value: Floats,
    u: Floats,
    v: Floats,
    s: Floats,
    edge_mm: float,
) -> None:
    """Let `part` paint the chosen points only."""
    chosen = np.flatnonzero(mask)
    if len(chosen):
        some = value[chosen]
        part(body, contrast, some, u[chosen], v[chosen], s[chosen], edge_mm)
        value[chosen] = some


def _tables(body: Body, s: Floats, *names: str) -> list[Any]:
    index = body.index(s)
    return [body.tables[name].take(index) for name in names]


def _soft_tissue(
    body: Body, c: Contrast, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> Floats:
    """Muscle in fat septa, with deposits of fat."""
    noise = body.noise
    grain = noise["grain"](u, v, s)
    value: Floats = np.float32(c.muscle) * (1 + np.float32(0.07) * grain)
    width = np.float32(body.numbers["septa"])
    ridge = np.abs(noise["septa"](u, v, s)) - width * (1 + np.float32(0.5) * grain)
    ridge *= np.float32(7.0)
    share = cover(ridge, edge_mm + 0.4)
    fine = np.abs(noise["septa_fine"](u, v, s)) - width * np.float32(0.3)
    share = np.maximum(share, np.float32(0.6) * cover(fine * np.float32(4.0), edge_mm + 0.5))
    pockets = noise["pockets"](u, v, s) - np.float32(body.numbers["deep_fat"])
    share = np.maximum(share, cover(pockets * np.float32(-6.0), edge_mm + 0.5))
    paint(value, share, np.float32(c.fat * 0.9) * (1 + np.float32(0.08) * grain))
    return value


def _back(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Paraspinal muscles: layers around the spinous processes, parted by thin fat."""
    r = np.sqrt(u * u * np.float32(0.55) + (v + 12) ** 2)
    bend = body.noise["skin"](u, v, s)
    layer = np.abs(np.sin(r * np.float32(0.33) + bend * np.float32(2.2))) - np.float32(0.12)
    share = np.float32(0.75) * cover(layer * np.float32(3.0), edge_mm + 0.3)
    share *= body.noise["septa_fine"](u, v, s) > -0.4
    midline = np.abs(u + np.float32(0.6) * bend) - np.float32(1.3)
    share = np.maximum(share, cover(midline, edge_mm + 0.5) * np.float32(0.8))
    paint(value, share, np.float32(c.fat * 0.85))
    nuchal = np.abs(u + np.float32(0.6) * bend) - np.float32(0.5)
    paint(value, cover(nuchal, edge_mm), np.float32(c.cortex * 2))


def _organs(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Airway with its wall, oesophagus, thyroid, prevertebral muscles and their fat plane."""
    n = body.numbers
    depth, sac = _tables(body, s, "depth", "sac_rv")
    behind = (
        sac * np.float32(body.numbers["flat"]) + depth + np.float32(1.5)
    )  # front of the vertebral column
    ahead = v - behind
    paint(value, cover(np.abs(ahead - np.float32(5.5)) - np.float32(0.7), edge_mm), c.fat)
    longus = np.hypot((np.abs(u) - 9) * np.float32(0.6), ahead - 3) - np.float32(3.2)
    paint(value, cover(longus, edge_mm + 0.3), np.float32(c.muscle))
    neck = cover(np.abs(s + 65) - np.float32(25), 4.0)
    thyroid = np.hypot((np.abs(u) - 16) * np.float32(1.2), (ahead - 14) * np.float32(0.7))
    paint(value, cover(thyroid - np.float32(7.5), edge_mm + 0.5) * neck, np.float32(c.gland))
    gullet = np.hypot(u - 3, (ahead - 6) * np.float32(1.4)) - np.float32(5)
    paint(value, cover(gullet, edge_mm + 0.5) * (s < -70), np.float32(c.muscle * 1.5))
    centre = np.float32(n["airway_gap"] + n["airway_v"]) + np.float32(0.06) * np.abs(s + 40)
    ru = np.full_like(u, n["airway_u"])
    rv = np.full_like(u, n["airway_v"]) * (
        1 + np.float32(0.5) * body.noise["pockets"](np.zeros_like(u), np.zeros_like(v), s)
    ).clip(0.3, 1.6)
    tube = ellipse_distance(u, ahead - centre, ru, rv)
    open_ = s < 22
    paint(value, cover(tube - np.float32(2.0), edge_mm) * open_, np.float32(c.gland * 0.8))
    paint(value, cover(tube, edge_mm) * open_, np.float32(0.01))


def _lungs(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Lungs beside the thoracic spine, with their vessels; the aorta in front."""
    wall = np.abs(u) - np.float32(24) - np.float32(2.5) * body.noise["skin"](u, v, s)
    top = s + np.float32(105)
    inside = np.minimum(np.minimum(wall, -top), v + 22)
    ru, rv, vc = _tables(body, s, "skin_ru", "skin_rv", "skin_v")
    chest = -ellipse_distance(u, v - vc, ru, rv) - np.float32(28)
    share = cover(-np.minimum(inside, chest), edge_mm + 0.8)
    vessels = np.maximum(body.noise["septa_fine"](u, v, s) - np.float32(1.6), 0)
    paint(value, share, np.float32(0.03) + np.float32(0.15) * vessels)
    aorta = np.hypot(u + 14, v - 38) - np.float32(11)
    paint(value, cover(aorta, edge_mm + 0.4) * (s < -140), np.float32(c.vessel))


def _head(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Skull base: clivus, cisterns, brain stem and cerebellum above the first vertebra."""
    floor = s - np.float32(14) - np.float32(0.25) * np.abs(v + 20)
    ring = np.maximum(ellipse_distance(u, v + 22, np.full_like(u, 52), np.full_like(v, 42)), -floor)
    paint(value, cover(ring - np.float32(5), edge_mm + 0.5), np.float32(c.bone))
    paint(value, cover(ring - np.float32(1.5), edge_mm + 0.5), np.float32(c.cortex))
    paint(value, cover(ring, edge_mm + 0.3), np.float32(c.csf))
    lobe = np.hypot((np.abs(u) - 18) / 24, (v + 28) / 24)
    lobe = np.maximum((lobe - 1) * 20, np.float32(20) - s)
    folia = body.noise["folia"](u, v, s)
    brain = np.float32(1.05) + np.float32(0.25) * np.maximum(folia, 0)
    paint(value, cover(lobe, edge_mm + 0.5), brain)
    stem = np.hypot(u / 13, (v - 2) / (8 + np.clip(s - 25, 0, 12) * np.float32(0.5)))
    stem = np.maximum((stem - 1) * 10, np.float32(5) - s)
    paint(value, cover(stem, edge_mm), np.float32(1.0))


def _vessels(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Tubes along s; dark where blood flows, else bright."""
    for u0, v0, du, dv, radius, kind in body.tubes.tolist():
        across = u - np.float32(u0) - np.float32(du) * s
        chosen = np.flatnonzero(np.abs(across) < radius + 2)
        if not len(chosen):
            continue
        ahead = v[chosen] - np.float32(v0) - np.float32(dv) * s[chosen]
        share = cover(np.hypot(across[chosen], ahead) - np.float32(radius), edge_mm + 0.3)
        colour = c.vessel if kind < 0.6 else c.slow
        value[chosen] += share * (np.float32(colour) - value[chosen])


def _pillars(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Articular pillars and pedicles beside the canal; between them the foramina with a root."""
    sac_u, middle, marrow, disc = _tables(
        body, s - np.float32(0.35) * v, "sac_ru", "middle", "marrow", "disc"
    )
    out = np.abs(u) - sac_u - np.float32(1.5)
    slope = v + np.float32(0.25) * out  # the pillars lean backwards
    wide, deep = np.abs(out - 5.5) - np.float32(3.0), np.abs(slope + 2) - np.float32(5.0)
    box = np.hypot(np.maximum(wide, 0), np.maximum(deep, 0)) - np.float32(2.8)
    box += np.float32(0.5) * body.noise["trabecula"](u * np.float32(0.4), v * np.float32(0.4), s)
    solid = cover(box, edge_mm)
    grain = body.noise["trabecula"](u, v, s)
    paint(value, solid, np.float32(c.cortex * 1.4))
    inner = cover(box + np.float32(1.1), edge_mm)
    paint(value, inner, np.float32(c.bone) * marrow * (1 + np.float32(0.1) * grain))
    joint = np.abs(disc + np.float32(3.0)) - np.float32(0.6)
    paint(value, inner * cover(joint, edge_mm + 0.3) * (v < -1), np.float32(c.cortex))
    gap = np.abs(np.abs(middle) - 8) - np.float32(3.2)
    gap = np.maximum(gap, np.abs(v - 1.5) - np.float32(4.0))
    gap = np.maximum(gap, -out - np.float32(0.5))
    hole = cover(gap, edge_mm + 0.5) * (out < 13)
    paint(value, hole, np.float32(c.fat * 0.85))
    root = np.hypot(gap + np.float32(2.6), (v - 1.5) * np.float32(0.5)) - np.float32(1.5)
    paint(value, hole * cover(root, edge_mm + 0.4), np.float32(0.95))


def _arches(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Laminae, flaval ligaments, spinous processes and what lies between them."""
    sac_u, sac_v, length, tilt = _tables(body, s, "sac_ru", "sac_rv", "spinous", "tilt")
    back = -v - sac_v  # mm behind the sac
    shifted = s + tilt * np.maximum(back, 0) + np.float32(2.0)
    middle, marrow = _tables(body, shifted, "middle", "marrow")
    tall = np.abs(middle)
    roof = sac_distance(body, sac_u + 2, sac_v + 2, u, v) * (v < 2)
    lamina = np.maximum(np.abs(roof - np.float32(2.6)) - np.float32(2.6), tall - np.float32(6.2))
    lamina = np.where(v < 0, lamina, np.float32(9))
    between = np.maximum(np.abs(roof - np.float32(1.5)) - np.float32(1.8), v + 1)
    paint(value, cover(between, edge_mm), np.float32(c.cortex * 2.2))
    grain = body.noise["trabecula"](u, v, s)
    bone = np.float32(c.bone) * marrow * (1 + np.float32(0.1) * grain)
    ridge = np.abs(u) - np.float32(5)
    strip = np.maximum(ridge, np.maximum(-back + 5, back - length - 8))
    streak = body.noise["streaks"](u, v, s) + np.float32(0.7) * body.noise["septa_fine"](u, v, s)
    mixed = np.float32(c.muscle) + np.clip(np.float32(0.45) + np.float32(0.4) * streak, 0, 1) * (
        np.float32(c.fat * 0.9 - c.muscle)
    )
    paint(value, cover(strip, edge_mm + 0.5) * np.float32(0.9), mixed)
    process = _spinous(body, u, v, s, shifted, back, length)
    solid = np.minimum(lamina, process)
    paint(value, cover(solid - np.float32(0.4), edge_mm), np.float32(c.cortex))
    paint(value, cover(solid + np.float32(1.0), edge_mm), bone)


def _spinous(
    body: Body, u: Floats, v: Floats, s: Floats, shifted: Floats, back: Floats, length: Floats
) -> Floats:
    """Signed distance to the spinous processes: rounded, with a club at the end, none alike."""
    names = ("middle", "process_length", "process_height", "process_lean", "process_aside")
    middle, longer, taller, lean, aside = _tables(body, shifted, *names)
    rough = body.noise["pockets"](u * np.float32(1.6), v * np.float32(1.6), s * np.float32(3.0))
    end = length * longer - back  # mm before the tip
    club = np.clip(1 - end / 8, 0, 1)
    half = (np.float32(4.2) + np.float32(1.3) * club) * taller + np.float32(0.7) * rough
    thick = np.float32(2.0) + np.float32(1.6) * club
    beside = u - aside * np.clip(back / 20, 0, 1)
    outside = (
        np.abs(beside) - thick,
        np.abs(middle + lean * np.maximum(back, 0)) - half + np.float32(0.02) * back,
        np.maximum(np.float32(4.5) - back, -end - np.float32(4)),
    )
    rounding = np.float32(2.0)
    squares = sum(np.square(np.maximum(x + rounding, 0)) for x in outside)
    result: Floats = np.sqrt(np.asarray(squares, np.float32)) - rounding
    return result


def _vertebrae(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Bodies and discs in front of the canal, their end plates and long ligaments."""
    sac_v, depth, width = _tables(body, s, "sac_rv", "depth", "width")
    ahead = (
        v - sac_v * np.float32(body.numbers["flat"]) - np.float32(0.8)
    )  # mm in front of the canal's wall
    slanted = s + np.float32(body.numbers["disc_slant"]) * (ahead - 8)
    disc, middle, marrow, water = _tables(body, slanted, "disc", "middle", "marrow", "water")
    waist = np.float32(0.9) * np.clip(-disc / 7, 0, 1)
    half = depth / 2
    a = np.abs(ahead - half) / (half - waist * np.float32(0.5))
    b = np.abs(u) / (width - waist)
    shape = (np.cbrt(a * a * a + b * b * b) - 1) * np.float32(8.0)
    inside = cover(shape, edge_mm)
    paint(value, cover(shape - np.float32(1.1), edge_mm), np.float32(c.cortex))
    grain = body.noise["trabecula"](u, v, s)
    bone = np.float32(c.bone) * marrow * (1 + np.float32(0.07) * grain)
    nucleus = cover(shape + np.float32(3.0) - disc * np.float32(0.3), 3.5)
    pulp = np.float32(c.disc) * water * (np.float32(0.35) + np.float32(0.65) * nucleus)
    content = bone + cover(-disc, edge_mm) * (pulp - bone)
    plate = cover(np.abs(disc + np.float32(0.2)) - np.float32(0.45), edge_mm)
    vein = np.hypot(middle, u * np.float32(0.35)) - np.float32(1.2)
    vein = np.maximum(vein, ahead - half)
    paint(content, cover(vein, edge_mm + 0.4) * np.float32(0.5), np.float32(c.slow))
    paint(content, plate * np.float32(0.8), np.float32(c.cortex))
    paint(value, inside, content)


def _skin(
    body: Body, c: Contrast, value: Floats, u: Floats, v: Floats, s: Floats, edge_mm: float
) -> None:
    """Subcutaneous fat, skin, and the air outside."""
    ru, rv, vc = _tables(body, s, "skin_ru", "skin_rv", "skin_v")
    depth = ellipse_distance(u, v - vc, ru, rv)
    depth += np.float32(1.8) * body.noise["skin"](u, v, s)
    chosen = np.flatnonzero(depth > -np.float32(body.numbers["nape"] + 4))
    if not len(chosen):
        return
    d, some = depth[chosen], value[chosen]
    behind: Floats = np.clip(np.float32(0.4) - v[chosen] * np.float32(0.025), 0.25, 1)
    layer = np.float32(body.numbers["nape"]) * behind
    where = [x[chosen] for x in (u, v, s)]
    strand = np.clip(1 - np.abs(body.noise["streaks"](*where)) * np.float32(4), 0, 1)
    lobule = body.noise["septa"](*where)
    fat = np.float32(c.fat) * (1 - np.float32(0.2) * strand + np.float32(0.05) * lobule)
    paint(some, cover(-d - layer, edge_mm + 0.3), fat)
    paint(some, cover(-d - np.float32(1.8), edge_mm + 0.3), np.float32(c.skin))
    some *= cover(d, edge_mm + 0.2)
    value[chosen] = some
