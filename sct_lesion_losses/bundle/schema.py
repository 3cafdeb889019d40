"""What `bundle.json` holds: typed, frozen, checked when it is built and when it is read.

Numbers that are not defined (the precision of an empty mask, say) are NaN in the library and
null in the file. Scans and subjects of the tuning set are numbered (`scan-01`, `subject-01`) and
command lines hold base names only, so that a bundle can be given away.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from sct_lesion_losses.bundle.fields import (
    Count,
    Digest,
    Name,
    Positive,
    Record,
    Score,
    Size,
    Table,
    is_increasing,
)
from sct_lesion_losses.bundle.tuning import Froc as Froc
from sct_lesion_losses.bundle.tuning import LesionPoint as LesionPoint
from sct_lesion_losses.bundle.tuning import OperatingPoint as OperatingPoint
from sct_lesion_losses.bundle.tuning import ScanCurve as ScanCurve
from sct_lesion_losses.bundle.tuning import SiteCalibration as SiteCalibration
from sct_lesion_losses.bundle.tuning import scan_curves as scan_curves

SCHEMA_VERSION = 1
_OF_BUNDLES = ("-bundle", "-init")


class Loss(Record):
    """The loss trained with, and its numbers by role (`fn_weight=0.7`)."""

    name: Name
    numbers: Table[bool | float | str] = Field(default_factory=dict)


class _Landmarked(Record):
    """Preparation with intensity landmarks: one value per percentile, both increasing."""

    spacing_mm: Positive = 0.5
    window_vox: Size = 48
    patch_vox: Size = 48
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(min_length=2)
    landmarks: tuple[float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _landmarks_fit(self) -> _Landmarked:
        if len(self.landmarks) != len(self.percentiles):
            raise ValueError(
                f"{len(self.landmarks)} landmarks for {len(self.percentiles)} percentiles,"
                " expected as many"
            )
        for name in ("percentiles", "landmarks"):
            if not is_increasing(getattr(self, name)):
                raise ValueError(f"{name} must increase, received {getattr(self, name)}")
        return self


class StudyPreparation(_Landmarked):
    """The study's: the tube at 0.5 mm, Nyul landmarks, each patch to zero mean and unit std.

    Attributes
    ----------
    spacing_mm, window_vox, patch_vox : float, int, int
        Voxel edge of the working grid, window across the cord, patch along z.
    overlap : float
        Share of a patch that the next one covers again, in [0, 1).
    percentiles, landmarks : tuple of float
        Percentiles in [0, 100] and the standard intensity of each.
    """

    kind: Literal["study"] = "study"
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.75


class SctPreparation(_Landmarked):
    """SCT's: landmarks with exponential tails, then one mean and std for the contrast."""

    kind: Literal["sct"] = "sct"
    contrast: Literal["t2", "t2_ax", "t2s"]
    mean: float
    std: Positive


Preparation = Annotated[StudyPreparation | SctPreparation, Field(discriminator="kind")]


class Architecture(Record):
    """The network's numbers.

    `filters` holds the number of channels per level, top first; it is empty where it is not known.
    """

    architecture: Name = "unet3d"
    filters: tuple[Size, ...] = ()
    levels: Count = 0
    convolutions_per_level: Size = 2
    normalisation: str = "batch"
    input_vox: tuple[Size, Size, Size] = (48, 48, 48)
    parameters: Count | None = None

    @model_validator(mode="after")
    def _levels_fit(self) -> Architecture:
        if self.levels != len(self.filters):
            raise ValueError(f"{self.levels} levels with filters {self.filters}, expected as many")
        return self


class Recipe(Record):
    """How the network was trained.

    Attributes
    ----------
    rate : float
        Learning rate of the first epoch.
    epochs_planned, epochs_run, best_epoch : int
        The recipe's, those really run, and the one (from 1) whose weights were kept.
    patience, rate_factor : int, float
        The rate is multiplied by `rate_factor` after `patience` epochs without a better `monitor`.
    stop_patience : int or None
        Epochs without a better `monitor` after which training ends; None: never.
    patches_per_epoch, validation_patches : int or None
        Patches drawn for an epoch, and judged after it; None: all there are.
    lesion_share : float or None
        Share of the drawn patches that hold lesion; None: as they come.
    shift_mm, intensity : float or None
        Largest shift of the centerline, and probability of each change of intensity.
    prior : float or None
        Lesion probability that the untrained network started from.
    devices : int
        Devices that shared a batch.
    minutes : float or None
        Wall time of the training.
    """

    optimiser: str
    rate: Positive
    batch_size: Size
    epochs_planned: Size
    epochs_run: Count
    best_epoch: Size | None = None
    patience: Size | None = None
    rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    stop_patience: Size | None = None
    monitor: str = "val_loss"
    augmentations: tuple[str, ...] = ()
    precision: str = "float32"
    backend: str | None = None
    device: str | None = None
    devices: Size = 1
    patches_per_epoch: Size | None = None
    validation_patches: Size | None = None
    lesion_share: Annotated[float, Field(ge=0, le=1)] | None = None
    shift_mm: Annotated[float, Field(ge=0)] | None = None
    intensity: Annotated[float, Field(ge=0, le=1)] | None = None
    prior: Annotated[float, Field(gt=0, lt=1)] | None = None
    minutes: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _epochs_fit(self) -> Recipe:
        if self.epochs_run > self.epochs_planned:
            raise ValueError(f"{self.epochs_run} epochs run of {self.epochs_planned} planned")
        if self.best_epoch is not None and self.best_epoch > self.epochs_run:
            raise ValueError(f"best epoch {self.best_epoch} of {self.epochs_run} run")
        return self


