"""Many scans of a cohort through many models; what they do is kept in a file per scan."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sct_lesion_losses import __version__, executor, logs
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, NoCordError
from sct_lesion_losses.executor import Jobs, Progress
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.atomic import write_text
from sct_lesion_losses.inference.models import AS_IN_COHORT, LocatedScan, Model, read_scan
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import PRESETS, lesionwise
from sct_lesion_losses.metrics.froc import ScoredLesions, scored_lesions
from sct_lesion_losses.thresholds import ScanCounts, binarize, count
from sct_lesion_losses.thresholds.curves import from_dict
from sct_lesion_losses.thresholds.lesion_filter import Candidates, candidates, stepped

SCANS = "scans"  # folder of the kept counts inside that of an evaluation
_REMEMBERED = 10_000  # hashes of scans

logger = logging.getLogger(__name__)


def refuse_trained_on(bundle: Bundle, scans: Collection[CohortScan]) -> None:
    """Raise a DataError if a bundle was trained on one of the scans, whatever that is called now.

    None is read for a bundle that does not say what it was trained on.
    """
    names = names_of(bundle.info.provenance.trained_on, scans)
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
    for bundle in bundles:
        refuse_trained_on(bundle, scans)
        names = names_of(bundle.info.operating_point.tuned_on, scans)
        if names:
            raise DataError(
                f"the threshold of bundle {bundle.name} was chosen on {len(names)} of these scans "
                f"({names[0]} first), {because}; give other scans"
            )


def names_of(hashes: Collection[str], scans: Collection[CohortScan]) -> list[str]:
    """Name the scans that one of these hashes is of; none is read where there is no hash.

    Of implants, that of the scan that they are in is one as well: it is of the same person.
    """
    known = set(hashes)
    return [scan.scan.name for scan in scans if known and not known.isdisjoint(hashes_of(scan))]


def hashes_of(scan: CohortScan) -> set[str]:
    """Hashes by which a scan is known again: of its voxels, and of its host where it has implants.

    Raises
    ------
    ImageError
        The scan cannot be read.
    """
    return {content_of(scan), *filter(None, [cohorts.host_hash(scan)])}


def content_of(scan: CohortScan) -> str:
    """Hash the voxels of a scan, see `cohorts.table.content_hash`; a file that stays is read once.

    Raises
    ------
    ImageError
        The scan cannot be read.
    """
    file = scan.scan.absolute()
    state = file.stat() if file.exists() else None
    return _content(file, None if state is None else (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=_REMEMBERED)
def _content(file: Path, _state: tuple[int, int] | None) -> str:
    return cohorts.content_hash(nifti.read(file).array)


@dataclass(frozen=True, eq=False)
class ModelCounts:
    """Counts of a model on a scan.

    Attributes
    ----------
    counts : ScanCounts or None
        None where no cord was found.
    refused : str
        Why there are none.
    engine : str
        Name, version and precision of what computed them.
    noted : tuple of Candidates
        Where the model asks for them, the predicted lesions at each of its thresholds above 0.
    lesions : mapping of float to ScoredLesions
        By each of its thresholds above 0; of masks by that of `models.RULE_THRESHOLDS`.
    """

    counts: ScanCounts | None
    refused: str = ""
    engine: str = ""
    noted: tuple[Candidates, ...] = ()
    lesions: Mapping[float, ScoredLesions] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what a scan's file holds."""
        counts = None if self.counts is None else self.counts.to_dict()
        noted = {"noted": [own.to_dict() for own in self.noted]} if self.noted else {}
        lesions = [(cut, own.to_dict()) for cut, own in self.lesions.items()]
        about = {"refused": self.refused, "engine": self.engine}
        return {"counts": counts, **about, **noted, "lesions": lesions}

    @classmethod
    def from_dict(cls, stored: Any) -> ModelCounts | None:
        """Return what `to_dict` wrote; None if it did not."""
        try:
            counts = stored["counts"]
            found = None if counts is None else from_dict(counts)
            noted = tuple(Candidates.from_dict(own) for own in stored.get("noted", ()))
            lesions = {float(k): ScoredLesions.from_dict(own) for k, own in stored["lesions"]}
            return cls(found, str(stored["refused"]), str(stored["engine"]), noted, lesions)
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class ScanTask:
    """A scan, and the models that are to see it.

    Attributes
    ----------
    scan : CohortScan
    file : Path
        Where its counts are kept.
    content : str
        Hash of the files that it is read from; see `scan_hash`.
    keys : mapping of Model to str
        The models, and the key under which the counts of each are kept; see `key`.
    inference : InferenceSettings
    """

    scan: CohortScan
    file: Path
    content: str
    keys: Mapping[Model, str]
    inference: InferenceSettings


