"""The page on which masks are checked: scans along the cord, redrawn in the browser at a threshold.

One HTML file without a script, a font or a request from elsewhere. Every scan is stored as an entry
beside its mask; the page holds the entries, those of earlier runs included.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses import __version__
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.geometry.cord_crop import WIDTH_VOX, CordCrop
from sct_lesion_losses.images import atomic
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.images.outputs import Outputs
from sct_lesion_losses.inference import predict
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report.columns import PREDICTED_LESIONS
from sct_lesion_losses.report.sidecar import Segmentation
from sct_lesion_losses.thresholds.lesion_filter import Filter, mask_at, stepped

TEMPLATE = "qc_page.html"
SPACING_MM = 0.5  # of the crop, as the network has it
AXIAL_SLICES, MOST_AXIAL_SLICES = 12, 24
APART_MM = 3.0  # axial slices nearer to each other look alike
FAINT = 0.1  # least probability that is worth an axial slice of its own
STEPS = np.arange(1, 101) / 100  # thresholds of the page's slider
UNTUNED = 0.5  # where the slider begins if there is neither a mask nor a tuned threshold
_LEVELS = 255  # steps of the p-map that the page holds
_WINDOW = (1.0, 99.0)  # percentiles of slices shown as black and white, smoothed along the cord
_WINDOW_MM = 15.0
_WEBP_QUALITY = 85
_FORMAT = 3
_SHOWN = (
    *("lesion", "volume_mm3", "length_mm", "z_mm", "mean_p", "highest_p", "level", "side"),
    "depth",
)
COLUMNS = tuple(column for column in PREDICTED_LESIONS if column.name in _SHOWN)

UInt8Array = npt.NDArray[np.uint8]
Volume = npt.NDArray[np.float32]


def entry(scan: Scan, result: Segmentation, bundle: Bundle, outputs: Outputs) -> dict[str, Any]:
    """Describe a scan and its lesions for the page; JSON, base names only.

    The pictures are of the straight crop around the centerline at 0.5 mm, which shows no face:
    axial slices, through every lesion of the mask as far as `MOST_AXIAL_SLICES` allow, and the
    sagittal plane through the cord's centre with the highest probability from left to right.

    Parameters
    ----------
    scan : Scan
    result : Segmentation
        Its lesions; with p-map, mask or both.
    bundle : Bundle
        That made the p-map.
    outputs : Outputs
        Names of mask and p-map.

    Returns
    -------
    dict
        ``picture`` is what takes room; everything else fits into the page's list of scans.
    """
    rpi, turn = scan.grid.to_rpi()
    crop = CordCrop.around(result.centerline, rpi.resampled((SPACING_MM,) * 3))
    pmap, threshold = result.pmap, result.threshold
    if threshold is None:
        threshold = result.tuned_threshold or UNTUNED
    mask, rule = result.mask, None if result.filtered is None else result.filtered.rule
    if mask is None and pmap is not None:
        rule = predict.filter_of(bundle)
        mask, *_ = mask_at(pmap, threshold, scan.grid.voxel_volume_mm3, rule)
    labels = lesionwise.components(np.zeros(scan.grid.shape, bool) if mask is None else mask)
    chance = np.full(scan.grid.shape, np.nan, np.float32) if pmap is None else pmap
    image = crop.cut(turn.apply(scan.array), rpi)
    # The nearest voxel's, so that what is outlined at a threshold is what its mask would hold.
    p = crop.cut(turn.apply(np.nan_to_num(chance)), rpi, order=0)
    levels = np.floor(p * _LEVELS)
    if pmap is not None and rule is not None:
        kept = _kept(pmap, threshold, scan.grid.voxel_volume_mm3, rule)
        levels = np.rint(crop.cut(turn.apply(kept), rpi, order=0) * _LEVELS)
    numbers = crop.cut(turn.apply(labels), rpi, order=0).astype(np.int32)
    slices = axial_slices(numbers, p)
    lesions = result.rows(labels, chance, scan.grid)
    described: dict[str, Any] = {
        "format": _FORMAT,
        "name": scan.path.name,
        "bundle": f"{bundle.name} {bundle.info.version}",
        "threshold": threshold,
        "tuned": result.tuned_threshold,
        "lesions": len(lesions),
        "mm3": round(sum(row.lesion.volume_mm3 for row in lesions), 1),
        "peak": None if pmap is None else round(float(pmap.max()), 3),
        "filtered": rule is not None,
        "curve": None if pmap is None else curve(pmap, scan.grid.voxel_volume_mm3, rule),
        "centerline": result.centerline.method,
        "outside": None if result.outside is None else result.outside.sentence,
        "warnings": list(result.warnings),
        "mask": None if result.mask is None else outputs.mask.name,
        "pmap": None if pmap is None else outputs.pmap.name,
        "stored": outputs.pmap in result.written,
        "picture": {
            **_picture(image, levels.astype(np.uint8), numbers > 0, slices),
            "axial": [
                {
                    "z": z,
                    "mm": round(float(crop.grid.to_world([*crop.starts[z], crop.first + z])[2]), 1),
                    "lesions": np.unique(numbers[:, :, z])[1:].tolist(),
                }
                for z in slices
            ],
            "table": [[column.text(row) for column in COLUMNS] for row in lesions],
        },
    }
    # The key of the marks: what is seen, whatever else was written of it.
    content = hashlib.sha256(f"{threshold!r} {rule!r}".encode())
    for values in (scan.array, result.mask if pmap is None else pmap):
        content.update(np.ascontiguousarray(values).tobytes())
    described["digest"] = content.hexdigest()[:16]
    return described


def _kept(pmap: Volume, threshold: float, voxel_mm3: float, rule: Filter) -> Volume:
    """Return the highest step, or the scan's own threshold, at which a voxel passes the filter."""
    steps = np.unique([*STEPS, threshold])
    whole, *_ = mask_at(pmap, steps[0], voxel_mm3, None)
    kept, box = np.zeros_like(pmap), lesionwise.bounding_box(whole)
    kept[box] = stepped(pmap[box], steps.tolist(), voxel_mm3, rule)
    return kept


