from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.phantom.noise import (
    cover,
    ellipse_distance,
    field,
    make_tables,
    paint,
    smooth_walk,
)


def test_a_surface_covers_half_of_its_own_points() -> None:
    distance = np.array([-1, -0.25, 0, 0.25, 1], np.float32)
    assert cover(distance, 1.0).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_the_distance_to_an_ellipse_is_exact_on_its_axes_edge() -> None:
    u = np.array([6.0, 0.0, 6.1], np.float32)
    v = np.array([0.0, 4.0, 0.0], np.float32)
    found = ellipse_distance(u, v, np.float32([6] * 3), np.float32([4] * 3))
    assert found == pytest.approx([0, 0, 0.1], abs=0.01)


@pytest.mark.parametrize("length", [1.5, 12.0])  # looked up, interpolated
def test_a_field_has_zero_mean_and_about_unit_variance(length: float) -> None:
    rng = np.random.default_rng(0)
    noise = field(rng, make_tables(rng, 1)[0], length)
    x = [rng.uniform(-150, 150, 20_000).astype(np.float32) for _ in range(3)]
    values = noise(*x)
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.1
    assert 0.7 < values.std() < 1.1


def test_an_interpolated_field_has_no_steps() -> None:
    rng = np.random.default_rng(0)
    noise = field(rng, make_tables(rng, 1)[0], 12.0)
    u = np.arange(0, 30, 0.05, dtype=np.float32)
    assert np.abs(np.diff(noise(u, u * 0, u * 0))).max() < 0.05


def test_fields_of_two_tables_are_not_related() -> None:
    rng = np.random.default_rng(0)
    one, other = (field(rng, table, 2.0) for table in make_tables(rng, 2))
    x = [rng.uniform(-60, 60, 20_000).astype(np.float32) for _ in range(3)]
    assert abs(np.corrcoef(one(*x), other(*x))[0, 1]) < 0.05


def test_paint_mixes_by_the_covered_share() -> None:
    value = np.array([1, 1, 1], np.float32)
    paint(value, np.array([0, 0.5, 1], np.float32), 3.0)
    assert value.tolist() == [1, 2, 3]


def test_a_walk_has_the_deviation_asked_for() -> None:
    walk = smooth_walk(np.random.default_rng(0), 20_000, 0.25, 20, 1.5)
    assert walk.std() == pytest.approx(1.5, rel=0.2)
