"""Losses of overlap that weight missed and false lesion alike: Dice and what is made of it."""

from __future__ import annotations

import math

import keras
from keras import ops

from sct_lesion_losses.losses.counts import (
    Pooling,
    Tensor,
    per_sample,
    pooled_sum,
    probabilities,
)
from sct_lesion_losses.losses.pooled import Pooled

_EMPTY = 1e-12  # a class with less than this many voxels is absent


def dice(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    smooth: float = 1.0,
    squared: bool = False,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Dice loss, 1 − (2·TP + s) / (Σ p^k + Σ g^k + s).

    Parameters
    ----------
    y_true : (B, …) tensor, in [0, 1]
        Ground truth g; soft labels are allowed.
    y_pred : (B, …) tensor
        Probabilities p, or logits.
    smooth : float
        s, added to numerator and denominator, keeps the loss of an empty set finite.
    squared : bool
        k = 2 as in V-Net, else k = 1.
    pooling, from_logits
        See `tversky`.

    Returns
    -------
    (B,) tensor
        The loss of each sample; of a pooled batch the same value in each place.

    References
    ----------
    Milletari et al. 2016, "V-Net: Fully convolutional neural networks for volumetric medical image
    segmentation", section 3.
    """
    g, p = probabilities(y_true, y_pred, from_logits=from_logits)
    return per_sample(1 - similarity(g, p, pooling, smooth, squared), p)


def similarity(
    g: Tensor, p: Tensor, pooling: Pooling, smooth: float = 1.0, squared: bool = False
) -> Tensor:
    """Soft Dice coefficient of each pooled set, of probabilities in float32 at least."""
    overlap = 2 * pooled_sum(g * p, pooling)
    sizes = pooled_sum(g * g + p * p if squared else g + p, pooling)
    return (overlap + smooth) / (sizes + smooth)


def log_cosh_dice(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    smooth: float = 1.0,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Log-cosh Dice loss, ln cosh L of the Dice loss L, computed as L + softplus(−2L) − ln 2.

    Parameters
    ----------
    y_true, y_pred, smooth, pooling, from_logits
        See `dice`.

    Returns
    -------
    (B,) tensor

    References
    ----------
    Jadon 2020, "A survey of loss functions for semantic segmentation", section II.
    """
    loss = dice(y_true, y_pred, smooth=smooth, pooling=pooling, from_logits=from_logits)
    return loss + ops.softplus(-2 * loss) - math.log(2)


def generalized_dice(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Generalized Dice loss, 1 − 2 Σ_l w_l Σ r·p / Σ_l w_l Σ (r + p).

    l runs over lesion and background; w_l = 1 / (Σ r_l)², and the largest finite weight where a
    class is absent. The weights are divided by their maximum, which changes nothing but keeps
    them from vanishing.

    Parameters
    ----------
    y_true, y_pred, pooling, from_logits
        See `tversky`.

    Returns
    -------
    (B,) tensor

    References
    ----------
    Sudre et al. 2017, "Generalised Dice overlap as a deep learning loss function for highly
    unbalanced segmentations", section 2.
    """
    g, p = probabilities(y_true, y_pred, from_logits=from_logits)
    lesion, background = pooled_sum(g, pooling), pooled_sum(1 - g, pooling)
    present = ops.where(lesion < _EMPTY, background, lesion)
    smallest = ops.minimum(present, ops.where(background < _EMPTY, lesion, background))

    def weight(size: Tensor) -> Tensor:
        return ops.where(size < _EMPTY, 1.0, (smallest / ops.maximum(size, _EMPTY)) ** 2)

    wl, wb = weight(lesion), weight(background)
    # What both classes lack of their sizes is Σ g(1−p) + Σ (1−g)p: no difference of large sums.
    missed = pooled_sum(g * (1 - p) + (1 - g) * p, pooling)
    sizes = wl * pooled_sum(g + p, pooling) + wb * pooled_sum(2 - g - p, pooling)
    return per_sample((wl + wb) * missed / sizes, p)


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class Dice(Pooled):
    """`dice` as a Keras loss; see there for the numbers."""

    function = staticmethod(dice)


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class LogCoshDice(Pooled):
    """`log_cosh_dice` as a Keras loss; see there for the numbers."""

    function = staticmethod(log_cosh_dice)


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class GeneralizedDice(Pooled):
    """`generalized_dice` as a Keras loss; see there for the numbers."""

    function = staticmethod(generalized_dice)
