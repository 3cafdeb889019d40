from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom import PhantomScan, make_scan
from sct_lesion_losses.phantom import scan as phantom_scan
from sct_lesion_losses.phantom.lesions import Lesions, draw_lesions
from sct_lesion_losses.phantom.scan import SMALLEST_MM3, has_lesions, label
from sct_lesion_losses.phantom.sites import ORIENTATIONS, SITES, home_site


def tiny(**options: object) -> PhantomScan:
    return make_scan(4, preset="tiny", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def axial() -> PhantomScan:
    return make_scan(7, 3, site=10, lesions=True)


def test_two_scans_of_a_subject_share_the_body_alone() -> None:
    first, second = tiny(subject=1), tiny(subject=1, scan=1)
    assert first.protocol.site == second.protocol.site
    assert np.abs(first.cord.sum(dtype=int) - second.cord.sum(dtype=int)) < 0.2 * first.cord.sum()
    assert not np.array_equal(first.image, second.image)


def test_a_tiny_scan_is_wide_and_long_enough_for_a_patch(scan: PhantomScan) -> None:
    rpi, _ = scan.grid.to_rpi()
    extent = np.array(rpi.shape) * rpi.spacing_mm
    assert extent.min() >= 24
    assert extent[2] / 0.5 >= 48


def test_truth_and_raters_mark_components_of_5_mm3_in_the_cord(scan: PhantomScan) -> None:
    for mask in (scan.lesion, *scan.raters):
        assert not (mask & ~scan.cord).any()
        parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:] * scan.grid.voxel_volume_mm3
        assert (sizes >= SMALLEST_MM3).all()


def test_the_volumes_of_the_lesions_account_for_every_labelled_voxel(scan: PhantomScan) -> None:
    assert len(scan.volumes_mm3) == len(scan.lesions) > 0
    total = int(scan.lesion.sum()) * scan.grid.voxel_volume_mm3
    assert sum(scan.volumes_mm3) == pytest.approx(total)


def test_a_scan_without_cord_has_no_truth(cordless: PhantomScan) -> None:
    for scan in (cordless, *(tiny(subject=k, with_cord=False) for k in range(1, 4))):
        assert not scan.cord.any()
        assert not scan.lesion.any()
        assert scan.centerline.shape == (0, 3)


def test_the_centerline_runs_upwards_through_the_cord(scan: PhantomScan) -> None:
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


def test_lesions_are_brighter_than_the_cord(scan: PhantomScan) -> None:
    inside, truth = scan.image[scan.cord > 0].astype(float), scan.lesion[scan.cord > 0] > 0
    assert not truth.any() or np.median(inside[truth]) > np.median(inside[~truth])


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
        assert scan.grid.orientation == SITES[number].orientation
        assert scan.image.dtype == np.dtype(SITES[number].dtype.removesuffix("-scaled"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_28_percent_of_the_subjects_have_no_lesions_some_at_every_site(seed: int) -> None:
    free = np.array([not has_lesions(seed, k) for k in range(130)])
    assert free[:108].mean() == pytest.approx(0.286, abs=0.02)
    # 10 subjects a site, 2.86 of them without lesions on average.
    counts = np.bincount([home_site(seed, k) for k in range(130)], free, len(SITES))
    assert 1 <= counts.min() <= counts.max() <= 5


@pytest.mark.parametrize(
    ("lesions", "poor", "draws", "labelled"),
    [(True, 1, 2, True), (True, 99, 5, False), (False, 99, 1, False)],
)
def test_lesions_too_small_to_be_labelled_are_drawn_anew_up_to_five_times(
    lesions: bool, poor: int, draws: int, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def draw(*args: Any, **options: Any) -> Lesions:
        """Draw specks the first `poor` times."""
        drawn = draw_lesions(*args, **options)
        small = {"half_length_mm": 0.1, "radial": 0.01, "roughness": 0.0}
        if len(made) < poor:
            drawn = replace(drawn, items=tuple(replace(item, **small) for item in drawn.items))
        made.append(drawn)
        return drawn

    monkeypatch.setattr(phantom_scan, "draw_lesions", draw)
    scan = tiny(lesions=lesions)
    assert len(made) == draws
    assert scan.cord.any()
    assert scan.lesion.any() == any(scan.volumes_mm3) == labelled
    assert scan.lesions == made[-1].items
    assert bool(scan.lesions) == lesions


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "huge"}, "preset is 'huge', expected tiny, demo, study or wide"),
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


def marked(lesion: Any, share: float = 1.0, voxel_mm3: float = 1.0, cord: float = 1.0) -> Any:
    """Label a scan in the cord, but for its middle voxel, with lesions in a part of it."""
    shares, inside = np.zeros((9, 9, 9), np.float32), np.ones((9, 9, 9), np.float32)
    shares[lesion], inside[4, 4, 4] = share, cord
    return label(shares, inside, Grid(inside.shape, np.diag([-1.0, 1.0, voxel_mm3, 1.0])))


@pytest.mark.parametrize(("share", "counts"), [(0.5, True), (0.49, False)])
def test_half_of_a_voxel_makes_it_cord_or_lesion_and_less_does_not(
    share: float, counts: bool
) -> None:
    lesion, _, _ = marked(np.s_[2:5, 2:5, 2], share)
    assert lesion.sum() == 9 * counts
    lesion, cord, _ = marked(np.s_[3:6, 3:6, 3:6], cord=share)
    assert cord.sum() == 9**3 - 1 + counts
    assert lesion.sum() == 26 + counts  # outside the cord there is none


@pytest.mark.parametrize(("volume_mm3", "kept"), [(4.9, False), (5.0, True)])
def test_a_speck_under_5_mm3_is_dropped_and_counted(volume_mm3: float, kept: bool) -> None:
    lesion, _, dropped = marked(np.s_[1:3, 1:3, 1:3], voxel_mm3=volume_mm3 / 8)
    assert (lesion.any(), dropped) == (kept, not kept)


def test_voxels_that_touch_by_a_corner_are_one_component() -> None:
    lesion, _, dropped = marked((range(5),) * 3)  # 5 mm³ together, 1 mm³ each
    assert (lesion.sum(), dropped) == (5, 0)
