"""Lesions implanted into a host: where they are, what they change, and what they leave alone."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom import implant, make_scan
from sct_lesion_losses.phantom.implant import Host
from sct_lesion_losses.phantom.lesions import Lesion, draw_lesions


@pytest.fixture(scope="module")
def host():
    scan = make_scan(3, preset="tiny", lesions=False)
    grid, turn = scan.grid.to_rpi()
    return Host.of(turn.apply(scan.image), turn.apply(scan.cord) > 0, grid)


@pytest.fixture(scope="module")
def lesions(host):
    low, high = host.extent_mm
    return draw_lesions(np.random.default_rng(1), host.body, (low, high), affected=True)


@pytest.fixture(scope="module")
def implanted(host, lesions):
    return implant.implant(host, lesions)


def test_a_body_taken_from_a_mask_has_its_course_and_its_section(host):
    # The phantom's own cord: each mask voxel lies within the ellipse, grown by a voxel.
    u, v, s = host.body.coordinates(host.grid.to_world(np.argwhere(host.cord)))
    ru, rv = host.body.at(s.astype(np.float32), "cord_ru", "cord_rv")
    assert np.hypot(u / (ru + 0.8), v / (rv + 0.8)).max() < 1.1
    inside = np.hypot(u / ru, v / rv) < 1
    assert 0.85 < inside.mean() <= 1
    assert abs(np.mean(u)) < 0.2
    assert abs(np.mean(v)) < 0.4


def test_a_host_is_unchanged_away_from_its_lesions(host, implanted):
    near = ndimage.binary_dilation(implanted[1] > 0, iterations=5)
    np.testing.assert_array_equal(implanted[0][~near], host.image[~near])


def test_a_lesion_adds_its_contrast_to_the_cord(host, lesions, implanted):
    full = implanted[1] == 1
    added = (implanted[0] - host.image)[full] / np.broadcast_to(host.level, full.shape)[full]
    ratios = [item.ratio - 1 for item in lesions.items]
    assert full.sum() > 20
    assert 0.5 * min(ratios) < np.median(added) < 1.4 * max(ratios)


@pytest.mark.parametrize("acquisition", ["native", "sagittal", "axial", "isotropic"])
def test_labels_lie_in_the_cord_and_hold_what_was_drawn(host, acquisition):
    for seed in range(4):
        made = implant.make_implant(np.random.default_rng(seed), host, acquisition, affected=True)
        assert made.lesion.any()
        assert not (made.lesion & ~made.cord).any()


def test_the_label_has_the_volume_that_was_drawn(host):
    low, high = host.extent_mm
    drawn, labelled = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        made = implant.implant(host, draw_lesions(rng, host.body, (low, high), affected=True))
        drawn.append(made[1].sum())
        labelled.append((made[1] >= 0.5).sum())
    np.testing.assert_allclose(labelled, drawn, rtol=0.25)


def test_the_same_seed_gives_the_same_bytes(host):
    first, second = (
        implant.make_implant(np.random.default_rng(7), host, "axial", affected=True)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.signal, second.signal)
    np.testing.assert_array_equal(first.lesion, second.lesion)
    assert first.acquisition == second.acquisition


@pytest.mark.parametrize(
    ("acquisition", "axis"), [("sagittal", 0), ("axial", 2), ("isotropic", None)]
)
def test_a_new_acquisition_has_its_slices_and_the_field_of_view_of_the_host(
    host, acquisition, axis
):
    made = implant.make_implant(np.random.default_rng(2), host, acquisition, affected=False)
    spacing = np.array(made.grid.spacing_mm)
    if axis is None:
        assert spacing.min() >= 0.8
        assert spacing.max() <= 1.1
    else:
        assert spacing.argmax() == axis
        assert spacing.max() >= 2.4
    old = np.array(host.grid.shape) * host.grid.spacing_mm
    new = np.array(made.grid.shape) * spacing
    assert (new <= old + 1e-6).all()
    assert (new > old - spacing - 1e-6).all()
    assert not made.lesion.any()
    assert made.grid.orientation == "RPI"


def test_a_mask_that_shows_no_cord_to_speak_of_is_refused(host):
    cord = np.zeros(host.grid.shape, bool)
    cord[10:14, 10:14, 5:8] = True
    with pytest.raises(DataError, match=r"covers 3 axial slices.*expected at least 10"):
        Host.of(host.image, cord, host.grid)


# A straight cord of 6 × 4 mm (half axes) and brightness 100 on 48 slices, without noise; the
# world turned under it, or not; and one lesion, made by hand, in one half of it.
TURNS_DEG = {"straight": (0, 0, 0), "oblique": (15, -20, 10)}


def straight(turn="straight", spacing=1.0, shape=(40, 40, 48), hole=slice(0), low=0.0):
    grid = Grid(shape, turned(turn) @ np.diag([-spacing, spacing, spacing, 1.0]))
    x, y, _ = (mm * spacing for mm in np.indices(shape))
    cord = np.hypot((x - 20 * spacing) / 6, (y - 20 * spacing) / 4) <= 1
    cord[..., :2] = False
    image = np.where(cord, 100.0 + low, 300.0 + low)
    cord[..., hole] = False
    return image, cord, grid


def turned(turn):
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(TURNS_DEG[turn])):
        one = np.eye(4)
        i, j = [k for k in range(3) if k != axis]
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ one
    return matrix


def by_hand(host, angle, s_mm=-20.0, half_length_mm=6.0):
    """A central lesion of no roughness, whose middle lies half a radius off the cord's."""
    item = Lesion(
        place="central",
        level="n/a",
        s_mm=s_mm,
        half_length_mm=half_length_mm,
        angle=angle,
        centre=0.5,
        radial=0.45,
        tangential=0.45,
        share=0.2,
        ratio=1.5,
        rim_mm=0.25,
        roughness=0.0,
        variation=0.0,
    )
    none = draw_lesions(np.random.default_rng(0), host.body, host.extent_mm, affected=False)
    return replace(none, items=(item,))


