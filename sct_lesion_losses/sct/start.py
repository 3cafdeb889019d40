"""SCT's lesion model as a start of a training: its weights in a network that can be trained.

Only the weights are taken. A training prepares scans as this package does, with landmarks of its
own cohort and each patch to zero mean and unit deviation, which is not what SCT's weights were
trained with: the first epochs adapt them.
"""

from __future__ import annotations

from dataclasses import replace

from sct_lesion_losses.bundle.schema import Architecture
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import BundleError, SctError
from sct_lesion_losses.model import from_onnx
from sct_lesion_losses.sct import lesion

TERMS = (
    "its weights descend from those of the Spinal Cord Toolbox's lesion model, which are not this "
    "package's to license or to ship: look up the toolbox's terms before you pass the bundle on"
)


def load(contrast: str) -> Bundle:
    """Load SCT's lesion model for a contrast as a bundle with weights to train on.

    Parameters
    ----------
    contrast : {"t2", "t2_ax", "t2s"}

    Returns
    -------
    Bundle
        As `lesion.load` has it, with weights, their architecture, and SCT's terms as its limits.

    Raises
    ------
    UsageError
        There is no such contrast.
    SctError
        SCT or its model is missing, or the model is damaged or of another graph.
    """
    model = lesion.load(contrast)
    try:
        found, weights = from_onnx.read(model.network)
    except BundleError as error:
        raise SctError(
            f"SCT's {contrast}_lesion.onnx is no start for a training: {error}; get it anew with "
            "sct_download_data -d deepseg_lesion_models, take another contrast by -c, or leave "
            "-init sct out"
        ) from error
    network = Architecture(
        architecture=found.kind, filters=found.filters, levels=len(found.filters)
    )
    info = model.info.model_copy(update={"network": network, "limits": (TERMS,)})
    return replace(model, info=info, weights=weights)
