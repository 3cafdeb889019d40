import json
import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.errors import GeometryError, UsageError
from sct_lesion_losses.metrics import PRESETS, Preset
from sct_lesion_losses.metrics.lesionwise import (
    LesionScore,
    components,
    contrasts,
    measures,
    overlap,
    score,
)

UNIT_MM = (1.0, 1.0, 1.0)

# The parameter sets of the oracle that are presets.
NAMED = {"paper_inclusive_c18": "paper", "anima_default": "anima"}

masks = arrays(bool, (7, 6, 3), elements=st.sampled_from([False, False, True]))
presets = st.sampled_from(sorted(PRESETS))
both_ways = st.sampled_from(["paper", "anima"])


def bars(*spans: tuple[int, int]) -> np.ndarray:
    """Lesions along one axis, each from one voxel to before another."""
    mask = np.zeros((40, 1, 1), bool)
    for start, stop in spans:
        mask[start:stop] = True
    return mask


def counts(found: LesionScore) -> tuple[int, int, int, int]:
    return found.n_truth, found.n_predicted, found.detected, found.correct


# Values of a plain-Python reference and of Anima's own C++ code.


@pytest.fixture(scope="module")
def oracle(testing_data: Path) -> tuple[dict, dict]:
    with np.load(testing_data / "oracles" / "metric_inputs.npz") as stored:
        inputs = {key: stored[key] > 0 for key in stored.files}
    return json.loads((testing_data / "oracles" / "metrics.json").read_text()), inputs


def oracle_counts(values: dict) -> tuple[int, ...]:
    return tuple(values[key] for key in ("n_gt", "n_pred", "tp_gt", "tp_pred"))


@pytest.mark.parametrize(("kind", "sets"), [("lesion", 8), ("anima_real", 3)])
def test_counts_are_those_of_the_oracle_for_every_parameter_set(oracle, kind, sets):
    table, inputs = oracle
    seen = 0
    for case, expected in table["cases"].items():
        for name, values in expected[kind].items():
            p = table["meta"]["params"][name]
            rule = Preset(
                *(name, p["alpha"], p["beta"], p["gamma"]), p["strict"], p["conn"], p["minvol"]
            )
            found = score(inputs[f"{case}/gt"], inputs[f"{case}/pred"], expected["spacing"], rule)
            assert counts(found) == oracle_counts(values), (case, name)
            seen += 1
    assert seen == 48 * sets


def test_counts_and_scores_of_the_presets_are_those_of_the_oracle(oracle):
    table, inputs = oracle
    for case, expected in table["cases"].items():
        truth, prediction = inputs[f"{case}/gt"], inputs[f"{case}/pred"]
        rows = [(NAMED[n], v) for n, v in expected["lesion"].items() if n in NAMED]
        for preset, values in [*rows, ("candidate", expected["lesion_literal_candidate_c18"])]:
            found = score(truth, prediction, expected["spacing"], preset)
            assert counts(found) == oracle_counts(values), (case, preset)
            for key in {"sensitivity", "precision", "f1"} & values.keys():
                # The oracle's precision is undefined without a prediction and 0 without a truth.
                wanted = float(values[key])
                if values["n_gt"] == 0:
                    wanted = math.nan
                elif values["n_pred"] == 0:
                    wanted = 0
                assert getattr(found, key) == pytest.approx(wanted, nan_ok=True), (case, preset)


# Worked by hand.


def test_a_lesion_covered_by_exactly_a_quarter_is_detected():
    truth = bars((0, 4), (10, 18))
    # 1 of 4 voxels; 1 of 8. Of the single predicted voxels nothing is outside, but the manual
    # lesions lie outside the prediction by 3/4 and 7/8: none is correct.
    assert counts(score(truth, bars((0, 1), (10, 11)), UNIT_MM)) == (2, 2, 1, 0)


