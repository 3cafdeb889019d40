from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.tissue import cover, ellipse_distance, grey_matter_distance, painted


def test_a_surface_covers_half_of_its_own_points() -> None:
    distance = np.array([-1, -0.25, 0, 0.25, 1], np.float32)
    assert cover(distance, 1.0).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_the_distance_to_an_ellipse_is_exact_on_its_axes_edge() -> None:
    u = np.array([6.0, 0.0, 6.1], np.float32)
    v = np.array([0.0, 4.0, 0.0], np.float32)
    found = ellipse_distance(u, v, np.float32([6] * 3), np.float32([4] * 3))
    assert found == pytest.approx([0, 0, 0.1], abs=0.01)


def test_layers_are_laid_one_over_another_by_the_share_that_they_cover() -> None:
    under, share = np.ones(3, np.float32), np.array([0, 0.5, 1], np.float32)
    assert painted(under, [(share, 3.0)]).tolist() == [1, 2, 3]
    assert painted(under, [(share, 3.0), (share, np.float32([0, 0, 7]))]).tolist() == [1, 1, 7]
    assert under.tolist() == [1, 1, 1]


def test_grey_matter_takes_10_to_16_percent_of_the_section(bodies: list[Body]) -> None:
    a, b = np.meshgrid(*[np.linspace(-1, 1, 201, dtype=np.float32)] * 2)
    inside = a * a + b * b < 1
    shares = [
        (grey_matter_distance(a[inside], b[inside], body.numbers["gm_size"]) < 0).mean()
        for body in bodies
    ]
    assert min(shares) > 0.10
    assert max(shares) < 0.16
