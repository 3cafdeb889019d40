"""Choosing a bundle's decision threshold on scans that it was not trained on."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sct_lesion_losses import executor
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import (
    BundleInfo,
    Froc,
    LesionPoint,
    Metric,
    OperatingPoint,
    SiteCalibration,
    scan_curves,
)
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference import cohort as cohort_counts
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.cohort import (
    AS_IN_COHORT,
    SCANS,
    Model,
    content_of,
    locate,
    trained_on,
)
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.report import card, reached
from sct_lesion_losses.thresholds import THRESHOLDS, Choice, Objective, ScanCounts, choose
from sct_lesion_losses.thresholds.choice import Optimum
from sct_lesion_losses.thresholds.lesion_filter import Candidates, Filter, candidates, choose_filter
from sct_lesion_losses.thresholds.objectives import BETA


def operating_point(
    found: Optimum,
    subjects: Sequence[Hashable],
    centerline: str,
    warnings: Sequence[str] = (),
    site: SiteCalibration | None = None,
) -> OperatingPoint:
    """Return a choice as a bundle stores it: scans and subjects numbered, not named.

    Parameters
    ----------
    found : Optimum
    subjects : sequence of hashable
        Of the scans that decided, in the order of `found.per_scan`.
    centerline : str
        How the cord was found; see `OperatingPoint`.
    warnings : sequence of str
        What the choice was warned of.
    site : SiteCalibration, optional
        Where the threshold is one site's.

    Raises
    ------
    DataError
        No threshold above 0 is any good.
    """
    if not found.useful:
        raise DataError(
            f"no threshold above 0 is any good on these scans ({found.objective} {found.best:.3g} "
            "at best): the bundle has learned nothing of use for them; train it longer, or on "
            "scans like them"
        )
    return OperatingPoint(
        kind="tuned",
        threshold=found.threshold,
        objective=found.objective.name,
        **found.objective.numbers,
        thresholds=tuple(found.thresholds.tolist()),
        curve=tuple(found.curve.tolist()),
        per_scan=scan_curves(subjects, found.per_scan),
        interval=None if math.isnan(found.interval[0]) else found.interval,
        plateau=found.plateau,
        loss_at_pm_0_05=(found.loss_below, found.loss_above),
        leave_one_out=found.leave_one_out,
        n_scans=found.n_scans,
        n_subjects=found.n_subjects,
        centerline=centerline,
        warnings=tuple(warnings),
        site=site,
    )


PRESET = "paper"
_CONTRAST = "t2"  # of the scans

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A scan whose predicted lesions are to be noted.

    Attributes
    ----------
    scan : CohortScan
    bundle : str
        Folder of the bundle.
    sha256 : str
        Of what its p-maps follow from; see `Bundle.pmap_sha256`.
    threshold : float
        Of a voxel.
    centerline : str
        See `inference.cohort.locate`.
    engine, precision : str
        See `engine.load`.
    """

    scan: CohortScan
    bundle: str
    sha256: str
    threshold: float
    centerline: str
    engine: str
    precision: str


def note(task: Task) -> Candidates:
    """Note the predicted lesions of a scan.

    Raises
    ------
    LesionError
        The scan or the bundle cannot be used.
    """
    bundle, network = predict.opened(
        task.bundle, _CONTRAST, task.engine, task.precision, task.sha256
    )
    found = locate(task.scan, InferenceSettings(task.centerline), for_sct=False)
    pmap = found.pmap(bundle, network)
    return candidates(found.truth, pmap, task.threshold, found.image.grid.spacing_mm, PRESET)


def noted(
    bundle: Bundle,
    scans: Sequence[CohortScan],
    threshold: float,
    *,
    centerline: str = AS_IN_COHORT,
    engine: str = "auto",
    precision: str = "float32",
    jobs: int = 1,
    report: Progress | None = None,
) -> list[Candidates]:
    """Note the predicted lesions of scans, of the masks at a bundle's threshold.

    No more is held of a scan than the sizes, the peaks and the overlaps of its lesions.

    Parameters
    ----------
    bundle : Bundle
        One on disk.
    scans : sequence of CohortScan
        With lesions and without; each shows a cord.
    threshold : float
        The tuned one.
    centerline : str
        See `inference.cohort.locate`.
    engine, precision : str
        See `engine.load`.
    jobs : int
        Scans at a time, each in a process of its own.
    report : callable, optional
        Told of every scan.

    Raises
    ------
    LesionError
        The bundle or a scan cannot be used.
    """
    shared = (str(bundle.folder), bundle.pmap_sha256, threshold, centerline, engine, precision)
    tasks = [Task(scan, *shared) for scan in scans]
    return executor.run(note, tasks, jobs, name=lambda task: task.scan.scan.name, progress=report)