def test_strict_needs_more_than_the_overlap():
    truth, prediction = bars((0, 10)), bars((0, 1))
    # 10 % are as much as anima's 10 %, not more; 1 of 9 is more.
    anima = Preset("anima, any volume", 0.10, 0.70, 0.65, True, 6, 0)
    assert score(truth, prediction, UNIT_MM, anima).detected == 0
    assert score(bars((0, 9)), prediction, UNIT_MM, anima).detected == 1


def test_outside_by_exactly_70_percent_is_allowed():
    assert score(bars((0, 3)), bars((0, 10)), UNIT_MM).detected == 1  # 7 of 10 outside
    assert score(bars((0, 3)), bars((0, 11)), UNIT_MM).detected == 0  # 8 of 11


def test_what_follows_after_the_reach_may_leak():
    # Of the 10 voxels covered 8 are the first lesion's, 80 %: the second, 8 of 10 outside, is not
    # looked at. With 5 and 2 of 7, 71 %, neither; with 4 and 3 of 7, 57 %, it is.
    truth = np.zeros((12, 12, 1), bool)
    truth[:, 0] = True
    for first, second, wanted in [(8, 2, 1), (5, 2, 1), (4, 3, 0)]:
        prediction = np.zeros_like(truth)
        prediction[:first, 0] = True
        prediction[10 - second + 1 : 11, 0] = True
        prediction[10, 1:9] = True
        assert score(truth, prediction, UNIT_MM).detected == wanted, (first, second)


def test_of_equal_overlaps_the_larger_lesion_is_visited_first():
    # Two predicted lesions hold 2 voxels each of the 4 covered. One is 2 voxels, the other 8, of
    # which 6 = 75 % are outside. The larger one comes first in the visit, and the lesion fails;
    # at a reach of 50 % this decides, wherever the larger one stands.
    truth = np.zeros((8, 8, 1), bool)
    truth[:7, 0] = True
    prediction = np.zeros_like(truth)
    prediction[0:2, 0] = True
    prediction[4:6, 0] = prediction[5, 1:7] = True
    half = Preset("half", 0.25, 0.70, 0.50, False, 18, 0)
    assert score(truth, prediction, UNIT_MM, half).detected == 0
    assert score(truth[::-1], prediction[::-1], UNIT_MM, half).detected == 0
    prediction[5, 2:7] = False  # now 3 voxels, 1 of them outside
    assert score(truth, prediction, UNIT_MM, half).detected == 1


def test_what_follows_after_exactly_the_reach_is_not_visited():
    # 13 of the 20 voxels covered, 65 %, are the first lesion's; the second is 24 of 31 outside.
    truth = np.zeros((21, 26, 1), bool)
    truth[:, 0] = True
    prediction = np.zeros_like(truth)
    prediction[:13, 0] = True
    prediction[14:, 0] = prediction[20, 1:25] = True
    assert score(truth, prediction, UNIT_MM).detected == 1
    prediction[12, 0] = False  # 12 of 19, 63 %
    assert score(truth, prediction, UNIT_MM).detected == 0


def test_without_a_least_overlap_a_lesion_must_still_be_touched():
    touch = Preset("touch", 0.0, 1.0, 0.65, False, 18, 0)
    truth = bars((0, 9), (20, 29))
    assert counts(score(truth, bars((8, 10), (15, 18)), UNIT_MM, touch)) == (2, 2, 1, 1)


def test_a_lesion_of_the_minimum_volume_is_ignored_and_takes_its_voxels_with_it():
    spacing = (0.5, 0.5, 3.0)  # 0.75 mm3: 4 voxels are 3 mm3
    assert counts(score(bars((0, 4)), bars((0, 5)), spacing, "anima")) == (0, 1, 0, 0)
    assert counts(score(bars((0, 5)), bars((0, 5)), spacing, "anima")) == (1, 1, 1, 1)
    # Half of the predicted lesion is on a manual lesion that does not count: all of it is outside.
    found = score(bars((0, 3), (20, 30)), bars((0, 6)), UNIT_MM, "anima")
    assert counts(found) == (1, 1, 0, 0)


