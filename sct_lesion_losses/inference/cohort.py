"""Many scans through models: what is kept of them is taken over, the rest is computed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import __version__, executor, logs
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.centerline import BY_CONTRAST, find
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, LesionError, NoCordError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import write_text
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.inference import engine as engines
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference import predict as models
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.sct import lesion as sct_lesion
from sct_lesion_losses.thresholds import ScanCounts, count
from sct_lesion_losses.thresholds.curves import from_dict

AS_IN_COHORT = "cohort"
_REMEMBERED = 10_000  # hashes of scans


@dataclass(frozen=True, eq=False)
class Judged:
    """A scan's manual mask and the bundle's p-map of it, on the scan's own grid."""

    scan: CohortScan
    truth: npt.NDArray[np.bool_]
    pmap: npt.NDArray[np.float32]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Located:
    """A scan of a cohort as it is read: what every model takes.

    Attributes
    ----------
    scan : CohortScan
    image : Scan
    truth : (X, Y, Z) bool
        The untouched manual mask.
    line : Centerline
        On the image's RPI grid.
    """

    scan: CohortScan
    image: Scan
    truth: npt.NDArray[np.bool_]
    line: Centerline


def refuse_known(asked: Mapping[Bundle, Collection[CohortScan]]) -> None:
    """Raise a DataError if a bundle was trained on one of its scans, whatever that is called now.

    Parameters
    ----------
    asked : mapping of Bundle to collection of CohortScan
        The scans that each bundle is to see; none is read for one that does not say what it was
        trained on.
    """
    for bundle, names in trained_on(asked).items():
        if names:
            raise DataError(
                f"bundle {bundle.name} was trained on {len(names)} of these scans ({names[0]} "
                "first), which would flatter every threshold; give other scans, or the split.tsv "
                "that the training wrote beside the bundle"
            )


def refuse_seen(bundles: Collection[Bundle], scans: Collection[CohortScan], because: str) -> None:
    """Raise a DataError if a bundle was trained on one of the scans, or its threshold chosen on it.

    Parameters
    ----------
    bundles : collection of Bundle
    scans : collection of CohortScan
        None is read for a bundle that does not say what it was trained and tuned on.
    because : str
        Why those that chose the threshold are refused, for the message: ``which would …``.
    """
    refuse_known(dict.fromkeys(bundles, scans))
    for bundle in bundles:
        names = _named(bundle.info.operating_point.tuned_on, scans)
        if names:
            raise DataError(
                f"the threshold of bundle {bundle.name} was chosen on {len(names)} of these scans "
                f"({names[0]} first), {because}; give other scans"
            )


def trained_on(asked: Mapping[Bundle, Collection[CohortScan]]) -> dict[Bundle, list[str]]:
    """Name the scans that each bundle was trained on, of those it is asked about."""
    return {
        bundle: _named(bundle.info.provenance.trained_on, scans) for bundle, scans in asked.items()
    }


def _named(hashes: Collection[str], scans: Collection[CohortScan]) -> list[str]:
    """Name the scans whose voxels have one of these hashes; none is read where there is no hash."""
    known = set(hashes)
    return [scan.scan.name for scan in scans if known and content_of(scan) in known]


