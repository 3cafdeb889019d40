from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.metrics import lesionwise, voxelwise
from sct_lesion_losses.thresholds import binarize
from sct_lesion_losses.thresholds.lesion_filter import (
    FILTERS,
    PEAKS,
    VOLUMES_MM3,
    Candidates,
    Filter,
    candidates,
    choose_both,
    choose_filter,
    froc,
    mask_at,
    stepped,
)

SHAPE = (7, 6, 5)
SPACING_MM = (0.5, 1.0, 3.0)
VOXEL_MM3 = 1.5

truths = arrays(np.bool_, SHAPE, elements=st.sampled_from([False, False, False, True]))
values = st.sampled_from([0.0, 0.0, 0.0, 0.3, 0.35, 0.6, 0.95, 0.999, 1.0])
pmaps = st.tuples(
    arrays(np.float64, SHAPE, elements=values),
    st.sampled_from([np.float16, np.float32, np.float64]),
).map(lambda drawn: drawn[0].astype(drawn[1]))
filters = st.builds(Filter, st.sampled_from([0.0, *PEAKS]), st.sampled_from(VOLUMES_MM3))


def filtered_otherwise(mask, pmap, rule):
    """Look at every component by itself."""
    labels, kept = lesionwise.components(mask), np.zeros_like(mask)
    for number in range(1, labels.max() + 1):
        one = labels == number
        if one.sum() * VOXEL_MM3 >= rule.volume_mm3 and binarize(pmap, rule.peak)[one].any():
            kept |= one
    return kept


@given(truths, pmaps, st.sampled_from([0.3, 0.35, 0.5]), filters)
def test_counts_are_those_of_the_filtered_mask(truth, pmap, threshold, rule):
    mask = filtered_otherwise(binarize(pmap, threshold), pmap, rule)
    wanted = lesionwise.score(truth, mask, SPACING_MM)
    noted = candidates(truth, pmap, threshold, VOXEL_MM3)
    assert noted.score(rule) == wanted
    assert noted.voxel_score(rule) == voxelwise.score(truth, mask)
    assert noted.found(rule).sum() == wanted.detected
    assert len(noted.found(rule)) == wanted.n_truth
    kept = Candidates.from_dict(json.loads(json.dumps(noted.to_dict())))
    assert kept.to_dict() == noted.to_dict()
    assert kept.score(rule) == wanted
    assert noted.scores(FILTERS) == [noted.score(other) for other in FILTERS]


@given(pmaps, st.sampled_from([0.3, 0.35, 0.5]), filters)
def test_a_mask_is_filtered_as_its_lesions_one_by_one(pmap, threshold, rule):
    mask = binarize(pmap, threshold)
    found, predicted, removed = mask_at(pmap, threshold, VOXEL_MM3, rule)
    assert found.dtype == np.bool_
    assert np.array_equal(found, filtered_otherwise(mask, pmap, rule))
    assert predicted == lesionwise.components(mask).max()
    assert predicted - removed == lesionwise.components(found).max()
    assert np.array_equal(mask_at(pmap, threshold, VOXEL_MM3, None)[0], mask)


@given(pmaps, filters)
def test_the_masks_of_a_stepped_pmap_are_the_filtered_ones(pmap, rule):
    thresholds = (0.0, 0.25, 0.3, 0.35, 0.5, 0.96, 1.0)
    steps = stepped(pmap, thresholds, VOXEL_MM3, rule)
    assert steps.dtype == pmap.dtype
    for threshold in thresholds[1:]:
        wanted = filtered_otherwise(binarize(pmap, threshold), pmap, rule)
        assert np.array_equal(binarize(steps, threshold), wanted)


