"""Loss functions for lesion segmentation, by name.

Each loss is a pure function of ``(y_true, y_pred, **numbers)`` in ``keras.ops`` and a
`keras.losses.Loss` that stores the numbers, so it runs on every backend of Keras:

>>> model.compile(loss=sct_lesion_losses.losses.get("tversky"))  # doctest: +SKIP

A new loss is a function and a class under ``@registered("its_name")`` in one of the modules; the
options, their help, the recipes and the tests follow. Keras is loaded with the first loss that is
asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from sct_lesion_losses.errors import UsageError

STUDY = (  # Hussein et al. 2023, section 2.3
    *("bce", "dice", "combo", "log_cosh_dice", "generalized_dice", "tversky", "focal_tversky"),
)
_MODULES = ("cross_entropy", "compound", "overlap", "instance")
_classes: dict[str, type[Any]] = {}


def registered(name: str) -> Callable[[type[Any]], type[Any]]:
    """Enter a class of `keras.losses.Loss` under a name; its function has the same one.

    It stands at the beginning of a line, with the name in double quotes: `LOSSES` knows it by that.
    """

    def enter(loss: type[Any]) -> type[Any]:
        _classes[name] = loss
        return loss

    return enter


class _Losses(Mapping[str, type[Any]]):
    """Classes of the losses by name, the study's first.

    The names are read from the sources, so that a help page can list them without Keras.
    """

    def __init__(self) -> None:
        found = {
            name: module
            for module in _MODULES
            for name in re.findall(
                r'^@?registered\("(\w+)"\)',
                Path(__file__).with_name(f"{module}.py").read_text("utf-8"),
                re.MULTILINE,
            )
        }
        self._modules = {name: found[name] for name in (*STUDY, *found)}

    def __getitem__(self, name: str) -> type[Any]:
        self.module(name)
        return _classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def module(self, name: str) -> Any:
        """Import the module of a loss."""
        return import_module(f"{__name__}.{self._modules[name]}")


LOSSES = _Losses()


def __getattr__(name: str) -> Any:
    """Return the function of a loss, or the class of that name."""
    if name in LOSSES:
        return getattr(LOSSES.module(name), name)
    if name[:1].isupper():
        for loss in LOSSES.values():
            if loss.__name__ == name:
                return loss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get(name: str, **numbers: Any) -> Any:
    """Return the loss of that command-line name, with `numbers` in place of its defaults.

    Parameters
    ----------
    name : str
        A key of `LOSSES`.
    **numbers
        Arguments of the loss, ``fn_weight=0.8`` for example; those left out keep their defaults.

    Returns
    -------
    keras.losses.Loss

    Raises
    ------
    UsageError
        No loss has that name, or it does not take such a number.
    """
    if name not in LOSSES:
        raise UsageError(f"no loss is named {name!r}; choose one of {', '.join(sorted(LOSSES))}")
    try:
        return LOSSES[name](**numbers)
    except TypeError as error:
        raise UsageError(f"loss {name}: {error}") from None
