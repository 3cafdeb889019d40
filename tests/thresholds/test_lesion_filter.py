from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_maps import SHAPE, SPACING_MM, VOXEL_MM3, pmaps, truths

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.thresholds import binarize
from sct_lesion_losses.thresholds.lesion_filter import PEAKS, VOLUMES_MM3, Filter, apply, candidates

filters = st.builds(Filter, st.sampled_from([0.0, *PEAKS]), st.sampled_from(VOLUMES_MM3))


def filtered_otherwise(mask, pmap, rule):
    """Look at every component by itself."""
    labels, kept = lesionwise.components(mask), np.zeros_like(mask)
    for number in range(1, labels.max() + 1):
        one = labels == number
        if one.sum() * VOXEL_MM3 >= rule.volume_mm3 and binarize(pmap, rule.peak)[one].any():
            kept |= one
    return kept


@given(
    truths,
    pmaps,
    st.sampled_from([0.3, 0.35, 0.5]),
    filters,
    st.sampled_from(["paper", "candidate"]),
)
def test_counts_are_those_of_the_filtered_mask(truth, pmap, threshold, rule, preset):
    mask = filtered_otherwise(binarize(pmap, threshold), pmap, rule)
    wanted = lesionwise.score(truth, mask, SPACING_MM, preset)
    scan = candidates(truth, pmap, threshold, SPACING_MM, preset)
    found = scan.counts(rule)
    assert (found.n_truth, found.n_predicted, found.detected, found.correct) == (
        wanted.n_truth,
        wanted.n_predicted,
        wanted.detected,
        wanted.correct,
    )
    assert found.f1 == pytest.approx(wanted.f1, nan_ok=True)
    assert found.sensitivity == pytest.approx(wanted.sensitivity, nan_ok=True)
    assert scan.lesion_free == (not truth.any())


@given(pmaps, st.sampled_from([0.3, 0.35, 0.5]), filters)
def test_a_mask_is_filtered_as_its_lesions_one_by_one(pmap, threshold, rule):
    mask = binarize(pmap, threshold)
    found = apply(mask, pmap, VOXEL_MM3, rule)
    assert found.dtype == np.bool_
    assert np.array_equal(found, filtered_otherwise(mask, pmap, rule))
    assert np.array_equal(apply(found, pmap, VOXEL_MM3, rule), found)


def test_lesions_of_other_neighbours_or_grids_are_refused():
    with pytest.raises(UsageError, match="preset anima counts 6-neighbour"):
        candidates(np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32), 0.5, SPACING_MM, "anima")
    with pytest.raises(GeometryError, match="expected one grid"):
        candidates(np.zeros((1, 1, 1), bool), np.zeros(SHAPE, np.float32), 0.5, SPACING_MM)
