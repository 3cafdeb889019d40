"""Where the header says that the voxels are: sform, qform, or neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from sct_lesion_losses.errors import ImageError

Matrix = npt.NDArray[np.float64]

SHEAR_WARNED, SHEAR_REFUSED = 0.02, 0.2  # cosine between two voxel axes: about 1 and 12 degrees
SPACING_RANGE_MM = (0.01, 100.0)


@dataclass(frozen=True, eq=False)
class Placement:
    """The fields of a header that say where an image is; `nifti.write` repeats them.

    Attributes
    ----------
    sform, qform : dict of str to number or array
        Raw header fields, so that they are written back bit for bit.
    units : int
        Raw `xyzt_units`.
    nifti2 : bool
        The file is NIfTI-2.
    """

    sform: dict[str, Any]
    qform: dict[str, Any]
    units: int
    nifti2: bool


@np.errstate(invalid="ignore")  # a signalling NaN in the header; what comes of it is checked
def placed(
    raw: Any, shape: tuple[int, int, int], name: str, notes: list[str]
) -> tuple[Matrix, Placement]:
    """Choose the affine as nibabel does (sform, qform, voxel sizes), skipping unusable forms."""
    s_code, q_code = int(raw["sform_code"]), int(raw["qform_code"])
    sform, qform = raw.get_sform(), _qform(raw)
    s_good, q_good = s_code != 0 and _usable(sform), q_code != 0 and _usable(qform)
    if s_code != 0 and not s_good:
        notes.append("the sform is singular or not finite and was left out")
    if q_code != 0 and not q_good:
        notes.append("the qform is singular or not finite and was left out")
    if s_good:
        affine = sform
    elif q_good and qform is not None:
        affine = qform
    elif s_code or q_code:
        raise ImageError(
            f"{name}: neither sform nor qform is usable (singular or not finite); "
            "convert the image again, or copy a good header with `sct_image -copy-header`"
        )
    else:
        affine = _from_voxel_size(raw, shape, name)
        notes.append(
            "sform and qform codes are both 0: the orientation is a guess "
            "(x to the left, y to the front, z up); check the result"
        )
    affine = np.asarray(affine, dtype=np.float64)
    if s_good and q_good and qform is not None:
        _compare(sform, qform, shape, notes)
    _check_axes(affine, name, notes)
    return affine, _placement(raw, affine, s_good, q_good)


def _qform(raw: Any) -> Matrix | None:
    try:
        return np.asarray(raw.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError):
        return None


def _usable(affine: Matrix | None) -> bool:
    if affine is None or not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(lengths.min() > 0 and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def _from_voxel_size(raw: Any, shape: tuple[int, int, int], name: str) -> Matrix:
    """Affine without any form: nibabel's, the centre of the image at 0, x to the left."""
    size = np.abs(np.asarray(raw["pixdim"][1:4], dtype=np.float64))
    if not np.isfinite(size).all() or size.min() <= 0:
        raise ImageError(f"{name}: the header has no voxel size; convert the image again")
    affine = np.diag([-size[0], size[1], size[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _compare(sform: Matrix, qform: Matrix, shape: tuple[int, int, int], notes: list[str]) -> None:
    """Note a disagreement of the two forms of more than half a voxel at a corner."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    apart_mm = float(np.linalg.norm(((sform - qform) @ corners)[:3], axis=0).max())
    if apart_mm > np.linalg.norm(sform[:3, :3], axis=0).min() / 2:
        notes.append(f"sform and qform differ by up to {apart_mm:.1f} mm: the sform is used")


def _check_axes(affine: Matrix, name: str, notes: list[str]) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < SPACING_RANGE_MM[0] or spacing.max() > SPACING_RANGE_MM[1]:
        sizes = " × ".join(f"{size:g}" for size in spacing)
        raise ImageError(f"{name}: voxels of {sizes} mm; check the units in the header")
    directions = affine[:3, :3] / spacing
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if shear > SHEAR_REFUSED:
        raise ImageError(
            f"{name}: the voxel axes are {math.degrees(math.asin(min(shear, 1))):.0f}° off a right "
            "angle; resample the image to a grid that is not sheared"
        )
    if shear > SHEAR_WARNED:
        notes.append(
            f"the voxel axes are {math.degrees(math.asin(shear)):.0f}° off a right angle: "
            "lengths in mm are approximate"
        )


def _placement(raw: Any, affine: Matrix, s_good: bool, q_good: bool) -> Placement:
    """Keep both forms bit for bit; an unusable one loses its code, and its fields if not finite."""
    rows = {row: np.array(raw[row]) for row in ("srow_x", "srow_y", "srow_z")}
    if not all(np.isfinite(row).all() for row in rows.values()):
        rows = {row: np.zeros(4) for row in rows}
    fields = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    turn = {field: float(raw[field]) for field in fields}
    if not all(math.isfinite(value) for value in turn.values()):
        turn = dict.fromkeys(fields, 0.0)
    pixdim = np.ones(8)
    pixdim[:4] = raw["pixdim"][:4]
    if not q_good and (not np.isfinite(pixdim).all() or pixdim[1:4].min() <= 0):
        pixdim[1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    return Placement(
        sform={**rows, "sform_code": int(raw["sform_code"]) if s_good else 0},
        qform={**turn, "pixdim": pixdim, "qform_code": int(raw["qform_code"]) if q_good else 0},
        units=int(raw["xyzt_units"]),
        nifti2=len(raw.binaryblock) == 540,
    )
