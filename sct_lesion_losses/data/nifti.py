"""Scans, masks and p-maps in NIfTI files: read with suspicion, written whole or not at all."""

from __future__ import annotations

import gzip
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt

from sct_lesion_losses.data.header import Header, header_bytes, parse
from sct_lesion_losses.data.placement import Placement
from sct_lesion_losses.data.stream import Stream, what_is
from sct_lesion_losses.errors import GeometryError, ImageError, OutputError
from sct_lesion_losses.files import replacing
from sct_lesion_losses.space.grid import Grid

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

GZIP_LEVEL = 4
PMAP_ROUNDING = 1e-5  # how far interpolation may leave [0, 1]
_EXTENSION = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Scan:
    """A 3-D image in memory.

    Attributes
    ----------
    array : (X, Y, Z)
        Voxels in stored axis order: finite, of the stored type in native byte order, float64
        where the header scales them; bool for a mask.
    grid : Grid
        Where the voxels are.
    path : Path
        The file as it was named.
    notes : tuple of str
        What was doubtful or repaired while reading; already logged.
    placement : Placement
        Header fields that an output on this grid repeats.
    """

    array: Array
    grid: Grid
    path: Path
    notes: tuple[str, ...]
    placement: Placement


def stem(path: Path) -> tuple[str, str]:
    """Split a file name into stem and extension; `.nii.gz` is one extension.

    >>> stem(Path("sub-01/T2w.NII.GZ"))
    ('T2w', '.NII.GZ')

    Raises
    ------
    ImageError
        The name does not end in `.nii` or `.nii.gz`.
    """
    found = _EXTENSION.search(path.name)
    if found is None:
        raise ImageError(f"{path}: expected a name that ends in .nii or .nii.gz")
    return path.name[: found.start()], found.group()


def is_nifti_name(path: Path) -> bool:
    """Whether a file name ends in `.nii` or `.nii.gz`."""
    return _EXTENSION.search(path.name) is not None


def read(path: Path) -> Scan:
    """Read a scan.

    Voxels that are not finite are replaced: NaN and -Inf by the lowest finite value, which is
    background wherever they usually come from (the border of a resampled image), Inf by the
    highest. Integer images keep their type.

    Raises
    ------
    ImageError
        The file is missing, damaged or not a 3-D scan, or all its voxels are equal.
    """
    path = Path(path)
    array, header, notes = _load(path)
    array, repaired = _finite(array, path)
    low, high = array.min(), array.max()
    if low == high:
        raise ImageError(f"{path}: every voxel is {low:g}; this is not a scan, check its export")
    return _scan(path, array, header, (*notes, *repaired))


def read_mask(path: Path, like: Grid | None = None) -> Scan:
    """Read a mask: {0, 1}, or {0, 255} as image editors write it.

    Parameters
    ----------
    path : Path
    like : Grid, optional
        Grid of the image that the mask belongs to.

    Returns
    -------
    Scan
        With a bool array, which may be empty.

    Raises
    ------
    ImageError
        The file is missing or damaged, or holds other values.
    GeometryError
        The mask is on another grid than the image.
    """
    path = Path(path)
    array, header, notes = _load(path)
    mask = array != 0
    top = 255 if array.max() == 255 else 1
    if not (array[mask] == top).all():
        raise ImageError(
            f"{path}: holds {_values_seen(array)}, expected a mask of 0 and 1; "
            "binarise it first, for instance with `sct_maths -bin 0.5`"
        )
    if top == 255:
        notes = (*notes, "the mask is 0 and 255: 255 is taken as 1")
    scan = _scan(path, mask, header, notes)
    if like is not None:
        _check_grid(scan, like)
    return scan


def read_pmap(path: Path) -> Scan:
    """Read a p-map: floating-point probabilities in [0, 1].

    Raises
    ------
    ImageError
        The file is missing or damaged, holds whole numbers, or values outside [0, 1].
    """
    path = Path(path)
    array, header, notes = _load(path)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(
            f"{path}: holds {array.dtype} values, expected a p-map of floating-point "
            "probabilities (-pmap 1 writes one); was a mask given in its place?"
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= -PMAP_ROUNDING and high <= 1 + PMAP_ROUNDING):  # also refuses NaN
        raise ImageError(
            f"{path}: holds values from {low:g} to {high:g}, expected probabilities in [0, 1]"
        )
    return _scan(path, np.clip(array, 0, 1), header, notes)


def write(path: Path, array: Array, like: Scan, dtype: npt.DTypeLike) -> None:
    """Write an array on the grid of a scan; the file appears complete or not at all.

    Of the scan's header only shape, sform, qform, their codes, voxel sizes and units are
    repeated: no text, no extension. The same array gives the same bytes.

    Parameters
    ----------
    path : Path
        Ends in `.nii` or `.nii.gz`.
    array : (X, Y, Z)
    like : Scan
    dtype : uint8, int16, int32 or float32

    Raises
    ------
    GeometryError
        The array is not on the scan's grid.
    OutputError
        The values do not fit the type, or the file cannot be written.
    """
    path = Path(path)
    _, extension = stem(path)
    if array.shape != like.grid.shape:
        raise GeometryError(f"{path}: array {array.shape} on a grid of {like.grid.shape}")
    values = _cast(array, np.dtype(dtype), path)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if extension.lower().endswith(".gz"):
            # No file name and no time: they would differ between runs, and tell of the machine.
            with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
                _put(cast("BinaryIO", packed), values, like.placement)
        else:
            _put(file, values, like.placement)


