"""Batches of patches: drawn from cropped scans, augmented, normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.bundle.schema import Recipe
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.geometry.patches import PATCH_VOX, patch_starts
from sct_lesion_losses.preprocessing import augmentation as augment
from sct_lesion_losses.preprocessing import intensity
from sct_lesion_losses.preprocessing.augmentation import Orientation
from sct_lesion_losses.preprocessing.cache import TrainingCrop

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]  # patches and lesion masks

_SHARES = ("cohort_shares", "lesion_share", "free_share")
_LARGEST_KEPT_BYTES = 31 << 20  # glibc keeps 32 MiB at most


@dataclass(frozen=True)
class Place:
    """Place of a patch: the crop's number and the first slice in it.

    Attributes
    ----------
    crop, start : int
    has_lesion : bool
    cohort : str
        Of the crop.
    is_free : bool
        The whole crop is free of lesions.
    """

    crop: int
    start: int
    has_lesion: bool
    cohort: str = ""
    is_free: bool = False


def places(crops: Sequence[TrainingCrop]) -> list[Place]:
    """Every patch of the crops, in order; one holds lesion if its central window does."""
    found = []
    for number, crop in enumerate(crops):
        m = crop.margin
        window = crop.lesion[m : m + PATCH_VOX, m : m + PATCH_VOX]
        per_slice: NDArray[np.bool_] = np.any(window, axis=(0, 1))
        is_free = not crop.lesion.any()
        found += [
            Place(
                number,
                start,
                bool(per_slice[start : start + PATCH_VOX].any()),
                crop.cohort,
                is_free,
            )
            for start in patch_starts(crop.values.shape[2])
        ]
    return found


_Quota = tuple[list[Place], int]  # patches of a kind, and how many of them to draw


class PatchBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of an epoch: patches (B, 48, 48, 48, 1) and lesion masks of the same shape, float32.

    Each patch is augmented, then brought to zero mean and unit deviation. The batch of a given
    number in a given epoch depends on the seed alone, not on who asks for it or in what order.

    Parameters
    ----------
    crops : sequence of TrainingCrop
        All scans; mapped from `preprocessing.cache` they lie in the order that is read fastest.
    recipe : Recipe
        Says how many patches there are to a batch and an epoch, of which kinds they are, see
        `draw`, and how they are augmented. The last batch of an epoch is filled up from its first
        patches, so that every step has the same shape.
    validation : bool
        Windows are centred, and the same patches come in every epoch, as they are: those of the
        recipe's shares where it says how many, else all there are.
    """

    def __init__(
        self, crops: Sequence[TrainingCrop], recipe: Recipe, validation: bool = False
    ) -> None:
        super().__init__()
        self._crops = list(crops)
        self._candidates = places(self._crops)
        if not self._candidates:
            raise DataError("there is no scan to draw patches from; check the split of the cohort")
        self._recipe = recipe
        self._validation = validation
        # glibc gives arrays of this size back to the system when they are freed, and gets them anew
        # page by page, which takes three times as long as writing them; once it has seen a larger
        # one freed, it keeps those that are smaller (mallopt(3), M_MMAP_THRESHOLD).
        np.empty(_LARGEST_KEPT_BYTES, np.uint8)
        self.go_to(0)

    def go_to(self, epoch: int) -> None:
        """Make the batches those of an epoch, counted from 0."""
        recipe, number = self._recipe, self._recipe.patches_per_epoch
        if self._validation:
            epoch, number = 0, recipe.validation_patches
            if number is None:  # all of them come as they are
                recipe = recipe.model_copy(update=dict.fromkeys(_SHARES))
        self._epoch = epoch
        rng = np.random.default_rng([recipe.seed, epoch])
        self._plan = draw(self._candidates, number, recipe, rng)

    def __len__(self) -> int:
        return -(-len(self._plan) // self._recipe.batch_size)

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self._recipe.seed, self._epoch, index])
        shape = (self._recipe.batch_size, PATCH_VOX, PATCH_VOX, PATCH_VOX)
        patches, lesions = np.empty(shape, np.float32), np.empty(shape, np.float32)
        # All of one patch before the next, while it is in the processor's cache.
        for place, patch, lesion in zip(self._rows(index), patches, lesions, strict=True):
            values, mask, turn = self._drawn(place, rng)
            values = _upright(turn.along_cord(values))
            scale = intensity.centre(values, out=values)
            np.multiply(turn.in_plane(values), scale, out=patch)
            if mask.any():
                lesion[...] = turn.in_plane(_upright(turn.along_cord(mask)))
            else:
                lesion[...] = 0
        return patches[..., None], lesions[..., None]

    def _drawn(
        self, place: Place, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], Orientation]:
        """Window of a crop, its intensities changed, the lesions in it, and how both shall lie."""
        crop, recipe = self._crops[place.crop], self._recipe
        x = y = crop.margin
        if crop.margin and not self._validation:
            x, y = augment.shift(rng, crop.margin)
        box = np.s_[x : x + PATCH_VOX, y : y + PATCH_VOX, place.start : place.start + PATCH_VOX]
        values, mask = crop.values[box], crop.lesion[box]
        if self._validation:
            return values, mask, Orientation()
        if recipe.stripe:
            middle = (PATCH_VOX - 1) / 2 + crop.margin  # of the crop, where the cord is
            values = augment.brighten_middle(values, (middle - x, middle - y), rng, recipe.stripe)
        if recipe.intensity:
            values = augment.vary_intensity(_upright(values), rng, recipe.intensity)
        orientation = augment.draw_orientation(
            rng,
            mirrors=augment.MIRRORS in recipe.augmentations,
            rotations=augment.ROTATIONS in recipe.augmentations,
        )
        return values, mask, orientation

    def _rows(self, index: int) -> list[Place]:
        first, size = index * self._recipe.batch_size, self._recipe.batch_size
        return [self._plan[number % len(self._plan)] for number in range(first, first + size)]

    def scans(self, index: int) -> list[str]:
        """Names of the scans that the patches of a batch come from."""
        return [self._crops[place.crop].name for place in self._rows(index)]


