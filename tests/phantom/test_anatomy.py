import numpy as np
import pytest

from sct_lesion_losses.phantom.anatomy import AXIS_MM, LEVELS, Body, field, make_table, smooth_walk


@pytest.mark.parametrize(
    ("level", "ap_mm", "rl_mm", "area_mm2"),
    [("C5", 7.4, 12.9, 75), ("C7", 6.5, 10.8, 55), ("T2", 6.0, 8.6, 41), ("T6", 5.3, 7.2, 30)],
)
def test_the_cord_has_the_published_section(
    bodies: list[Body], level: str, ap_mm: float, rl_mm: float, area_mm2: float
) -> None:
    k = LEVELS.index(level)
    sections = [b.at(np.float32([b.centres[k]]), "cord_rv", "cord_ru") for b in bodies]
    rv, ru = np.array(sections)[:, :, 0].T
    assert 2 * rv.mean() == pytest.approx(ap_mm, rel=0.04)
    assert 2 * ru.mean() == pytest.approx(rl_mm, rel=0.04)
    area = np.pi * rv * ru
    assert area.mean() == pytest.approx(area_mm2, rel=0.06)
    assert 0.04 < area.std() / area.mean() < 0.13


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
    assert u == pytest.approx(np.interp(s, AXIS_MM, body.tables["cord_u"]), abs=0.05)
    assert v == pytest.approx(np.interp(s, AXIS_MM, body.tables["cord_v"]), abs=0.05)


def test_the_spine_is_curved_and_hardly_bent_sideways(bodies: list[Body]) -> None:
    for body in bodies:
        assert np.abs(np.degrees(np.arcsin(body.up[:, 0]))).max() <= 3.001
    bends = [np.ptp(np.degrees(np.arcsin(b.up[:, 1]))) for b in bodies]
    assert np.mean(bends) > 10


def test_levels_follow_each_other_downwards(bodies: list[Body]) -> None:
    body = bodies[0]
    assert (np.diff(body.centres) < 0).all()
    assert [body.level(c) for c in body.centres] == list(LEVELS)


def test_the_canal_is_seen_over_about_a_tenth_of_the_cord_in_patches(bodies: list[Body]) -> None:
    seen = np.array([body.tables["canal"][AXIS_MM < 0] > 0 for body in bodies])
    assert 0.08 < seen.mean() < 0.2
    lengths = seen.sum() * 0.25 / (np.diff(seen, axis=1) > 0).sum()  # mm, by their ends
    assert 1 < lengths < 10


def _anywhere(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.uniform(-150, 150, 20_000).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("length", [1.5, 12.0])  # looked up, interpolated
def test_a_field_has_zero_mean_and_about_unit_variance(length: float) -> None:
    rng = np.random.default_rng(0)
    values = field(rng, make_table(rng), length)(*_anywhere(rng))
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.1
    assert 0.7 < values.std() < 1.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_interpolated_field_has_no_steps(axis: int) -> None:
    rng = np.random.default_rng(0)
    noise = field(rng, make_table(rng), 12.0)
    at = [np.zeros(600, np.float32)] * 3
    at[axis] = np.arange(0, 30, 0.05, dtype=np.float32)
    assert np.abs(np.diff(noise(*at))).max() < 0.05


def test_fields_of_two_tables_are_not_related() -> None:
    rng = np.random.default_rng(0)
    one, other = (field(rng, make_table(rng), 2.0) for _ in range(2))
    at = _anywhere(rng)
    assert abs(np.corrcoef(one(*at), other(*at))[0, 1]) < 0.05


def test_a_walk_has_the_deviation_asked_for() -> None:
    walks = [smooth_walk(np.random.default_rng(k), 20, 1.5) for k in range(10)]
    assert np.std(walks) == pytest.approx(1.5, rel=0.2)