def _load(path: Path) -> tuple[Array, Header, tuple[str, ...]]:
    """Read voxels, scaled, and the checked header."""
    _, extension = stem(path)
    with Stream(path) as stream:
        start = bytes(stream.read(348))
        size = header_bytes(start) if len(start) == 348 else None
        if size is None:
            raise ImageError(f"{path}: this is {what_is(start)}")
        block = start + bytes(stream.read(size - len(start)))
        if len(block) < size:
            raise ImageError(f"{path}: truncated in its header; copy the file again")
        header = parse(block, str(path))
        if header.offset + header.n_bytes > stream.most_bytes:
            raise ImageError(
                f"{path}: truncated: {stream.file_bytes} bytes cannot hold the "
                f"{header.n_bytes} bytes of voxels that the header claims; copy the file again"
            )
        stream.read(header.offset - size)
        data = stream.read(header.n_bytes)
        if len(data) < header.n_bytes:
            raise ImageError(
                f"{path}: truncated: {len(data)} of {header.n_bytes} bytes of voxels; "
                "copy the file again"
            )
        trailing = stream.finish()
        notes = list(header.notes)
        if trailing:
            notes.append(f"{trailing} bytes behind the voxels were ignored")
        if stream.compressed != extension.lower().endswith(".gz"):
            notes.append(
                f"the content is {'' if stream.compressed else 'not '}gzip, unlike its name"
            )
    stored = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
    array = stored.astype(header.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) != (1.0, 0.0):
        array = array.astype(np.float64) * header.slope + header.intercept
    return array, header, tuple(notes)


def _scan(path: Path, array: Array, header: Header, notes: tuple[str, ...]) -> Scan:
    for note in notes:
        logger.warning("%s: %s", path.name, note)
    return Scan(array, Grid(header.shape, header.affine), path, notes, header.placement)


def _finite(array: Array, path: Path) -> tuple[Array, tuple[str, ...]]:
    """Replace what is not a finite float32: that is what the networks compute in."""
    if not np.issubdtype(array.dtype, np.floating):
        return array, ()
    # Comparing is false for NaN, so NaN is bad as well.
    bad = ~(np.abs(array) <= np.finfo(np.float32).max)
    count = int(np.count_nonzero(bad))
    if count == 0:
        return array, ()
    if count == array.size:
        raise ImageError(f"{path}: no voxel is a finite number; this is not a scan")
    good = array[~bad]
    low, high = good.min(), good.max()
    fixed = np.where(bad, np.where(array > high, high, low), array).astype(array.dtype)
    kinds = f"{count} of {array.size} voxels are NaN, infinite or too large"
    return fixed, (f"{kinds}: replaced by the lowest or highest finite value",)


def _values_seen(array: Array) -> str:
    """Say which values an array holds: the first five."""
    values = np.unique(array)
    text = ", ".join(f"{value:g}" for value in values[:5])
    return f"the values {text}" + (f", … ({len(values)} in all)" if len(values) > 5 else "")


def _check_grid(mask: Scan, like: Grid) -> None:
    if mask.grid.shape != like.shape:
        raise GeometryError(
            f"{mask.path}: shape {mask.grid.shape} on an image of shape {like.shape}; "
            "draw it on this image, or resample it with `sct_register_multimodal -identity 1`"
        )
    if not mask.grid.matches(like, tolerance_mm=min(like.spacing_mm) / 10):
        raise GeometryError(
            f"{mask.path}: its voxels lie elsewhere than the image's (orientation "
            f"{mask.grid.orientation} and {like.orientation}); "
            "check both headers with `sct_image -header`"
        )


def _cast(array: Array, dtype: np.dtype[Any], path: Path) -> Array:
    if np.issubdtype(dtype, np.integer) and array.size:
        limits = np.iinfo(dtype)
        if not (array.min() >= limits.min and array.max() <= limits.max):
            raise OutputError(f"{path}: values do not fit {dtype}")
    return array.astype(dtype.newbyteorder("<"), order="F")


def _put(file: BinaryIO, values: Array, placement: Placement) -> None:
    """Write header, an empty extension field and the voxels."""
    header = (nib.Nifti2Header if placement.nifti2 else nib.Nifti1Header)(endianness="<")
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    for field, value in {**placement.sform, **placement.qform}.items():
        header[field] = value
    header["xyzt_units"] = placement.units
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = len(header.binaryblock) + 4
    file.write(header.binaryblock)
    file.write(b"\0\0\0\0")
    file.write(values.tobytes(order="F"))
