"""Numbers and rules as the tables of an evaluation print them; what is not known is ``n/a``."""

from __future__ import annotations

import math
from collections.abc import Callable

from sct_lesion_losses.metrics.detection import Preset
from sct_lesion_losses.metrics.patient import Proportion
from sct_lesion_losses.metrics.scan_score import ByBundle
from sct_lesion_losses.metrics.summary import Interval, Spread

UNKNOWN = "n/a"  # a missing value, as in BIDS tables


def score(value: float) -> str:
    """Two decimals."""
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def change(value: float) -> str:
    """Two decimals with a sign, which 0.00 has none of."""
    rounded = round(value, 2)
    return score(0.0) if rounded == 0 else UNKNOWN if math.isnan(value) else f"{rounded:+.2f}"


def spread(found: Spread) -> str:
    """``median (mean±std)``."""
    if not found.n:
        return UNKNOWN
    return f"{score(found.median)} ({score(found.mean)}±{score(found.std)})"


def share(found: Interval | Proportion) -> str:
    """``value (low to high)``; ``value (n/a)`` of one subject."""
    return f"{score(found.value)} ({bounds(found)})" if found.n else UNKNOWN


def difference(found: Interval) -> str:
    """``value (low to high)``, with signs; ``value (n/a)`` of one subject."""
    return f"{change(found.value)} ({bounds(found, change)})" if found.n else UNKNOWN


def p_value(p: float) -> str:
    """Four decimals, never rounded to 0."""
    return UNKNOWN if math.isnan(p) else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def threshold(value: float | None) -> str:
    """As it is typed."""
    return UNKNOWN if value is None else f"{value:g}"


def rank_sum(value: float) -> str:
    """With half ranks."""
    return UNKNOWN if math.isnan(value) else f"{value:g}"


def bounds(found: Interval | Proportion, written: Callable[[float], str] = score) -> str:
    """``low to high``, each as `written`; ``n/a`` where they are not known."""
    if math.isnan(found.low) or math.isnan(found.high):
        return UNKNOWN
    return f"{written(found.low)} to {written(found.high)}"


def rules(*scores: ByBundle) -> tuple[str, ...]:
    """Name the lesion preset of the rows; nothing where there is none."""
    scans = (scan for some in scores for of_bundle in some.values() for scan in of_bundle.values())
    return tuple(map(rule, dict.fromkeys(scan.lesions.preset for scan in scans)))


def rule(preset: Preset) -> str:
    """Sentence on what makes a lesion count as detected."""
    least = "more than" if preset.strict else "at least"
    volume = f" of more than {preset.min_volume_mm3:g} mm³" if preset.min_volume_mm3 else ""
    if preset.reach is None:
        by = "by a single lesion"
    else:
        by = f"and the largest overlaps, up to {100 * preset.reach:g} % of it, are with lesions"
    return (
        f"Lesion-wise scores by the preset {preset.name}: {preset.connectivity}-neighbour lesions"
        f"{volume}, detected where {least} {100 * preset.min_overlap:g} % is covered {by} of which "
        f"at most {100 * preset.max_outside:g} % lies outside."
    )
