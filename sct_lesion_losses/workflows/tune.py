"""Choice of a bundle's decision threshold on scans that it was not trained on."""

from __future__ import annotations

import logging
import math
import os
import re
import tempfile
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sct_lesion_losses import executor
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import (
    NAME_PATTERN,
    BundleInfo,
    LesionPoint,
    Metric,
    OperatingPoint,
    scan_curves,
)
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.cohort import (
    IN_COHORT,
    SCANS,
    Model,
    content_of,
    gather,
    locate,
    trained_on,
)
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.report import card, reached
from sct_lesion_losses.thresholds import THRESHOLDS, Choice, Objective, ScanCounts, choose
from sct_lesion_losses.thresholds.choice import Optimum
from sct_lesion_losses.thresholds.lesion_filter import Candidates, Filter, candidates, choose_filter

PRESET = "paper"  # by which the filter of predicted lesions counts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneSettings:
    """How a threshold is chosen, and how scans are segmented for that.

    Attributes
    ----------
    objective : Objective
    inference : InferenceSettings
    measure : bool
        Also report what the tuned bundle reaches on the cohort's unseen scans, with the filter of
        its predicted lesions as well where one is chosen.
    seen : bool
        Take scans that the bundle was trained on as well; they are refused otherwise.
    lesion_point : bool
        Also choose which predicted lesions are kept, a second operating point.
    lesion_specificity : float
        Least P-specificity of that choice on the tuning scans; 0 asks for none.
    about : str
        A sentence or two on the scans that choose, for the model card.
    limits : tuple of str
        Sentences to add to the bundle's limits: where the measured scans showed it to fail.
    """

    objective: Objective = Objective()  # noqa: RUF009
    inference: InferenceSettings = IN_COHORT
    measure: bool = True
    seen: bool = False
    lesion_point: bool = False
    lesion_specificity: float = 0.0
    about: str = ""
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.lesion_specificity <= 1:
            raise UsageError(
                f"-lesion_specificity is {self.lesion_specificity:g}, expected a number in [0, 1]"
            )
        if self.lesion_specificity and not self.lesion_point:
            raise UsageError("-lesion_specificity goes with -lesion_point 1")


@dataclass(frozen=True, eq=False)
class Tuned:
    """The choice of a threshold, and the bundle that was written with it.

    Attributes
    ----------
    choice : Choice
    bundle : Bundle
    elsewhere : bool
        It is another one than the bundle that was tuned.
    """

    choice: Choice
    bundle: Bundle
    elsewhere: bool = False


def run(
    bundle: str | Path,
    data: Path,
    settings: TuneSettings = TuneSettings(),
    *,
    folder: Path | None = None,
    force: bool = False,
    results: Path | None = None,
    jobs: int = 1,
    command: str | None = None,
    report: Progress | None = None,
) -> Tuned:
    """Sweep the threshold over a cohort and write curve and operating point into a bundle.

    Parameters
    ----------
    bundle : str or Path
        Name or folder of the bundle.
    data : Path
        BIDS folder or TSV. Where it holds a split, the scans of ``thr-optimization`` choose the
        threshold and those of ``unseen`` are measured; else every scan chooses and none is
        measured. Scans in which no cord is found are left out, counted.
    settings : TuneSettings
    folder : Path, optional
        The bundle to write, named as the folder. By default the bundle itself, which is replaced at
        once; see `target` for one that is not the user's own.
    force : bool
        Replace another bundle that is there; refused otherwise.
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
    Tuned

    Raises
    ------
    BundleError
        There is no such bundle, or the one to write exists and may not be replaced.
    DataError
        A scan was trained on, or those there are choose no threshold above 0.
    OutputError
        The bundle cannot be written where it is to be.
    UsageError
        The bundle is SCT's own model, which cannot be rewritten, or the settings make no sense.
    """
    if settings.seen and results is not None:
        raise UsageError(
            "-results keeps what an evaluation takes over, which must not hold scans that the "
            "bundle was trained on: leave out -results or -seen"
        )
    loaded = store.load(bundle)
    where = target(loaded, folder, force)
    cohort = cohorts.read(data)
    tuning = splits.part_or_all(cohort, "thr-optimization", "then choose the threshold")
    unseen = splits.part(cohort, "unseen") if settings.measure else []
    scans = [*tuning, *unseen]
    found = counts(
        loaded, scans, cohort, settings.inference, results, seen=settings.seen, jobs=jobs,
        report=report,
    )  # fmt: skip
    choice, point = chosen(tuning, found, settings)
    deciding = [scan for scan in tuning if scan in found]
    measured = [scan for scan in unseen if scan in found]
    metrics = reached.metrics(
        [found[s] for s in measured],
        [s.subject for s in measured],
        choice.threshold,
        len(unseen) - len(measured),
    )
    warnings = [*point.warnings, *(_seen(loaded, scans) if settings.seen else ())]
    lesions = None
    if settings.lesion_point:
        note = partial(
            candidates_of, str(loaded.folder), loaded.pmap_sha256, choice.threshold,
            settings.inference,
        )  # fmt: skip
        shown = [*deciding, *measured]
        noted = executor.run(note, shown, jobs, name=lambda scan: scan.scan.name, progress=report)
        own, others = noted[: len(deciding)], noted[len(deciding) :]
        lesions = filter_of(
            own, [s.subject for s in deciding], choice.threshold, settings.lesion_specificity
        )
        warnings += doubts(lesions, choice.threshold)
        rule = Filter(lesions.peak, lesions.volume_mm3)
        metrics |= reached.filtered(others, [s.subject for s in measured], rule)
    point = point.model_copy(
        update={
            "data": settings.about,
            "tuned_on": tuple(sorted({content_of(scan) for scan in deciding})),
            "warnings": tuple(warnings),
            "lesions": lesions,
        }
    )
    saved = _saved(loaded, where, point, metrics, settings.limits, command)
    return Tuned(choice, saved, where != _own(loaded))


