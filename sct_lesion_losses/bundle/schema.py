"""What `bundle.json` holds: typed, frozen, checked when it is built and when it is read.

Numbers that are not defined (the precision of an empty mask, say) are NaN in the library and
null in the file. Scans and subjects of the tuning set are numbered (`scan-01`, `subject-01`) and
command lines hold base names only, so that a bundle can be given away.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sct_lesion_losses.errors import BundleError

SCHEMA_VERSION = 1
UNTUNED_THRESHOLD = 0.5
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_GRID_TOLERANCE = 1e-9

_T = TypeVar("_T")


def _sorted_keys(table: dict[str, _T]) -> dict[str, _T]:
    return dict(sorted(table.items()))


def _nan_is_none(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_increasing(values: Sequence[float]) -> bool:
    return all(low < high for low, high in itertools.pairwise(values))


Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float | None, BeforeValidator(_nan_is_none)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Table = Annotated[dict[str, _T], AfterValidator(_sorted_keys)]


class Record(BaseModel):
    """Frozen, finite, without unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True
    )


class Loss(Record):
    """The loss trained with, and its numbers by role (`fn_weight=0.7`)."""

    name: Name
    numbers: Table[bool | float | str] = {}


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
            if not _is_increasing(getattr(self, name)):
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


class ScanCurve(Record):
    """The objective of one tuning scan at every threshold; scan and subject are numbered."""

    scan: Annotated[str, Field(pattern=r"^scan-\d{1,6}$")]
    subject: Annotated[str, Field(pattern=r"^subject-\d{1,6}$")]
    values: tuple[Score, ...]


class OperatingPoint(Record):
    """The decision threshold, and all that it was chosen from.

    Attributes
    ----------
    kind : "tuned" or "untuned"
        Tuned: chosen on scans not trained on. Untuned: the default of 0.5, nothing else is known.
    threshold : float, in (0, 1]
        A voxel is lesion where p >= threshold.
    objective : str
        What was maximised.
    thresholds, curve : tuple of float
        The grid of the sweep, and the objective at each of its thresholds.
    per_scan : tuple of ScanCurve
        The curve of every scan; never only the winner.
    interval : (low, high) or None
        95 % bootstrap interval of the threshold, subjects resampled.
    plateau : tuple of float
        Thresholds within 2 % of the best objective.
    loss_at_pm_0_05 : (minus, plus)
        Objective lost at the threshold - 0.05 and + 0.05.
    leave_one_out : float or None
        Leave-one-subject-out score of the choice.
    warnings : tuple of str
        What the choice was warned of, an optimum at an end of the grid for one.
    """

    kind: Literal["tuned", "untuned"] = "untuned"
    threshold: Annotated[float, Field(gt=0, le=1)] = UNTUNED_THRESHOLD
    objective: str = ""
    thresholds: tuple[Probability, ...] = ()
    curve: tuple[Score, ...] = ()
    per_scan: tuple[ScanCurve, ...] = ()
    interval: tuple[Probability, Probability] | None = None
    plateau: tuple[Probability, ...] = ()
    loss_at_pm_0_05: tuple[Score, Score] = (None, None)
    leave_one_out: Score = None
    n_scans: Count = 0
    n_subjects: Count = 0
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _curves_fit(self) -> OperatingPoint:
        n = len(self.thresholds)
        if not _is_increasing(self.thresholds):
            raise ValueError(f"thresholds must increase, received {self.thresholds}")
        curves = {"curve": self.curve, **{scan.scan: scan.values for scan in self.per_scan}}
        for name, values in curves.items():
            if len(values) != n:
                raise ValueError(f"{name}: {len(values)} values for {n} thresholds")
        if len(curves) != len(self.per_scan) + 1:
            raise ValueError("per_scan: a scan is there twice")
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ValueError(f"interval {self.interval} is upside down")
        return self

    @model_validator(mode="after")
    def _tuned_is_complete(self) -> OperatingPoint:
        if self.kind == "untuned":
            return self
        if not self.objective or self.n_scans < 1 or self.n_subjects < 1:
            raise ValueError("a tuned threshold needs its objective, n_scans and n_subjects")
        if not any(abs(t - self.threshold) <= _GRID_TOLERANCE for t in self.thresholds):
            raise ValueError(
                f"tuned threshold {self.threshold} is not on its grid {self.thresholds}"
            )
        return self


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
    """

    data: str = Field(min_length=1)
    scans: Table[Count] = {}
    commands: tuple[str, ...] = ()

    @field_validator("commands")
    @classmethod
    def _base_names_only(cls, commands: tuple[str, ...]) -> tuple[str, ...]:
        for command in commands:
            if re.search(r"(?:^|[\s'\"=:])(?:~?/|[A-Za-z]:\\)", command):
                raise ValueError(f"command {command!r} holds an absolute path; keep base names")
        return commands


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
    seeds: Table[int] = {}
    split_hash: Digest | None = None
    packages: Table[str] = {}
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}(-dirty)?$")] | None = None
    operating_point: OperatingPoint = OperatingPoint()
    metrics: Table[Metric] = {}
    history: tuple[Epoch, ...] = ()
    provenance: Provenance
    intended_use: str = Field(min_length=1)
    limits: tuple[str, ...] = Field(min_length=1)

    @field_validator("history")
    @classmethod
    def _epochs_increase(cls, history: tuple[Epoch, ...]) -> tuple[Epoch, ...]:
        if not _is_increasing([line.epoch for line in history]):
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

    >>> command_line(["/opt/bin/sct_tune_lesion", "-i", "/home/jane doe/data", "-thr", "0.3"])
    'sct_tune_lesion -i data -thr 0.3'
    """
    names = (
        PurePath(word).name if PurePath(word).is_absolute() or word[:2] == "~/" else word
        for word in arguments
    )
    return shlex.join(names)


def dump(info: BundleInfo) -> bytes:
    """Return `info` as the bytes of `bundle.json`: the same for equal values, newline at the end.

    Lists of numbers stay on one line, so that a curve can be read and compared.
    """
    text = json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    # JSON strings hold no raw newline, so "[" before one always opens a list.
    one_line = re.sub(r"\[\n([^\[\]{}\"]*)\n *\]", _on_one_line, text)
    return (one_line + "\n").encode()


def _on_one_line(match: re.Match[str]) -> str:
    return "[" + ", ".join(item.strip() for item in match[1].split(",")) + "]"


def parse(text: bytes, where: str = "bundle.json") -> BundleInfo:
    """Read the bytes of `bundle.json`.

    Raises
    ------
    BundleError
        Not JSON, another schema version, or a field that is missing, unknown or out of bounds.
    """
    version = _schema_version(text, where)
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{where}: schema version is {version!r}, expected {SCHEMA_VERSION};"
            " update sct_lesion_losses, or get the bundle made for this version"
        )
    try:
        return BundleInfo.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = "; ".join(_problem(dict(item)) for item in error.errors(include_url=False)[:5])
        raise BundleError(f"{where}: {problems}; get the bundle again or retrain it") from error


def _schema_version(text: bytes, where: str) -> object:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not JSON ({error}); get the bundle again") from error
    if not isinstance(document, dict):
        raise BundleError(f"{where}: expected a JSON object; get the bundle again")
    return document.get("schema_version")


def _problem(item: dict[str, Any]) -> str:
    """One pydantic error as `operating_point.threshold is 1.5: should be <= 1`."""
    place = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = repr(item.get("input"))
    return f"{place} is {shown}: {message}" if len(shown) <= 60 else f"{place}: {message}"
