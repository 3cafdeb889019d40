from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.centerline import optic


def picture(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 50), (32, 32), (17, 5), (1, 7)])
def test_a_score_is_the_weighted_sum_of_the_features_there(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    weights = np.random.default_rng(1).normal(size=577).astype(np.float32)
    pixels = np.array([(0, 0), (shape[0] - 1, shape[1] - 1), (shape[0] // 2, shape[1] // 3)])
    expected = optic.features(image, pixels) @ weights[:-1] + weights[-1]
    actual = optic.scores(image, weights)[pixels[:, 0], pixels[:, 1]]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_a_flat_picture_scores_its_bias_everywhere() -> None:
    weights = np.ones(577, np.float32)
    weights[-1] = -2.5
    actual = optic.scores(np.full((20, 30), 9, np.uint8), weights)
    np.testing.assert_allclose(actual, np.full((20, 30), -2.5), atol=1e-6)


def test_each_block_has_unit_norm_where_there_is_an_edge() -> None:
    block = optic.features(picture(40, 40), np.array([(20, 20)])).reshape(16, 36)
    np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, atol=2e-3)


def test_scores_move_with_the_picture() -> None:
    image = picture(70, 70)
    weights = np.random.default_rng(2).normal(size=577).astype(np.float32)
    moved = np.roll(image, (3, 5), (0, 1))
    np.testing.assert_allclose(
        optic.scores(moved, weights)[30:40, 30:40],
        optic.scores(image, weights)[27:37, 25:35],
        atol=1e-4,
    )


def test_weights_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="577"):
        optic.scores(picture(9, 9), np.zeros(576, np.float32))


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("shape", [(40, 50), (41, 51), (7, 5)])
def test_a_stride_leaves_pixels_out(shape: tuple[int, int], stride: int) -> None:
    image = picture(*shape)
    weights = np.random.default_rng(1).normal(size=577).astype(np.float32)
    expected = optic.scores(image, weights)[::stride, ::stride]
    np.testing.assert_allclose(optic.scores(image, weights, stride), expected, atol=1e-4)


@pytest.mark.parametrize("centre", [(20, 30), (0, 0), (39, 2), (3, 49)])
def test_scores_near_a_pixel_are_those_of_the_whole_picture(centre: tuple[int, int]) -> None:
    image = picture(40, 50)
    weights = np.random.default_rng(1).normal(size=577).astype(np.float32)
    framed = np.pad(optic.scores(image, weights), 5, constant_values=-np.inf)
    expected = framed[centre[0] : centre[0] + 11, centre[1] : centre[1] + 11]
    np.testing.assert_allclose(optic.scores_near(image, weights, centre, 5), expected, atol=1e-4)
