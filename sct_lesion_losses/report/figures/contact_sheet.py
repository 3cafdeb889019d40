"""A contact sheet of a cohort: some of its scans beside their labels, for the eye."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import atomic, nifti
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report.figures import overlay, style
from sct_lesion_losses.report.figures import scan as figure
from sct_lesion_losses.report.figures.overlay import AXIAL, SAGITTAL, Cut, Labelled, cut
from sct_lesion_losses.report.figures.style import counted

ENDING = ".png"
MOST_WITH_LESIONS = 13
LESION_FREE = 3
COLUMNS = 4
SIDE_MM = (120.0, 180.0)
AXIAL_MM = 90.0
ZOOM_MM = 30.0
WINDOW = (1.0, 99.5)  # percentiles of the scan shown as black and white
DPI = 195  # seven inches wide, with four columns
THICK = 1.5  # ratio of spacings from which a scan has slices
_PIXEL_MM = 0.65  # of the sheet; the zoomed panels have a finer one
_GAP_MM = 3.0  # between panels
_TITLE_MM = 25.0
_FOOT_MM = 11.0  # a line
_MARK_MM = 6.0
_LETTERS = 44  # that the width of a tile holds
_FONT: dict[str, Any] = {"color": "white", "fontsize": 5.0}
_FOOT = (
    "Each scan: through the middle of the cord, the front on the left; the slice at the blue marks "
    "through its largest lesion (or the middle of the cord), the patient's right on the left; "
    "enlarged, its labels: lesions red, cord blue."
)


@dataclass(frozen=True, eq=False)
class Tile:
    """What the sheet shows of one scan.

    Attributes
    ----------
    title : str
        Two lines.
    sagittal, axial, zoom : Cut
    level_mm : float
        Height of the axial cuts above the middle of the sagittal one.
    window : (float, float)
        Intensities shown as black and white.
    """

    title: str
    sagittal: Cut
    axial: Cut
    zoom: Cut
    level_mm: float
    window: tuple[float, float]


def draw(scans: Sequence[CohortScan], path: Path) -> None:
    """Draw some scans of a cohort, each from the side, in an axial slice, and with its labels.

    The same scans give the same file.

    Parameters
    ----------
    scans : sequence of CohortScan
        Of any orientation; `chosen` says which of them are drawn.
    path : Path
        Ends in .png.

    Raises
    ------
    DataError
        There is no scan.
    ImageError, GeometryError
        A scan or a mask cannot be read, or they do not lie on one grid.
    UsageError, OutputError
        See `check`; or the file cannot be written.
    """
    check(path)
    made = sheet([tile(scan) for scan in chosen(scans)])
    style.save(made, path, DPI, optimize=True)


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

    Raises
    ------
    DataError
        There is no scan.
    """
    if not scans:
        raise DataError("the cohort has no scan to draw; a contact sheet needs at least one")
    ordered = sorted(scans, key=lambda scan: (scan.site, scan.name))
    bearing: dict[str, list[CohortScan]] = {}
    free: dict[str, list[CohortScan]] = {}
    for scan in ordered:
        kind = bearing if nifti.read_mask(scan.lesion_mask).array.any() else free
        kind.setdefault(scan.site, []).append(scan)
    missing_first = sorted(free, key=lambda site: site in bearing)
    with_lesions = _in_turn(bearing.values())[:MOST_WITH_LESIONS]
    without = _in_turn([free[site] for site in missing_first])[:LESION_FREE]
    return [scan for part in (with_lesions, without) for scan in ordered if scan in part]


def tile(scan: CohortScan) -> Tile:
    """Read a scan with its masks, and cut it."""
    image = nifti.read(scan.scan)
    grid, turn = image.grid.to_rpi()
    lesions = turn.apply(nifti.read_mask(scan.lesion_mask, like=image.grid).array)
    cord = np.zeros(grid.shape, bool)
    mask = cohorts.cord_mask(scan)
    if mask is not None:
        cord = turn.apply(nifti.read_mask(mask, like=image.grid).array)
    line = cord
    if not line.any() and scan.centerline is not None:
        line = turn.apply(nifti.read_mask(scan.centerline, like=image.grid).array)
    labelled = Labelled(turn.apply(image.array), lesions, cord, grid, _centres(line, grid))

    z = labelled.slice_to_show
    middle = labelled.centre(z)
    reach = SIDE_MM[1] / 2 / grid.spacing_mm[2]
    near = labelled.xy[max(int(z - reach), 0) : int(z + reach) + 1, 0]
    side = cut(labelled, SAGITTAL, (float(np.median(near)), *middle[1:]), SIDE_MM, _PIXEL_MM)
    low, high = np.percentile(image.array, WINDOW)
    return Tile(
        title=_title(scan, grid, int(lesionwise.components(lesions).max())),
        sagittal=side,
        axial=cut(labelled, AXIAL, middle, (AXIAL_MM,) * 2, _PIXEL_MM),
        zoom=cut(labelled, AXIAL, middle, (ZOOM_MM,) * 2, _PIXEL_MM * ZOOM_MM / AXIAL_MM),
        level_mm=(z - side.middle[2]) * grid.spacing_mm[2],
        window=(float(low), float(high)),
    )


