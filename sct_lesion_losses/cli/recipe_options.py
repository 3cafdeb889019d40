"""The options that make the recipe of a training, one for each of its entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from sct_lesion_losses.cli.cohort_options import SHARE
from sct_lesion_losses.cli.common import FLOAT, SWITCH, TEXT, Kind, choice, int_range, option
from sct_lesion_losses.errors import UsageError

if TYPE_CHECKING:
    from sct_lesion_losses.model.recipe import Recipe

# Those of `losses.LOSSES`, whose import would load Keras for the help.
LOSSES = (
    *("bce", "dice", "combo", "log_cosh_dice", "generalized_dice", "tversky", "focal_tversky"),
    *("dice_bce", "hytver", "asymmetric_focal_tversky", "blob"),
)
STUDY_LOSSES = LOSSES[:7]  # Hussein et al. 2023, section 2.3
COUNT = int_range(1)

_LOSS = option("-loss", "loss", choice(*LOSSES), "Loss function.", default="tversky")
_OPTIONS = (
    option(
        "-loss_numbers",
        "loss_numbers",
        TEXT,
        "Numbers of the loss, fn_weight=0.8 for example.",
        shown="those of its paper",
        many=True,
    ),
    option("-epochs", "epochs", COUNT, "Epochs of training.", shown="300"),
    option("-batch", "batch_size", COUNT, "Patches per step.", shown="8"),
    option("-rate", "rate", FLOAT, "Learning rate at the start.", shown="0.0001; 1 for combo"),
    option(
        "-optimiser",
        "optimiser",
        choice("adam", "adadelta"),
        "Optimiser.",
        shown="adam; adadelta for combo",
    ),
    option(
        "-patience",
        "patience",
        COUNT,
        "Epochs without a better validation loss after which the rate is lowered.",
        shown="15",
    ),
    option(
        "-rate_factor", "rate_factor", FLOAT, "What the rate is then multiplied by.", shown="0.5"
    ),
    option(
        "-early_stop",
        "early_stop",
        COUNT,
        "Epochs without a better validation loss after which the training ends.",
        shown="never",
    ),
    option(
        "-patches_per_epoch", "patches_per_epoch", COUNT, "Patches drawn per epoch.", shown="all"
    ),
    option(
        "-lesion_share",
        "lesion_share",
        SHARE,
        "Share of the drawn patches that hold lesion.",
        shown="as they come",
    ),
    option(
        "-validation_patches",
        "validation_patches",
        COUNT,
        "Patches judged after each epoch.",
        shown="all",
    ),
    option(
        "-mirrors", "mirrors", SWITCH, "Mirror patches along each axis, at random.", default=True
    ),
    option(
        "-rotations",
        "rotations",
        SWITCH,
        "Turn patches by multiples of 90 degrees in the axial plane, at random.",
        default=True,
    ),
    option(
        "-shift",
        "shift_mm",
        Kind("<float>", click.FloatRange(0, 10)),
        "Move the centerline by up to this, in mm (whole voxels of 0.5 mm), as augmentation.",
        shown="0",
    ),
    option(
        "-intensity",
        "intensity",
        SHARE,
        "Probability of each change of intensity (gamma, bias, blur, noise) as augmentation.",
        shown="0",
    ),
    option(
        "-precision",
        "precision",
        choice("float32", "mixed_bfloat16", "mixed_float16"),
        "Precision of the network while it trains.",
        shown="float32",
    ),
    option(
        "-filters",
        "filters",
        COUNT,
        "Filters of the U-Net's levels, from the finest.",
        shown="16 32 64; with -init those of the start",
        many=True,
    ),
    option(
        "-prior",
        "prior",
        FLOAT,
        "Lesion probability that the untrained network starts from; 0.02 saves many steps.",
        shown="0.5",
    ),
    option("-seed", "seed", int_range(0), "Seed of weights, patches and augmentation.", default=0),
)


def of_recipe(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; their values are for `recipe`."""
    with_loss: Callable[..., Any] = _LOSS(of_every_recipe(callback))
    return with_loss


def of_every_recipe(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options but the loss itself, for a command that trains several."""
    for add in reversed(_OPTIONS):
        callback = add(callback)
    return callback


def recipe(values: Mapping[str, Any], start: Mapping[str, Any]) -> Recipe:
    """Return the study's recipe, changed by what was given.

    Parameters
    ----------
    values : mapping
        Of the options of `of_recipe`, by the name of their entry; None was left out. The loss is
        among them.
    start : mapping
        Entries that follow from the bundle that the training starts from.

    Raises
    ------
    UsageError
        A value is out of its range.
    """
    from sct_lesion_losses.augment import Augmentation
    from sct_lesion_losses.model.recipe import study

    given = {name: value for name, value in values.items() if value not in (None, ())}
    if start and "prior" in given:
        raise UsageError("-prior is for random weights; with -init the start has learned its own")
    numbers = dict(_number(word) for word in given.pop("loss_numbers", ()))
    augmentation = Augmentation(
        mirrors=given.pop("mirrors"),
        rotations=given.pop("rotations"),
        shift_mm=given.pop("shift_mm", 0.0),
        intensity=given.pop("intensity", 0.0),
    )
    return study(**{**start, **given}, loss_numbers=numbers, augmentation=augmentation)


def _number(word: str) -> tuple[str, float | bool | str]:
    """Name and value of ``fn_weight=0.8``, ``squared=True`` or ``pooling=sample``."""
    name, equals, value = word.partition("=")
    if not (name.isidentifier() and equals and value):
        raise UsageError(f"-loss_numbers {word}: expected name=value, fn_weight=0.8 for example")
    if value in ("True", "False"):
        return name, value == "True"
    try:
        return name, float(value)
    except ValueError:
        return name, value
