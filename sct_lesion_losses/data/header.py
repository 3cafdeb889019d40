"""What a NIfTI header says, checked before anything is believed or allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np

from sct_lesion_losses.data.placement import Matrix, Placement, placed
from sct_lesion_losses.errors import ImageError

MAX_VOXEL_BYTES = 8 << 30
MAX_EXTENSION_BYTES = 16 << 20
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
    affine, placement = placed(raw, shape, name, notes)
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
