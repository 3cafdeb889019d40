from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import lesionwise, voxelwise
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.thresholds import (
    THRESHOLDS,
    LesionCurve,
    binarize,
    count,
    curves,
    sweep,
    sweep_lesions,
)
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
few_pmaps = arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.72, 1.0]))
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
    labelled = []
    components = curves.components
    monkeypatch.setattr(
        curves,
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


on_grid = st.sampled_from(THRESHOLDS)
anywhere = st.floats(0, 1, width=16)


@given(
    arrays(np.bool_, 30),
    st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
        lambda dtype: arrays(np.float64, 30, elements=on_grid | anywhere).map(
            lambda values: values.astype(dtype)
        )
    ),
)
def test_one_pass_counts_what_binarize_and_score_count(truth, pmap):
    curve = sweep(truth, pmap)
    for k, threshold in enumerate(THRESHOLDS):
        score = voxelwise.score(truth, binarize(pmap, threshold))
        assert (curve.tp[k], curve.fp[k], curve.fn[k]) == (score.tp, score.fp, score.fn)
        if truth.any():
            assert curve.f1[k] == pytest.approx(score.f1)
            assert curve.sensitivity[k] == pytest.approx(score.sensitivity)
            assert curve.precision[k] == pytest.approx(score.precision)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_threshold_that_rounds_to_0_still_leaves_the_zeros_out(dtype):
    pmap = np.array([0, 0.5], dtype)
    curve = sweep(np.array([False, True]), pmap, (1e-300, 0.5))
    assert binarize(pmap, 1e-300).tolist() == [False, True]
    assert (curve.tp.tolist(), curve.fp.tolist()) == ([1, 1], [0, 0])


@pytest.mark.parametrize("number", range(7))  # 7 and 8 are lesion-free
def test_f1_is_that_of_the_oracle(testing_data, number):
    with np.load(testing_data / "oracles" / "threshold_inputs.npz") as stored:
        truth, pmap = stored[f"thr/g{number}"] > 0, stored[f"thr/p{number}"]
        expected = stored["thr/f1_ge"][number]
    assert sweep(truth, pmap).f1 == pytest.approx(expected, abs=1e-12)


def test_scores_of_a_lesion_free_scan_are_nan_and_its_counts_are_kept():
    curve = sweep(np.zeros(4, bool), np.array([0, 0.2, 0.6, 1], np.float32), (0, 0.5))
    assert curve.fp.tolist() == [4, 2]
    assert np.isnan(curve.f1).all()
    assert np.isnan(curve.sensitivity).all()
    assert np.isnan(curve.precision).all()


def test_shapes_that_differ_are_refused():
    with pytest.raises(GeometryError, match="expected one grid"):
        sweep(np.zeros((2, 2), bool), np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.5), (0.5, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_thresholds_that_do_not_rise_from_0_to_1_are_refused(thresholds):
    with pytest.raises(UsageError, match="expected rising numbers"):
        sweep(np.zeros(3, bool), np.zeros(3, np.float32), thresholds)


@given(truths, few_pmaps)
def test_counts_that_were_kept_give_the_scores_of_each_mask(truth, pmap):
    counted = from_dict(json.loads(json.dumps(count(truth, pmap, SPACING_MM).to_dict())))
    for k, threshold in enumerate(THRESHOLDS):
        mask = binarize(pmap, threshold)
        assert same(counted.voxel_score(k), voxelwise.score(truth, mask))
        for preset in PRESETS:
            assert same(
                counted.lesion_score(preset, k), lesionwise.score(truth, mask, SPACING_MM, preset)
            )


def same(one: object, other: object) -> bool:
    """Equal to the bit; what is not defined is so in both."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a == b or (a != a and b != b) for a, b in pairs)


def test_lesions_are_found_one_by_one_the_largest_first():
    truth, pmap = np.zeros((9, 1, 1), bool), np.zeros((9, 1, 1), np.float32)
    truth[0:2] = truth[4:7] = True
    pmap[0:2], pmap[4:7] = 0.8, 0.3
    curve = count(truth, pmap, (1, 1, 1), (0.2, 0.5, 0.9)).lesions["paper"]
    assert curve.truth_sizes.tolist() == [3, 2]
    assert curve.found.tolist() == [[True, True], [False, True], [False, False]]
    # Of more than 3 mm³ there is none.
    assert count(truth, pmap, (1, 1, 1), (0.2,)).lesions["anima"].found.shape == (1, 0)


@pytest.mark.parametrize("name", ["tp", "lesions", "voxel_mm3"])
def test_what_is_damaged_is_not_taken(name):
    stored = count(np.ones(SHAPE, bool), np.ones(SHAPE, np.float32), SPACING_MM).to_dict()
    with pytest.raises(KeyError):
        from_dict({key: value for key, value in stored.items() if key != name})
    with pytest.raises(ValueError, match="reshape"):
        from_dict({**stored, "tp": stored["tp"][1:]})
