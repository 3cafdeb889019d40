"""Vertebral levels along the cord, by SCT's labelled segmentations or disc labels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.location import VERTEBRAE, Course

OTHER_LABELS = (49, 50, 60)  # pontomedullary groove and junction, tip of the cord: not levels
DISC_VOX = 3  # largest extent of a disc's label; a level of a segmentation is that of a vertebra


def along(labels: npt.NDArray[np.integer[Any]], line: Centerline) -> npt.NDArray[np.int64]:
    """Vertebral level at the point of a centerline in each axial slice.

    In a labelled segmentation (SCT's ``…_seg_labeled``) it is the commonest label of the slice. Of
    disc labels (``…_labels-disc``, ``…_seg_labeled_discs``), which are told from it by their size,
    disc N is the upper end of level N, at the point of the centerline nearest to it; a level is
    known where both of its discs are.

    Parameters
    ----------
    labels : (X, Y, Z) int
        SCT's numbers, 1 for C1 and 8 for T1, 0 elsewhere. Those of `OTHER_LABELS` do not count.
    line : Centerline
        On the grid of the labels.

    Returns
    -------
    (Z,) int
        0 where the level is not known.

    Raises
    ------
    GeometryError
        The labels are none of levels or discs, or no level follows from them.
    """
    wanted = np.where(np.isin(labels, OTHER_LABELS), 0, labels)
    names = np.unique(wanted[wanted > 0]).tolist()
    unknown = [name for name in names if name > len(VERTEBRAE)]
    if unknown:
        raise GeometryError(
            f"holds the label {unknown[0]}, expected SCT's numbers of vertebral levels or discs, 1 "
            f"to {len(VERTEBRAE)}; label the scan with sct_label_vertebrae"
        )
    if not names:
        raise GeometryError("holds no label of a level or disc; label the scan, or leave it out")
    boxes = ndimage.find_objects(wanted)
    sizes = [max(side.stop - side.start for side in boxes[name - 1]) for name in names]
    if np.median(sizes) <= DISC_VOX:
        wide = [name for name, size in zip(names, sizes, strict=True) if size > DISC_VOX]
        if wide:
            raise GeometryError(f"holds disc {wide[0]} in several places; leave one voxel of it")
        return _between_discs(wanted, names, line)
    if names == [1]:
        raise GeometryError(
            "holds the label 1 alone, as a cord mask does; expected a label for each vertebral "
            "level, as sct_label_vertebrae writes them into …_seg_labeled"
        )
    found = np.zeros(labels.shape[2], np.int64)
    for z in np.flatnonzero(wanted.any(axis=(0, 1))):
        section = wanted[:, :, z]
        found[z] = np.bincount(section[section > 0]).argmax()
    if len(names) > 1 and not np.any(
        (found[1:] != found[:-1]) & (found[1:] > 0) & (found[:-1] > 0)
    ):
        raise GeometryError(
            "holds levels of which no two adjoin, as discs that are drawn large do; expected a "
            "label for every part of the cord, or one voxel for each disc"
        )
    return found


def _between_discs(
    labels: npt.NDArray[np.integer[Any]], names: list[int], line: Centerline
) -> npt.NDArray[np.int64]:
    """Levels from each disc down to the next one, that one's point without."""
    course = Course.of(line)
    centres = line.grid.to_world(ndimage.center_of_mass(labels > 0, labels, names))
    away = np.linalg.norm(course.points[:, None] - centres, axis=2)
    points = dict(zip(names, away.argmin(axis=0).tolist(), strict=True))
    found = np.zeros(labels.shape[2], np.int64)
    for above, below in pairwise(names):
        if points[below] > points[above]:
            raise GeometryError(
                f"holds disc {below} above disc {above}, expected rising numbers from the head "
                "down; check the labels"
            )
        if below == above + 1:
            found[course.z[points[below] + 1 : points[above] + 1]] = above
    if not found.any():
        raise GeometryError(
            f"holds the discs {', '.join(map(str, names))} and no two neighbours of them beside "
            "the centerline, which a level lies between; label every disc of the scan"
        )
    return found
