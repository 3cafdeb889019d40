"""Pictures of one scan with its lesions: the one beside a mask, and Figure 3 of the study."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Box, Grid, resample
from sct_lesion_losses.metrics import lesionwise, voxelwise
from sct_lesion_losses.report.figures import style

Axis = Literal[0, 2]
SAGITTAL: Axis = 0
AXIAL: Axis = 2
LESION_COLOUR = "#ff3b30"
CORD_COLOUR = "#5ac8fa"


@dataclass(frozen=True, eq=False)
class View:
    """A plane through a scan, its first row at the bottom.

    The patient's right is on the left of an axial view, the front on the left of a sagittal one.

    Attributes
    ----------
    grid, pixels : Grid
        Of the scan, in RPI, and of the view: finer in the plane, and the same across it.
    box : Box
        Part of `pixels` that is seen.
    axis : {SAGITTAL, AXIAL}
    size_mm : (float, float)
        Width and height of the panel; a smaller field of view leaves its edges empty.
    extent : (left, right, bottom, top)
        Outer edges of the pixels, mm from the middle of the panel.
    middle : (float, float, float)
        Middle of the panel, in voxels of `grid`.
    """

    grid: Grid
    pixels: Grid
    box: Box
    axis: Axis
    size_mm: tuple[float, float]
    extent: tuple[float, float, float, float]
    middle: tuple[float, float, float]

    def plane(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Cut voxels on `grid`, (X, Y, Z), or a mask: it has the nearest voxel's label, (H, W)."""
        order: Literal[0, 1] = 0 if array.dtype == bool else 1
        found = resample(array, self.grid, self.pixels, self.box, order).squeeze(self.axis).T
        return found[:, ::-1] if self.axis == SAGITTAL else found


def view(
    grid: Grid,
    axis: Axis,
    centre: tuple[float, float, float],
    size_mm: tuple[float, float],
    pixel_mm: float,
) -> View:
    """Look at a scan along the slice nearest to a point.

    Parameters
    ----------
    grid : Grid
        RPI grid of the scan.
    axis : {SAGITTAL, AXIAL}
    centre : (x, y, z)
        Voxel to show in the middle; moved where the panel would reach out of the field.
    size_mm : (float, float)
        Width and height.
    pixel_mm : float
        Wanted pixel; it gives way, so that a field of view is a whole number of them.
    """
    wanted: list[float | None] = [pixel_mm] * 3
    wanted[axis] = None
    pixels = grid.resampled(wanted)
    middle, box = list(centre), [slice(0, 0)] * 3
    middle[axis] = float(np.clip(math.floor(centre[axis] + 0.5), 0, grid.shape[axis] - 1))
    box[axis] = slice(int(middle[axis]), int(middle[axis]) + 1)
    edges = []
    for k, size in zip((1, 2) if axis == SAGITTAL else (0, 1), size_mm, strict=True):
        voxel_mm, length = grid.spacing_mm[k], grid.shape[k]
        step, reach = pixels.spacing_mm[k] / voxel_mm, min(size / 2 / voxel_mm, length / 2)
        middle[k] = float(np.clip(centre[k], reach - 0.5, length - 0.5 - reach))
        low = math.ceil(round((middle[k] - reach) / step, 6))
        high = math.floor(round((middle[k] + reach) / step, 6))
        box[k] = slice(low, high + 1)
        edges += [(edge * step - middle[k]) * voxel_mm for edge in (low - 0.5, high + 0.5)]
    left, right, bottom, top = edges
    if axis == SAGITTAL:
        left, right = -right, -left
    return View(
        grid,
        pixels,
        (box[0], box[1], box[2]),
        axis,
        size_mm,
        (left, right, bottom, top),
        (middle[0], middle[1], middle[2]),
    )


def show(
    axes: Any, seen: View, image: npt.NDArray[np.float32], window: tuple[float, float]
) -> None:
    """Draw the plane of an image in grey, the panel's middle at (0, 0) mm.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Of the proportions of the view.
    seen : View
    image : (H, W) float32
        From `View.plane`.
    window : (float, float)
        Intensities that are black, and white.
    """
    axes.imshow(
        image,
        cmap="gray",
        origin="lower",
        extent=seen.extent,
        interpolation="nearest",
        aspect="auto",
        vmin=window[0],
        vmax=window[1],
    )
    width, height = seen.size_mm
    axes.set_xlim(-width / 2, width / 2)
    axes.set_ylim(-height / 2, height / 2)