def finder_of(scans: Collection[CohortScan], inference: InferenceSettings) -> str:
    """Identify what finds the cord, see `find.identity`; empty where a file does in every scan."""
    in_cohort = inference.centerline == AS_IN_COHORT
    if in_cohort and all(scan.centerline for scan in scans):
        return ""
    return find.identity("auto" if in_cohort else inference.centerline, inference.contrast)


def scan_hash(scan: CohortScan, inference: InferenceSettings) -> str:
    """Hash the files that a scan is read from, bytes and not names.

    Raises
    ------
    ImageError
        One cannot be read.
    """
    line = scan.centerline if inference.centerline == AS_IN_COHORT else None
    hashes = [cohorts.file_hash(file) for file in (scan.scan, scan.lesion_mask, line) if file]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def key(model: Model, scan: CohortScan, inference: InferenceSettings, finder: str) -> str:
    """Hash what the counts of a model on a scan follow from, the scan's files aside.

    With a filter of lesions they are others than without it: none are taken over.

    Raises
    ------
    ImageError
        A file that is given cannot be read.
    """
    from_file = inference.centerline == AS_IN_COHORT and scan.centerline is not None
    facts: dict[str, Any] = {
        "software": __version__,
        "kind": model.kind,
        "thresholds": model.thresholds,
        "presets": [asdict(preset) for preset in PRESETS.values()],
    }
    if model.is_given:
        facts["given"] = cohorts.file_hash(model.files[scan.scan])
    else:
        facts |= {
            "network": model.sha256,
            "computed_in": model.computed_in(inference),
            "line": "file" if from_file else [finder, inference.contrast, inference.brain],
        }
    if model.rule is not None:
        facts["filter"] = asdict(model.rule)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def gather(
    seen_by: Mapping[CohortScan, Sequence[Model]],
    names: Mapping[Path, str],
    folder: Path,
    inference: InferenceSettings,
    loaded: Mapping[Model, Bundle],
    *,
    jobs: Jobs = 1,
    report: Progress | None = None,
) -> dict[CohortScan, dict[Model, ModelCounts]]:
    """Take over the counts that are kept in a folder, compute and keep the rest.

    Parameters
    ----------
    seen_by : mapping of CohortScan to sequence of Model
        The models that are to see each scan.
    names : mapping of Path to str
        Of the scans' files; see `cohorts.table.names`.
    folder : Path
        Of the kept counts, a file per scan.
    inference : InferenceSettings
    loaded : mapping of Model to Bundle
        Those that must not have been trained on a scan that they are to see.
    jobs : int, str or Path
        Scans at a time; see `executor.run`.
    report : callable, optional
        Told of the scans that are computed.

    Returns
    -------
    dict of CohortScan to dict of Model to ModelCounts
        In the order of `seen_by`.

    Raises
    ------
    DataError
        A bundle was trained on a scan that its model is to see.
    LesionError
        A model or a scan cannot be used. The counts of other scans stay.
    """
    computed_on = [scan for scan, models in seen_by.items() if not all(m.is_given for m in models)]
    finder = finder_of(computed_on, inference)
    found, tasks = {}, []
    for scan, models in seen_by.items():
        keys = {model.on(scan): key(model, scan, inference, finder) for model in models}
        file = folder / f"{names[scan.scan]}.json"
        task = ScanTask(scan, file, scan_hash(scan, inference), keys, inference)
        found[scan] = kept(task)
        missing = {model: own for model, own in keys.items() if model not in found[scan]}
        if missing:
            tasks.append(replace(task, keys=missing))
    total, missed = sum(map(len, seen_by.values())), sum(len(task.keys) for task in tasks)
    if total > missed:
        logger.info(
            "%d of %d results (a scan by a model) taken over from %s; %d to compute",
            total - missed,
            total,
            folder,
            missed,
        )
    for bundle in dict.fromkeys(loaded.values()):
        asked = [t.scan for t in tasks if any(loaded.get(model) is bundle for model in t.keys)]
        refuse_trained_on(bundle, asked)
    computed = executor.run(
        compute, tasks, jobs, name=lambda task: task.scan.scan.name, progress=report
    )
    for task, counted in zip(tasks, computed, strict=True):
        found[task.scan] |= counted
    return found


