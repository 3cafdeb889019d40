"""Loss functions for lesion segmentation, by name.

Each loss is a pure function of ``(y_true, y_pred, **arguments)`` in ``keras.ops`` and a
`keras.losses.Loss` that stores its arguments, so it runs on every backend of Keras:

>>> model.compile(loss=sct_lesion_losses.losses.get("tversky"))  # doctest: +SKIP

A new loss is a function and a class in one of the modules, and a line in `LOSSES`; the options and
the recipes follow, and the tests name what they miss. Keras is loaded with the first loss that is
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sct_lesion_losses.errors import UsageError

# The function's name, its module, and the class there.
LOSSES = {
    "bce": ("cross_entropy", "BinaryCrossentropy"),
    "dice": ("overlap", "Dice"),
    "combo": ("cross_entropy", "Combo"),
    "log_cosh_dice": ("overlap", "LogCoshDice"),
    "generalized_dice": ("overlap", "GeneralizedDice"),
    "tversky": ("overlap", "Tversky"),
    "focal_tversky": ("overlap", "FocalTversky"),
    "dice_bce": ("cross_entropy", "DiceBce"),
    "hytver": ("cross_entropy", "Hytver"),
    "asymmetric_focal_tversky": ("overlap", "AsymmetricFocalTversky"),
    "blob": ("instance", "Blob"),
}
STUDY = (  # Hussein et al. 2023, section 2.3
    "bce",
    "dice",
    "combo",
    "log_cosh_dice",
    "generalized_dice",
    "tversky",
    "focal_tversky",
)


def __getattr__(name: str) -> Any:
    """Return the function of a loss, or the class of that name."""
    for function, (module, loss) in LOSSES.items():
        if name in (function, loss):
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def require(name: str) -> None:
    """Raise a UsageError where no loss has that command-line name."""
    if name not in LOSSES:
        raise UsageError(f"no loss is named {name!r}; choose one of {', '.join(sorted(LOSSES))}")


def get(name: str, **arguments: Any) -> Any:
    """Return the loss of that command-line name, with `arguments` in place of its defaults.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    **arguments
        Arguments of the loss, ``fn_weight=0.8`` for example; those left out keep their defaults.

    Returns
    -------
    keras.losses.Loss

    Raises
    ------
    UsageError
        No loss has that name, or it does not take such an argument.
    """
    require(name)
    try:
        return __getattr__(LOSSES[name][1])(**arguments)
    except TypeError as error:
        raise UsageError(f"loss {name}: {error}") from None
