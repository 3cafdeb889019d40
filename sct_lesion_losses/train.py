"""From a cohort to a bundle: split, tubes, intensity landmarks, training, export."""

from __future__ import annotations

import logging
import platform
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import __version__, intensity, locate, prepare
from sct_lesion_losses.bundle import schema, store
from sct_lesion_losses.data import cohort as cohorts
from sct_lesion_losses.data import nifti, splits
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.model import export, fitting
from sct_lesion_losses.model.batches import TrainingTube
from sct_lesion_losses.model.recipe import Recipe
from sct_lesion_losses.report import card
from sct_lesion_losses.space.tube import CordTube

SPLIT_TABLE = "split.tsv"
WORK_SUFFIX = ".training"

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
    resume: bool = False,
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
    resume : bool
        Go on after the last finished epoch of an earlier call.
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
        See `model.fitting.fit`.
    """
    began = time.monotonic()
    work = folder.with_name(folder.name + WORK_SUFFIX)
    work.mkdir(parents=True, exist_ok=True)
    scans = splits.of(cohorts.read(data), rules)
    cohorts.write(scans, work / SPLIT_TABLE)
    logger.info("split: %s", ", ".join(f"{n} {k}" for k, n in splits.counts(scans).items()))
    training, validation = splits.part(scans, "training"), splits.part(scans, "validation")
    margin = round(recipe.augmentation.shift_mm / prepare.SPACING_MM)
    raw = {scan.scan: raw_tube(scan, margin) for scan in (*training, *validation)}
    _require_lesions("training", [raw[s.scan] for s in training])
    _require_lesions("validation", [raw[s.scan] for s in validation])
    landmarks = intensity.fit(prepare.stacked_patches(raw[s.scan].inner(margin)) for s in training)
    hashes = {scan: tube.content for scan, tube in raw.items()}
    split_hash = splits.split_hash([*training, *validation], hashes)
    fitted = fitting.fit(
        [standardised(raw[s.scan], landmarks, margin) for s in training],
        [standardised(raw[s.scan], landmarks, margin) for s in validation],
        recipe,
        work,
        data_hash=split_hash,
        resume=resume,
        report=report,
    )
    info = _info(fitted, recipe, landmarks, about, (time.monotonic() - began) / 60).model_copy(
        update={"split_hash": split_hash, "seeds": {"training": recipe.seed, "split": rules.seed}}
    )
    provenance = info.provenance.model_copy(
        update={
            "scans": splits.counts(scans),
            "trained_on": tuple(sorted(hashes.values())),
        }
    )
    info = schema.BundleInfo.model_validate(info.model_copy(update={"provenance": provenance}))
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


def _info(
    fitted: fitting.Fitted,
    recipe: Recipe,
    landmarks: intensity.Landmarks,
    about: About,
    minutes: float,
) -> schema.BundleInfo:
    progress, augmentation = fitted.progress, recipe.augmentation
    words = {
        "mirrors": augmentation.mirrors,
        "90-degree rotations": augmentation.rotations,
        f"centerline moved by up to {augmentation.shift_mm:g} mm": augmentation.shift_mm > 0,
        "gamma, bias, blur and noise": augmentation.intensity > 0,
    }
    return schema.BundleInfo(
        name=about.name,
        version=about.version,
        created=date.today(),
        loss=schema.Loss(name=recipe.loss, numbers=_numbers(recipe)),
        preparation=schema.StudyPreparation(
            percentiles=landmarks.percentiles, landmarks=landmarks.values
        ),
        network=schema.Architecture(
            filters=recipe.filters,
            levels=len(recipe.filters),
            parameters=fitted.model.count_params(),
        ),
        recipe=schema.Recipe(
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
            device="cpu",
            minutes=minutes,
        ),
        packages=_packages(),
        git_commit=_git_commit(),
        history=tuple(
            schema.Epoch(epoch=e.epoch, loss=e.loss, val_loss=e.val_loss, rate=e.rate)
            for e in progress.history
        ),
        provenance=schema.Provenance(data=about.data, commands=about.commands),
        intended_use=about.intended_use,
        limits=about.limits,
    )


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