def axial_slices(labels: npt.NDArray[np.int32], pmap: Volume) -> list[int]:
    """Choose axial slices of a crop, from the top.

    Each lesion's largest section comes first, then that of whatever else is at least `FAINT`; a
    lesion that a chosen slice crosses already needs none. Then the widest gaps between slices are
    halved until there are `AXIAL_SLICES`, or none is wide enough; there is always one slice.

    Parameters
    ----------
    labels : (X, Y, Z) int
        Numbered lesions, the largest as 1.
    pmap : (X, Y, Z) float32

    >>> labels = np.zeros((2, 2, 90), np.int32)
    >>> labels[0, 0, 20:26], labels[:, :, 24] = 1, 1
    >>> axial_slices(labels, np.zeros((2, 2, 90), np.float32))
    [78, 67, 56, 46, 35, 24, 11, 5]
    """
    length = labels.shape[2]
    chosen: list[int] = []
    faint = lesionwise.components(pmap >= FAINT)
    for numbered in (labels, faint):
        for label, box in enumerate(ndimage.find_objects(numbered), start=1):
            if box is None or any(box[2].start <= z < box[2].stop for z in chosen):
                continue
            area = np.count_nonzero(numbered[box] == label, axis=(0, 1))
            chosen.append(int(box[2].start + np.argmax(area)))
    chosen = chosen[:MOST_AXIAL_SLICES]
    while len(chosen) < AXIAL_SLICES:
        away = np.abs(np.arange(length)[:, None] - [-1, length, *chosen]).min(axis=1)
        if chosen and away.max() < APART_MM / SPACING_MM:
            break
        chosen.append(int(np.argmax(away)))
    return sorted(chosen, reverse=True)


def curve(
    pmap: npt.NDArray[np.float32], voxel_mm3: float, rule: Filter | None
) -> dict[str, list[float]]:
    """Count and measure the lesions that a whole scan's mask would hold at each of `STEPS`.

    Parameters
    ----------
    pmap : (X, Y, Z) float32, in [0, 1]
    voxel_mm3 : float
    rule : Filter or None
        Of predicted lesions.

    >>> pmap = np.zeros((3, 3, 3), np.float32)
    >>> pmap[0, 0, 0], pmap[2, 2, 1:] = 0.5, 0.02
    >>> found = curve(pmap, 8.0, None)
    >>> found["lesions"][:3], found["mm3"][:3], found["mm3"][49:51]
    ([2, 2, 1], [24.0, 24.0, 8.0], [8.0, 0.0])
    """
    number, voxels = np.zeros(len(STEPS), int), np.zeros(len(STEPS), int)
    whole, *_ = mask_at(pmap, STEPS[0], voxel_mm3, None)
    labels = lesionwise.components(whole)
    # A lesion at a threshold lies in one lesion at the lowest, so each of these goes by itself.
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        own = np.where(labels[box] == label, pmap[box], np.float32(0))
        for k, step in enumerate(STEPS):
            mask, *_ = mask_at(own, step, voxel_mm3, rule)
            if not mask.any():
                break
            number[k] += lesionwise.components(mask).max()
            voxels[k] += np.count_nonzero(mask)
    return {"lesions": number.tolist(), "mm3": np.round(voxels * voxel_mm3, 1).tolist()}


