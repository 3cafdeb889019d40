"""Cross-entropy, by itself and in a sum with a loss of overlap."""

from __future__ import annotations

import keras
from keras import ops

from sct_lesion_losses.losses.base import (
    Pooled,
    Pooling,
    Tensor,
    per_sample,
    pooled_sum,
    probabilities,
)
from sct_lesion_losses.losses.overlap import dice, tversky

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


def combo(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    cross_entropy_share: float = 0.5,
    fn_weight: float = 0.5,
    smooth: float = 1.0,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Combo loss, a·CE − (1 − a)·DSC; it can be negative.

    CE is the mean of −[b·g ln p + (1 − b)(1 − g) ln(1 − p)], DSC the Dice coefficient. The code
    published with the paper has the sign of the background term wrong and rewards false lesion;
    this is the paper's formula.

    Parameters
    ----------
    y_true, y_pred, pooling, from_logits
        See `tversky`.
    cross_entropy_share : float
        a, in [0, 1].
    fn_weight : float
        b, in [0, 1]: the weight of missed lesion in the cross-entropy.
    smooth : float
        s of the Dice coefficient.

    Returns
    -------
    (B,) tensor

    References
    ----------
    Taghanaki et al. 2019, "Combo loss: Handling input and output imbalance in multi-organ
    segmentation", equation 3.
    """
    a = cross_entropy_share
    entropy = weighted(y_true, y_pred, fn_weight, pooling=pooling, from_logits=from_logits)
    loss = dice(y_true, y_pred, smooth=smooth, pooling=pooling, from_logits=from_logits)
    return a * entropy - (1 - a) * (1 - loss)


class Combo(Pooled):
    """`combo` as a Keras loss; see there for its arguments."""

    function = staticmethod(combo)


def dice_bce(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    smooth: float = 1.0,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Sum of the Dice loss and the binary cross-entropy, as nnU-Net trains.

    Parameters
    ----------
    y_true, y_pred, smooth, pooling, from_logits
        See `dice`.

    Returns
    -------
    (B,) tensor

    References
    ----------
    Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical
    image segmentation".
    """
    region = dice(y_true, y_pred, smooth=smooth, pooling=pooling, from_logits=from_logits)
    return region + bce(y_true, y_pred, pooling=pooling, from_logits=from_logits)


class DiceBce(Pooled):
    """`dice_bce` as a Keras loss; see there for its arguments."""

    function = staticmethod(dice_bce)


def hytver(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    cross_entropy_share: float = 0.5,
    cross_entropy_fn_weight: float = 0.5,
    fn_weight: float = 0.7,
    smooth: float = 1.0,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """HyTver loss, c·CE + (1 − c)·Tversky loss, with the cross-entropy of `combo`.

    Parameters
    ----------
    y_true, y_pred, smooth, pooling, from_logits
        See `tversky`.
    cross_entropy_share : float
        c, in [0, 1].
    cross_entropy_fn_weight : float
        Weight of missed lesion in the cross-entropy; that of false lesion is the rest to 1.
    fn_weight : float
        Weight of missed lesion in the Tversky loss; that of false lesion is the rest to 1.

    Returns
    -------
    (B,) tensor

    References
    ----------
    Perera et al. 2025, "HyTver: A novel loss function for longitudinal multiple sclerosis lesion
    segmentation", arXiv 2508.17639.
    """
    c = cross_entropy_share
    entropy = weighted(
        y_true, y_pred, cross_entropy_fn_weight, pooling=pooling, from_logits=from_logits
    )
    region = tversky(
        y_true,
        y_pred,
        fn_weight=fn_weight,
        fp_weight=1 - fn_weight,
        smooth=smooth,
        pooling=pooling,
        from_logits=from_logits,
    )
    return c * entropy + (1 - c) * region


class Hytver(Pooled):
    """`hytver` as a Keras loss; see there for its arguments."""

    function = staticmethod(hytver)
