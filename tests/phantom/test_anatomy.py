from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.phantom.anatomy import LEVELS, Body, axis_mm, make_body
from sct_lesion_losses.phantom.tissue import grey_matter_distance

SUBJECTS = 30


@pytest.fixture(scope="module")
def bodies() -> list[Body]:
    return [make_body(np.random.default_rng([3, k])) for k in range(SUBJECTS)]


@pytest.mark.parametrize(
    ("level", "ap_mm", "rl_mm", "area_mm2"),
    [("C5", 7.4, 12.9, 75), ("C7", 6.5, 10.8, 55), ("T2", 6.0, 8.6, 41), ("T6", 5.3, 7.2, 30)],
)
def test_the_cord_has_the_published_section(
    bodies: list[Body], level: str, ap_mm: float, rl_mm: float, area_mm2: float
) -> None:
    k = LEVELS.index(level)
    at = [int(b.index(np.float32([b.centres[k]]))[0]) for b in bodies]
    rv, ru = (
        np.array([b.tables[name][i] for b, i in zip(bodies, at, strict=True)])
        for name in ("cord_rv", "cord_ru")
    )
    assert 2 * rv.mean() == pytest.approx(ap_mm, rel=0.04)
    assert 2 * ru.mean() == pytest.approx(rl_mm, rel=0.04)
    area = np.pi * rv * ru
    assert area.mean() == pytest.approx(area_mm2, rel=0.06)
    assert 0.04 < area.std() / area.mean() < 0.13


def test_grey_matter_takes_10_to_16_percent_of_the_section(bodies: list[Body]) -> None:
    a, b = np.meshgrid(*[np.linspace(-1, 1, 201, dtype=np.float32)] * 2)
    inside = a * a + b * b < 1
    shares = [
        (grey_matter_distance(a[inside], b[inside], body.numbers["gm_size"]) < 0).mean()
        for body in bodies
    ]
    assert min(shares) > 0.10
    assert max(shares) < 0.16


def test_the_cord_lies_inside_the_sac(bodies: list[Body]) -> None:
    for body in bodies:
        t = body.tables
        assert (t["cord_v"] + t["cord_rv"] <= t["sac_rv"] + 1e-3).all()
        assert (t["cord_v"] - t["cord_rv"] >= -t["sac_rv"] - 1e-3).all()
        assert (t["cord_ru"] < t["sac_ru"]).all()


def test_coordinates_of_the_cords_centre_are_its_offsets(bodies: list[Body]) -> None:
    body = bodies[0]
    s = np.linspace(-300, -10, 50)
    u, v, found = body.coordinates(body.cord_centre(s))
    # The offset turns with the curve, so s is met to a tenth of a mm only.
    assert found == pytest.approx(s, abs=0.1)
    assert u == pytest.approx(np.interp(s, axis_mm(), body.tables["cord_u"]), abs=0.05)
    assert v == pytest.approx(np.interp(s, axis_mm(), body.tables["cord_v"]), abs=0.05)


def test_the_spine_is_curved_and_hardly_bent_sideways(bodies: list[Body]) -> None:
    for body in bodies:
        side = np.degrees(np.arcsin(body.up[:, 0]))
        assert np.abs(side).max() <= 3.001
    bends = [np.ptp(np.degrees(np.arcsin(b.up[:, 1]))) for b in bodies]
    assert np.mean(bends) > 10


def test_levels_follow_each_other_downwards(bodies: list[Body]) -> None:
    body = bodies[0]
    assert (np.diff(body.centres) < 0).all()
    assert [body.level(c) for c in body.centres] == list(LEVELS)
