"""SCT's own lesion model: as a bundle with a true p-map, and exactly as SCT runs it.

References
----------
Gros et al., "Automatic segmentation of the spinal cord and intramedullary multiple sclerosis
lesions with convolutional neural networks", NeuroImage 184, 2019.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses import engine, intensity
from sct_lesion_losses.bundle.schema import (
    Architecture,
    BundleInfo,
    Loss,
    Provenance,
    SctPreparation,
)
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.sct import install
from sct_lesion_losses.sct.crop import Crop, centerline
from sct_lesion_losses.space.centerline import Centerline
from sct_lesion_losses.space.grid import Grid

__all__ = [
    "CONTRASTS",
    "PREPARATIONS",
    "SctPrepared",
    "block_pmap",
    "centerline",
    "load",
    "prepare",
    "sct_rule",
]

logger = logging.getLogger(__name__)

Contrast = Literal["t2", "t2_ax", "t2s"]
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)
PATCH_VOX = 48
RULE_THRESHOLD = 0.1  # of SCT's code, used twice
RULE_ENGINE = "onnxruntime"  # which SCT computes in

# Landmarks of the percentiles 10, 20, ..., 90; those of 1 and 99 are 0 and 2611.
# fmt: off
_BETWEEN = {
    "t2": (136.832187, 312.158435, 448.968030, 568.657779, 696.671586, 859.221138, 1074.463414,
           1373.289174, 1811.522669),
    "t2_ax": (112.195357, 291.611185, 446.727066, 581.103970, 702.979079, 833.318257, 1011.856313,
              1268.801813, 1687.137075),
    "t2s": (123.246969, 226.422561, 338.361023, 532.341924, 788.693675, 1096.975553, 1407.979466,
            1716.524530, 2079.788451),
}
# fmt: on
_MEAN_STD = {"t2": (871.309, 557.916), "t2_ax": (835.592, 528.386), "t2s": (1011.31, 678.985)}
PREPARATIONS: dict[str, SctPreparation] = {
    contrast: SctPreparation(
        contrast=contrast,
        percentiles=intensity.PERCENTILES,
        landmarks=(0.0, *_BETWEEN[contrast], 2611.0),
        mean=_MEAN_STD[contrast][0],
        std=_MEAN_STD[contrast][1],
    )
    for contrast in CONTRASTS
}


@dataclass(frozen=True, eq=False)
class SctPrepared:
    """A scan as SCT's lesion model takes it, and the way back.

    Attributes
    ----------
    values : (48, 48, Z) float32
        The crop at 0.5 mm, intensities standardised, before mean and std; padded with zeros along z
        to one patch where it is shorter.
    crop : Crop
    preparation : SctPreparation
    undo : callable
        Brings an RPI array back to the image's own axes.
    """

    values: NDArray[np.float32]
    crop: Crop
    preparation: SctPreparation
    undo: Callable[[NDArray[Any]], NDArray[Any]]

    def normalise(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Subtract the mean of the contrast and divide by its std, any shape."""
        scaled = patches - np.float32(self.preparation.mean)
        scaled /= np.float32(self.preparation.std)
        return scaled

    def to_native(self, pmap: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a map of the crop, (48, 48, Z), to the image's own grid and axes.

        Returns
        -------
        (X, Y, Z) float32
            Zero outside the windows.
        """
        inside = pmap[:, :, : self.crop.fine.shape[2]]
        return np.ascontiguousarray(self.undo(self.crop.uncut(inside)))


def load(contrast: str) -> Bundle:
    """Load SCT's lesion model for a contrast as a bundle named "sct".

    Parameters
    ----------
    contrast : {"t2", "t2_ax", "t2s"}

    Raises
    ------
    UsageError
        There is no such contrast.
    SctError
        SCT or its model is missing.
    """
    preparation = _preparation(contrast)
    installation = install.require()
    network = installation.read("deepseg_lesion_models", f"{contrast}_lesion.onnx")
    version = installation.version or "of unknown version"
    info = BundleInfo(
        name="sct",
        loss=Loss(name="dice"),
        preparation=preparation,
        network=Architecture(architecture="unet3d"),
        provenance=Provenance(
            data=f"SCT {version}: deepseg_lesion_models/{contrast}_lesion.onnx. Trained by SCT's "
            "authors on clinical scans of many sites (Gros et al. 2019)."
        ),
        intended_use="Baseline: the lesion model that sct_deepseg_lesion runs, for comparison.",
        limits=(
            "The threshold of 0.5 is not tuned. sct_deepseg_lesion cuts at 0.1, and again at 0.1 "
            "after interpolation; -sct_rule 1 does the same.",
            "SCT predicts blocks without overlap; here overlapping patches are averaged.",
        ),
    )
    return Bundle(info, network)


def prepare(
    image: NDArray[Any], grid: Grid, centerline: Centerline, preparation: SctPreparation
) -> SctPrepared:
    """Prepare a scan as `sct_deepseg_lesion` does.

    Parameters
    ----------
    image : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    centerline : Centerline
        On the image's slices; from a file, SCT's windows need the line of `centerline`.
    preparation : SctPreparation
    """
    rpi, reorientation = grid.to_rpi()
    crop = Crop.around(centerline, rpi)
    landmarks = intensity.Landmarks(preparation.percentiles, preparation.landmarks)
    cut = crop.cut(reorientation.apply(image))
    if unlike := intensity.contrast_warning(cut, landmarks):
        logger.warning("%s", unlike)
    standard = intensity.standardise_sct(cut, landmarks)
    values = crop.refine(standard)
    missing = max(PATCH_VOX - values.shape[2], 0)
    padded = np.pad(values, ((0, 0), (0, 0), (0, missing)))
    return SctPrepared(padded, crop, preparation, reorientation.undo)


def block_pmap(
    prepared: SctPrepared,
    network: engine.Network,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Predict a crop as SCT does: blocks of 48 slices, no overlap, zeros after the last slice.

    Returns
    -------
    (48, 48, Z) float32
        Zero in blocks that are zero throughout.
    """
    length = prepared.values.shape[2]
    count = -(-length // PATCH_VOX)
    padded = np.pad(prepared.values, ((0, 0), (0, 0), (0, count * PATCH_VOX - length)))
    blocks = np.stack(np.split(padded, count, axis=2))
    used = blocks.any(axis=(1, 2, 3))
    predicted = np.zeros_like(blocks)
    predicted[used] = network.run(prepared.normalise(blocks[used]), progress)
    return np.concatenate(list(predicted), axis=2)[:, :, :length]


def sct_rule(
    image: NDArray[Any],
    grid: Grid,
    centerline: Centerline,
    contrast: str,
    network: engine.Network | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.bool_]:
    """Segment a scan exactly as `sct_deepseg_lesion` does.

    The p-map of the blocks is cut at `> 0.1`, the mask interpolated to the scan's grid, and cut
    again at `>= 0.1`, which makes it larger.

    Parameters
    ----------
    image : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    centerline : Centerline
        On the image's slices; from a file, SCT's windows need the line of `centerline`.
    contrast : {"t2", "t2_ax", "t2s"}
    network : Network, optional
        SCT's for the contrast; by default loaded in ONNX Runtime, which SCT uses.
    progress : callable, optional
        Called after each block with 1.

    Returns
    -------
    (X, Y, Z) bool
    """
    prepared = prepare(image, grid, centerline, _preparation(contrast))
    if network is None:
        network = engine.load(load(contrast).network, RULE_ENGINE)
    first = block_pmap(prepared, network, progress) > RULE_THRESHOLD
    return prepared.to_native(first.astype(np.float32)) >= np.float32(RULE_THRESHOLD)


def _preparation(contrast: str) -> SctPreparation:
    if contrast not in PREPARATIONS:
        raise UsageError(
            f"-c {contrast}: SCT's lesion model knows {', '.join(CONTRASTS)}; choose one of them"
        )
    return PREPARATIONS[contrast]