def target(bundle: Bundle, folder: Path | None = None, force: bool = False) -> Path:
    """Return where a bundle goes when it is tuned; refuse what cannot be written.

    A bundle of the package, of somebody else or on a read-only disk is never written: its tuned
    copy is a bundle of its own, by default ``NAME-tuned`` in the user's folder of bundles.

    Raises
    ------
    BundleError
        The folder holds another bundle and `force` is not set, or other files.
    OutputError
        Nothing can be written there.
    UsageError
        The bundle is SCT's own model.
    """
    own = _own(bundle)
    if own is None or not bundle.weights:
        raise UsageError(f"{bundle.name}: this model is not a bundle on disk; tune one of your own")
    if folder is not None:
        chosen = folder.absolute()
        if chosen.resolve() == own.resolve() and not _is_writable(own):
            raise UsageError(
                f"-ofolder is the bundle {bundle.name} itself, which is not yours to change; "
                "choose another folder"
            )
    elif _is_writable(own):
        chosen = own
    else:
        chosen = store.personal_folder() / f"{bundle.name}-tuned"
        logger.warning(
            "the bundle %s is not yours to change and stays as it is; the tuned copy will be %s, "
            "unless -ofolder names another folder",
            bundle.name,
            chosen,
        )
    if chosen != own and not re.fullmatch(NAME_PATTERN, chosen.name):
        raise UsageError(
            f"a bundle cannot be named {chosen.name!r}, as -ofolder says, but by letters, digits, "
            "dots, dashes and underscores; choose another folder name"
        )
    store.check_replaceable(chosen, force or chosen.resolve() == own.resolve())
    atomic.require_writable(chosen.parent)
    return chosen


def _own(bundle: Bundle) -> Path | None:
    return None if bundle.folder is None else bundle.folder.absolute()


def _is_writable(folder: Path) -> bool:
    """Whether a bundle is the user's own: not the package's, and it can be replaced."""
    if store.is_shipped(folder):
        return False
    mine = not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
    return mine and os.access(folder, os.W_OK) and os.access(folder.parent, os.W_OK)


def counts(
    bundle: Bundle,
    scans: Sequence[CohortScan],
    cohort: Sequence[CohortScan],
    inference: InferenceSettings,
    results: Path | None,
    *,
    seen: bool = False,
    jobs: int = 1,
    report: Progress | None = None,
) -> dict[CohortScan, ScanCounts]:
    """Count what the bundle does on scans at every threshold; those without a cord are left out.

    Parameters
    ----------
    bundle : Bundle
        One on disk.
    scans : sequence of CohortScan
        Those of the cohort that are looked at.
    cohort : sequence of CohortScan
        All, by which the scans are named.
    inference : InferenceSettings
    results : Path or None
        Folder in whose ``scans`` the counts are kept, and taken over from.
    seen : bool
        Take scans that the bundle was trained on as well.

    Raises
    ------
    DataError
        The bundle was trained on a scan.
    LesionError
        A scan cannot be used, or the folder not be written.
    """
    model = Model(str(bundle.folder), bundle.pmap_sha256, THRESHOLDS)
    with tempfile.TemporaryDirectory() as passing:
        folder = (results or Path(passing)) / SCANS
        atomic.require_writable(folder)
        gathered = gather(
            {scan: [model] for scan in scans},
            cohorts.names(cohort),
            folder,
            inference,
            {} if seen else {model: bundle},
            jobs=jobs,
            report=report,
        )
    found = {}
    for scan, by_model in gathered.items():
        result = by_model[model]
        if result.counts is None:
            logger.warning("left out: %s", result.refused)
        else:
            found[scan] = result.counts
    return found


