"""SCT's own lesion model: as a bundle with a true p-map, and exactly as SCT runs it.

The threshold of its p-map for the contrast ``t2`` is the one of Hussein et al.; for ``t2_ax`` and
``t2s`` none was tuned.

References
----------
Hussein et al., "A study on loss functions and decision thresholds for the segmentation of multiple
sclerosis lesions on spinal cord MRI", ISBI 2023, Table 2.
Gros et al., "Automatic segmentation of the spinal cord and intramedullary multiple sclerosis
lesions with convolutional neural networks", NeuroImage 184, 2019.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sct_lesion_losses.bundle.schema import (
    Architecture,
    BundleInfo,
    Loss,
    OperatingPoint,
    Provenance,
    SctPreparation,
)
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.cord_crop import CordCrop
from sct_lesion_losses.geometry.grid import Grid, axis_mapping, resample
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.sct import CONTRASTS, install

WIDTH_VOX, PATCH_VOX = 48, 48
SPACING_MM = 0.5
RULE_THRESHOLD = 0.1  # of SCT's code, used twice
RULE_ENGINE = "onnxruntime"  # which SCT computes in

# Mean, std, and landmarks of the percentiles 10, 20, ..., 90; those of 1 and 99 are 0 and 2611.
# fmt: off
_NUMBERS = {
    "t2": (871.309, 557.916, (
        136.832187, 312.158435, 448.968030, 568.657779, 696.671586, 859.221138, 1074.463414,
        1373.289174, 1811.522669)),
    "t2_ax": (835.592, 528.386, (
        112.195357, 291.611185, 446.727066, 581.103970, 702.979079, 833.318257, 1011.856313,
        1268.801813, 1687.137075)),
    "t2s": (1011.31, 678.985, (
        123.246969, 226.422561, 338.361023, 532.341924, 788.693675, 1096.975553, 1407.979466,
        1716.524530, 2079.788451)),
}
# fmt: on
PREPARATIONS: dict[str, SctPreparation] = {
    contrast: SctPreparation(
        contrast=contrast,
        percentiles=intensity.PERCENTILES,
        landmarks=(0.0, *_NUMBERS[contrast][2], 2611.0),
        mean=_NUMBERS[contrast][0],
        std=_NUMBERS[contrast][1],
    )
    for contrast in CONTRASTS
}

_PUBLISHED = {
    "t2": OperatingPoint(
        kind="published",
        threshold=0.05,
        source="Hussein et al. 2023, Table 2: tuned on 14 scans of patients",
    )
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Crop:
    """Windows on the axial slices of a scan, and the way back.

    Attributes
    ----------
    native : Grid
        The scan's, in RPI.
    plane : Grid
        The same slices at 0.5 mm in plane.
    starts : (Z, 2) int
        First voxel of each window on `plane`; the window ends where `plane` does.
    covered : (Z,) bool
        Whether the centerline is known on a slice.
    """

    native: Grid
    plane: Grid
    starts: NDArray[np.intp]
    covered: NDArray[np.bool_]

    @classmethod
    def around(cls, centerline: Centerline, native: Grid) -> Crop:
        """Crop a scan around a centerline.

        Parameters
        ----------
        centerline : Centerline
            On the scan's slices, on any in-plane grid; on the crop's own it is taken as it is.
        native : Grid
            The scan's, in RPI.
        """
        plane = in_plane(as_header(native))
        line = centerline
        if not line.grid.matches(plane):
            line = line.on(in_plane(native))
            # Rounded, so that a centre on a voxel does not fall to the one before it.
            line = Centerline(line.grid, np.round(line.xy, 6))
        within = np.nan_to_num(line.filled().xy).astype(np.intp)  # in gaps, windows are bridged
        first = within - (WIDTH_VOX // 2 - 1)
        last = np.array(plane.shape[:2]) - WIDTH_VOX
        starts = np.maximum(np.minimum(first, last), 0)
        return cls(as_header(native), plane, starts, line.covered)

    @property
    def coarse(self) -> Grid:
        """Grid of the crop with the scan's slices; its place in the plane has no meaning."""
        return Grid((WIDTH_VOX, WIDTH_VOX, self.plane.shape[2]), self.plane.affine)

    @property
    def fine(self) -> Grid:
        """Grid of the crop with slices of 0.5 mm."""
        return self.coarse.resampled((None, None, SPACING_MM))

    def cut(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Values of a scan in the windows, (48, 48, Z); zero where there is no image or centerline.

        Parameters
        ----------
        array : (X, Y, Z)
            On `native`.
        """
        width, height = np.minimum(WIDTH_VOX, self.plane.shape[:2])
        known = np.flatnonzero(self.covered)
        span = slice(int(known[0]), int(known[-1]) + 1)
        result = np.zeros(self.coarse.shape, np.float32)
        windows = CordCrop(self.plane, span.start, self.starts[span], WIDTH_VOX)
        result[:, :, span] = windows.cut(array, self.native)
        result[width:], result[:, height:], result[:, :, ~self.covered] = 0, 0, 0
        return result

    def refine(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a crop from the scan's slices to slices of 0.5 mm, linearly."""
        return resample(values, self.coarse, self.fine)

    def uncut(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put a crop with slices of 0.5 mm back on the scan; zero outside the windows.

        Linear along z to the scan's slices, then linear in plane, as SCT has it.

        Returns
        -------
        (X, Y, Z) float32
            On `native`.
        """
        if values.shape != self.fine.shape:
            raise GeometryError(f"crop: expected {self.fine.shape}, received {values.shape}")
        slices = resample(values, self.fine, self.coarse)
        width, height = np.minimum(WIDTH_VOX, self.plane.shape[:2])
        known = np.flatnonzero(self.covered)
        # The windows' bounding box, with a voxel of zeros beside it where the image goes on.
        corners = np.column_stack([self.starts, np.arange(len(self.starts))])[known]
        low = np.maximum(corners.min(axis=0) - 1, 0)
        high = np.minimum(corners.max(axis=0) + (width, height, 1) + 1, self.plane.shape)
        region = np.zeros(high - low, np.float32)
        for x, y, z in corners - low:
            window = slices[:width, :height, z + low[2]]
            region[x : x + width, y : y + height, z] = window
        corner = np.eye(4)
        corner[:3, 3] = low
        region_grid = Grid(region.shape, self.plane.affine @ corner)
        # The native voxels in the box; beyond the end of the image its last voxel holds.
        scale, offset = axis_mapping(self.plane, self.native)
        first = np.where(low > 0, np.ceil((low - offset) / scale - 1e-6), 0)
        last = np.floor((high - 1 - offset) / scale + 1e-6)
        end = np.where(high < self.plane.shape, last + 1, self.native.shape)
        first, end = np.maximum(first, 0), np.minimum(end, self.native.shape)
        x0, y0, z0 = map(slice, first.astype(int), end.astype(int))
        result = np.zeros(self.native.shape, np.float32)
        result[x0, y0, z0] = resample(region, region_grid, self.native, (x0, y0, z0))
        return result


def as_header(grid: Grid) -> Grid:
    """Grid with the affine as a NIfTI header holds it, in float32, as SCT takes it from there."""
    return Grid(grid.shape, grid.affine.astype(np.float32).astype(np.float64))


def in_plane(grid: Grid) -> Grid:
    """Grid at 0.5 mm in plane with the slices of an RPI grid."""
    return grid.resampled((SPACING_MM, SPACING_MM, None))


def centerline(mask: NDArray[Any], grid: Grid, method: str = "") -> Centerline:
    """Centerline of a cord mask or centerline image as SCT takes it from a file.

    The mask is interpolated linearly to 0.5 mm in plane, and the centre of mass taken on each
    slice. SCT cuts the centre to a whole voxel: where it lies on one (a single voxel at a simple
    ratio of spacings, for one) the last bit of the sum decides, so the arithmetic is SCT's.

    Parameters
    ----------
    mask : (X, Y, Z)
        Stored array, in any axis order.
    grid : Grid
        Its grid.
    method : str
        For the sidecar.

    Returns
    -------
    Centerline
        On the mask's slices at 0.5 mm in plane.

    Raises
    ------
    CenterlineError
        The mask is empty.
    """
    rpi, reorientation = grid.to_rpi()
    native = as_header(rpi)
    plane = in_plane(native)
    weights = reorientation.apply(mask.astype(np.uint8) if mask.dtype.kind == "b" else mask)
    xy = np.full((plane.shape[2], 2), np.nan)
    if not weights.any():
        return Centerline(plane, xy, method)  # which is refused
    # Summed in the order of `scipy.ndimage.affine_transform`, which nibabel and SCT interpolate
    # with, but only around the voxels that are not zero.
    mapping = np.linalg.inv(native.affine).dot(plane.affine)
    used = [np.flatnonzero(weights.any(axis=tuple({0, 1, 2} - {k}))) for k in range(3)]
    low = [int((used[k][0] - 1) / mapping[k, k]) - 1 for k in range(3)]
    high = [int((used[k][-1] + 1) / mapping[k, k]) + 2 for k in range(3)]
    x, y, slices = (
        np.arange(max(a, 0), min(b, size))
        for a, b, size in zip(low, high, plane.shape, strict=True)
    )
    kind = weights.dtype if weights.dtype.kind == "f" else np.float64
    for z in slices:
        at = np.stack(
            [
                mapping[k, 3] + mapping[k, 0] * x[:, None] + mapping[k, 1] * y + mapping[k, 2] * z
                for k in range(3)
            ]
        )
        whole = np.zeros(plane.shape[:2], kind)
        whole[x[0] : x[-1] + 1, y[0] : y[-1] + 1] = ndimage.map_coordinates(
            weights, at, order=1, mode="nearest", output=kind
        )
        if whole.any():
            xy[z] = ndimage.center_of_mass(whole)
    return Centerline(plane, xy, method)


class Predictor(Protocol):
    """Anything that predicts patches, as `inference.engine.Network` does."""

    def run(
        self, patches: NDArray[np.float32], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """Predict patches, (N, 48, 48, 48)."""


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
    point = _PUBLISHED.get(contrast, OperatingPoint())
    origin = f"published ({point.source})" if point.source else "not tuned"
    info = BundleInfo(
        name="sct",
        loss=Loss(name="dice"),
        preparation=preparation,
        network=Architecture(architecture="unet3d"),
        operating_point=point,
        provenance=Provenance(
            data=f"SCT {version}: deepseg_lesion_models/{contrast}_lesion.onnx. Trained by SCT's "
            "authors on clinical scans of many sites (Gros et al. 2019)."
        ),
        intended_use="Baseline: the lesion model that sct_deepseg_lesion runs, for comparison.",
        limits=(
            f"The threshold of {point.threshold:g} is {origin}. "
            "sct_deepseg_lesion cuts at 0.1, and again at 0.1 after interpolation; -sct_rule 1 "
            "does the same.",
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
    cut = crop.cut(reorientation.apply(image))
    intensity.warn_if_unlike(cut, preparation)
    standard = intensity.standardise_sct(cut, preparation)
    values = crop.refine(standard)
    missing = max(PATCH_VOX - values.shape[2], 0)
    padded = np.pad(values, ((0, 0), (0, 0), (0, missing)))
    return SctPrepared(padded, crop, preparation, reorientation.undo)


def block_pmap(
    prepared: SctPrepared,
    network: Predictor,
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
    network: Predictor,
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
    network : Predictor
        SCT's for the contrast; SCT computes in `RULE_ENGINE`.
    progress : callable, optional
        Called after each block with 1.

    Returns
    -------
    (X, Y, Z) bool
    """
    prepared = prepare(image, grid, centerline, _preparation(contrast))
    first = block_pmap(prepared, network, progress) > RULE_THRESHOLD
    return prepared.to_native(first.astype(np.float32)) >= np.float32(RULE_THRESHOLD)


def _preparation(contrast: str) -> SctPreparation:
    if contrast not in PREPARATIONS:
        raise UsageError(
            f"-c {contrast}: SCT's lesion model knows {', '.join(CONTRASTS)}; choose one of them"
        )
    return PREPARATIONS[contrast]
