"""One synthetic scan, with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom.acquisition import CORD_TOP_MM, Acquired, acquire, rpi_grid
from sct_lesion_losses.phantom.anatomy import Body, axis_mm, make_body
from sct_lesion_losses.phantom.lesions import (
    HardNegatives,
    Lesion,
    Lesions,
    distance,
    draw_lesions,
    hard_negatives,
    rater_mask,
)
from sct_lesion_losses.phantom.sites import (
    SITES,
    Protocol,
    any_protocol,
    cropped,
    draw_protocol,
    elsewhere,
    home_site,
    stored_grid,
    tiny,
    typed,
)

SMALLEST_MM3 = 5.0  # of a labelled component

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LesionRecord:
    """What became of a lesion in a scan.

    Attributes
    ----------
    lesion : Lesion
    number : int
        1 for the scan's first lesion.
    volume_mm3 : float
        Labelled volume that belongs to it.
    labelled : bool
        False where too little of it is in any voxel, or what there is was dropped as a speck.
    """

    lesion: Lesion
    number: int
    volume_mm3: float
    labelled: bool


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels of a scan, on its grid in RPI.

    Attributes
    ----------
    cord, lesion : (X, Y, Z) bool
        At least half of the voxel inside; the lesions within the cord, without specks.
    dropped : int
        Labelled components that were too small to be kept.
    records : tuple of LesionRecord
    raters : tuple of (X, Y, Z) bool
        What each rater marks as lesion.
    """

    cord: Mask
    lesion: Mask
    dropped: int
    records: tuple[LesionRecord, ...]
    raters: tuple[Mask, ...]


def label(
    body: Body,
    lesions: Lesions,
    acquired: Acquired,
    grid: Grid,
    raters: tuple[np.random.Generator, ...] = (),
) -> Truth:
    """Label a scan by the share of its voxels inside cord and lesions.

    Parameters
    ----------
    body : Body
    lesions : Lesions
    acquired : Acquired
    grid : Grid
        RPI grid of the scan.
    raters : tuple of Generator
        One for each rater who marks the lesions, too.
    """
    size = grid.voxel_volume_mm3
    cord = acquired.cord >= 0.5
    lesion, dropped = _without_specks((acquired.lesion >= 0.5) & cord, size)
    owners = _owners(body, lesions, acquired.lesion > 0, grid)
    ratios = np.array([item.ratio for item in lesions.items])
    marked = (rater_mask(rng, acquired.lesion, cord, owners, ratios) for rng in raters)
    volumes = np.bincount(owners[lesion], minlength=len(ratios)) * size
    return Truth(
        cord=cord,
        lesion=lesion,
        dropped=dropped,
        records=tuple(
            LesionRecord(item, k + 1, float(volumes[k]), bool(volumes[k]))
            for k, item in enumerate(lesions.items)
        ),
        raters=tuple(_without_specks(mask, size)[0] for mask in marked),
    )