def find(
    seen: Sequence[Candidates],
    subjects: Sequence[str],
    threshold: float,
    specificity: float = 0.0,
) -> LesionPoint:
    """Choose which predicted lesions of a bundle are kept.

    Parameters
    ----------
    seen : sequence of Candidates
        Of the scans that chose the threshold, lesion-free ones with them; see `noted`.
    subjects : sequence of str
        Whose scan each is.
    threshold : float
        The tuned one.
    specificity : float
        Least P-specificity of the filter on these scans; 0 asks for none.

    Raises
    ------
    DataError
        See `operating_point.lesion_point.choose_filter`.
    """
    choice = choose_filter(seen, subjects, threshold, specificity=specificity)
    return LesionPoint(
        peak=choice.filter.peak,
        volume_mm3=choice.filter.volume_mm3,
        preset=PRESET,
        specificity_asked=specificity,
        f1=choice.f1,
        f1_unfiltered=choice.f1_unfiltered,
        specificity=choice.specificity,
        specificity_unfiltered=choice.specificity_unfiltered,
        leave_one_out=choice.leave_one_out,
        froc=Froc(
            peaks=tuple(choice.froc.peaks.tolist()),
            sensitivity=tuple(choice.froc.sensitivity.tolist()),
            false_lesions=tuple(choice.froc.false_lesions.tolist()),
        ),
        n_scans=choice.n_scans,
        n_lesion_free=choice.n_lesion_free,
    )


def doubts(point: LesionPoint, threshold: float) -> tuple[str, ...]:
    """Say what is doubtful about the choice of which lesions are kept; it is logged as well.

    Parameters
    ----------
    point : LesionPoint
        From `find`.
    threshold : float
        The tuned one: no predicted lesion has a lower peak.
    """
    if point.peak > threshold or point.volume_mm3 > 0:
        return ()
    said = "the filter of lesions keeps everything: it decides nothing on these scans"
    logger.warning("%s", said)
    return (said,)


CONTRAST = "t2"  # of the scans, where SCT finds the cord


@dataclass(frozen=True)
class Settings:
    """How a threshold is chosen, and how scans are segmented for that.

    Attributes
    ----------
    objective : str
        A key of `operating_point.OBJECTIVES`.
    beta, preset, specificity
        Numbers of the objective; see `Objective`.
    centerline : str
        ``cohort`` takes the cohort's own centerline where it has one; else a method of `locate`.
    measure : bool
        Also report what the tuned bundle reaches on the cohort's unseen scans, with the filter of
        its predicted lesions as well where one is chosen.
    seen : bool
        Take scans that the bundle was trained on as well; they are refused otherwise.
    engine, precision : str
        See `engine.load`.
    lesion_point : bool
        Also choose which predicted lesions are kept, a second operating point.
    lesion_specificity : float
        Least P-specificity of that choice on the tuning scans; 0 asks for none.
    about : str
        A sentence or two on the scans that choose, for the model card.
    limits : tuple of str
        Sentences to add to the bundle's limits: where the measured scans showed it to fail.
    """

    objective: str = "median_v_f1"
    centerline: str = AS_IN_COHORT
    measure: bool = True
    engine: str = "auto"
    precision: str = "float32"
    seen: bool = False
    lesion_point: bool = False
    lesion_specificity: float = 0.0
    about: str = ""
    limits: tuple[str, ...] = ()
    beta: float = BETA
    preset: str = "paper"
    specificity: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.lesion_specificity <= 1:
            raise UsageError(
                f"-lesion_specificity is {self.lesion_specificity:g}, expected a number in [0, 1]"
            )
        if self.lesion_specificity and not self.lesion_point:
            raise UsageError("-lesion_specificity goes with -lesion_point 1")

    @property
    def wanted(self) -> Objective:
        """The objective with its numbers."""
        return Objective(self.objective, self.beta, self.preset, self.specificity)


