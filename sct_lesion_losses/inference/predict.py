"""Bundle and scan to p-map: overlapping patches through the network, averaged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.patches import extract, patch_starts, stitch
from sct_lesion_losses.inference import engine as engines
from sct_lesion_losses.preprocessing import scan
from sct_lesion_losses.sct import lesion as sct_lesion
from sct_lesion_losses.thresholds.lesion_filter import Filter


@dataclass(frozen=True)
class InferenceSettings:
    """Settings by which a scan becomes a p-map; every command passes it on whole.

    Attributes
    ----------
    centerline : str
        A method of `centerline.find`, or ``cohort``: the cohort's own line where it has one.
    contrast : {"t2", "t2_ax", "t2s"}
        Which of SCT's models, for the bundle ``sct`` and for SCT's centerline detection.
    brain : bool
        Whether the scan shows the brain; used by the centerline method ``cnn``.
    engine, precision : str
        Inference engine and the precision it computes in.
    """

    centerline: str = "auto"
    contrast: str = "t2"
    brain: bool = True
    engine: str = "auto"
    precision: str = "float32"

    @classmethod
    def taken_from(cls, values: dict[str, Any]) -> InferenceSettings:
        """Make the settings of those of the values that are theirs, and take these out."""
        names = [entry.name for entry in fields(cls) if entry.name in values]
        return cls(**{name: values.pop(name) for name in names})


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


def filter_of(bundle: Bundle) -> Filter | None:
    """Filter of the predicted lesions that a bundle is used with; None where it holds none."""
    point = bundle.info.operating_point.lesions
    return None if point is None else Filter(point.peak, point.volume_mm3)


def pmap(
    bundle: Bundle,
    image: npt.NDArray[Any],
    grid: Grid,
    centerline: Centerline,
    *,
    network: engines.Network | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Lesion probability at every voxel of a scan.

    Patches of 48 voxels with 75 % overlap along the cord go through the network and are averaged
    (Hussein et al. 2023, section 2.3), each mirrored and moved otherwise where the bundle asks for
    test-time augmentation; the average is interpolated linearly to the image's grid.

    Parameters
    ----------
    bundle : Bundle
    image : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    centerline : Centerline
        On the image's RPI grid.
    network : Network, optional
        The bundle's network in an engine; loaded with the default engine if left out.
    progress : callable, optional
        Called with the number of patches done and the number of all.

    Returns
    -------
    (X, Y, Z) float32, in [0, 1]
        On the grid of the stored image; zero away from the cord.
    """
    prepared = scan.prepare(image, grid, centerline, bundle.preparation)
    network = network or engines.load(bundle.network)
    length = prepared.values.shape[2]
    starts = patch_starts(length)
    patches = prepared.normalise(extract(prepared.values, starts, ways=prepared.ways))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, len(starts))

    probabilities = network.run(patches, progress=advance)
    return prepared.to_native(stitch(probabilities, starts, length, prepared.ways))