def test_the_minimum_volume_is_the_same_for_a_spacing_rounded_to_float32():
    for exact in (0.1, 0.3, 0.6):
        spacing = np.float32([exact, 1, 1])
        n = round(3 / exact)
        assert score(bars((0, n)), bars((0, n)), spacing, "anima").n_truth == 0
        assert score(bars((0, n + 1)), bars((0, n + 1)), spacing, "anima").n_truth == 1


# Edge cases.


@pytest.mark.parametrize(
    ("truth", "prediction", "wanted", "scores"),
    [  # no score without a lesion, but what is predicted is reported; 0 without a prediction
        (bars(), bars((0, 4), (6, 11)), (0, 2, 0, 0, 0, 18), math.nan),
        (bars((0, 5)), bars(), (1, 0, 0, 0, 10, 0), 0),
        (bars(), bars(), (0, 0, 0, 0, 0, 0), math.nan),
    ],
)
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_masks_of_which_one_or_both_are_empty(truth, prediction, wanted, scores, preset):
    found = score(truth, prediction, (1, 1, 2), preset)
    assert (*counts(found), found.truth_mm3, found.predicted_mm3) == wanted
    assert (found.sensitivity, found.precision, found.f1) == pytest.approx(
        [scores] * 3, nan_ok=True
    )
    assert found.preset == PRESETS[preset]


def test_masks_of_0_and_1_are_taken_as_bool():
    truth, prediction = bars((0, 5)), bars((0, 3), (8, 10))
    assert score(truth.astype(np.uint8), prediction.astype(np.uint8), UNIT_MM) == score(
        truth, prediction, UNIT_MM
    )


@pytest.mark.parametrize(
    ("shapes", "spacing", "said"),
    [
        (((4, 1, 1), (4, 1, 2)), UNIT_MM, "expected one grid"),
        (((4, 4), (4, 4)), UNIT_MM, "three axes"),
        *(
            (((4, 1, 1),) * 2, spacing, "expected 3 positive numbers")
            for spacing in [(1, 1), (1, 0, 1), (1, -1, 1), (1, math.nan, 1)]
        ),
    ],
)
def test_masks_on_different_grids_or_of_no_spacing_are_refused(shapes, spacing, said):
    with pytest.raises(GeometryError, match=said):
        score(*(np.zeros(shape, bool) for shape in shapes), spacing)


def test_unknown_presets_are_refused():
    with pytest.raises(UsageError, match=r"'study'; choose from .*'anima'.*'paper'"):
        score(bars(), bars(), UNIT_MM, "study")


# Properties.


@given(masks, masks, presets)
def test_scores_are_shares_or_nan_and_1_for_identical_masks(truth, prediction, preset):
    found = score(truth, prediction, UNIT_MM, preset)
    assert 0 <= found.detected <= found.n_truth
    assert 0 <= found.correct <= found.n_predicted
    for value in (found.sensitivity, found.precision, found.f1):
        assert np.isnan(value) if found.n_truth == 0 else 0 <= value <= 1
    if found.n_truth:
        low, high = sorted((found.sensitivity, found.precision))
        assert low - 1e-12 <= found.f1 <= high + 1e-12
        itself = score(truth, truth, UNIT_MM, preset)
        assert (itself.sensitivity, itself.precision, itself.f1) == (1, 1, 1)


@given(masks, masks, both_ways)
def test_swapping_the_masks_swaps_sensitivity_and_precision(truth, prediction, preset):
    there = score(truth, prediction, UNIT_MM, preset)
    back = score(prediction, truth, UNIT_MM, preset)
    assert counts(back) == (there.n_predicted, there.n_truth, there.correct, there.detected)
    if there.n_truth and there.n_predicted:
        assert (back.sensitivity, back.precision) == (there.precision, there.sensitivity)
        assert back.f1 == pytest.approx(there.f1)