def with_cord(
    gathered: Mapping[CohortScan, Mapping[Model, ModelCounts]],
) -> dict[CohortScan, dict[Model, ScanCounts]]:
    """Choose the scans that show a cord; return what the models counted on them."""
    found = {}
    for scan, of_scan in gathered.items():
        counts = {model: one.counts for model, one in of_scan.items() if one.counts is not None}
        if len(counts) == len(of_scan):
            found[scan] = counts
    return found


def kept(task: ScanTask) -> dict[Model, ModelCounts]:
    """Return the counts of the models that are there already; what is damaged is not."""
    stored = _stored(task)
    read = {model: ModelCounts.from_dict(stored.get(name)) for model, name in task.keys.items()}
    return {
        model: counted
        for model, counted in read.items()
        if counted is not None and (counted.noted or not model.noted or counted.counts is None)
    }


def compute(task: ScanTask) -> dict[Model, ModelCounts]:
    """Let the models see the scan; keep their counts beside what is kept already.

    Returns
    -------
    dict of Model to ModelCounts
        Without counts, but for what is given, where the scan shows no cord.

    Raises
    ------
    LesionError
        The scan or a model cannot be used; the message names the scan. Nothing is kept of it then.
    """
    with logs.about(task.scan.scan):
        found = read_scan(task.scan, task.inference)
        counted = {model: _count(model, found) for model in task.keys if model.is_given}
        networks = [model for model in task.keys if not model.is_given]
        try:
            counted |= {model: _count(model, found) for model in networks}
        except NoCordError as error:
            counted |= dict.fromkeys(networks, ModelCounts(None, str(error)))
    new = {task.keys[model]: one.to_dict() for model, one in counted.items()}
    results = {"content": task.content, "results": {**_stored(task), **new}}
    write_text(task.file, json.dumps(results, allow_nan=False) + "\n")
    return counted


def _count(model: Model, found: LocatedScan) -> ModelCounts:
    pmap, computed_by = model.pmap(found)
    grid, cuts = found.image.grid, [cut for cut in model.thresholds if cut > 0]
    kept = pmap
    if model.rule is not None:
        kept = stepped(pmap, model.thresholds, grid.voxel_volume_mm3, model.rule)
    counts = count(found.truth, kept, grid.spacing_mm, model.thresholds)
    noted = tuple(
        candidates(found.truth, kept, cut, grid.voxel_volume_mm3) for cut in cuts if model.noted
    )
    # The masks shrink as the threshold rises: all of them lie in one box.
    box = lesionwise.bounding_box(found.truth | binarize(kept, cuts[0]))
    lesions = {
        cut: scored_lesions(found.truth[box], binarize(kept[box], cut), pmap[box]) for cut in cuts
    }
    return ModelCounts(counts, "", computed_by, noted, lesions)


def _stored(task: ScanTask) -> Mapping[str, Any]:
    """Return the counts in the scan's file, if it is of the scan as it is now."""
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
