"""One synthetic scan, with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom.acquisition import CORD_TOP_MM, acquire, rpi_grid
from sct_lesion_losses.phantom.anatomy import AXIS_MM, Body, Doubles, Floats, make_body
from sct_lesion_losses.phantom.lesions import (
    Lesion,
    Lesions,
    distance,
    draw_lesions,
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


def label(share: Floats, cord: Floats, grid: Grid) -> tuple[Mask, Mask, int]:
    """Label a scan by the share of its voxels inside lesions and cord.

    Parameters
    ----------
    share, cord : (X, Y, Z) float32
        Share of each voxel inside lesions, and inside the cord.
    grid : Grid

    Returns
    -------
    lesion, cord : (X, Y, Z) bool
        At least half of the voxel inside; the lesions within the cord, without specks.
    dropped : int
        Components of the lesions that were too small to be kept.
    """
    inside = cord >= 0.5
    lesion, dropped = _without_specks((share >= 0.5) & inside, grid)
    return lesion, inside, dropped


def _without_specks(mask: Mask, grid: Grid) -> tuple[Mask, int]:
    """Drop the components under `SMALLEST_MM3`, faces, edges and corners connected; count them."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    kept = np.bincount(parts.ravel(), minlength=count + 1) * grid.voxel_volume_mm3 >= SMALLEST_MM3
    kept[0] = False
    return np.take(kept, parts), int(count - kept.sum())


def labelled_mm3(
    owner: npt.NDArray[np.int32], lesion: Mask, count: int, grid: Grid
) -> tuple[float, ...]:
    """Labelled volume of each of `count` lesions; 0 where no voxel of it is labelled.

    Parameters
    ----------
    owner : (X, Y, Z) int32
        See `owners`.
    lesion : (X, Y, Z) bool
        Voxels that are labelled.
    """
    volumes = np.bincount(owner[lesion], minlength=count) * grid.voxel_volume_mm3
    return tuple(volumes.tolist())


def owners(body: Body, lesions: Lesions, touched: Mask, grid: Grid) -> npt.NDArray[np.int32]:
    """Index of the lesion that each touched voxel lies deepest in; -1 elsewhere."""
    owner = np.full(touched.shape, -1, np.int32)
    voxels = np.argwhere(touched)
    if len(voxels):
        u, v, s = (x.astype(np.float32) for x in body.coordinates(grid.to_world(voxels)))
        depths = [distance(item, lesions, body, u, v, s) for item in lesions.items]
        owner[touched] = np.argmin(depths, axis=0)
    return owner


Preset = Literal["tiny", "demo", "study", "wide"]

