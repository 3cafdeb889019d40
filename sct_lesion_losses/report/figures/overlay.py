"""Figure 3 of the study: one sagittal slice, its lesions, and what each model makes of them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.errors import DataError, GeometryError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.resample import Box, values
from sct_lesion_losses.metrics import lesionwise, voxelwise
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.figures import style

Axis = Literal[0, 2]
SAGITTAL: Axis = 0
AXIAL: Axis = 2


@dataclass(frozen=True, eq=False)
class Labelled:
    """A scan with its masks, in RPI.

    Attributes
    ----------
    image, lesions, cord : (X, Y, Z)
        Voxels and masks on `grid`; a cord mask that is not known is empty.
    grid : Grid
    xy : (Z, 2) float64
        Centre of the cord in each axial slice, in voxels.
    """

    image: npt.NDArray[Any]
    lesions: npt.NDArray[np.bool_]
    cord: npt.NDArray[np.bool_]
    grid: Grid
    xy: npt.NDArray[np.float64]

    @property
    def slice_to_show(self) -> int:
        """Axial slice with most of the largest lesion; without one, the middle of the cord."""
        labels = lesionwise.components(self.lesions)
        if labels.any():
            return int(np.argmax((labels == 1).sum(axis=(0, 1))))
        covered = np.flatnonzero(self.cord.any(axis=(0, 1)))
        return int(np.median(covered)) if len(covered) else self.grid.shape[2] // 2

    def centre(self, z: int) -> tuple[float, float, float]:
        """Centre of the cord in an axial slice, in voxels."""
        return float(self.xy[z, 0]), float(self.xy[z, 1]), float(z)


@dataclass(frozen=True, eq=False)
class Cut:
    """One plane of a scan, its first row at the bottom.

    The patient's right is on the left of an axial cut, the front on the left of a sagittal one.

    Attributes
    ----------
    image : (H, W) float32
        Linear interpolation in the plane, the voxels of one slice across it.
    lesions, cord : (H, W) float32, in {0, 1}
        The nearest voxel's label.
    extent : (left, right, bottom, top)
        Outer edges of the pixels, mm from the middle of the panel.
    size_mm : (float, float)
        Width and height of the panel; a smaller field of view leaves its edges empty.
    middle : (float, float, float)
        Middle of the panel, in RPI voxels of the scan.
    """

    image: npt.NDArray[np.float32]
    lesions: npt.NDArray[np.float32]
    cord: npt.NDArray[np.float32]
    extent: tuple[float, float, float, float]
    size_mm: tuple[float, float]
    middle: tuple[float, float, float]


def cut(
    scan: Labelled,
    axis: Axis,
    centre: tuple[float, float, float],
    size_mm: tuple[float, float],
    pixel_mm: float,
) -> Cut:
    """Cut a scan along the slice nearest to a point.

    Parameters
    ----------
    scan : Labelled
    axis : {SAGITTAL, AXIAL}
    centre : (x, y, z)
        RPI voxel to show in the middle; moved where the panel would reach out of the field.
    size_mm : (float, float)
        Width and height.
    pixel_mm : float
        Wanted pixel; it gives way, so that a field of view is a whole number of them.
    """
    across, up = (1, 2) if axis == SAGITTAL else (0, 1)
    spacing, shape = scan.grid.spacing_mm, scan.grid.shape
    wanted: list[float | None] = [pixel_mm] * 3
    wanted[axis] = None
    fine = scan.grid.resampled(wanted)
    middle, box = list(centre), [slice(0, 0)] * 3
    edges = {}
    middle[axis] = float(np.clip(math.floor(centre[axis] + 0.5), 0, shape[axis] - 1))
    box[axis] = slice(int(middle[axis]), int(middle[axis]) + 1)
    for k, size in ((across, size_mm[0]), (up, size_mm[1])):
        half = size / 2 / spacing[k]
        middle[k] = _inside(centre[k], half, shape[k])
        box[k], edges[k] = _pixels(middle[k], half, shape[k], spacing[k], fine.spacing_mm[k])
    part: Box = (box[0], box[1], box[2])

    def plane(array: npt.NDArray[Any], order: Literal[0, 1]) -> npt.NDArray[np.float32]:
        found = values(array, scan.grid, fine, part, order).squeeze(axis).T
        return found[:, ::-1] if axis == SAGITTAL else found

    left, right = edges[across]
    if axis == SAGITTAL:
        left, right = -right, -left
    return Cut(
        image=plane(scan.image, 1),
        lesions=plane(scan.lesions, 0),
        cord=plane(scan.cord, 0),
        extent=(left, right, edges[up][0], edges[up][1]),
        size_mm=size_mm,
        middle=(middle[0], middle[1], middle[2]),
    )


def show(axes: Any, shown: Cut, window: tuple[float, float]) -> None:
    """Draw a cut's image in grey, the panel's middle at (0, 0) mm.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Of the proportions of the cut.
    shown : Cut
    window : (float, float)
        Intensities that are black, and white.
    """
    axes.imshow(
        shown.image,
        cmap="gray",
        origin="lower",
        extent=shown.extent,
        interpolation="nearest",
        aspect="auto",
        vmin=window[0],
        vmax=window[1],
    )
    axes.set_xlim(-shown.size_mm[0] / 2, shown.size_mm[0] / 2)
    axes.set_ylim(-shown.size_mm[1] / 2, shown.size_mm[1] / 2)


def _pixels(
    middle: float, half: float, length: int, spacing_mm: float, pixel_mm: float
) -> tuple[slice, tuple[float, float]]:
    """Pixels of a panel along an axis, and their outer edges, mm from its middle.

    The panel reaches `half` voxels to either side of `middle`; the field is `length` voxels long.
    """
    step = pixel_mm / spacing_mm
    low = math.ceil(round(max(middle - half, -0.5) / step, 6))
    high = math.floor(round(min(middle + half, length - 0.5) / step, 6))
    edges = ((low - 0.5) * step - middle) * spacing_mm, ((high + 0.5) * step - middle) * spacing_mm
    return slice(low, high + 1), edges


def _inside(centre: float, half: float, length: int) -> float:
    """Nearest middle of a panel that stays in the field; the field's own where it is smaller."""
    if 2 * half >= length:
        return (length - 1) / 2
    return float(np.clip(centre, half - 0.5, length - 0.5 - half))


