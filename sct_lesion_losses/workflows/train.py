"""From a cohort to a bundle: split, tubes, intensity landmarks, training, export."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from sct_lesion_losses.bundle import schema, store
from sct_lesion_losses.bundle.check import INFO as BUNDLE_FILE
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.cohorts import splits
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import DataError, OutputError, TrainingError, UsageError
from sct_lesion_losses.executor import Progress
from sct_lesion_losses.preprocessing import cache as tube_cache
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.preprocessing.cache import CutScan, Workshop
from sct_lesion_losses.report import card
from sct_lesion_losses.report.figures import learning
from sct_lesion_losses.training import description, export, fit, resuming, running, warm_start
from sct_lesion_losses.training.description import About
from sct_lesion_losses.training.recipe import Recipe
from sct_lesion_losses.training.running import Listener, StepReport
from sct_lesion_losses.training.steps import Machine

SPLIT_TABLE = "split.tsv"
WORK_SUFFIX = ".training"
LOCK = ".lock"
CACHE = "training_cache"

logger = logging.getLogger(__name__)


def run(
    data: Path,
    folder: Path,
    recipe: Recipe,
    *,
    about: About = About(),  # noqa: B008 (frozen)
    rules: splits.Rules = splits.Rules(),  # noqa: B008 (frozen)
    init: Bundle | None = None,
    resume: bool = False,
    force: bool = False,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
    tensorboard: bool = False,
    cache: Path | None = None,
    jobs: int = 1,
    report: Callable[[StepReport], None] | None = None,
    prepared: Progress | None = None,
) -> Path:
    """Train a network on a cohort and write it as a bundle, its threshold still 0.5.

    The state of the training, its log, the picture of its learning curves and the split are kept
    beside the bundle, in the folder ``<folder>.training``; `tune.run` takes its ``split.tsv``.
    What is prepared of the scans is kept as well, for other trainings on them; see `tube_cache`.

    Parameters
    ----------
    data : Path
        BIDS folder or TSV; see `data.cohort.read`. A split in the TSV is kept.
    folder : Path
        The bundle to write.
    recipe : Recipe
    about : About
    rules : Rules
        How to split a cohort that comes without a split.
    init : Bundle, optional
        Start from its weights, and keep its intensity landmarks, which its weights know; SCT's
        model (`warm_start.load`) is given landmarks of the cohort. The recipe has to ask for its
        network (`warm_start.entries`).
    resume : bool
        Go on where an earlier call ended or was killed.
    force : bool
        Start anew where a bundle or a training is there already; refused otherwise.
    machine : Machine
        How the work is laid out; see `model.Machine`.
    tensorboard : bool
        Write event files for TensorBoard into the folder of the training, too.
    cache : Path, optional
        Folder of prepared scans; ``training_cache`` beside the bundle by default.
    jobs : int
        Scans prepared at the same time.
    report : callable, optional
        Told of every step.
    prepared : callable, optional
        Told of every scan that is prepared, by (done, total).

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    DataError
        There are no training or validation scans, or no lesions among them.
    TrainingError
        A bundle or a training is there already; else see `model.fitting.fit`.
    UsageError
        What `about` says cannot be written into a bundle.
    OutputError
        The folder or the cache cannot be written, or another training is writing the folder.
    WorkerError
        A process that prepared a scan was killed.
    """
    folder = folder.absolute()
    fit.check(recipe, machine)
    draft = description.draft(recipe, about, init)
    store.check_target(folder, draft.name)
    place = folder.with_name(CACHE) if cache is None else cache
    _require_apart(place, folder)
    workshop = Workshop(place, description.margin(recipe), jobs, prepared)
    with _work_folder(folder, resume, force) as work:
        if resume:
            resuming.resumable(recipe, work)  # known before any scan is read
        with learning.drawn(work, tensorboard) as after_epoch:
            listener = Listener(epoch=after_epoch)
            if report is not None:
                listener = replace(listener, step=report)
            info, model = _trained(
                data,
                work,
                recipe,
                draft,
                rules=rules,
                init=init,
                resume=resume,
                machine=machine,
                workshop=workshop,
                listener=listener,
            )
        network = export.to_onnx(model, {})
        weights = export.to_safetensors(model)
        store.save(folder, info, network, weights, card.text(info), overwrite=True)
    return folder


def _trained(
    data: Path,
    work: Path,
    recipe: Recipe,
    draft: schema.BundleInfo,
    *,
    rules: splits.Rules,
    init: Bundle | None,
    resume: bool,
    machine: Machine,
    workshop: Workshop,
    listener: Listener,
) -> tuple[schema.BundleInfo, fit.Model]:
    """Train in the folder `work`; the description `draft` completed, and the network."""
    cohort = cohorts.read(data)
    scans = splits.of(cohort, rules)
    seeds = {"training": recipe.seed}
    if not any(scan.split for scan in cohort):
        seeds["split"] = rules.seed
    logger.info("split: %s", ", ".join(f"{n} {k}" for k, n in splits.counts(scans).items()))
    training, validation = splits.part(scans, "training"), splits.part(scans, "validation")
    for part, some in (("training", training), ("validation", validation)):
        if not some:
            raise DataError(f"the {part} set is empty; give more subjects, or a split of your own")
    cut = tube_cache.cut([*training, *validation], workshop)
    to_learn, to_judge = cut[: len(training)], cut[len(training) :]
    _require_lesions("training", to_learn)
    _require_lesions("validation", to_judge)
    landmarks = warm_start.landmarks(init)
    if landmarks is None:
        landmarks = intensity.average(scan.percentiles for scan in to_learn)
    hashes = {one.scan.scan: one.content for one in cut}
    used = [one.scan for one in cut]
    trained_on = [(f"{one.scan.name} in {one.scan.split}", one.seen) for one in cut]
    if init is not None:
        trained_on.append((f"the weights of {init.name}", init.weights_sha256))
    if resume:
        resuming.resumable(recipe, work, trained_on)
    cohorts.write(scans, work / SPLIT_TABLE)
    fitted = fit.fit(
        tube_cache.standardised(to_learn, landmarks, workshop),
        tube_cache.standardised(to_judge, landmarks, workshop),
        recipe,
        work,
        data=trained_on,
        initial=None if init is None else init.weights,
        resume=resume,
        machine=machine,
        listener=listener,
    )
    provenance = draft.provenance.model_copy(
        update={
            "scans": splits.counts(scans),
            "trained_on": tuple(sorted({*draft.provenance.trained_on, *hashes.values()})),
        }
    )
    facts = {
        "preparation": description.preparation(landmarks),
        "split_hash": splits.split_hash(used, hashes),
        "seeds": seeds,
        "provenance": provenance,
        **description.trained(fitted, recipe, machine),
    }
    info = schema.BundleInfo.model_validate(draft.model_copy(update=facts))
    return info, fitted.model


def _require_apart(cache: Path, folder: Path) -> None:
    """Raise a UsageError where the cache would lie in the bundle."""
    if folder.resolve() in (cache.resolve(), *cache.resolve().parents):
        raise UsageError(
            f"{cache} would lie in the bundle {folder.name}; choose another -cache, or another "
            "-ofolder"
        )


def _require_lesions(part: str, scans: Sequence[CutScan]) -> None:
    if not any(scan.lesion_vox for scan in scans):
        raise DataError(
            f"no scan of the {part} set holds lesions within 12 mm of its centerline; check the "
            "lesion masks and the centerlines, or give a split of your own"
        )


@contextmanager
def _work_folder(folder: Path, resume: bool, force: bool) -> Iterator[Path]:
    """Folder of the training's state, locked; refused where another training would be lost."""
    if resume and force:
        raise UsageError("-resume 1 goes on and -force 1 starts anew: choose one of them")
    work = folder.with_name(folder.name + WORK_SUFFIX)
    lock = FileLock(work / LOCK, timeout=0)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"{folder}: another training is writing this bundle; wait for it to end, or train "
            "into a new folder"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{work}: cannot write here ({error.strerror}); choose another folder"
        ) from error
    try:
        checkpoint = (work / running.CHECKPOINT).exists()
        if checkpoint and not (resume or force):
            raise TrainingError(
                f"{work} holds a training already; go on with it by -resume 1, lose it by "
                "-force 1, or train into a new folder"
            )
        if (folder / BUNDLE_FILE).exists() and not (checkpoint or force):
            raise TrainingError(
                f"{folder} holds a bundle already, and no training to go on with; lose it by "
                "-force 1, or train into a new folder"
            )
        yield work
    finally:
        lock.release()