def blobs(*peaks_and_sizes: tuple[float, int], lesions: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted lesions in a row, gaps between; the first `lesions` of them are true."""
    truth, pmap = np.zeros((60, 1, 1), bool), np.zeros((60, 1, 1), np.float32)
    start = 0
    for number, (peak, size) in enumerate(peaks_and_sizes):
        pmap[start : start + size] = 0.4
        pmap[start] = peak
        truth[start : start + size] = number < lesions
        start += size + 1
    return truth, pmap


def scan(*peaks_and_sizes, lesions):
    return candidates(*blobs(*peaks_and_sizes, lesions=lesions), 0.4, 1.0)


def test_the_peak_that_parts_true_from_false_lesions_is_chosen():
    # True ones reach 0.9, false ones 0.6: the laxest peak that leaves none of these is 0.65.
    scans = [scan((0.9, 4), (0.6, 4), lesions=1), scan((0.6, 9), lesions=0)]
    found = choose_filter(scans, ["a", "b"], 0.4)
    assert (found.peak, found.volume_mm3) == (0.65, 0.0)
    assert (found.f1, found.f1_unfiltered) == (1.0, pytest.approx(2 / 3))
    assert (found.specificity, found.specificity_unfiltered) == (1.0, 0.0)
    assert (found.n_scans, found.n_lesion_free) == (1, 1)


def test_the_volume_does_where_the_peak_cannot_and_no_filter_where_nothing_is_false():
    # Equal peaks; the false one has 2 mm³, so 3 mm³ keeps all that is true.
    found = choose_filter([scan((0.9, 4), (0.9, 2), lesions=1)], ["a"], 0.4)
    assert (found.peak, found.volume_mm3) == (0.0, 3.0)
    found = choose_filter([scan((0.9, 4), (0.7, 3), lesions=2)], ["a"], 0.4)
    assert (found.peak, found.volume_mm3) == (0.0, 0.0)
    assert np.isnan([found.leave_one_out, found.specificity]).all()


def test_a_specificity_is_kept_to_at_the_cost_of_lesions():
    # Without it nothing is filtered; with it the lesion-free scan's lesion of 0.9 has to go.
    scans = [scan((0.97, 4), (0.7, 4), lesions=2), scan((0.9, 4), lesions=0)]
    assert choose_filter(scans, ["a", "b"], 0.4).peak == 0.0
    found = choose_filter(scans, ["a", "b"], 0.4, specificity=1.0)
    assert (found.peak, found.volume_mm3) == (0.95, 0.0)
    assert found.f1 == pytest.approx(2 / 3)


def test_a_subject_held_out_has_no_say_in_its_filter():
    # a and b alike; c's lesion has a peak of 0.5 only. Left out, c loses it to the filter of 0.65:
    # 0. Left out, a and b are not filtered, as b with c (5/6) and c with a do best so: 2/3 each.
    scans = [scan((0.9, 4), (0.6, 4), lesions=1)] * 2 + [scan((0.5, 4), lesions=1)]
    found = choose_filter(scans, ["a", "b", "c"], 0.4)
    assert found.leave_one_out == pytest.approx(2 / 3)
    assert choose_filter(scans[1:], ["b", "c"], 0.4).leave_one_out == pytest.approx(1 / 3)


def outlined(found: float, missed: float) -> list:
    """A lesion of 8 voxels at thresholds 0.2 and 0.6, and a false one of 8.

    The lesion reaches `found` in one voxel and 0.3 in the others; the false one `missed`.
    """
    truth, pmap = np.zeros((30, 1, 1), bool), np.zeros((30, 1, 1), np.float32)
    truth[:8], pmap[:8], pmap[0], pmap[20:28] = True, 0.3, found, missed
    return [candidates(truth, pmap, cut, 1.0) for cut in (0.2, 0.6)]


def healthy(marked: float) -> list:
    pmap = np.zeros((30, 1, 1), np.float32)
    pmap[20:28] = marked
    return [candidates(pmap > 1, pmap, cut, 1.0) for cut in (0.2, 0.6)]


def test_a_low_threshold_with_a_high_peak_does_what_neither_does_alone():
    # At 0.6 one voxel of the lesion's eight is left, too few to be found; at 0.2 the false one of
    # 0.7 is marked, too. A peak of 0.75 at 0.2 leaves the lesion alone: L-F1 1.
    scans = [outlined(0.9, 0.7), healthy(0.7), outlined(0.9, 0.7), healthy(0.7)]
    found = choose_both(scans, ["a", "a", "b", "b"], (0.2, 0.6), specificity=0.9)
    choice, lesions = found.threshold, found.lesions
    assert (choice.threshold, lesions.peak, lesions.volume_mm3) == (0.2, 0.75, 0.0)
    assert choice.curve.tolist() == [1.0, 0.0]
    assert choice.per_scan.tolist() == [[1.0, 0.0]] * 2
    assert choice.objective.specificity == 0.9
    assert (lesions.f1, lesions.f1_unfiltered) == (1.0, pytest.approx(2 / 3))
    assert (lesions.specificity, lesions.specificity_unfiltered) == (1.0, 0.0)
    assert choice.interval == (0.2, 0.2)
    assert choice.leave_one_out == lesions.leave_one_out == 1.0
    assert found.left_out == ((0, Filter(0.75, 0.0)),) * 4


def test_threshold_and_filter_for_a_person_are_those_that_the_others_choose():
    # Left out, b loses its lesion of 0.8 to the peak of 0.95 that a's healthy scan asks for; a is
    # read by b's 0.75. Without a healthy scan of the others nothing can be chosen for a person.
    scans = [outlined(0.97, 0.7), healthy(0.9), outlined(0.8, 0.7), healthy(0.7)]
    owners = ["a", "a", "b", "b"]
    found = choose_both(scans, owners, (0.2, 0.6), specificity=1.0, bootstraps=0)
    of_b, of_a = (0, Filter(0.75, 0.0)), (0, Filter(0.95, 0.0))
    assert found.left_out == (of_b, of_b, of_a, of_a)
    assert found.threshold.leave_one_out == 0.5
    alone = choose_both(scans[:3], owners[:3], (0.2, 0.6), specificity=1.0, bootstraps=0)
    assert alone.left_out[0] is None
    assert np.isnan(alone.threshold.leave_one_out)


def test_froc_falls_from_all_lesions_to_none():
    scans = [scan((0.9, 4), (0.6, 4), (0.7, 4), lesions=2), scan((0.8, 4), lesions=0)]
    curve = froc(scans, (0.4, 0.65, 0.75, 0.85, 0.95))
    assert curve.sensitivity == (1, 0.5, 0.5, 0.5, 0)
    assert curve.false_lesions == (1, 1, 0.5, 0, 0)


def test_what_cannot_be_chosen_from_is_refused():
    bearing, free = scan((0.9, 4), lesions=1), scan((1.0, 60), lesions=0)
    with pytest.raises(DataError, match="no scan holds lesions"):
        choose_filter([free], ["a"], 0.4)
    with pytest.raises(DataError, match="no scan is free of lesions"):
        choose_filter([bearing], ["a"], 0.4, specificity=0.5)
    with pytest.raises(DataError, match=r"of 0\.5 is not reached on these 1 lesion-free scans"):
        choose_filter([bearing, free], ["a", "b"], 0.4, specificity=0.5)
