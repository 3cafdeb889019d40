"""Batches cut on the device itself, out of tubes that lie in its memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.preprocessing.augmentation import Augmentation
from sct_lesion_losses.preprocessing.sampler import TrainingTube
from sct_lesion_losses.training import devices
from sct_lesion_losses.training.batches import Batch, PatchBatches

MOST_VOXELS = 2**31 - 1  # JAX counts in int32


def possible(tubes: Sequence[TrainingTube], augmentation: Augmentation | None) -> bool:
    """Whether batches of these tubes can be cut on a device: mirrors and rotations, no more."""
    changes_intensity = augmentation is not None and augmentation.intensity > 0
    return not changes_intensity and sum(tube.values.size for tube in tubes) <= MOST_VOXELS


class ResidentBatches(PatchBatches):
    """The batches of `PatchBatches`, as tensors: nothing but addresses goes to the device.

    A mirrored and rotated patch is a view of its tube, so its voxel (i, j, k) lies at a + b·i + c·j
    + d·k among the voxels of all tubes; these four numbers are all that a patch needs.

    Parameters
    ----------
    tubes : sequence of TrainingTube
        Go to the device as a whole: 5 bytes a voxel.
    batch_size, **settings
        See `PatchBatches`; intensities cannot be changed.
    """

    def __init__(self, tubes: Sequence[TrainingTube], batch_size: int = 8, **settings: Any) -> None:
        if not possible(tubes, settings.get("augmentation")):
            raise UsageError(
                "batches cannot be cut on the device where intensities are changed, nor out of "
                f"more than {MOST_VOXELS} voxels; train with on_device=False"
            )
        tubes = [
            replace(
                tube,
                values=np.ascontiguousarray(tube.values),
                lesion=np.ascontiguousarray(tube.lesion),
            )
            for tube in tubes
        ]
        super().__init__(tubes, batch_size, **settings)
        self._first = np.cumsum([0, *(tube.values.size for tube in tubes)])
        self._values = ops.convert_to_tensor(np.concatenate([t.values.ravel() for t in tubes]))
        lesions = np.concatenate([t.lesion.ravel() for t in tubes])
        self._lesions = ops.convert_to_tensor(lesions.astype(np.uint8))

    def __getitem__(self, index: int) -> Batch:
        addresses = [self._address(tube, patch) for tube, patch, _ in self._patches(index)]
        tensor = ops.convert_to_tensor(np.array(addresses, np.int32))
        patches, lesions = _compiled()(self._values, self._lesions, tensor)
        return patches, lesions

    def _address(self, tube: int, patch: NDArray[np.float32]) -> tuple[int, ...]:
        """Where the first voxel of a view lies among all voxels, and the step along each axis."""
        start = self._tubes[tube].values.__array_interface__["data"][0]
        offset = patch.__array_interface__["data"][0] - start
        steps = (stride // patch.itemsize for stride in patch.strides)
        return int(self._first[tube]) + offset // patch.itemsize, *steps


@functools.cache
def _compiled() -> Any:
    return devices.jitted(_cut)


def _cut(values: Any, lesions: Any, addresses: Any) -> tuple[Any, Any]:
    """Patches, normalised as by `intensity.zscore`, and lesion masks at the addresses (B, 4)."""
    along = ops.arange(PATCH_VOX, dtype="int32")
    first, x, y, z = (addresses[:, n, None, None, None] for n in range(4))
    where = first + x * along[:, None, None] + y * along[:, None] + z * along
    patches = ops.take(values, where)
    level = patches[:, :1, :1, :1]  # without it, float32 sums of a flat patch would round
    patches = patches - level
    mean = ops.mean(patches, axis=(1, 2, 3), keepdims=True)
    patches = patches - mean
    deviation = ops.sqrt(ops.mean(patches * patches, axis=(1, 2, 3), keepdims=True))
    contrast = deviation > np.finfo(np.float32).eps * ops.abs(level + mean)
    patches = ops.where(contrast, patches / ops.where(contrast, deviation, 1.0), 0.0)
    return patches[..., None], ops.cast(ops.take(lesions, where), "float32")[..., None]
