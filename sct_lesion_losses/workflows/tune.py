"""Choice of a bundle's decision threshold on scans that it was not trained on."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import NAME_PATTERN, BundleInfo, Metric, OperatingPoint
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import corrections, splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.images import atomic
from sct_lesion_losses.inference.cohort import (
    SCANS,
    gather,
    hashes_of,
    names_of,
    refuse_seen,
    refuse_trained_on,
    with_cord,
)
from sct_lesion_losses.inference.models import IN_COHORT, Model
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.report import card
from sct_lesion_losses.thresholds import THRESHOLDS, Objective, ScanCounts
from sct_lesion_losses.thresholds.choice import Optimum
from sct_lesion_losses.thresholds.lesion_filter import PRESET, Candidates, Filter
from sct_lesion_losses.training import warm_start
from sct_lesion_losses.workflows import implant, operating_points
from sct_lesion_losses.workflows.implant import ImplantSettings
from sct_lesion_losses.workflows.operating_points import WITH_FILTER

IMPLANTS = "implants"  # folder of the cohort made of a site's healthy people

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneSettings:
    """Settings of a tuning: the choice, the segmenting for it, and the bundle to write.

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
        Also choose which predicted lesions are kept, a second operating point; together with the
        threshold where the objective has a specificity, which holds for both then.
    lesion_specificity : float
        Least P-specificity of that choice on the tuning scans; 0 asks for none.
    site : str or None
        Name of a site that the scans are of: the new bundle's threshold suits it, chosen by the
        objective that the bundle was tuned for and shrunk towards the one that it has; see
        `thresholds.site`. Nothing is measured then.
    healthy : bool
        The cohort is one of implants in scans of a site's healthy people, see `run_healthy`: a new
        bundle is written, with the detection limit.
    folder : Path or None
        The bundle to write, named as the folder. By default the bundle itself, which is replaced at
        once; see `target` for one that is not the user's own.
    force : bool
        Replace another bundle that is there; refused otherwise.
    results : Path or None
        Folder in whose ``scans`` the counts of each scan are kept: another tuning, and an
        evaluation into the same folder, compute only what is missing there. An evaluation with a
        filter of lesions counts what the filter keeps, which is missing.
    jobs : int
        Scans at a time, each in a process of its own.
    about : str
        A sentence or two on the scans that choose, for the model card.
    limits : tuple of str
        Sentences to add to the bundle's limits: where the measured scans showed it to fail.
    command : str
        The command line that tunes like this, for the model card; see `cli.talk.command_line`.
    """

    objective: Objective = Objective()  # noqa: RUF009
    inference: InferenceSettings = IN_COHORT
    measure: bool = True
    seen: bool = False
    lesion_point: bool = False
    lesion_specificity: float = 0.0
    site: str | None = None
    healthy: bool = False
    folder: Path | None = None
    force: bool = False
    results: Path | None = None
    jobs: int = 1
    about: str = ""
    limits: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.lesion_specificity <= 1:
            raise UsageError(
                f"-lesion_specificity is {self.lesion_specificity:g}, expected a number in [0, 1]"
            )
        if self.lesion_specificity and not self.lesion_point:
            raise UsageError("-lesion_specificity goes with -lesion_point 1")
        if self.together and (self.lesion_specificity or self.objective.preset != PRESET.name):
            raise UsageError(
                f"-objective {self.objective} with -lesion_point 1 chooses threshold and filter "
                f"together, at one -specificity, by the preset {PRESET.name}: leave out "
                "-lesion_specificity and -preset"
            )
        if self.seen and self.results is not None:
            raise UsageError(
                "-results keeps what an evaluation takes over, which must not hold scans that the "
                "bundle was trained on: leave out -results or -seen"
            )
        if self.site is not None and not re.fullmatch(NAME_PATTERN, self.site):
            raise UsageError(
                f"-site is {self.site!r}, expected a name of letters, digits, dots, dashes and "
                "underscores"
            )
        if self.of_a_site and self.folder is None:
            option = "-healthy" if self.healthy else "-site"
            raise UsageError(f"{option} writes a new bundle: name its folder with -ofolder")

    @property
    def together(self) -> bool:
        """Threshold and filter of lesions are chosen together."""
        return self.lesion_point and self.objective.specificity is not None

    @property
    def of_a_site(self) -> bool:
        """The bundle to write is another one, for a site."""
        return self.site is not None or self.healthy


@dataclass(frozen=True, eq=False)
class Tuned:
    """The choice of a threshold, and the bundle that was written with it.

    Attributes
    ----------
    choice : Optimum
        A `Choice`, or the `Recalibration` to a site.
    bundle : Bundle
    elsewhere : bool
        It is another one than the bundle that was tuned.
    """

    choice: Optimum
    bundle: Bundle
    elsewhere: bool = False


def run(
    bundle: str | Path,
    data: Path,
    settings: TuneSettings = TuneSettings(),
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
    report : callable, optional
        Told of the scans that are computed.

    Returns
    -------
    Tuned

    Raises
    ------
    BundleError
        There is no such bundle, or the one to write exists and may not be replaced.
    DataError
        A scan was trained on, or those there are choose no threshold above 0; for a site, also one
        that chose the threshold of the bundle.
    OutputError
        The bundle cannot be written where it is to be.
    UsageError
        For a site: the bundle is untuned or one site's already.
    """
    loaded = store.load(bundle)
    if settings.site:
        operating_points.require_tuned(loaded)
    where = target(loaded, settings)
    cohort = cohorts.read(data)
    tuning = splits.part_or_all(cohort, "thr-optimization", "then choose the threshold")
    corrections.say(cohort)
    unseen = splits.part(cohort, "unseen") if settings.measure and not settings.site else []
    if settings.site:
        refuse_seen([loaded], tuning, "whose curves would count twice")
    every = [*tuning, *unseen]
    counts, noted = _counts(loaded, every, cohort, settings, report)
    deciding, measured = ([scan for scan in part if scan in counts] for part in (tuning, unseen))
    if not deciding:
        raise DataError(
            f"no cord was found in any of the {len(tuning)} scans that are to choose the "
            "threshold; check them, or give centerlines with the cohort"
        )
    chosen_by = {scan: counts[scan] for scan in deciding}
    choice, point = _chosen(loaded, chosen_by, noted, settings)
    metrics = card.metrics(
        [counts[scan] for scan in measured],
        [scan.subject for scan in measured],
        choice.threshold,
        refused=len(unseen) - len(measured),
    )
    doubts = [*point.warnings]
    if loaded.info.operating_point.lesions is not None and not settings.lesion_point:
        doubts.append("the filter of predicted lesions belonged to the former threshold: dropped")
        logger.warning("%s", doubts[-1])
    if refused := len(tuning) - len(deciding):
        doubts.append(f"left out, because no cord was found: {refused} of the scans")
    if settings.seen and (known := names_of(loaded.info.provenance.trained_on, every)):
        doubts.append(
            f"{len(known)} of the {len(every)} scans were trained on, which flatters every score"
        )
        logger.warning("%s", doubts[-1])
    lesions = point.lesions
    if settings.lesion_point:
        at = WITH_FILTER.index(choice.threshold)
        if lesions is None:
            lesions, said = operating_points.of_lesions(
                [noted[scan][at] for scan in deciding],
                [scan.subject for scan in deciding],
                choice.threshold,
                settings.lesion_specificity,
            )
            doubts += said
        metrics |= card.metrics_filtered(
            [noted[scan][at] for scan in measured],
            [scan.subject for scan in measured],
            Filter(lesions.peak, lesions.volume_mm3),
        )
    point = point.model_copy(update={"warnings": tuple(doubts), "lesions": lesions})
    return Tuned(choice, _save(loaded, where, point, metrics, settings), where != _own(loaded))


