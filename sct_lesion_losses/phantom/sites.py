"""Sites and their protocols: contrast, field of view, and how a scan is stored."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from nibabel import orientations

from sct_lesion_losses.geometry.grid import Grid


def _tissue(usual: float, low: float, high: float) -> Any:
    """Signal of a tissue, and its bounds in any scan."""
    return field(default=usual, metadata={"bounds": (low, high)})


@dataclass(frozen=True)
class Contrast:
    """Relative signal of each tissue; white matter of the cord is 1, air is 0."""

    gm: float = _tissue(1.04, 1.0, 1.1)
    csf: float = _tissue(2.8, 1.9, 5.5)
    muscle: float = _tissue(0.4, 0.12, 0.7)
    bone: float = _tissue(0.65, 0.2, 1.1)
    disc: float = _tissue(0.8, 0.25, 1.4)
    fat: float = _tissue(1.75, 0.4, 3.0)
    cortex: float = _tissue(0.2, 0.05, 0.3)  # cortical bone, ligaments, dura
    skin: float = _tissue(0.6, 0.3, 1.2)
    gland: float = _tissue(1.0, 0.5, 1.6)
    vessel: float = _tissue(0.15, 0.05, 0.5)  # flowing blood
    slow: float = _tissue(1.3, 0.6, 2.6)  # slowly flowing blood


_FAT_SATURATED = 0.08  # share of the sequences
_JITTER = 0.1  # deviation of the logarithm of a signal between the scans of a site


def jittered(rng: np.random.Generator, base: Contrast) -> Contrast:
    """Contrast of one scan of a site: every value off by a log-normal factor, within bounds."""
    values = {}
    for f in fields(Contrast):
        value = getattr(base, f.name) * rng.lognormal(0, _JITTER * (0.35 if f.name == "gm" else 1))
        values[f.name] = float(np.clip(value, *f.metadata["bounds"]))
    return Contrast(**values)


def any_contrast(rng: np.random.Generator) -> Contrast:
    """Contrast from the whole range of T2-weighted sequences, fat saturation included."""
    u = rng.uniform
    values = {f.name: _log_uniform(rng, *f.metadata["bounds"]) for f in fields(Contrast)}
    values |= {"csf": u(1.5, 4.5), "gm": u(0.94, 1.37)}
    # Marrow is part fat: the two go together.
    values["bone"] = float(np.clip(values["fat"] * u(0.25, 0.75), 0.15, 1.2))
    if rng.random() < _FAT_SATURATED:  # as in STIR
        values |= {"fat": u(0.08, 0.35), "bone": u(0.1, 0.3), "muscle": u(0.3, 0.6)}
    return Contrast(**values)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


Plane = Literal["sagittal", "axial", "3d"]

ORIENTATIONS = ("PIR", "PSR", "AIL", "ASR", "PIL", "LAS", "RPI", "LPI", "RAS")
DTYPES = ("int16", "uint16", "float32", "int16-scaled")


@dataclass(frozen=True)
class Site:
    """One hospital's way of scanning.

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
         "AIL", _contrast(4.4, 1.0, 0.29, 0.39, 0.4)),
)  # fmt: skip


def home_site(seed: int, subject: int, sites: int = len(SITES)) -> int:
    """Index into `SITES` of the site where a subject is scanned; consecutive ones take turns."""
    return (subject + seed) % sites


