"""Losses of overlap: the Dice and the Tversky family."""

from __future__ import annotations

import math

from keras import ops

from sct_lesion_losses.losses.base import (
    Pooled,
    Pooling,
    Tensor,
    per_sample,
    pooled_sum,
    probabilities,
)

_EMPTY = 1e-12  # a class with less than this many voxels is absent
_LEAST = 1e-7  # of what is raised to an exponent below 1


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
    overlap = 2 * pooled_sum(g * p, pooling)
    sizes = pooled_sum(g * g + p * p if squared else g + p, pooling)
    return per_sample(1 - (overlap + smooth) / (sizes + smooth), p)


class Dice(Pooled):
    """`dice` as a Keras loss; see there for its arguments."""

    function = staticmethod(dice)


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


class LogCoshDice(Pooled):
    """`log_cosh_dice` as a Keras loss; see there for its arguments."""

    function = staticmethod(log_cosh_dice)


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


class GeneralizedDice(Pooled):
    """`generalized_dice` as a Keras loss; see there for its arguments."""

    function = staticmethod(generalized_dice)


def counts(g: Tensor, p: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor, Tensor]:
    """TP = Σ g·p, FN = Σ g·(1−p) and FP = Σ (1−g)·p of each pooled set."""
    return (
        pooled_sum(g * p, pooling),
        pooled_sum(g * (1 - p), pooling),
        pooled_sum((1 - g) * p, pooling),
    )


def tversky(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    fn_weight: float = 0.7,
    fp_weight: float = 0.3,
    smooth: float = 1.0,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Tversky loss, 1 − (TP + s) / (TP + w_fn·FN + w_fp·FP + s).

    With both weights 0.5 this is the Dice loss with twice the smoothing. Predictions are not
    clipped: clipping kills the gradient of a saturated voxel.

    Parameters
    ----------
    y_true : (B, …) tensor, in [0, 1]
        Ground truth g; soft labels are allowed.
    y_pred : (B, …) tensor
        Probabilities p, or logits.
    fn_weight, fp_weight : float
        Weights w_fn and w_fp of missed lesion and of false lesion. The study weights sensitivity
        over precision: 0.7 and 0.3.
    smooth : float
        s, added to numerator and denominator, keeps the loss of an empty set finite.
    pooling : {"batch", "sample"}
        One sum over the batch, or one per sample. A `sample_weight` cannot reweight samples
        inside a pooled batch, because all of them share one value.
    from_logits : bool
        Apply the sigmoid to `y_pred` first.

    Returns
    -------
    (B,) tensor
        The loss of each sample; of a pooled batch the same value in each place.

    References
    ----------
    Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional
    deep networks", equation 2.
    """
    g, p = probabilities(y_true, y_pred, from_logits=from_logits)
    tp, fn, fp = counts(g, p, pooling)
    index = (tp + smooth) / (tp + fn_weight * fn + fp_weight * fp + smooth)
    return per_sample(1 - index, p)


class Tversky(Pooled):
    """`tversky` as a Keras loss; see there for its arguments."""

    function = staticmethod(tversky)


def focal_tversky(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    exponent: float = 0.75,
    fn_weight: float = 0.7,
    fp_weight: float = 0.3,
    smooth: float = 1.0,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Focal Tversky loss, L^e of the Tversky loss L.

    L is raised to 1e-7 at least: the slope of a root is infinite at 0.

    Parameters
    ----------
    y_true, y_pred, fn_weight, fp_weight, smooth, pooling, from_logits
        See `tversky`.
    exponent : float
        e; the study's gamma of 0.75, which the paper writes as 1/γ with γ = 4/3.

    Returns
    -------
    (B,) tensor

    References
    ----------
    Abraham & Khan 2018, "A novel focal Tversky loss function with improved attention U-Net for
    lesion segmentation", equation 5.
    """
    loss = tversky(
        y_true,
        y_pred,
        fn_weight=fn_weight,
        fp_weight=fp_weight,
        smooth=smooth,
        pooling=pooling,
        from_logits=from_logits,
    )
    return ops.maximum(loss, _LEAST) ** exponent


class FocalTversky(Pooled):
    """`focal_tversky` as a Keras loss; see there for its arguments."""

    function = staticmethod(focal_tversky)


def asymmetric_focal_tversky(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    fn_weight: float = 0.7,
    gamma: float = 0.75,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Asymmetric focal Tversky loss, [(1 − TI_background) + (1 − TI_lesion)^(1 − γ)] / 2.

    Only the rare class, lesion, is focused on. In each class what is missed of it weighs
    `fn_weight`, what is falsely given to it the rest to 1.

    Parameters
    ----------
    y_true, y_pred, pooling, from_logits
        See `tversky`.
    fn_weight : float
        The paper's δ.
    gamma : float
        In [0, 1).

    Returns
    -------
    (B,) tensor

    References
    ----------
    Yeung et al. 2022, "Unified focal loss: Generalising Dice and cross entropy-based losses to
    handle class imbalanced medical image segmentation", section 3.
    """
    g, p = probabilities(y_true, y_pred, from_logits=from_logits)

    def loss(truth: Tensor, found: Tensor) -> Tensor:
        tp, fn, fp = counts(truth, found, pooling)
        index = (tp + _LEAST) / (tp + fn_weight * fn + (1 - fn_weight) * fp + _LEAST)
        return ops.maximum(1 - index, _LEAST)

    return per_sample((loss(1 - g, 1 - p) + loss(g, p) ** (1 - gamma)) / 2, p)


class AsymmetricFocalTversky(Pooled):
    """`asymmetric_focal_tversky` as a Keras loss; see there for its arguments."""

    function = staticmethod(asymmetric_focal_tversky)
