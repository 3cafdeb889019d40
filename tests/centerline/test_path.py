from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sct_lesion_losses.centerline.optic import best_path, path_scores
from sct_lesion_losses.errors import GeometryError


def total(
    scores: np.ndarray, path: np.ndarray, spacing_mm: tuple[float, float, float], smoothness: float
) -> float:
    steps = np.diff(path, axis=0) * np.array(spacing_mm[:2]) / spacing_mm[2]
    return float(path_scores(scores, path).sum() - smoothness * (steps**2).sum())


@given(
    seed=st.integers(0, 10_000),
    spacing_mm=st.tuples(*[st.floats(0.2, 5)] * 3),
    smoothness=st.floats(0, 3),
)
@settings(max_examples=60)
def test_no_other_path_is_better(
    seed: int, spacing_mm: tuple[float, float, float], smoothness: float
) -> None:
    scores = np.random.default_rng(seed).normal(size=(4, 2, 3)).astype(np.float32)
    best = total(scores, best_path(scores, spacing_mm, smoothness), spacing_mm, smoothness)
    points = [(x, y) for x in range(3) for y in range(2)]
    all_paths = (np.array(path) for path in itertools.product(points, repeat=4))
    highest = max(total(scores, path, spacing_mm, smoothness) for path in all_paths)
    assert best == pytest.approx(highest, abs=1e-4)


def test_a_far_peak_is_left_for_a_smooth_path() -> None:
    scores = np.zeros((5, 1, 11), np.float32)
    scores[:, 0, 2] = 1.0
    scores[2, 0, 10] = 5.0  # 8 mm aside: 2 × 64 / 1 mm² is dearer than the 4 it would win
    path = best_path(scores, (1.0, 1.0, 1.0))
    assert path.tolist() == [[2, 0]] * 5


def test_without_smoothness_each_slice_takes_its_own_peak() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    path = best_path(scores, (1.0, 1.0, 1.0), smoothness=0.0)
    np.testing.assert_allclose(path_scores(scores, path), scores.max(axis=(1, 2)))


def test_thick_slices_allow_longer_steps() -> None:
    scores = np.zeros((2, 1, 11), np.float32)
    scores[0, 0, 0] = 2.0
    scores[1, 0, 10] = 2.0
    # The step of 10 mm costs 100 / dz²: 100 at 1 mm, 0.69 at 12 mm, against a gain of 2.
    assert best_path(scores, (1.0, 1.0, 1.0))[0, 0] == best_path(scores, (1.0, 1.0, 1.0))[1, 0]
    assert best_path(scores, (1.0, 1.0, 12.0))[:, 0].tolist() == [0, 10]


def test_a_single_slice_has_its_peak() -> None:
    scores = np.zeros((1, 3, 4), np.float32)
    scores[0, 2, 1] = 1
    assert best_path(scores, (1, 1, 1)).tolist() == [[1, 2]]


def test_maps_of_another_rank_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(Z, Y, X\)"):
        best_path(np.zeros((3, 4), np.float32), (1, 1, 1))