@dataclass(frozen=True)
class Protocol:
    """Settings of the scanner for one scan; lengths in mm, angles in degrees.

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
    fall, csf_fall : float
        Signal that is left 100 mm further down the cord, of everything and of the fluid beside it.
    drift : float
        Deviation of the coil's sensitivity along the cord, beside the fall.
    uneven, stripe, mottle : float
        Deviation of the cord's brightness along it and from side to side, in its middle, and from
        place to place.
    soft_mm : float
        Width that motion adds to the edge of the cord.
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
    fall: float
    csf_fall: float
    drift: float
    uneven: float
    stripe: float
    mottle: float
    soft_mm: float


# What a protocol takes from its site as it is.
_FIXED = ("plane", "orientation", "dtype", "manufacturer", "tesla", "pixel_mm", "slice_mm",
          "snr", "scale", "contrast")  # fmt: skip


def draw_protocol(rng: np.random.Generator, site: Site) -> Protocol:
    """Protocol of a scan at a site: its table entry with the deviations between scans."""
    span = str(rng.choice(site.spans))
    slice_mm = site.slice_mm * rng.uniform(0.96, 1.04)
    pixel_mm = site.pixel_mm * rng.uniform(0.95, 1.05)
    own = replace(
        site,
        slice_mm=slice_mm,
        pixel_mm=slice_mm if site.plane == "3d" else pixel_mm,
        matrix=min(1.0, site.matrix * rng.uniform(0.92, 1.08)),
        snr=float(np.clip(site.snr * rng.lognormal(0, 0.15), 8, 18)),
        scale=float(np.clip(site.scale * rng.lognormal(0, 0.2), 80, 1800)),
        contrast=jittered(rng, site.contrast),
    )
    return _protocol(rng, own, span)


def any_protocol(rng: np.random.Generator) -> Protocol:
    """Protocol from the whole range met in practice, for training that must generalise."""
    u = rng.uniform
    plane: Plane = ("sagittal", "3d", "axial")[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]
    thickness = {"sagittal": u(2.0, 4.0), "axial": u(3.0, 7.0), "3d": u(0.75, 1.15)}
    slice_mm = thickness[plane]
    pixel_mm = slice_mm if plane == "3d" else u(0.35, 0.9)
    span = str(rng.choice((_C, _C, _C, _T) if plane == "axial" else (_C, _C, _CT, _T)))
    gap = 0.0 if plane == "3d" else float(rng.choice([0.0, u(0, 0.3)]))
    # Drawn in the order of the arguments.
    site = Site(
        orientation=str(rng.choice(ORIENTATIONS)),
        dtype=str(rng.choice(DTYPES)),
        name="any",
        manufacturer="any",
        tesla=float(rng.choice([1.5, 3.0])),
        plane=plane,
        pixel_mm=pixel_mm,
        slice_mm=slice_mm,
        gap=gap,
        spans=(span,),
        matrix=u(0.55, 1.0),
        snr=_log_uniform(rng, 8, 40),
        scale=_log_uniform(rng, 40, 1800),
        contrast=any_contrast(rng),
    )
    protocol = _protocol(rng, site, span)
    if plane == "3d":
        return replace(protocol, contrast=replace(protocol.contrast, csf=u(*_CSF_3D)))
    return protocol


# Ranges of what makes a healthy cord uneven; what is drawn below 0 is 0. In 3-D scans they hold
# what was measured in real people (benchmarks/realism.py -healthy). In scans of thick slices, which
# were not, it is milder: slices average mottle and stripes away, and where the fluid fades OptiC,
# which knows real scans, loses the cord.
_UNEVEN_3D = {
    "fall": (0.5, 1.2),
    "csf_fall": (0.5, 1.0),
    "drift": (-0.2, 0.6),
    "uneven": (-0.06, 0.03),
    "stripe": (-0.2, 0.4),
    "mottle": (-0.06, 0.1),
    "soft_mm": (0.2, 1.5),
}
_UNEVEN_THICK = {
    "fall": (0.75, 1.1),
    "csf_fall": (0.95, 1.0),
    "drift": (0.0, 0.15),
    "uneven": (-0.01, 0.03),
    "stripe": (-0.05, 0.1),
    "mottle": (-0.01, 0.07),
    "soft_mm": (0.0, 0.5),
}
# At the upper end of the cord: averaged over a ring with dura and roots, and after the fall to the
# thorax, it measures 2.6 to 5.5 times the cord.
_CSF_3D = (4.0, 6.9)


def _protocol(rng: np.random.Generator, site: Site, span: str) -> Protocol:
    """Draw what a site does not fix: the field of view, its tilt, and the scanner's artefacts."""
    u, plane, slice_mm = rng.uniform, site.plane, site.slice_mm
    middle_s = {_C: u(-82, -55), _CT: u(-140, -105), _T: u(-270, -210)}[span]
    along = {_C: u(140, 200), _CT: u(225, 280), _T: u(225, 280)}[span]
    if plane == "sagittal":
        fov = (round(u(12, 16)) * slice_mm * (1 + site.gap), u(130, 190), along)
    elif plane == "3d":
        fov = (u(44, 62), u(120, 170), min(along, 220.0))
    else:
        fov = (u(110, 165),) * 2 + (u(90, 150),)
    wide = 12.0 if plane == "axial" else 3.0
    shift_v = u(-25, 30) if plane != "axial" else u(-15, 25)
    tilts = (rng.normal(0, 6), rng.normal(0, 1.5), rng.normal(0, 1.5))
    return Protocol(
        **{name: getattr(site, name) for name in _FIXED},
        site=site.name,
        gap_mm=slice_mm * site.gap,
        fov_mm=fov,
        middle_mm=(float(np.clip(rng.normal(0, wide / 2), -wide, wide)), shift_v, middle_s),
        tilt=tuple(np.clip(tilts, -15, 15).tolist()),
        matrix=(site.matrix, min(1.0, site.matrix * u(1.0, 1.3))),
        smooth=float(rng.choice([0.0, u(0, 1)])),
        flow=u(0.0, 0.35) if plane == "3d" else u(0.05, 0.45),
        ghost=u(0.0, 0.05),
        bias=u(0.05, 0.3),
        coil_mm=u(60, 200),
        band=u(0.05, 0.4) if plane == "sagittal" and rng.random() < 0.4 else 1.0,
        normalised=float(rng.choice([0.0, u(0.3, 1.0)])),
        edge=rng.normal(*((-0.7, 0.7) if plane == "3d" else (0, 0.2))),
        **_unevenness(rng, plane),
    )