def outline(
    axes: Any,
    plane: npt.NDArray[np.float32],
    colour: str = LESION_COLOUR,
    width: float = 1.1,
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    """Outline where a plane reaches one half.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    plane : (H, W) float32
        Mask or probability, its first row at the bottom.
    colour : str
    width : float
        Of the line, in points.
    extent : (left, right, bottom, top), optional
        Outer edges of the pixels, as given to `imshow`; pixel numbers where left out.
    """
    if plane.max() >= 0.5 and min(plane.shape) > 1:
        where = {} if extent is None else {"extent": extent, "origin": "lower"}
        axes.contour(plane, levels=[0.5], colors=colour, linewidths=width, **where)


def _letters(axes: Any, sides: str, margin: float, **options: Any) -> None:
    """Say which side is which: left, right, top, bottom."""
    places = [(margin, 0.5), (1 - margin, 0.5), (0.5, 0.98), (0.5, 0.02)]
    aligned = [("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom")]
    for letter, place, (ha, va) in zip(sides, places, aligned, strict=False):
        options |= {"ha": ha, "va": va, "transform": axes.transAxes, "color": "white"}
        axes.text(*place, letter, **options)


AXIAL_SLICES = 4
AXIAL_MM = 40.0
SIDE_MM = 120.0
APART_MM = 4.0  # axial slices nearer to each other look alike
FINE_MM = 0.5


@style.drawing()
def figure(
    image: npt.NDArray[Any],
    grid: Grid,
    centerline: Centerline,
    marked: npt.NDArray[Any],
    title: str,
) -> Any:
    """Draw the cord from the side, straightened, and four axial slices through the largest lesions.

    Parameters
    ----------
    image, marked : (X, Y, Z)
        Scan, and its lesion mask, or the lesion probability, which is outlined at one half.
    grid : Grid
    centerline : Centerline
        On the RPI grid of the scan.
    title : str
        What was found.

    Returns
    -------
    matplotlib.figure.Figure
        The side view's axes first, then the axial slices from the top.
    """
    rpi, reorientation = grid.to_rpi()
    line = centerline.filled().on(rpi.resampled((FINE_MM,) * 3))
    covered = np.flatnonzero(line.covered)
    box = _around(line.xy[covered], line.grid)
    scan, lesions = (
        resample(reorientation.apply(array), rpi, line.grid, box) for array in (image, marked)
    )
    xy = line.xy[covered] - (box[0].start, box[1].start)
    slices = _slices(lesions, covered)
    low, high = _window(scan, xy[::4], covered[::4])
    made = style.sheet(6.4, 11, "black", dpi=110, layout="constrained")
    parts: dict[str, Any] = made.subplot_mosaic(
        [["side", "0", "1"], ["side", "2", "3"]], width_ratios=[1.25, 1, 1]
    )

    def panel(axes: Any, plane: Callable[[Any], npt.NDArray[np.float32]], sides: str) -> None:
        axes.imshow(plane(scan), cmap="gray", origin="lower", vmin=low, vmax=high)
        outline(axes, plane(lesions))
        _letters(axes, sides, 0.02, fontsize=9, alpha=0.9)

    rows, length = np.arange(scan.shape[2]), scan.shape[1] - 1
    middle_x = np.interp(rows, covered, xy[:, 0]).round().astype(int)
    x_of = np.clip(middle_x, 0, scan.shape[0] - 1)
    side = parts["side"]
    panel(side, lambda volume: volume[x_of, :, rows][:, ::-1], "APSI")
    for z in slices:
        side.axhline(z, color=CORD_COLOUR, linewidth=0.6, alpha=0.7)
    from_front = length - xy[:, 1]
    middle = float(np.mean(from_front))
    half = max(SIDE_MM / 2 / FINE_MM, float(np.ptp(from_front)) / 2 + SIDE_MM / 4 / FINE_MM)
    side.set_xlim(max(middle - half, 0), min(middle + half, length))

    half = AXIAL_MM / 2 / FINE_MM
    for place, z in enumerate(slices):
        axes = parts[str(place)]
        panel(axes, lambda volume, z=z: volume[:, :, z].T, "RLAP")  # type: ignore[misc]
        nearest = np.argmin(np.abs(covered - z))
        x, y = xy[nearest]
        axes.set_xlim(max(x - half, -0.5), min(x + half, scan.shape[0] - 0.5))
        axes.set_ylim(max(y - half, -0.5), min(y + half, scan.shape[1] - 0.5))
        height = line.grid.to_world([*line.xy[covered[nearest]], z])[2]
        axes.set_title(f"z = {height:.0f} mm", color=CORD_COLOUR, fontsize=8)
    for axes in parts.values():
        axes.set_axis_off()
    made.suptitle(title, color="white", fontsize=11)
    return made


def _around(xy: npt.NDArray[np.float64], grid: Grid) -> Box:
    """Part of the grid of a line that the picture shows: the whole would not fit in memory."""
    reach, field = np.array([AXIAL_MM / 2, SIDE_MM / 2]) / FINE_MM, np.array(grid.shape[:2])
    low = np.clip(np.floor(xy.min(axis=0) - reach).astype(int), 0, field - 2)
    high = np.clip(np.ceil(xy.max(axis=0) + reach).astype(int) + 1, low + 2, field)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(0, grid.shape[2])


def _slices(lesions: npt.NDArray[np.float32], covered: npt.NDArray[np.intp]) -> list[int]:
    """Axial slices worth a look: through the largest lesions, then evenly along the cord."""
    wanted: list[int] = []
    labels = lesionwise.components(lesions >= 0.5)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        areas = (labels[box] == label).sum(axis=(0, 1))
        wanted.append(int(box[2].start + np.argmax(areas)))
    wanted += np.linspace(covered[0], covered[-1], 2 * AXIAL_SLICES + 1)[1:-1].astype(int).tolist()
    chosen: list[int] = []
    for z in wanted:
        if all(abs(z - other) * FINE_MM >= APART_MM for other in chosen):
            chosen.append(z)
    return sorted(chosen[:AXIAL_SLICES], reverse=True)


def _window(
    scan: npt.NDArray[np.float32], xy: npt.NDArray[np.float64], slices: npt.NDArray[np.intp]
) -> tuple[float, float]:
    """Grey range that shows the cord: percentiles of the voxels within 15 mm of its centres."""
    reach = int(15 / FINE_MM)
    near = [
        scan[max(x - reach, 0) : x + reach, max(y - reach, 0) : y + reach, z].ravel()
        for (x, y), z in zip(np.maximum(xy.astype(int), 0), slices, strict=True)
    ]
    low, high = np.percentile(np.concatenate(near), (1, 99))
    return float(low), float(high)


TRUTH_COLOUR = style.SKY
# How a model's voxels are filled, by their labels in the figure, and what the legend calls them.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "TP": ("true positive", {"facecolor": style.GREEN}),
    "FN": ("false negative", {"facecolor": "white"}),
    "FP": ("false positive", {"facecolor": style.VERMILLION, "hatch": "//////"}),
}
SCALE_MM = 10
_MOST = 6  # panels side by side
_MARGIN_MM = 8.0  # around the lesions
_LEAST_MM = (36.0, 48.0)  # width and height
_MOST_MM = (70.0, 150.0)
_HIGHEST = 2.4  # height of a panel, of its width
_PIXEL_MM = 0.15  # fine enough that the edges of voxels are straight
_WINDOW = (1.0, 99.5)  # percentiles of the panel shown as black and white
_LINE_INCH, _GAP_INCH, _LEGEND_INCH = 0.16, 0.09, 0.22
_LETTERS = 13.5  # an inch, of a title


