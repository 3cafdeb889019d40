from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.metrics import PRESETS
from sct_lesion_losses.thresholds import Objective, ScanCounts, choose
from sct_lesion_losses.thresholds.curves import LesionCurve

GRID = np.array([0.2, 0.3, 0.5, 0.7, 0.8])


def scan(detected: list[int], predicted: list[int], n_truth: int = 10) -> ScanCounts:
    """Lesions of 1 voxel; every detected one is a predicted one that is correct."""
    found = np.array([[k < n for k in range(n_truth)] for n in detected]).reshape(5, n_truth)
    hits, marked = np.array(detected), np.array(predicted)
    curves = {
        name: LesionCurve(marked, hits, found, np.ones(n_truth, np.int64)) for name in PRESETS
    }
    return ScanCounts(GRID, hits, marked - hits, n_truth, 1.0, curves)


def free(last_marked: int) -> ScanCounts:
    """A lesion-free scan in which lesions are predicted at the first thresholds."""
    return scan([0] * 5, [int(k < last_marked) for k in range(5)], 0)


# L-F1 = 2 detected / (10 + predicted): 0.8, 0.6, 0.5, 0.4, 0.2
FALLING = scan([8, 6, 5, 4, 2], [10] * 5)


def at(specificity: float) -> Objective:
    return Objective("l_f1_at_specificity", specificity=specificity)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9),
    st.integers(1, 9),
    st.floats(0.1, 10),
)
def test_f_beta_is_the_weighted_harmonic_mean(counts, n_truth, beta):
    tp = np.array([min(hits, n_truth) for hits, _ in counts])
    grid = np.linspace(0, 1, len(tp))
    curve = ScanCounts(grid, tp, np.array([fp for _, fp in counts]), n_truth)
    for k, value in enumerate(curve.f_beta(beta)):
        score = curve.voxel_score(k)
        if score.tp == 0:
            assert value == 0
        else:
            # 1 / F = (1 / P + b^2 / S) / (1 + b^2)
            wanted = (1 / score.precision + beta**2 / score.sensitivity) / (1 + beta**2)
            assert 1 / value == pytest.approx(wanted)


def test_a_beta_of_1_is_f1_and_a_large_one_prefers_the_more_sensitive_threshold():
    # At 0.2: S 0.9, P 9 / 40; at 0.8: S 0.4, P 1.
    scans = [scan([9, 8, 7, 6, 4], [40, 30, 20, 10, 4])]
    low, one, high = (
        choose(scans, objective=Objective("mean_v_fbeta", beta=beta), bootstraps=0)
        for beta in (0.1, 1.0, 10.0)
    )
    assert (low.threshold, high.threshold) == (0.8, 0.2)
    np.testing.assert_array_equal(one.curve, choose(scans, bootstraps=0).curve)


@pytest.mark.parametrize(("name", "expected"), [("median_l_f1", 0.2), ("mean_l_f1", 0.7)])
def test_lesion_wise_scores_decide(name, expected):
    # Of the three the median L-F1 is that of FALLING: best at 0.2. At 0.7 the means are
    # (0.4 + 0.4 + 1) / 3 = 0.6, at 0.2 they are (0.8 + 0.8 + 0) / 3 = 0.53.
    scans = [FALLING, FALLING, scan([0, 0, 0, 10, 0], [10] * 5)]
    assert choose(scans, objective=name, bootstraps=0).threshold == expected


def test_the_preset_says_which_lesions():
    one = scan([2, 2, 8, 2, 2], [10] * 5)
    mixed = replace(one, lesions={**one.lesions, "anima": FALLING.lesions["anima"]})
    chosen = [
        choose([mixed], objective=Objective("median_l_f1", preset=name), bootstraps=0)
        for name in ("paper", "anima")
    ]
    assert [choice.threshold for choice in chosen] == [0.5, 0.2]
    assert chosen[1].objective.numbers == {"preset": "anima"}


def test_lesion_wise_objectives_need_lesion_counts():
    with pytest.raises(UsageError, match="needs lesion counts"):
        choose([replace(FALLING, lesions={})], objective="median_l_f1")