def weighted_centre(share, grid):
    voxels = np.argwhere(share > 0)
    return np.average(grid.to_world(voxels), axis=0, weights=share[share > 0])


@pytest.mark.parametrize("turn", TURNS_DEG)
@pytest.mark.parametrize(
    ("angle", "expected"), [(0.0, (3, 0)), (np.pi / 2, (0, 2)), (np.pi, (-3, 0))]
)
def test_a_lesion_lies_on_its_side_of_the_cord(turn, angle, expected):
    # In the frame of the slices: 0.5 of 6 mm to the right, or of 4 mm to the front; 20 mm below
    # the highest slice, the 48th.
    host = Host.of(*straight(turn))
    inside = implant.implant(host, by_hand(host, angle))[1]
    at = np.linalg.inv(turned(turn)) @ [*weighted_centre(inside, host.grid), 1]
    np.testing.assert_allclose(at[:3], (expected[0] - 20, expected[1] + 20, 27), atol=0.12)


@pytest.mark.parametrize("turn", TURNS_DEG)
def test_the_section_of_a_body_is_that_of_the_mask_however_the_grid_is_turned(turn):
    body = Host.of(*straight(turn)).body
    ru, rv = body.at(np.float32([-40, -20, -1]), "cord_ru", "cord_rv")
    np.testing.assert_allclose(ru, 6, atol=0.15)
    np.testing.assert_allclose(rv, 4, atol=0.15)


def test_a_leaning_cord_has_the_section_that_is_square_to_it():
    # Sheared by 0.5 mm a slice to the front: the slices cut 4 mm out of 4 × cos(atan 0.5) = 3.58.
    grid = Grid((40, 60, 48), np.diag([-1.0, 1.0, 1.0, 1.0]))
    x, y, z = np.indices(grid.shape)
    cord = np.hypot((x - 20) / 6, (y - 15 - 0.5 * z) / 4) <= 1
    host = Host.of(np.ones(grid.shape), cord, grid)
    ru, rv = host.body.at(np.float32([-40, -20, -1]), "cord_ru", "cord_rv")
    np.testing.assert_allclose(ru, 6, atol=0.2)
    np.testing.assert_allclose(rv, 3.58, atol=0.15)
    # 47 steps of hypot(1, 0.5), from the middle of the lowest slice to that of the highest.
    assert host.extent_mm[0] == pytest.approx(-47 * np.hypot(1, 0.5), abs=0.2)


@pytest.mark.parametrize("turn", TURNS_DEG)
def test_the_core_of_a_lesion_is_as_bright_as_its_ratio_says(turn):
    host = Host.of(*straight(turn))
    signal, _ = implant.implant(host, by_hand(host, 0.0))
    np.testing.assert_allclose(host.level, 100)
    assert (signal - host.image).max() == pytest.approx(0.5 * 100, rel=0.02)


def test_the_border_of_a_lesion_is_blurred_by_its_point_spread(monkeypatch):
    # Samples of a Gaussian with an SD of 0.5 voxels have a variance of 0.215.
    host = Host.of(*straight())
    spread = []
    for blur in (0.5, 0.01):
        monkeypatch.setattr(implant, "_BLUR_VOX", blur)
        added = implant.implant(host, by_hand(host, 0.0))[0] - host.image
        at = np.argwhere(added > 0)
        middle = np.average(at, axis=0, weights=added[added > 0])
        spread.append(np.average((at - middle) ** 2, axis=0, weights=added[added > 0]))
        # Where it is labelled, there it is seen.
        labelled = implant.implant(host, by_hand(host, 0.0))[1]
        np.testing.assert_allclose(middle, ndimage.center_of_mass(labelled), atol=0.1)
    np.testing.assert_allclose(spread[0] - spread[1], 0.215, atol=0.01)


def test_a_lesion_over_the_last_slice_is_whole_up_to_it():
    host = Host.of(*straight())
    signal, inside = implant.implant(host, by_hand(host, 0.0, s_mm=0.0))
    added = (signal - host.image)[..., -3:].max((0, 1))
    np.testing.assert_allclose(added, 50, rtol=0.02)
    share = inside[..., -3:].sum((0, 1))
    np.testing.assert_allclose(share[-1], share[-2], rtol=0.05)


