"""Loss functions for lesion segmentation, by name.

Each loss is a pure function of ``(y_true, y_pred, **numbers)`` in ``keras.ops`` and a
`keras.losses.Loss` that stores the numbers, so it runs on every backend of Keras:

>>> model.compile(loss=sct_lesion_losses.losses.get("tversky"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

import keras

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.losses.compound import Combo, DiceBce, Hytver, combo, dice_bce, hytver
from sct_lesion_losses.losses.cross_entropy import bce
from sct_lesion_losses.losses.instance import Blob, blob
from sct_lesion_losses.losses.overlap import (
    AsymmetricFocalTversky,
    Dice,
    FocalTversky,
    GeneralizedDice,
    LogCoshDice,
    Tversky,
    asymmetric_focal_tversky,
    dice,
    focal_tversky,
    generalized_dice,
    log_cosh_dice,
    tversky,
)

LOSSES: dict[str, type[keras.losses.Loss]] = {
    "bce": keras.losses.BinaryCrossentropy,
    "dice": Dice,
    "combo": Combo,
    "log_cosh_dice": LogCoshDice,
    "generalized_dice": GeneralizedDice,
    "tversky": Tversky,
    "focal_tversky": FocalTversky,
    # beyond the study
    "dice_bce": DiceBce,
    "hytver": Hytver,
    "asymmetric_focal_tversky": AsymmetricFocalTversky,
    "blob": Blob,
}


def get(name: str, **numbers: Any) -> keras.losses.Loss:
    """Return the loss of that command-line name, with `numbers` in place of its defaults.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    **numbers
        Arguments of the loss, ``fn_weight=0.8`` for example; those left out keep their defaults.

    Raises
    ------
    UsageError
        No loss has that name, or it does not take such a number.
    """
    try:
        loss = LOSSES[name]
    except KeyError:
        raise UsageError(
            f"no loss is named {name!r}; choose one of {', '.join(sorted(LOSSES))}"
        ) from None
    try:
        return loss(**numbers)
    except TypeError as error:
        raise UsageError(f"loss {name}: {error}") from None


__all__ = [
    "LOSSES",
    "AsymmetricFocalTversky",
    "Blob",
    "Combo",
    "Dice",
    "DiceBce",
    "FocalTversky",
    "GeneralizedDice",
    "Hytver",
    "LogCoshDice",
    "Tversky",
    "asymmetric_focal_tversky",
    "bce",
    "blob",
    "combo",
    "dice",
    "dice_bce",
    "focal_tversky",
    "generalized_dice",
    "get",
    "hytver",
    "log_cosh_dice",
    "tversky",
]
