"""From a cohort to a bundle: split, tubes, intensity landmarks, training, export."""

from __future__ import annotations

import hashlib
import logging
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from pydantic import ValidationError

from sct_lesion_losses import __version__, intensity, locate, prepare
from sct_lesion_losses.bundle import document, schema, store
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.bundle.verify import INFO as BUNDLE_FILE
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import nifti, splits
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.errors import DataError, OutputError, TrainingError, UsageError
from sct_lesion_losses.model import export, fitting
from sct_lesion_losses.model.batches import TrainingTube
from sct_lesion_losses.model.recipe import Recipe
from sct_lesion_losses.report import card
from sct_lesion_losses.space.tube import CordTube

SPLIT_TABLE = "split.tsv"
WORK_SUFFIX = ".training"
LOCK = ".lock"

logger = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class About:
    """What only a person can say of a bundle; it goes into `bundle.json` and the model card."""

    name: str = "mine"
    version: str = "1.0.0"
    data: str = "scans of the user's own"
    intended_use: str = "research on T2-weighted spinal cord MRI of people with multiple sclerosis"
    limits: tuple[str, ...] = (
        "not a medical device; its masks need the eye of an expert",
        "trained for T2-weighted scans of the spinal cord; other contrasts are out of its reach",
    )
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _RawTube:
    """A scan in its tube before standardisation, with the hash of its content."""

    values: FloatArray
    lesion: npt.NDArray[np.bool_]
    content: str

    @property
    def seen(self) -> str:
        """Hash of what a network sees of the scan: intensities and lesion mask in the tube."""
        lesion = np.packbits(self.lesion)
        return cohorts.content_hash(self.values) + hashlib.sha256(lesion.tobytes()).hexdigest()[:32]

    def inner(self, margin: int) -> FloatArray:
        """Return the 48 x 48 window that a network sees in use, without the margin for shifts."""
        end = self.values.shape[0] - margin
        return self.values[margin:end, margin:end]


def run(
    data: Path,
    folder: Path,
    recipe: Recipe,
    *,
    about: About = About(),
    rules: splits.Rules = splits.Rules(),  # noqa: B008 (frozen)
    init: Bundle | None = None,
    resume: bool = False,
    force: bool = False,
    report: fitting.Report | None = None,
) -> Path:
    """Train a network on a cohort and write it as a bundle, its threshold still 0.5.

    The state of the training, its log and the split are kept beside the bundle, in the folder
    ``<folder>.training``; `tune.run` takes its ``split.tsv``.

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
        Start from its weights, and keep its intensity landmarks, which its weights know.
    resume : bool
        Go on after the last finished epoch of an earlier call.
    force : bool
        Start anew where a bundle or a training is there already; refused otherwise.
    report : callable, optional
        Told of every step; see `model.fitting.fit`.

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
        The folder cannot be written, or another training is writing it.
    """
    folder = folder.absolute()
    draft = _draft(recipe, about, init)
    store.check_target(folder, draft.name)
    with _work_folder(folder, resume, force) as work:
        return _run(data, folder, work, recipe, draft, rules, init, resume, report)