def sheet(tiles: Sequence[Tile]) -> Any:
    """Lay tiles out on a figure, three panels each, all but the zoomed ones at one scale."""
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    step = SIDE_MM[0] + AXIAL_MM + 3 * _GAP_MM, SIDE_MM[1] + _TITLE_MM + _GAP_MM
    foot = textwrap.wrap(_FOOT, _LETTERS * columns)
    width, height = columns * step[0], rows * step[1] + len(foot) * _FOOT_MM + 2 * _GAP_MM
    pixels = np.round(np.array([width, height]) / _PIXEL_MM)
    made = style.sheet(pixels[1] / DPI, pixels[0] / DPI, "black")

    def panel(left: float, top: float, size: tuple[float, float]) -> Any:
        bottom = height - top - size[1]
        return made.add_axes(
            (left / width, bottom / height, size[0] / width, size[1] / height), facecolor="black"
        )

    for number, scan_tile in enumerate(tiles):
        left = number % columns * step[0] + _GAP_MM
        top = number // columns * step[1] + _TITLE_MM
        beside = left + SIDE_MM[0] + _GAP_MM / 2
        _draw_side(panel(left, top, SIDE_MM), scan_tile)
        _show(panel(beside, top, (AXIAL_MM,) * 2), scan_tile.axial, scan_tile.window)
        _draw_zoom(panel(beside, top + SIDE_MM[1] - AXIAL_MM, (AXIAL_MM,) * 2), scan_tile)
        made.text(left / width, 1 - (top - 2) / height, scan_tile.title, va="bottom", **_FONT)
    made.text(_GAP_MM / width, _GAP_MM / height, "\n".join(foot), va="bottom", **_FONT)
    return made


def _in_turn(groups: Iterable[Sequence[CohortScan]]) -> list[CohortScan]:
    """Take the first scan of each group, then the second of each, and so on."""
    return [scan for turn in zip_longest(*groups) for scan in turn if scan is not None]


def _centres(mask: npt.NDArray[np.bool_], grid: Grid) -> npt.NDArray[np.float64]:
    """Centre of the cord in each slice, (Z, 2) voxels; without a mask, the middle of the field."""
    middle = (np.array(grid.shape[:2]) - 1) / 2
    if not mask.any():
        return np.tile(middle, (grid.shape[2], 1))
    xy = Centerline.from_mask(mask, grid).xy
    known = np.flatnonzero(np.isfinite(xy[:, 0]))
    z = np.arange(grid.shape[2])
    return np.column_stack([np.interp(z, known, xy[known, k]) for k in range(2)])


def _title(scan: CohortScan, grid: Grid, lesions: int) -> str:
    """Say whose scan this is, from what scanner, and how it was taken."""
    name = scan.name.removesuffix("_T2w").replace("_", " ")
    known = (name, scan.site and f"site {scan.site}", _scanner(scan.scan))
    found = counted(lesions, "lesion") if lesions else "no lesions"
    lines = (", ".join(filter(None, known)), f"{acquired(grid)}, {found}")
    return "\n".join(textwrap.shorten(line, _LETTERS, placeholder=" …") for line in lines)


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


def _scanner(image: Path) -> str:
    """Manufacturer and field strength by the scan's sidecar, as far as they are known."""
    try:
        sidecar = json.loads((image.parent / f"{nifti.stem(image)[0]}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""  # a cohort given as a table has no sidecars
    if not isinstance(sidecar, dict):
        return ""
    maker, tesla = sidecar.get("Manufacturer"), sidecar.get("MagneticFieldStrength")
    known = (
        maker if isinstance(maker, str) else "",
        f"{tesla:g} T" if isinstance(tesla, int | float) else "",
    )
    return " ".join(filter(None, known))


def _show(axes: Any, shown: Cut, window: tuple[float, float]) -> None:
    overlay.show(axes, shown, window)
    axes.set_axis_off()


def _draw_side(axes: Any, scan_tile: Tile) -> None:
    """Draw the sagittal cut, with marks at the height of the axial one."""
    _show(axes, scan_tile.sagittal, scan_tile.window)
    edge = scan_tile.sagittal.size_mm[0] / 2
    for start, end in ((-edge, _MARK_MM - edge), (edge - _MARK_MM, edge)):
        axes.plot([start, end], [scan_tile.level_mm] * 2, color=figure.CORD_COLOUR, linewidth=0.8)


def _draw_zoom(axes: Any, scan_tile: Tile) -> None:
    """Draw the enlarged axial cut with its labels."""
    _show(axes, scan_tile.zoom, scan_tile.window)
    for mask, colour in (
        (scan_tile.zoom.cord, figure.CORD_COLOUR),
        (scan_tile.zoom.lesions, figure.LESION_COLOUR),
    ):
        figure.outline(axes, mask, colour, width=0.6, extent=scan_tile.zoom.extent)
