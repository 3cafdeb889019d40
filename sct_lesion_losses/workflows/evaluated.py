"""The models of an evaluation as its tables name them: bundles, SCT's, and what is given."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.images import bids, nifti
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.models import RULE_THRESHOLDS, Kind, Model
from sct_lesion_losses.metrics import UNTUNED
from sct_lesion_losses.report import sidecar
from sct_lesion_losses.report.tables import PUBLISHED
from sct_lesion_losses.thresholds import THRESHOLDS, Choice

SCT_RULE = "sct as shipped"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatedModel:
    """A model as the tables name it.

    Attributes
    ----------
    label : str
        Name in the tables.
    bundle : Bundle or None
        SCT's model is one as well; None for masks and p-maps that are given.
    model : Model
    choice : Choice or None
        How the evaluation tuned it.
    """

    label: str
    bundle: Bundle | None
    model: Model
    choice: Choice | None = None

    @property
    def is_sct(self) -> bool:
        """True for SCT's own model."""
        return self.bundle is not None and self.bundle.name == SCT_NAME

    @property
    def file_name(self) -> str:
        """Its label as a name of files."""
        return self.label.replace(" ", "_")

    @property
    def version(self) -> str:
        """Version of the bundle; empty for what is given."""
        return "" if self.bundle is None else self.bundle.info.version

    @property
    def published_as(self) -> str:
        """Entry of the published values that it stands beside, by its loss; empty without one."""
        loss = "" if self.bundle is None or self.is_sct else self.bundle.info.loss.name
        return loss if loss in PUBLISHED else ""

    @property
    def to_tune(self) -> bool:
        """True for p-maps whose threshold the evaluation chooses: SCT's, and those given."""
        return not self.model.has_masks and (self.is_sct or self.model.is_given)

    @property
    def tuned(self) -> float | None:
        """Its tuned threshold; masks have none."""
        if self.choice is not None:
            return self.choice.threshold
        return None if self.bundle is None or self.model.has_masks else self.bundle.tuned_threshold

    @property
    def own_threshold(self) -> float | None:
        """Threshold that it is used at: 0.5 where it is untuned; masks have none."""
        return None if self.model.has_masks else self.tuned or UNTUNED

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """Thresholds of its rows; masks have none."""
        return (None,) if self.model.has_masks else self.model.thresholds

    def is_tuned(self, threshold: float | None) -> bool:
        """Tell whether a threshold of `thresholds` is its own operating point."""
        return self.model.has_masks or (threshold is not None and threshold == self.tuned)

    @property
    def description(self) -> dict[str, Any]:
        """Entry of the description of the scores."""
        entry: dict[str, Any]
        if self.bundle is None:
            kind = "Masks" if self.model.has_masks else "P-maps"
            entry = {
                "Description": f"{kind} as they were given",
                "Folder": Path(self.model.name).absolute().name,
                "TunedThreshold": self.tuned,
            }
        else:
            kind = "SCT's own lesion model" if self.is_sct else "Model bundle"
            if self.model.has_masks:
                kind += " exactly as sct_deepseg_lesion runs it"
            entry = {
                "Description": kind,
                "Version": self.version,
                "NetworkSHA256": self.bundle.sha256,
                "Loss": self.bundle.info.loss.name,
                "TunedThreshold": self.tuned,
                "LesionFilter": sidecar.filter_entry(self.model.rule),
            }
        if self.choice is None:
            return entry
        low, high = self.choice.interval
        tuning = {
            "Objective": self.choice.objective.name,
            "Scans": self.choice.n_scans,
            "Subjects": self.choice.n_subjects,
            "Interval": None if math.isnan(low) else [low, high],
        }
        return {**entry, "Tuning": tuning}


