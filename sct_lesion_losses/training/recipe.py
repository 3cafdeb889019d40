"""Recipes of trainings: the study's for every loss, and changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sct_lesion_losses import losses
from sct_lesion_losses.bundle.schema import Architecture, Recipe, problems
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.preprocessing.augmentation import MIRRORS, ROTATIONS
from sct_lesion_losses.preprocessing.scan import SPACING_MM

EPSILON = 1e-3  # of keras.layers.BatchNormalization, which unet.build leaves as it is
STUDY = "unet3d"
DOUBLING = "unet3d_doubling"
KINDS = (STUDY, DOUBLING)
FILTERS = (16, 32, 64)  # Hussein et al. 2023, section 2.4

# What the study sets apart for a loss, and its rates; Hussein et al. 2023, section 2.4.
_OPTIMISER_OF_LOSS = {"combo": "adadelta"}
_RATES = {"adam": 1e-4, "adadelta": 1.0}
_STUDY = {"batch_size": 8, "epochs_planned": 300, "patience": 15, "rate_factor": 0.5, "prior": 0.5}
# Entries that say when a training ends and what it keeps, and those known when it has ended.
ENDS = {"epochs_planned", "stop_patience", "keep"}
RESULTS = {"epochs_run", "best_epoch", "minutes", "backend", "device", "devices", "monitor"}


def network(filters: tuple[int, ...] = FILTERS, kind: str = STUDY) -> Architecture:
    """Describe a 3-D U-Net that `unet.build` knows.

    In the kind ``unet3d``, the study's, every convolution of a level has the level's filters, the
    transposed one that leads up to it included. In ``unet3d_doubling`` the first convolution of a
    level on the way down has half of them, and the transposed one keeps the channels it is given,
    as Çiçek et al. have it, and the lesion models of SCT.

    Parameters
    ----------
    filters : tuple of int
        Filters of each level, from the finest.
    kind : str
        One of `KINDS`.

    Raises
    ------
    UsageError
        There is no network of such filters.

    References
    ----------
    Çiçek et al. 2016, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation".
    """
    if kind not in KINDS:
        raise UsageError(f"architecture is {kind!r}, expected one of {', '.join(KINDS)}")
    step = 2 if kind == DOUBLING else 1
    if not filters or any(width < 1 or width % step for width in filters):
        wanted = "even numbers" if step == 2 else "whole numbers"
        raise UsageError(
            f"filters is {filters!r}, expected {wanted} above 0, one for each level of {kind}"
        )
    if PATCH_VOX % 2 ** (len(filters) - 1):
        raise UsageError(
            f"filters is {filters!r}, one for each of {len(filters)} levels; a patch of "
            f"{PATCH_VOX} voxels can be halved four times, give five at most"
        )
    return Architecture(architecture=kind, filters=filters, levels=len(filters))


def study(
    loss: str = "tversky",
    *,
    arguments: Mapping[str, bool | float | str] | None = None,
    filters: tuple[int, ...] = FILTERS,
    architecture: str = STUDY,
    mirrors: bool = True,
    rotations: bool = True,
    **changes: Any,
) -> Recipe:
    """Make the study's recipe for a loss, with some entries changed.

    Settings from Hussein et al. 2023, section 2.4.

    Parameters
    ----------
    loss : str
        Name of the loss.
    arguments : mapping, optional
        Of the loss; those left out keep their defaults.
    filters, architecture
        See `network`.
    mirrors, rotations : bool
        Whether patches are mirrored, and turned by multiples of 90°, as augmentation.
    **changes
        Other entries of `Recipe`. The rate is that of the optimiser unless it is given; a shift is
        rounded to whole voxels.

    Raises
    ------
    UsageError
        The loss or an entry is unknown, or out of its range.
    """
    losses.require(loss)
    optimiser = changes.get("optimiser", _OPTIMISER_OF_LOSS.get(loss, "adam"))
    shift_mm = round(changes.pop("shift_mm", 0.0) / SPACING_MM) * SPACING_MM
    intensity, stripe = changes.pop("intensity", 0.0), changes.pop("stripe", 0.0)
    words = {
        MIRRORS: mirrors,
        ROTATIONS: rotations,
        f"centerline moved by up to {shift_mm:g} mm": shift_mm > 0,
        "bright stripes along the cord's middle": stripe > 0,
        "gamma, bias, blur and noise": intensity > 0,
    }
    entries = {
        **_STUDY,
        "loss": {"name": loss, "numbers": dict(arguments or {})},
        "network": network(filters, architecture),
        "optimiser": optimiser,
        "rate": _RATES.get(optimiser),
        "augmentations": tuple(name for name, used in words.items() if used),
        "shift_mm": shift_mm,
        "intensity": intensity,
        "stripe": stripe or None,  # as in a recipe without this entry
    }
    try:
        return Recipe.model_validate({**entries, **changes})
    except ValidationError as error:
        raise UsageError(f"recipe: {problems(error)}") from error


def margin(recipe: Recipe) -> int:
    """Voxels that a cord crop is wider on each side, for windows that are moved."""
    return round((recipe.shift_mm or 0.0) / SPACING_MM)


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return the entries as plain values by the name people know, without results."""
    plain: dict[str, Any] = recipe.model_dump(mode="json", exclude=RESULTS)
    return {
        **plain,
        "loss": recipe.loss.name,
        "loss_numbers": recipe.loss.numbers,
        "filters": list(recipe.network.filters),
        "architecture": recipe.network.architecture,
        "seed": recipe.seed,
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name the settings in which two trainings differ, as ``name: before -> after``.

    >>> differences({"rate": 0.1, "epochs_planned": 2}, {"rate": 0.2, "epochs_planned": 3})
    ['rate: 0.1 -> 0.2']
    """
    return [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted((before.keys() | after.keys()) - ENDS)
        if before.get(name) != after.get(name)
    ]