def test_the_best_threshold_with_enough_specificity_is_chosen():
    # Specificity over the thresholds: 0, 1/4, 2/4, 3/4, 1.
    scans = [FALLING, free(1), free(2), free(3), free(4)]
    chosen = choose(scans, objective=at(0.5))
    assert chosen.threshold == 0.5
    assert chosen.curve == pytest.approx([np.nan, np.nan, 0.5, 0.4, 0.2], nan_ok=True)
    assert choose(scans, objective=at(0.51), bootstraps=0).threshold == 0.7
    assert (chosen.subjects, chosen.n_scans, chosen.n_subjects) == ((0,), 1, 1)
    assert chosen.objective.numbers == {"preset": "paper", "specificity": 0.5}
    assert chosen.best == 0.5


def test_a_specificity_that_is_not_known_or_reached_nowhere_is_refused():
    with pytest.raises(DataError, match="no scan is free of lesions"):
        choose([FALLING], objective=at(0.9))
    with pytest.raises(DataError, match=r"2 lesion-free scans; the highest is 0\.5, at.* 0\.5"):
        choose([FALLING, free(2), free(5)], objective=at(0.9))


def test_lesion_free_scans_are_resampled_with_their_subjects():
    # Without the first lesion-free scan 0.2 is allowed, with it only 0.8 is.
    scans = [FALLING, free(4), free(0), free(0)]
    assert choose(scans, ["a", "b", "c", "d"], objective=at(1.0)).interval == (0.2, 0.8)
    # A subject is drawn with all its scans.
    assert choose([*scans, *scans], ["a"] * 4 + ["b"] * 4, objective=at(1.0)).interval == (0.8, 0.8)


def test_a_resample_that_reaches_the_specificity_nowhere_takes_the_highest():
    # free(5) alone has specificity 0 everywhere, so all thresholds are allowed: 0.2 is best.
    # With both, half is reached from 0.7 on: of these 0.7 is best. free(3) alone: 0.7, too.
    chosen = choose([FALLING, free(5), free(3)], ["a", "b", "c"], objective=at(0.5))
    assert chosen.threshold == 0.7
    assert chosen.interval == (0.2, 0.7)


def test_left_out_subjects_are_scored_where_the_others_choose():
    # Wherever c is among the others, its lesion-free scan allows 0.8 alone: a and b are scored
    # there, at 0.2 and 0.6.
    other = scan([5, 5, 5, 5, 6], [10] * 5)
    scans = [FALLING, other, free(4), free(0)]
    chosen = choose(scans, ["a", "b", "c", "d"], objective=at(1.0), bootstraps=0)
    assert chosen.leave_one_out == pytest.approx(0.4)
    # Without d, the others of c know no specificity.
    assert np.isnan(choose(scans[:3], objective=at(1.0), bootstraps=0).leave_one_out)


@given(
    st.lists(st.lists(st.integers(0, 10), min_size=5, max_size=5), min_size=1, max_size=6),
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.sampled_from([0.25, 0.5, 1.0]),
)
def test_the_choice_is_that_of_trying_each_threshold(rows, marked, specificity):
    scans = [scan(row, [10] * 5) for row in rows] + [free(k) for k in marked]
    chosen = choose(scans, objective=at(specificity), bootstraps=20)
    allowed = [t for k, t in enumerate(GRID) if np.mean([m <= k for m in marked]) >= specificity]
    values = {t: np.median([2 * row[k] / 20 for row in rows]) for k, t in enumerate(GRID)}
    assert chosen.threshold in allowed
    assert values[chosen.threshold] == pytest.approx(max(values[t] for t in allowed))
    assert min(allowed) <= chosen.plateau[0] <= chosen.threshold <= chosen.plateau[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "best"}, "no objective is named 'best'"),
        ({"preset": "study"}, "no lesion-wise preset"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"name": "l_f1_at_specificity"}, "needs a specificity"),
        ({"specificity": 0.5}, "no other takes one"),
        ({"name": "l_f1_at_specificity", "specificity": 1.5}, "specificity is 1.5"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        Objective(**changes)


def test_what_is_doubtful_is_said_and_of_a_firm_choice_nothing(caplog):
    low, high = scan([9, 1, 1, 1, 1], [10] * 5), scan([1, 1, 1, 9, 1], [10] * 5)
    chosen = choose([low, high, low], bootstraps=200)
    said = " ".join(chosen.warnings)
    assert "lies at an end" in said
    assert "0.2 to 0.7, is wider than 0.3" in said
    assert "decided: 3, fewer than 10" in said
    assert "no lesion-free scan" in said
    assert all(warning in caplog.text for warning in chosen.warnings)
    firm = choose([scan([1, 5, 9, 5, 1], [10] * 5)] * 10 + [free(1)], bootstraps=50)
    assert firm.warnings == ()