def run(
    bundle: str | Path,
    data: Path,
    settings: Settings = Settings(),
    *,
    results: Path | None = None,
    jobs: int = 1,
    command: str | None = None,
    report: Progress | None = None,
) -> Choice:
    """Sweep the threshold over a cohort and write curve and operating point into the bundle.

    Parameters
    ----------
    bundle : str or Path
        Name or folder of the bundle; it is replaced at once by the tuned one.
    data : Path
        BIDS folder or TSV. Where it holds a split, the scans of ``thr-optimization`` choose the
        threshold and those of ``unseen`` are measured; else every scan chooses and none is
        measured. Scans in which no cord is found are left out, counted.
    settings : Settings
    results : Path, optional
        Folder in whose ``scans`` the counts of each scan are kept: another tuning, and an
        evaluation into the same folder, compute only what is missing there. By default none are.
    jobs : int
        Scans at a time, each in a process of its own.
    command : str, optional
        The command line that tunes like this, for the model card; see `schema.command_line`.
    report : callable, optional
        Told of the scans that are computed, and from the start again of those that are segmented
        for the choice of lesions.

    Returns
    -------
    Choice

    Raises
    ------
    DataError
        A scan was trained on, or those there are choose no threshold above 0.
    UsageError
        The bundle is SCT's own model, which cannot be rewritten, or the settings make no sense.
    """
    objective = settings.wanted
    if settings.seen and results is not None:
        raise UsageError(
            "-results keeps what an evaluation takes over, which must not hold scans that the "
            "bundle was trained on: leave out -results or -seen"
        )
    loaded = store.load(bundle)
    if loaded.folder is None or not loaded.weights:
        raise UsageError(f"{bundle}: this model is not a bundle on disk; tune one of your own")
    cohort = cohorts.read(data)
    tuning = splits.part_or_all(cohort, "thr-optimization", "then choose the threshold")
    unseen = splits.part(cohort, "unseen")
    scans, names = [*tuning, *(unseen if settings.measure else [])], cohorts.names(cohort)
    with tempfile.TemporaryDirectory() as passing:
        folder = (results or Path(passing)) / SCANS
        found = tallies(loaded, scans, names, folder, settings, jobs=jobs, report=report)
    choice, point = chosen(tuning, found, objective, settings.centerline)
    shown = [scan for scan in scans if scan in found]
    deciding = [scan for scan in shown if scan in tuning]
    more: dict[str, object] = {
        "data": settings.about,
        "tuned_on": tuple(sorted({content_of(scan) for scan in deciding})),
    }
    metrics = measured([s for s in scans if s not in tuning], found, choice.threshold)
    warnings = [*point.warnings, *(_seen(loaded, scans) if settings.seen else ())]
    if settings.lesion_point:
        lesions, filtered = _lesion_point(
            loaded, shown, deciding, choice.threshold, settings, jobs=jobs, report=report
        )
        more["lesions"] = lesions
        warnings += doubts(lesions, choice.threshold)
        metrics |= filtered
    point = point.model_copy(update=more | {"warnings": tuple(warnings)})
    save(loaded, point, metrics, settings.limits, command)
    return choice


def _lesion_point(
    bundle: Bundle,
    scans: Sequence[CohortScan],
    deciding: Sequence[CohortScan],
    threshold: float,
    settings: Settings,
    *,
    jobs: int,
    report: Progress | None,
) -> tuple[LesionPoint, dict[str, Metric]]:
    """Choose which predicted lesions are kept, and measure that on the scans that do not decide."""
    candidates_of = noted(
        bundle,
        scans,
        threshold,
        centerline=settings.centerline,
        engine=settings.engine,
        precision=settings.precision,
        jobs=jobs,
        report=report,
    )
    seen = dict(zip(scans, candidates_of, strict=True))
    found = find(
        [seen[s] for s in deciding],
        [s.subject for s in deciding],
        threshold,
        settings.lesion_specificity,
    )
    others = [scan for scan in scans if scan not in deciding]
    rule = Filter(found.peak, found.volume_mm3)
    return found, reached.filtered([seen[s] for s in others], [s.subject for s in others], rule)