def _unevenness(rng: np.random.Generator, plane: Plane) -> dict[str, Any]:
    """Draw what makes a healthy cord uneven."""
    ranges = _UNEVEN_3D if plane == "3d" else _UNEVEN_THICK
    return {name: max(0.0, rng.uniform(*bounds)) for name, bounds in ranges.items()}


# Where a field of view without a cord lies, and how often.
_ELSEWHERE = {
    "beside the canal": 0.35,
    "beside the spine": 0.3,
    "without a spine": 0.25,
    "noise": 0.1,
}


def tiny(protocol: Protocol) -> Protocol:
    """Return a small isotropic scan around the cord, at least 24 mm across and 34 mm long."""
    return replace(
        protocol, plane="3d", pixel_mm=0.8, slice_mm=0.8, gap_mm=0.0, fov_mm=(28.8, 28.8, 38.4),
        middle_mm=(0.0, 0.0, -65.0), tilt=(0.0, 0.0, 0.0),
    )  # fmt: skip


def cropped(rng: np.random.Generator, protocol: Protocol) -> Protocol:
    """Cut the field of view of a part of the scans, as users do; the coil ends outside it then."""
    if rng.random() > 0.3:
        return protocol
    most = rng.uniform((26, 45, 50), (55, 110, 120)).tolist()
    x, y, z = (min(size, limit) for size, limit in zip(protocol.fov_mm, most, strict=True))
    u, v, s = protocol.middle_mm
    u = float(np.clip(u, -x / 2 + 8, x / 2 - 8))
    v = float(np.clip(v, -y / 2 + 14, y / 2 - 14))
    return replace(protocol, fov_mm=(x, y, z), middle_mm=(u, v, s + rng.uniform(-25, 25)), edge=0.0)


def elsewhere(rng: np.random.Generator, protocol: Protocol) -> tuple[Protocol, bool]:
    """Move the field of view where no cord is; also return whether the spine is drawn.

    Beside the canal, in the tissue beside the spine, in a part of the body without spine, or
    nothing but noise.
    """
    kind = rng.choice(list(_ELSEWHERE), p=list(_ELSEWHERE.values()))
    x, y, z = min(protocol.fov_mm[0], 60.0), protocol.fov_mm[1], protocol.fov_mm[2]
    side, (_, v, s) = float(rng.choice([-1, 1])), protocol.middle_mm
    gap = rng.uniform(20 if kind == "beside the canal" else 12, 30)
    if kind == "noise":
        return replace(protocol, snr=0.02, scale=protocol.scale * 0.02), False
    if kind == "without a spine":
        return protocol, False
    moved = replace(
        protocol, fov_mm=(x, y, z), middle_mm=(side * (x / 2 + gap), v, s), tilt=(0.0, 0.0, 0.0)
    )
    return moved, kind == "beside the canal"


def stored_grid(grid: Grid, orientation: str) -> Grid:
    """Grid of the same voxels as an RPI grid, in the order of axes in which they are stored."""
    # nibabel's letters say where an axis ends, SCT's where it starts.
    codes = orientation.translate(str.maketrans("RLPAIS", "LRAPSI"))
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("LAS"), orientations.axcodes2ornt(codes)
    )
    x, y, z = (grid.shape[k] for k in np.argsort(turn[:, 0]))
    return Grid((x, y, z), grid.affine @ orientations.inv_ornt_aff(turn, grid.shape))


def typed(signal: npt.NDArray[np.float32], protocol: Protocol) -> npt.NDArray[Any]:
    """Scale the signal and give it the site's data type."""
    scaled = signal * np.float32(protocol.scale)
    dtype = np.dtype(protocol.dtype.removesuffix("-scaled"))
    if dtype.kind != "f":
        scaled = np.clip(np.round(scaled), 0, np.iinfo(dtype).max)
    return np.ascontiguousarray(scaled.astype(dtype))