def models_of(bundles: Sequence[str | Path], contrast: str) -> list[EvaluatedModel]:
    """Load and name the models; bundles of one name are told apart by their versions.

    Parameters
    ----------
    bundles : sequence of str or Path
        Names or folders of bundles, and ``sct`` for SCT's own lesion model, which enters twice: by
        its p-map of overlapping patches, and as `sct_deepseg_lesion` runs it.
    contrast : {"t2", "t2_ax", "t2s"}
        Which of SCT's models.

    Raises
    ------
    UsageError
        Two cannot be told apart.
    LesionError
        There is no such model, or it is damaged or refused.
    """
    loaded = [predict.load(str(bundle), contrast) for bundle in bundles]
    often = Counter(bundle.name for bundle in loaded)
    models = []
    for given, bundle in zip(bundles, loaded, strict=True):
        label = bundle.name if often[bundle.name] == 1 else f"{bundle.name} {bundle.info.version}"
        tuned = bundle.tuned_threshold
        thresholds = {*THRESHOLDS, *([] if tuned is None else [tuned])}
        rule = predict.filter_of(bundle)
        model = Model(str(given), bundle.pmap_sha256, tuple(sorted(thresholds)), rule=rule)
        models.append(EvaluatedModel(label, bundle, model))
        if bundle.name == SCT_NAME:
            shipped = replace(model, thresholds=RULE_THRESHOLDS, kind="sct_rule")
            models.append(EvaluatedModel(SCT_RULE, bundle, shipped))
    require_told_apart(models)
    return models


def given_models(
    masks: Mapping[str, Path],
    pmaps: Mapping[str, Path],
    unseen: Sequence[CohortScan],
    tuning: Sequence[CohortScan],
    names: Mapping[Path, str],
) -> list[EvaluatedModel]:
    """Find the masks and p-maps of other tools by the names of the scans; see `bids.find_labels`.

    Parameters
    ----------
    masks, pmaps : mapping of str to Path
        Folders by their names in the tables.
    unseen, tuning : sequence of CohortScan
        Of ``tuning`` a folder of p-maps has to hold all, or none: its threshold is not tuned then.
    names : mapping of Path to str
        Of the scans' files; see `cohorts.table.names`.

    Raises
    ------
    DataError
        There is no such folder, or it holds no file of a scan, or several.
    """
    besides = [file for scan in (*unseen, *tuning) for file in (scan.scan, scan.lesion_mask)]
    models = []
    kinds: dict[Kind, tuple[Mapping[str, Path], Sequence[Sequence[str]], tuple[float, ...]]] = {
        "masks": (masks, (bids.LESION_MASKS, bids.PLAIN_MASKS), RULE_THRESHOLDS),
        "pmaps": (pmaps, (bids.LESION_PMAPS, bids.PLAIN_PMAPS), THRESHOLDS),
    }
    for kind, (folders, endings, thresholds) in kinds.items():
        seen = [*unseen, *(tuning if kind == "pmaps" else [])]
        for label, folder in folders.items():
            named = {scan.scan: names[scan.scan] for scan in seen}
            files = bids.find_labels(folder, named, endings, besides)
            wanted = seen if any(scan.scan in files for scan in tuning) else unseen
            lost = [names[scan.scan] for scan in wanted if scan.scan not in files]
            if lost:
                what = "mask" if kind == "masks" else "p-map"
                more = ", …" if len(lost) > bids.LISTED else ""
                raise DataError(
                    f"{folder}: no {what} of {len(lost)} of {len(wanted)} scans: "
                    f"{', '.join(lost[: bids.LISTED])}{more}; expected {names[wanted[0].scan]}_"
                    f"{endings[0][0]}.nii.gz for example, empty where nothing was marked; or leave "
                    "these scans out of the cohort"
                )
            known = sorted((ending for group in endings for ending in group), key=len)
            taken = Counter(
                next(one for one in reversed(known) if nifti.stem(file)[0].endswith(one))
                for file in files.values()
            )
            logger.info(
                "%s: %s of %d scans, by the ends of their names: %s",
                *(label, "masks" if kind == "masks" else "p-maps", len(files)),
                ", ".join(f"{one or 'none'} ({n})" for one, n in taken.most_common()),
            )
            model = Model(str(folder), "", thresholds, kind, files=files)
            models.append(EvaluatedModel(label, None, model))
    return models


def require_told_apart(models: Sequence[EvaluatedModel]) -> None:
    """Raise a UsageError where two models have one name, in the tables or of files."""
    for label, count in Counter(one.file_name for one in models).items():
        if count > 1:
            raise UsageError(
                f"{count} of the models are named {label}; give each of them once, or train or "
                "import one under another name or version, or name masks and p-maps otherwise"
            )
    if len({one.model for one in models}) < len(models):
        raise UsageError("two names stand for one folder of masks or p-maps; give it once")
