from __future__ import annotations

import itertools
from pathlib import Path

import cord_detector
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.centerline import optic
from sct_lesion_losses.centerline.optic import best_path, to_eight_bit, upright
from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.grid import Grid

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])


def sct_weights(folder: Path, contrast: str) -> np.ndarray:
    text = (folder / "data/optic_models" / f"{contrast}_model.yml").read_text()
    numbers = text[text.index("SVMDetector") :].split("[")[1].split("]")[0]
    return np.array([float(number) for number in numbers.split(",")], np.float32)


@pytest.mark.sct
@pytest.mark.parametrize(
    ("scan", "contrast", "slices"),
    [("t2/t2", "t2", 55), ("t2s/t2s", "t2s", 9), ("dmri/dwi_mean", "dwi", 5)],
)
def test_scts_weights_give_scts_gold_standard_voxel_for_voxel(
    shared: Path, sct_dir: Path, scan: str, contrast: str, slices: int
) -> None:
    stem = shared / "data/sct_testing_data" / scan
    image = nib.load(f"{stem}.nii.gz")
    gold = np.asarray(nib.load(f"{stem}_centerline-optic.nii.gz").dataobj)
    grid = Grid(image.shape, image.affine)
    line = optic.centerline(np.asarray(image.dataobj), grid, sct_weights(sct_dir, contrast))
    drawn = np.zeros(line.grid.shape, np.uint8)
    x, y = line.xy.astype(int).T
    drawn[x, y, np.arange(slices)] = 1
    assert gold.sum() == slices
    np.testing.assert_array_equal(grid.to_rpi()[1].undo(drawn), gold)


def test_eight_bits_span_the_range_of_the_image() -> None:
    values = to_eight_bit(np.array([-10.0, 0.0, 41.0]))
    # (0 + 10) / 51 of 65535 is 12850, and of 255 is 50.
    assert values.tolist() == [0, 50, 255]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full((30, 30, 5), 0), "every voxel of the image is 0"),
        (np.full((30, 30, 5), -3.5), r"every voxel of the image is -3\.5"),
        (np.eye(30)[:8, :, None], r"8\.0 × 30\.0 mm"),
    ],
)
def test_a_scan_that_cannot_show_a_cord_is_refused(image: np.ndarray, said: str) -> None:
    with pytest.raises(CenterlineError, match=said):
        upright(image, Grid(image.shape, LAS))


def picture(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 50), (32, 32), (17, 5), (1, 7)])
def test_a_score_is_the_weighted_sum_of_the_features_there(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    weights = np.random.default_rng(1).normal(size=577).astype(np.float32)
    pixels = np.array([(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 3)])
    expected = cord_detector.features(image, pixels) @ weights[:-1] + weights[-1]
    actual = optic.scores(image, weights)[pixels[:, 0], pixels[:, 1]]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("shape", [(40, 50), (41, 51), (7, 5)])
def test_a_stride_leaves_pixels_out(shape: tuple[int, int], stride: int) -> None:
    image = picture(*shape)
    weights = np.random.default_rng(1).normal(size=577).astype(np.float32)
    expected = optic.scores(image, weights)[::stride, ::stride]
    np.testing.assert_allclose(optic.scores(image, weights, stride), expected, atol=1e-4)


@pytest.mark.parametrize("part", [np.s_[18:29, 20:31], np.s_[0:40, 0:7], np.s_[35:60, 3:4]])
def test_scores_of_a_part_are_those_of_the_whole_picture(part: tuple[slice, slice]) -> None:
    image = picture(40, 50)
    weights = np.random.default_rng(1).normal(size=577).astype(np.float32)
    expected = optic.scores(image, weights)[part]
    np.testing.assert_allclose(optic.scores_within(image, weights, *part), expected, atol=1e-4)


def total(
    scores: np.ndarray, path: np.ndarray, spacing_mm: tuple[float, float, float], smoothness: float
) -> float:
    steps = np.diff(path, axis=0) * np.array(spacing_mm[:2]) / spacing_mm[2]
    gained = scores[np.arange(len(path)), path[:, 1], path[:, 0]].sum()
    return float(gained - smoothness * (steps**2).sum())


@given(
    seed=st.integers(0, 10_000),
    slices=st.integers(1, 4),
    spacing_mm=st.tuples(*[st.floats(0.2, 5)] * 3),
    smoothness=st.floats(0, 3),
)
@settings(max_examples=80)
def test_no_other_path_is_better(
    seed: int, slices: int, spacing_mm: tuple[float, float, float], smoothness: float
) -> None:
    scores = np.random.default_rng(seed).normal(size=(slices, 2, 3)).astype(np.float32)
    best = total(scores, best_path(scores, spacing_mm, smoothness), spacing_mm, smoothness)
    points = [(x, y) for x in range(3) for y in range(2)]
    all_paths = (np.array(path) for path in itertools.product(points, repeat=slices))
    highest = max(total(scores, path, spacing_mm, smoothness) for path in all_paths)
    assert best == pytest.approx(highest, abs=1e-4)


@pytest.mark.parametrize(("dz_mm", "expected"), [(1.0, [2] * 5), (12.0, [2, 2, 10, 2, 2])])
def test_a_far_peak_is_left_for_a_smooth_path_where_slices_are_thin(
    dz_mm: float, expected: list[int]
) -> None:
    scores = np.zeros((5, 1, 11), np.float32)
    scores[:, 0, 2] = 1.0
    # 8 mm aside: twice 64 / dz² is dearer than the 4 that it would win at 1 mm, not at 12 mm.
    scores[2, 0, 10] = 5.0
    assert best_path(scores, (1.0, 1.0, dz_mm))[:, 0].tolist() == expected
