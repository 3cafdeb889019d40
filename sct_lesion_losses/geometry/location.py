"""Location of lesions in the cord: along it, across it, and by vertebral level.

The centerline, smoothed along the cord, is the axis of reference. Across the cord, a voxel is
placed in the plane perpendicular to it, towards the patient's right and front by the affine, so
that neither the stored order of the axes nor the tilt of the slices matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

Floats = npt.NDArray[np.float64]

SMOOTH_MM = 5.0  # sigma: a line drawn in whole voxels has steps, which would lengthen it
MOST = 0.75  # share of a lesion's volume that must lie on one side to be called after it
_NEAREST_STEPS = 4  # to the nearest point: each leaves less than the offset over the bend's radius

# SCT's numbers 1, 2, … of vertebral levels; disc N is the upper end of level N.
VERTEBRAE = (
    *(f"C{n}" for n in range(1, 8)),
    *(f"T{n}" for n in range(1, 13)),
    *(f"L{n}" for n in range(1, 6)),
    *(f"S{n}" for n in range(1, 6)),
    "Co",
)


@dataclass(frozen=True)
class Location:
    """Place of a lesion in the cord; None is not known.

    Attributes
    ----------
    from_top_mm : float
        Arc length of the centerline from its upper end, in the highest slice in which it is
        known, to the lesion's centre.
    cord_length_mm : float
        Extent along the cord: arc length of the centerline in the axial slices of the lesion, the
        ``length`` of `sct_analyze_lesion`.
    diameter_mm : float
        That of a disc of the lesion's largest area, where each axial area is projected onto the
        plane perpendicular to the cord: its ``max_equivalent_diameter``.
    right_mm, front_mm : float
        Mean offset from the centerline, perpendicular to the cord.
    side : {"left", "right", "both"}
        Of the patient: where at least `MOST` of the volume lies.
    depth : {"anterior", "posterior", "central"}
        The same towards the front and the back.
    cord_share : float
        Largest share of the cord's area that the lesion takes in an axial slice, without what
        lies outside the cord mask: its ``max_axial_damage_ratio``.
    level : int
        Vertebral level of the centre, 1 for C1.
    levels : tuple of int
        Highest and lowest level that a voxel of it has; empty if none has.
    """

    from_top_mm: float | None = None
    cord_length_mm: float | None = None
    diameter_mm: float | None = None
    right_mm: float | None = None
    front_mm: float | None = None
    side: str | None = None
    depth: str | None = None
    cord_share: float | None = None
    level: int | None = None
    levels: tuple[int, ...] = ()

    @property
    def level_name(self) -> str:
        """Vertebral level of the centre, as C3; empty where it is not known."""
        return "" if self.level is None else VERTEBRAE[self.level - 1]

    @property
    def levels_name(self) -> str:
        """Vertebral levels from the highest to the lowest.

        >>> Location(levels=(7, 8)).levels_name, Location(levels=(8, 8)).levels_name
        ('C7-T1', 'T1')
        """
        return "-".join(dict.fromkeys(VERTEBRAE[level - 1] for level in self.levels))


@dataclass(frozen=True, eq=False)
class Course:
    """Smoothed centerline, from below, in world space.

    Attributes
    ----------
    z : (K,) int
        Slices of the RPI grid.
    points, up, right, front : (K, 3) float64
        Points, mm, and unit vectors: along the cord, and perpendicular to it towards the
        patient's right and front.
    steps_mm : (K,) float64
        Length of the line in each slice.
    from_top_mm : (K,) float64
        Length of the line down to each point.
    """

    z: npt.NDArray[np.intp]
    points: Floats
    up: Floats
    right: Floats
    front: Floats
    steps_mm: Floats
    from_top_mm: Floats

    @classmethod
    def of(cls, line: Centerline) -> Course:
        """Smooth a line; between known slices it is interpolated."""
        whole = line.filled()
        z = np.flatnonzero(whole.covered)
        points = line.grid.to_world(np.column_stack([whole.xy[z], z]))
        sigma = SMOOTH_MM / line.grid.spacing_mm[2]
        if len(z) == 1:
            ahead = line.grid.affine[None, :3, 2]
        else:
            # Extended by its point reflection, so that a straight line stays as it is to its ends.
            width = int(np.ceil(4 * sigma))
            wide = np.pad(points, ((width, width), (0, 0)), "reflect", reflect_type="odd")
            points = ndimage.gaussian_filter1d(wide, sigma, axis=0)[width : width + len(z)]
            ahead = np.gradient(points, axis=0)
        steps = np.linalg.norm(ahead, axis=1)
        up = ahead / steps[:, None]
        right = np.array([1.0, 0, 0]) - up[:, :1] * up
        right /= np.linalg.norm(right, axis=1)[:, None]
        lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
        from_top = np.append(np.cumsum(lengths[::-1])[::-1], 0.0)
        return cls(z, points, up, right, np.cross(up, right), steps, from_top)

    def nearest(self, world: Floats, z: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Index of the point in whose perpendicular plane each of (N, 3) voxels lies.

        The search begins in their axial slices `z`, (N,).
        """
        at = self.within(z)
        for _ in range(_NEAREST_STEPS):
            above = _dot(world - self.points[at], self.up[at])
            at = np.clip(at + np.rint(above / self.steps_mm[at]), 0, len(self.z) - 1).astype(int)
        return at

    def within(self, z: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Index of the points of slices, or of the nearer end beyond the line's."""
        return np.asarray(np.clip(z - self.z[0], 0, len(self.z) - 1))


def locate(
    labels: npt.NDArray[np.integer[Any]],
    grid: Grid,
    line: Centerline,
    cord: npt.NDArray[np.bool_] | None = None,
    levels: npt.NDArray[np.integer[Any]] | None = None,
) -> list[Location]:
    """Locate each lesion of a labelled mask in the cord.

    Parameters
    ----------
    labels : (X, Y, Z) int
        Numbered lesions 1, 2, …, in any axis order.
    grid : Grid
        Their grid.
    line : Centerline
        On the RPI grid of the same voxels.
    cord : (X, Y, Z) bool, optional
        Cord mask, stored as the lesions are.
    levels : (Z,) int, optional
        Vertebral level at the line's point in each slice of the RPI grid, 0 where it is not known.

    Returns
    -------
    list of Location
        By label; empty for an empty mask.

    Raises
    ------
    GeometryError
        The line, the cord mask or the levels are on another grid.
    """
    rpi, reorientation = grid.to_rpi()
    _require_same(labels, rpi, line, cord, levels)
    course, upright = Course.of(line), reorientation.apply(labels)
    mask = None if cord is None else reorientation.apply(cord)
    areas_vox = None if mask is None else np.count_nonzero(mask, axis=(0, 1))
    area_mm2 = rpi.spacing_mm[0] * rpi.spacing_mm[1]
    # Extent of a voxel across the cord, so that one on the line lies on both of its sides.
    reach = [np.abs(axes @ rpi.affine[:3, :3]).sum(axis=1) for axes in (course.right, course.front)]
    found = []
    for label, box in enumerate(ndimage.find_objects(upright), start=1):
        inside = upright[box] == label
        voxels = np.argwhere(inside) + [side.start for side in box]
        world = rpi.to_world(voxels)
        at = course.nearest(world, voxels[:, 2])
        offset = world - course.points[at]
        from_top = max(float(np.mean(course.from_top_mm[at] - _dot(offset, course.up[at]))), 0.0)
        right, front = (_dot(offset, axes[at]) for axes in (course.right, course.front))
        slices, counts = np.unique(voxels[:, 2], return_counts=True)
        steps = course.steps_mm[course.within(slices)]
        areas = counts * area_mm2 * rpi.spacing_mm[2] / steps
        middle = int(np.argmin(np.abs(course.from_top_mm - from_top)))
        share = None
        if mask is not None and areas_vox is not None:
            share = _share(np.count_nonzero(inside & mask[box], axis=(0, 1)), areas_vox[box[2]])
        known = np.array([]) if levels is None else levels[course.z[at]]
        known, level = known[known > 0], 0 if levels is None else int(levels[course.z[middle]])
        found.append(
            Location(
                from_top_mm=from_top,
                cord_length_mm=float(steps.sum()),
                diameter_mm=float(2 * np.sqrt(areas.max() / np.pi)),
                right_mm=float(right.mean()),
                front_mm=float(front.mean()),
                side=_called(right / reach[0][at], "left", "both", "right"),
                depth=_called(front / reach[1][at], "posterior", "central", "anterior"),
                cord_share=share,
                level=level or None,
                levels=(int(known.min()), int(known.max())) if known.size else (),
            )
        )
    return found


def _called(offsets: Floats, below: str, between: str, above: str) -> str:
    """Name the side of most of the volume, by the voxels' offsets in their own extents."""
    share = float(np.clip(0.5 + offsets, 0, 1).mean())
    return above if share >= MOST else below if share <= 1 - MOST else between


def _share(
    damaged: npt.NDArray[np.integer[Any]], areas: npt.NDArray[np.integer[Any]]
) -> float | None:
    """Largest share of the cord's areas in slices that is lesion; None without any cord."""
    return float((damaged / np.maximum(areas, 1)).max()) if areas.any() else None


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _require_same(
    labels: npt.NDArray[Any],
    rpi: Grid,
    line: Centerline,
    cord: npt.NDArray[Any] | None,
    levels: npt.NDArray[Any] | None,
) -> None:
    if not line.grid.matches(rpi) or (cord is not None and cord.shape != labels.shape):
        raise GeometryError(
            "the centerline or the cord mask is on another grid than the lesions; bring it to "
            "theirs first (Centerline.on)"
        )
    if levels is not None and levels.shape != rpi.shape[2:]:
        raise GeometryError(
            f"vertebral levels of {levels.size} slices for a scan of {rpi.shape[2]}; give one for "
            "each of its axial slices"
        )
