"""How a scan is stored: axis order, scale and data type."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.geometry.grid import Grid, Reorientation


@dataclass(frozen=True)
class Contrast:
    """Relative signal of each tissue; white matter of the cord is 1, air is 0."""

    gm: float = 1.09
    csf: float = 2.8
    muscle: float = 0.4
    bone: float = 0.65
    disc: float = 0.8
    fat: float = 1.75
    cortex: float = 0.2  # cortical bone, ligaments, dura
    skin: float = 0.6
    gland: float = 1.0
    vessel: float = 0.15  # flowing blood
    slow: float = 1.3  # slowly flowing blood


# Lower and upper bound of every value, for any scan.
_BOUNDS = {
    "gm": (1.03, 1.16),
    "csf": (1.9, 3.9),
    "muscle": (0.12, 0.7),
    "bone": (0.2, 1.1),
    "disc": (0.25, 1.4),
    "fat": (0.4, 3.0),
    "cortex": (0.05, 0.3),
    "skin": (0.3, 1.2),
    "gland": (0.5, 1.6),
    "vessel": (0.05, 0.5),
    "slow": (0.6, 2.6),
}
_FAT_SATURATED = 0.08


def jittered(rng: np.random.Generator, base: Contrast, sd: float = 0.1) -> Contrast:
    """Contrast of one scan of a site: every value off by a log-normal factor, within bounds."""
    values = {}
    for f in fields(Contrast):
        spread = sd * 0.35 if f.name == "gm" else sd
        value = getattr(base, f.name) * rng.lognormal(0, spread)
        values[f.name] = float(np.clip(value, *_BOUNDS[f.name]))
    return Contrast(**values)


def any_contrast(rng: np.random.Generator) -> Contrast:
    """Contrast from the whole range of T2-weighted sequences, fat saturation included."""
    values = {}
    for f in fields(Contrast):
        low, high = _BOUNDS[f.name]
        values[f.name] = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    values["csf"] = float(rng.uniform(1.5, 4.5))
    values["gm"] = float(rng.uniform(1.0, 1.3))
    # Marrow is part fat: the two go together.
    values["bone"] = float(np.clip(values["fat"] * rng.uniform(0.25, 0.75), 0.15, 1.2))
    contrast = Contrast(**values)
    if rng.random() < _FAT_SATURATED:
        return saturated(rng, contrast)
    return contrast


def saturated(rng: np.random.Generator, contrast: Contrast) -> Contrast:
    """Return the same contrast with the fat suppressed, as in STIR."""
    return replace(
        contrast,
        fat=float(rng.uniform(0.08, 0.35)),
        bone=float(rng.uniform(0.1, 0.3)),
        muscle=float(rng.uniform(0.3, 0.6)),
    )


Plane = Literal["sagittal", "axial", "3d"]

ORIENTATIONS = ("PIR", "PSR", "AIL", "ASR", "PIL", "LAS", "RPI", "LPI", "RAS")
DTYPES = ("int16", "uint16", "float32", "int16-scaled")


@dataclass(frozen=True)
class Site:
    """How one hospital scans.

    Attributes
    ----------
    name, manufacturer : str
    tesla : float
    plane : {"sagittal", "axial", "3d"}
    pixel_mm, slice_mm, gap : float
        Spacing in plane, slice thickness, and gap as a share of the thickness.
    spans : tuple of str
        Parts of the cord that are scanned there.
    matrix : float
        Acquired share of k-space along the first axis in plane; the second has 1 to 1.3 times that.
    snr, scale : float
        Signal to noise in white matter, and stored value of white matter.
    dtype, orientation : str
    contrast : Contrast
    """

    name: str
    manufacturer: str
    tesla: float
    plane: Plane
    pixel_mm: float
    slice_mm: float
    gap: float
    spans: tuple[str, ...]
    matrix: float
    snr: float
    scale: float
    dtype: str
    orientation: str
    contrast: Contrast


_C, _CT, _T = "cervical", "cervicothoracic", "thoracic"


def _contrast(csf: float, fat: float, muscle: float, bone: float, disc: float) -> Contrast:
    return Contrast(csf=csf, fat=fat, muscle=muscle, bone=bone, disc=disc)


SITES: tuple[Site, ...] = (
    Site("A", "Siemens", 3.0, "sagittal", 0.55, 2.8, 0.10, (_C, _C, _CT), 0.80, 14, 320, "int16",
         "PIR", _contrast(3.3, 1.8, 0.45, 0.54, 0.8)),
    Site("B", "Siemens", 1.5, "sagittal", 0.62, 3.0, 0.10, (_C, _CT), 0.75, 11, 260, "int16",
         "PSR", _contrast(3.1, 1.7, 0.50, 0.58, 0.9)),
    Site("C", "Philips", 3.0, "sagittal", 0.45, 2.7, 0.05, (_C, _CT, _T), 0.70, 12, 900,
         "int16-scaled", "PIL", _contrast(3.4, 1.6, 0.35, 0.45, 0.7)),
    Site("D", "GE", 3.0, "sagittal", 0.47, 3.0, 0.15, (_CT, _T), 0.65, 13, 1500, "int16",
         "AIL", _contrast(2.7, 1.9, 0.53, 0.60, 0.6)),
    Site("E", "GE", 1.5, "sagittal", 0.70, 2.9, 0.12, (_C,), 0.80, 10, 700, "uint16",
         "ASR", _contrast(2.9, 1.8, 0.47, 0.62, 0.75)),
    Site("F", "Philips", 1.5, "sagittal", 0.60, 2.75, 0.0, (_C, _T), 0.90, 9, 420,
         "float32", "PIR", _contrast(2.7, 1.9, 0.41, 0.50, 1.1)),
    Site("G", "Siemens", 3.0, "sagittal", 0.68, 2.5, 0.0, (_C, _CT), 1.0, 16, 180, "int16",
         "PSR", _contrast(3.6, 1.2, 0.29, 0.40, 0.55)),
    Site("H", "Canon", 1.5, "sagittal", 0.58, 3.0, 0.10, (_C,), 0.80, 9, 1200, "int16",
         "PIR", _contrast(2.4, 1.7, 0.57, 0.60, 0.85)),
    Site("I", "Siemens", 1.5, "sagittal", 0.78, 2.6, 0.10, (_CT, _T), 0.85, 12, 90, "uint16",
         "AIL", _contrast(2.8, 1.7, 0.47, 0.52, 0.7)),
    Site("J", "Philips", 3.0, "axial", 0.55, 4.0, 0.08, (_C,), 0.90, 15, 850, "float32",
         "RPI", _contrast(3.0, 2.0, 0.55, 0.92, 0.9)),
    Site("K", "GE", 3.0, "axial", 0.62, 4.4, 0.0, (_C,), 0.90, 17, 1700, "int16",
         "LPI", _contrast(3.3, 2.2, 0.60, 1.00, 0.9)),
    Site("L", "Siemens", 3.0, "axial", 0.66, 3.4, 0.10, (_C,), 0.95, 15, 240, "int16",
         "LAS", _contrast(3.2, 2.1, 0.58, 0.95, 0.85)),
    Site("M", "Siemens", 3.0, "3d", 0.85, 0.85, 0.0, (_C, _CT), 1.0, 12, 200, "int16",
         "AIL", _contrast(3.5, 1.0, 0.29, 0.39, 0.4)),
)  # fmt: skip


def home_site(seed: int, subject: int, sites: int = len(SITES)) -> int:
    """Index into `SITES` of the site where a subject is scanned; consecutive ones take turns."""
    return (subject + seed) % sites


@dataclass(frozen=True)
class Protocol:
    """What is set at the scanner for one scan; lengths in mm, angles in degrees.

    Attributes
    ----------
    plane, orientation, dtype, manufacturer, site : str
    tesla : float
    pixel_mm, slice_mm, gap_mm : float
        Spacing in plane; thickness of a slice; gap to the next.
    fov_mm : (float, float, float)
        Field of view along right-left, front-back and along the body.
    middle_mm : (float, float, float)
        Middle of the field of view in cord coordinates u, v, s.
    tilt : (float, float, float)
        Rotation about the right-left, front-back and vertical axes.
    matrix : (float, float)
        Acquired share of k-space along the first and the second axis in plane.
    smooth : float
        Strength of the k-space filter, 0 to 1.
    snr, scale, flow, ghost : float
    bias, coil_mm : float
        Strength of the smooth intensity change; depth at which the coil has lost 63 %.
    band : float
        Signal left under the saturation band in front; 1 without a band.
    normalised : float
        How far the scanner has evened out the coil's profile, 0 to 1.
    edge : float
        Signal gain or loss at the two ends of the field, relative.
    contrast : Contrast
    """

    plane: Plane
    orientation: str
    dtype: str
    manufacturer: str
    site: str
    tesla: float
    pixel_mm: float
    slice_mm: float
    gap_mm: float
    fov_mm: tuple[float, float, float]
    middle_mm: tuple[float, float, float]
    tilt: tuple[float, float, float]
    matrix: tuple[float, float]
    smooth: float
    snr: float
    scale: float
    flow: float
    ghost: float
    bias: float
    coil_mm: float
    band: float
    normalised: float
    edge: float
    contrast: Contrast


def draw_protocol(rng: np.random.Generator, site: Site) -> Protocol:
    """Protocol of a scan at a site: its table entry with the deviations between scans."""
    span = str(rng.choice(site.spans))
    slice_mm = site.slice_mm * rng.uniform(0.96, 1.04)
    pixel = site.pixel_mm * rng.uniform(0.95, 1.05)
    return _protocol(
        rng,
        plane=site.plane,
        span=span,
        pixel=pixel if site.plane != "3d" else slice_mm,
        slice_mm=slice_mm,
        gap=site.gap,
        identity=(site.orientation, site.dtype, site.manufacturer, site.name, site.tesla),
        matrix=min(1.0, site.matrix * rng.uniform(0.92, 1.08)),
        snr=float(np.clip(site.snr * rng.lognormal(0, 0.15), 8, 18)),
        scale=float(np.clip(site.scale * rng.lognormal(0, 0.2), 80, 1800)),
        contrast=jittered(rng, site.contrast),
    )


def any_protocol(rng: np.random.Generator) -> Protocol:
    """Protocol from the whole range met in practice, for training that must generalise."""
    plane: Plane = ("sagittal", "3d", "axial")[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
    spans = (_C, _C, _CT, _T) if plane == "sagittal" else (_C, _C, _C, _T)
    slice_mm = {
        "sagittal": rng.uniform(2.0, 4.0),
        "axial": rng.uniform(3.0, 7.0),
        "3d": rng.uniform(0.75, 1.15),
    }[plane]
    pixel = slice_mm if plane == "3d" else rng.uniform(0.35, 0.9)
    return _protocol(
        rng,
        plane=plane,
        span=str(rng.choice(spans)),
        pixel=float(pixel),
        slice_mm=float(slice_mm),
        gap=float(rng.choice([0.0, rng.uniform(0, 0.3)])) if plane != "3d" else 0.0,
        identity=(
            str(rng.choice(ORIENTATIONS)), str(rng.choice(DTYPES)), "any", "any",
            float(rng.choice([1.5, 3.0])),
        ),
        matrix=float(rng.uniform(0.55, 1.0)),
        snr=float(np.exp(rng.uniform(np.log(8), np.log(40)))),
        scale=float(np.exp(rng.uniform(np.log(40), np.log(1800)))),
        contrast=any_contrast(rng),
    )  # fmt: skip


def _protocol(
    rng: np.random.Generator,
    *,
    plane: Plane,
    span: str,
    pixel: float,
    slice_mm: float,
    gap: float,
    identity: tuple[str, str, str, str, float],
    matrix: float,
    snr: float,
    scale: float,
    contrast: Contrast,
) -> Protocol:
    u = rng.uniform
    middle_s = {_C: u(-82, -55), _CT: u(-140, -105), _T: u(-270, -210)}[span]
    along = {_C: u(140, 200), _CT: u(225, 280), _T: u(225, 280)}[span]
    if plane == "sagittal":
        fov = (round(u(12, 16)) * slice_mm * (1 + gap), u(130, 190), along)
    elif plane == "3d":
        fov = (u(44, 62), u(120, 170), min(along, 220.0))
    else:
        fov = (u(110, 165),) * 2 + (u(90, 150),)
    wide = 12.0 if plane == "axial" else 3.0
    shift_v = u(-25, 30) if plane != "axial" else u(-15, 25)
    tilts = (rng.normal(0, 6), rng.normal(0, 1.5), rng.normal(0, 1.5))
    return Protocol(
        plane=plane,
        orientation=identity[0],
        dtype=identity[1],
        manufacturer=identity[2],
        site=identity[3],
        tesla=identity[4],
        pixel_mm=pixel,
        slice_mm=slice_mm,
        gap_mm=slice_mm * gap,
        fov_mm=(float(fov[0]), float(fov[1]), float(fov[2])),
        middle_mm=(float(np.clip(rng.normal(0, wide / 2), -wide, wide)), float(shift_v), middle_s),
        tilt=tuple(np.clip(tilts, -15, 15).tolist()),
        matrix=(matrix, min(1.0, matrix * u(1.0, 1.3))),
        smooth=float(rng.choice([0.0, u(0, 1)])),
        snr=snr,
        scale=scale,
        flow=float(u(0.05, 0.45)) if plane != "3d" else float(u(0.0, 0.35)),
        ghost=float(u(0.0, 0.05)),
        bias=float(u(0.05, 0.3)),
        coil_mm=float(u(60, 200)),
        band=float(u(0.05, 0.4)) if plane == "sagittal" and rng.random() < 0.4 else 1.0,
        normalised=float(rng.choice([0.0, u(0.3, 1.0)])),
        edge=float(rng.normal(0, 0.2)),
        contrast=contrast,
    )


# Where a field of view without a cord lies, and how often.
_BESIDE_CANAL, _BESIDE_SPINE, _WITHOUT_SPINE, _NOISE = range(4)
_SHARES = (0.35, 0.3, 0.25, 0.1)


def tiny(protocol: Protocol) -> Protocol:
    """Return a small isotropic scan around the cord, at least 24 mm across and 34 mm long."""
    return replace(
        protocol, plane="3d", pixel_mm=0.8, slice_mm=0.8, gap_mm=0.0, fov_mm=(28.8, 28.8, 38.4),
        middle_mm=(0.0, 0.0, -65.0), tilt=(0.0, 0.0, 0.0),
    )  # fmt: skip


def cropped(rng: np.random.Generator, protocol: Protocol) -> Protocol:
    """Cut the field of view of a part of the scans, as users do before processing."""
    if rng.random() > 0.3:
        return protocol
    x, y, z = protocol.fov_mm
    x = min(x, float(rng.uniform(26, 55)))
    y = min(y, float(rng.uniform(45, 110)))
    z = min(z, float(rng.uniform(50, 120)))
    u, v, s = protocol.middle_mm
    u = float(np.clip(u, -x / 2 + 8, x / 2 - 8))
    v = float(np.clip(v, -y / 2 + 14, y / 2 - 14))
    return replace(protocol, fov_mm=(x, y, z), middle_mm=(u, v, s + float(rng.uniform(-25, 25))))


def elsewhere(rng: np.random.Generator, protocol: Protocol) -> tuple[Protocol, bool]:
    """Move the field of view where no cord is; also return whether the spine is drawn.

    Beside the canal, in the tissue beside the spine, in a part of the body without spine, or
    nothing but noise.
    """
    kind = int(rng.choice(4, p=_SHARES))
    x, y, z = min(protocol.fov_mm[0], 60.0), protocol.fov_mm[1], protocol.fov_mm[2]
    side, (_, v, s) = float(rng.choice([-1, 1])), protocol.middle_mm
    gap = float(rng.uniform(20, 30)) if kind == _BESIDE_CANAL else float(rng.uniform(12, 30))
    if kind == _NOISE:
        return replace(protocol, snr=0.02, scale=protocol.scale * 0.02), False
    if kind == _WITHOUT_SPINE:
        return protocol, False
    moved = replace(
        protocol, fov_mm=(x, y, z), middle_mm=(side * (x / 2 + gap), v, s), tilt=(0.0, 0.0, 0.0)
    )
    return moved, kind == _BESIDE_CANAL


_ARRIVED = {"R": ("x", 1), "L": ("x", -1), "P": ("y", 1), "A": ("y", -1), "I": ("z", 1),
            "S": ("z", -1)}  # fmt: skip


def stored_grid(grid: Grid, orientation: str) -> tuple[Grid, Reorientation]:
    """Grid in the stored orientation, and the reorientation from there to RPI."""
    order = [_ARRIVED[letter] for letter in orientation]
    names = [name for name, _ in order]
    axes = (names.index("x"), names.index("y"), names.index("z"))
    flips = (order[axes[0]][1] < 0, order[axes[1]][1] < 0, order[axes[2]][1] < 0)
    move = np.zeros((4, 4))
    move[3, 3] = 1.0
    shape = [0, 0, 0]
    for k in range(3):
        shape[axes[k]] = grid.shape[k]
        move[k, axes[k]] = -1.0 if flips[k] else 1.0
        move[k, 3] = grid.shape[k] - 1 if flips[k] else 0.0
    turned = Grid((shape[0], shape[1], shape[2]), grid.affine @ move)
    return turned, Reorientation(axes, flips)


def typed(signal: npt.NDArray[np.float32], protocol: Protocol) -> npt.NDArray[Any]:
    """Scale the signal and give it the site's data type."""
    scaled = signal * np.float32(protocol.scale)
    if protocol.dtype == "float32":
        return np.ascontiguousarray(scaled)
    top = 65535 if protocol.dtype == "uint16" else 32767
    dtype = np.uint16 if protocol.dtype == "uint16" else np.int16
    return np.ascontiguousarray(np.clip(np.round(scaled), 0, top).astype(dtype))