def _run(
    data: Path,
    folder: Path,
    work: Path,
    recipe: Recipe,
    draft: schema.BundleInfo,
    rules: splits.Rules,
    init: Bundle | None,
    resume: bool,
    report: fitting.Report | None,
) -> Path:
    scans = splits.of(cohorts.read(data), rules)
    logger.info("split: %s", ", ".join(f"{n} {k}" for k, n in splits.counts(scans).items()))
    training, validation = splits.part(scans, "training"), splits.part(scans, "validation")
    margin = _margin(recipe)
    raw = {scan.scan: raw_tube(scan, margin) for scan in (*training, *validation)}
    _require_lesions("training", [raw[s.scan] for s in training])
    _require_lesions("validation", [raw[s.scan] for s in validation])
    if init is None:
        inner = (raw[scan.scan].inner(margin) for scan in training)
        landmarks = intensity.fit(prepare.stacked_patches(values) for values in inner)
    else:
        kept = init.preparation
        landmarks = intensity.Landmarks(kept.percentiles, kept.landmarks)
    hashes = {scan: tube.content for scan, tube in raw.items()}
    used = [*training, *validation]
    data_hash = splits.split_hash(used, {scan: tube.seen for scan, tube in raw.items()})
    if init is not None:
        data_hash += f", from weights {init.weights_sha256}"
    if resume:
        fitting.resumable(recipe, work, data_hash=data_hash)
    cohorts.write(scans, work / SPLIT_TABLE)
    fitted = fitting.fit(
        [standardised(raw[s.scan], landmarks, margin) for s in training],
        [standardised(raw[s.scan], landmarks, margin) for s in validation],
        recipe,
        work,
        data_hash=data_hash,
        initial=None if init is None else init.weights,
        resume=resume,
        report=report,
    )
    provenance = draft.provenance.model_copy(
        update={
            "scans": splits.counts(scans),
            "trained_on": tuple(sorted({*draft.provenance.trained_on, *hashes.values()})),
        }
    )
    facts = {
        "preparation": _preparation(landmarks),
        "split_hash": splits.split_hash(used, hashes),
        "seeds": {"training": recipe.seed, "split": rules.seed},
        "provenance": provenance,
        **_trained(fitted, recipe),
    }
    info = schema.BundleInfo.model_validate(draft.model_copy(update=facts))
    network = export.to_onnx(fitted.model, info.metadata())
    weights = export.to_safetensors(fitted.model)
    store.save(folder, info, network, weights, card.text(info), overwrite=True)
    return folder


def raw_tube(scan: CohortScan, margin: int = 0) -> _RawTube:
    """Intensities and lesion mask of a scan in its tube, `margin` voxels wider on each side.

    The window without its margin is the one that `prepare.tube_values` cuts. The mask is sampled
    by nearest neighbour: a mask is never interpolated. Where the cohort has no centerline for the
    scan, it is found as in use.
    """
    image = nifti.read(scan.scan)
    lesion = nifti.read_mask(scan.lesion_mask, like=image.grid).array
    centerline = locate.centerline(image.array, image.grid, file=scan.centerline)
    rpi, reorientation = image.grid.to_rpi()
    tube = prepare.cord_tube(centerline)
    wide = CordTube(tube.grid, tube.first, tube.starts - margin, tube.width + 2 * margin)
    values, _ = prepare.padded(wide.cut(reorientation.apply(image.array), rpi))
    mask, _ = prepare.padded(wide.cut(reorientation.apply(lesion), rpi, order=0))
    return _RawTube(values, mask > 0.5, cohorts.content_hash(image.array))


def standardised(tube: _RawTube, landmarks: intensity.Landmarks, margin: int) -> TrainingTube:
    """Standardise the tube as `prepare.scan` does, margin included."""
    reference = prepare.stacked_patches(tube.inner(margin))
    return TrainingTube(intensity.standardise(tube.values, landmarks, reference), tube.lesion)


def _require_lesions(part: str, tubes: Sequence[_RawTube]) -> None:
    if not tubes:
        raise DataError(f"the {part} set is empty; give more subjects, or a split of your own")
    if not any(tube.lesion.any() for tube in tubes):
        raise DataError(
            f"no scan of the {part} set holds lesions within 12 mm of its centerline; check the "
            "lesion masks and the centerlines, or give a split of your own"
        )


def _draft(recipe: Recipe, about: About, init: Bundle | None) -> schema.BundleInfo:
    """Bundle as far as it is known before the training, which must not fail for a name."""
    before = schema.Provenance(data="nothing")
    ancestor = None
    if init is not None:
        if init.folder is None or init.info.network.filters != recipe.filters:
            raise UsageError(
                f"bundle {init.name}: its network has not the filters {recipe.filters} of this "
                "training; start from a bundle of this package, of the same network"
            )
        before = init.info.provenance
        ancestor = f"{init.name} {init.info.version}, weights {init.weights_sha256}"
    try:
        return schema.BundleInfo(
            name=about.name,
            version=about.version,
            loss=schema.Loss(name=recipe.loss, numbers=_numbers(recipe)),
            preparation=_preparation(intensity.Landmarks((0.0, 50.0, 100.0), (0.0, 1.0, 2.0))),
            network=schema.Architecture(filters=recipe.filters, levels=len(recipe.filters)),
            packages=_packages(),
            git_commit=_git_commit(),
            provenance=schema.Provenance(
                data=about.data,
                commands=(*before.commands, *about.commands),
                trained_on=before.trained_on,
                ancestor=ancestor,
            ),
            intended_use=about.intended_use,
            limits=about.limits,
        )
    except ValidationError as error:
        raise UsageError(
            f"the bundle cannot be described so: {document.problems(error)}; choose another "
            "folder name or description, without absolute paths"
        ) from error


