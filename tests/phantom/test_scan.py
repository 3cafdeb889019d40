from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom import PhantomScan, make_scan
from sct_lesion_losses.phantom import scan as phantom_scan
from sct_lesion_losses.phantom.acquisition import Acquired
from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.lesions import Lesions, draw_lesions
from sct_lesion_losses.phantom.scan import SMALLEST_MM3, has_lesions, label
from sct_lesion_losses.phantom.sites import ORIENTATIONS, SITES, home_site


def tiny(**options: object) -> PhantomScan:
    return make_scan(4, preset="tiny", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def axial() -> PhantomScan:
    return make_scan(7, 3, site=10, lesions=True)


def test_the_same_arguments_give_the_same_scan(scans: list[PhantomScan]) -> None:
    again = tiny(subject=2, lesions=True, raters=3)
    assert np.array_equal(again.image, scans[2].image)
    assert np.array_equal(again.lesion, scans[2].lesion)


def test_two_scans_of_a_subject_share_the_body_alone() -> None:
    first, second = tiny(subject=1), tiny(subject=1, scan=1)
    assert first.site == second.site
    assert np.abs(first.cord.sum(dtype=int) - second.cord.sum(dtype=int)) < 0.2 * first.cord.sum()
    assert not np.array_equal(first.image, second.image)


def test_a_tiny_scan_is_wide_and_long_enough_for_a_patch(scans: list[PhantomScan]) -> None:
    for scan in scans:
        rpi, _ = scan.grid.to_rpi()
        extent = np.array(rpi.shape) * rpi.spacing_mm
        assert extent.min() >= 24
        assert extent[2] / 0.5 >= 48


def test_the_label_lies_in_the_cord_in_components_of_5_mm3(scans: list[PhantomScan]) -> None:
    for scan in scans:
        assert not (scan.lesion & ~scan.cord).any()
        parts, count = ndimage.label(scan.lesion, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:] * scan.grid.voxel_volume_mm3
        assert (sizes >= SMALLEST_MM3).all()
        assert count <= len(scan.lesions)


def test_the_records_account_for_every_labelled_voxel(scans: list[PhantomScan]) -> None:
    for scan in scans:
        total = sum(record.volume_mm3 for record in scan.lesions)
        assert total == pytest.approx(int(scan.lesion.sum()) * scan.grid.voxel_volume_mm3)


def test_a_lesion_free_scan_has_an_empty_label() -> None:
    scan = tiny(lesions=False)
    assert scan.cord.any()
    assert not scan.lesion.any()
    assert scan.lesions == ()


def test_a_scan_without_cord_has_no_truth(cordless: PhantomScan) -> None:
    for scan in (cordless, *(tiny(subject=k, with_cord=False) for k in range(1, 4))):
        assert not scan.cord.any()
        assert not scan.lesion.any()
        assert scan.centerline.shape == (0, 3)


def test_the_centerline_runs_through_the_cord(scans: list[PhantomScan]) -> None:
    for scan in scans:
        voxels = np.round(scan.grid.to_voxel(scan.centerline)).astype(int)
        voxels = np.clip(voxels, 0, np.array(scan.grid.shape) - 1)
        assert scan.cord[tuple(voxels.T)].mean() > 0.98
        assert (np.diff(scan.centerline[:, 2]) > 0).all()


def test_lesions_change_nothing_but_their_own_surroundings(scans: list[PhantomScan]) -> None:
    with_, without = scans[3], tiny(subject=3, lesions=False)
    difference = np.abs(with_.image.astype(float) - without.image)
    near = ndimage.binary_dilation(with_.cord, iterations=4)
    # The same noise, bias and anatomy; only the ringing of the lesions reaches further.
    assert difference[~near].max() < 0.1 * difference[with_.lesion > 0].mean()


def test_lesions_are_brighter_than_the_cord(scans: list[PhantomScan]) -> None:
    for scan in scans:
        inside, truth = scan.image[scan.cord > 0].astype(float), scan.lesion[scan.cord > 0] > 0
        if truth.any():
            assert np.median(inside[truth]) > np.median(inside[~truth])


@pytest.mark.slow
def test_no_threshold_inside_the_cord_finds_the_lesions_of_the_study() -> None:
    scores = []
    for subject in range(8):
        scan = make_scan(7, subject, lesions=True)
        inside, truth = scan.image[scan.cord > 0].astype(float), scan.lesion[scan.cord > 0] > 0
        marked = [inside > cut for cut in np.percentile(inside, range(5, 100, 3))]
        scores.append(max(2 * (truth & m).sum() / (truth.sum() + m.sum()) for m in marked))
    assert 0 < np.median(scores) <= 0.30


def test_cord_and_fluid_share_voxels(axial: PhantomScan) -> None:
    image = axial.image.astype(float)
    cord = axial.cord > 0
    level = np.median(image[cord])
    border = ndimage.binary_dilation(cord) & ~ndimage.binary_erosion(cord)
    mixed = (image[border] > 1.25 * level) & (image[border] < 1.75 * level)
    assert mixed.mean() > 0.1


def test_the_labels_of_a_thick_slice_lie_where_the_image_shows_them(axial: PhantomScan) -> None:
    assert max(axial.grid.spacing_mm) > 4
    _, turn = axial.grid.to_rpi()
    image, cord, lesion = (
        turn.apply(a.astype(float)) for a in (axial.image, axial.cord, axial.lesion)
    )

    def matched(label: np.ndarray, weight: np.ndarray, shift: tuple[int, ...]) -> float:
        """Correlation of a label, moved by some voxels, with the image; `weight` is the region."""
        moved = np.roll(label, shift, (0, 1, 2))[weight > 0]
        return float(np.corrcoef(moved, image[weight > 0])[0, 1])

    around = ndimage.binary_dilation(cord, iterations=3)
    # The cord is darker than the fluid around it, lesions are brighter than the cord.
    for truth, region, sign in ((cord, around, -1), (lesion, cord, 1)):
        here = sign * matched(truth, region, (0, 0, 0))
        assert here > 0.15
        for axis in range(3):
            far = 1 if axis == 2 else 3  # slices are thick, pixels are fine
            for step in (-far, far):
                shift = tuple(step if k == axis else 0 for k in range(3))
                assert here > sign * matched(truth, region, shift)


def test_sites_differ_in_more_than_contrast() -> None:
    assert {site.plane for site in SITES} == {"sagittal", "axial", "3d"}
    assert 9 <= sum(site.plane == "sagittal" for site in SITES) <= 10
    assert {site.orientation for site in SITES} == set(ORIENTATIONS) - {"RAS"}
    assert len({site.manufacturer for site in SITES}) == 4
    assert {site.dtype for site in SITES} == {"int16", "uint16", "float32", "int16-scaled"}
    assert len({(site.pixel_mm, site.slice_mm) for site in SITES}) == 13


def test_the_sites_setting_is_what_is_stored(axial: PhantomScan) -> None:
    # 32-bit floats and whole numbers.
    for number, scan in ((5, make_scan(2, 0, site=5, lesions=False)), (10, axial)):
        assert scan.orientation == SITES[number].orientation
        assert scan.image.dtype == np.dtype(SITES[number].dtype.removesuffix("-scaled"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_28_percent_of_the_subjects_have_no_lesions(seed: int) -> None:
    free = sum(not has_lesions(seed, k) for k in range(108))
    assert free / 108 == pytest.approx(0.286, abs=0.02)


def test_every_site_has_its_share_of_subjects_without_lesions() -> None:
    for seed in (0, 1, 2):
        of_site = [home_site(seed, subject) for subject in range(130)]
        free = [not has_lesions(seed, subject) for subject in range(130)]
        counts = np.bincount(of_site, free, len(SITES))
        # 10 subjects a site, 2.86 of them without lesions on average.
        assert counts.min() >= 1
        assert counts.max() <= 5


class Draws:
    """Stands in for `draw_lesions`: the lesions of the first `poor` draws are specks."""

    def __init__(self, poor: int) -> None:
        self.poor = poor
        self.count = 0

    def __call__(self, *args: object, **options: object) -> Lesions:
        drawn = draw_lesions(*args, **options)  # type: ignore[arg-type]
        self.count += 1
        if self.count > self.poor:
            return drawn
        specks = (replace(i, half_length_mm=0.1, radial=0.01, roughness=0.0) for i in drawn.items)
        return replace(drawn, items=tuple(specks))


def test_lesions_too_small_to_be_labelled_are_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(poor=1)
    monkeypatch.setattr(phantom_scan, "draw_lesions", draws)
    scan = tiny(lesions=True)
    assert scan.lesion.any()
    assert draws.count == 2
    # What is told of is the second draw, not the first.
    assert all(record.lesion.half_length_mm > 1 for record in scan.lesions)


def test_after_five_draws_a_scan_stays_without_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(poor=99)
    monkeypatch.setattr(phantom_scan, "draw_lesions", draws)
    scan = tiny(lesions=True)
    assert draws.count == 5
    assert not scan.lesion.any()
    assert scan.lesions
    assert not any(record.labelled or record.volume_mm3 for record in scan.lesions)


def test_a_lesion_free_scan_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(poor=99)
    monkeypatch.setattr(phantom_scan, "draw_lesions", draws)
    tiny(lesions=False)
    assert draws.count == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "huge"}, "preset is 'huge', expected tiny, demo, study or wide"),
        ({"sites": 0}, "sites is 0, expected 1 to 13"),
        ({"sites": 14}, "sites is 14, expected 1 to 13"),
        ({"site": 13}, "site is 13, expected 0 to 12"),
        ({"site": -1}, "site is -1, expected 0 to 12"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"subject": -2}, "subject is -2, expected 0 or more"),
        ({"scan": -1}, "scan is -1, expected 0 or more"),
        ({"raters": -1}, "raters is -1, expected 0 or more"),
    ],
)
def test_what_no_scan_can_be_made_of_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}$"):
        make_scan(**{"seed": 0, **options})