def draw(
    candidates: Sequence[Place], number: int | None, recipe: Recipe, rng: np.random.Generator
) -> list[Place]:
    """Draw the patches of one epoch, in the order they are shown.

    They are shared out by cohort, those of a cohort by whether they hold lesion, and those without
    by whether their scan is free of lesions. A share of which there is nothing goes to the others.

    Parameters
    ----------
    candidates : sequence of Place
        Every patch there is.
    number : int or None
        How many to draw; None takes as many as there are candidates.
    recipe : Recipe
        Its `cohort_shares`, `lesion_share` and `free_share`; None draws all alike.
    rng : numpy.random.Generator

    Returns
    -------
    list of Place
        No patch is repeated before every other of its kind was drawn.
    """
    number = len(candidates) if number is None else number
    drawn = [
        place
        for group, size in _kinds(candidates, number, recipe)
        for place in _rounds(group, size, rng)
    ]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _kinds(candidates: Sequence[Place], number: int, recipe: Recipe) -> Iterator[_Quota]:
    """Yield every kind of patch that a recipe knows, and how many of it there are to be."""
    for cohort, size in _of_cohorts(list(candidates), number, recipe.cohort_shares or {}):
        share, free_share = recipe.lesion_share, recipe.free_share
        if share is None and free_share is None:
            yield cohort, size
            continue
        has_lesion = [place.has_lesion for place in cohort]
        if share is None:
            share = sum(has_lesion) / len(cohort)
        bearing, others = _by_trait(cohort, size, share, has_lesion)
        yield bearing
        if free_share is None:
            yield others
        else:
            yield from _by_trait(*others, free_share, [place.is_free for place in others[0]])


def _of_cohorts(
    candidates: list[Place], number: int, shares: Mapping[str, float]
) -> Iterator[_Quota]:
    """Divide patches by cohort; the rounded numbers add up."""
    own = {name: [place for place in candidates if place.cohort == name] for name in shares}
    there = {name: share for name, share in shares.items() if own[name] and share}
    if not there:
        yield candidates, number
        return
    ends = np.cumsum([*there.values()]) / sum(there.values()) * number
    for name, size in zip(there, np.diff(np.rint([0, *ends]).astype(int)), strict=True):
        yield own[name], int(size)


def _by_trait(
    group: list[Place], size: int, share: float, has_trait: Sequence[bool]
) -> tuple[_Quota, _Quota]:
    """Divide a group into those with a trait, which are to have a share, and the others."""
    bearing = [place for place, has in zip(group, has_trait, strict=True) if has]
    others = [place for place, has in zip(group, has_trait, strict=True) if not has]
    wanted = round(size * share) if others else size
    wanted = wanted if bearing else 0
    return (bearing, wanted), (others, size - wanted)


def _rounds(group: list[Place], size: int, rng: np.random.Generator) -> list[Place]:
    chosen: list[Place] = []
    while len(chosen) < size:
        order = rng.permutation(len(group))[: size - len(chosen)]
        chosen += [group[i] for i in order]
    return chosen


def _upright(window: NDArray[Any]) -> NDArray[Any]:
    """Copy a window, (X, Y, Z), to a new array along whose rows z runs.

    The cache stores a crop slice after slice, so that a patch is read in one piece; to turn it
    takes numpy five times as long as OpenCV.
    """
    slices = np.ascontiguousarray(window.transpose(2, 0, 1)).reshape(window.shape[2], -1)
    numbers = slices.view(np.uint8) if slices.dtype == bool else slices
    turned: NDArray[Any] = cv2.transpose(numbers)
    return turned.view(slices.dtype).reshape(window.shape)
