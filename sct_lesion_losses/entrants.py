"""The models of an evaluation as its tables name them, and the rows that their counts give."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sct_lesion_losses import scan_results
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics.detection import PRESETS
from sct_lesion_losses.metrics.scan_score import UNTUNED, ScanScore, TruthLesion
from sct_lesion_losses.operating_point import THRESHOLDS, Choice, Tally
from sct_lesion_losses.report.scores import LesionRow
from sct_lesion_losses.scan_results import Model

SCT_RULE = "sct as shipped"


@dataclass(frozen=True)
class Entrant:
    """A model as the tables name it.

    Attributes
    ----------
    label : str
        Name in the tables.
    version, loss : str
    sha256 : str
        Of its network.
    tuned : float or None
        Its tuned threshold.
    model : Model
    """

    label: str
    version: str
    loss: str
    sha256: str
    tuned: float | None
    model: Model

    @property
    def is_sct(self) -> bool:
        """Whether it is SCT's own model."""
        return self.model.name == SCT_NAME

    @property
    def thresholds(self) -> tuple[float | None, ...]:
        """Thresholds of its rows; a rule has none."""
        return (None,) if self.model.sct_rule else self.model.thresholds

    def is_tuned(self, threshold: float | None) -> bool:
        """Whether a threshold of `thresholds` is its own operating point."""
        return self.model.sct_rule or (threshold is not None and threshold == self.tuned)


def enter(bundles: Sequence[str | Path], loaded: Sequence[Bundle]) -> list[Entrant]:
    """Name the models; bundles of one name are told apart by their versions.

    Parameters
    ----------
    bundles : sequence of str or Path
        As they were given; ``sct`` enters twice, once by its own rule.
    loaded : sequence of Bundle
        The same, loaded.

    Raises
    ------
    UsageError
        Two cannot be told apart.
    """
    often = Counter(bundle.name for bundle in loaded)
    entrants = []
    for given, bundle in zip(bundles, loaded, strict=True):
        info, tuned = bundle.info, bundle.tuned_threshold
        label = bundle.name if often[bundle.name] == 1 else f"{bundle.name} {info.version}"
        cuts = tuple(sorted({*THRESHOLDS, *(() if tuned is None else (tuned,))}))
        model = Model(str(given), bundle.pmap_sha256, cuts)
        first = Entrant(label, info.version, info.loss.name, bundle.sha256, tuned, model)
        entrants.append(first)
        if str(given) == SCT_NAME:
            rule = replace(model, thresholds=scan_results.RULE_THRESHOLDS, sct_rule=True)
            entrants.append(replace(first, label=SCT_RULE, model=rule))
    labels = Counter(entrant.label for entrant in entrants)
    for label, count in labels.items():
        if count > 1:
            raise UsageError(
                f"{count} of the models are named {label}; give each of them once, or train or "
                "import one under another name or version"
            )
    return entrants


def scores_of(entrant: Entrant, scan: CohortScan, name: str, counts: Tally) -> Iterator[ScanScore]:
    """Yield the scores of a scan, called `name`, at every threshold and by every preset."""
    for k, threshold in enumerate(entrant.thresholds):
        voxels = counts.voxel_score(k)
        for preset in PRESETS:
            yield ScanScore(
                name,
                scan.subject,
                scan.site,
                entrant.label,
                threshold,
                entrant.is_tuned(threshold),
                voxels,
                counts.lesion_score(preset, k),
            )


def lesions_of(entrant: Entrant, scan: CohortScan, name: str, counts: Tally) -> Iterator[LesionRow]:
    """Yield the lesions of its manual mask at 0.5 and at the tuned threshold, by every preset."""
    for k, threshold in enumerate(entrant.thresholds):
        tuned = entrant.is_tuned(threshold)
        if not tuned and threshold != UNTUNED:
            continue
        for preset, curve in counts.lesions.items():
            for number, (size, detected) in enumerate(
                zip(curve.truth_sizes, curve.found[k], strict=True), start=1
            ):
                volume_mm3 = int(size) * counts.voxel_mm3
                lesion = TruthLesion(
                    name,
                    scan.subject,
                    entrant.label,
                    threshold,
                    tuned,
                    number,
                    volume_mm3,
                    bool(detected),
                )
                yield LesionRow(lesion, preset)


def described(entrants: Sequence[Entrant], sct: Choice | None) -> dict[str, dict[str, Any]]:
    """Say of every model what it is; `sct` is how SCT's was tuned."""
    found = {}
    for e in entrants:
        entry: dict[str, Any] = {
            "Description": "SCT's own lesion model" if e.is_sct else "Model bundle",
            "Version": e.version,
            "NetworkSHA256": e.sha256,
            "Loss": e.loss,
            "TunedThreshold": None if e.model.sct_rule else e.tuned,
        }
        if e.model.sct_rule:
            entry["Description"] = "SCT's own lesion model exactly as sct_deepseg_lesion runs it"
        elif e.is_sct and sct is not None:
            entry["Tuning"] = {
                "Objective": sct.objective,
                "Scans": sct.n_scans,
                "Subjects": sct.n_subjects,
                "Interval": None if math.isnan(sct.interval[0]) else list(sct.interval),
            }
        found[e.label] = entry
    return found
