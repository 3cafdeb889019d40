import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.thresholds import THRESHOLDS, Objective
from sct_lesion_losses.thresholds.site import (
    PRIOR_SUBJECTS,
    Curves,
    credibility,
    recalibrate,
    weight_of,
)

GRID = np.array(THRESHOLDS)


def group(optimum: float, n: int, seed: int = 0, noise: float = 0.03, name: str = "s") -> Curves:
    """`n` scans of `n` subjects whose V-F1 is highest about one threshold."""
    rng = np.random.default_rng(seed)
    where = optimum + rng.normal(0, noise, (n, 1))
    height = rng.uniform(0.4, 0.8, (n, 1))
    return Curves(height * np.exp(-((GRID - where) ** 2) / 0.18), [f"{name}{i}" for i in range(n)])


def repeated(curves: Curves, times: int) -> Curves:
    names = [f"{s}-{k}" for k in range(times) for s in curves.subjects]
    return Curves(np.tile(curves.scores, (times, 1)), names)


counts = st.floats(0.5, 100)
differences = st.floats(0, 20)


@given(counts, counts, differences, st.floats(0.5, 5))
def test_the_weight_is_a_share_and_grows_with_local_subjects_and_difference(n, m, apart, nu):
    by_subjects = [credibility(k * n, m, apart, 0) for k in (1, 2, 4)]
    assert 0 < by_subjects[0] < by_subjects[1] < by_subjects[2] < 1
    by_difference = [credibility(n, m, k * apart, nu) for k in (0, 0.5, 1, 2)]
    assert (np.diff(by_difference) >= -1e-14).all()  # sums of a quadrature, rounded
    assert 0 < by_difference[0] <= by_difference[-1] < 1


@given(counts, differences, st.floats(0, 5))
def test_no_local_subject_has_no_weight_and_very_many_have_it_all(m, difference, directions):
    assert credibility(1e-9, m, difference, directions) == pytest.approx(0, abs=1e-3)
    assert credibility(1e9, m, difference, directions) == pytest.approx(1, abs=1e-3)


def test_the_prior_gives_half_of_the_weight_to_its_own_number_of_subjects():
    # With m without end: weight(ρ) = kρ / (1 + kρ), one minus a number uniform in (0, 1).
    assert credibility(PRIOR_SUBJECTS, 1e12) == pytest.approx(0.5, abs=1e-6)


def test_the_posterior_is_that_of_an_integral_worked_out_otherwise():
    # ρ drawn from its prior, weighed by the χ² density of ν D² / (σ² spread).
    from scipy import stats

    n, m, difference, nu = 4, 9, 0.7, 2.5
    uniform = np.random.default_rng(0).uniform(size=100_000)
    rho = (1 / uniform - 1) / PRIOR_SUBJECTS
    spread = rho + 1 / m + 1 / n
    density = stats.chi2.pdf(nu * difference / spread, nu) / spread
    wanted = np.average((rho + 1 / m) / spread, weights=density)
    assert credibility(n, m, difference, nu) == pytest.approx(wanted, abs=4e-3)


def test_what_is_the_same_in_all_scans_of_a_site_but_for_its_height_is_no_difference():
    shipped = group(0.4, 8, noise=0.1).scores
    harder = shipped[:4] - 0.2
    assert weight_of(harder, shipped) == pytest.approx(weight_of(shipped[:4], shipped))


def test_a_site_like_the_shipped_scans_keeps_their_threshold():
    shipped = group(0.4, 12)
    found = recalibrate(group(0.4, 6, seed=1), shipped, GRID, 0.4, bootstraps=200)
    assert found.threshold == 0.4
    assert found.interval[0] <= 0.4 <= found.interval[1]


def test_one_scan_moves_the_threshold_less_than_many_of_its_kind():
    shipped, local = group(0.3, 10, noise=0.1), group(0.7, 1, seed=3, noise=0.0)
    found = [
        recalibrate(
            repeated(local, n), shipped, GRID, 0.3, objective=Objective("mean_v_f1"), bootstraps=0
        )
        for n in (1, 5, 80)
    ]
    assert [f.local_threshold for f in found] == [0.7] * 3
    assert 0.3 <= found[0].threshold < found[2].threshold == 0.7
    assert found[0].weight < found[1].weight < found[2].weight
    assert found[2].weight > 0.9


