from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sct_lesion_losses.phantom import make_scan
from sct_lesion_losses.phantom.anatomy import Body, axis_mm, make_body
from sct_lesion_losses.phantom.lesions import Lesions, draw_lesions, hard_negatives


@pytest.fixture(scope="module")
def body() -> Body:
    return make_body(np.random.default_rng(5))


@pytest.fixture(scope="module")
def lesions(body: Body) -> Lesions:
    return draw_lesions(np.random.default_rng(5), body, (-140.0, 0.0), affected=True)


def bulging(body: Body, depths_mm: dict[int, float]) -> Body:
    """The same body with bulges of the discs below the given vertebrae (0 is C1), and no others."""
    bulge = np.zeros_like(body.tables["bulge"])
    for k, depth in depths_mm.items():
        at = (body.centres[k] + body.centres[k + 1]) / 2
        bulge += np.float32(depth) * np.exp(-0.5 * ((axis_mm() - at) / 2.5) ** 2)
    return replace(body, tables={**body.tables, "bulge": bulge.astype(np.float32)})


def test_bulges_are_named_by_the_vertebrae_around_the_disc(body: Body, lesions: Lesions) -> None:
    made = bulging(body, {2: 1.2, 4: 2.5, 5: 0.3})
    found = hard_negatives(made, lesions, np.array([-200.0, 0.0]))
    assert found.bulges_mm == pytest.approx({"C3-C4": 1.2, "C5-C6": 2.5}, abs=0.02)


def test_only_bulges_in_view_are_told_of(body: Body, lesions: Lesions) -> None:
    made = bulging(body, {2: 1.2, 4: 2.5, 11: 1.0})
    view = np.array([body.centres[5], body.centres[3]])
    assert list(hard_negatives(made, lesions, view).bulges_mm) == ["C5-C6"]
    assert hard_negatives(made, lesions, np.empty(0)).bulges_mm == {}


def test_haze_line_fissure_and_roots_are_those_that_are_drawn(body: Body, lesions: Lesions) -> None:
    lined = replace(body, numbers={**body.numbers, "canal_line": 0.31, "rootlets": 0.2})
    found = hard_negatives(lined, replace(lesions, haze=1.07), np.array([-90.0, 0.0]))
    assert (found.haze, found.canal_line_mm, found.rootlets) == (1.07, 0.31, 0.2)
    assert found.fissure_mm == body.numbers["fissure"]
    assert found.fissure_depth == body.numbers["fissure_depth"]


def test_a_scan_without_a_cord_has_none() -> None:
    assert make_scan(4, preset="tiny", with_cord=False).hard_negatives is None


def test_the_haze_of_a_scan_is_that_of_its_lesions_free_twin() -> None:
    twins = [make_scan(4, 3, preset="tiny", lesions=some).hard_negatives for some in (True, False)]
    assert twins[0] == twins[1] is not None


def test_vertebrae_below_the_part_of_the_body_that_is_made_have_no_bulges(lesions: Lesions) -> None:
    tall = make_body(np.random.default_rng([1, 19]))
    between = (axis_mm() < tall.centres[-2]) & (axis_mm() > tall.centres[-1])
    assert not between.any()
    hard_negatives(tall, lesions, np.array([-400.0, 0.0]))