@pytest.mark.parametrize("turn", TURNS_DEG)
@pytest.mark.parametrize("acquisition", ["sagittal", "axial", "isotropic"])
def test_a_lesion_that_is_acquired_anew_stays_under_its_label(turn, acquisition):
    image, cord, grid = straight(turn)
    host = Host.of(image, cord, grid)
    signal, inside = implant.implant(host, by_hand(host, 0.0))
    made = [
        implant.reacquire(np.random.default_rng(4), host, one, (inside,), acquisition)
        for one in (signal, host.image)
    ]
    (with_lesion, (share,), new, _), (without, *_) = made
    difference = np.where(share > 0, with_lesion - without, 0).clip(0)
    seen, labelled = (new.to_voxel(weighted_centre(a, new)) for a in (difference, share))
    assert np.abs(seen - labelled).max() < 0.5
    # And both where it was put.
    apart = new.to_voxel(weighted_centre(inside, grid)) - labelled
    assert np.abs(apart).max() < 0.25


def test_the_labels_of_a_fine_host_count_the_slice_alone():
    # On a host of 0.5 mm a slice of 7 mm has 14 voxels: one that is lesion throughout is one.
    host = Host.of(*straight(spacing=0.5, shape=(80, 80, 120)))
    share = np.zeros(host.grid.shape, np.float32)
    share[..., 40:80] = 1
    offsets, weights, counted = implant._profiles(14.0, across=True)
    assert np.diff(offsets).max() * 14 <= 0.5 + 1e-9
    assert len(offsets) >= 7
    assert weights.sum() == pytest.approx(1)
    inside = np.abs(offsets) < 0.5
    np.testing.assert_allclose(counted, inside / inside.sum())
    (made,), grid = implant.reacquire(
        np.random.default_rng(0), host, host.image.copy(), (share,), "axial"
    )[1:3]
    along = made[made.shape[0] // 2, made.shape[1] // 2]
    assert along.sum() * grid.spacing_mm[2] == pytest.approx(20, rel=0.02)
    assert ((along > 0.01) & (along < 0.99)).sum() <= 2


def test_a_cord_that_is_not_brighter_than_nothing_is_refused():
    with pytest.raises(DataError, match=r"brightness is -5 in slice 2, expected above 0"):
        Host.of(*straight(low=-105.0))


@pytest.mark.parametrize("of_mask", [True, False])
def test_lesions_keep_off_slices_in_which_the_cord_is_not_certain(of_mask):
    hole = slice(20, 26)
    image, cord, grid = straight(hole=hole if of_mask else slice(0))
    certain = np.ones(48, bool)
    certain[hole] = of_mask
    host = Host.of(image, cord, grid, certain)
    for seed in range(6):
        made = implant.make_implant(np.random.default_rng(seed), host, affected=True)
        assert made.lesion.any()
        for item in made.lesions:
            reach = 47 + item.s_mm + np.array([-1, 1]) * item.half_length_mm
            assert reach[0] >= 2
            assert reach[1] <= 47
            assert reach[1] < 20 or reach[0] > 25
        np.testing.assert_array_equal(made.cord, cord)


def test_a_host_that_is_coarser_than_what_it_is_acquired_as_is_refused(host):
    thick = Grid((40, 40, 12), np.diag([-0.5, 0.5, 5.0, 1.0]))
    implant.require_fine(thick, "native")
    implant.require_fine(thick, "axial")
    with pytest.raises(DataError, match=r"0.5 × 0.5 × 5 mm.*isotropic: 5 mm along z.*most 2;"):
        implant.require_fine(thick, "isotropic")
    single = Grid((1, 40, 40), np.diag([-1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(DataError, match=r"one voxel of 1 × 1 × 1 mm along x"):
        implant.require_fine(single, "sagittal")


def test_lesions_have_the_contrast_that_is_asked_for(host):
    rng = np.random.default_rng(4)
    made = implant.make_implant(rng, host, affected=True, contrast=(1.6, 1.7))
    assert all(1.6 <= item.ratio <= 1.7 for item in made.lesions)


def test_a_scan_without_any_label_has_no_lesion_in_its_signal_either(monkeypatch):
    host = Host.of(*straight())
    monkeypatch.setattr(implant, "label", lambda share, cord, grid: (share > 2, cord >= 0.5, 1))
    made = implant.make_implant(np.random.default_rng(0), host, affected=True)
    assert made.lesions == ()
    np.testing.assert_array_equal(made.signal, host.image)


def test_the_centerline_reaches_both_ends_of_the_mask():
    host = Host.of(*straight())
    line = implant.make_implant(np.random.default_rng(0), host, affected=False).centerline
    np.testing.assert_allclose(host.grid.to_voxel(line[[0, -1]]), [(20, 20, 2), (20, 20, 47)])
