"""What a trained bundle says of itself: its description before and after the training."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sct_lesion_losses import __version__
from sct_lesion_losses.bundle import schema
from sct_lesion_losses.bundle import schema as document
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.preprocessing import intensity, scan
from sct_lesion_losses.training import devices, fit, warm_start
from sct_lesion_losses.training.recipe import Recipe
from sct_lesion_losses.training.steps import Machine


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


def draft(recipe: Recipe, about: About, init: Bundle | None) -> schema.BundleInfo:
    """Bundle as far as it is known before the training, which must not fail for a name."""
    before = schema.Provenance(data="nothing")
    ancestor = None
    if init is not None:
        warm_start.require_same(init, recipe.network)
        before = init.info.provenance
        ancestor = warm_start.ancestor(init)
    try:
        return schema.BundleInfo(
            name=about.name,
            version=about.version,
            loss=schema.Loss(name=recipe.loss, numbers=_numbers(recipe)),
            preparation=preparation(intensity.Landmarks((0.0, 50.0, 100.0), (0.0, 1.0, 2.0))),
            network=_network(recipe),
            packages=_packages(),
            git_commit=_git_commit(),
            provenance=schema.Provenance(
                data=about.data,
                commands=(*before.commands, *about.commands),
                trained_on=before.trained_on,
                ancestor=ancestor,
            ),
            intended_use=about.intended_use,
            limits=(*about.limits, *warm_start.inherited_limits(init)),
        )
    except ValidationError as error:
        raise UsageError(
            f"the bundle cannot be described so: {document.problems(error)}; choose another "
            "folder name, version (1.0.0) or description, without absolute paths"
        ) from error


def preparation(landmarks: intensity.Landmarks) -> schema.StudyPreparation:
    """Describe the study's preparation with these landmarks."""
    return schema.StudyPreparation(percentiles=landmarks.percentiles, landmarks=landmarks.values)


def trained(fitted: fit.Fitted, recipe: Recipe, machine: Machine) -> dict[str, object]:
    """Fields of a bundle that are known once it is trained."""
    progress, augmentation = fitted.progress, recipe.augmentation
    shift_mm = margin(recipe) * scan.SPACING_MM
    words = {
        "mirrors": augmentation.mirrors,
        "90-degree rotations": augmentation.rotations,
        f"centerline moved by up to {shift_mm:g} mm": shift_mm > 0,
        "gamma, bias, blur and noise": augmentation.intensity > 0,
    }
    return {
        "created": date.today(),
        "network": _network(recipe, fitted.model.count_params()),
        "recipe": schema.Recipe(
            optimiser=recipe.optimiser,
            rate=recipe.rate,
            batch_size=recipe.batch_size,
            epochs_planned=recipe.epochs,
            epochs_run=progress.epoch,
            best_epoch=progress.best_epoch,
            patience=recipe.patience,
            rate_factor=recipe.rate_factor,
            stop_patience=recipe.early_stop,
            patches_per_epoch=recipe.patches_per_epoch,
            validation_patches=recipe.validation_patches,
            lesion_share=recipe.lesion_share,
            shift_mm=shift_mm,
            intensity=augmentation.intensity,
            prior=recipe.prior,
            augmentations=tuple(name for name, used in words.items() if used),
            precision=recipe.precision,
            backend=devices.backend(),
            device=devices.device(),
            devices=machine.devices,
            minutes=sum(line.seconds for line in progress.history) / 60,
        ),
        "history": tuple(
            schema.Epoch(epoch=e.epoch, loss=e.loss, val_loss=e.val_loss, rate=e.rate)
            for e in progress.history
        ),
    }


def margin(recipe: Recipe) -> int:
    """Voxels that a tube is wider on each side, for windows that are moved."""
    return round(recipe.augmentation.shift_mm / scan.SPACING_MM)


def _network(recipe: Recipe, parameters: int | None = None) -> schema.Architecture:
    return schema.Architecture(
        architecture=recipe.architecture,
        filters=recipe.filters,
        levels=len(recipe.filters),
        parameters=parameters,
    )


def _numbers(recipe: Recipe) -> dict[str, Any]:
    """All the numbers of the recipe's loss, defaults included."""
    return {
        name: value
        for name, value in fit.loss_numbers(recipe).items()
        if isinstance(value, bool | int | float | str)
    }


def _packages() -> dict[str, str]:
    names = (
        *("numpy", "scipy", "nibabel", "keras", "onnx"),
        *("tensorflow", "tensorflow-cpu", "jax", "jaxlib", "torch"),
    )
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
