"""Base of all losses: inputs as probabilities, pooled sums, and a function as a Keras loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import keras
from keras import ops
from keras.backend import standardize_dtype

Pooling = Literal["batch", "sample"]
Tensor = Any  # a tensor of whichever backend Keras runs on


def probabilities(y_true: Tensor, y_pred: Tensor, *, from_logits: bool) -> tuple[Tensor, Tensor]:
    """Both tensors in float32 at least, predictions as probabilities.

    Sums over 48³ voxels overflow in float16 and lose everything below 1/256 of the sum in
    bfloat16, so nothing is summed in half precision.

    Parameters
    ----------
    y_true, y_pred : (B, …) tensor
        Ground truth in [0, 1] and prediction, of the same shape.
    from_logits : bool
        `y_pred` holds logits; otherwise probabilities.

    Returns
    -------
    tuple of (B, …) tensor
        Ground truth g and probabilities p.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    expected, received = tuple(y_true.shape), tuple(y_pred.shape)
    # Inside a compiled step sizes may be unknown (None); only known ones can disagree.
    if len(expected) != len(received) or any(
        a != b for a, b in zip(expected, received, strict=True) if a is not None and b is not None
    ):
        raise ValueError(
            f"expected y_true and y_pred of one shape, received {expected} and {received}"
        )
    dtype = "float64" if standardize_dtype(y_pred.dtype) == "float64" else "float32"
    p = ops.cast(y_pred, dtype)
    return ops.cast(y_true, dtype), ops.sigmoid(p) if from_logits else p


def pooled_sum(x: Tensor, pooling: Pooling) -> Tensor:
    """Sum over a pooled set of voxels: the whole batch, shape (), or each sample, shape (B,)."""
    if pooling == "batch":
        return ops.sum(x)
    if pooling == "sample":
        return ops.sum(x, axis=tuple(range(1, len(x.shape))))
    raise ValueError(f"expected pooling 'batch' or 'sample', received {pooling!r}")


def per_sample(value: Tensor, y_pred: Tensor) -> Tensor:
    """Broadcast the value of a pooled set to (B,), so that Keras' reductions leave it unchanged."""
    return ops.broadcast_to(value, (ops.shape(y_pred)[0],))


class Pooled(keras.losses.Loss):  # type: ignore[misc]
    """A function ``(y_true, y_pred, **arguments)`` as a Keras loss.

    A subclass names its `function`; its arguments are those that the function takes by keyword.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package="sct_lesion_losses")(cls)

    def __init__(
        self,
        *,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
        **arguments: Any,
    ) -> None:
        function = type(self).function
        super().__init__(name=name or function.__name__, reduction=reduction, dtype=dtype)
        parameters = inspect.signature(function).parameters.values()
        known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        if unknown := sorted(arguments.keys() - known.keys()):
            raise TypeError(
                f"expected arguments out of {', '.join(known)}, received {', '.join(unknown)}"
            )
        self.arguments: dict[str, Any] = known | arguments

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Loss of each sample, (B,)."""
        return type(self).function(y_true, y_pred, **self.arguments)

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to build the same loss again."""
        return {**super().get_config(), **self.arguments}
