import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import PRESETS, lesionwise, voxelwise
from sct_lesion_losses.thresholds import THRESHOLDS, ScanCounts, binarize, count, sweep
from sct_lesion_losses.thresholds.curves import from_dict

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


def assert_scores_are_those_of_each_mask(
    counted: ScanCounts, truth: np.ndarray, pmap: np.ndarray
) -> None:
    for k, threshold in enumerate(counted.thresholds):
        mask = binarize(pmap, threshold)
        assert counted.voxel_score(k) == voxelwise.score(truth, mask), threshold
        for preset in PRESETS:
            found = counted.lesion_score(preset, k)
            assert found == lesionwise.score(truth, mask, SPACING_MM, preset), threshold


@given(truths, pmaps, grids)
def test_counts_that_were_kept_give_the_scores_of_each_mask(truth, pmap, thresholds):
    counted = count(truth, pmap, SPACING_MM, thresholds)
    kept = from_dict(json.loads(json.dumps(counted.to_dict())))
    assert kept.thresholds.tolist() == list(thresholds)
    assert_scores_are_those_of_each_mask(kept, truth, pmap)


@pytest.mark.parametrize("number", range(9))
def test_maps_of_the_oracle_have_its_f1_and_the_scores_of_each_mask(testing_data, number):
    with np.load(testing_data / "oracles" / "threshold_inputs.npz") as stored:
        truth, pmap = stored[f"thr/g{number}"] > 0, stored[f"thr/p{number}"]
        expected = stored["thr/f1_ge"][number]
    counted = count(truth, pmap, SPACING_MM)
    assert_scores_are_those_of_each_mask(counted, truth, pmap)
    if truth.any():  # 7 and 8 are lesion-free
        assert counted.f_beta() == pytest.approx(expected, abs=1e-12)


def test_lesions_split_and_vanish_as_the_threshold_rises():
    truth, pmap = np.zeros((9, 1, 1), bool), np.zeros((9, 1, 1), np.float32)
    truth[1:4] = truth[5:8] = True
    pmap[1:8, 0, 0] = [0.8, 0.8, 0.8, 0.3, 0.6, 0.6, 0.6]
    counted = count(truth, pmap, SPACING_MM, thresholds=(0, 0.2, 0.5, 0.55, 0.7, 0.9))
    curve = counted.lesions["paper"]
    # Everything: 3 of 9 voxels outside all lesions, 33 %. At 0.2 one lesion, 1 of 7 outside.
    assert curve.n_predicted.tolist() == [1, 1, 2, 2, 1, 0]
    assert curve.found.sum(axis=1).tolist() == [2, 2, 2, 2, 1, 0]
    assert curve.correct.tolist() == [1, 1, 2, 2, 1, 0]
    assert counted.l_f1("paper") == pytest.approx([1, 1, 1, 1, 2 / 3, 0])


def test_lesions_are_found_one_by_one_the_largest_first():
    truth, pmap = np.zeros((9, 1, 1), bool), np.zeros((9, 1, 1), np.float32)
    truth[0:2] = truth[4:7] = True
    pmap[0:2], pmap[4:7] = 0.8, 0.3
    curve = count(truth, pmap, (1, 1, 1), (0.2, 0.5, 0.9)).lesions["paper"]
    assert curve.truth_sizes.tolist() == [3, 2]
    assert curve.found.tolist() == [[True, True], [False, True], [False, False]]


def test_masks_like_the_one_before_are_not_labelled_again(monkeypatch):
    labelled = []
    components = lesionwise.components
    monkeypatch.setattr(
        lesionwise,
        "components",
        lambda mask, connectivity: labelled.append(1) or components(mask, connectivity),
    )
    pmap = np.zeros(SHAPE, np.float32)
    pmap[1], pmap[3] = 0.3, 0.9
    count(pmap > 0.5, pmap, SPACING_MM, presets=["paper"])
    # The manual mask; up to 0.3 both; up to 0.9 one; none. All of the grid at 0 is one lesion.
    assert len(labelled) == 4


def test_a_lesion_free_scan_has_no_score_and_its_counts_are_kept():
    pmap = np.zeros(SHAPE, np.float32)
    pmap[1], pmap[3] = 0.3, 0.9
    counted = count(np.zeros(SHAPE, bool), pmap, SPACING_MM, thresholds=(0, 0.2, 0.5, 1))
    assert counted.fp.tolist() == [120, 40, 20, 0]
    assert counted.lesions["paper"].n_predicted.tolist() == [1, 2, 1, 0]
    assert np.isnan([counted.f_beta(), counted.l_f1("paper")]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_threshold_that_rounds_to_0_still_leaves_the_zeros_out(dtype):
    pmap = np.array([0, 0.5], dtype)
    curve = sweep(np.array([False, True]), pmap, (1e-300, 0.5))
    assert binarize(pmap, 1e-300).tolist() == [False, True]
    assert (curve.tp.tolist(), curve.fp.tolist()) == ([1, 1], [0, 0])


def test_what_no_sweep_can_use_is_refused():
    truth, pmap = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32)
    with pytest.raises(GeometryError, match="expected one grid"):
        sweep(truth[:-1], pmap)
    with pytest.raises(GeometryError, match="expected 3 positive"):
        count(truth, pmap, (1, 1, 0))
    with pytest.raises(UsageError, match="no lesion-wise preset"):
        count(truth, pmap, SPACING_MM, presets=["study"])


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.5), (0.5, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_thresholds_that_do_not_rise_from_0_to_1_are_refused(thresholds):
    with pytest.raises(UsageError, match="expected rising numbers"):
        sweep(np.zeros(3, bool), np.zeros(3, np.float32), thresholds)


def test_a_threshold_that_was_not_swept_has_no_index() -> None:
    counts = count(np.ones((2, 2, 2), bool), np.ones((2, 2, 2)), SPACING_MM, (0.1, 0.3))
    assert counts.index(0.1 + 0.2) == 1
    with pytest.raises(UsageError, match=r"0\.2 is not among those that were swept"):
        counts.index(0.2)
