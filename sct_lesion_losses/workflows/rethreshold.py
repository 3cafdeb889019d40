"""Another mask from a stored p-map, at another decision threshold."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import logs
from sct_lesion_losses.errors import (
    CenterlineError,
    DataError,
    GeometryError,
    ImageError,
    UsageError,
)
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.location import Location, locate
from sct_lesion_losses.images import atomic, bids, cord_mask, nifti
from sct_lesion_losses.images.cord_mask import CordMask
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.images.outputs import Outputs
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.report import columns, sidecar
from sct_lesion_losses.report.columns import PREDICTED_LESIONS, LesionRow
from sct_lesion_losses.report.sidecar import Filtered, Found
from sct_lesion_losses.thresholds.binarization import binarize
from sct_lesion_losses.thresholds.lesion_filter import Filter, mask_at

logger = logging.getLogger(__name__)

COLUMNS = ("pmap", "threshold")  # of a table of thresholds
_POINT, _POINTS = "lesion_point", {"": None, "0": False, "1": True}  # a third one, if any
_MAP_ENDINGS = ("_pmap", "_probseg")
_LINES = ("centerline.nii.gz", "centerline.nii", "centerline.csv")  # as in `Outputs`
_FILTER, _TUNED = "TunedLesionFilter", "TunedThreshold"


@dataclass(frozen=True)
class Rethresholded:
    """Lesions of a mask, and its files.

    Attributes
    ----------
    written : tuple of Path
        The mask first, the sidecar last.
    found : Found
        Number and volume of the lesions.
    """

    written: tuple[Path, ...]
    found: Found


def default_outputs(pmap: Path, threshold: float, folder: Path | None = None) -> Outputs:
    """Name the outputs after the p-map and the threshold, so that no other mask is overwritten.

    >>> default_outputs(Path("t2_lesionseg_pmap.nii.gz"), 0.2).mask.name
    't2_lesionseg_thr0.2.nii.gz'
    """
    stem, extension = nifti.stem(pmap)
    for ending in _MAP_ENDINGS:
        stem = stem.removesuffix(ending)
    return Outputs.beside((folder or Path()) / f"{stem}_thr{float(threshold)!r}{extension}")


def listed(table: Path) -> list[tuple[Path, str, bool | None]]:
    """Read p-maps, their thresholds as texts, and whether lesions are filtered, from a table.

    Paths are taken from the folder of the table, whose columns are `COLUMNS`, and, for 0 and 1
    as by `-lesion_point`, "lesion_point"; others do not matter.

    Raises
    ------
    DataError
        It cannot be read, or has no such columns, no row or another value of the third.
    """
    rows = bids.read_table(table)
    if not rows:
        raise DataError(f"{table}: has no row; list a p-map and its threshold in each")
    if absent := [name for name in COLUMNS if name not in rows[0]]:
        raise DataError(
            f"{table}: has no column {absent[0]!r}; name the columns {' and '.join(COLUMNS)}"
        )
    points = [row.get(_POINT, "") for row in rows]
    if unknown := set(points).difference(_POINTS):
        raise DataError(f"{table}: {_POINT} is {min(unknown)!r}, expected 0, 1 or nothing")
    return [
        (table.parent / row[COLUMNS[0]], row[COLUMNS[1]], _POINTS[point])
        for row, point in zip(rows, points, strict=True)
    ]


def rethreshold(
    pmap: Path,
    threshold: float,
    outputs: Outputs,
    *,
    cord: Path | None = None,
    lesion_point: bool | None = None,
    lesions: bool = False,
    command: str = "",
) -> Rethresholded:
    """Threshold a stored p-map, as segmenting its scan would.

    Parameters
    ----------
    pmap : Path
        Floating-point probabilities in [0, 1].
    threshold : float
        In (0, 1]; voxels with p >= threshold are in the mask.
    outputs : Outputs
        Existing files are replaced, each whole or not at all.
    cord : Path, optional
        Cord mask that lesions are cut to, see `CordMask.cut`; a p-map that is cut already takes no
        other one.
    lesion_point : bool, optional
        Keep those predicted lesions only that the filter of the p-map's bundle lets through, which
        the JSON beside the p-map tells: where there is one, by default; True demands it.
    lesions : bool
        Also write the lesion table and the numbered lesions.
    command : str
        What was typed, base names only, for the sidecar.

    Raises
    ------
    UsageError
        The threshold is outside (0, 1], an output would overwrite an input, the p-map is cut to
        another cord mask, or no filter is known that is demanded.
    ImageError
        The file is no p-map, or the cord mask none.
    GeometryError
        The cord mask is on another grid.
    DataError
        The JSON or the centerline beside it cannot be read.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"-thr is {threshold:g}, expected a number in (0, 1]")
    _require_apart(pmap, cord, outputs)
    outputs.require_own()
    scan = nifti.read_pmap(pmap)
    told = _told(pmap)
    stored = None if lesion_point is False else _stored_filter(pmap, told)
    if lesion_point and stored is None:
        raise UsageError(
            f"{pmap}: no JSON beside it tells of a lesion filter of its bundle; leave out "
            "-lesion_point, or segment with a bundle that sct_tune_lesion -lesion_point 1 tuned"
        )
    rule, tuned = stored or (None, 0.0)
    doubts = [*_doubts(pmap, told, threshold, lesion_point)]
    values, outside, known = scan.array, None, None
    if cord is not None:
        known = cord_mask.read(cord, scan.grid)
        told = _of_cord(told, known, pmap)
        with logs.about(pmap):
            whole = binarize(values, threshold)
            values, outside = sidecar.cut_to_cord(values, whole, known, scan.grid)
    mask, *lesion_counts = mask_at(values, threshold, scan.grid.voxel_volume_mm3, rule)
    filtered = None if rule is None else Filtered(rule, tuned, *lesion_counts)
    if filtered is not None and filtered.predicted:
        logger.info("%s: %s", pmap.name, filtered.sentence)
    labels = lesionwise.components(mask)
    found = Found.of(labels, values, scan.grid)
    if not found.lesions:
        doubts.append(found.emptiness(filtered, outside))
    for doubt in doubts:
        logger.warning("%s: %s", pmap.name, doubt)
    notes = [*scan.notes, *doubts]
    entries = {
        "Sources": [scan.path.name],
        **{key: told[key] for key in sidecar.PMAP_KEYS if key in told},
        "Threshold": threshold,
        "OutsideCord": outside and outside.entry,
        "LesionFilter": filtered and filtered.entry,
        **found.entries,
    }
    files = [outputs.mask]
    with atomic.together():
        if lesions:
            nifti.write(outputs.labels, labels, scan, np.uint16)
            rows = lesionwise.measures(labels, values, scan.grid.affine)
            places = _places(labels, scan, told, known)
            table = columns.write(outputs.table, PREDICTED_LESIONS, [*map(LesionRow, rows, places)])
            files += [outputs.labels, *table]
        atomic.write_json(outputs.sidecar, sidecar.of_lesions(command, entries, notes))
        nifti.write(outputs.mask, mask, scan, np.uint8)
    return Rethresholded((*files, outputs.sidecar), found)


