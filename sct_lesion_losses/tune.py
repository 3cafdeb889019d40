"""Choosing a bundle's decision threshold on scans that it was not trained on."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sct_lesion_losses import cohort_results, files, lesion_points
from sct_lesion_losses.bundle import chosen as stored
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import BundleInfo, LesionPoint, Metric, OperatingPoint
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohort_results import SCANS
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import splits
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.judged import AS_IN_COHORT, content_of, trained_on
from sct_lesion_losses.operating_point import THRESHOLDS, Choice, Objective, Tally, choose
from sct_lesion_losses.operating_point.lesion_filter import Filter
from sct_lesion_losses.operating_point.objectives import BETA
from sct_lesion_losses.parallel import Progress
from sct_lesion_losses.report import card, reached
from sct_lesion_losses.scan_results import Conditions, Model

logger = logging.getLogger(__name__)

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
        warnings += lesion_points.doubts(lesions, choice.threshold)
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
    noted = lesion_points.noted(
        bundle,
        scans,
        threshold,
        centerline=settings.centerline,
        engine=settings.engine,
        precision=settings.precision,
        jobs=jobs,
        report=report,
    )
    seen = dict(zip(scans, noted, strict=True))
    found = lesion_points.find(
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
) -> dict[CohortScan, Tally]:
    """Count what the bundle does on scans at every threshold; those without a cord are left out.

    Parameters
    ----------
    bundle : Bundle
        One on disk.
    scans : sequence of CohortScan
    names : mapping of Path to str
        Of the scans' files; see `cohort.names`.
    folder : Path
        Where the counts are kept, and taken over from; see `cohort_results.gather`.
    settings : Settings
    jobs : int
    report : callable, optional

    Returns
    -------
    dict of CohortScan to Tally
        In the order of the scans.

    Raises
    ------
    DataError
        The bundle was trained on a scan.
    LesionError
        A scan cannot be used, or the folder not be written.
    """
    files.require_writable(folder)
    model = Model(str(bundle.folder), bundle.pmap_sha256, THRESHOLDS)
    conditions = Conditions.of(
        settings.centerline, CONTRAST, settings.engine, scans, settings.precision
    )
    seen_by = {scan: [model] for scan in scans}
    results = cohort_results.gather(
        seen_by,
        names,
        folder,
        conditions,
        {} if settings.seen else {model: bundle},
        jobs=jobs,
        report=report,
    )
    found = {}
    for scan, by_model in results.items():
        result = by_model[model]
        if result.tally is None:
            logger.warning("left out: %s", result.refused)
        else:
            found[scan] = result.tally
    return found


def chosen(
    tuning: Sequence[CohortScan],
    found: Mapping[CohortScan, Tally],
    objective: Objective,
    centerline: str,
) -> tuple[Choice, OperatingPoint]:
    """Choose the threshold.

    Parameters
    ----------
    tuning : sequence of CohortScan
        The scans that are to choose.
    found : mapping of CohortScan to Tally
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
    point = stored.operating_point(
        choice,
        [scans[k].subject for k in choice.deciding],
        choice.parameters,
        choice.leave_one_out,
        centerline,
        warnings,
    )
    return choice, point


def measured(
    unseen: Sequence[CohortScan], found: Mapping[CohortScan, Tally], threshold: float
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
