"""Bundles of a study that cannot be used any more, because a file of theirs is damaged or gone."""

from __future__ import annotations

import logging
from pathlib import Path

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.check import MAX_BYTES
from sct_lesion_losses.errors import BundleError

logger = logging.getLogger(__name__)


def of(folder: Path) -> str | None:
    """Say why the bundle in a folder cannot be loaded, None if it can."""
    try:
        store.load(folder)
    except BundleError as error:
        return str(error)
    return None


def clear(folder: Path) -> None:
    """Remove what is left of a damaged bundle; one that loads, or files of others, are kept.

    Raises
    ------
    OSError
        A file cannot be removed.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    left = list(folder.iterdir())
    if any(path.name not in MAX_BYTES for path in left):
        return
    why = of(folder)
    if why is None:
        return
    logger.warning("what is left of a damaged bundle is removed: %s", why)
    for path in left:
        path.unlink()
    folder.rmdir()
