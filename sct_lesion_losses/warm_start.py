"""What a training starts from, where it does not start from random weights."""

from __future__ import annotations

from typing import Any

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import StudyPreparation
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.intensity import Landmarks
from sct_lesion_losses.model.architecture import Architecture
from sct_lesion_losses.sct import start as sct_start

CONTRAST = "t2"  # SCT's model for T2-weighted scans of any orientation


def load(name: str | None, contrast: str | None = None) -> Bundle | None:
    """Load what `-init` names.

    Parameters
    ----------
    name : str or None
        Name or folder of a bundle, or ``sct`` for SCT's lesion model; None for random weights.
    contrast : {"t2", "t2_ax", "t2s"}, optional
        Which of SCT's models; `CONTRAST` by default.

    Returns
    -------
    Bundle or None
        None where the training starts from random weights.

    Raises
    ------
    UsageError
        A contrast is given without SCT's model.
    BundleError
        The bundle is missing, damaged or refused.
    SctError
        SCT or its model is missing, or its model has another graph than is known.
    """
    if name == SCT_NAME:
        return sct_start.load(contrast or CONTRAST)
    if contrast is not None:
        raise UsageError(
            f"-c {contrast} chooses among SCT's lesion models: it goes with -init {SCT_NAME}"
        )
    return None if name is None else store.load(name)


def network(init: Bundle) -> Architecture:
    """Architecture of a training that starts from a bundle.

    Raises
    ------
    UsageError
        The bundle has no weights to train on, or they are of no network of this package.
    """
    if not init.weights:
        raise UsageError(f"bundle {init.name}: it has no weights to train on; start from another")
    described = init.info.network
    try:
        return Architecture(described.filters, described.architecture)
    except ValueError as error:
        raise UsageError(
            f"bundle {init.name}: {error}; start from a bundle that sct_train_lesion wrote"
        ) from error


def require_same(init: Bundle, wanted: Architecture) -> None:
    """Raise a UsageError where a bundle's weights do not fit the network that is to be trained."""
    if (found := network(init)) != wanted:
        raise UsageError(
            f"bundle {init.name}: its network is {found}, expected {wanted} for this recipe; "
            "leave -filters out, or start from a bundle of the other network"
        )


def entries(init: Bundle | None) -> dict[str, Any]:
    """Entries of a recipe that follow from its start."""
    if init is None:
        return {}
    known = network(init)
    return {"filters": known.filters, "architecture": known.kind}


def landmarks(init: Bundle | None) -> Landmarks | None:
    """Intensity landmarks that the weights know; None where the training has to fit its own."""
    if init is None or not isinstance(init.preparation, StudyPreparation):
        return None
    return Landmarks(init.preparation.percentiles, init.preparation.landmarks)


def ancestor(init: Bundle) -> str:
    """Name the bundle, or SCT's model, and the hash that tells its weights from all others."""
    if isinstance(init.preparation, StudyPreparation):
        return f"{init.name} {init.info.version}, weights {init.weights_sha256}"
    contrast = init.preparation.contrast
    return f"SCT's lesion model {contrast} ({contrast}_lesion.onnx), sha256 {init.sha256}"


def inherited_limits(init: Bundle | None) -> tuple[str, ...]:
    """Limits that hold for all that descends from a bundle: whose its weights are."""
    limits = () if init is None else init.info.limits
    return tuple(limit for limit in limits if limit == sct_start.TERMS)
