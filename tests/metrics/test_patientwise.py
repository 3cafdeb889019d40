import numpy as np
import pytest

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.metrics import lesionwise, patientwise
from sct_lesion_losses.metrics.patientwise import proportion

UNIT_MM = (1.0, 1.0, 1.0)


def scan(truth: slice | None, prediction: slice | None, preset: str = "paper"):
    masks = np.zeros((2, 30, 1, 1), bool)
    for mask, where in zip(masks, (truth, prediction), strict=True):
        if where is not None:
            mask[where] = True
    return lesionwise.score(*masks, UNIT_MM, preset)


HERE, THERE, SPECK = slice(0, 8), slice(20, 28), slice(15, 17)

SCANS = [
    scan(HERE, HERE),  # detected
    scan(HERE, THERE),  # predicted elsewhere
    scan(HERE, None),  # missed
    scan(None, None),  # rightly left empty
    scan(None, THERE),  # a false alarm
    scan(None, None),
]


def test_a_scan_is_found_if_one_of_its_lesions_is_detected_or_any_is_predicted():
    found = patientwise.score(SCANS)
    assert (found.sensitivity.count, found.sensitivity.n) == (1, 3)
    assert found.sensitivity.value == pytest.approx(1 / 3)
    assert (found.any_lesion.count, found.any_lesion.n) == (2, 3)
    assert (found.specificity.count, found.specificity.n) == (2, 3)
    assert found.specificity.value == pytest.approx(2 / 3)


def test_lesions_too_small_for_the_preset_make_no_positive_and_no_lesion_free_scan():
    # Specks of 2 mm3: predicted, they are no alarm; as manual masks, in neither row.
    scans = [scan(None, SPECK, "anima"), scan(SPECK, HERE, "anima"), scan(HERE, SPECK, "anima")]
    found = patientwise.score(scans)
    assert (found.specificity.count, found.specificity.n) == (1, 1)
    assert (found.any_lesion.count, found.any_lesion.n) == (0, 1)


def test_a_share_of_no_scan_is_nan():
    found = patientwise.score(SCANS[:3])
    assert (found.specificity.n, found.sensitivity.n) == (0, 3)
    assert np.isnan([found.specificity.value, found.specificity.low]).all()


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_the_published_ones(count, n, low, high):
    found = proportion(count, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.value == pytest.approx(count / n)


def test_scans_of_two_presets_are_refused():
    with pytest.raises(UsageError, match=r"presets \['anima', 'paper'\]"):
        patientwise.score([scan(HERE, HERE), scan(HERE, HERE, "anima")])
