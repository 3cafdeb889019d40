"""A base loss lesion by lesion, so that a small one counts as much as a large one."""

from __future__ import annotations

from keras import ops

from sct_lesion_losses import losses
from sct_lesion_losses.losses.base import Pooled, Pooling, Tensor, per_sample, probabilities

BASES = tuple(name for name in losses.LOSSES if name != "blob")


def blob(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    base: str = "dice",
    whole_weight: float = 2.0,
    lesion_weight: float = 1.0,
    most_lesions: int = 12,
    pooling: Pooling = "batch",
    from_logits: bool = False,
) -> Tensor:
    """Blob loss, a·L(everything) + b·(mean over the lesions of L(that lesion alone)).

    For a lesion alone, the voxels of the others are taken out of ground truth and prediction.
    Lesions are 26-neighbour components of g >= 0.5, found anew in each batch.

    Parameters
    ----------
    y_true : (B, X, Y, Z, 1) tensor, in [0, 1]
        Ground truth g.
    y_pred : (B, X, Y, Z, 1) tensor
        Probabilities p, or logits.
    base : str
        Name of L, any other loss of this package, with the defaults of its arguments.
    whole_weight, lesion_weight : float
        a and b.
    most_lesions : int
        Lesions of one sample that are taken alone; further ones count in the whole only.
    pooling, from_logits
        See `tversky`; a lesion alone is always pooled in its own sample.

    Returns
    -------
    (B,) tensor
        The same value in each place, because the mean is over the lesions of the batch.

    References
    ----------
    Kofler et al. 2023, "blob loss: Instance imbalance aware loss functions for semantic
    segmentation", arXiv 2205.08209, section 2.
    """
    if base not in BASES:
        raise ValueError(f"expected a base out of {', '.join(BASES)}, received {base!r}")
    loss = getattr(losses, base)
    g, p = probabilities(y_true, y_pred, from_logits=from_logits)
    labels = components(ops.stop_gradient(g) >= 0.5)
    others = labels
    total = count = ops.zeros((), g.dtype)
    for _ in range(most_lesions):
        largest = ops.max(others, axis=(1, 2, 3, 4), keepdims=True)
        alone = ops.logical_and(labels == largest, largest > 0)
        kept = ops.cast(ops.logical_or(alone, labels == 0), g.dtype)
        there = ops.cast(ops.reshape(largest, (-1,)) > 0, g.dtype)
        total = total + ops.sum(there * loss(g * kept, p * kept, pooling="sample"))
        count = count + ops.sum(there)
        others = ops.where(alone, 0.0, others)
    whole = ops.mean(loss(g, p, pooling=pooling))
    lesions = total / ops.maximum(count, 1.0)
    return per_sample(whole_weight * whole + lesion_weight * lesions, p)


class Blob(Pooled):
    """`blob` as a Keras loss; see there for its arguments."""

    function = staticmethod(blob)


def components(mask: Tensor) -> Tensor:
    """Label the 26-neighbour components of a mask: one number above 0 in each, 0 outside.

    Every voxel starts with a number of its own; the highest of a neighbourhood spreads until
    nothing changes.

    Parameters
    ----------
    mask : (B, X, Y, Z, 1) bool tensor

    Returns
    -------
    (B, X, Y, Z, 1) float32 tensor
    """
    inside = ops.cast(mask, "float32")
    shape = ops.shape(mask)
    voxels = shape[1] * shape[2] * shape[3]
    # Every sample counts from 1: 48³ is far below 2²⁴, the last whole number of float32.
    start = ops.reshape(ops.arange(1, voxels + 1, dtype="float32"), (1, *shape[1:4], 1)) * inside

    def spread(now: Tensor, _changed: Tensor) -> tuple[Tensor, Tensor]:
        after = ops.max_pool(now, 3, strides=1, padding="same", data_format="channels_last")
        after = after * inside
        return after, ops.any(after != now)

    labels, _ = ops.while_loop(
        lambda _now, changed: changed, spread, (start, ops.convert_to_tensor(True))
    )
    return ops.stop_gradient(labels)
