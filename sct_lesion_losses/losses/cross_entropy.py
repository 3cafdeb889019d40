"""Losses voxel by voxel: cross-entropy, plain and weighted by role."""

from __future__ import annotations

import keras
from keras import ops

from sct_lesion_losses.losses.base import Pooling, Tensor, per_sample, pooled_sum, probabilities

EPSILON = 1e-7  # what Keras clips probabilities to before their logarithm


def bce(
    y_true: Tensor, y_pred: Tensor, *, pooling: Pooling = "batch", from_logits: bool = False
) -> Tensor:
    """Binary cross-entropy, the mean of −[g ln p + (1 − g) ln(1 − p)].

    Probabilities are clipped to [1e-7, 1 − 1e-7], as `keras.losses.BinaryCrossentropy` does, which
    is the class of this name; logits are not.

    Parameters
    ----------
    y_true, y_pred, pooling, from_logits
        See `tversky`.

    Returns
    -------
    (B,) tensor
    """
    return 2 * weighted(y_true, y_pred, 0.5, pooling=pooling, from_logits=from_logits)


BinaryCrossentropy = keras.losses.BinaryCrossentropy


def weighted(
    y_true: Tensor, y_pred: Tensor, fn_weight: float, *, pooling: Pooling, from_logits: bool
) -> Tensor:
    """Mean of −[w·g ln p + (1 − w)·(1 − g) ln(1 − p)] of each pooled set, (B,).

    Parameters
    ----------
    y_true, y_pred, pooling, from_logits
        See `tversky`.
    fn_weight : float
        w, the weight of missed lesion; that of false lesion is 1 − w.
    """
    g, p = probabilities(y_true, y_pred, from_logits=False)
    if from_logits:
        missed, false = ops.softplus(-p), ops.softplus(p)
    else:
        p = ops.clip(p, EPSILON, 1 - EPSILON)
        missed, false = -ops.log(p), -ops.log(1 - p)
    total = pooled_sum(fn_weight * g * missed + (1 - fn_weight) * (1 - g) * false, pooling)
    return per_sample(total / pooled_sum(ops.ones_like(g), pooling), p)
