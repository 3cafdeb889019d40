"""Tversky losses: false negatives and false positives weighted apart."""

from __future__ import annotations

import keras
from keras import ops

from sct_lesion_losses.losses.counts import Pooling, Tensor, counts, per_sample, probabilities
from sct_lesion_losses.losses.pooled import Pooled

_LEAST = 1e-7  # of what is raised to an exponent below 1


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


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class Tversky(Pooled):
    """`tversky` as a Keras loss; see there for the numbers."""

    function = staticmethod(tversky)


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class FocalTversky(Pooled):
    """`focal_tversky` as a Keras loss; see there for the numbers."""

    function = staticmethod(focal_tversky)


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class AsymmetricFocalTversky(Pooled):
    """`asymmetric_focal_tversky` as a Keras loss; see there for the numbers."""

    function = staticmethod(asymmetric_focal_tversky)