def _picture(
    image: Volume, levels: UInt8Array, mask: npt.NDArray[np.bool_], slices: Sequence[int]
) -> dict[str, Any]:
    """Return the planes of a crop, one below the other: grey values, and levels and mask.

    The axial slices come first, each with the front at the top and the right on the left; then
    the sagittal plane, with the head at the top and the front on the left.

    Parameters
    ----------
    image, levels, mask : (48, 48, Z)
        The levels are those of the contour in 1/255: p, rounded down, or the highest threshold
        at which the lesion filter lets a voxel through, to the nearest.
    slices : sequence of int
        Axial ones.

    Returns
    -------
    dict
        ``grey``, a WebP image as a data URL, (48 n + Z, 48); ``values``, base64 of the deflated
        levels of that shape, followed by the mask, eight pixels a byte.
    """
    # Brightness falls off with the distance from the coil, so the window goes along the cord.
    within = np.percentile(image, _WINDOW, axis=(0, 1))
    low, high = ndimage.gaussian_filter1d(within, _WINDOW_MM / SPACING_MM, mode="nearest")
    grey = np.clip((image - low) / np.maximum(high - low, 1e-6) * 255, 0, 255)
    centre = slice(WIDTH_VOX // 2 - 1, WIDTH_VOX // 2 + 1)  # that of the cord lies between the two
    shades = _stacked(grey, grey[centre].mean(axis=0), slices).astype(np.uint8)
    heights = _stacked(levels, levels.max(axis=0), slices)
    inside = np.packbits(_stacked(mask, np.asarray(mask.any(axis=0)), slices))
    _, webp = cv2.imencode(".webp", shades, (cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY))
    values = zlib.compress(heights.tobytes() + inside.tobytes(), 9)
    return {"grey": f"data:image/webp;base64,{_text(webp.tobytes())}", "values": _text(values)}


def _stacked(
    volume: npt.NDArray[Any], side: npt.NDArray[Any], slices: Sequence[int]
) -> npt.NDArray[Any]:
    """Axial slices of a crop, (48, 48, Z), and below them a sagittal plane, (48, Z)."""
    return np.concatenate([*(volume[:, ::-1, z].T for z in slices), side[::-1, ::-1].T])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _json(content: Any) -> str:
    """JSON in ASCII that can stand in an HTML script element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def write(path: Path, entries: Sequence[Path], failed: Mapping[str, str] | None = None) -> None:
    """Write the page of stored entries; the list of scans comes first, so that it shows at once.

    Parameters
    ----------
    path : Path
        HTML file.
    entries : sequence of Path
        JSON files of `entry`, each beside the mask that it names.
    failed : mapping of str to str, optional
        Why scans that have no entry failed, by their names.

    Raises
    ------
    DataError
        An entry cannot be read, or is of another version of this page.
    OutputError
        The page cannot be written.
    """
    template = (resources.files(__package__) / "templates" / TEMPLATE).read_text(encoding="utf-8")
    listed = [_listed(_read(file), file.parent, path.parent) for file in entries]
    facts = {
        "title": path.stem,
        "version": __version__,
        "width": WIDTH_VOX,
        "spacing": SPACING_MM,
        "levels": _LEVELS,
        "columns": [column.name for column in COLUMNS],
        "failed": list((failed or {}).items()),
        "scans": listed,
    }
    before, between, after = template.replace("{{ title }}", html.escape(path.stem)).split("{{ }}")
    with atomic.replacing(path) as temporary, temporary.open("w", encoding="utf-8") as page:
        page.write(before + _json(facts) + between)
        for number, file in enumerate(entries):
            picture = _json(_read(file)["picture"])
            page.write(f'<script type="application/json" id="s{number}">{picture}</script>\n')
        page.write(after)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        known = found["format"] == _FORMAT and {"name", "picture", "mask", "pmap"} <= set(found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file}: cannot be read as an entry of the page ({error}); segment the scan "
            "again, with -force 1 if it is one of several"
        ) from error
    if not known:
        raise DataError(
            f"{file}: an entry of the page as another version writes it; segment the scan again, "
            "with -force 1 if it is one of several"
        )
    return dict(found)


def _listed(found: dict[str, Any], folder: Path, start: Path) -> dict[str, Any]:
    """Return an entry without its pictures, its files as seen from the page's folder."""
    seen = {
        name: found[name] and Path(os.path.relpath(folder / found[name], start)).as_posix()
        for name in ("mask", "pmap")
    }
    return {**{name: value for name, value in found.items() if name != "picture"}, **seen}