def _without_specks(mask: Mask, voxel_mm3: float) -> tuple[Mask, int]:
    """Drop the components under `SMALLEST_MM3`, faces, edges and corners connected."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * voxel_mm3
    kept = sizes >= SMALLEST_MM3
    kept[0] = False
    return np.take(kept, parts), int(count - kept.sum())


def _owners(
    body: Body, lesions: Lesions, touched: npt.NDArray[np.bool_], grid: Grid
) -> npt.NDArray[np.int32]:
    """Index of the lesion that each touched voxel lies deepest in; -1 elsewhere."""
    owners = np.full(touched.shape, -1, np.int32)
    voxels = np.argwhere(touched)
    if len(voxels):
        u, v, s = (x.astype(np.float32) for x in body.coordinates(grid.to_world(voxels)))
        middle_u, middle_v, ru, rv = body.at(s, "cord_u", "cord_v", "cord_ru", "cord_rv")
        a, b, radius = (u - middle_u) / ru, (v - middle_v) / rv, (ru + rv) * 0.5
        depths = [distance(item, lesions, a, b, s, u, v, radius) for item in lesions.items]
        owners[touched] = np.argmin(depths, axis=0)
    return owners


Preset = Literal["tiny", "demo", "study", "wide"]

LESION_FREE = 0.286  # share of subjects without lesions: 46 of 161 scans
# Steps of a low-discrepancy sequence by subject, by round of the sites and by seed: the golden
# ratio's fraction spreads best; the others only have to be unrelated to it and to each other.
_STEP, _ROUND, _SEED = 0.6180339887498949, 0.33, 0.381
_DRAWS = 5  # until a scan that shall have lesions has one that is large enough to be labelled


@dataclass(frozen=True, eq=False)
class PhantomScan:
    """A synthetic scan on its stored grid.

    Attributes
    ----------
    image : (X, Y, Z) int16, uint16 or float32
    grid : Grid
        Of image and masks, in the stored orientation.
    lesion, cord : (X, Y, Z) uint8
        Ground truth: at least half of the voxel inside.
    centerline : (N, 3) float64
        Centre of the cord in world mm, from inferior to superior, within the field of view.
    lesions : tuple of LesionRecord
    dropped : int
        Labelled components that were too small to be kept.
    raters : tuple of (X, Y, Z) uint8
        What each rater marks as lesion.
    hard_negatives : HardNegatives or None
        What looks like a lesion and is none; None in a scan without a cord.
    protocol : Protocol
    seed, subject, scan : int
    """

    image: npt.NDArray[Any]
    grid: Grid
    lesion: npt.NDArray[np.uint8]
    cord: npt.NDArray[np.uint8]
    centerline: npt.NDArray[np.float64]
    lesions: tuple[LesionRecord, ...]
    dropped: int
    raters: tuple[npt.NDArray[np.uint8], ...]
    hard_negatives: HardNegatives | None
    protocol: Protocol
    seed: int
    subject: int
    scan: int

    @property
    def orientation(self) -> str:
        """Stored orientation by SCT's convention."""
        return self.grid.orientation

    @property
    def site(self) -> str:
        """Name of the site."""
        return self.protocol.site


def has_lesions(seed: int, subject: int, lesion_free: float = LESION_FREE) -> bool:
    """Whether a subject has lesions; the share holds at every site, and in every run of subjects.

    The golden ratio spreads consecutive subjects evenly; 13 of its steps end within 0.04 of where
    they began, so a site's subjects, 13 apart, would be alike, and each round of the sites takes a
    step of a third on top. Seeds begin at different places.
    """
    rounds = subject // len(SITES)
    return ((subject + 1) * _STEP + rounds * _ROUND + seed * _SEED) % 1.0 >= lesion_free


def check(
    seed: int, preset: Preset, sites: int, raters: int, subject: int = 0, scan: int = 0
) -> None:
    """Refuse what no scan can be made of, before any work is done.

    Raises
    ------
    UsageError
        A number is out of range, or the preset is unknown.
    """
    presets = get_args(Preset)
    if preset not in presets:
        expected = f"{', '.join(presets[:-1])} or {presets[-1]}"
        raise UsageError(f"preset is {preset!r}, expected {expected}")
    if not 1 <= sites <= len(SITES):
        raise UsageError(f"sites is {sites}, expected 1 to {len(SITES)}")
    numbers = (("seed", seed), ("raters", raters), ("subject", subject), ("scan", scan))
    for name, number in numbers:
        if number < 0:
            raise UsageError(f"{name} is {number}, expected 0 or more")


