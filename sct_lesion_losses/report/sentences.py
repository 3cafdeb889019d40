"""What an evaluation shows, in sentences: stable losses, what tuning buys, what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sct_lesion_losses.metrics.scores import ALPHA, UNTUNED
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.tables import REFERENCE, Published
from sct_lesion_losses.report.trends import STEP, Trend, span

_SAME = 0.005  # printed with two decimals, such differences are none
_FEWEST = 3  # models, for a correlation of ranks to say anything


def stability(trends: Sequence[Trend]) -> list[str]:
    """Say which models are stable over thresholds: the widths of their plateaus."""
    if not trends:
        return []
    ranked = sorted(trends, key=lambda trend: -trend.width)
    said = "; ".join(
        f"{listed([t.bundle for t in alike])} {_range(alike[0])}"
        if len(alike) == 1
        else f"{listed([f'{t.bundle} ({span(t.plateau)})' for t in alike])}, {_width(alike[0])}"
        for alike in _alike(ranked)
    )
    return [
        "The median V-F1 stays within 0.1 of its best, from the widest range of thresholds to the "
        f"narrowest: {said}."
    ]


def gains(trends: Sequence[Trend]) -> list[str]:
    """Say what tuning buys each model, and what of it is significant."""
    if not trends:
        return []
    moved = [t for t in trends if t.tuned != UNTUNED]
    sentences = []
    same = [t.bundle for t in trends if t.tuned == UNTUNED]
    if same:
        sentences.append(f"Tuning leaves {listed(same)} at 0.5.")
    for verb, some in (
        ("raises", [t for t in moved if t.gain >= _SAME]),
        ("lowers", [t for t in moved if t.gain <= -_SAME]),
    ):
        if some:
            ranked = sorted(some, key=lambda t: -abs(t.gain))
            each = listed(
                [f"{t.bundle} from {_two(t.v_f1_untuned)} to {_two(t.v_f1)}" for t in ranked]
            )
            sentences.append(f"Tuning {verb} the median V-F1 of {each}.")
    still = [t.bundle for t in moved if abs(t.gain) < _SAME]
    if still:
        sentences.append(f"It hardly changes that of {listed(still)}.")
    if not moved:
        return sentences
    proved = [t for t in moved if t.test.significant]
    if proved:
        each = listed([_tested(t) for t in proved])
        sentences.append(
            f"By Wilcoxon's signed-rank test, corrected by Holm, V-F1 at the tuned threshold "
            f"differs from that at 0.5 for {each}."
        )
    others = [t for t in moved if not t.test.significant]
    if others:
        least = min(others, key=lambda t: _last_if_nan(t.test.p_holm))
        whom = f"for none of {len(moved)} models" if not proved else "for no other"
        sentences.append(
            f"The difference is significant {whom}"
            f" (smallest p {'of these ' if proved else ''}{_p(least)}, {least.bundle})."
        )
    return sentences


def costs(trends: Sequence[Trend]) -> list[str]:
    """Say what tuning takes from P-specificity."""
    known = [t for t in trends if not math.isnan(t.cost)]
    if not known:
        return ["The unseen scans all hold lesions, so that P-specificity is not known."] * bool(
            trends
        )
    n = known[0].specificity.n
    sentences = []
    for verb, some in (
        ("lowers", [t for t in known if t.cost > STEP]),
        ("raises", [t for t in known if t.cost < -STEP]),
    ):
        if some:
            ranked = sorted(some, key=lambda t: -abs(t.cost))
            each = listed(
                [
                    f"{t.bundle} from {_two(t.specificity_untuned.value)} to "
                    f"{_two(t.specificity.value)}"
                    for t in ranked
                ]
            )
            sentences.append(f"It {verb} the P-specificity, over {n} lesion-free scans, of {each}.")
    still = [t.bundle for t in known if abs(t.cost) <= STEP]
    if still:
        what = "It is" if sentences else f"The P-specificity, over {n} lesion-free scans, is"
        sentences.append(f"{what} the same at both thresholds for {listed(still)}.")
    return sentences


def against(trends: Sequence[Trend], published: Mapping[str, Published]) -> list[str]:
    """Say how the models compare with the study's.

    Parameters
    ----------
    trends : sequence of Trend
    published : mapping of str to Published
        The study's values, by the names of the models here; others are passed over.
    """
    both = [(t, published[t.bundle]) for t in trends if t.bundle in published]
    if not both:
        return []
    sentences = [
        f"{REFERENCE}, had scans of its own: the order of the losses and the direction of each "
        "change can be compared, the values themselves cannot."
    ]
    sentences.append(_thresholds_beside(both))
    if len(both) >= _FEWEST:
        for name, here, there in (
            ("median V-F1", [t.v_f1 for t, _ in both], [p.v_f1 for _, p in both]),
            (
                "P-specificity",
                [t.specificity.value for t, _ in both],
                [p.p_specificity for _, p in both],
            ),
        ):
            rho, p = _rank_correlation(here, there)
            if not math.isnan(rho):
                sentences.append(
                    f"The order of the {len(both)} models by {name} {_agreement(rho, p)} the "
                    f"published one (Spearman's rank correlation {tables.change(rho)}, "
                    f"p {_equals(p)})."
                )
    first = max(both, key=lambda pair: pair[0].v_f1)
    theirs = max(both, key=lambda pair: pair[1].v_f1)
    tied = [t.bundle for t, p in both if p.v_f1 == theirs[1].v_f1]
    sentences.append(
        f"The highest median V-F1 is that of {first[0].bundle}, {_two(first[0].v_f1)}; among the "
        f"same, the study reports that of {listed(tied)}, {_two(theirs[1].v_f1)}."
    )
    reported = [(t, p) for t, p in both if p.v_f1_untuned is not None]
    for trend, known in reported:
        assert known.v_f1_untuned is not None
        sentences.append(
            f"For {trend.bundle} the study reports {_two(known.v_f1_untuned)} at 0.5 and "
            f"{_two(known.v_f1)} at its tuned threshold; here it is {_two(trend.v_f1_untuned)} and "
            f"{_two(trend.v_f1)}."
        )
    return sentences


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _thresholds_beside(both: Sequence[tuple[Trend, Published]]) -> str:
    def side(threshold: float) -> int:
        return int(np.sign(round(threshold - UNTUNED, 9)))

    product = [side(t.tuned) * side(p.threshold) for t, p in both]
    agreed, differ, amid = (
        [
            f"{t.bundle} ({tables.threshold_text(t.tuned)}, published {tables.threshold_text(p.threshold)})"
            for (t, p), same in zip(both, product, strict=True)
            if same == wanted
        ]
        for wanted in (1, -1, 0)
    )
    said = [
        f"{words} for {listed(some)}"
        for words, some in (
            ("on another side of 0.5 than the published one", differ),
            ("on the same side", agreed),
            ("at 0.5, or the published one is,", amid),
        )
        if some
    ]
    return f"The tuned threshold is {'; '.join(said)}."


def _rank_correlation(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Spearman's correlation and its two-sided p, by all pairings where there are few models."""
    if any(map(math.isnan, (*a, *b))) or len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan, math.nan
    mine, theirs = (stats.zscore(stats.rankdata(some)) for some in (a, b))

    def correlation(paired: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray((paired * theirs).mean(axis=axis))

    found = stats.permutation_test(
        (mine,), correlation, permutation_type="pairings", vectorized=True, rng=0
    )
    return float(found.statistic), float(found.pvalue)


def _agreement(rho: float, p: float) -> str:
    if p >= ALPHA:
        return "shows no clear relation to"
    return "is like" if rho > 0 else "reverses"


def _alike(ranked: Sequence[Trend]) -> list[list[Trend]]:
    """Group neighbours whose plateaus are as wide."""
    groups = [[ranked[0]]]
    for before, after in pairwise(ranked):
        if abs(before.width - after.width) < STEP:
            groups[-1].append(after)
        else:
            groups.append([after])
    return groups


def _range(trend: Trend) -> str:
    if trend.width < STEP:
        return f"at {trend.plateau[0]:g} alone"
    return f"from {trend.plateau[0]:g} to {trend.plateau[1]:g} ({_width(trend)})"


def _width(trend: Trend) -> str:
    return "one threshold alone" if trend.width < STEP else f"{trend.width:.2g} wide"


def _tested(trend: Trend) -> str:
    return f"{trend.bundle} (p {_p(trend)})"


def _p(trend: Trend) -> str:
    return _equals(trend.test.p_holm)


def _equals(p: float) -> str:
    text = tables.p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _two(value: float) -> str:
    return tables.score(value)


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value
