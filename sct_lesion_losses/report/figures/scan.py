"""A picture of one segmented scan: the cord from the side, and its lesions slice by slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.resample import values
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report.figures import style

LESION_COLOUR = "#ff3b30"
CORD_COLOUR = "#5ac8fa"
AXIAL_SLICES = 4
AXIAL_MM = 40.0
SIDE_MM = 120.0
APART_MM = 4.0  # axial slices nearer to each other look alike
FINE_MM = 0.5


def draw(
    image: npt.NDArray[Any],
    grid: Grid,
    centerline: Centerline,
    mask: npt.NDArray[np.bool_] | None,
    pmap: npt.NDArray[np.float32] | None,
    path: Path,
    title: str,
) -> None:
    """Draw a sagittal slice and four axial ones through the largest lesions.

    Parameters
    ----------
    image, mask, pmap : (X, Y, Z)
        Scan, lesion mask and lesion probability on `grid`; without a mask the probability is
        coloured, without either the scan is drawn alone.
    grid : Grid
    centerline : Centerline
        On the RPI grid of the scan.
    path : Path
        PNG to write.
    title : str
        What was found.

    Raises
    ------
    OutputError
        Matplotlib is not installed, or the file cannot be written.
    """
    style.require()
    style.save(figure(image, grid, centerline, mask, pmap, title), path, dpi=110)


def figure(
    image: npt.NDArray[Any],
    grid: Grid,
    centerline: Centerline,
    mask: npt.NDArray[np.bool_] | None,
    pmap: npt.NDArray[np.float32] | None,
    title: str,
) -> Any:
    """Figure of `draw`: the side view's axes first, then the axial slices from the top."""
    rpi, reorientation = grid.to_rpi()
    fine = _around(centerline.filled().on(rpi.resampled((FINE_MM,) * 3)))
    scan = values(reorientation.apply(image), rpi, fine)
    line = centerline.filled().on(fine)
    marked = pmap if mask is None else mask
    overlay = None if marked is None else values(reorientation.apply(marked), rpi, fine)
    slices = _slices(overlay, line)
    made = style.sheet(6.4, 11, "black", layout="constrained")
    parts: dict[str, Any] = made.subplot_mosaic(
        [["side", "0", "1"], ["side", "2", "3"]], width_ratios=[1.25, 1, 1]
    )
    window = _window(scan, line)
    _draw_side(parts["side"], scan, overlay, line, slices, window)
    for place, z in enumerate(slices):
        _draw_axial(parts[str(place)], scan, overlay, line, z, window)
    for place in range(len(slices), AXIAL_SLICES):
        parts[str(place)].set_axis_off()
    made.suptitle(title, color="white", fontsize=11)
    return made


def _around(line: Centerline) -> Grid:
    """Part of the line's grid that the picture shows: the whole field would not fit in memory."""
    xy = line.xy[line.covered]
    reach = np.array([AXIAL_MM / 2, SIDE_MM / 2]) / FINE_MM
    low = np.clip(
        np.floor(xy.min(axis=0) - reach).astype(int), 0, np.array(line.grid.shape[:2]) - 2
    )
    high = np.clip(np.ceil(xy.max(axis=0) + reach).astype(int) + 1, low + 2, line.grid.shape[:2])
    corner = np.eye(4)
    corner[:2, 3] = low
    width, depth = (int(n) for n in high - low)
    return Grid((width, depth, line.grid.shape[2]), line.grid.affine @ corner)


def _slices(overlay: npt.NDArray[np.float32] | None, line: Centerline) -> list[int]:
    """Axial slices worth a look: through the largest lesions, then evenly along the cord."""
    covered = np.flatnonzero(line.covered)
    wanted: list[int] = []
    if overlay is not None and (overlay >= 0.5).any():
        labels = lesionwise.components(overlay >= 0.5)
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            areas = (labels[box] == label).sum(axis=(0, 1))
            wanted.append(int(box[2].start + np.argmax(areas)))
    wanted += np.linspace(covered[0], covered[-1], 2 * AXIAL_SLICES + 1)[1:-1].astype(int).tolist()
    chosen: list[int] = []
    for z in wanted:
        if all(abs(z - other) * FINE_MM >= APART_MM for other in chosen):
            chosen.append(z)
    return sorted(chosen[:AXIAL_SLICES], reverse=True)