def _seen(bundle: Bundle, scans: Sequence[CohortScan]) -> tuple[str, ...]:
    """Warn of scans that the bundle was trained on."""
    known = trained_on({bundle: scans})[bundle]
    if not known:
        return ()
    said = f"{len(known)} of the {len(scans)} scans were trained on, which flatters every score"
    logger.warning("%s", said)
    return (said,)


def tallies(
    bundle: Bundle,
    scans: Sequence[CohortScan],
    names: Mapping[Path, str],
    folder: Path,
    settings: Settings,
    *,
    jobs: int = 1,
    report: Progress | None = None,
) -> dict[CohortScan, ScanCounts]:
    """Count what the bundle does on scans at every threshold; those without a cord are left out.

    Parameters
    ----------
    bundle : Bundle
        One on disk.
    scans : sequence of CohortScan
    names : mapping of Path to str
        Of the scans' files; see `cohort.names`.
    folder : Path
        Where the counts are kept, and taken over from; see `cohort_counts.gather`.
    settings : Settings
    jobs : int
    report : callable, optional

    Returns
    -------
    dict of CohortScan to ScanCounts
        In the order of the scans.

    Raises
    ------
    DataError
        The bundle was trained on a scan.
    LesionError
        A scan cannot be used, or the folder not be written.
    """
    atomic.require_writable(folder)
    model = Model(str(bundle.folder), bundle.pmap_sha256, THRESHOLDS)
    inference = InferenceSettings(
        settings.centerline, CONTRAST, engine=settings.engine, precision=settings.precision
    )
    seen_by = {scan: [model] for scan in scans}
    results = cohort_counts.gather(
        seen_by,
        names,
        folder,
        inference,
        {} if settings.seen else {model: bundle},
        jobs=jobs,
        report=report,
    )
    found = {}
    for scan, by_model in results.items():
        result = by_model[model]
        if result.counts is None:
            logger.warning("left out: %s", result.refused)
        else:
            found[scan] = result.counts
    return found


def chosen(
    tuning: Sequence[CohortScan],
    found: Mapping[CohortScan, ScanCounts],
    objective: Objective,
    centerline: str,
) -> tuple[Choice, OperatingPoint]:
    """Choose the threshold.

    Parameters
    ----------
    tuning : sequence of CohortScan
        The scans that are to choose.
    found : mapping of CohortScan to ScanCounts
        See `tallies`; scans that are missing have no cord.
    objective : Objective
    centerline : str
        How the cord was found; see `Settings`.

    Raises
    ------
    DataError
        There is nothing to choose with, or no threshold above 0 is any good.
    """
    scans = [scan for scan in tuning if scan in found]
    if not scans:
        raise DataError(
            f"no cord was found in any of the {len(tuning)} scans that are to choose the "
            "threshold; check them, or give centerlines with the cohort"
        )
    choice = choose([found[s] for s in scans], [s.subject for s in scans], objective=objective)
    warnings = list(choice.warnings)
    if len(scans) < len(tuning):
        refused = len(tuning) - len(scans)
        warnings.append(f"left out, because no cord was found: {refused} of the scans")
    point = operating_point(
        choice,
        [scans[k].subject for k in choice.deciding],
        centerline,
        warnings,
    )
    return choice, point


def measured(
    unseen: Sequence[CohortScan], found: Mapping[CohortScan, ScanCounts], threshold: float
) -> dict[str, Metric]:
    """Return what the bundle reaches on unseen scans; those missing in `found` have no cord."""
    scans = [scan for scan in unseen if scan in found]
    return reached.metrics(
        [found[s] for s in scans], [s.subject for s in scans], threshold, len(unseen) - len(scans)
    )


def save(
    bundle: Bundle,
    point: OperatingPoint,
    metrics: Mapping[str, Metric],
    limits: Sequence[str],
    command: str | None,
) -> None:
    """Replace the bundle by the tuned one, with a card anew."""
    assert bundle.folder is not None
    changes: dict[str, object] = {
        "operating_point": point,
        "metrics": metrics,
        "limits": tuple(dict.fromkeys((*bundle.info.limits, *limits))),
    }
    if command is not None:
        changes["provenance"] = bundle.info.provenance.followed_by(command)
    info = bundle.info.model_copy(update=changes)
    info = BundleInfo.model_validate(info.model_dump())
    store.save(bundle.folder, info, bundle.network, bundle.weights, card.text(info), overwrite=True)
