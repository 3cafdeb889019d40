"""Contact sheet of a cohort with known lesions: some scans beside their labels."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import atomic, nifti
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report import counted
from sct_lesion_losses.report.figures import scan as views
from sct_lesion_losses.report.figures import style
from sct_lesion_losses.report.figures.scan import AXIAL, CORD_COLOUR, LESION_COLOUR, SAGITTAL, view

ENDING = ".png"
MOST_WITH_LESIONS = 13
LESION_FREE = 3
COLUMNS = 4
SIDE_MM = (120.0, 180.0)
AXIAL_MM = (90.0, 90.0)
ZOOM_MM = (30.0, 30.0)
WINDOW = (1.0, 99.5)  # percentiles of the scan shown as black and white
DPI = 195  # seven inches wide, with four columns
THICK = 1.5  # ratio of spacings from which a scan has slices
_PIXEL_MM = 0.65  # of the sheet; the zoomed panels have a finer one
_GAP_MM = 3.0  # between panels
_TITLE_MM = 25.0
_FOOT_MM = 11.0  # a line
_MARK_MM = 6.0
_LETTERS = 44  # that the width of a tile holds
_FONT: dict[str, Any] = {"color": "white", "fontsize": 5.0, "va": "bottom"}
_FOOT = (
    "Each scan: through the middle of the cord, the front on the left; the slice at the blue marks "
    "through its largest lesion (or the middle of the cord), the patient's right on the left; "
    "enlarged, its labels: lesions red, cord blue."
)


def check(path: Path) -> None:
    """Refuse what cannot be drawn, before any work is done.

    Raises
    ------
    UsageError
        The name has another ending than .png.
    OutputError
        Matplotlib is not installed, or the folder cannot be written.
    """
    if path.suffix.lower() != ENDING:
        raise UsageError(f"{path}: expected a name that ends in {ENDING}")
    style.require()
    atomic.require_writable(path.parent)


def chosen(scans: Sequence[CohortScan]) -> list[CohortScan]:
    """Choose at most 13 scans with lesions, in turn from each site, and 3 without.

    Those without lesions are from sites that would be missing otherwise, as far as there are any.
    """
    ordered = sorted(scans, key=lambda scan: (scan.site, scan.name))
    bearing: dict[str, list[CohortScan]] = {}
    free: dict[str, list[CohortScan]] = {}
    for scan in ordered:
        kind = bearing if nifti.read_mask(scan.lesion_mask).array.any() else free
        kind.setdefault(scan.site, []).append(scan)
    missing_first = sorted(free, key=lambda site: site in bearing)

    def in_turn(groups: Iterable[list[CohortScan]], most: int) -> list[CohortScan]:
        """Take the first scan of each group, then the second of each, and so on."""
        taken = [scan for turn in zip_longest(*groups) for scan in turn if scan is not None][:most]
        return [scan for scan in ordered if scan in taken]

    with_lesions = in_turn(bearing.values(), MOST_WITH_LESIONS)
    return with_lesions + in_turn([free[site] for site in missing_first], LESION_FREE)


@style.drawing()
def figure(scans: Sequence[CohortScan], near_mm: float | None = None) -> Any:
    """Draw some scans of a cohort, each from the side, in an axial slice, and with its labels.

    Parameters
    ----------
    scans : sequence of CohortScan
        Of any orientation, with cord masks and sidecars; `chosen` says which of them are drawn.
    near_mm : float, optional
        Show only what is so near to the cord, and no face.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels for each scan, all but the enlarged ones at one scale.

    Raises
    ------
    ImageError, GeometryError
        A scan or a mask cannot be read, or they do not lie on one grid.
    """
    shown = chosen(scans)
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    step = SIDE_MM[0] + AXIAL_MM[0] + 3 * _GAP_MM, SIDE_MM[1] + _TITLE_MM + _GAP_MM
    foot = textwrap.wrap(_FOOT, _LETTERS * columns)
    width, height = columns * step[0], rows * step[1] + len(foot) * _FOOT_MM + 2 * _GAP_MM
    pixels = np.round(np.array([width, height]) / _PIXEL_MM)
    made = style.sheet(pixels[1] / DPI, pixels[0] / DPI, "black", dpi=DPI)

    def panel(left: float, top: float, size: tuple[float, float]) -> Any:
        bottom = height - top - size[1]
        place = (left / width, bottom / height, size[0] / width, size[1] / height)
        axes = made.add_axes(place)
        axes.set_axis_off()
        return axes

    for number, scan in enumerate(shown):
        left = number % columns * step[0] + _GAP_MM
        top = number // columns * step[1] + _TITLE_MM
        beside = left + SIDE_MM[0] + _GAP_MM / 2
        panels = (
            panel(left, top, SIDE_MM),
            panel(beside, top, AXIAL_MM),
            panel(beside, top + SIDE_MM[1] - AXIAL_MM[1], AXIAL_MM),
        )
        made.text(left / width, 1 - (top - 2) / height, _draw(scan, near_mm, *panels), **_FONT)
    made.text(_GAP_MM / width, _GAP_MM / height, "\n".join(foot), **_FONT)
    return made


def _draw(scan: CohortScan, near_mm: float | None, side: Any, axial: Any, zoom: Any) -> str:
    """Draw a scan, with marks at the height of the axial views in the sagittal one; name it."""
    image = nifti.read(scan.scan)
    grid, turn = image.grid.to_rpi()
    voxels = turn.apply(image.array)
    lesions, cord = (
        turn.apply(nifti.read_mask(mask, like=image.grid).array)
        for mask in (scan.lesion_mask, cohorts.cord_mask(scan))
        if mask is not None
    )
    if near_mm is not None:
        away = ndimage.distance_transform_edt(~cord, grid.spacing_mm)
        voxels = np.where(away <= near_mm, voxels, 0)
    labels = lesionwise.components(lesions)
    covered = np.flatnonzero(cord.any(axis=(0, 1)))
    of_largest = (labels == 1).sum(axis=(0, 1))
    z = int(np.argmax(of_largest) if of_largest.any() else np.median(covered))
    known = Centerline.from_mask(cord, grid).xy[covered]
    xy = np.column_stack(
        [np.interp(np.arange(grid.shape[2]), covered, known[:, k]) for k in range(2)]
    )
    reach = SIDE_MM[1] / 2 / grid.spacing_mm[2]
    near = xy[max(int(z - reach), 0) : int(z + reach) + 1, 0]
    x, y = map(float, xy[z])
    low, high = np.percentile(image.array, WINDOW)
    finer = _PIXEL_MM * ZOOM_MM[0] / AXIAL_MM[0]
    from_side = view(grid, SAGITTAL, (float(np.median(near)), y, z), SIDE_MM, _PIXEL_MM)
    enlarged = view(grid, AXIAL, (x, y, z), ZOOM_MM, finer)
    for axes, seen in (
        (side, from_side),
        (axial, view(grid, AXIAL, (x, y, z), AXIAL_MM, _PIXEL_MM)),
        (zoom, enlarged),
    ):
        views.show(axes, seen, seen.plane(voxels), (low, high))
    level = (z - from_side.middle[2]) * grid.spacing_mm[2]
    edge = SIDE_MM[0] / 2
    for start, end in ((-edge, _MARK_MM - edge), (edge - _MARK_MM, edge)):
        side.plot([start, end], [level] * 2, color=CORD_COLOUR, linewidth=0.8)
    for mask, colour in ((cord, CORD_COLOUR), (lesions, LESION_COLOUR)):
        views.outline(zoom, enlarged.plane(mask), colour, width=0.6, extent=enlarged.extent)

    sidecar = json.loads((scan.scan.parent / f"{nifti.stem(scan.scan)[0]}.json").read_text("utf-8"))
    scanner = ""
    if "Manufacturer" in sidecar:
        scanner = f"{sidecar['Manufacturer']} {sidecar['MagneticFieldStrength']:g} T"
    name = scan.name.removesuffix("_T2w").replace("_", " ")
    known_of = (name, scan.site and f"site {scan.site}", scanner)
    found = counted(int(labels.max()), "lesion") if labels.any() else "no lesions"
    said = (", ".join(filter(None, known_of)), f"{acquired(grid)}, {found}")
    return "\n".join(textwrap.shorten(line, _LETTERS, placeholder=" …") for line in said)


def acquired(grid: Grid) -> str:
    """Plane of the slices of an RPI grid, and the spacing of its voxels, across slices last.

    >>> print(acquired(Grid((14, 300, 300), np.diag([-3.3, 0.5, 0.6, 1]))))
    sagittal, 0.50 × 0.60 × 3.30 mm
    """
    spacing = grid.spacing_mm
    axis = int(np.argmax(spacing))
    in_plane = [spacing[k] for k in range(3) if k != axis]
    thick = spacing[axis] >= THICK * max(in_plane)
    plane = ("sagittal", "coronal", "axial")[axis] if thick else "3-D"
    return f"{plane}, {' × '.join(f'{mm:.2f}' for mm in (*in_plane, spacing[axis]))} mm"
