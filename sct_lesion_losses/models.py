"""Models by name, SCT's own among them, each with its network in an engine."""

from __future__ import annotations

import functools

from sct_lesion_losses import engine as engines
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.sct import lesion as sct_lesion

_KEPT = 64  # more than anybody compares at once


def load(name: str, contrast: str) -> Bundle:
    """Load a bundle by its name or folder, or ``sct``, SCT's lesion model for a contrast.

    Raises
    ------
    BundleError
        There is no such bundle, or it is damaged or refused.
    SctError
        SCT or its model is missing.
    """
    return sct_lesion.load(contrast) if name == store.SCT_NAME else store.load(name)


@functools.lru_cache(maxsize=_KEPT)
def opened(
    name: str, contrast: str, engine: str, precision: str, sha256: str | None = None
) -> tuple[Bundle, engines.Network]:
    """Bundle and its network in an engine, kept for the next scan of a batch.

    Parameters
    ----------
    name : str
        Name or folder of a bundle, or ``sct``.
    contrast : {"t2", "t2_ax", "t2s"}
        Which of SCT's models.
    engine, precision : str
        See `engine.load`.
    sha256 : str, optional
        `Bundle.pmap_sha256` of the bundle that is meant; another one of this name is refused.

    Raises
    ------
    BundleError
        As by `load`, or the bundle is another one.
    """
    bundle = load(name, contrast)
    if sha256 not in (None, bundle.pmap_sha256):
        raise BundleError(f"{name}: the model was replaced while it was in use; start again")
    return bundle, engines.load(bundle.network, engine, precision)