TRUTH_COLOUR = style.SKY
TP_COLOUR, FN_COLOUR, FP_COLOUR = style.GREEN, "white", style.VERMILLION
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
_HATCH = "//////"


@dataclass(frozen=True, eq=False)
class Shown:
    """What the figure shows.

    Attributes
    ----------
    truth : Cut
        The scan with the manual mask.
    models : dict of str to Cut
        The same plane with each model's mask.
    x : int
        Slice, counted from the patient's right.
    """

    truth: Cut
    models: dict[str, Cut]
    x: int


@style.drawing()
def figure(
    image: npt.NDArray[Any],
    grid: Grid,
    truth: npt.NDArray[np.bool_],
    masks: Mapping[str, npt.NDArray[np.bool_]],
) -> Any:
    """Draw the sagittal slice with most lesion: alone, with the truth, and with each mask on it.

    The truth is blue; true positive voxels are green, false negative ones white, false positive
    ones red and hatched.
    The V-F1 in a title is that of the whole scan.

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
        scan are labelled ``TP``, ``FN`` and ``FP``.

    Raises
    ------
    DataError
        The manual mask is empty.
    GeometryError
        An array is not of the shape of the grid.

    References
    ----------
    Hussein et al. 2023, figure 3.
    """
    what = shown(image, grid, truth, masks)
    every, titles = _panels(what)
    inside = what.truth.image
    window = np.percentile(inside, _WINDOW)
    lesions = what.truth.lesions >= 0.5
    _show(every[0], what.truth, window, "scan")
    _mark_sides(every[0], what.truth)
    _show(every[1], what.truth, window, "manual mask")
    _fill(every[1], what.truth, lesions, TRUTH_COLOUR, "truth")
    for axes, (name, own) in zip(every[2:], what.models.items(), strict=True):
        score = voxelwise.score(truth.astype(bool), masks[name].astype(bool)).f1
        _show(axes, own, window, f"{titles[name]}\nV-F1 {tables.score(score)}")
        found = own.lesions >= 0.5
        _fill(axes, own, found & lesions, TP_COLOUR, "TP")
        _fill(axes, own, lesions & ~found, FN_COLOUR, "FN")
        _fill(axes, own, found & ~lesions, FP_COLOUR, "FP")
    made = every[0].figure
    made.legend(handles=_legend(), loc="lower center", ncols=3, borderaxespad=0.2)
    return made


def shown(
    image: npt.NDArray[Any],
    grid: Grid,
    truth: npt.NDArray[np.bool_],
    masks: Mapping[str, npt.NDArray[np.bool_]],
) -> Shown:
    """Cut scan and masks; see `figure`."""
    for name, array in {"scan": image, "manual mask": truth, **masks}.items():
        if array.shape != grid.shape:
            raise GeometryError(
                f"the {name} has shape {array.shape}, expected {grid.shape}, that of the grid; "
                "give all on the native grid of the scan"
            )
    if not truth.any():
        raise DataError("the manual mask holds no lesion; choose a scan that has some")
    rpi, turn = grid.to_rpi()
    scan, lesions = turn.apply(image), turn.apply(truth).astype(bool)
    found = {name: turn.apply(mask).astype(bool) for name, mask in masks.items()}
    x = int(np.argmax(lesions.sum(axis=(1, 2))))
    centre, size_mm = _panel(lesions[x], [mask[x] for mask in found.values()], rpi.spacing_mm)
    empty, middle = np.zeros(rpi.shape, bool), np.zeros((rpi.shape[2], 2))

    def of(mask: npt.NDArray[np.bool_]) -> Cut:
        labelled = Labelled(scan, mask, empty, rpi, middle)
        return cut(labelled, SAGITTAL, (x, *centre), size_mm, _PIXEL_MM)

    return Shown(of(lesions), {name: of(mask) for name, mask in found.items()}, x)


