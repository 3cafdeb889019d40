"""A BIDS dataset of scans with known lesions: images, labels, and what is true of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from sct_lesion_losses import __version__
from sct_lesion_losses.errors import OutputError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images.atomic import replacing, require_writable, write_json, write_text
from sct_lesion_losses.phantom.lesions import Lesion

DESCRIPTION = "dataset_description.json"
_GENERATOR = "sct_lesion_losses.phantom"
TRUTH = "labels"  # folder of the derivatives that holds what is true
TRUTH_COLUMNS = (
    "participant_id", "session_id", "scan", "lesion", "level", "place", "s_mm", "half_length_mm",
    "section_share", "intensity_ratio", "volume_mm3", "labelled",
)  # fmt: skip


def description(name: str, kind: str, **generated: object) -> dict[str, Any]:
    """Describe a BIDS dataset, raw or derivative, and how it was generated."""
    return {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": kind,
        "GeneratedBy": [{"Name": _GENERATOR, "Version": __version__, **generated}],
    }


def claim(out: Path, described: dict[str, Any], own: Iterable[str]) -> None:
    """Describe a dataset in its folder, so that no scan of another one is mixed with its own.

    A description of another dataset is replaced where it is alone and generated here.

    Parameters
    ----------
    out : Path
    described : dict
        See `description`.
    own : iterable of str
        Names of its subjects' folders, and of its derivatives.

    Raises
    ------
    OutputError
        The folder holds another dataset, or cannot be written.
    """
    require_writable(out)
    derivatives = out / "derivatives"
    places = [*out.glob("sub-*"), *derivatives.glob("rater-*"), *derivatives.glob(f"{TRUTH}/sub-*")]
    known = set(own)
    others = sorted(p.relative_to(out).as_posix() for p in places if p.name not in known)
    found = _read_description(out / DESCRIPTION)
    if found is None:
        others += [f"no {DESCRIPTION}"] if places else []
    elif found != described and (places or not _is_generated(found)):
        others.append(f"another {DESCRIPTION}")
    if others:
        raise OutputError(f"{out}: holds another cohort ({others[0]}); choose an empty folder")
    write_json(out / DESCRIPTION, described)


def _read_description(path: Path) -> object:
    """Content of a description; None where there is none, its text where it is no JSON."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(
            f"{path}: cannot read this file ({error.strerror}); choose an empty folder"
        ) from error
    try:
        return json.loads(text) or text
    except ValueError:
        return text


def _is_generated(described: object) -> bool:
    """Say whether a description is one of these; alone it is what a call that failed has left."""
    by = described.get("GeneratedBy") if isinstance(described, dict) else None
    return isinstance(by, list) and any(
        isinstance(one, dict) and one.get("Name") == _GENERATOR for one in by
    )


def write_labels(
    out: Path, folder: str, stem: str, grid: Grid, masks: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write the labels of a scan into a dataset.

    Parameters
    ----------
    out : Path
        Folder of the dataset.
    folder, stem : str
        Folder of the labels in each of the derivatives; start of the names of the files.
    grid : Grid
        Of the scan, as stored.
    masks : dict of str to (X, Y, Z) array
        By derivative and label, as ``labels/lesion_seg``.
    """
    for name, mask in masks.items():
        derivative, label = name.split("/")
        path = out / "derivatives" / derivative / folder / f"{stem}_label-{label}.nii.gz"
        write_nifti(path, mask.astype(np.uint8), grid)


def write_nifti(
    path: Path, array: npt.NDArray[Any], grid: Grid, slope: float | None = None
) -> None:
    """Write a compressed NIfTI file without time stamp; `slope` is stored, not applied."""
    image = nib.Nifti1Image(array, grid.affine)
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def centerline_mask(centerline: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.uint8]:
    """One voxel on the cord's centre in each axial slice.

    Parameters
    ----------
    centerline : (N, 3) float64
        World mm.
    grid : Grid
        In any orientation.

    Returns
    -------
    (X, Y, Z) uint8
    """
    mask = np.zeros(grid.shape, np.uint8)
    if not len(centerline):
        return mask
    grid, turn = grid.to_rpi()
    points = grid.to_voxel(centerline)
    points = points[np.argsort(points[:, 2])]
    z = np.arange(grid.shape[2])
    z = z[(z >= points[0, 2] - 0.5) & (z <= points[-1, 2] + 0.5)]
    x, y = (
        np.interp(z, points[:, 2], points[:, k]).round().clip(0, grid.shape[k] - 1).astype(int)
        for k in range(2)
    )
    turn.apply(mask)[x, y, z] = 1  # in RPI it is a view: this writes into the mask itself
    return mask


def truth_rows(
    names: Sequence[str], scan: str, lesions: Sequence[Lesion], volumes_mm3: Sequence[float]
) -> list[tuple[object, ...]]:
    """Rows of the truth table about a scan, one a lesion; the last column says it is labelled.

    Parameters
    ----------
    names : sequence of str
        Subject and, where there are several, session.
    scan : str
        Path of the scan in the dataset.
    lesions : sequence of Lesion
    volumes_mm3 : sequence of float
        Labelled volume of each.
    """
    name, session = (*names, "n/a")[:2]
    return [
        (
            name, session, scan, k, item.level, item.place,
            f"{item.s_mm:.2f}", f"{item.half_length_mm:.2f}", f"{item.share:.3f}",
            f"{item.ratio:.3f}", f"{volume:.1f}", int(volume > 0),
        )
        for k, (item, volume) in enumerate(zip(lesions, volumes_mm3, strict=True), 1)
    ]  # fmt: skip


def write_tables(
    out: Path,
    participants: Iterable[Sequence[object]],
    truth: Iterable[Sequence[object]],
    derivatives: Mapping[str, str],
) -> None:
    """Write the tables of a dataset, and describe its derivatives.

    Parameters
    ----------
    out : Path
    participants : iterable
        Rows of participants.tsv, its head first.
    truth : iterable
        Rows of truth.tsv without its head.
    derivatives : dict of str to str
        Folder and name of each.
    """
    _write_table(out / "participants.tsv", participants)
    _write_table(out / "truth.tsv", [TRUTH_COLUMNS, *truth])
    write_text(out / ".bidsignore", "truth.tsv\n")
    for folder, name in derivatives.items():
        described = description(name, "derivative")
        write_json(out / "derivatives" / folder / DESCRIPTION, described)


def _write_table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
