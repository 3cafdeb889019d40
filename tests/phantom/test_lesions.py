import itertools

import numpy as np
import pytest
from scipy import stats

from sct_lesion_losses.phantom import PhantomScan, make_scan
from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.lesions import (
    MEDIAN_RATIO,
    SPREAD_RATIO,
    Lesions,
    distance,
    draw_lesions,
    rater_mask,
)

EXTENT = (-140.0, 0.0)


@pytest.fixture(scope="module")
def body(bodies: list[Body]) -> Body:
    return bodies[0]


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


@pytest.mark.parametrize("contrast", [(1.25, 2.0), (1.05, 1.12), (2.0, 5.0), (4.9, 5.0)])
def test_lesions_of_another_range_are_log_normal_within_it(
    body: Body, contrast: tuple[float, float]
) -> None:
    items = [
        item
        for k in range(150)
        for item in draw_lesions(
            np.random.default_rng([6, k]), body, EXTENT, affected=True, contrast=contrast
        ).items
    ]
    ratios = np.array([item.ratio for item in items])
    assert len(np.unique(ratios)) == len(ratios)  # no heap at an end
    low, high = contrast
    assert low < ratios.min()
    assert ratios.max() < high
    # Shares above a ratio, of the log-normal as scipy has it.
    above = stats.lognorm(SPREAD_RATIO, scale=MEDIAN_RATIO).sf
    ranks = (above(ratios) - above(high)) / (above(low) - above(high))
    assert stats.kstest(ranks, "uniform").pvalue > 0.01


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


@pytest.fixture(scope="module")
def sections(body: Body, drawn: list[Lesions]) -> list[np.ndarray]:
    """Sections of the cord through the middles of lesions, seen as a disc: (121, 121) bool."""
    a, b = np.meshgrid(*[np.linspace(-1, 1, 121, dtype=np.float32)] * 2)
    found = []
    for lesions in drawn[:60]:
        for item in lesions.items:
            s = np.full_like(a, item.s_mm)
            u, v, ru, rv = body.at(s, "cord_u", "cord_v", "cord_ru", "cord_rv")
            inside = distance(item, lesions, body, u + a * ru, v + b * rv, s) < 0
            found.append(inside & (a * a + b * b < 1))
    return found


def test_lesions_take_5_to_30_percent_of_the_section(sections: list[np.ndarray]) -> None:
    shares = np.mean(sections, axis=(1, 2)) / (np.pi / 4)
    assert 0.11 < np.median(shares) < 0.2
    assert np.percentile(shares, 2) > 0.02
    assert shares.max() < 0.7


def test_lesions_are_no_ellipses(sections: list[np.ndarray]) -> None:
    overlaps = []
    for shape in sections:
        if shape.sum() < 60:
            continue
        points = np.argwhere(shape)
        inverse = np.linalg.inv(np.cov(points.T))
        grid = np.stack(np.indices(shape.shape), -1) - points.mean(0)
        # An ellipse with the same moments: within twice the deviation along each axis.
        ellipse = np.einsum("...i,ij,...j", grid, inverse, grid) < 4
        overlaps.append((shape & ellipse).sum() / (shape | ellipse).sum())
    assert np.median(overlaps) < 0.92


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


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks."""
    return float(2 * ((a > 0) & (b > 0)).sum() / max((a > 0).sum() + (b > 0).sum(), 1))


def test_raters_agree_with_the_truth_and_with_one_another_as_people_do(
    scans: list[PhantomScan],
) -> None:
    right = [overlap(scan.lesion, mask) for scan in scans for mask in scan.raters]
    assert len(right) == 3 * len(scans)
    pairs = [pair for scan in scans for pair in itertools.combinations(scan.raters, 2)]
    alike = [overlap(one, other) for one, other in pairs]
    assert 0.5 < np.median(right) < 0.97
    assert 0.5 < np.median(alike) < 0.97


def test_raters_leave_the_scan_as_it_is(scans: list[PhantomScan]) -> None:
    alone = make_scan(4, 2, preset="tiny", lesions=True)
    assert alone.raters == ()
    assert np.array_equal(alone.image, scans[2].image)
    assert np.array_equal(alone.lesion, scans[2].lesion)


def test_the_faintest_tenth_is_overlooked_and_the_brightest_four_fifths_are_not() -> None:
    # Ratios at the 9th and the 21st percentile of 1.38 exp(0.15 z): z = -1.34 and -0.81.
    ratios = np.array([1.38 * np.exp(0.15 * -1.34), 1.38 * np.exp(0.15 * -0.81)])
    share, cord = np.ones((1, 1, 3), np.float32), np.ones((1, 1, 3), bool)
    owners = np.array([[[0, 1, -1]]], np.int32)
    for seed in range(20):
        mask = rater_mask(np.random.default_rng(seed), share, cord, owners, ratios)
        assert mask.tolist() == [[[False, True, False]]]


def test_the_border_is_off_by_the_share_of_a_voxel() -> None:
    share = np.linspace(0, 1, 101, dtype=np.float32).reshape(1, 1, 101)
    owners = np.zeros((1, 1, 101), np.int32)
    counts = [
        int(rater_mask(np.random.default_rng(k), share, owners == 0, owners, np.array([1.5])).sum())
        for k in range(100)
    ]
    assert 10 <= min(counts) < 30  # share >= 0.9 is left in 11 of 101 voxels
    assert 75 < max(counts) <= 91
