"""Intensity standardisation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sct_lesion_losses.bundle.schema import StudyPreparation
from sct_lesion_losses.errors import DataError, ImageError
from sct_lesion_losses.preprocessing import intensity


def mapped_to(percentiles: tuple[float, ...], landmarks: tuple[float, ...]) -> StudyPreparation:
    return StudyPreparation(percentiles=percentiles, landmarks=landmarks)


# Eleven values 0, 10, ..., 100: percentile p is simply p.
RAMP = np.arange(0.0, 101.0, 10.0)
SCT_T2 = mapped_to(  # rounded
    intensity.PERCENTILES,
    (0.0, 136.8, 312.2, 449.0, 568.7, 696.7, 859.2, 1074.5, 1373.3, 1811.5, 2611.0),
)

scans = arrays(np.float64, st.integers(20, 60), elements=st.integers(-500, 500).map(float))


def contrasted(scan: np.ndarray) -> bool:
    low, high = np.percentile(scan, (1, 99))
    return bool(high > low)


def test_fit_averages_the_scaled_percentiles_of_all_scans() -> None:
    first = RAMP / 10 + 5  # scaled: 0 10 ... 100
    second = [10, *np.linspace(10.1, 10.9, 9), 12]  # scaled: 0 5 10 ... 45 100
    fitted = intensity.fit(iter([first, second]))
    assert fitted.percentiles == intensity.PERCENTILES
    assert fitted.landmarks == pytest.approx((0, 7.5, 15, 22.5, 30, 37.5, 45, 52.5, 60, 67.5, 100))


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ([], "no sample"),
        ([RAMP, np.full(11, 7.0)], "sample 1 is 7 from percentile 1 to 99"),
        ([[0.0, 0.0, *RAMP[2:]]], "landmarks: must increase.*too few grey values"),
    ],
)
def test_scans_without_contrast_are_refused(measured: list[np.ndarray], said: str) -> None:
    with pytest.raises(DataError, match=said):
        intensity.fit(measured)


def test_standardise_is_linear_between_landmarks_and_extends_the_end_segments() -> None:
    # Percentiles of the reference: 0, 50, 100 -> 0, 10, 100: slopes 0.2 and 1.8.
    landmarks = mapped_to((0.0, 50.0, 100.0), (0.0, 10.0, 100.0))
    values = np.array([-10.0, 0.0, 25.0, 50.0, 75.0, 100.0, 110.0])
    mapped = intensity.standardise(values, landmarks, reference=RAMP)
    np.testing.assert_allclose(mapped, [-2, 0, 5, 10, 55, 100, 118], rtol=1e-6)
    assert mapped.dtype == np.float32


@given(scans)
def test_own_landmarks_are_mapped_onto_the_standard_ones(scan: np.ndarray) -> None:
    landmarks = mapped_to(intensity.PERCENTILES, tuple(np.linspace(0, 100, 11) ** 1.1))
    own = np.percentile(scan, landmarks.percentiles)
    assume((np.diff(own) > 1e-3).all())
    mapped = intensity.standardise(own, landmarks, reference=scan)
    np.testing.assert_allclose(mapped, landmarks.landmarks, atol=1e-3)


@given(scans)
def test_standardise_never_swaps_two_voxels(scan: np.ndarray) -> None:
    mapped = intensity.standardise(np.sort(scan), SCT_T2)
    assert (np.diff(mapped.astype(np.float64)) >= -1e-3).all()


@given(scans, st.floats(0.01, 100), st.floats(-1000, 1000))
def test_standardise_does_not_see_gain_and_offset(
    scan: np.ndarray, gain: float, offset: float
) -> None:
    assume(contrasted(scan))
    plain = intensity.standardise(scan, SCT_T2)
    scaled = intensity.standardise(gain * scan + offset, SCT_T2)
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=0.1)


def test_a_constant_scan_becomes_the_mean_landmark() -> None:
    landmarks = mapped_to((1.0, 50.0, 99.0), (0.0, 20.0, 100.0))
    mapped = intensity.standardise(np.full((4, 4, 4), 12.5), landmarks)
    assert (mapped == np.float32(40)).all()


def test_coinciding_percentiles_become_one_landmark() -> None:
    # 80 % zeros: p0 = p25 = p50 = 0 -> mean(0, 10, 20) = 10; p100 = 8 -> 100.
    scan = np.array([0.0] * 8 + [4.0, 8.0])
    landmarks = mapped_to((0.0, 25.0, 50.0, 100.0), (0.0, 10.0, 20.0, 100.0))
    np.testing.assert_allclose(
        intensity.standardise(scan, landmarks), [10.0] * 8 + [55.0, 100.0], rtol=1e-6
    )


@pytest.mark.parametrize("mapping", [intensity.standardise, intensity.standardise_sct])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_refused(mapping: object, bad: float) -> None:
    scan = RAMP.copy()
    scan[3] = bad
    with pytest.raises(ImageError, match="NaN or infinite"):
        mapping(scan, SCT_T2)  # type: ignore[operator]


def test_an_empty_array_is_refused() -> None:
    with pytest.raises(ImageError, match="no voxel"):
        intensity.standardise(np.empty((0, 3)), SCT_T2)


def test_sct_mapping_between_the_landmarks_is_linear() -> None:
    landmarks = mapped_to((0.0, 50.0, 100.0), (0.0, 10.0, 100.0))
    mapped = intensity.standardise_sct(np.array([0.0, 25.0, 50.0, 75.0, 100.0]), landmarks)
    np.testing.assert_allclose(mapped, [0, 5, 10, 55, 100], rtol=1e-6)


def test_sct_tails_are_exponentials_of_the_first_and_the_last_but_one_segment() -> None:
    # 21 values 0, 5, ..., 100: percentiles 10, 40, 60, 90 are 10, 40, 60, 90 -> 30, 60, 80, 200.
    scan = np.arange(0.0, 101.0, 5.0)
    landmarks = mapped_to((10.0, 40.0, 60.0, 90.0), (30.0, 60.0, 80.0, 200.0))
    mapped = intensity.standardise_sct(scan, landmarks)
    # Below: m = 1, c = 20, s = 30, x2 = 40: w = 1 * 40 - 30 + 20 = 30, g = 1 / 30,
    # b = 30 exp(-40 / 30): y(0) = 30 + 30 exp(-4 / 3), y(5) = 30 + 30 exp(-4 / 3 + 1 / 6).
    assert mapped[0] == pytest.approx(30 + 30 * math.exp(-4 / 3), rel=1e-6)
    assert mapped[1] == pytest.approx(30 + 30 * math.exp(-7 / 6), rel=1e-6)
    # Above: segment (40, 60) -> (60, 80): m = 1, c = 20, s = 200, x2 = 60: w = 60 - 200 + 20
    # = -120, g = -1 / 120, b = -120 exp(1 / 2): y(100) = 200 - 120 exp(1 / 2 - 100 / 120).
    assert mapped[20] == pytest.approx(200 - 120 * math.exp(-1 / 3), rel=1e-6)
    np.testing.assert_allclose(mapped[[2, 8, 12, 18]], [30, 60, 80, 200], rtol=1e-6)


def test_sct_tails_without_a_segment_are_flat() -> None:
    # p1 = p10 = ... = p80 = 0: the first segment and the one before the last have no width.
    scan = np.zeros(1000)
    scan[0], scan[-50:], scan[-1] = -5.0, 10.0, 99.0
    mapped = intensity.standardise_sct(scan, SCT_T2)
    assert np.isfinite(mapped).all()
    assert mapped[0] == SCT_T2.landmarks[0]
    assert mapped[-1] == np.float32(SCT_T2.landmarks[-1])


def test_landmark_distance_of_the_training_scan_is_zero() -> None:
    scan = np.random.default_rng(0).gamma(2.0, 50.0, 5000)
    landmarks = intensity.fit([intensity.measure(scan)])
    assert intensity.landmark_distance(3.0 * scan - 20.0, landmarks) == pytest.approx(0, abs=1e-9)


def test_landmark_distance_is_the_mean_shift_of_the_scaled_landmarks() -> None:
    # Own, scaled: 0, 50, 100; stored, scaled from 0..2000: 0, 20, 100: (0 + 30 + 0) / 3 = 10.
    landmarks = mapped_to((0.0, 50.0, 100.0), (0.0, 400.0, 2000.0))
    assert intensity.landmark_distance(RAMP, landmarks) == pytest.approx(10.0)


def test_an_inverted_contrast_is_far_from_the_landmarks() -> None:
    scan = np.random.default_rng(1).gamma(1.0, 50.0, 5000)
    landmarks = intensity.fit([intensity.measure(scan)])
    assert intensity.landmark_distance(-scan, landmarks) > 20


def test_a_constant_scan_is_as_far_as_can_be() -> None:
    assert intensity.landmark_distance(np.ones(10), SCT_T2) == 100.0


def test_zscore_normalises_each_patch_by_itself() -> None:
    patches = np.zeros((2, 2, 1, 1), np.float32)
    patches[0, :, 0, 0] = 1, 3  # mean 2, std 1
    patches[1, :, 0, 0] = 100, 140  # mean 120, std 20
    before = patches.copy()
    np.testing.assert_array_equal(intensity.zscore(patches)[:, :, 0, 0], [[-1, 1], [-1, 1]])
    np.testing.assert_array_equal(patches, before)


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [(50, 20), (50, 5.1), (50, 4.9), (1e4, 1), (0, 1e20), (1e37, 1e37), (0, 1e-20), (0, 1e-30)],
)
def test_zscore_keeps_the_precision_of_its_numbers(mean: float, deviation: float) -> None:
    noise = np.random.default_rng(0).normal(mean, deviation, (1, 24, 24, 24)).astype(np.float32)
    exact = noise.astype(np.float64)
    expected = (exact - exact.mean()) / exact.std()
    # Two roundings to float32 of numbers up to 5, and that of the mean where it is 10 deviations.
    np.testing.assert_allclose(intensity.zscore(noise), expected, atol=2e-6)


def test_zscore_of_a_patch_without_contrast_is_zero() -> None:
    flat = np.full((48, 48, 48), np.float32(0.1))
    tiny = np.random.default_rng(0).normal(0, 1e-40, flat.shape).astype(np.float32)
    assert not intensity.zscore(np.stack([flat, tiny])).any()
