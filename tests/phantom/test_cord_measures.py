"""The measures of a cord say what a cylinder was built with."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sct_lesion_losses.geometry.grid import Grid

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GRID = Grid((31, 31, 120), np.diag([-1.0, 1.0, 1.0, 1.0]))
X, Y, Z = np.ogrid[-15:16, -15:16, 0:120]
RADIUS = np.hypot(X, Y) + 0.0 * Z
CORD = RADIUS <= 5.5


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("cord_measures")


def cylinder(csf: float = 4.0) -> np.ndarray:
    """A cord of brightness 100 in fluid."""
    return np.where(CORD, 100.0, 100.0 * csf)


def test_a_plain_cylinder_has_its_fluid_and_nothing_else(measures: ModuleType) -> None:
    found = measures.measure(cylinder(), CORD, GRID)
    assert set(found) == set(measures.MEASURES)
    usual = {"csf_upper": 4, "csf_lower": 4, "fall": 1, "grey": 1, "grey_90": 1, "canal": 1}
    usual |= {"canal_90": 1}
    expected = dict.fromkeys(measures.MEASURES, 0.0) | usual | {"edge": found["edge"]}
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0 < found["edge"] < 0.6


def test_an_edge_that_rises_over_two_mm_is_wider_than_a_step(measures: ModuleType) -> None:
    image = 100 + 300 * np.clip((RADIUS - 4.75) / 2, 0, 1)
    # 60 % of the rise, and what a ring of 0.6 mm adds.
    assert measures.measure(image, CORD, GRID)["edge"] == pytest.approx(1.2, abs=0.3)


def test_a_mask_with_a_gap_is_measured_where_it_has_none(measures: ModuleType) -> None:
    broken = CORD.copy()
    broken[:, :, 30:33] = False
    step = cylinder() * np.where(Z < 30, 1.0, 2.0)
    assert measures.measure(step, broken, GRID)["range"] == pytest.approx(0, abs=1e-9)


def test_a_coil_that_halves_over_the_scan_is_found_along_it(measures: ModuleType) -> None:
    found = measures.measure(cylinder() * 0.5 ** ((119 - Z) / 119), CORD, GRID)
    # Medians of the outer quarters lie 90 slices apart; 5 to 95 % of the slices are 107 apart.
    assert found["fall"] == pytest.approx(0.5 ** (90 / 119), rel=0.01)
    assert found["range"] == pytest.approx(np.log(2) * 107 / 119, rel=0.03)
    assert found["csf_upper"] == pytest.approx(4)


def test_fluid_that_fades_downwards_is_lower_in_the_lower_quarter(measures: ModuleType) -> None:
    image = np.where(CORD, 100.0, 200.0 + 200.0 * Z / 119)
    found = measures.measure(image, CORD, GRID)
    assert found["csf_lower"] == pytest.approx(2 + 2 * 14.5 / 119, rel=0.01)
    assert found["csf_upper"] == pytest.approx(2 + 2 * 104.5 / 119, rel=0.01)


def test_one_side_that_is_brighter_is_the_asymmetry(measures: ModuleType) -> None:
    image = cylinder() * np.where(X > 0, 1.05, 1.0)
    assert measures.measure(image, CORD, GRID)["asymmetry"] == pytest.approx(np.log(1.05))


@pytest.mark.parametrize(
    ("ratio", "length", "counted"), [(1.5, 4, True), (1.25, 4, False), (1.5, 1, False)]
)
def test_spots_are_counted_that_are_bright_and_large_enough(
    measures: ModuleType, ratio: float, length: int, counted: bool
) -> None:
    image = cylinder()
    for z in (30, 60, 90):
        image[14:17, 14:17, z : z + length] *= ratio  # 9 mm² each
    found = measures.measure(image, CORD, GRID)
    assert found["spots"] == pytest.approx(3 / 1.2 * counted)


def test_a_canal_in_a_fifth_of_the_slices_shows_in_the_percentile_alone(
    measures: ModuleType,
) -> None:
    image = cylinder()
    image[15, 15, 40:64] = 150.0
    found = measures.measure(image, CORD, GRID)
    assert (found["canal"], found["canal_90"]) == pytest.approx((1.0, 1.5))


def test_noise_is_told_from_what_runs_along_the_cord(measures: ModuleType) -> None:
    rng = np.random.default_rng(0)
    noise, lines = rng.normal(0, 5, GRID.shape), rng.normal(0, 12, (31, 31, 1))
    found = measures.measure(cylinder() + noise + lines, CORD, GRID)
    assert found["noise"] == pytest.approx(0.05, rel=0.1)
    assert found["structure"] == pytest.approx(0.12, rel=0.25)


def test_too_few_slices_are_refused(measures: ModuleType) -> None:
    with pytest.raises(ValueError, match="19 slices in a row show the cord, expected 20 or more"):
        measures.measure(cylinder(), CORD & (Z < 19), GRID)