def chosen(
    tuning: Sequence[CohortScan], found: dict[CohortScan, ScanCounts], settings: TuneSettings
) -> tuple[Choice, OperatingPoint]:
    """Choose the threshold by the scans of `tuning` that are in `found`; the others have no cord.

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
    choice = choose(
        [found[s] for s in scans], [s.subject for s in scans], objective=settings.objective
    )
    warnings = list(choice.warnings)
    if len(scans) < len(tuning):
        refused = len(tuning) - len(scans)
        warnings.append(f"left out, because no cord was found: {refused} of the scans")
    subjects = [scans[k].subject for k in choice.deciding]
    return choice, operating_point(choice, subjects, settings.inference.centerline, warnings)


def operating_point(
    found: Optimum, subjects: Sequence[Hashable], centerline: str, warnings: Sequence[str]
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
        loss_at_pm_0_05=found.losses,
        leave_one_out=found.leave_one_out,
        n_scans=found.n_scans,
        n_subjects=found.n_subjects,
        centerline=centerline,
        warnings=tuple(warnings),
    )


def _seen(bundle: Bundle, scans: Sequence[CohortScan]) -> tuple[str, ...]:
    """Warn of scans that the bundle was trained on."""
    known = trained_on({bundle: scans})[bundle]
    if not known:
        return ()
    said = f"{len(known)} of the {len(scans)} scans were trained on, which flatters every score"
    logger.warning("%s", said)
    return (said,)


def candidates_of(
    folder: str, sha256: str, threshold: float, inference: InferenceSettings, scan: CohortScan
) -> Candidates:
    """Segment a scan and note its predicted lesions: sizes, peaks and overlaps, no more.

    Raises
    ------
    LesionError
        The scan or the bundle cannot be used.
    """
    bundle, network = predict.opened(
        folder, inference.contrast, inference.engine, inference.precision, sha256
    )
    found = locate(scan, inference, for_sct=False)
    pmap = found.pmap(bundle, network)
    return candidates(found.truth, pmap, threshold, found.image.grid.spacing_mm, PRESET)


def filter_of(
    noted: Sequence[Candidates], subjects: Sequence[str], threshold: float, specificity: float = 0.0
) -> LesionPoint:
    """Choose which predicted lesions of a bundle are kept.

    Parameters
    ----------
    noted : sequence of Candidates
        Of the scans that chose the threshold, lesion-free ones with them.
    subjects : sequence of str
        Whose scan each is.
    threshold : float
        The tuned one.
    specificity : float
        Least P-specificity of the filter on these scans; 0 asks for none.

    Raises
    ------
    DataError
        See `lesion_filter.choose_filter`.
    """
    choice = choose_filter(noted, subjects, threshold, specificity=specificity)
    return LesionPoint(preset=PRESET, specificity_asked=specificity, **asdict(choice))


def doubts(point: LesionPoint, threshold: float) -> tuple[str, ...]:
    """Say what is doubtful about the choice of which lesions are kept; it is logged as well.

    Parameters
    ----------
    point : LesionPoint
        From `filter_of`.
    threshold : float
        The tuned one: no predicted lesion has a lower peak.
    """
    if point.peak > threshold or point.volume_mm3 > 0:
        return ()
    said = "the filter of lesions keeps everything: it decides nothing on these scans"
    logger.warning("%s", said)
    return (said,)


def _saved(
    bundle: Bundle,
    folder: Path,
    point: OperatingPoint,
    metrics: dict[str, Metric],
    limits: Sequence[str],
    command: str | None,
) -> Bundle:
    """Write the tuned bundle, with the operating point that it had before, and a card anew."""
    before = bundle.info.operating_point
    previous = before.previous
    if before.kind == "tuned" and point != before.model_copy(update={"previous": None}):
        previous = before.model_copy(update={"previous": None})
    info = bundle.info.model_copy(
        update={
            "name": bundle.name if folder == _own(bundle) else folder.name,
            "operating_point": point.model_copy(update={"previous": previous}),
            "metrics": metrics,
            "limits": tuple(dict.fromkeys((*bundle.info.limits, *limits))),
        }
    )
    if command is not None:
        provenance = bundle.info.provenance.followed_by(command)
        info = info.model_copy(update={"provenance": provenance})
    info = BundleInfo.model_validate(info.model_dump())
    return store.save(folder, info, bundle.network, bundle.weights, card.text(info), overwrite=True)