@pytest.mark.slow
def test_wide_scans_come_in_every_plane_and_with_a_cord() -> None:
    made = [make_scan(8, k, preset="wide") for k in range(8)]
    assert {scan.protocol.plane for scan in made} == {"sagittal", "axial", "3d"}
    assert all(scan.cord.any() for scan in made)


SHAPE = (9, 9, 9)


def shares(**values: float) -> Acquired:
    """A scan that lies in the cord, but for the voxel (4, 4, 4); no voxel holds any lesion."""
    cord = np.ones(SHAPE, np.float32)
    cord[4, 4, 4] = values.get("cord", 1.0)
    return Acquired(np.ones(SHAPE, np.float32), cord, np.zeros(SHAPE, np.float32))


def cube(size_mm: float) -> Grid:
    """Grid of `SHAPE` near the cord, of voxels of a given size."""
    affine = np.diag([-size_mm, size_mm, size_mm, 1.0])
    affine[:3, 3] = (3, -3, -60)
    return Grid(SHAPE, affine)


def test_half_of_a_voxel_makes_it_cord_and_less_does_not(body: Body, lesions: Lesions) -> None:
    assert label(body, lesions, shares(cord=0.5), cube(1.0)).cord[4, 4, 4]
    assert not label(body, lesions, shares(cord=0.49), cube(1.0)).cord[4, 4, 4]


