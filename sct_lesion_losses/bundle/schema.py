"""`bundle.json` as bytes: written the same for equal values, read with one clear error."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Hashable, Sequence, Sized
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import from_json

from sct_lesion_losses.errors import BundleError
from sct_lesion_losses.metrics import UNTUNED

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

T = TypeVar("T")


def _sorted_keys(table: dict[str, T]) -> dict[str, T]:
    return dict(sorted(table.items()))


def _nan_is_none(value: object) -> object:
    return None if isinstance(value, (float, np.floating)) and math.isnan(value) else value


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in itertools.pairwise(values)):
        raise ValueError(f"must increase, received {values}")
    return values


def _without_folders(command: str) -> str:
    if re.search(r"(?:^|[\s'\"=:])(?:~?/|[A-Za-z]:\\)", command):
        raise ValueError("holds an absolute path; keep base names")
    return command


def _require_as_many(of: str, n: int, **columns: Sized) -> None:
    """Raise a ValueError unless every column holds `n` values."""
    for name, column in columns.items():
        if len(column) != n:
            raise ValueError(f"{name}: {len(column)} values for {n} {of}")


Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Length = Annotated[float, Field(ge=0)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Score = Annotated[float | None, BeforeValidator(_nan_is_none)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Table = Annotated[dict[str, T], AfterValidator(_sorted_keys)]
Rising = AfterValidator(_rising)
Grid = Annotated[tuple[Probability, ...], Rising]
Command = Annotated[str, AfterValidator(_without_folders)]


class Record(BaseModel):
    """Frozen, finite, without unknown fields.

    Fields named in `OPTIONAL` are left out of the file where they hold nothing: versions that do
    not know them read the rest.
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        str_strip_whitespace=True,
        revalidate_instances="always",
    )

    @model_serializer(mode="wrap")
    def _optional_parts_are_left_out(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {name: value for name, value in fields.items() if value or name not in self.OPTIONAL}


_GRID_TOLERANCE = 1e-9
_SHARES_TOLERANCE = 0.0101  # for thirds of two digits


class ScanCurve(Record):
    """The objective of one tuning scan at every threshold; scan and subject are numbered."""

    scan: Annotated[str, Field(pattern=r"^scan-\d{1,6}$")]
    subject: Annotated[str, Field(pattern=r"^subject-\d{1,6}$")]
    values: tuple[Score, ...]


def scan_curves(
    subjects: Sequence[Hashable], scores: npt.NDArray[np.float64]
) -> tuple[ScanCurve, ...]:
    """Return curves, (N, T), of scans as a bundle keeps them: numbered, not named."""
    numbers = {subject: n for n, subject in enumerate(dict.fromkeys(subjects), start=1)}
    return tuple(
        ScanCurve(
            scan=f"scan-{n:02d}",
            subject=f"subject-{numbers[subject]:02d}",
            values=tuple(values.tolist()),
        )
        for n, (subject, values) in enumerate(zip(subjects, scores, strict=True), start=1)
    )


class SiteCalibration(Record):
    """Parts that a site's threshold was made of, beside the curves of its scans.

    Attributes
    ----------
    name : str
        Of the site.
    weight : float, in (0, 1)
        Of the local curve; the rest is that of the shipped one. See `thresholds.site`.
    shipped_threshold, local_threshold : float
        Of the bundle that it was made from, and the best for the site's scans alone.
    shipped_curve, local_curve : tuple of float
        The objective at each threshold.
    held_out_shipped : float or None
        The objective over the site's scans at the shipped threshold, to be compared with
        `leave_one_out`.
    """

    name: Name
    weight: Share
    shipped_threshold: Probability
    local_threshold: Probability
    shipped_curve: tuple[Score, ...]
    local_curve: tuple[Score, ...]
    held_out_shipped: Score = None


class Froc(Record):
    """Lesions found against false ones, over the least peak; see `thresholds.lesion_filter`.

    Attributes
    ----------
    peaks : tuple of float
        Rising; the first keeps every predicted lesion.
    sensitivity : tuple of float
        Mean L-sensitivity over the scans with lesions.
    false_lesions : tuple of float
        Mean number of false lesions over all scans.
    """

    peaks: Grid = Field(min_length=1)
    sensitivity: tuple[Probability, ...]
    false_lesions: tuple[Length, ...]

    @model_validator(mode="after")
    def _columns_fit(self) -> Froc:
        columns = {"sensitivity": self.sensitivity, "false_lesions": self.false_lesions}
        _require_as_many("peaks", len(self.peaks), **columns)
        return self


class LesionPoint(Record):
    """Filter of the predicted lesions: chosen at the tuned threshold, used at any.

    Attributes
    ----------
    peak : float
        A lesion is kept if its highest probability is at least this,
    volume_mm3 : float
        and its volume at least this.
    preset : str
        The rule that decided which lesions are detected.
    specificity_asked : float
        The P-specificity that a filter had to reach to be chosen from; 0: none.
    f1, f1_unfiltered : float or None
        Median L-F1 over the tuning scans with lesions, with the filter and without.
    specificity, specificity_unfiltered : float or None
        P-specificity on the lesion-free tuning scans; None without any.
    leave_one_out : float or None
        Median L-F1 where each scan is filtered as the other subjects choose.
    froc : Froc
    n_scans, n_lesion_free : int
        Tuning scans with lesions, and without.
    """

    peak: Probability
    volume_mm3: Length
    preset: Name
    specificity_asked: Probability = 0.0
    f1: Score
    f1_unfiltered: Score
    specificity: Score = None
    specificity_unfiltered: Score = None
    leave_one_out: Score = None
    froc: Froc
    n_scans: Count
    n_lesion_free: Count = 0


Range = tuple[float, float]


class FoundShare(Record):
    """Implanted lesions of one range of contrast or volume, and those of them that are found.

    Attributes
    ----------
    low, high : float, float or None
        Of the range; `high` is beyond it, None where it is open.
    n, found : int
        All, and those found.
    interval : (low, high) or None
        95 % bootstrap interval of the share found, people resampled; None of one person.
    """

    low: Length
    high: Positive | None = None
    n: Count
    found: Count
    interval: Range | None = None

    @model_validator(mode="after")
    def _no_more_than_all(self) -> FoundShare:
        if self.found > self.n:
            raise ValueError(f"{self.found} of {self.n} lesions found")
        return self

    def __str__(self) -> str:
        """Return the range as people write it: ``under 1.1``, ``1.1 to 1.2``, ``from 1.5``."""
        if self.high is None:
            return f"from {self.low:g}"
        return f"{self.low:g} to {self.high:g}" if self.low else f"under {self.high:g}"


class DetectionLimit(Record):
    """Implants in scans of healthy people that a bundle finds, and what it marks in those scans.

    Attributes
    ----------
    people : int
        Whose scans they are.
    held_out : bool
        The scans of each were read by the threshold and filter that the others choose; else by
        those that all of them chose.
    by_contrast : tuple of FoundShare
        Contrast is the mean of the lesion over the median of the cord in its axial slices.
    by_volume : tuple of FoundShare
        In mm³.
    untouched : int
        Scans without any lesion.
    false_lesions : float
        Marked in an untouched scan, mean.
    false_interval : (low, high) or None
        95 % bootstrap interval of that mean, people resampled; None of one person.
    """

    people: Size
    held_out: bool
    by_contrast: tuple[FoundShare, ...] = Field(min_length=1)
    by_volume: tuple[FoundShare, ...] = Field(min_length=1)
    untouched: Count
    false_lesions: Length
    false_interval: Range | None = None


class OperatingPoint(Record):
    """The decision threshold, and all that it was chosen from.

    Attributes
    ----------
    kind : "tuned", "published" or "untuned"
        Tuned: chosen on scans not trained on. Published: taken from `source`. Untuned: the default
        of 0.5. Of the last two, nothing else is known.
    threshold : float, in (0, 1]
        A voxel is lesion where p >= threshold.
    source : str
        Publication of a published threshold, and the scans that chose it there.
    objective : str
        What was maximised.
    beta : float or None
        Of an F-beta: the weight of sensitivity against precision.
    preset : str
        Of a lesion-wise objective: the rule by which lesions are detected.
    specificity : float or None
        P-specificity that the threshold had to reach, where one was asked for.
    thresholds, curve : tuple of float
        The grid of the sweep, and the objective at each of its thresholds; null where the
        threshold does not reach the specificity.
    per_scan : tuple of ScanCurve
        The curve of every scan; never only the winner.
    interval : (low, high) or None
        95 % bootstrap interval of the threshold, subjects resampled; None of one subject.
    plateau : (low, high) or None
        Lowest and highest threshold around the chosen one within 2 % of the best objective.
    loss_at_pm_0_05 : (minus, plus)
        Objective lost at the threshold - 0.05 and + 0.05.
    leave_one_out : float or None
        Leave-one-subject-out score of the choice.
    n_scans, n_subjects : int
        Scans that chose it, and of how many subjects.
    centerline : str
        How the cord was found in the scans: ``cohort`` by the cohort's own centerlines, else a
        method of `-centerline`. So it was for the bundle's metrics.
    warnings : tuple of str
        What the choice was warned of, an optimum at an end of the grid for one.
    data : str
        Description of the scans, in a sentence or two.
    tuned_on : tuple of str
        Content hashes of the scans that chose the threshold, so that no score is reported on them;
        of a site's, those of the earlier bundle as well.
    site : SiteCalibration or None
        There if the threshold is one site's: then the scans are the site's, and `curve` is theirs
        and that of an earlier bundle combined.
    lesions : LesionPoint or None
        A second operating point, per lesion.
    detection_limit : DetectionLimit or None
        There if the scans are implants in scans of a site's healthy people.
    previous : OperatingPoint or None
        The one that the bundle was tuned to before.
    """

    OPTIONAL = ("source", "data", "tuned_on", "site", "lesions", "detection_limit", "previous")

    kind: Literal["tuned", "published", "untuned"] = "untuned"
    threshold: Annotated[float, Field(gt=0, le=1)] = UNTUNED
    source: str = ""
    objective: str = ""
    beta: Positive | None = None
    preset: str = ""
    specificity: Probability | None = None
    thresholds: Grid = ()
    curve: tuple[Score, ...] = ()
    per_scan: tuple[ScanCurve, ...] = ()
    interval: tuple[Probability, Probability] | None = None
    plateau: tuple[Probability, Probability] | None = None
    loss_at_pm_0_05: tuple[Score, Score] = (None, None)
    leave_one_out: Score = None
    n_scans: Count = 0
    n_subjects: Count = 0
    centerline: str = ""
    warnings: tuple[str, ...] = ()
    data: str = ""
    tuned_on: tuple[Digest, ...] = ()
    site: SiteCalibration | None = None
    lesions: LesionPoint | None = None
    detection_limit: DetectionLimit | None = None
    previous: OperatingPoint | None = None

    @model_validator(mode="after")
    def _curves_fit(self) -> OperatingPoint:
        curves = {"curve": self.curve, **{scan.scan: scan.values for scan in self.per_scan}}
        if len(curves) != len(self.per_scan) + 1:
            raise ValueError("per_scan: a scan is there twice")
        if self.site is not None:
            curves["shipped_curve"] = self.site.shipped_curve
            curves["local_curve"] = self.site.local_curve
        _require_as_many("thresholds", len(self.thresholds), **curves)
        for name, range_ in (("interval", self.interval), ("plateau", self.plateau)):
            if range_ is not None and range_[0] > range_[1]:
                raise ValueError(f"{name} {range_} is upside down")
        return self

    @model_validator(mode="after")
    def _tuned_is_complete(self) -> OperatingPoint:
        if (self.kind == "published") != bool(self.source):
            raise ValueError("a published threshold has a source, and no other has")
        if self.kind != "tuned":
            if self.tuned_on or self.site or self.lesions or self.detection_limit:
                raise ValueError(
                    f"a threshold that is {self.kind} has no scans, no site, no filter of "
                    "lesions and no detection limit"
                )
            return self
        if not self.objective or self.n_scans < 1 or self.n_subjects < 1:
            raise ValueError("a tuned threshold needs its objective, n_scans and n_subjects")
        if not any(abs(t - self.threshold) <= _GRID_TOLERANCE for t in self.thresholds):
            raise ValueError(
                f"tuned threshold {self.threshold} is not on its grid {self.thresholds}"
            )
        return self


SCHEMA_VERSION = 1


class Loss(Record):
    """The loss trained with, and its arguments by role (`fn_weight=0.7`)."""

    name: Name
    numbers: Table[bool | float | str] = Field(default_factory=dict)


class _Landmarked(Record):
    """Preparation with intensity landmarks: one value per percentile, both increasing."""

    spacing_mm: Positive = 0.5
    window_vox: Size = 48
    patch_vox: Size = 48
    percentiles: Annotated[tuple[Percentile, ...], Rising] = Field(min_length=2)
    landmarks: Annotated[tuple[float, ...], Rising] = Field(min_length=2)

    @model_validator(mode="after")
    def _landmarks_fit(self) -> _Landmarked:
        _require_as_many("percentiles", len(self.percentiles), landmarks=self.landmarks)
        return self


class StudyPreparation(_Landmarked):
    """The study's: the cord crop at 0.5 mm, Nyul landmarks, each patch to zero mean and unit std.

    Attributes
    ----------
    spacing_mm, window_vox, patch_vox : float, int, int
        Voxel edge of the working grid, window across the cord, patch along z.
    overlap : float
        Share of a patch that the next one covers again, in [0, 1).
    percentiles, landmarks : tuple of float
        Percentiles in [0, 100] and the standard intensity of each.
    tta : bool
        Test-time augmentation: the patches that overlap lie differently; see
        `geometry.patches.FOUR_WAYS`. Left out of the file where there is none.
    """

    OPTIONAL = ("tta",)

    kind: Literal["study"] = "study"
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.75
    tta: bool = False


class SctPreparation(_Landmarked):
    """SCT's: landmarks with exponential tails, then one mean and std for the contrast."""

    kind: Literal["sct"] = "sct"
    contrast: Literal["t2", "t2_ax", "t2s"]
    mean: float
    std: Positive


Preparation = Annotated[StudyPreparation | SctPreparation, Field(discriminator="kind")]


class Architecture(Record):
    """Kind and size of a network.

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
        _require_as_many("levels", self.levels, filters=self.filters)
        return self

    def __str__(self) -> str:
        """Return the kind and the filters as people write them: ``unet3d 16-32-64``."""
        return f"{self.architecture} {'-'.join(map(str, self.filters))}"


class Recipe(Record):
    """All that decides a training besides its scans, and what came of it.

    Attributes
    ----------
    loss, network, seed : Loss, Architecture, int
        In `bundle.json` they stand beside the recipe; see `BundleInfo`. The seed is that of the
        first weights, of the order of patches and of their augmentation.
    optimiser : str
        ``adam`` or ``adadelta``.
    rate : float
        Learning rate of the first epoch.
    batch_size : int
        Patches per step.
    epochs_planned, epochs_run, best_epoch : int
        The recipe's, those really run, and the one (from 1) whose weights were kept for being the
        best; None for the last, and for a mean of weights.
    patience, rate_factor : int, float
        The rate is multiplied by `rate_factor` after `patience` epochs without a better `monitor`.
    stop_patience : int or None
        Epochs without a better `monitor` after which training ends; None: never.
    keep : str
        Whether the weights are those of the ``best`` epoch by `monitor`, or of the ``last``.
    patches_per_epoch, validation_patches : int or None
        Patches drawn for an epoch, and scored after it; None: all there are.
    cohort_shares : dict of str to float, or None
        Share of the drawn patches from each cohort, by its name, 1 together within 0.01, and
        relative to their sum; None: as they come.
    lesion_share : float or None
        Share of the drawn patches that hold lesion, in every cohort; None: as they come.
    free_share : float or None
        Share of the patches without lesion that are drawn from scans without any lesion, in every
        cohort; None: as they come.
    shift_mm, intensity, stripe : float or None
        Largest shift of the centerline, and probability of each change of intensity and of a bright
        stripe along the cord's middle.
    augmentations : tuple of str
        Names of all that happens to a training patch.
    precision : str
        Keras' dtype policy of the network.
    prior : float or None
        Lesion probability that the untrained network started from.
    ema : float or None
        Share of the averaged weights that stays at every step, see `training.callbacks.Averaging`:
        then validation loss and weights kept are those of the average; None: the network's own.
    backend, device, devices : str or None, str or None, int
        On which backend of Keras and kind of device the network was trained, and how many of them.
    minutes : float or None
        Wall time of the training.
    """

    loss: Loss = Field(Loss(name="tversky"), exclude=True)
    network: Architecture = Field(Architecture(), exclude=True)
    seed: Count = Field(0, exclude=True)
    optimiser: Literal["adam", "adadelta"]
    rate: Positive
    batch_size: Size
    epochs_planned: Size
    epochs_run: Count = 0
    best_epoch: Size | None = None
    patience: Size | None = None
    rate_factor: Share = 0.5
    stop_patience: Size | None = None
    keep: Literal["best", "last"] = "best"
    monitor: str = "val_loss"
    augmentations: tuple[str, ...] = ()
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    backend: str | None = None
    device: str | None = None
    devices: Size = 1
    patches_per_epoch: Size | None = None
    validation_patches: Size | None = None
    cohort_shares: Table[Probability] | None = None
    lesion_share: Probability | None = None
    free_share: Probability | None = None
    shift_mm: Length | None = None
    intensity: Probability | None = None
    stripe: Probability | None = None
    prior: Share | None = None
    ema: Share | None = None
    minutes: Length | None = None

    @model_validator(mode="after")
    def _epochs_fit(self) -> Recipe:
        if self.epochs_run > self.epochs_planned:
            raise ValueError(f"{self.epochs_run} epochs run of {self.epochs_planned} planned")
        if self.best_epoch is not None and self.best_epoch > self.epochs_run:
            raise ValueError(f"best epoch {self.best_epoch} of {self.epochs_run} run")
        return self

    @model_validator(mode="after")
    def _shares_are_whole(self) -> Recipe:
        if self.cohort_shares and abs(sum(self.cohort_shares.values()) - 1) > _SHARES_TOLERANCE:
            raise ValueError(f"cohort_shares {self.cohort_shares} do not sum up to 1")
        return self


class Epoch(Record):
    """One line of the training history.

    Attributes
    ----------
    epoch : int
        From 1; 0 is the start of a training from given weights, with its validation loss alone.
    loss, val_loss : float or None
        None where it was not measured.
    rate : float or None
        Learning rate of the epoch.
    seconds : float
        Its time; not in `bundle.json`.
    """

    epoch: Count
    loss: Score = None
    val_loss: Score = None
    rate: Positive | None = None
    seconds: Length = Field(0.0, exclude=True)


class Metric(Record):
    """One number reached on scans neither trained nor tuned on, with its interval and n."""

    value: Score
    low: Score = None
    high: Score = None
    n: Count | None = None
    note: str = ""


class Provenance(Record):
    """Origin of the bundle.

    Attributes
    ----------
    data : str
        Description of the training data, in a sentence or two.
    scans : dict of str to int
        Number of scans per part of the split (`training`, `validation`, …).
    commands : tuple of str
        The command lines that reproduce the bundle, base names only.
    trained_on : tuple of str
        Content hashes of the training and validation scans, so that a threshold is not chosen,
        nor a score reported, on a scan that the weights have seen.
    ancestor : str or None
        Name, version and hash of the weights of the bundle that the training started from, or whose
        weights these are.
    weights_kept : bool
        The weights are the ancestor's: nothing was trained anew.
    """

    OPTIONAL = ("weights_kept",)

    data: str = Field(min_length=1)
    scans: Table[Count] = Field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    trained_on: tuple[Digest, ...] = ()
    ancestor: str | None = None
    weights_kept: bool = False

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

    @model_validator(mode="after")
    def _recipe_is_whole(self) -> BundleInfo:
        """Give the recipe what stands beside it in the file."""
        _rising(tuple(line.epoch for line in self.history))
        if self.recipe is not None:
            seed = self.seeds.get("training", 0)
            beside = {"loss": self.loss, "network": self.network, "seed": seed}
            object.__setattr__(self, "recipe", self.recipe.model_copy(update=beside))
        return self


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
    again = "get the bundle again or retrain it"
    try:
        content = from_json(text)
        if isinstance(content, dict) and "schema_version" not in content:
            raise BundleError(f"{where}: no schema version; {again}")
        return BundleInfo.model_validate_json(text, strict=True)
    except ValidationError as error:
        if any(item["loc"] == ("schema_version",) for item in error.errors()):
            raise BundleError(
                f"{where}: schema version is {content['schema_version']!r}, expected "
                f"{SCHEMA_VERSION}; update sct_lesion_losses, or get the bundle made for this "
                "version"
            ) from error
        raise BundleError(f"{where}: {problems(error)}; {again}") from error
    except ValueError as error:
        raise BundleError(f"{where}: not JSON ({error}); {again}") from error


def problems(error: ValidationError) -> str:
    """First five problems of a description that does not fit the schema, in one line."""
    return "; ".join(_problem(dict(item)) for item in error.errors(include_url=False)[:5])


def _problem(item: dict[str, Any]) -> str:
    """One pydantic error as `operating_point.threshold is 1.5: should be <= 1`."""
    place = ".".join(str(part) for part in item["loc"]) or "the whole"
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = repr(item.get("input"))
    return f"{place} is {shown}: {message}" if len(shown) <= 60 else f"{place}: {message}"