def _preparation(landmarks: intensity.Landmarks) -> schema.StudyPreparation:
    return schema.StudyPreparation(percentiles=landmarks.percentiles, landmarks=landmarks.values)


def _trained(fitted: fitting.Fitted, recipe: Recipe) -> dict[str, object]:
    """Fields of a bundle that are known once it is trained."""
    progress, augmentation = fitted.progress, recipe.augmentation
    shift_mm = _margin(recipe) * prepare.SPACING_MM
    words = {
        "mirrors": augmentation.mirrors,
        "90-degree rotations": augmentation.rotations,
        f"centerline moved by up to {shift_mm:g} mm": shift_mm > 0,
        "gamma, bias, blur and noise": augmentation.intensity > 0,
    }
    return {
        "created": date.today(),
        "network": schema.Architecture(
            filters=recipe.filters,
            levels=len(recipe.filters),
            parameters=fitted.model.count_params(),
        ),
        "recipe": schema.Recipe(
            optimiser=recipe.optimiser,
            rate=recipe.rate,
            batch_size=recipe.batch_size,
            epochs_planned=recipe.epochs,
            epochs_run=progress.epoch,
            best_epoch=progress.best_epoch,
            patience=recipe.patience,
            rate_factor=recipe.rate_factor,
            augmentations=tuple(name for name, used in words.items() if used),
            precision=recipe.precision,
            backend=fitting.backend(),
            device=fitting.device(),
            minutes=sum(line.seconds for line in progress.history) / 60,
        ),
        "history": tuple(
            schema.Epoch(epoch=e.epoch, loss=e.loss, val_loss=e.val_loss, rate=e.rate)
            for e in progress.history
        ),
    }


def _margin(recipe: Recipe) -> int:
    """Voxels that a tube is wider on each side, for windows that are moved."""
    return round(recipe.augmentation.shift_mm / prepare.SPACING_MM)


@contextmanager
def _work_folder(folder: Path, resume: bool, force: bool) -> Iterator[Path]:
    """Folder of the training's state, locked; refused where another training would be lost."""
    work = folder.with_name(folder.name + WORK_SUFFIX)
    checkpoint = (work / fitting.CHECKPOINT).exists()
    if checkpoint and not (resume or force):
        raise TrainingError(
            f"{work} holds a training already; go on with it by -resume 1, lose it by -force 1, "
            "or train into a new folder"
        )
    if (folder / BUNDLE_FILE).exists() and not (checkpoint or force):
        raise TrainingError(
            f"{folder} holds a bundle already, and no training to go on with; lose it by "
            "-force 1, or train into a new folder"
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / LOCK, timeout=0)
        with lock:
            yield work
    except Timeout as error:
        raise OutputError(
            f"{folder}: another training is writing this bundle; wait for it to end, or train "
            "into a new folder"
        ) from error
    except PermissionError as error:
        raise OutputError(
            f"{work}: cannot write here ({error.strerror}); choose another folder"
        ) from error


def _numbers(recipe: Recipe) -> dict[str, Any]:
    """All the numbers of the recipe's loss, defaults included."""
    return {
        name: value
        for name, value in fitting.loss_numbers(recipe).items()
        if isinstance(value, bool | int | float | str)
    }


def _packages() -> dict[str, str]:
    names = ("numpy", "scipy", "nibabel", "keras", "onnx", "tensorflow", "tensorflow-cpu", "jax")
    installed = {"python": platform.python_version(), "sct_lesion_losses": __version__}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _git_commit() -> str | None:
    """Commit of the checkout that this package runs from; None where it is not one."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(here),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