@style.drawing()
def comparison(
    image: npt.NDArray[Any],
    grid: Grid,
    truth: npt.NDArray[np.bool_],
    masks: Mapping[str, npt.NDArray[np.bool_]],
) -> Any:
    """Draw the sagittal slice with most lesion: alone, with the truth, and with each mask on it.

    The truth is blue; true positive voxels are green, false negative ones white, false positive
    ones red and hatched. The V-F1 in a title is that of the whole scan.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan.
    grid : Grid
        Native grid of the scan and of all masks.
    truth : (X, Y, Z) bool
        Manual mask.
    masks : mapping of str to (X, Y, Z) bool
        Lesions by each model, by its name and whatever the title shall say beside it; line breaks
        are kept, long lines broken.

    Returns
    -------
    matplotlib.figure.Figure
        Axes for the scan, the truth, and each model in the order of `masks`. The images over the
        scan are labelled ``truth``, ``TP``, ``FN`` and ``FP``.

    Raises
    ------
    DataError
        The manual mask is empty.

    References
    ----------
    Hussein et al. 2023, figure 3.
    """
    from matplotlib.patches import Patch

    if not truth.any():
        raise DataError("the manual mask holds no lesion; choose a scan that has some")
    rpi, turn = grid.to_rpi()
    lesions, found = turn.apply(truth), {name: turn.apply(mask) for name, mask in masks.items()}
    x = int(np.argmax(lesions.sum(axis=(1, 2))))
    centre, size_mm = _panel(lesions[x], [mask[x] for mask in found.values()], rpi.spacing_mm)
    seen = view(rpi, SAGITTAL, (x, *centre), size_mm, _PIXEL_MM)
    plane, manual = seen.plane(turn.apply(image)), seen.plane(lesions) > 0
    every, names = _panels(list(masks), size_mm)
    scores = [f"V-F1 {voxelwise.score(truth, mask).f1:.2f}" for mask in masks.values()]
    titles = [f"{name}\n{score}" for name, score in zip(names, scores, strict=True)]
    low, high = np.percentile(plane, _WINDOW)
    for axes, title in zip(every, ["scan", "manual mask", *titles], strict=True):
        show(axes, seen, plane, (low, high))
        axes.set(facecolor="black", xticks=[], yticks=[], title=title)
        axes.spines[:].set_visible(False)
    _mark_sides(every[0], size_mm)
    _fill(every[1], seen, manual, "truth", facecolor=TRUTH_COLOUR)
    for axes, mask in zip(every[2:], found.values(), strict=True):
        own = seen.plane(mask) > 0
        for kind, where in {"TP": own & manual, "FN": manual & ~own, "FP": own & ~manual}.items():
            _fill(axes, seen, where, kind, **KINDS[kind][1])
    frame: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.6}
    said = [Patch(label=label, **options, **frame) for label, options in KINDS.values()]
    made = every[0].figure
    made.legend(handles=said, loc="lower center", ncols=3, borderaxespad=0.2)
    return made