@given(
    *(masks, masks, presets, st.tuples(*[st.booleans()] * 3)),
    st.sampled_from([*permutations(range(3))]),
)
def test_mirrors_and_turns_of_both_masks_change_nothing(truth, prediction, preset, mirrored, axes):
    # Where overlaps and sizes are equal, the order of the labels decides.
    table = overlap(*(components(m, PRESETS[preset].connectivity) for m in (truth, prediction)))
    for one in (table, table.swapped()):
        pairs = [one.truth, one.voxels, one.predicted_sizes[one.predicted]]
        assume(np.unique(pairs, axis=1).shape[1] == len(one.truth))
    spacing, flips = np.array([1.0, 2.0, 0.5]), np.flatnonzero(mirrored)
    turned = (np.flip(mask, flips).transpose(axes) for mask in (truth, prediction))
    found = score(*turned, spacing[list(axes)], preset)
    assert counts(found) == counts(score(truth, prediction, spacing, preset))


@given(masks, masks, st.tuples(*[st.integers(0, 3)] * 6), presets)
def test_background_around_the_masks_changes_nothing(truth, prediction, margins, preset):
    width = tuple(zip(margins[:3], margins[3:], strict=True))
    there = score(truth, prediction, UNIT_MM, preset)
    padded = score(np.pad(truth, width), np.pad(prediction, width), UNIT_MM, preset)
    assert counts(padded) == counts(there)


@given(masks, masks, st.sampled_from([6, 18, 26]))
def test_the_rule_is_that_of_a_plain_walk_over_lesions(truth, prediction, connectivity):
    rule = Preset("any", 0.25, 0.5, 0.65, False, connectivity, 1.5)
    found = score(truth, prediction, UNIT_MM, rule)
    sides = [
        [lesion for lesion in lesions(mask, connectivity) if len(lesion) > 1.5]
        for mask in (truth, prediction)
    ]
    assert found.detected == walked(*sides, rule)
    assert found.correct == walked(*reversed(sides), rule)


def lesions(mask: np.ndarray, connectivity: int) -> list[set[tuple[int, ...]]]:
    labels = components(mask, connectivity)
    return [set(map(tuple, np.argwhere(labels == k))) for k in range(1, labels.max() + 1)]


def walked(reference: list[set], tested: list[set], rule: Preset) -> int:
    """Lesions detected, one lesion after the other, with sets of voxels."""
    everywhere = set().union(*reference)
    n = 0
    for lesion in reference:
        overlaps = [(len(lesion & t), len(t), -k, t) for k, t in enumerate(tested) if lesion & t]
        total = sum(size for size, *_ in overlaps)
        if not total or total / len(lesion) < rule.min_overlap:
            continue
        reached, good = 0, True
        for size, _, _, t in sorted(overlaps, key=lambda o: o[:3], reverse=True):
            if len(t - everywhere) / len(t) > rule.max_outside:
                good = False
                break
            reached += size
            if reached / total >= rule.reach:
                break
        n += good
    return n


@pytest.mark.parametrize(
    ("second", "parts"),
    [
        ((1, 0, 0), [1, 1, 1]),  # a face in common
        ((1, 1, 0), [2, 1, 1]),  # an edge
        ((1, 1, 1), [2, 2, 1]),  # a corner
        ((2, 0, 0), [2, 2, 2]),  # nothing
    ],
)
def test_connectivity_is_by_faces_edges_by_default_or_corners(second, parts) -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[second] = True
    assert [components(mask, c).max() for c in (6, 18, 26)] == parts
    assert components(mask).max() == parts[1]


def test_the_largest_component_is_number_1_and_ties_keep_their_order() -> None:
    mask = np.zeros((9, 1, 1), bool)
    mask[[0, 2, 3, 5, 6, 8], 0, 0] = True  # sizes 1, 2, 2, 1
    assert components(mask)[:, 0, 0].tolist() == [3, 0, 1, 1, 0, 2, 2, 0, 4]


@given(arrays(bool, (5, 4, 3)), st.sampled_from([6, 18, 26]))
def test_labels_cover_the_mask_and_sizes_never_grow(mask: np.ndarray, connectivity: int) -> None:
    labels = components(mask, connectivity)
    assert np.array_equal(labels > 0, mask)
    sizes = np.bincount(labels.ravel())[1:]
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()


