"""The recipe of a training: the study's settings as one frozen value per loss."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.patches import PATCH_VOX
from sct_lesion_losses.preprocessing.augmentation import Augmentation

EPSILON = 1e-3  # of keras.layers.BatchNormalization, which unet.build leaves as it is
STUDY = "unet3d"
DOUBLING = "unet3d_doubling"
KINDS = (STUDY, DOUBLING)


@dataclass(frozen=True)
class Architecture:
    """Filters of a 3-D U-Net with two 3×3×3 convolutions a level.

    In the kind ``unet3d``, the study's, every convolution of a level has the level's filters, the
    transposed one that leads up to it included. In ``unet3d_doubling`` the first convolution of a
    level on the way down has half of them, and the transposed one keeps the channels it is given,
    as Çiçek et al. have it, and the lesion models of SCT.

    Attributes
    ----------
    filters : tuple of int
        Filters of each level, from the finest.
    kind : str
        One of `KINDS`.

    Raises
    ------
    ValueError
        There is no network of such filters.

    References
    ----------
    Çiçek et al. 2016, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation".
    """

    filters: tuple[int, ...] = (16, 32, 64)
    kind: str = STUDY

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"architecture is {self.kind!r}, expected one of {', '.join(KINDS)}")
        step = 2 if self.kind == DOUBLING else 1
        if not self.filters or any(width < 1 or width % step for width in self.filters):
            wanted = "even numbers" if step == 2 else "whole numbers"
            raise ValueError(
                f"filters is {self.filters!r}, expected {wanted} above 0, one for each level of "
                f"{self.kind}"
            )

    def __str__(self) -> str:
        """Return the kind and the filters as people write them: ``unet3d 16-32-64``."""
        return f"{self.kind} {'-'.join(map(str, self.filters))}"

    def first(self, level: int) -> int:
        """Return the filters of the first convolution of a level on the way down."""
        return self.filters[level] // 2 if self.kind == DOUBLING else self.filters[level]

    def transposed(self, level: int) -> int:
        """Return the filters of the transposed convolution that leads up to a level."""
        return self.filters[level + 1 if self.kind == DOUBLING else level]


PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
OPTIMISERS = ("adam", "adadelta")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides its scans; the defaults are the study's.

    Settings from Hussein et al. 2023, section 2.4.

    Attributes
    ----------
    loss : str
        Name of the loss.
    loss_numbers : dict
        Its arguments; those left out keep their defaults.
    filters : tuple of int
        Filters of the U-Net's levels.
    architecture : str
        Its kind; see `model.architecture`.
    batch_size : int
        Patches per step.
    optimiser : str
        ``adam`` or ``adadelta``.
    rate : float
        Learning rate at the start.
    patience : int
        Epochs without a better validation loss after which the rate is multiplied by
        `rate_factor`.
    rate_factor : float
        That factor.
    epochs : int
        Epochs of training.
    early_stop : int or None
        Epochs without a better validation loss after which the training ends; None never does.
    patches_per_epoch : int or None
        Patches drawn for an epoch; None shows every training patch once.
    lesion_share : float or None
        Share of drawn patches that hold lesion; None draws all patches alike.
    validation_patches : int or None
        Patches of the validation scans that are judged after each epoch, always the same; None
        judges all of them.
    augmentation : Augmentation
        Mirrors, rotations, and what is beyond the study.
    precision : str
        Keras' dtype policy of the network.
    prior : float
        Lesion probability that the untrained network gives to every voxel, about.
    seed : int
        Seed of the initial weights, of the order of patches and of the augmentation.
    """

    loss: str = "tversky"
    loss_numbers: dict[str, Any] = field(default_factory=dict)
    filters: tuple[int, ...] = (16, 32, 64)
    architecture: str = STUDY
    batch_size: int = 8
    optimiser: str = "adam"
    rate: float = 1e-4
    patience: int = 15
    rate_factor: float = 0.5
    epochs: int = 300
    early_stop: int | None = None
    patches_per_epoch: int | None = None
    lesion_share: float | None = None
    validation_patches: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: str = "float32"
    prior: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def network(self) -> Architecture:
        """Architecture of the network."""
        return Architecture(self.filters, self.architecture)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, for JSON."""
        plain = dataclasses.asdict(self)
        plain["filters"] = list(self.filters)
        return plain


# What the study sets apart for a loss, and its rates; Hussein et al. 2023, section 2.4.
_OPTIMISER_OF_LOSS = {"combo": "adadelta"}
_RATES = {"adam": 1e-4, "adadelta": 1.0}


def study(loss: str = "tversky", **changes: Any) -> Recipe:
    """Return the study's recipe for a loss, with the entries named in `changes` replaced.

    Parameters
    ----------
    loss : str
        Name of the loss.
    **changes
        Entries of `Recipe`. The rate is that of the optimiser unless it is given.

    Raises
    ------
    UsageError
        An entry is unknown or out of its range.
    """
    known = {entry.name for entry in dataclasses.fields(Recipe)}
    if unknown := sorted(set(changes) - known):
        raise UsageError(
            f"recipe: unknown entry {', '.join(unknown)}; choose from {', '.join(sorted(known))}"
        )
    optimiser = changes.get("optimiser", _OPTIMISER_OF_LOSS.get(loss, "adam"))
    rate = _RATES.get(optimiser, 0.0)
    return Recipe(loss=loss, **{"optimiser": optimiser, "rate": rate, **changes})


def from_dict(plain: dict[str, Any]) -> Recipe:
    """Return the recipe that `Recipe.to_dict` wrote."""
    entries = dict(plain)
    entries["filters"] = tuple(entries["filters"])
    entries["augmentation"] = Augmentation(**entries["augmentation"])
    return study(**entries)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Entries in which two plain recipes differ, as ``name: before -> after``."""
    return [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _check(recipe: Recipe) -> None:
    rules = {
        "optimiser": recipe.optimiser in OPTIMISERS,
        "batch_size": recipe.batch_size >= 1,
        "rate": recipe.rate > 0,
        "patience": recipe.patience >= 1,
        "rate_factor": 0 < recipe.rate_factor < 1,
        "epochs": recipe.epochs >= 1,
        "early_stop": recipe.early_stop is None or recipe.early_stop >= 1,
        "prior": 0 < recipe.prior < 1,
        "patches_per_epoch": recipe.patches_per_epoch is None or recipe.patches_per_epoch >= 1,
        "lesion_share": recipe.lesion_share is None or 0 <= recipe.lesion_share <= 1,
        "validation_patches": recipe.validation_patches is None or recipe.validation_patches >= 1,
        "precision": recipe.precision in PRECISIONS,
    }
    if PATCH_VOX % 2 ** (len(recipe.filters) - 1):
        raise UsageError(
            f"recipe: filters is {recipe.filters!r}, one for each of {len(recipe.filters)} levels; "
            f"a patch of {PATCH_VOX} voxels can be halved four times, give five at most"
        )
    for name, kept in rules.items():
        if not kept:
            raise UsageError(f"recipe: {name} is {getattr(recipe, name)!r}, which is out of range")
    try:
        _ = recipe.network
    except ValueError as error:
        raise UsageError(f"recipe: {error}") from error
