"""Objectives of a decision threshold, from the counts of the scans that choose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.thresholds import OBJECTIVES, Criterion
from sct_lesion_losses.thresholds.curves import FloatArray, ScanCounts

TIE = 1e-12
BETA = 2.0

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Objective:
    """Objective of a decision threshold, with its numbers.

    Attributes
    ----------
    name : str
        A key of `thresholds.OBJECTIVES`.
    beta : float
        Weight of sensitivity against precision in F-beta.
    preset : str
        Rule of the lesion-wise scores; a key of `metrics.PRESETS`.
    specificity : float or None
        P-specificity that the threshold must reach, where the objective asks for one.

    Raises
    ------
    UsageError
        The objective or the preset is unknown, a number is out of its range, or is missing.
    """

    name: str = "median_v_f1"
    beta: float = BETA
    preset: str = "paper"
    specificity: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise UsageError(
                f"no objective is named {self.name!r}; choose from {sorted(OBJECTIVES)}"
            )
        lesionwise.find(self.preset)
        if not 0 < self.beta < float("inf"):
            raise UsageError(f"beta is {self.beta!r}, expected a number above 0")
        if ("specificity" in self.criterion.numbers) != (self.specificity is not None):
            raise UsageError(
                "the objective l_f1_at_specificity needs a specificity, and no other takes one; "
                f"received {self.name} with {self.specificity}"
            )
        if self.specificity is not None and not 0 < self.specificity <= 1:
            raise UsageError(
                f"the specificity is {self.specificity!r}, expected a number in (0, 1]"
            )

    def __str__(self) -> str:
        return self.name

    @property
    def criterion(self) -> Criterion:
        """Rule of that name."""
        return OBJECTIVES[self.name]

    @property
    def numbers(self) -> dict[str, Any]:
        """Those of its numbers that it depends on, by their names."""
        return {name: getattr(self, name) for name in self.criterion.numbers}

    def scores(self, scan: ScanCounts) -> FloatArray:
        """Score of a scan at every threshold, (T,); NaN throughout for one without lesions.

        Raises
        ------
        UsageError
            The objective is lesion-wise, and the lesions of the scan were not counted.
        """
        if self.criterion.score != "l_f1":
            return scan.f_beta(self.beta if self.criterion.score == "v_fbeta" else 1.0)
        if self.preset not in scan.lesions:
            raise UsageError(
                f"{self} needs lesion counts by the preset {self.preset}, and the scan has voxel "
                "counts alone; give both (`count`)"
            )
        return scan.l_f1(self.preset)

    def summary(self, scores: FloatArray) -> FloatArray:
        """Median or mean of scores, (N, ...), over the scans."""
        return np.asarray(getattr(np, self.criterion.statistic)(scores, axis=0))


@dataclass(frozen=True, eq=False)
class Scored:
    """The scans of a choice, as an objective sees them.

    Attributes
    ----------
    objective : Objective
    scores : (N, T) float64
        Of every scan at everything that is chosen from; NaN throughout for one without lesions.
    empty : (N, T) float64
        1 where no lesion is predicted, 0 where one is; NaN throughout for a scan with lesions, and
        for all scans where the objective does not ask for a specificity.
    """

    objective: Objective
    scores: FloatArray
    empty: FloatArray

    @property
    def bearing(self) -> NDArray[np.bool_]:
        """Scans that have a score, (N,)."""
        return np.asarray(~np.isnan(self.scores[:, 0]))

    @property
    def lesion_free(self) -> NDArray[np.bool_]:
        """Scans that tell of the specificity, (N,)."""
        return np.asarray(~np.isnan(self.empty[:, 0]))

    def specificity(self, rows: Rows) -> FloatArray:
        """Share of the lesion-free of these scans in which no lesion is predicted, (T,)."""
        return np.asarray(self.empty[rows[self.lesion_free[rows]]].mean(axis=0))

    def reaches(self, rows: Rows) -> bool:
        """Tell if anything that is chosen from has the specificity asked for on these scans."""
        asked = self.objective.specificity
        return asked is None or bool(self.specificity(rows).max() >= asked - TIE)

    def curve(self, groups: Sequence[Rows]) -> FloatArray | None:
        """Objective over groups of scans at every threshold, (T,); a group may be there twice.

        NaN where the threshold does not reach the specificity. Where none does, those of the
        highest specificity are allowed. None where these scans cannot choose: there is not one of
        each kind that the objective needs.
        """
        rows = np.concatenate(groups)
        asked = self.objective.specificity
        if not self.bearing[rows].any() or (asked is not None and not self.lesion_free[rows].any()):
            return None
        found = self.objective.summary(self.scores[rows[self.bearing[rows]]])
        if asked is None:
            return found
        reached = self.specificity(rows)
        return np.where(reached >= min(asked, float(reached.max())) - TIE, found, np.nan)

    def require_reachable(self, names: Sequence[str]) -> None:
        """Refuse scans on which nothing that is chosen from has the specificity asked for.

        Parameters
        ----------
        names : sequence of T str
            Of what is chosen from.

        Raises
        ------
        DataError
            The message says what is the highest specificity, and where it is reached first.
        """
        if self.objective.specificity is None:
            return
        if not self.lesion_free.any():
            raise DataError(
                "no scan is free of lesions, so no P-specificity is known; add lesion-free scans, "
                "or choose without a specificity"
            )
        rows = np.arange(len(self.scores))
        if not self.reaches(rows):
            reached = self.specificity(rows)
            best = int(reached.argmax())
            raise DataError(
                f"a P-specificity of {self.objective.specificity:g} is not reached on these "
                f"{np.count_nonzero(self.lesion_free)} lesion-free scans; the highest is "
                f"{reached[best]:.3g}, at {names[best]}: ask for no more than that"
            )


def score(scans: Sequence[ScanCounts], objective: Objective) -> Scored:
    """Score scans at every threshold.

    Parameters
    ----------
    scans : sequence of ScanCounts
        At the same thresholds.
    objective : Objective

    Returns
    -------
    Scored

    Raises
    ------
    UsageError
        The objective is lesion-wise, and a scan has voxel counts alone.
    """
    scores = np.stack([objective.scores(scan) for scan in scans])
    empty = np.full(scores.shape, np.nan)
    if objective.specificity is not None:
        for row, scan in enumerate(scans):
            if scan.n_truth == 0:
                empty[row] = scan.lesions[objective.preset].n_predicted == 0
    return Scored(objective, scores, empty)
