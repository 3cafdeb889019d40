import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics.statistics import holm, interval, spread, wilcoxon

ORACLE = json.loads(
    (Path(__file__).parents[2] / "testing_data" / "oracles" / "statistics.json").read_text(
        encoding="utf-8"
    )
)
NAN = float("nan")
TESTS = ORACLE["wilcoxon"]

scores = st.integers(0, 20).map(lambda k: k / 20)  # ties and zeros abound
pairs = st.lists(st.tuples(scores, scores), max_size=40)
p_values = st.lists(st.one_of(st.floats(0, 1), st.just(NAN)), max_size=12)


def floats(values: list[float | str]) -> list[float]:
    return [float(value) for value in values]  # the oracle writes NaN as a string


def columns(drawn: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in drawn], [b for _, b in drawn]


def enumerated(differences: np.ndarray) -> float:
    """Two-sided p by trying every assignment of signs, one after the other."""
    ranks = stats.rankdata(np.abs(differences))
    seen = abs(np.sign(differences) @ ranks)
    signs = itertools.product((-1, 1), repeat=len(ranks))
    extreme = [abs(np.array(sign) @ ranks) >= seen - 1e-9 for sign in signs]
    return float(np.mean(extreme))


@pytest.mark.parametrize(
    ("values", "subjects", "wanted"),
    [
        ([0.2, NAN, 0.6], "abc", (0.4, 2)),
        ([0.1, 0.9, NAN], "aab", (0.5, 2)),  # left are scans of one subject
        ([NAN], "a", (NAN, 0)),
    ],
)
def test_nan_is_left_out_and_one_subject_has_no_interval(values, subjects, wanted):
    found = interval(values, subjects)
    assert (found.value, found.n) == pytest.approx(wanted, nan_ok=True)
    assert np.isnan([found.low, found.high]).all() == (subjects != "abc")


@pytest.mark.parametrize("statistic", [np.median, np.mean])
def test_an_interval_is_that_of_drawing_subjects_one_resampling_after_the_other(statistic):
    subjects = ["a", "b", "a", "c", "d", "d", "d"]
    values = np.random.default_rng(1).uniform(size=7)
    rows = {s: [k for k, owner in enumerate(subjects) if owner == s] for s in "abcd"}
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(300):
        chosen = [row for k in rng.integers(4, size=4) for row in rows["abcd"[k]]]
        drawn.append(statistic(values[chosen]))
    found = interval(values, subjects, statistic, bootstraps=300, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert found.value == pytest.approx(statistic(values))


@pytest.mark.parametrize("name", [name for name in TESTS if name != "all_zero"])
def test_the_signed_rank_test_is_that_of_the_oracle(name: str) -> None:
    case = TESTS[name]
    found = wilcoxon(floats(case["x"]), floats(case["y"]))
    exact = case.get("exact_enumeration_wilcox_zeros_dropped")  # up to 16 pairs
    expected = exact["pvalue"] if exact else case["scipy"]["wilcox"]["pvalue"]
    assert found.p == pytest.approx(expected, rel=1e-12)
    assert found.n == case["n_nonzero"]
    assert found.statistic == case["scipy"]["wilcox"]["statistic"]
    assert found.rank_biserial == pytest.approx(case["rank_biserial"], rel=1e-12)


def test_scores_without_any_difference_have_p_1_and_no_effective_pair() -> None:
    case = TESTS["all_zero"]
    found = wilcoxon(floats(case["x"]), floats(case["y"]))
    assert (found.p, found.n, found.rank_biserial) == (1, 0, 0)


@pytest.mark.parametrize(("a", "b"), [([], []), ([NAN, 0.5], [0.5, NAN])])
def test_no_pair_at_all_has_no_p(a, b) -> None:
    found = wilcoxon(a, b)
    assert found.n == 0
    assert np.isnan([found.p, found.statistic, found.rank_biserial]).all()


def test_differences_that_only_rounding_tells_apart_are_ties() -> None:
    # As floats, 0.75 - 0.7 > 0.45 - 0.4 and 0.3 - 0.2 < 0.8 - 0.7.
    found = wilcoxon([0.75, 0.4, 0.3, 0.7], [0.7, 0.45, 0.2, 0.8])
    assert (found.statistic, found.p, found.rank_biserial) == (5, 1, 0)  # -.05 +.05 -.1 +.1


def test_sixteen_tied_pairs_are_exact_and_seventeen_are_scipys() -> None:
    a, b = np.zeros(16), np.repeat([0.1, -0.1], [13, 3])
    # At least 13 of 16 fair coins on one side: 2 (1 + 16 + 120 + 560) / 2^16
    assert wilcoxon(a, b).p == pytest.approx(2 * 697 / 2**16, rel=1e-12)
    longer = np.append(b, 0.1)
    assert wilcoxon(np.zeros(17), longer).p == stats.wilcoxon(longer).pvalue


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=9))
def test_p_counts_every_assignment_of_signs(drawn: list[tuple[float, float]]) -> None:
    a, b = columns(drawn)
    differences = np.round(np.subtract(b, a), 12)
    differences = differences[differences != 0]
    expected = enumerated(differences) if len(differences) else 1.0
    assert wilcoxon(a, b).p == pytest.approx(expected, rel=1e-12)


