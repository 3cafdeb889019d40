from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import voxelwise
from sct_lesion_losses.thresholds import THRESHOLDS, binarize, sweep

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
