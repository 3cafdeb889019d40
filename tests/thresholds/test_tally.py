from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.metrics import lesionwise, voxelwise
from sct_lesion_losses.metrics.lesionwise import PRESETS
from sct_lesion_losses.thresholds import THRESHOLDS, binarize, sweep
from sct_lesion_losses.thresholds.sweep import from_dict

SHAPE = (6, 5, 4)
SPACING_MM = (0.5, 1.0, 3.0)

truths = arrays(np.bool_, SHAPE, elements=st.sampled_from([False, False, True]))
pmaps = arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.72, 1.0]))


@given(truths, pmaps)
def test_counts_that_were_kept_give_the_scores_of_each_mask(truth, pmap):
    counted = from_dict(json.loads(json.dumps(sweep(truth, pmap, SPACING_MM).to_dict())))
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
    curve = sweep(truth, pmap, (1, 1, 1), (0.2, 0.5, 0.9)).lesions["paper"]
    assert curve.truth_sizes.tolist() == [3, 2]
    assert curve.found.tolist() == [[True, True], [False, True], [False, False]]
    # Of more than 3 mm³ there is none.
    assert sweep(truth, pmap, (1, 1, 1), (0.2,)).lesions["anima"].found.shape == (1, 0)


@pytest.mark.parametrize("name", ["tp", "lesions", "voxel_mm3"])
def test_what_is_damaged_is_not_taken(name):
    stored = sweep(np.ones(SHAPE, bool), np.ones(SHAPE, np.float32), SPACING_MM).to_dict()
    with pytest.raises(KeyError):
        from_dict({key: value for key, value in stored.items() if key != name})
    with pytest.raises(ValueError, match="reshape"):
        from_dict({**stored, "tp": stored["tp"][1:]})
