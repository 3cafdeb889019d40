"""Choosing a bundle's decision threshold on scans that it was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sct_lesion_losses import engine as engines
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import BundleInfo, OperatingPoint, ScanCurve
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import splits
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.errors import DataError, NoCordError, UsageError
from sct_lesion_losses.judged import AS_IN_COHORT, Judged, judge, refuse_known
from sct_lesion_losses.operating_point import Choice, choose, sweep
from sct_lesion_losses.parallel import Progress
from sct_lesion_losses.report import card, reached

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How scans are segmented for tuning.

    Attributes
    ----------
    objective : str
        A key of `operating_point.choose.OBJECTIVES`.
    centerline : str
        ``cohort`` takes the cohort's own centerline where it has one; else a method of `locate`.
    measure : bool
        Also report what the tuned bundle reaches on the cohort's unseen scans.
    engine, precision : str
        See `engine.load`.
    limits : tuple of str
        Sentences to add to the bundle's limits: where the measured scans showed it to fail.
    """

    objective: str = "median_v_f1"
    centerline: str = AS_IN_COHORT
    measure: bool = True
    engine: str = "auto"
    precision: str = "float32"
    limits: tuple[str, ...] = ()


def run(
    bundle: str | Path,
    data: Path,
    settings: Settings = Settings(),
    *,
    command: str | None = None,
    report: Progress | None = None,
) -> Choice:
    """Sweep the threshold over a cohort and write curve and operating point into the bundle.

    Parameters
    ----------
    bundle : str or Path
        Name or folder of the bundle; it is replaced at once by the tuned one.
    data : Path
        BIDS folder or TSV. Where it holds a split (`train.run` writes one), the scans of
        ``thr-optimization`` choose the threshold and those of ``unseen`` are measured; else every
        scan chooses and none is measured. Scans in which no cord is found are left out, counted.
    settings : Settings
    command : str, optional
        The command line that tunes like this, for the model card; see `schema.command_line`.
    report : callable, optional

    Returns
    -------
    Choice

    Raises
    ------
    DataError
        A scan was trained on, there is none to choose with, or no threshold above 0 is any good.
    UsageError
        The bundle is SCT's own model, which cannot be rewritten.
    """
    loaded = store.load(bundle)
    if loaded.folder is None or not loaded.weights:
        raise UsageError(f"{bundle}: this model is not a bundle on disk; tune one of your own")
    scans = cohorts.read(data)
    tuning, unseen = parts(scans)
    if not settings.measure:
        unseen = []
    refuse_known([loaded], [*tuning, *unseen])
    total = len(tuning) + len(unseen)
    network = engines.load(loaded.network, settings.engine, settings.precision)

    refused = 0

    def judged(some: Sequence[CohortScan], done: int) -> Iterator[Judged]:
        nonlocal refused
        for number, scan in enumerate(some, start=done + 1):
            try:
                yield judge(loaded, network, scan, settings.centerline)
            except NoCordError as error:
                refused += 1
                logger.warning("left out: %s", error)
            if report is not None:
                report(number, total)

    curves = [(j.scan, sweep(j.truth, j.pmap)) for j in judged(tuning, 0)]
    choice = choose(
        [c for _, c in curves], [s.subject for s, _ in curves], objective=settings.objective
    )
    bearing = [s for s, curve in curves if curve.n_truth > 0]
    refused_tuning, refused = refused, 0
    uses = [
        reached.use(j.scan.subject, j.truth, j.pmap, choice.threshold)
        for j in judged(unseen, len(tuning))
    ]
    point = operating_point(choice, bearing, settings.centerline, refused_tuning)
    changes: dict[str, object] = {
        "operating_point": point,
        "metrics": reached.metrics(uses, refused) if uses or refused else {},
        "limits": tuple(dict.fromkeys((*loaded.info.limits, *settings.limits))),
    }
    if command is not None:
        changes["provenance"] = loaded.info.provenance.followed_by(command)
    info = loaded.info.model_copy(update=changes)
    info = BundleInfo.model_validate(info.model_dump())
    store.save(loaded.folder, info, loaded.network, loaded.weights, card.text(info), overwrite=True)
    return choice


def parts(scans: Sequence[CohortScan]) -> tuple[list[CohortScan], list[CohortScan]]:
    """Return the scans that choose the threshold, and those that are measured with it."""
    if not any(scan.split for scan in scans):
        return list(scans), []
    checked = splits.of(scans)
    tuning = splits.part(checked, "thr-optimization")
    if not tuning:
        raise DataError(
            "no scan of the cohort is in the part thr-optimization; give some, or a cohort "
            "without the column split, all of whose scans then choose the threshold"
        )
    return tuning, splits.part(checked, "unseen")


def operating_point(
    choice: Choice, scans: Sequence[CohortScan], centerline: str, refused: int = 0
) -> OperatingPoint:
    """Return the choice as a bundle stores it: scans and subjects numbered, not named.

    Parameters
    ----------
    choice : Choice
    scans : sequence of CohortScan
        Those whose curves made it.
    centerline : str
        How the cord was found; see `Settings`.
    refused : int
        Scans left out because no cord was found in them.
    """
    if choice.threshold <= 0:
        raise DataError(
            "no threshold does better than marking every voxel as lesion; the bundle has learned "
            "nothing of use for these scans, train it longer or on scans like them"
        )
    numbers = {s: n for n, s in enumerate(dict.fromkeys(scan.subject for scan in scans), start=1)}
    warnings = ["the optimum lies at an end of the grid"] if choice.at_end else []
    if refused:
        warnings.append(f"left out, because no cord was found: {refused} of the scans")
    return OperatingPoint(
        kind="tuned",
        threshold=choice.threshold,
        objective=choice.objective,
        thresholds=tuple(choice.thresholds.tolist()),
        curve=tuple(choice.curve.tolist()),
        per_scan=tuple(
            ScanCurve(
                scan=f"scan-{n:02d}",
                subject=f"subject-{numbers[scan.subject]:02d}",
                values=tuple(values.tolist()),
            )
            for n, (scan, values) in enumerate(zip(scans, choice.per_scan, strict=True), start=1)
        ),
        interval=choice.interval,
        plateau=choice.plateau,
        loss_at_pm_0_05=(choice.loss_below, choice.loss_above),
        leave_one_out=choice.leave_one_out,
        n_scans=choice.n_scans,
        n_subjects=choice.n_subjects,
        centerline=centerline,
        warnings=tuple(warnings),
    )