@given(pairs)
def test_exchanging_the_sides_turns_only_the_effect_around(
    drawn: list[tuple[float, float]],
) -> None:
    a, b = columns(drawn)
    one, other = wilcoxon(a, b), wilcoxon(b, a)
    assert (one.statistic, one.p, one.n) == pytest.approx(
        (other.statistic, other.p, other.n), nan_ok=True
    )
    assert one.rank_biserial == pytest.approx(-other.rank_biserial, nan_ok=True)


@given(pairs.filter(bool), st.data())
def test_neither_order_nor_pairs_with_nan_matter(
    drawn: list[tuple[float, float]], data: st.DataObject
) -> None:
    mixed = data.draw(st.permutations([*drawn, (NAN, 0.4), (0.4, NAN), (NAN, NAN)]))
    found, expected = wilcoxon(*columns(mixed)), wilcoxon(*columns(drawn))
    assert found == expected
    assert 0 < found.p <= 1
    assert -1 <= found.rank_biserial <= 1


def test_scores_of_different_scans_are_refused() -> None:
    with pytest.raises(UsageError, match="expected two lists over the same scans"):
        wilcoxon([0.1, 0.2], [0.1])


def test_holm_on_a_worked_example() -> None:
    # Sorted: 0.01 * 4 = 0.04, 0.015 * 3 = 0.045, 0.03 * 2 = 0.06, 0.04 * 1 raised to 0.06
    found = holm([0.04, 0.01, NAN, 0.015, 0.03])
    assert found == pytest.approx([0.06, 0.04, NAN, 0.045, 0.06], nan_ok=True)


@given(p_values)
def test_holm_is_between_the_p_value_and_bonferroni_and_keeps_their_order(p: list[float]) -> None:
    raw, adjusted = np.array(p), np.array(holm(p))
    assert np.array_equal(np.isnan(raw), np.isnan(adjusted))
    raw, adjusted = raw[~np.isnan(raw)], adjusted[~np.isnan(adjusted)]
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * len(raw))).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()
    if len(raw):
        assert adjusted.min() == min(1, raw.min() * len(raw))


def test_a_spread_is_that_of_the_oracle() -> None:
    case = ORACLE["aggregation"]
    found = spread(floats(case["values"]))
    expected = (case["median"], case["mean"], case["std_ddof1"])
    assert (found.median, found.mean, found.std) == pytest.approx(expected, rel=1e-12)
    assert found.n == case["n"]


def test_one_score_has_no_spread_and_none_has_no_median() -> None:
    one, none = spread([NAN, 0.5]), spread([NAN, NAN])
    assert (one.median, one.mean, one.n) == (0.5, 0.5, 1)
    assert np.isnan(one.std)
    assert none.n == 0
    assert np.isnan([none.median, none.mean, none.std]).all()