def test_measures_of_a_bar_worked_out_by_hand() -> None:
    # Voxels 0.5 x 1 x 2 mm; axis 2 runs downwards: it is the one nearest to superior-inferior.
    affine = np.array([[0.5, 0, 0, 10], [0, 1, 0, 20], [0, 0, -2, 30], [0, 0, 0, 1.0]])
    pmap = np.zeros((4, 5, 6), np.float32)
    pmap[1, 2, 3:6] = [0.5, 0.75, 1.0]
    (lesion,) = measures(components(pmap > 0), pmap, affine)
    assert lesion.label == 1
    assert lesion.volume_mm3 == pytest.approx(3)  # 3 voxels of 1 mm3
    assert lesion.length_mm == pytest.approx(6)  # 3 slices of 2 mm
    assert lesion.centre_mm == pytest.approx((10.5, 22, 22))  # (1, 2, 4) -> 10.5, 22, 30 - 8
    assert lesion.mean_probability == pytest.approx(0.75)
    assert lesion.highest_probability == 1.0


def test_length_follows_the_world_axis_and_not_the_array_axis() -> None:
    # Stored (S, P, L) with 3 mm along S: two voxels along array axis 0.
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
    pmap = np.zeros((4, 4, 4), np.float32)
    pmap[1:3, 0:3, 2] = 0.6
    (lesion,) = measures(components(pmap > 0), pmap, affine)
    assert lesion.length_mm == pytest.approx(6)


def test_a_lesion_is_there_at_its_highest_probability_and_gone_above() -> None:
    pmap = np.zeros((3, 3, 3), np.float32)
    pmap[1, 1, 1] = 0.35
    (lesion,) = measures(components(pmap > 0), pmap, np.eye(4))
    at = np.float32(lesion.highest_probability)
    assert [(pmap >= t).sum() for t in (at, np.nextafter(at, np.float32(1)))] == [1, 0]


def test_the_mean_of_many_small_probabilities_does_not_drift() -> None:
    pmap = np.full((100, 100, 30), 0.1, np.float32)
    (lesion,) = measures(components(pmap > 0), pmap, np.eye(4))
    assert lesion.mean_probability == pytest.approx(float(np.float32(0.1)), abs=1e-9)


def test_contrast_is_against_the_cord_of_the_same_axial_slices_away_from_lesions() -> None:
    # Slices along axis 0, 2 mm each. The cord, x 1 to 6, has 10 in slices 0 to 2 and 20 above.
    affine = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]])
    image, cord = np.full((6, 3, 8), 99.0), np.zeros((6, 3, 8), bool)
    cord[:, 1, 1:7] = True
    image[:3][cord[:3]], image[3:][cord[3:]] = 10, 20
    lesion = np.zeros(cord.shape, bool)
    lesion[0:2, 1, 1] = lesion[4, 1, 1] = True
    image[0, 1, 1], image[1, 1, 1], image[4, 1, 1] = 12, 16, 30
    image[:, 1, 2] = 1000  # within 1 mm of the lesions: no cord to compare with
    labels = components(lesion)
    assert contrasts(labels, image, cord, affine).tolist() == [1.4, 1.5]
    # Where all of a slice is lesion, the rest of the cord stands in: here all of it is 10.
    image[cord], lesion[2] = 10, cord[2]
    image[2][cord[2]] = 15
    assert contrasts(components(lesion), image, cord, affine)[0] == pytest.approx(
        image[:3][lesion[:3]].mean() / 10
    )
    assert np.isnan(contrasts(labels, image, np.zeros_like(cord), affine)).all()


def test_labels_on_another_grid_are_refused() -> None:
    with pytest.raises(GeometryError, match="different grids"):
        measures(np.zeros((2, 2, 2), np.int32), np.zeros((2, 2, 3), np.float32), np.eye(4))
    with pytest.raises(GeometryError, match="different grids"):
        contrasts(
            np.zeros((2, 2, 2), np.int32), np.zeros((2, 2, 2)), np.zeros((2, 2, 3), bool), np.eye(4)
        )
