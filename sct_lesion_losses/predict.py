"""Bundle and scan to p-map: overlapping patches through the network, averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import engine as engines
from sct_lesion_losses import prepare
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.space.centerline import Centerline
from sct_lesion_losses.space.grid import Grid
from sct_lesion_losses.space.patches import extract, patch_starts, stitch


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
    (Hussein et al. 2023, section 2.3); the average is interpolated linearly to the image's grid.

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
    prepared = prepare.scan(image, grid, centerline, bundle.preparation)
    network = network or engines.load(bundle.network)
    length = prepared.values.shape[2]
    starts = patch_starts(length)
    patches = prepared.normalise(extract(prepared.values, starts))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, len(starts))

    probabilities = network.run(patches, progress=advance)
    return prepared.to_native(stitch(probabilities, starts, length))
