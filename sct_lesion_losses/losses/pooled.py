"""What the losses share: a Keras loss that stores the numbers of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import keras

from sct_lesion_losses.losses.counts import Tensor


class Pooled(keras.losses.Loss):  # type: ignore[misc]
    """A function ``(y_true, y_pred, **numbers)`` as a Keras loss.

    A subclass names its `function`; its arguments are the function's numbers, by keyword.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        *,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
        **numbers: Any,
    ) -> None:
        function = type(self).function
        super().__init__(name=name or function.__name__, reduction=reduction, dtype=dtype)
        parameters = inspect.signature(function).parameters.values()
        known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        if unknown := sorted(numbers.keys() - known.keys()):
            raise TypeError(
                f"expected numbers out of {', '.join(known)}, received {', '.join(unknown)}"
            )
        self.numbers: dict[str, Any] = known | numbers

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Loss of each sample, (B,)."""
        return type(self).function(y_true, y_pred, **self.numbers)

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to build the same loss again."""
        return {**super().get_config(), **self.numbers}
