from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
from cord_detector import Example
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sct_lesion_losses.centerline import detector, optic
from sct_lesion_losses.centerline.detector import Detector, detect, evidence, shows_cord
from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])
Loader = Callable[..., tuple[np.ndarray, Grid]]
CONSTANTS = [
    name
    for name, value in vars(detector).items()
    if name.isupper() and isinstance(value, (int, float, tuple))
]


def test_the_cord_is_found_in_a_wide_axial_field(load: Loader) -> None:
    line = detect(*load("t2s/t2s_uncropped"))
    # Read off slices 1, 5 and 9: (174, 164), (173, 161), (170, 155) of 320 × 320 pixels of 0.5 mm.
    seen = np.array([(174, 164), (173, 161), (170, 155)])
    assert np.abs(line.xy[[1, 5, 9]] - seen).max() < 8


@pytest.mark.parametrize(
    ("stem", "box"),
    [
        ("t2/t2", np.s_[:, :, :15]),  # to the left of the canal
        ("t2/t2", np.s_[:, :, 37:]),
        ("t2/t2", np.s_[37:, :, :]),  # behind it
        ("t2s/t2s_uncropped", np.s_[20:120, 40:130, :]),
        ("t2s/t2s_uncropped", np.s_[200:300, 20:110, :]),
        ("t2s/t2s_uncropped", np.s_[110:210, 20:110, :]),
    ],
)
def test_parts_of_real_scans_beside_the_spine_are_refused(
    load: Loader, stem: str, box: tuple[slice, ...]
) -> None:
    with pytest.raises(CenterlineError, match="no spinal cord was found: the evidence"):
        detect(*load(stem, box))


@pytest.mark.parametrize("sigma", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(60, 60, 40), (30, 200, 60), (200, 200, 20)])
def test_noise_is_refused(sigma: float, shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).normal(size=shape)
    noise = ndimage.gaussian_filter(noise, sigma)
    with pytest.raises(CenterlineError, match="-centerline file -file_centerline <file>, or") as it:
        detect(noise, Grid(shape, LAS))
    assert str(it.value).endswith("where the scan is of a cohort, as a centerline in the cohort")
    assert not shows_cord(noise, Grid(shape, LAS))


def test_noise_above_and_below_does_not_move_the_rest_of_the_line(
    load: Loader, errors_mm: Callable[[Centerline, str], np.ndarray]
) -> None:
    array, grid = load("t2/t2")
    noisy = array.astype(np.float32)
    # The second stored axis runs from superior to inferior: 10 mm at both ends.
    rng = np.random.default_rng(0)
    for end in (np.s_[:, :10], np.s_[:, -10:]):
        noisy[end] = rng.uniform(0, 800, noisy[end].shape)
    errors = errors_mm(detect(noisy, grid), "t2/t2_seg-manual")
    assert errors[12:-12].mean() < 1.0


def test_storage_and_units_of_intensity_do_not_matter(load: Loader) -> None:
    array, grid = load("t2/t2")
    expected = detect(array, grid).xy
    rpi, reorientation = grid.to_rpi()
    turned = np.ascontiguousarray(reorientation.apply(array))
    np.testing.assert_allclose(detect(turned, rpi).xy, expected, atol=1e-3)
    np.testing.assert_allclose(detect(array * 0.01 - 3.0, grid).xy, expected, atol=0.1)


