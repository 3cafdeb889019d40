from dataclasses import replace

import numpy as np
import pytest

from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.lesions import draw_lesions
from sct_lesion_losses.phantom.sites import SITES, Protocol, draw_protocol
from sct_lesion_losses.phantom.tissue import (
    Points,
    canal,
    cover,
    ellipse_distance,
    grey_matter_distance,
    painted,
)


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


def signal(body: Body, protocol: Protocol, u: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Signal of the canal's content beside the cord's middle, without lesions."""
    extent = (-200.0, 0.0)
    none = draw_lesions(np.random.default_rng(0), body, extent, affected=False)
    middle_u, v = body.at(s, "cord_u", "cord_v")
    points = Points(body, protocol, middle_u + u, v, s, 0.5)
    return canal(points, none, np.ones_like(s))[0]


EVEN = {"uneven": 0.0, "stripe": 0.0, "mottle": 0.0, "csf_fall": 1.0, "flow": 0.0}


@pytest.mark.parametrize("name", ["uneven", "stripe", "mottle"])
def test_what_makes_the_cord_uneven_does_so_by_its_strength(bodies: list[Body], name: str) -> None:
    even = replace(draw_protocol(np.random.default_rng(0), SITES[12]), **EVEN)
    s = np.linspace(-180, 0, 400, dtype=np.float32)
    u = np.full_like(s, 0.5)
    usual = signal(bodies[0], even, u, s)
    weak, strong = (
        np.std(np.log(signal(bodies[0], replace(even, **{name: by}), u, s) / usual))
        for by in (0.03, 0.06)
    )
    assert 0.01 < weak < 0.06
    assert strong == pytest.approx(2 * weak, rel=0.05)


def test_fluid_fades_downwards_and_the_cord_does_not(bodies: list[Body]) -> None:
    even = replace(draw_protocol(np.random.default_rng(0), SITES[12]), **EVEN)
    s = np.float32([-100.0])
    ru, sac = bodies[0].at(s, "cord_ru", "sac_ru")
    for u, left in ((s * 0, 1.0), ((ru + sac) / 2, 0.7)):
        before, after = (
            signal(bodies[0], replace(even, csf_fall=by, soft_mm=0.0), u, s) for by in (1.0, 0.7)
        )
        assert after / before == pytest.approx(left, rel=0.02)
