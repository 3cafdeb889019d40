"""Scans, masks and p-maps in NIfTI files: read with suspicion, written whole or not at all.

nibabel knows the fields of a header and what they mean. Here are the checks that it leaves out, and
the reading of the stream: to its end, so that the checksum is verified, and never by more than is
there.
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from sct_lesion_losses.errors import GeometryError, ImageError, OutputError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images.atomic import replacing

Array = npt.NDArray[Any]

GZIP_LEVEL = 4
MASK_ROUNDING = 1e-3  # how far a scaled header may leave 0 and 1
PMAP_ROUNDING = 1e-5  # how far interpolation may leave [0, 1]
SHEAR_WARNED, SHEAR_REFUSED = 0.02, 0.2  # cosine between two voxel axes: about 1 and 12 degrees
SPACING_RANGE_MM = (0.01, 100.0)
MAX_VOXEL_BYTES = 8 << 30
MAX_EXTENSION_BYTES = 16 << 20
MAX_TRAILING_BYTES = 1 << 20
MAX_DEFLATE_RATIO = 1032  # zlib's documentation: the most that deflate can expand by
_EXTENSION = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_KINDS = {348: nib.Nifti1Image, 540: nib.Nifti2Image}  # by the length of the header
_NO_NUMBERS = {"c": "complex numbers", "V": "RGB colours", "f": "128-bit floats"}
_FORM_CODES = range(6)
_CIFTI = (3000, 3099)  # intent codes
_PLACE = (
    *("sform_code", "srow_x", "srow_y", "srow_z", "qform_code", "quatern_b", "quatern_c"),
    *("quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units"),
)
_GZIP = b"\x1f\x8b"
_LOOKS = (
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer; run `git annex get`"),
    (b"DICM", "a DICOM file; convert it with dcm2niix"),
    (b"<!DOCTYPE", "an HTML page, not an image; download it again"),
    (b"<html", "an HTML page, not an image; download it again"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"NRRD", "an NRRD image; convert it to NIfTI"),
    (b"\x89HDF", "an HDF5 or MINC file; convert it to NIfTI"),
)
_CONVERT = "; convert it, by nibabel's `nib-convert {name} {stem}.nii.gz` for example"
_HINTS = {
    **dict.fromkeys((".mgz", ".mgh", ".img", ".hdr", ".mnc"), _CONVERT),
    ".dcm": "; convert the DICOM series, by dcm2niix for example",
    **dict.fromkeys((".csv", ".tsv"), "; a table of scans is for -i of the commands on cohorts"),
}

logger = logging.getLogger(__name__)


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
    header : nibabel header
        Says where the voxels are, and nothing else; an output on this grid repeats it.
    """

    array: Array
    grid: Grid
    path: Path
    notes: tuple[str, ...]
    header: Any


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
        hint = _HINTS.get(path.suffix.lower(), "").format(name=path.name, stem=path.stem)
        raise ImageError(f"{path}: expected a name that ends in .nii or .nii.gz{hint}")
    return path.name[: found.start()], found.group()


def is_nifti_name(path: Path) -> bool:
    """Tell whether a file name ends in `.nii` or `.nii.gz`."""
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
    scan = _load(path)
    array, repaired = _finite(scan.array, path)
    low, high = array.min(), array.max()
    if low == high:
        raise ImageError(f"{path}: every voxel is {low:g}; this is not a scan, check its export")
    return _said(scan, array, *repaired)