def content_of(scan: CohortScan) -> str:
    """Hash the voxels of a scan, see `cohort.content_hash`; a file that stays is read once.

    Raises
    ------
    ImageError
        The scan cannot be read.
    """
    file = scan.scan.resolve()
    state = file.stat() if file.exists() else None
    return _content(file, None if state is None else (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=_REMEMBERED)
def _content(file: Path, _state: tuple[int, int] | None) -> str:
    return cohorts.content_hash(nifti.read(file).array)


def located(scan: CohortScan, centerline: str = AS_IN_COHORT, contrast: str = "t2") -> Located:
    """Read a scan and its manual mask, and find the cord.

    Parameters
    ----------
    scan : CohortScan
    centerline : str
        ``cohort`` takes the cohort's own centerline where it has one; else a method of `locate`.
    contrast : {"t2", "t2_ax", "t2s"}
        Of the scan, for SCT's ways to find the cord.

    Raises
    ------
    NoCordError
        The scan shows no cord.
    LesionError
        The scan, its mask or its centerline cannot be used.
    """
    image = nifti.read(scan.scan)
    truth = nifti.read_mask(scan.lesion_mask, like=image.grid).array
    with logs.about(scan.scan):
        if centerline == AS_IN_COHORT:
            line = find.centerline(image.array, image.grid, contrast=contrast, file=scan.centerline)
        else:
            line = find.centerline(image.array, image.grid, centerline, contrast=contrast)
    return Located(scan, image, truth, line)


def line_for_sct(found: Located, centerline: str = AS_IN_COHORT) -> Centerline:
    """Return the centerline as SCT's lesion model takes it, which differs for one from a file.

    Parameters
    ----------
    found : Located
    centerline : str
        As it was given to `located`.
    """
    file = found.scan.centerline
    if centerline != AS_IN_COHORT or file is None:
        return found.line
    with logs.about(found.scan.scan):
        return find.centerline(found.image.array, found.image.grid, file=file, as_sct=True)


def judge(
    bundle: Bundle, network: engines.Network, scan: CohortScan, centerline: str = AS_IN_COHORT
) -> Judged:
    """P-map of a scan by the bundle, and the untouched manual mask."""
    found = located(scan, centerline)
    with logs.about(scan.scan):
        pmap = predict.pmap(
            bundle, found.image.array, found.image.grid, found.line, network=network
        )
    return Judged(scan, found.truth, pmap, found.image.grid.spacing_mm)


FLOAT32 = "float32"
RULE_THRESHOLDS = (0.5,)  # a mask is swept as a p-map of 0 and 1


@dataclass(frozen=True)
class Model:
    """What predicts.

    Attributes
    ----------
    name : str
        Name or folder of a bundle, or ``sct``.
    sha256 : str
        Of what its p-maps follow from; see `Bundle.pmap_sha256`.
    thresholds : tuple of float
        Rising.
    sct_rule : bool
        SCT's model exactly as `sct_deepseg_lesion` runs it, in ONNX Runtime; its mask has no
        threshold.
    """

    name: str
    sha256: str
    thresholds: tuple[float, ...]
    sct_rule: bool = False

    def computed_in(self, conditions: Conditions) -> tuple[str, str]:
        """Engine and precision; see `engine.load`."""
        if self.sct_rule:
            return sct_lesion.RULE_ENGINE, FLOAT32
        return conditions.engine, conditions.precision


@dataclass(frozen=True)
class Conditions:
    """How scans are looked at.

    Attributes
    ----------
    centerline : str
        ``cohort``, or a method of `locate`.
    contrast : {"t2", "t2_ax", "t2s"}
        For SCT's model and its ways to find the cord.
    engine : str
        See `engine.load`.
    finder : str
        What finds the cord where no file of the cohort says where it is; see `locate.identity`.
        Empty where a file does so in every scan.
    precision : str
        See `engine.load`.
    """

    centerline: str
    contrast: str
    engine: str
    finder: str = ""
    precision: str = FLOAT32

    @classmethod
    def of(
        cls,
        centerline: str,
        contrast: str,
        engine: str,
        scans: Sequence[CohortScan],
        precision: str = FLOAT32,
    ) -> Conditions:
        """Conditions for some scans of a cohort."""
        if centerline != AS_IN_COHORT:
            finder = find.identity(centerline, contrast)
        elif all(scan.centerline for scan in scans):
            finder = ""
        else:
            finder = find.identity("auto", contrast)
        return cls(centerline, contrast, engine, finder, precision)

    @property
    def finds_by_contrast(self) -> bool:
        """Whether the cord may be found in another way where the contrast is another."""
        if self.centerline == AS_IN_COHORT:
            return bool(self.finder)
        return self.centerline == "auto" or self.centerline in BY_CONTRAST


@dataclass(frozen=True, eq=False)
class Result:
    """What a model does on a scan.

    Attributes
    ----------
    tally : ScanCounts or None
        None where no cord was found.
    refused : str
        Why there is none.
    engine : str
        Name, version and precision of what computed it.
    """

    tally: ScanCounts | None
    refused: str = ""
    engine: str = ""


@dataclass(frozen=True)
class Task:
    """A scan, and the models that are to see it.

    Attributes
    ----------
    scan : CohortScan
    file : Path
        Where its results are kept.
    content : str
        Hash of the scan; see `content`.
    models : tuple of Model
    conditions : Conditions
    """

    scan: CohortScan
    file: Path
    content: str
    models: tuple[Model, ...]
    conditions: Conditions


def content(scan: CohortScan, conditions: Conditions) -> str:
    """Hash the files that a scan is read from, bytes and not names.

    Raises
    ------
    ImageError
        One cannot be read.
    """
    own, by = None, ""
    if conditions.centerline == AS_IN_COHORT:
        own = scan.centerline
        by = conditions.finder if own is None else "file"
    hashes = [cohorts.file_hash(file) for file in (scan.scan, scan.lesion_mask, own) if file]
    return hashlib.sha256("\n".join([by, *hashes]).encode()).hexdigest()


def key(model: Model, conditions: Conditions) -> str:
    """Hash what a result follows from, the scan aside."""
    engine, precision = model.computed_in(conditions)
    by_contrast = model.name == SCT_NAME or conditions.finds_by_contrast
    facts = {
        "software": __version__,
        "network": model.sha256,
        "thresholds": model.thresholds,
        "sct_rule": model.sct_rule,
        "presets": [asdict(preset) for preset in PRESETS.values()],
        "centerline": conditions.centerline,
        "contrast": conditions.contrast if by_contrast else "",
        "engine": engine,
    }
    if conditions.centerline != AS_IN_COHORT:
        facts["finder"] = conditions.finder
    if precision != FLOAT32:
        facts["precision"] = precision
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def kept(task: Task) -> dict[str, Result]:
    """Return the results that are there already, by their keys; what is damaged is not."""
    read = {name: _from_dict(stored) for name, stored in _stored(task).items()}
    return {name: result for name, result in read.items() if result is not None}


def compute(task: Task) -> dict[str, Result]:
    """Let the models see the scan; keep what they do beside what is kept already.

    Returns
    -------
    dict of str to Result
        By the keys of the models; without a tally, all of them, where the scan shows no cord.

    Raises
    ------
    LesionError
        The scan or a model cannot be used; the message names the scan. Nothing is kept of it then.
    """
    name, conditions = task.scan.scan.name, task.conditions
    try:
        results = _results(task)
    except LesionError as error:
        if name in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error
    by_key = {key(model, conditions): result for model, result in results.items()}
    stored = {**_stored(task), **{name: _to_dict(result) for name, result in by_key.items()}}
    text = json.dumps({"content": task.content, "results": stored}, allow_nan=False)
    write_text(task.file, text + "\n")
    return by_key


def _results(task: Task) -> dict[Model, Result]:
    conditions = task.conditions
    try:
        found = located(task.scan, conditions.centerline, conditions.contrast)
    except NoCordError as error:
        return {model: Result(None, str(error)) for model in task.models}
    return {model: _result(model, found, conditions) for model in task.models}


def _result(model: Model, found: Located, conditions: Conditions) -> Result:
    bundle, network = models.opened(
        model.name, conditions.contrast, *model.computed_in(conditions), model.sha256
    )
    image, grid = found.image.array, found.image.grid
    by_sct = model.name == SCT_NAME
    line = line_for_sct(found, conditions.centerline) if by_sct else found.line
    pmap: npt.NDArray[np.float32]
    with logs.about(found.scan.scan):
        if model.sct_rule:
            mask = sct_lesion.sct_rule(image, grid, line, conditions.contrast, network)
            pmap = mask.astype(np.float32)
        else:
            pmap = predict.pmap(bundle, image, grid, line, network=network)
        counted = count(found.truth, pmap, grid.spacing_mm, model.thresholds)
    return Result(counted, "", f"{network.name} {network.version}, {network.precision}")


def _to_dict(result: Result) -> dict[str, Any]:
    counts = None if result.tally is None else result.tally.to_dict()
    return {"tally": counts, "refused": result.refused, "engine": result.engine}


def _from_dict(stored: Any) -> Result | None:
    """Return the result that `_to_dict` wrote; None if it did not."""
    try:
        counts = stored["tally"]
        found = None if counts is None else from_dict(counts)
        return Result(found, str(stored["refused"]), str(stored["engine"]))
    except (KeyError, TypeError, ValueError):
        return None


def _stored(task: Task) -> Mapping[str, Any]:
    """Results of the scan's file, if it is of the scan as it is now."""
    try:
        held = json.loads(task.file.read_text(encoding="utf-8"))
        if held["content"] == task.content:
            return dict(held["results"])
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(
            f"{task.file}: cannot be read ({error.strerror}); remove it, or choose another folder"
        ) from error
    except (KeyError, TypeError, ValueError):
        pass
    return {}


SCANS = "scans"  # folder of the kept results inside that of an evaluation

logger = logging.getLogger(__name__)


def gather(
    seen_by: Mapping[CohortScan, Sequence[Model]],
    names: Mapping[Path, str],
    folder: Path,
    conditions: Conditions,
    loaded: Mapping[Model, Bundle],
    *,
    jobs: int = 1,
    report: Progress | None = None,
) -> dict[CohortScan, dict[Model, Result]]:
    """Take over the results that are kept in a folder, compute and keep the rest.

    Parameters
    ----------
    seen_by : mapping of CohortScan to sequence of Model
        The models that are to see each scan.
    names : mapping of Path to str
        Of the scans' files; see `cohort.names`.
    folder : Path
        Of the kept results, a file per scan.
    conditions : Conditions
    loaded : mapping of Model to Bundle
        Those that must not have been trained on a scan that they are to see.
    jobs : int
        Scans at a time, each in a process of its own.
    report : callable, optional
        Told of the scans that are computed.

    Returns
    -------
    dict of CohortScan to dict of Model to Result
        In the order of `seen_by`.

    Raises
    ------
    DataError
        A bundle was trained on a scan that its model is to see.
    LesionError
        A model or a scan cannot be used. The results of other scans stay.
    """
    keys = {model: key(model, conditions) for some in seen_by.values() for model in some}
    found, tasks = {}, []
    for scan, wanted in seen_by.items():
        file = folder / f"{names[scan.scan]}.json"
        task = Task(scan, file, content(scan, conditions), tuple(wanted), conditions)
        found[scan] = kept(task)
        missing = tuple(model for model in wanted if keys[model] not in found[scan])
        if missing:
            tasks.append(replace(task, models=missing))
    total, missed = (sum(map(len, some)) for some in (seen_by.values(), [t.models for t in tasks]))
    if total > missed:
        logger.info(
            "%d of %d results (a scan by a model) taken over from %s; %d to compute",
            total - missed,
            total,
            folder,
            missed,
        )
    _refuse_known(tasks, loaded)
    computed = executor.run(
        compute, tasks, jobs, name=lambda task: task.scan.scan.name, progress=report
    )
    for task, results in zip(tasks, computed, strict=True):
        found[task.scan] |= results
    return {
        scan: {model: found[scan][keys[model]] for model in wanted}
        for scan, wanted in seen_by.items()
    }


def _refuse_known(tasks: Sequence[Task], loaded: Mapping[Model, Bundle]) -> None:
    """Ask each bundle about the scans of its own tasks only."""
    asked: dict[Bundle, dict[CohortScan, None]] = {}
    for task in tasks:
        for model in task.models:
            if model in loaded:
                asked.setdefault(loaded[model], {})[task.scan] = None
    refuse_known(asked)