def test_a_large_scan_is_searched_in_two_steps_with_the_same_result(
    load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    array, grid = load("t2s/t2s_uncropped")
    one_step = detect(array, grid).xy
    monkeypatch.setattr(detector, "_COARSE_PX", 0)
    np.testing.assert_allclose(detect(array, grid).xy, one_step, atol=0.05)


def test_thick_sagittal_slices_become_no_steps() -> None:
    # A ramp over 20 slices of 3 mm, 10 a slice; pixels of 0.5 mm, which are averaged over.
    ramp = np.broadcast_to(10.0 * np.arange(20)[:, None, None], (20, 80, 9))
    grid = Grid(ramp.shape, np.diag([-3.0, 0.5, 1.0, 1.0]))
    pictures = detector.cut(*optic.upright(ramp, grid))
    assert pictures.images.shape == (3, 40, 60)
    # 255 grey values over 190, so that a millimetre is 4.5 but for the rounding.
    steps = np.diff(pictures.images[:, :, 2:-2].astype(int), axis=2)
    assert set(steps.ravel()) <= {4, 5}


def test_evidence_is_the_mean_of_the_best_forty_five_millimetres() -> None:
    scores = np.array([0.0, 4, 2, 0, -9, -9])
    assert evidence(scores, 15.0) == 2.0  # slabs of 15 mm: three of them
    assert evidence(scores, 45.0) == 4.0
    assert evidence(scores[:2], 10.0) == 2.0  # shorter than 45 mm: all of it


@pytest.mark.parametrize(
    ("within", "around"), [(0.1, 1.0), (2.0, 0.02)], ids=["an airway", "a vessel in the lung"]
)
def test_a_path_through_what_has_no_signal_of_a_cord_is_no_evidence(
    within: float, around: float, example: Callable[..., Example]
) -> None:
    pictures = example(2).pictures
    weights = detector.shipped().weights
    pixels, scores = detector.trace(pictures, weights)
    assert scores.min() > 0
    rows, columns = np.mgrid[: pictures.images.shape[1], : pictures.images.shape[2]]
    other = pictures.images.copy()
    for image, (x, y) in zip(other, pixels, strict=True):
        inside = np.hypot(columns - x, rows - y) < 4.5
        image[:] = image * np.where(inside, within, around)
    _, seen = detector.trace(replace(pictures, images=other), weights)
    assert seen.max() <= 0


@pytest.mark.parametrize(("middle", "expected"), [(50, 0.25), (0, 0.0), (200, 1.0)])
def test_the_signal_is_relative_to_the_upper_quartile_around(middle: int, expected: float) -> None:
    image = np.full((60, 60), 255, np.uint8)
    rows, columns = np.mgrid[:60, :60]
    away = np.hypot(columns - 20, rows - 30)
    image[away < 15] = 200
    image[away < 4] = middle
    found = detector.relative_signal(image, np.array([20, 30]))
    assert found == pytest.approx(expected, abs=0.01)


def test_what_decides_what_a_detector_finds_is_its_identity() -> None:
    one = Detector(np.arange(577, dtype=np.float32), 0.25, {"version": "7"})
    others = replace(one, weights=one.weights + 1), replace(one, limit=0.5)
    assert replace(one, training={"version": "8"}).identity == one.identity
    assert len({one.identity, *(other.identity for other in others)}) == 3


@pytest.mark.parametrize("name", [*CONSTANTS, "optic.PARAMETERS"])
def test_every_constant_of_the_search_is_in_the_identity(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Detector(np.zeros(577, np.float32), 0.25, {})
    before, value = one.identity, attrgetter(name)(detector)
    monkeypatch.setattr(f"sct_lesion_losses.centerline.detector.{name}", value * 2)
    assert len(CONSTANTS) == 13
    assert one.identity != before


def test_the_shipped_detector_says_what_it_was_trained_on() -> None:
    shipped = detector.shipped()
    assert shipped.weights.shape == (577,)
    assert {"version", "seed", "scans", "software"} <= shipped.training.keys()
    assert detector._FILE.stat().st_size < 300_000


def grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    return Grid(shape, np.diag([-spacing_mm[0], spacing_mm[1], spacing_mm[2], 1.0]))


def test_thin_slices_are_averaged_over_three_millimetres() -> None:
    image = np.zeros((4, 5, 8), np.float32)
    image[:, :, 3:] = [90, 60, 30, 255, 255]
    result = detector.cut(image, grid(image.shape, (1, 1, 1)))
    # Slices 0-2, 3-5 and 6-7: means 0, 60 and 255.
    assert result.images[:, 0, 0].tolist() == [0, 60, 255]
    assert result.z.tolist() == [1, 4, 6.5]
    assert result.images.shape == (3, 5, 4)


def test_thick_slices_stay_single() -> None:
    image = np.random.default_rng(0).normal(size=(4, 5, 3))
    result = detector.cut(image, grid(image.shape, (1, 1, 7.5)))
    assert result.z.tolist() == [0, 1, 2]
    assert result.spacing_mm == (1, 1, 7.5)


@pytest.mark.parametrize("size_mm", [0.5, 0.8, 1.0, 2.5])
def test_pixels_are_a_millimetre_and_nothing_shifts(size_mm: float) -> None:
    # A blob 20.3 mm from the left edge and 14.1 mm from the back.
    nx, ny = round(40 / size_mm), round(50 / size_mm)
    x, y = np.ogrid[:nx, :ny]
    blob = np.exp(
        -(((x + 0.5) * size_mm - 20.3) ** 2 + ((y + 0.5) * size_mm - 14.1) ** 2) / (2 * 3**2)
    )
    result = detector.cut(blob[:, :, None], grid((nx, ny, 1), (size_mm, size_mm, 4)))
    rows, columns = np.indices(result.images.shape[1:])
    weight = result.images[0].astype(float) ** 2
    centre = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
    np.testing.assert_allclose(centre, (19.8, 13.6), atol=0.15)


@given(
    st.tuples(st.floats(0, 300), st.floats(0, 300)),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
)
@settings(max_examples=30)
def test_pixels_and_voxels_are_inverse(
    point: tuple[float, float], size_mm: tuple[float, float]
) -> None:
    pictures = detector.Slabs(
        grid((4, 4, 1), (*size_mm, 1)), np.zeros((1, 4, 4), np.uint8), np.zeros(1)
    )
    np.testing.assert_allclose(pictures.to_voxels(pictures.to_pixels(point)), point, atol=1e-6)


def test_a_few_extreme_voxels_do_not_darken_the_rest() -> None:
    image = np.random.default_rng(0).uniform(0, 100, (40, 40, 4))
    image[0, 0, 0] = 1e6
    assert detector.cut(image, grid(image.shape, (1, 1, 4))).images.mean() > 100


def test_a_small_object_on_nothing_is_kept() -> None:
    image = np.zeros((40, 40, 4))
    image[20, 20, :] = 50
    assert detector.cut(image, grid(image.shape, (1, 1, 4))).images.max() == 255


def test_a_cord_is_looked_for_inside_the_picture_only() -> None:
    inside = detector.inner((20, 11))
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 15, 3, 7)
    assert inside.sum() == 12 * 5


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9])
def test_a_narrow_picture_still_has_an_inside(n: int) -> None:
    assert detector.inner((n, 50)).any()