def make_scan(
    seed: int,
    subject: int = 0,
    scan: int = 0,
    *,
    site: int | None = None,
    lesions: bool | None = None,
    with_cord: bool = True,
    preset: Preset = "study",
    sites: int = len(SITES),
    raters: int = 0,
) -> PhantomScan:
    """Make one scan; the same arguments give the same scan, to the bit.

    Parameters
    ----------
    seed, subject, scan : int
        0 or more. The body depends on the first two, everything else on all three.
    site : int, optional
        Index into :data:`~sct_lesion_losses.phantom.sites.SITES`; by default the subject's own.
    lesions : bool, optional
        Whether there are lesions; by default 71.4 % of the subjects have some.
    with_cord : bool
        False: a scan that shows no spinal cord, for the calibration of a cord detector.
    preset : {"study", "demo", "tiny", "wide"}
        "study" and "demo": the site's protocol. "tiny": a small field of view around the cord
        at 0.8 mm, in under a second. "wide": any protocol and contrast, drawn anew per scan.
    sites : int
        Number of sites in the cohort, 1 to 13.
    raters : int
        Number of raters whose masks are drawn; see `raters.rater_mask`.

    Returns
    -------
    PhantomScan

    Raises
    ------
    UsageError
        A number is out of range, or the preset is unknown.
    """
    check(seed, preset, sites, raters, subject, scan)
    if site is not None and not 0 <= site < len(SITES):
        raise UsageError(f"site is {site}, expected 0 to {len(SITES) - 1}")
    body = make_body(np.random.default_rng([seed, subject]))
    streams = np.random.default_rng([seed, subject, scan]).spawn(4)
    home = home_site(seed, subject, sites)
    protocol = _protocol(
        streams[0], streams[3], preset, home if site is None else site, site is None
    )
    with_column = True
    if not with_cord:
        protocol, with_column = elsewhere(streams[3], protocol)
    grid = rpi_grid(body, protocol)
    along = _in_view(body, grid)
    extent = (float(along[0]), float(along[-1])) if len(along) else (-60.0, -50.0)
    affected = with_cord and (has_lesions(seed, subject) if lesions is None else lesions)

    for _ in range(_DRAWS if affected else 1):
        drawn = draw_lesions(
            streams[1],
            body,
            extent,
            affected=affected,
            bright_tail=0.06 if preset == "wide" else 0.0,
        )
        acquired = acquire(streams[2], body, drawn, protocol, grid, with_column=with_column)
        rating = (np.random.default_rng([seed, subject, scan, k + 1]) for k in range(raters))
        truth = label(body, drawn, acquired, grid, tuple(rating))
        if truth.lesion.any():
            break
    stored, turn = stored_grid(grid, protocol.orientation)

    def as_stored(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(turn.undo(mask), dtype=np.uint8)

    return PhantomScan(
        image=typed(turn.undo(acquired.signal), protocol),
        grid=stored,
        lesion=as_stored(truth.lesion),
        cord=as_stored(truth.cord),
        centerline=body.cord_centre(along) if with_cord else np.empty((0, 3)),
        lesions=truth.records,
        dropped=truth.dropped,
        raters=tuple(as_stored(mask) for mask in truth.raters),
        hard_negatives=hard_negatives(body, drawn, along) if with_cord else None,
        protocol=protocol,
        seed=seed,
        subject=subject,
        scan=scan,
    )


def _protocol(
    rng: np.random.Generator, framer: np.random.Generator, preset: Preset, site: int, free: bool
) -> Protocol:
    """Protocol and field of view of a preset; `free` lets "wide" draw any protocol."""
    anywhere = preset == "wide" and free
    protocol = any_protocol(rng) if anywhere else draw_protocol(rng, SITES[site])
    if preset == "tiny":
        return tiny(protocol)
    return cropped(framer, protocol) if preset == "wide" else protocol


def _in_view(body: Body, grid: Grid) -> npt.NDArray[np.float64]:
    """S of the points of the cord that lie inside the grid, every half mm."""
    s = axis_mm()
    s = s[(s < CORD_TOP_MM) & (s > body.centres[-1])][::2]
    voxels = grid.to_voxel(body.cord_centre(s))
    inside = ((voxels >= -0.5) & (voxels <= np.array(grid.shape) - 0.5)).all(axis=1)
    seen: npt.NDArray[np.float64] = s[inside]
    return seen
