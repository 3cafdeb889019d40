import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.errors import GeometryError
from sct_lesion_losses.metrics.voxelwise import score

masks = arrays(bool, (4, 3, 2), elements=st.booleans())
TRUTH = np.array([1, 1, 1, 0, 0, 0], bool)


def test_a_worked_example():
    found = score(TRUTH, np.array([1, 1, 0, 1, 0, 0], bool))
    assert (found.tp, found.fp, found.fn) == (2, 1, 1)
    # sensitivity 2/3, precision 2/3, F1 = 4 / (4 + 1 + 1)
    assert (found.sensitivity, found.precision, found.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_an_empty_prediction_scores_0_and_a_lesion_free_scan_has_no_score():
    found = score(TRUTH, np.zeros(6, bool))
    assert (found.sensitivity, found.precision, found.f1) == (0, 0, 0)
    found = score(np.zeros(6, bool), TRUTH)
    assert np.isnan([found.sensitivity, found.precision, found.f1]).all()
    assert (found.n_truth, found.n_predicted, found.fp) == (0, 3, 3)


def test_shapes_that_differ_are_refused():
    with pytest.raises(GeometryError, match="expected one grid"):
        score(TRUTH, np.zeros(5, bool))


def test_scores_are_those_of_the_oracle(testing_data):
    cases = json.loads((testing_data / "oracles" / "metrics.json").read_text())["cases"]
    with np.load(testing_data / "oracles" / "metric_inputs.npz") as stored:
        pairs = {name: (stored[f"{name}/gt"] > 0, stored[f"{name}/pred"] > 0) for name in cases}
    bearing = [name for name, (truth, _) in pairs.items() if truth.any()]
    assert len(bearing) > 30
    for name in bearing:
        found, expected = score(*pairs[name]), cases[name]["voxel"]
        for key in ("tp", "fp", "fn", "sensitivity", "precision", "f1"):
            # The oracle leaves the precision of an empty prediction undefined in some cases.
            known = expected[key] if isinstance(expected[key], int | float) else 0
            assert getattr(found, key) == pytest.approx(known), name


@given(masks, masks)
def test_scores_lie_between_0_and_1_and_f1_does_not_ask_which_mask_is_true(truth, prediction):
    there, back = score(truth, prediction), score(prediction, truth)
    for value in (there.sensitivity, there.precision, there.f1):
        assert np.isnan(value) if not truth.any() else 0 <= value <= 1
    if truth.any() and prediction.any():
        assert (back.sensitivity, back.precision, back.f1) == (
            there.precision,
            there.sensitivity,
            there.f1,
        )


@given(masks, masks, st.tuples(*[st.booleans()] * 3), st.sampled_from([*permutations(range(3))]))
def test_mirrors_and_turns_of_both_masks_change_nothing(truth, prediction, mirrored, axes):
    flips = np.flatnonzero(mirrored)
    turned = (np.flip(mask, flips).transpose(axes) for mask in (truth, prediction))
    assert score(*turned) == score(truth, prediction)
