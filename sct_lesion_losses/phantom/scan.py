"""One synthetic scan, with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.phantom.acquisition import CORD_TOP_MM, acquire, rpi_grid
from sct_lesion_losses.phantom.anatomy import Body, axis_mm, make_body
from sct_lesion_losses.phantom.lesions import Lesion, Lesions, distance, draw_lesions
from sct_lesion_losses.phantom.raters import rater_mask
from sct_lesion_losses.phantom.sites import SITES, Protocol, any_protocol, draw_protocol
from sct_lesion_losses.space.grid import Grid, Reorientation

Preset = Literal["tiny", "demo", "study", "wide"]

LESION_FREE = 0.286  # share of subjects without lesions: 46 of 161 scans
SMALLEST_MM3 = 5.0  # of a labelled component
_GOLDEN = 0.6180339887498949
_ARRIVED = {"R": ("x", 1), "L": ("x", -1), "P": ("y", 1), "A": ("y", -1), "I": ("z", 1),
            "S": ("z", -1)}  # fmt: skip


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
        False where too little of it is in any voxel.
    """

    lesion: Lesion
    number: int
    volume_mm3: float
    labelled: bool


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
    """Whether a subject has lesions; the share holds for every run of consecutive subjects."""
    return ((subject + 1) * _GOLDEN + seed * 0.381) % 1.0 >= lesion_free


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
        The body depends on the first two, everything else on all three.
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
        Number of sites in the cohort.
    raters : int
        Number of raters whose masks are drawn; see `raters.rater_mask`.

    Returns
    -------
    PhantomScan

    Raises
    ------
    UsageError
        An unknown preset or site.
    """
    if preset not in ("tiny", "demo", "study", "wide"):
        raise UsageError(f"preset is {preset!r}, expected tiny, demo, study or wide")
    if not 1 <= sites <= len(SITES) or not 0 <= (site or 0) < len(SITES):
        raise UsageError(f"sites are numbered 0 to {len(SITES) - 1}, received {site} of {sites}")
    body = make_body(np.random.default_rng([seed, subject]))
    streams = np.random.default_rng([seed, subject, scan]).spawn(4)
    if preset == "wide" and site is None:
        protocol = any_protocol(streams[0])
    else:
        number = (subject + seed) % sites if site is None else site
        protocol = draw_protocol(streams[0], SITES[number])
    if preset == "tiny":
        protocol = _tiny(protocol)
    elif preset == "wide":
        protocol = _cropped(streams[3], protocol)
    with_column = True
    if not with_cord:
        protocol, with_column = _elsewhere(streams[3], protocol)
    grid = rpi_grid(body, protocol)
    along = _in_view(body, grid)
    affected = has_lesions(seed, subject) if lesions is None else lesions
    extent = (float(along[0]), float(along[-1])) if len(along) else (-60.0, -50.0)
    drawn = draw_lesions(
        streams[1], body, extent,
        affected=affected and with_cord, bright_tail=0.06 if preset == "wide" else 0.0,
    )  # fmt: skip
    acquired = acquire(streams[2], body, drawn, protocol, grid, with_column=with_column)
    cord = acquired.cord >= 0.5
    label = (acquired.lesion >= 0.5) & cord
    label, dropped = _without_specks(label, grid.voxel_volume_mm3)
    owners = _owners(body, drawn, acquired.lesion > 0, grid)
    ratios = np.array([item.ratio for item in drawn.items])
    drawn_by = (
        rater_mask(
            np.random.default_rng([seed, subject, scan, r]), acquired.lesion, cord, owners, ratios
        )
        for r in range(1, raters + 1)
    )
    stored, turn = _stored(grid, protocol.orientation)
    return PhantomScan(
        image=_typed(turn.undo(acquired.signal), protocol),
        grid=stored,
        lesion=np.ascontiguousarray(turn.undo(label), dtype=np.uint8),
        cord=np.ascontiguousarray(turn.undo(cord), dtype=np.uint8),
        centerline=body.cord_centre(along) if with_cord else np.empty((0, 3)),
        lesions=_records(drawn, owners[label], grid.voxel_volume_mm3),
        dropped=dropped,
        raters=tuple(
            np.ascontiguousarray(
                turn.undo(_without_specks(mask, grid.voxel_volume_mm3)[0]), dtype=np.uint8
            )
            for mask in drawn_by
        ),
        protocol=protocol,
        seed=seed,
        subject=subject,
        scan=scan,
    )


def _tiny(protocol: Protocol) -> Protocol:
    """Return a small isotropic scan around the cord, at least 24 mm across and 34 mm long."""
    return replace(
        protocol, plane="3d", pixel_mm=0.8, slice_mm=0.8, gap_mm=0.0, fov_mm=(28.8, 28.8, 38.4),
        middle_mm=(0.0, 0.0, -65.0), tilt=(0.0, 0.0, 0.0),
    )  # fmt: skip


def _cropped(rng: np.random.Generator, protocol: Protocol) -> Protocol:
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


def _elsewhere(rng: np.random.Generator, protocol: Protocol) -> tuple[Protocol, bool]:
    """Move the field of view where no cord is; also return whether the spine is drawn.

    Beside the canal, in the tissue beside the spine, in a part of the body without spine, or
    nothing but noise.
    """
    kind = int(rng.choice(4, p=(0.35, 0.3, 0.25, 0.1)))
    x, y, z = min(protocol.fov_mm[0], 60.0), protocol.fov_mm[1], protocol.fov_mm[2]
    side, (_, v, s) = float(rng.choice([-1, 1])), protocol.middle_mm
    gap = float(rng.uniform(20, 30)) if kind == 0 else float(rng.uniform(12, 30))
    if kind == 3:
        return replace(protocol, snr=0.02, scale=protocol.scale * 0.02), False
    if kind == 2:
        return protocol, False
    moved = replace(
        protocol, fov_mm=(x, y, z), middle_mm=(side * (x / 2 + gap), v, s), tilt=(0.0, 0.0, 0.0)
    )
    return moved, kind == 0


def _in_view(body: Body, grid: Grid) -> npt.NDArray[np.float64]:
    """S of the points of the cord that lie inside the grid, every half mm."""
    s = axis_mm()
    s = s[(s < CORD_TOP_MM) & (s > body.centres[-1])][::2]
    voxels = grid.to_voxel(body.cord_centre(s))
    inside = ((voxels >= -0.5) & (voxels <= np.array(grid.shape) - 0.5)).all(axis=1)
    seen: npt.NDArray[np.float64] = s[inside]
    return seen


def _without_specks(
    label: npt.NDArray[np.bool_], voxel_mm3: float
) -> tuple[npt.NDArray[np.bool_], int]:
    """Drop the components under `SMALLEST_MM3`, faces, edges and corners connected."""
    parts, count = ndimage.label(label, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * voxel_mm3
    kept = sizes >= SMALLEST_MM3
    kept[0] = False
    label = np.take(kept, parts)
    return label, int(count - kept.sum())


def _owners(
    body: Body, lesions: Lesions, touched: npt.NDArray[np.bool_], grid: Grid
) -> npt.NDArray[np.int32]:
    """Index of the lesion that each touched voxel lies deepest in; -1 elsewhere."""
    owners = np.full(touched.shape, -1, np.int32)
    voxels = np.argwhere(touched)
    if len(voxels):
        u, v, s = (x.astype(np.float32) for x in body.coordinates(grid.to_world(voxels)))
        index = body.index(s)
        t = {k: body.tables[k].take(index) for k in ("cord_u", "cord_v", "cord_ru", "cord_rv")}
        a, b = (u - t["cord_u"]) / t["cord_ru"], (v - t["cord_v"]) / t["cord_rv"]
        radius = (t["cord_ru"] + t["cord_rv"]) * np.float32(0.5)
        depths = [distance(item, lesions, a, b, s, u, v, radius) for item in lesions.items]
        owners[touched] = np.argmin(depths, axis=0)
    return owners


def _records(
    lesions: Lesions, owners: npt.NDArray[np.int32], voxel_mm3: float
) -> tuple[LesionRecord, ...]:
    """Count the labelled voxels, whose owners are given, of each lesion."""
    counts = np.bincount(owners, minlength=len(lesions.items))
    return tuple(
        LesionRecord(item, k + 1, float(n * voxel_mm3), bool(n))
        for k, (item, n) in enumerate(zip(lesions.items, counts, strict=True))
    )


def _stored(grid: Grid, orientation: str) -> tuple[Grid, Reorientation]:
    """Grid in the stored orientation, and the reorientation from there to RPI."""
    stored = [_ARRIVED[letter] for letter in orientation]
    names = [name for name, _ in stored]
    axes = (names.index("x"), names.index("y"), names.index("z"))
    flips = (stored[axes[0]][1] < 0, stored[axes[1]][1] < 0, stored[axes[2]][1] < 0)
    move = np.zeros((4, 4))
    move[3, 3] = 1.0
    shape = [0, 0, 0]
    for k in range(3):
        shape[axes[k]] = grid.shape[k]
        move[k, axes[k]] = -1.0 if flips[k] else 1.0
        move[k, 3] = grid.shape[k] - 1 if flips[k] else 0.0
    turned = Grid((shape[0], shape[1], shape[2]), grid.affine @ move)
    return turned, Reorientation(axes, flips)


def _typed(signal: npt.NDArray[np.float32], protocol: Protocol) -> npt.NDArray[Any]:
    """Scale the signal and give it the site's data type."""
    scaled = signal * np.float32(protocol.scale)
    if protocol.dtype == "float32":
        return np.ascontiguousarray(scaled)
    top = 65535 if protocol.dtype == "uint16" else 32767
    dtype = np.uint16 if protocol.dtype == "uint16" else np.int16
    return np.ascontiguousarray(np.clip(np.round(scaled), 0, top).astype(dtype))