def read_mask(path: Path, like: Grid | None = None, *, as_255: bool = True) -> Scan:
    """Read a mask: {0, 1}, or {0, 255} as image editors write it.

    Parameters
    ----------
    path : Path
    like : Grid, optional
        Grid of the image that the mask belongs to.
    as_255 : bool
        Take {0, 255}; SCT's commands do not.

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
    scan = _load(path)
    array = scan.array
    top = 255 if as_255 and abs(float(array.max()) - 255) <= MASK_ROUNDING else 1
    mask = np.abs(array - np.float64(top)) <= MASK_ROUNDING
    if not (np.abs(array[~mask]) <= MASK_ROUNDING).all():
        raise ImageError(
            f"{path}: holds {_values_seen(array)}, expected a mask of 0 and 1; "
            "binarise it first, for instance with `sct_maths -bin 0.5`"
        )
    notes = ["the mask is 0 and 255: 255 is taken as 1"] if top == 255 else []
    scan = _said(scan, mask, *notes)
    if like is not None:
        _check_grid(scan, like)
    return scan


def read_labels(path: Path, like: Grid | None = None) -> Scan:
    """Read labels: whole numbers from 0.

    Parameters
    ----------
    path : Path
    like : Grid, optional
        Grid of the image that the labels belong to.

    Returns
    -------
    Scan
        With an int32 array.

    Raises
    ------
    ImageError
        The file is missing or damaged, or holds other values.
    GeometryError
        The labels are on another grid than the image.
    """
    scan = _load(path)
    array = np.clip(np.rint(scan.array), 0, np.iinfo(np.int16).max)
    if not (np.abs(scan.array - array) <= MASK_ROUNDING).all():  # also refuses NaN
        raise ImageError(f"{path}: holds {_values_seen(scan.array)}, expected whole numbers from 0")
    scan = _said(scan, array.astype(np.int32))
    if like is not None:
        _check_grid(scan, like)
    return scan


def read_pmap(path: Path, like: Grid | None = None) -> Scan:
    """Read a p-map: floating-point probabilities in [0, 1].

    Parameters
    ----------
    path : Path
    like : Grid, optional
        Grid of the image that the p-map belongs to.

    Raises
    ------
    ImageError
        The file is missing or damaged, holds whole numbers, or values outside [0, 1].
    GeometryError
        The p-map is on another grid than the image.
    """
    scan = _load(path)
    array = scan.array
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
    scan = _said(scan, np.clip(array, 0, 1))
    if like is not None:
        _check_grid(scan, like)
    return scan


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
    _, extension = stem(path)
    if array.shape != like.grid.shape:
        raise GeometryError(f"{path}: array {array.shape} on a grid of {like.grid.shape}")
    kind = np.dtype(dtype)
    if np.issubdtype(kind, np.integer) and array.size:
        limits = np.iinfo(kind)
        if not (array.min() >= limits.min and array.max() <= limits.max):
            raise OutputError(f"{path}: values do not fit {kind}")
    image_class = _KINDS[int(like.header["sizeof_hdr"])]
    image = image_class(array.astype(kind), None, like.header, dtype=kind)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if extension.lower().endswith(".gz"):
            # No file name and no time: they would differ between runs, and tell of the machine.
            with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)


@np.errstate(invalid="ignore", over="ignore")  # of a damaged header; what comes of it is checked
def _load(path: Path) -> Scan:
    """Read voxels, scaled, and where they are."""
    _, extension = stem(path)
    notes: list[str] = []
    with _opened(path) as (stream, packed, most):
        raw = _header(stream, path)
        _repair(raw, notes)
        shape, dtype, offset = _shape(raw, path), _dtype(raw, path), _offset(raw, path)
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes > MAX_VOXEL_BYTES:
            raise ImageError(
                f"{path}: the header claims {n_bytes / 2**30:.0f} GiB of voxels "
                f"(shape {shape}); it is damaged, or crop the image first"
            )
        slope, intercept = _scaling(raw, notes)
        grid = _grid(raw, shape, path, notes)
        if offset + n_bytes > most * (MAX_DEFLATE_RATIO if packed else 1):
            raise ImageError(
                f"{path}: truncated: {most} bytes cannot hold the {n_bytes} bytes of voxels that "
                "the header claims; copy the file again"
            )
        data = bytearray(n_bytes)
        stream.seek(offset)
        if (n_read := stream.readinto(data)) < n_bytes:
            raise ImageError(
                f"{path}: truncated: {n_read} of {n_bytes} bytes of voxels; copy the file again"
            )
        behind = len(stream.read(MAX_TRAILING_BYTES + 1))  # to its end: the checksum is verified
        if behind > MAX_TRAILING_BYTES:
            raise ImageError(
                f"{path}: holds much more data than its header describes; "
                "the header is wrong, convert the image again"
            )
        if behind:
            notes.append(f"{behind} bytes behind the voxels were ignored")
        if packed != extension.lower().endswith(".gz"):
            notes.append(f"the content is {'' if packed else 'not '}gzip, unlike its name")
    array: Array = np.ndarray(shape, dtype, data, order="F")
    array = array.astype(dtype.newbyteorder("="), copy=False)
    if (slope, intercept) != (1.0, 0.0):
        array = array.astype(np.float64) * slope + intercept
    return Scan(array, grid, path, tuple(notes), _bare(raw, grid))


def _said(scan: Scan, array: Array, *notes: str) -> Scan:
    """Log what is doubtful of a scan; return it with other voxels and further notes."""
    notes = (*scan.notes, *notes)
    for note in notes:
        logger.warning("%s: %s", scan.path.name, note)
    return replace(scan, array=array, notes=notes)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedIOBase, bool, int]]:
    """Open an image file, plain or gzip by its content; say what is wrong with its stream.

    Yields
    ------
    stream, packed, size
        Whether the content is gzip; bytes of the file.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ImageError(f"{path}: is a folder or a special file, expected a NIfTI file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ImageError(f"{path}: the file is empty (0 bytes); copy it again")
            packed = file.read(2) == _GZIP
            file.seek(0)
            yield gzip.GzipFile(fileobj=file) if packed else file, packed, size
    except FileNotFoundError:
        link = f"dangling link to {path.readlink().name}" if path.is_symlink() else "no such file"
        raise ImageError(f"{path}: {link}") from None
    except EOFError as error:
        raise ImageError(
            f"{path}: truncated: the gzip stream ends too early; copy the file again"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ImageError(f"{path}: damaged: {error}; copy the file again, or restore it") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it; ask its owner for it") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error


def _what_is(head: bytes) -> str:
    """Say what a file that is not NIfTI looks like, from its first bytes."""
    for start, what in _LOOKS:
        if start.lower() in head[:132].lower():
            return what
    if head and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "a text file, not an image"
    return "not a NIfTI-1 or NIfTI-2 file; convert it to NIfTI"


def _header(stream: io.BufferedIOBase, path: Path) -> Any:
    """Read a header as it is; refuse what is not one NIfTI file."""
    block = stream.read(348)
    sizes = [int.from_bytes(block[:4], order) for order in ("little", "big")]
    size = next((size for size in sizes if size in _KINDS), 0)
    block += stream.read(max(size - 348, 0))
    if not size:
        raise ImageError(f"{path}: this is {_what_is(block)}")
    if len(block) < size:
        raise ImageError(f"{path}: truncated in its header; copy the file again")
    raw = _KINDS[size].header_class(block, check=False)
    magic = bytes(raw["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise ImageError(f"{path}: the voxels are in an .img file; convert it to one .nii.gz file")
    if magic not in (b"n+1", b"n+2"):
        raise ImageError(f"{path}: an Analyze image without orientation; convert it to NIfTI")
    return raw


def _repair(raw: Any, notes: list[str]) -> None:
    """Put fields right that have one sensible reading, the one that nibabel takes as well."""
    for form in ("sform", "qform"):
        code = int(raw[f"{form}_code"])
        if code not in _FORM_CODES:
            notes.append(f"the {form} code {code} does not exist: taken as 0")
            raw[f"{form}_code"] = 0
    if raw["pixdim"][0] not in (-1, 1):  # 0 stands for 1 in the standard
        raw["pixdim"][0] = -1 if raw["pixdim"][0] < 0 else 1
    if (raw["pixdim"][1:4] < 0).any():
        notes.append("voxel sizes below 0: taken without their sign")
        raw["pixdim"][1:4] = np.abs(raw["pixdim"][1:4])
    try:
        raw.get_xyzt_units()
    except KeyError:
        raw.set_xyzt_units("mm")


def _shape(raw: Any, path: Path) -> tuple[int, int, int]:
    dim = [int(n) for n in raw["dim"]]
    rank, sizes = dim[0], dim[1 : 1 + max(dim[0], 0)]
    if not 1 <= rank <= 7 or min(sizes) < 1:
        raise ImageError(f"{path}: the header is damaged: dim is {dim}; convert the image again")
    if rank < 3:
        raise ImageError(
            f"{path}: the image is {rank}-D, shape {tuple(sizes)}; expected a 3-D scan"
        )
    if _CIFTI[0] <= int(raw["intent_code"]) <= _CIFTI[1]:
        raise ImageError(
            f"{path}: is a CIFTI file, values on a surface and no image; expected a 3-D scan"
        )
    if math.prod(sizes[3:]) > 1:
        raise ImageError(
            f"{path}: the image holds {math.prod(sizes[3:])} volumes, shape {tuple(sizes)}; "
            "split it with `sct_image -i IMAGE -split t` and give one volume"
        )
    return sizes[0], sizes[1], sizes[2]


def _dtype(raw: Any, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(raw.get_data_dtype())
        what = _NO_NUMBERS.get(dtype.kind, "no numbers")
    except (HeaderDataError, KeyError):
        dtype, what = np.dtype("V"), f"an unknown type (code {int(raw['datatype'])})"
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ImageError(f"{path}: the voxels are {what}; expected one real number per voxel")
    return dtype


def _offset(raw: Any, path: Path) -> int:
    first = len(raw.binaryblock) + 4
    offset = float(raw["vox_offset"]) or first
    if not first <= offset <= first + MAX_EXTENSION_BYTES:
        raise ImageError(
            f"{path}: the header is damaged: voxels start at byte {offset:g}; "
            "convert the image again"
        )
    return int(offset)


def _scaling(raw: Any, notes: list[str]) -> tuple[float, float]:
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    # NIfTI-1: 0 stands for no scaling; by NaN in both, many writers mean the same.
    if slope == 0 or (math.isnan(slope) and (intercept == 0 or not math.isfinite(intercept))):
        return 1.0, 0.0
    if not math.isfinite(slope):
        notes.append(f"scl_slope is {slope:g}: the stored values are taken as they are")
        return 1.0, 0.0
    if not math.isfinite(intercept):
        notes.append(f"scl_inter is {intercept:g}: taken as 0")
        intercept = 0.0
    return slope, intercept


def _grid(raw: Any, shape: tuple[int, int, int], path: Path, notes: list[str]) -> Grid:
    """Choose the grid as nibabel does (sform, qform, voxel sizes); bad forms lose their code."""
    coded = [form for form in ("sform", "qform") if raw[f"{form}_code"] != 0]
    read = {"sform": raw.get_sform, "qform": raw.get_qform}
    grids = {form: grid for form in coded if (grid := _form(read[form], shape))}
    for form in set(coded) - set(grids):
        notes.append(f"the {form} is singular or not finite and was left out")
        raw[f"{form}_code"] = 0
    if coded and not grids:
        raise ImageError(
            f"{path}: neither sform nor qform is usable (singular or not finite); "
            "convert the image again, or copy a good header with `sct_image -copy-header`"
        )
    if not coded:
        if (grid := _form(raw.get_base_affine, shape)) is None:
            raise ImageError(f"{path}: the header has no voxel size; convert the image again")
        grids = {"": grid}
        notes.append(
            "sform and qform codes are both 0: the orientation is a guess "
            "(x to the left, y to the front, z up); check the result"
        )
    grid = next(iter(grids.values()))
    _check_axes(grid, path, notes)
    apart = [np.linalg.norm(grid.corners - other.corners, axis=1) for other in grids.values()]
    if (apart_mm := np.max(apart)) > min(grid.spacing_mm) / 2:
        notes.append(f"sform and qform differ by up to {apart_mm:.1f} mm: the sform is used")
    return grid


def _form(read: Callable[[], Array], shape: tuple[int, int, int]) -> Grid | None:
    """Grid by an affine of the header; None where it is not usable."""
    try:
        return Grid(shape, read())
    except (HeaderDataError, ValueError, GeometryError):
        return None


def _check_axes(grid: Grid, path: Path, notes: list[str]) -> None:
    spacing = np.array(grid.spacing_mm)
    if spacing.min() < SPACING_RANGE_MM[0] or spacing.max() > SPACING_RANGE_MM[1]:
        sizes = " × ".join(f"{size:g}" for size in spacing)
        raise ImageError(f"{path}: voxels of {sizes} mm; check the units in the header")
    directions = grid.affine[:3, :3] / spacing
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    degrees = math.degrees(math.asin(min(shear, 1)))
    if shear > SHEAR_REFUSED:
        raise ImageError(
            f"{path}: the voxel axes are {degrees:.0f}° off a right angle; resample the image to a "
            "grid that is not sheared"
        )
    if shear > SHEAR_WARNED:
        notes.append(
            f"the voxel axes are {degrees:.0f}° off a right angle: lengths in mm are approximate"
        )


def _bare(raw: Any, grid: Grid) -> Any:
    """Header with both forms bit for bit, but for what is not finite, and nothing else."""
    bare = type(raw)(endianness="<")
    for field in _PLACE:
        if np.isfinite(raw[field]).all():
            bare[field] = raw[field]
    pixdim = raw["pixdim"][:4]
    if not np.isfinite(pixdim).all() or pixdim[1:4].min() <= 0:
        pixdim = (pixdim[0], *grid.spacing_mm)
    bare["pixdim"] = (*pixdim, 1, 1, 1, 1)
    return bare


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
    text = ", ".join(str(value).removesuffix(".0") for value in values[:5])
    return f"the values {text}" + (f", … ({len(values)} in all)" if len(values) > 5 else "")


def _check_grid(mask: Scan, like: Grid) -> None:
    """Refuse a mask or p-map on another grid than its image."""
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