LESION_FREE = 0.286  # share of subjects without lesions: 46 of 161 scans
# Steps of a low-discrepancy sequence by subject, by round of the sites and by seed: the golden
# ratio's fraction spreads best; the others only have to be unrelated to it and to each other.
STEP, _ROUND, _SEED = 0.6180339887498949, 0.33, 0.381
DRAWS = 5  # until a scan that shall have lesions has one that is large enough to be labelled


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
    lesions : tuple of Lesion
    volumes_mm3 : tuple of float
        Labelled volume that belongs to each lesion; 0 where too little of it is in any voxel, or
        what there is was dropped as a speck.
    dropped : int
        Labelled components that were too small to be kept.
    raters : tuple of (X, Y, Z) uint8
        What each rater marks as lesion.
    protocol : Protocol
    seed : (int, int, int)
        Seed of the cohort, and numbers of subject and scan.
    """

    image: npt.NDArray[Any]
    grid: Grid
    lesion: npt.NDArray[np.uint8]
    cord: npt.NDArray[np.uint8]
    centerline: Doubles
    lesions: tuple[Lesion, ...]
    volumes_mm3: tuple[float, ...]
    dropped: int
    raters: tuple[npt.NDArray[np.uint8], ...]
    protocol: Protocol
    seed: tuple[int, int, int]


def has_lesions(seed: int, subject: int, lesion_free: float = LESION_FREE) -> bool:
    """Say whether a subject has lesions; the share holds at every site and in every run of them.

    The golden ratio spreads consecutive subjects evenly; 13 of its steps end within 0.04 of where
    they began, so a site's subjects, 13 apart, would be alike, and each round of the sites takes a
    step of a third on top. Seeds begin at different places.
    """
    rounds = subject // len(SITES)
    return ((subject + 1) * STEP + rounds * _ROUND + seed * _SEED) % 1.0 >= lesion_free


def check(preset: Preset, **numbers: int) -> None:
    """Refuse a preset that is unknown and numbers below 0, before any work is done.

    Raises
    ------
    UsageError
    """
    presets = get_args(Preset)
    if preset not in presets:
        expected = f"{', '.join(presets[:-1])} or {presets[-1]}"
        raise UsageError(f"preset is {preset!r}, expected {expected}")
    for name, number in numbers.items():
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
    raters: int = 0,
) -> PhantomScan:
    """Make one scan; the same arguments give the same scan, to the bit.

    Parameters
    ----------
    seed, subject, scan : int
        0 or more. The body depends on the first two, everything else on all three.
    site : int, optional
        Index into :data:`~sct_lesion_losses.phantom.sites.SITES`; by default the subject's own
        one of all sites.
    lesions : bool, optional
        Whether there are lesions; by default 71.4 % of the subjects have some.
    with_cord : bool
        False: a scan that shows no spinal cord, for the calibration of a cord detector.
    preset : {"study", "demo", "tiny", "wide"}
        "study" and "demo": the site's protocol. "tiny": a small field of view around the cord
        at 0.8 mm, in under a second. "wide": any protocol and contrast, drawn anew per scan,
        unless a site is given.
    raters : int
        Number of raters whose masks are drawn; see `lesions.rater_mask`.

    Returns
    -------
    PhantomScan

    Raises
    ------
    UsageError
        A number is out of range, or the preset is unknown.
    """
    check(preset, seed=seed, raters=raters, subject=subject, scan=scan)
    if site is not None and not 0 <= site < len(SITES):
        raise UsageError(f"site is {site}, expected 0 to {len(SITES) - 1}")
    body = make_body(np.random.default_rng([seed, subject]))
    settings, shapes, noise, frame = np.random.default_rng([seed, subject, scan]).spawn(4)
    if preset == "wide" and site is None:
        protocol = any_protocol(settings)
    else:
        home = home_site(seed, subject) if site is None else site
        protocol = draw_protocol(settings, SITES[home])
    if preset == "tiny":
        protocol = tiny(protocol)
    elif preset == "wide":
        protocol = cropped(frame, protocol)
    if not with_cord:
        protocol, with_column = elsewhere(frame, protocol)
        body = replace(body, has_column=with_column)
    grid = rpi_grid(body, protocol)
    along = _in_view(body, grid)
    extent = (float(along[0]), float(along[-1])) if len(along) else (-60.0, -50.0)
    affected = with_cord and (has_lesions(seed, subject) if lesions is None else lesions)
    bright_tail = 0.06 if preset == "wide" else 0.0

    for _ in range(DRAWS if affected else 1):
        drawn = draw_lesions(shapes, body, extent, affected=affected, bright_tail=bright_tail)
        signal, cord_share, share = acquire(noise, body, drawn, protocol, grid)
        lesion, cord, dropped = label(share, cord_share, grid)
        if lesion.any():
            break
    owner = owners(body, drawn, share > 0, grid)
    ratios = np.array([item.ratio for item in drawn.items])
    hands = (np.random.default_rng([seed, subject, scan, k + 1]) for k in range(raters))
    marked = (rater_mask(rng, share, cord, owner, ratios) for rng in hands)

    stored = stored_grid(grid, protocol.orientation)
    _, turn = stored.to_rpi()
    masks = (lesion, cord, *(_without_specks(mask, grid)[0] for mask in marked))
    lesion_mask, cord_mask, *rated = (
        np.ascontiguousarray(turn.undo(mask), dtype=np.uint8) for mask in masks
    )
    return PhantomScan(
        image=typed(turn.undo(signal), protocol),
        grid=stored,
        lesion=lesion_mask,
        cord=cord_mask,
        centerline=body.cord_centre(along) if with_cord else np.empty((0, 3)),
        lesions=drawn.items,
        volumes_mm3=labelled_mm3(owner, lesion, len(drawn.items), grid),
        dropped=dropped,
        raters=tuple(rated),
        protocol=protocol,
        seed=(seed, subject, scan),
    )


def _in_view(body: Body, grid: Grid) -> Doubles:
    """S of the points of the cord that lie inside the grid, every half mm."""
    s = AXIS_MM[(AXIS_MM < CORD_TOP_MM) & (body.centres[-1] < AXIS_MM)][::2]
    voxels = grid.to_voxel(body.cord_centre(s))
    inside = ((voxels >= -0.5) & (voxels <= np.array(grid.shape) - 0.5)).all(axis=1)
    return np.asarray(s[inside], np.float64)
