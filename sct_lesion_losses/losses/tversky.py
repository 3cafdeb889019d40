"""The Tversky loss: false negatives and false positives weighted apart."""

from __future__ import annotations

from typing import Any

import keras

from sct_lesion_losses.losses.counts import Pooling, Tensor, counts, per_sample, probabilities


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


@keras.saving.register_keras_serializable(package="sct_lesion_losses")
class Tversky(keras.losses.Loss):  # type: ignore[misc]
    """`tversky` as a Keras loss; see there for the numbers."""

    def __init__(
        self,
        fn_weight: float = 0.7,
        fp_weight: float = 0.3,
        smooth: float = 1.0,
        pooling: Pooling = "batch",
        from_logits: bool = False,
        name: str = "tversky",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.numbers: dict[str, Any] = {
            "fn_weight": fn_weight,
            "fp_weight": fp_weight,
            "smooth": smooth,
            "pooling": pooling,
            "from_logits": from_logits,
        }

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Loss of each sample, (B,)."""
        return tversky(y_true, y_pred, **self.numbers)

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to build the same loss again."""
        return {**super().get_config(), **self.numbers}