def run_healthy(
    bundle: str | Path,
    scans: Sequence[Path],
    cords: Sequence[Path],
    settings: TuneSettings,
    implants: ImplantSettings,
    report: Progress | None = None,
) -> Tuned:
    """Choose threshold and filter of lesions by implants in scans of a site's healthy people.

    Parameters
    ----------
    bundle : str or Path
        Name or folder of the bundle.
    scans, cords, implants
        See `implant.run`.
    settings : TuneSettings
        Of healthy people; in the folder `results` their cohort is kept as well.
    report : callable, optional
        Told of the people, then of the scans; see `run`.

    Raises
    ------
    LesionError
        See `implant.run` and `run`.
    """
    loaded = store.load(bundle)
    target(loaded, settings)
    if not settings.seen:  # before anything is made of them; no mask is read
        refuse_trained_on(loaded, [CohortScan(host, host, "") for host in implant.hosts(scans)])
    with tempfile.TemporaryDirectory() as passing:
        cohort = (settings.results or Path(passing)) / IMPLANTS
        implant.run(scans, cords, cohort, implants, jobs=settings.jobs, progress=report)
        return run(bundle, cohort, settings, report)


def target(bundle: Bundle, settings: TuneSettings = TuneSettings()) -> Path:
    """Return where a bundle goes when it is tuned; refuse what cannot be written.

    A bundle of the package, of somebody else or on a read-only disk is never written: its tuned
    copy is a bundle of its own, by default ``NAME-tuned`` in the user's folder of bundles.

    Raises
    ------
    BundleError
        The folder holds another bundle and ``settings.force`` is not set, or other files.
    OutputError
        Nothing can be written there.
    UsageError
        A bundle cannot have the folder's name, or the folder is the bundle itself and must not be.
    """
    own = _own(bundle)
    chosen = own if settings.folder is None else settings.folder.absolute()
    if settings.folder is None and not _is_writable(own):
        chosen = store.personal_folder() / f"{bundle.name}-tuned"
        logger.warning(
            "the bundle %s is not yours to change and stays as it is; the tuned copy will be %s, "
            "unless -ofolder names another folder",
            bundle.name,
            chosen,
        )
    is_own = chosen.resolve() == own.resolve()
    if is_own and settings.of_a_site:
        raise UsageError(f"-ofolder is the bundle {bundle.name} itself; choose a new folder")
    if is_own and not _is_writable(own):
        raise UsageError(
            f"-ofolder is the bundle {bundle.name} itself, which is not yours to change; "
            "choose another folder"
        )
    if not is_own and not re.fullmatch(NAME_PATTERN, chosen.name):
        raise UsageError(
            f"a bundle cannot be named {chosen.name!r}, as -ofolder says, but by letters, digits, "
            "dots, dashes and underscores; choose another folder name"
        )
    store.check_replaceable(chosen, settings.force or is_own)
    atomic.require_writable(chosen.parent)
    return chosen


