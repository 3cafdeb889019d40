"""What a NIfTI header says, checked before anything is believed or allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from sct_lesion_losses.errors import ImageError

Matrix = npt.NDArray[np.float64]

MAX_VOXEL_BYTES = 8 << 30
MAX_EXTENSION_BYTES = 16 << 20
SHEAR_WARNED, SHEAR_REFUSED = 0.02, 0.2  # cosine between two voxel axes: about 1 and 12 degrees
SPACING_RANGE_MM = (0.01, 100.0)
_FORM_CODES = range(6)
_MM, _SPACE, _SPACE_UNITS, _TIME_UNITS = 2, 0b111, range(4), range(0, 56, 8)
_HEADER_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8",
    256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_REFUSED = {
    1: "single bits", 32: "complex numbers", 128: "RGB colours", 1536: "128-bit floats",
    1792: "complex numbers", 2048: "complex numbers", 2304: "RGBA colours",
}  # fmt: skip


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


@dataclass(frozen=True, eq=False)
class Header:
    """A checked header.

    Attributes
    ----------
    shape : tuple of int
        X, Y, Z.
    dtype : numpy dtype
        Of the stored voxels, with their byte order.
    offset : int
        First byte of the voxels.
    slope, intercept : float
        Of the stored values; 1 and 0 where there is no scaling.
    affine : (4, 4) float64
        Voxels to world mm.
    placement : Placement
    notes : tuple of str
        What was doubtful or repaired.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: Matrix
    placement: Placement
    notes: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of voxel data."""
        return math.prod(self.shape) * self.dtype.itemsize


def header_bytes(start: bytes) -> int | None:
    """Length of the header from its first 8 bytes: 348, 540, or None if it is not NIfTI."""
    for order in ("little", "big"):
        size = int.from_bytes(start[:4], order)
        if size in _HEADER_BYTES:
            return size
    return None


def parse(block: bytes, name: str) -> Header:
    """Read a header of 348 or 540 bytes.

    Parameters
    ----------
    block : bytes
    name : str
        What error messages call the file.

    Raises
    ------
    ImageError
        The header is damaged, or describes something else than one 3-D scan.
    """
    raw = _HEADER_BYTES[len(block)](block, check=False)
    magic = bytes(raw["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise ImageError(f"{name}: the voxels are in an .img file; convert it to one .nii.gz file")
    if magic not in (b"n+1", b"n+2"):
        raise ImageError(f"{name}: an Analyze image without orientation; convert it to NIfTI")
    notes: list[str] = []
    _repair(raw, notes)
    shape = _shape(raw, name)
    dtype = _dtype(raw, name)
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > MAX_VOXEL_BYTES:
        raise ImageError(
            f"{name}: the header claims {n_bytes / 2**30:.0f} GiB of voxels "
            f"(shape {shape}); it is damaged, or crop the image first"
        )
    offset = _offset(raw, len(block), name)
    slope, intercept = _scaling(raw, notes)
    affine, placement = _placed(raw, shape, name, notes)
    return Header(shape, dtype, offset, slope, intercept, affine, placement, tuple(notes))


def _repair(raw: Any, notes: list[str]) -> None:
    """Put fields right that have one sensible reading, the one that nibabel takes as well."""
    for form in ("sform", "qform"):
        code = int(raw[f"{form}_code"])
        if code not in _FORM_CODES:
            notes.append(f"the {form} code {code} does not exist: taken as 0")
            raw[f"{form}_code"] = 0
    pixdim = np.array(raw["pixdim"])
    if pixdim[0] not in (-1, 1):  # 0 stands for 1 in the standard
        pixdim[0] = -1 if pixdim[0] < 0 else 1
    if (pixdim[1:4] < 0).any():
        notes.append("voxel sizes below 0: taken without their sign")
        pixdim[1:4] = np.abs(pixdim[1:4])
    raw["pixdim"] = pixdim
    units = int(raw["xyzt_units"])
    if units & _SPACE not in _SPACE_UNITS or units & ~_SPACE not in _TIME_UNITS:
        raw["xyzt_units"] = _MM


def _shape(raw: Any, name: str) -> tuple[int, int, int]:
    dim = [int(n) for n in raw["dim"]]
    rank, sizes = dim[0], dim[1 : 1 + max(dim[0], 0)]
    if not 1 <= rank <= 7 or min(sizes) < 1:
        raise ImageError(f"{name}: the header is damaged: dim is {dim}; convert the image again")
    if rank < 3:
        raise ImageError(
            f"{name}: the image is {rank}-D, shape {tuple(sizes)}; expected a 3-D scan"
        )
    if math.prod(sizes[3:]) > 1:
        raise ImageError(
            f"{name}: the image holds {math.prod(sizes[3:])} volumes, shape {tuple(sizes)}; "
            "split it with `sct_image -i IMAGE -split t` and give one volume"
        )
    return sizes[0], sizes[1], sizes[2]


def _dtype(raw: Any, name: str) -> np.dtype[Any]:
    code = int(raw["datatype"])
    if code not in _DTYPES:
        what = _REFUSED.get(code, f"an unknown type (code {code})")
        raise ImageError(f"{name}: the voxels are {what}; expected one real number per voxel")
    return np.dtype(_DTYPES[code]).newbyteorder(raw.endianness)


def _offset(raw: Any, header: int, name: str) -> int:
    offset = float(raw["vox_offset"])
    first = header + 4
    if offset == 0:
        return first
    if not first <= offset <= first + MAX_EXTENSION_BYTES:
        raise ImageError(
            f"{name}: the header is damaged: voxels start at byte {offset:g}; "
            "convert the image again"
        )
    return int(offset)


def _scaling(raw: Any, notes: list[str]) -> tuple[float, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0:  # NIfTI-1: stored values are the values
        return 1.0, 0.0
    if not math.isfinite(slope):
        # Without a note where both are NaN: many writers mean "no scaling" by it.
        if not math.isnan(slope) or (math.isfinite(intercept) and intercept != 0):
            notes.append(f"scl_slope is {slope:g}: the stored values are taken as they are")
        return 1.0, 0.0
    if not math.isfinite(intercept):
        notes.append(f"scl_inter is {intercept:g}: taken as 0")
        intercept = 0.0
    return slope, intercept


def _placed(
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
            "repair the header, for instance with `sct_image -i IMAGE -copy-header`"
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