def _window(scan: npt.NDArray[np.float32], line: Centerline) -> tuple[float, float]:
    """Grey range that shows the cord: percentiles of the voxels within 15 mm of it."""
    reach = int(15 / FINE_MM)
    near = []
    for z in np.flatnonzero(line.covered)[::4]:
        x, y = (max(int(c), 0) for c in line.xy[z])
        near.append(scan[max(x - reach, 0) : x + reach, max(y - reach, 0) : y + reach, z].ravel())
    low, high = np.percentile(np.concatenate(near), (1, 99))
    return float(low), float(high)


def _draw_side(
    axes: Any,
    scan: npt.NDArray[np.float32],
    overlay: npt.NDArray[np.float32] | None,
    line: Centerline,
    slices: list[int],
    window: tuple[float, float],
) -> None:
    """Draw the cord straightened from left to right, and outline the lesions of that plane."""
    rows, covered = np.arange(scan.shape[2]), np.flatnonzero(line.covered)
    middle_x = np.interp(rows, covered, line.xy[covered, 0]).round().astype(int)
    x = np.clip(middle_x, 0, scan.shape[0] - 1)
    axes.imshow(
        scan[x, :, rows][:, ::-1], cmap="gray", origin="lower", vmin=window[0], vmax=window[1]
    )
    if overlay is not None:
        outline(axes, overlay[x, :, rows][:, ::-1])
    for z in slices:
        axes.axhline(z, color=CORD_COLOUR, linewidth=0.6, alpha=0.7)
    y = scan.shape[1] - 1 - line.xy[line.covered, 1]
    middle = float(np.nanmean(y))
    half = max(SIDE_MM / 2 / FINE_MM, float(np.ptp(y)) / 2 + SIDE_MM / 4 / FINE_MM)
    axes.set_xlim(max(middle - half, 0), min(middle + half, scan.shape[1] - 1))
    _letters(axes, "A", "P", "S", "I")
    axes.set_axis_off()


def _draw_axial(
    axes: Any,
    scan: npt.NDArray[np.float32],
    overlay: npt.NDArray[np.float32] | None,
    line: Centerline,
    z: int,
    window: tuple[float, float],
) -> None:
    """Draw one axial slice around the cord, the patient's right on the left."""
    axes.imshow(scan[:, :, z].T, cmap="gray", origin="lower", vmin=window[0], vmax=window[1])
    if overlay is not None:
        outline(axes, overlay[:, :, z].T)
    nearest = int(np.argmin(np.abs(np.flatnonzero(line.covered) - z)))
    x, y = line.xy[np.flatnonzero(line.covered)[nearest]]
    half = AXIAL_MM / 2 / FINE_MM
    axes.set_xlim(max(x - half, -0.5), min(x + half, scan.shape[0] - 0.5))
    axes.set_ylim(max(y - half, -0.5), min(y + half, scan.shape[1] - 0.5))
    _letters(axes, "R", "L", "A", "P")
    height = line.grid.to_world([x, y, z])[2]
    axes.set_title(f"z = {height:.0f} mm", color=CORD_COLOUR, fontsize=8)
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])


def outline(
    axes: Any,
    overlay: npt.NDArray[np.float32],
    colour: str = LESION_COLOUR,
    width: float = 1.1,
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    """Outline where the overlay reaches one half.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    overlay : (H, W) float32
        Mask or probability, its first row at the bottom.
    colour : str
    width : float
        Of the line, in points.
    extent : (left, right, bottom, top), optional
        Outer edges of the pixels, as given to `imshow`; pixel numbers where left out.
    """
    if overlay.max() >= 0.5 and min(overlay.shape) > 1:
        where = {} if extent is None else {"extent": extent, "origin": "lower"}
        axes.contour(overlay, levels=[0.5], colors=colour, linewidths=width, **where)


def _letters(axes: Any, left: str, right: str, top: str, bottom: str) -> None:
    """Say which side is which."""
    style = {"color": "white", "fontsize": 9, "transform": axes.transAxes, "alpha": 0.9}
    axes.text(0.02, 0.5, left, ha="left", va="center", **style)
    axes.text(0.98, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.98, top, ha="center", va="top", **style)
    axes.text(0.5, 0.02, bottom, ha="center", va="bottom", **style)