def _panels(names: Sequence[str], size_mm: tuple[float, float]) -> tuple[list[Any], list[str]]:
    """Axes of the proportions of a view, and names broken into lines no wider than they are."""
    number = 2 + len(names)
    rows, columns = style.shape(number, _MOST)
    step = style.WIDTH_INCH / max(columns, 4)
    width = step - _GAP_INCH
    height = width * size_mm[1] / size_mm[0]
    titles = [
        "\n".join(
            textwrap.fill(line, int(_LETTERS * step), break_long_words=False)
            for line in name.split("\n")
        )
        for name in names
    ]
    lines = 1 + max((title.count("\n") + 1 for title in titles), default=0)
    above = lines * _LINE_INCH + _GAP_INCH
    full = columns * step, rows * (above + height + _GAP_INCH) + _LEGEND_INCH
    made = style.sheet(full[1], full[0])
    every = []
    for place in range(number):
        row, column = divmod(place, columns)
        left = column * step + _GAP_INCH / 2
        bottom = full[1] - row * (above + height + _GAP_INCH) - above - height
        place_of = (left / full[0], bottom / full[1], width / full[0], height / full[1])
        every.append(made.add_axes(place_of))
    return every, titles


def _panel(
    truth: npt.NDArray[np.bool_],
    masks: list[npt.NDArray[np.bool_]],
    spacing_mm: tuple[float, float, float],
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Middle (y, z), in voxels, and size in mm of a panel around the lesions of a slice.

    It holds the truth, and of what is predicted what is not too far from it.
    """
    step = np.array(spacing_mm[1:])
    own = np.argwhere(truth)
    middle = (own.min(axis=0) + own.max(axis=0)) / 2
    reach = (np.array(_MOST_MM) / 2 - _MARGIN_MM) / step
    predicted = np.concatenate([np.argwhere(mask) for mask in masks]) if masks else own
    near = predicted[(np.abs(predicted - middle) <= reach).all(axis=1)]
    shown = np.concatenate([own, near])
    low, high = shown.min(axis=0), shown.max(axis=0)
    size = (high - low + 1) * step + 2 * _MARGIN_MM
    # No more than the field of view: the rest of the panel would be empty.
    width, height = np.minimum(np.maximum(size, _LEAST_MM), np.array(truth.shape) * step)
    width = min(max(width, height / _HIGHEST), truth.shape[0] * step[0])
    centre = (low + high) / 2
    return (float(centre[0]), float(centre[1])), (float(width), float(height))


def _fill(
    axes: Any,
    seen: View,
    where: npt.NDArray[np.bool_],
    label: str,
    facecolor: str,
    hatch: str | None = None,
) -> None:
    """Fill pixels, framed in black."""
    if not where.any():
        return
    # A frame of empty pixels closes outlines at the edge of the panel.
    field = np.pad(where.astype(np.float32), 1)
    left, right, bottom, top = seen.extent
    across, up = (right - left) / where.shape[1], (top - bottom) / where.shape[0]
    extent = (left - across, right + across, bottom - up, top + up)
    options: dict[str, Any] = {"extent": extent, "origin": "lower", "zorder": 2}
    filled = axes.contourf(field, levels=[0.5, 2], colors=[facecolor], hatches=[hatch], **options)
    filled.set_label(label)
    axes.contour(field, levels=[0.5], colors="black", linewidths=0.5, **options)


def _mark_sides(axes: Any, size_mm: tuple[float, float]) -> None:
    """Draw the scale bar, and say which side is which."""
    from matplotlib.patheffects import withStroke

    width, height = size_mm
    left, bottom = -width / 2 + 0.06 * width, -height / 2 + 0.05 * height
    axes.plot([left, left + SCALE_MM], [bottom] * 2, color="white", lw=2, solid_capstyle="butt")
    shadow = [withStroke(linewidth=1.5, foreground="black")]
    said = {"color": "white", "path_effects": shadow}
    axes.text(left, bottom + 0.012 * height, f"{SCALE_MM} mm", ha="left", **said)
    _letters(axes, "APS", 0.04, path_effects=shadow)
