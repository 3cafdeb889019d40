from __future__ import annotations

import itertools

import numpy as np
import pytest

from sct_lesion_losses.phantom.anatomy import Body, make_body
from sct_lesion_losses.phantom.lesions import Lesion, Lesions, coverage, distance, draw_lesions

EXTENT = (-140.0, 0.0)


@pytest.fixture(scope="module")
def body() -> Body:
    return make_body(np.random.default_rng(5))


@pytest.fixture(scope="module")
def drawn(body: Body) -> list[Lesions]:
    return [
        draw_lesions(np.random.default_rng([5, k]), body, EXTENT, affected=True) for k in range(250)
    ]


def test_lesions_are_drawn_as_many_long_and_bright_as_described(drawn: list[Lesions]) -> None:
    items = [item for lesions in drawn for item in lesions.items]
    assert len(items) / len(drawn) == pytest.approx(4, rel=0.15)  # 1 + mean 3
    ratios = np.array([i.ratio for i in items])
    assert np.median(ratios) == pytest.approx(1.38, abs=0.03)
    assert ratios.min() >= 1.12
    assert ratios.max() <= 2.0
    assert (ratios < 1.2).mean() > 0.1  # some can hardly be seen
    halves = np.array([i.half_length_mm for i in items])
    assert np.median(halves) == pytest.approx(6.5, rel=0.1)
    assert halves.min() >= 1.8
    assert halves.max() <= 26
    places = [i.place for i in items]
    assert places.count("lateral") / len(places) == pytest.approx(0.44, abs=0.06)
    assert places.count("posterior") / len(places) == pytest.approx(0.33, abs=0.06)


def test_the_thoracic_cord_has_fewer_lesions(body: Body) -> None:
    s = []
    for k in range(150):
        rng = np.random.default_rng([6, k])
        s += [i.s_mm for i in draw_lesions(rng, body, (-240, 0), affected=True).items]
    neck = np.mean([body.level(x)[0] == "C" for x in s])
    c7 = body.centres[6] - 8
    # Density 1 and 0.8 over the neck, 0.4 below it.
    expected = 0.9 * -c7 / (0.9 * -c7 + 0.4 * (240 + c7))
    assert neck == pytest.approx(expected, abs=0.06)


def _section(item: Lesion, lesions: Lesions) -> np.ndarray:
    a, b = np.meshgrid(*[np.linspace(-1, 1, 121, dtype=np.float32)] * 2)
    s = np.full_like(a, item.s_mm)
    radius = np.full_like(a, 5.0)
    inside = distance(item, lesions, a, b, s, a * 6.4, b * 3.7, radius) < 0
    return np.where(a * a + b * b < 1, inside, False)


def test_lesions_take_5_to_30_percent_of_the_section(drawn: list[Lesions]) -> None:
    disc = np.pi / 4
    shares = np.array(
        [_section(i, lesions).mean() / disc for lesions in drawn[:60] for i in lesions.items]
    )
    assert 0.11 < np.median(shares) < 0.2
    assert np.percentile(shares, 2) > 0.02
    assert shares.max() < 0.7


def test_lesions_are_no_ellipses(drawn: list[Lesions]) -> None:
    overlaps = []
    for lesions in drawn[:40]:
        for item in lesions.items:
            shape = _section(item, lesions)
            if shape.sum() < 60:
                continue
            points = np.argwhere(shape)
            centred = points - points.mean(0)
            inverse = np.linalg.inv(np.cov(centred.T))
            grid = np.stack(np.indices(shape.shape), -1) - points.mean(0)
            # An ellipse with the same moments: within twice the deviation along each axis.
            ellipse = np.einsum("...i,ij,...j", grid, inverse, grid) < 4
            overlaps.append((shape & ellipse).sum() / (shape | ellipse).sum())
    assert np.median(overlaps) < 0.92


def test_the_rim_is_soft(drawn: list[Lesions]) -> None:
    item = drawn[0].items[0]
    share = coverage(item, np.array([-item.rim_mm, 0, item.rim_mm], np.float32))
    assert share == pytest.approx([1, 0.5, 0], abs=1e-6)


def test_a_subject_without_lesions_has_the_haze_that_it_would_have_with_some(body: Body) -> None:
    for k in range(10):
        with_, without = (
            draw_lesions(np.random.default_rng(k), body, EXTENT, affected=affected)
            for affected in (True, False)
        )
        assert without.items == ()
        assert without.haze == with_.haze


def test_haze_is_there_in_some_and_never_bright(drawn: list[Lesions]) -> None:
    haze = np.array([lesions.haze for lesions in drawn])
    assert (haze > 1).mean() == pytest.approx(0.45, abs=0.1)
    assert haze.max() <= 1.11


def test_lesions_may_run_into_one_another(drawn: list[Lesions]) -> None:
    touching = 0
    for lesions in drawn[:60]:
        spans = sorted(
            (i.s_mm - i.half_length_mm, i.s_mm + i.half_length_mm) for i in lesions.items
        )
        touching += any(a[1] > b[0] for a, b in itertools.pairwise(spans))
    assert touching > 5
