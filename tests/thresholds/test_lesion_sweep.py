from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.thresholds import THRESHOLDS, LesionCurve, binarize, sweep_lesions

SHAPE = (6, 5, 4)
SPACING_MM = (0.5, 1.0, 3.0)

truths = arrays(np.bool_, SHAPE, elements=st.sampled_from([False, False, True]))
# Zeros outside, as in a p-map of a tube; values on the thresholds and between them.
values = st.just(0.0) | st.sampled_from(THRESHOLDS) | st.floats(0, 1, width=16)
pmaps = st.tuples(
    arrays(np.float64, SHAPE, elements=values),
    st.sampled_from([np.float16, np.float32, np.float64]),
).map(lambda drawn: drawn[0].astype(drawn[1]))
grids = st.just(THRESHOLDS) | st.lists(
    st.sampled_from(THRESHOLDS) | st.floats(0, 1), min_size=1, max_size=5, unique=True
).map(sorted)


def assert_is_that_of_each_mask(curve: LesionCurve, truth: np.ndarray, pmap: np.ndarray) -> None:
    for k, threshold in enumerate(curve.thresholds):
        mask = binarize(pmap, threshold)
        found = lesionwise.score(truth, mask, SPACING_MM, curve.preset)
        assert (curve.n_predicted[k], curve.detected[k], curve.correct[k]) == (
            found.n_predicted,
            found.detected,
            found.correct,
        ), threshold
        assert curve.n_truth == found.n_truth
        for name in ("sensitivity", "precision", "f1"):
            wanted = pytest.approx(getattr(found, name), nan_ok=True)
            assert getattr(curve, name)[k] == wanted, threshold


@given(truths, pmaps, st.sampled_from(sorted(PRESETS)), grids)
def test_a_sweep_counts_what_binarize_and_score_count(truth, pmap, preset, thresholds):
    curve = sweep_lesions(truth, pmap, SPACING_MM, preset, thresholds)
    assert curve.thresholds.tolist() == list(thresholds)
    assert_is_that_of_each_mask(curve, truth, pmap)


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_it_does_on_the_maps_of_the_oracle(testing_data, number, preset):
    with np.load(testing_data / "oracles" / "threshold_inputs.npz") as stored:
        truth, pmap = stored[f"thr/g{number}"] > 0, stored[f"thr/p{number}"]
    curve = sweep_lesions(truth, pmap, SPACING_MM, preset)
    assert_is_that_of_each_mask(curve, truth, pmap)


def test_lesions_split_and_vanish_as_the_threshold_rises():
    truth, pmap = np.zeros((9, 1, 1), bool), np.zeros((9, 1, 1), np.float32)
    truth[1:4] = truth[5:8] = True
    pmap[1:8, 0, 0] = [0.8, 0.8, 0.8, 0.3, 0.6, 0.6, 0.6]
    curve = sweep_lesions(truth, pmap, SPACING_MM, thresholds=(0, 0.2, 0.5, 0.55, 0.7, 0.9))
    # Everything: 3 of 9 voxels outside all lesions, 33 %. At 0.2 one lesion, 1 of 7 outside.
    assert curve.n_predicted.tolist() == [1, 1, 2, 2, 1, 0]
    assert curve.detected.tolist() == [2, 2, 2, 2, 1, 0]
    assert curve.correct.tolist() == [1, 1, 2, 2, 1, 0]
    assert curve.sensitivity.tolist() == [1, 1, 1, 1, 0.5, 0]
    assert curve.f1 == pytest.approx([1, 1, 1, 1, 2 / 3, 0])


def test_masks_like_the_one_before_are_not_labelled_again(monkeypatch):
    from sct_lesion_losses.thresholds import sweep

    labelled = []
    components = sweep.components
    monkeypatch.setattr(
        sweep,
        "components",
        lambda mask, connectivity: labelled.append(1) or components(mask, connectivity),
    )
    pmap = np.zeros(SHAPE, np.float32)
    pmap[1], pmap[3] = 0.3, 0.9
    truth = pmap > 0.5
    sweep_lesions(truth, pmap, SPACING_MM)
    # The manual mask; up to 0.3 both; up to 0.9 one; none.
    assert len(labelled) == 4


def test_a_lesion_free_scan_has_no_score_and_its_predicted_lesions_are_counted():
    pmap = np.zeros(SHAPE, np.float32)
    pmap[1], pmap[3] = 0.3, 0.9
    curve = sweep_lesions(np.zeros(SHAPE, bool), pmap, SPACING_MM, thresholds=(0, 0.2, 0.5, 1))
    assert curve.n_predicted.tolist() == [1, 2, 1, 0]
    assert np.isnan(curve.f1).all()


def test_what_no_sweep_can_use_is_refused():
    truth, pmap = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32)
    with pytest.raises(GeometryError, match="expected one grid"):
        sweep_lesions(truth[:-1], pmap, SPACING_MM)
    with pytest.raises(GeometryError, match="expected 3 positive"):
        sweep_lesions(truth, pmap, (1, 1, 0))
    with pytest.raises(UsageError, match="no lesion-wise preset"):
        sweep_lesions(truth, pmap, SPACING_MM, "study")
    with pytest.raises(UsageError, match="expected rising"):
        sweep_lesions(truth, pmap, SPACING_MM, thresholds=(0.5, 0.2))