def test_half_of_a_voxel_makes_it_lesion_and_less_does_not(body: Body, lesions: Lesions) -> None:
    acquired = shares()
    acquired.lesion[2:5, 2:5, 2:5] = 0.49
    acquired.lesion[2:5, 2:5, 2] = 0.5
    found = label(body, lesions, acquired, cube(1.0)).lesion
    assert np.array_equal(found, acquired.lesion == 0.5)


def test_a_lesion_outside_the_cord_is_none(body: Body, lesions: Lesions) -> None:
    acquired = shares(cord=0.49)
    acquired.lesion[3:6, 3:6, 3:6] = 1.0
    found = label(body, lesions, acquired, cube(1.0)).lesion
    assert found.sum() == 26
    assert not found[4, 4, 4]


@pytest.mark.parametrize(("volume_mm3", "kept"), [(4.9, False), (5.0, True)])
def test_a_speck_under_5_mm3_is_dropped_and_counted(
    body: Body, lesions: Lesions, volume_mm3: float, kept: bool
) -> None:
    acquired = shares()
    acquired.lesion[1:3, 1:3, 1:3] = 1.0  # 8 voxels
    grid = Grid(SHAPE, np.diag([-1.0, 1.0, volume_mm3 / 8, 1.0]))
    found = label(body, lesions, acquired, grid)
    assert found.lesion.any() == kept
    assert found.dropped == (not kept)
    assert sum(record.volume_mm3 for record in found.records) == pytest.approx(5.0 * kept)
    assert sum(record.labelled for record in found.records) == kept


def test_voxels_that_touch_by_a_corner_are_one_component(body: Body, lesions: Lesions) -> None:
    acquired = shares()
    for k in range(5):
        acquired.lesion[k, k, k] = 1.0  # 5 mm³ together, 1 mm³ each
    found = label(body, lesions, acquired, cube(1.0))
    assert found.lesion.sum() == 5
    assert found.dropped == 0


def test_every_rater_has_a_mask_without_specks(body: Body, lesions: Lesions) -> None:
    acquired = shares()
    acquired.lesion[1:4, 1:4, 1:4] = 1.0
    acquired.lesion[7, 7, 7] = 1.0
    raters = tuple(np.random.default_rng(k) for k in range(3))
    found = label(body, lesions, acquired, cube(1.0), raters)
    assert len(found.raters) == 3
    assert not any(mask[7, 7, 7] for mask in found.raters)
