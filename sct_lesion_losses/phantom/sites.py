"""The sites of the cohort and the protocol of each scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sct_lesion_losses.phantom.contrast import Contrast, any_contrast, jittered

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
