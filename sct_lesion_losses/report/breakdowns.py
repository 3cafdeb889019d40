"""Tables of an evaluation by patient, by site and by lesion size, at the tuned thresholds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics import scan_score, summary
from sct_lesion_losses.metrics.scan_score import ByBundle, ScanScore, TruthLesion
from sct_lesion_losses.report import intervals, numbers
from sct_lesion_losses.report.markup import Table, row

_OF_SITES = ("V-F1", "L-F1")
EDGES_MM3 = (30.0, 100.0)  # between small, middle and large lesions


def threshold(scans: Mapping[str, ScanScore]) -> str:
    """Threshold of the rows of one bundle."""
    return numbers.threshold(next(iter(scans.values())).threshold)


def patients(scores: ByBundle) -> Table:
    """P-sensitivity and P-specificity with 95 % Wilson intervals, by both rules.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.tuned`.
    """
    rows = []
    for bundle, scans in scores.items():
        found = scan_score.patients(scans.values())
        any_lesion = scan_score.patients(scans.values(), "any_lesion")
        shares = (found.sensitivity, any_lesion.sensitivity, any_lesion.specificity)
        counts = (str(found.sensitivity.n), str(found.specificity.n))
        rows.append(row(bundle, threshold(scans), *map(numbers.share, shares), *counts))
    return Table(
        "Patient-wise scores at the tuned thresholds",
        (
            "Model",
            "Threshold",
            "P-sensitivity (detected)",
            "P-sensitivity (any_lesion)",
            "P-specificity",
            "With lesions",
            "Without",
        ),
        tuple(rows),
        notes=(
            "Share of scans with its 95 % Wilson interval. A scan with lesions is found where one "
            "of them is detected, or, by any_lesion, where any lesion is predicted.",
            *numbers.rules(scores),
        ),
    )


def sites(scores: ByBundle) -> Table:
    """Scores of each site, a row per model.

    Parameters
    ----------
    scores : ByBundle
        From `scan_score.tuned`.
    """
    names = {r.site for scans in scores.values() for r in scans.values()}
    rows = []
    for site in sorted(names, key=lambda name: (not name, name)):
        for bundle, scans in scores.items():
            own = [r for r in scans.values() if r.site == site]
            if not own:
                continue
            found = scan_score.patients(own)
            shares = (found.sensitivity, found.specificity)
            rows.append(
                row(
                    site or numbers.UNKNOWN,
                    bundle,
                    threshold(scans),
                    *(text for m in _OF_SITES for text in _summary(own, m)),
                    *(numbers.score(share.value) for share in shares),
                    *(str(share.n) for share in shares),
                )
            )
    return Table(
        "Sites, at the tuned thresholds",
        (
            "Site",
            "Model",
            "Threshold",
            *(text for m in _OF_SITES for text in (m, f"{m}, 95 % interval")),
            "P-sensitivity",
            "P-specificity",
            "With lesions",
            "Without",
        ),
        tuple(rows),
        notes=(
            f"{' and '.join(_OF_SITES)}: median (mean±standard deviation), and the 95 % interval "
            "of the median by resampling subjects.",
            *numbers.rules(scores),
        ),
    )


def _summary(scans: Sequence[ScanScore], measure: str) -> tuple[str, str]:
    spread = numbers.spread(scan_score.spread(scans, measure))
    return spread, intervals.text(scans, measure)


def lesion_sizes(
    lesions: Sequence[TruthLesion],
    edges_mm3: Sequence[float] = EDGES_MM3,
    rules: Sequence[str] = (),
) -> Table:
    """Share of the lesions that is detected, by class of volume, a row per model.

    Parameters
    ----------
    lesions : sequence of TruthLesion
        Those at tuned thresholds are used.
    edges_mm3 : sequence of float
        Rising; a lesion as large as an edge is in the class above it.
    rules : sequence of str
        Notes on the preset by which lesions count as detected; see the function of this name.

    Raises
    ------
    UsageError
        The edges do not rise.
    DataError
        A lesion has two rows for one bundle.
    """
    edges = list(edges_mm3)
    if any(low >= high for low, high in pairwise(edges)):
        raise UsageError(f"the edges of lesion size are {edges} mm3, expected rising numbers")
    tuned = [lesion for lesion in lesions if lesion.tuned]
    if len({(lesion.bundle, lesion.scan, lesion.label) for lesion in tuned}) < len(tuned):
        raise DataError("a lesion has two tuned rows for one bundle; every scan needs its own name")
    bundles = {lesion.bundle: lesion.threshold for lesion in tuned}
    rows = []
    for k, name in enumerate(_classes(edges) if tuned else []):
        for bundle, at in bundles.items():
            own = [
                lesion
                for lesion in tuned
                if lesion.bundle == bundle and bisect_right(edges, lesion.volume_mm3) == k
            ]
            detected = [float(lesion.detected) for lesion in own]
            found = summary.interval(detected, [lesion.subject for lesion in own], np.mean)
            counts = (str(len(own)), str(int(sum(detected))))
            rows.append(row(name, bundle, numbers.threshold(at), *counts, numbers.share(found)))
    return Table(
        "Lesions detected, by volume, at the tuned thresholds",
        ("Volume, mm³", "Model", "Threshold", "Lesions", "Detected", "Share"),
        tuple(rows),
        notes=(
            "Share of the lesions of all scans, with its 95 % interval by resampling subjects.",
            *rules,
        ),
    )


def _classes(edges: Sequence[float]) -> list[str]:
    """Names of the classes that the edges part."""
    if not edges:
        return ["all"]
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"under {edges[0]:g}", *between, f"{edges[-1]:g} or more"]