class Epoch(Record):
    """One line of the training history; a loss that was not measured is null."""

    epoch: Size
    loss: Score = None
    val_loss: Score = None
    rate: Positive | None = None


class Metric(Record):
    """One number reached on scans neither trained nor tuned on, with its interval and n."""

    value: Score
    low: Score = None
    high: Score = None
    n: Count | None = None
    note: str = ""


class Provenance(Record):
    """Where the bundle comes from.

    Attributes
    ----------
    data : str
        Description of the training data, in a sentence or two.
    scans : dict of str to int
        Number of scans per part of the split (`training`, `validation`, …).
    commands : tuple of str
        The command lines that reproduce the bundle, base names only (see `command_line`).
    trained_on : tuple of str
        Content hashes of the training and validation scans, so that a threshold is not chosen,
        nor a score reported, on a scan that the weights have seen.
    ancestor : str or None
        Name, version and hash of the weights of the bundle that the training started from, or whose
        weights these are.
    """

    data: str = Field(min_length=1)
    scans: Table[Count] = Field(default_factory=dict)
    commands: tuple[str, ...] = ()
    trained_on: tuple[Digest, ...] = ()
    ancestor: str | None = None

    @field_validator("commands")
    @classmethod
    def _base_names_only(cls, commands: tuple[str, ...]) -> tuple[str, ...]:
        for command in commands:
            if re.search(r"(?:^|[\s'\"=:])(?:~?/|[A-Za-z]:\\)", command):
                raise ValueError(f"command {command!r} holds an absolute path; keep base names")
        return commands

    def followed_by(self, command: str) -> Provenance:
        """Return this with a command line at the end, in place of an earlier one of its program."""
        program = command.split()[0]
        kept = [line for line in self.commands if line.split()[0] != program]
        return self.model_copy(update={"commands": (*kept, command)})


class BundleInfo(Record):
    """All that is known of a trained model, but its weights: the contents of `bundle.json`."""

    schema_version: Literal[1] = 1
    name: Name
    version: Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}([a-z0-9.+-]*)$")] = "1.0.0"
    created: date | None = None
    loss: Loss
    preparation: Preparation
    network: Architecture
    recipe: Recipe | None = None
    seeds: Table[int] = Field(default_factory=dict)
    split_hash: Digest | None = None
    packages: Table[str] = Field(default_factory=dict)
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}(-dirty)?$")] | None = None
    operating_point: OperatingPoint = OperatingPoint()
    metrics: Table[Metric] = Field(default_factory=dict)
    history: tuple[Epoch, ...] = ()
    provenance: Provenance
    intended_use: str = Field(min_length=1)
    limits: tuple[str, ...] = Field(min_length=1)

    @field_validator("history")
    @classmethod
    def _epochs_increase(cls, history: tuple[Epoch, ...]) -> tuple[Epoch, ...]:
        if not is_increasing([line.epoch for line in history]):
            raise ValueError("history: epochs must increase")
        return history

    def metadata(self) -> dict[str, str]:
        """Return what is repeated in the metadata of `model.onnx`."""
        return {
            "name": self.name,
            "version": self.version,
            "spacing_mm": repr(self.preparation.spacing_mm),
            "threshold": repr(self.operating_point.threshold),
        }


def command_line(arguments: Sequence[str]) -> str:
    """Command line as a shell would take it, with every path cut down to its base name.

    A bundle that was given by its folder is written ``./b``: ``b`` alone is a name, which may mean
    a packaged one.

    >>> command_line(["/opt/bin/sct_tune_lesion", "-bundle", "x/b", "-i", "/home/jane doe/data"])
    'sct_tune_lesion -bundle ./b -i data'
    """
    return shlex.join(
        ("./" if option in _OF_BUNDLES else "") + PurePath(word).name if _is_path(word) else word
        for option, word in zip(("", *arguments), arguments, strict=False)
    )


def _is_path(word: str) -> bool:
    """Whether a word of a command line leads through folders; a sentence with a slash does not."""
    if PurePath(word).is_absolute() or word.startswith(("~/", "../", "./")):
        return True
    return "/" in word and " " not in word