def _own(bundle: Bundle) -> Path:
    """Folder of a bundle on disk."""
    assert bundle.folder is not None
    return bundle.folder.absolute()


def _is_writable(folder: Path) -> bool:
    """Tell whether a bundle is the user's own: not the package's, and it can be replaced."""
    if store.is_shipped(folder):
        return False
    mine = not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
    return mine and os.access(folder, os.W_OK) and os.access(folder.parent, os.W_OK)


def _counts(
    bundle: Bundle,
    scans: Sequence[CohortScan],
    cohort: Sequence[CohortScan],
    settings: TuneSettings,
    report: Progress | None,
) -> tuple[dict[CohortScan, ScanCounts], dict[CohortScan, tuple[Candidates, ...]]]:
    """Count what the bundle does on scans at every threshold; those without a cord are left out.

    With `lesion_point` their predicted lesions are returned as well, at each of `WITH_FILTER`.
    """
    model = Model(str(bundle.folder), bundle.pmap_sha256, THRESHOLDS, noted=settings.lesion_point)
    with tempfile.TemporaryDirectory() as passing:
        folder = (settings.results or Path(passing)) / SCANS
        atomic.require_writable(folder)
        gathered = gather(
            {scan: [model] for scan in scans},
            cohorts.names(cohort),
            folder,
            settings.inference,
            {} if settings.seen else {model: bundle},
            jobs=settings.jobs,
            report=report,
        )
    found = with_cord(gathered)
    for scan in gathered:
        if scan not in found:
            logger.warning("left out: %s", gathered[scan][model].refused)
    noted = {scan: gathered[scan][model].noted for scan in found}
    return {scan: counts[model] for scan, counts in found.items()}, noted


def _chosen(
    bundle: Bundle,
    counts: Mapping[CohortScan, ScanCounts],
    noted: Mapping[CohortScan, Sequence[Candidates]],
    settings: TuneSettings,
) -> tuple[Optimum, OperatingPoint]:
    """Choose the threshold by scans, for their cohort or for one site."""
    owners = [scan.subject for scan in counts]
    tuned_on = set().union(*(hashes_of(scan) for scan in counts))
    choice: Optimum
    if settings.site:
        choice, point = operating_points.of_site(
            settings.site, bundle, list(counts.values()), owners
        )
        tuned_on.update(bundle.info.operating_point.tuned_on)
    elif settings.together:
        own = [noted[scan] for scan in counts]
        both, point = operating_points.with_filter(own, owners, settings.objective)
        choice = both.threshold
        if settings.healthy:
            point = operating_points.of_implants(point, both, own, list(counts))
    else:
        every = list(counts.values())
        choice, point = operating_points.of_cohort(every, owners, settings.objective)
    of_scans = {
        "centerline": settings.inference.centerline,
        "data": settings.about,
        "tuned_on": tuple(sorted(tuned_on)),
    }
    return choice, point.model_copy(update=of_scans)


def _save(
    bundle: Bundle,
    folder: Path,
    point: OperatingPoint,
    metrics: dict[str, Metric],
    settings: TuneSettings,
) -> Bundle:
    """Write the tuned bundle, with the operating point that it had before, and a card anew."""
    info, before, provenance = bundle.info, bundle.info.operating_point, bundle.info.provenance
    if settings.of_a_site:
        ancestor = warm_start.ancestor(bundle)
        if provenance.ancestor is not None:
            since = "weights are those of" if provenance.weights_kept else "training started from"
            ancestor += f", whose {since} {provenance.ancestor}"
        commands = (*provenance.commands, *filter(None, [settings.command]))
        descent = {"ancestor": ancestor, "weights_kept": True, "commands": commands}
        provenance = provenance.model_copy(update=descent)
    elif settings.command:
        provenance = provenance.followed_by(settings.command)
    if not settings.site:
        alone = before.model_copy(update={"previous": None})
        previous = alone if before.kind == "tuned" and point != alone else before.previous
        point = point.model_copy(update={"previous": previous})
    changes = {
        "name": bundle.name if folder == _own(bundle) else folder.name,
        "operating_point": point,
        "metrics": metrics,
        "limits": tuple(dict.fromkeys((*info.limits, *settings.limits))),
        "provenance": provenance,
    }
    info = BundleInfo.model_validate(info.model_copy(update=changes).model_dump())
    return store.save(folder, info, bundle.network, bundle.weights, card.text(info), overwrite=True)