def _require_apart(pmap: Path, cord: Path | None, outputs: Outputs) -> None:
    """Refuse outputs that would overwrite an input."""
    inputs = {"p-map": pmap, "p-map's JSON": _beside(pmap), "cord mask": cord}
    names = (outputs.mask, outputs.labels, outputs.table, outputs.columns, outputs.sidecar)
    made = {path.resolve() for path in names}
    for what, file in inputs.items():
        if file is not None and file.resolve() in made:
            raise UsageError(
                f"{file}: the {what} would be overwritten; choose another name with -o"
            )


def _of_cord(told: Mapping[str, Any], cord: CordMask, pmap: Path) -> dict[str, Any]:
    """Entries of a p-map that is cut to a cord mask: no run of segmenting made it as it is then."""
    before = told.get("CordMask")
    if before is not None and told.get("CordMaskSHA256") != cord.sha256:
        raise UsageError(
            f"{pmap}: is cut to the cord mask {before} already, what is outside it is lost; leave "
            f"out -cord, or segment the scan with -cord {cord.name}"
        )
    own = {"CordMask": cord.name, "CordMaskSHA256": cord.sha256}
    return {key: value for key, value in told.items() if key != "InferenceSHA256"} | own


def _places(
    labels: npt.NDArray[np.int32], pmap: Scan, told: Mapping[str, Any], cord: CordMask | None
) -> list[Location]:
    """Locate lesions by the centerline that the run of a p-map left beside it, or by a cord mask.

    The image of the centerline comes before its CSV. Where there is neither, nothing is known.
    """
    rpi, reorientation = pmap.grid.to_rpi()
    names = [Path(str(name)).name for name in told.get("Files") or ()][1:]  # the first is the mask
    lines = [pmap.path.with_name(name) for name in names if name.lower().endswith(_LINES)]
    if files := [file for file in lines if file.is_file()]:
        from sct_lesion_losses.centerline import find  # with the networks, for a table only

        try:
            with logs.about(pmap.path):
                _, line = find.from_file(files[0], pmap.grid)
        except (ImageError, GeometryError, CenterlineError) as error:
            raise _unreadable(files[0], error, "restore or remove it") from error
    elif cord is not None:
        line = Centerline.from_mask(reorientation.apply(cord.array), rpi)
    else:
        return [Location()] * int(labels.max())
    return locate(labels, pmap.grid, line, None if cord is None else cord.array)


def _told(pmap: Path) -> dict[str, Any]:
    """Entries of the JSON beside a p-map; none where there is no such file."""
    file = _beside(pmap)
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return dict(told.items())
    except FileNotFoundError:
        return {}
    except (OSError, AttributeError, ValueError) as error:
        raise _unreadable(file, error, "restore or remove it") from error


def _stored_filter(pmap: Path, told: Mapping[str, Any]) -> tuple[Filter, float] | None:
    """Filter of the bundle that made a p-map, and the threshold that it was chosen at."""
    point = told.get(_FILTER)
    if point is None:
        return None
    try:
        rule = Filter(float(point["LeastPeak"]), float(point["LeastVolumeMm3"]))
        return rule, float(told[_TUNED])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(_beside(pmap), error, "restore it, or add -lesion_point 0") from error


def _doubts(
    pmap: Path, told: Mapping[str, Any], threshold: float, lesion_point: bool | None
) -> Iterator[str]:
    """Say what of the mask differs, or may, from the one that segmenting writes by default."""
    if lesion_point is None and _FILTER not in told:
        name = _beside(pmap).name
        said = f"{name} does not tell" if told else f"{name} is not there to tell"
        yield (
            f"{said} of a lesion filter, so every lesion is kept; segmenting with a bundle that "
            "has one drops some"
        )
    tuned = told.get(_TUNED)
    known = _TUNED in told and isinstance(tuned, (float, int, type(None)))
    if known and (doubt := sidecar.threshold_doubt(threshold, tuned, str(told.get("Bundle")))):
        yield doubt


def _beside(pmap: Path) -> Path:
    return pmap.with_name(f"{nifti.stem(pmap)[0]}.json")


def _unreadable(file: Path, error: Exception, remedy: str) -> DataError:
    return DataError(
        f"{file}: cannot be read as what segmenting wrote beside the p-map ({error}); {remedy}"
    )