def test_one_subject_has_no_score_held_out_and_no_interval():
    found = recalibrate(group(0.5, 1), group(0.4, 8), GRID, 0.4, bootstraps=50)
    assert np.isnan([found.leave_one_out, *found.interval]).all()
    assert 0 < found.held_out_shipped < 1
    one = recalibrate(group(0.5, 1), group(0.4, 1), GRID, 0.4, bootstraps=50)
    assert one.weight == pytest.approx(credibility(1, 1))


@settings(max_examples=25)
@given(st.integers(2, 6), st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_of_the_scans_is_of_no_account(n, seed, random):
    local, shipped = group(0.6, n, seed, 0.2), group(0.4, 7, seed + 1, 0.2)
    order = list(range(n))
    random.shuffle(order)
    shuffled = Curves(local.scores[order], [local.subjects[k] for k in order])
    one, other = (recalibrate(g, shipped, GRID, 0.4, bootstraps=0) for g in (local, shuffled))
    assert one.threshold == other.threshold
    assert one.weight == pytest.approx(other.weight)
    assert one.leave_one_out == pytest.approx(other.leave_one_out)


@pytest.mark.parametrize("objective", ["median_v_f1", "mean_v_f1"])
def test_a_scan_held_out_has_no_say_in_the_threshold_it_is_scored_at(objective):
    local, shipped = group(0.7, 5, 2, 0.25), group(0.3, 8, 5, 0.2)
    subjects, wanted = ["a", "a", "b", "c", "d"], Objective(objective)
    local = Curves(local.scores, subjects)
    scores = []
    for row, subject in enumerate(subjects):
        rest = [k for k, s in enumerate(subjects) if s != subject]
        without = Curves(local.scores[rest], [subjects[k] for k in rest])
        t = recalibrate(without, shipped, GRID, 0.3, objective=wanted, bootstraps=0).threshold
        scores.append(local.scores[row, GRID.tolist().index(t)])
    found = recalibrate(local, shipped, GRID, 0.3, objective=wanted, bootstraps=0)
    summary = np.median if objective == "median_v_f1" else np.mean
    assert found.leave_one_out == pytest.approx(summary(scores))
    assert found.held_out_shipped == pytest.approx(summary(local.scores[:, 6]))


def test_the_combined_curve_lies_between_the_two():
    found = recalibrate(group(0.7, 4, 2), group(0.3, 8), GRID, 0.3, bootstraps=0)
    wanted = found.weight * found.local_curve + (1 - found.weight) * found.shipped_curve
    assert found.curve == pytest.approx(wanted)
    assert found.threshold == GRID[np.argmax(wanted)]
    assert not found.at_end


def test_the_interval_spans_what_the_subjects_say():
    low, high = group(0.2, 3, noise=0).scores, group(0.9, 3, noise=0).scores
    local = Curves(np.concatenate([low, high]), list("abcdef"))
    found = recalibrate(local, group(0.5, 6, noise=0.2), GRID, 0.5, bootstraps=300)
    assert found.interval[0] <= found.threshold <= found.interval[1]
    assert found.interval[1] - found.interval[0] >= 0.2


def test_only_what_is_allowed_is_chosen():
    local, shipped = group(0.3, 4, 2), group(0.3, 8)
    allowed = GRID >= 0.5
    found = recalibrate(local, shipped, GRID, 0.5, allowed=allowed, bootstraps=50)
    assert (found.threshold, found.local_threshold) == (0.5, 0.5)
    assert found.interval == (0.5, 0.5)
    assert np.array_equal(np.isnan(found.curve), ~allowed)
    assert found.leave_one_out == found.held_out_shipped


def test_scores_of_no_use_are_refused_or_give_no_threshold_of_use():
    local, shipped = group(0.5, 2), group(0.5, 3)
    with pytest.raises(DataError, match="no local scan holds lesions"):
        recalibrate(Curves(np.empty((0, 21)), []), shipped, GRID, 0.5)
    with pytest.raises(UsageError, match="the shipped curves hold NaN"):
        recalibrate(local, Curves(shipped.scores * np.nan, shipped.subjects), GRID, 0.5)
    nothing = Curves(np.zeros_like(local.scores), local.subjects)
    found = recalibrate(nothing, shipped, GRID, 0.5, bootstraps=0)
    assert found.threshold == 0.5
    assert not found.useful