def _panels(what: Shown) -> tuple[list[Any], dict[str, str]]:
    """Axes of the proportions of the cut, and titles that are no wider than they are."""
    width_mm, height_mm = what.truth.size_mm
    number = 2 + len(what.models)
    rows, columns = style.shape(number, _MOST)
    step = style.WIDTH_INCH / max(columns, 4)
    width = step - _GAP_INCH
    height = width * height_mm / width_mm
    titles = {name: _title(name, step) for name in what.models}
    lines = 1 + max((title.count("\n") + 1 for title in titles.values()), default=0)
    above = lines * _LINE_INCH + _GAP_INCH
    full = columns * step, rows * (above + height + _GAP_INCH) + _LEGEND_INCH
    made = style.sheet(full[1], full[0])
    every = []
    for place in range(number):
        row, column = divmod(place, columns)
        left = column * step + _GAP_INCH / 2
        top = row * (above + height + _GAP_INCH) + above
        bottom = full[1] - top - height
        place_of = (left / full[0], bottom / full[1], width / full[0], height / full[1])
        every.append(made.add_axes(place_of))
    return every, titles


def _title(name: str, width_inch: float) -> str:
    """Break a name, where it can be broken, into lines that are no wider than a panel."""
    letters = int(_LETTERS * width_inch)
    return "\n".join(textwrap.fill(n, letters, break_long_words=False) for n in name.split("\n"))


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
    low, high = own.min(axis=0), own.max(axis=0)
    reach = (np.array(_MOST_MM) / 2 - _MARGIN_MM) / step
    for mask in masks:
        voxels = np.argwhere(mask)
        near = voxels[(np.abs(voxels - middle) <= reach).all(axis=1)]
        if len(near):
            low, high = np.minimum(low, near.min(axis=0)), np.maximum(high, near.max(axis=0))
    size = (high - low + 1) * step + 2 * _MARGIN_MM
    # No more than the field of view: the rest of the panel would be empty.
    width, height = np.minimum(np.maximum(size, _LEAST_MM), np.array(truth.shape) * step)
    width = min(max(width, height / _HIGHEST), truth.shape[0] * step[0])
    centre = (low + high) / 2
    return (float(centre[0]), float(centre[1])), (float(width), float(height))


def _show(axes: Any, own: Cut, window: npt.NDArray[np.floating], title: str) -> None:
    show(axes, own, (float(window[0]), float(window[1])))
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def _fill(axes: Any, own: Cut, where: npt.NDArray[np.bool_], colour: str, label: str) -> None:
    """Fill pixels, framed in black; false positive ones are hatched."""
    if not where.any():
        return
    # A frame of empty pixels closes outlines at the edge of the panel.
    field = np.pad(where.astype(np.float32), 1)
    left, right, bottom, top = own.extent
    across, up = (right - left) / where.shape[1], (top - bottom) / where.shape[0]
    extent = (left - across, right + across, bottom - up, top + up)
    options: dict[str, Any] = {"extent": extent, "origin": "lower", "zorder": 2}
    hatches = [_HATCH if label == "FP" else None]
    filled = axes.contourf(field, levels=[0.5, 2], colors=[colour], hatches=hatches, **options)
    filled.set_label(label)
    axes.contour(field, levels=[0.5], colors="black", linewidths=0.5, **options)


def _mark_sides(axes: Any, own: Cut) -> None:
    """Draw the scale bar, and say which side is which."""
    width, height = own.size_mm
    left, bottom = -width / 2 + 0.06 * width, -height / 2 + 0.05 * height
    axes.plot([left, left + SCALE_MM], [bottom] * 2, color="white", lw=2, solid_capstyle="butt")
    outline = {"color": "white", "path_effects": _shadow()}
    axes.text(left, bottom + 0.012 * height, f"{SCALE_MM} mm", ha="left", **outline)
    for letter, place in (("A", (0.04, 0.5)), ("P", (0.96, 0.5)), ("S", (0.5, 0.98))):
        ha = {"A": "left", "P": "right", "S": "center"}[letter]
        va = "top" if letter == "S" else "center"
        axes.text(*place, letter, transform=axes.transAxes, ha=ha, va=va, **outline)


def _shadow() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="black")]


def _legend() -> list[Any]:
    from matplotlib.patches import Patch

    frame: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.6}
    return [
        Patch(facecolor=TP_COLOUR, label="true positive", **frame),
        Patch(facecolor=FN_COLOUR, label="false negative", **frame),
        Patch(facecolor=FP_COLOUR, hatch=_HATCH, label="false positive", **frame),
    ]
