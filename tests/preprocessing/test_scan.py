from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from geometry import AXIS_ORDERS, PADDINGS, Padding, affine_of

from sct_lesion_losses.bundle.schema import StudyPreparation
from sct_lesion_losses.cohorts import table
from sct_lesion_losses.errors import CenterlineError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti
from sct_lesion_losses.preprocessing import cache, intensity, scan
from sct_lesion_losses.sct import lesion as sct_lesion

PREPARATION = StudyPreparation(
    percentiles=intensity.PERCENTILES, landmarks=tuple(float(k) for k in range(0, 110, 10))
)


def scan_of(shape=(40, 44, 50), spacing=(1.0, 1.0, 1.0), axes=(0, 1, 2), signs=(-1, 1, 1)):
    grid = Grid(shape, affine_of(axes, signs, spacing, (4.0, -3.0, 2.0)))
    rpi, _ = grid.to_rpi()
    image = np.random.default_rng(0).uniform(0, 1000, shape).astype(np.float32)
    middle = np.array([(rpi.shape[0] - 1) / 2, (rpi.shape[1] - 1) / 2])
    return image, grid, Centerline(rpi, np.tile(middle, (rpi.shape[2], 1)))


@pytest.mark.parametrize(("axes", "signs"), AXIS_ORDERS)
def test_the_crop_is_the_same_in_every_axis_order(axes, signs) -> None:
    image, grid, line = scan_of()
    expected = scan.prepare(image, grid, line, PREPARATION).values
    stored = np.transpose(image, axes)
    move = np.zeros((4, 4))
    move[3, 3] = 1
    for k in range(3):
        move[axes[k], k] = signs[k]
        move[axes[k], 3] = 0 if signs[k] > 0 else image.shape[axes[k]] - 1
    stored = stored[tuple(slice(None, None, s) for s in signs)]
    turned = Grid(stored.shape, grid.affine @ move)
    found = scan.prepare(stored, turned, line, PREPARATION).values
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_map_of_ones_comes_back_as_ones_in_the_crop_and_zeros_outside() -> None:
    image, grid, line = scan_of()
    prepared = scan.prepare(image, grid, line, PREPARATION)
    native = prepared.to_native(np.ones_like(prepared.values))
    assert native.shape == grid.shape
    # 24 mm around the middle of 40 x 44 mm: voxels 8 to 31 and 10 to 33, the crop starting 23
    # half millimetres before the centre.
    assert native[20, 22].min() == 1.0
    assert native[:7].max() == 0.0
    assert native[33:].max() == 0.0


def test_a_short_cord_is_padded_said_and_undone(caplog: pytest.LogCaptureFixture) -> None:
    image, grid, line = scan_of(shape=(40, 44, 10))
    prepared = scan.prepare(image, grid, line, PREPARATION)
    assert prepared.values.shape == (48, 48, 48)
    assert "covered over" in caplog.text
    counted = np.broadcast_to(np.arange(48, dtype=np.float32), (48, 48, 48))
    native = prepared.to_native(counted)
    # 20 slices of 0.5 mm, the last without half a native slice of its own, in the middle of 48.
    inner = native[20, 22]
    np.testing.assert_allclose(np.diff(inner), 2.0, atol=1e-4)
    assert inner[0] == 14


def test_a_field_narrower_than_the_window_repeats_its_edge() -> None:
    image, grid, line = scan_of(shape=(16, 44, 50))
    values = scan.prepare(image, grid, line, PREPARATION).values
    np.testing.assert_array_equal(values[0], values[1])
    assert np.isfinite(values).all()


def test_a_single_slice_is_prepared() -> None:
    image, grid, line = scan_of(shape=(40, 44, 1), spacing=(1.0, 1.0, 5.0))
    prepared = scan.prepare(image, grid, line, PREPARATION)
    assert prepared.to_native(np.ones_like(prepared.values)).shape == (40, 44, 1)


def test_intensities_unlike_the_training_scans_are_said(caplog: pytest.LogCaptureFixture) -> None:
    image, grid, line = scan_of()
    scan.prepare(image, grid, line, PREPARATION)
    assert "unlike" not in caplog.text
    scan.prepare(image**6, grid, line, PREPARATION)
    assert "intensities around the cord are unlike" in caplog.text


def test_units_of_the_scan_do_not_matter() -> None:
    image, grid, line = scan_of()
    expected = scan.prepare(image, grid, line, PREPARATION).values
    for other in (image * 1000, image * 0.01 + 7):
        found = scan.prepare(other, grid, line, PREPARATION).values
        np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("preparation", [PREPARATION, sct_lesion.PREPARATIONS["t2s"]])
def test_blank_planes_change_nothing_of_what_a_network_sees(padding: Padding, preparation) -> None:
    image, grid, line = scan_of()
    expected = scan.prepare(image, grid, line, preparation)
    more, larger = padding.of(image, grid)
    # As drawn by hand on the padded scan: over the blank slices as well.
    xy = np.tile(line.xy[0] + padding.before[:2], (larger.shape[2], 1))
    found = scan.prepare(more, larger, Centerline(larger, xy), preparation)
    np.testing.assert_array_equal(found.values, expected.values)
    pmap = np.random.default_rng(1).uniform(0.5, 1, found.values.shape).astype(np.float32)
    native = found.to_native(pmap)
    np.testing.assert_array_equal(padding.undone(native), expected.to_native(pmap))
    assert np.count_nonzero(native) == np.count_nonzero(padding.undone(native))


def test_a_line_over_blank_slices_alone_is_refused() -> None:
    image, grid, line = scan_of()
    image[:, :, 30:] = 0
    with pytest.raises(CenterlineError, match="slices without signal only"):
        scan.prepare(image, grid, line.only(np.arange(30, 50)), PREPARATION)


def test_the_inner_window_of_a_training_scan_is_what_a_network_sees_in_use(cohort):
    one = table.read(cohort)[3]
    wide, _ = cache.crop_scan(one, margin=4)
    image = nifti.read(one.scan)
    mask = nifti.read_mask(one.centerline)
    rpi, reorientation = image.grid.to_rpi()
    line = Centerline.from_mask(reorientation.apply(mask.array), rpi)
    expected = scan.crop(image.array, image.grid, line).values
    assert wide.values.shape[:2] == (56, 56)
    assert np.array_equal(wide.values[4:-4, 4:-4], expected)
    assert np.array_equal(scan.stacked_patches(wide.values), scan.stacked_patches(expected))


def test_the_lesion_mask_lies_on_the_bright_block_of_the_crop(cohort):
    crop, _ = cache.crop_scan(table.read(cohort)[3])
    # The scan is at 0.5 mm already: the block of 8 x 8 x 16 voxels is sampled as it is.
    assert crop.lesion.sum() == 8 * 8 * 16
    assert crop.values[crop.lesion].min() > crop.values[~crop.lesion].mean()


def test_blank_slices_of_a_training_scan_are_left_out(cohort, tmp_path):
    one = table.read(cohort)[3]
    padding = Padding((0, 0, 12), (0, 0, 7), 0.0)
    files = {}
    for name in ("scan", "lesion_mask", "centerline"):
        image = nib.load(getattr(one, name))
        more, grid = padding.of(np.asarray(image.dataobj), Grid(image.shape, image.affine))
        files[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(more, grid.affine), files[name])
    found, _ = cache.crop_scan(replace(one, **files))
    expected, _ = cache.crop_scan(one)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.lesion, expected.lesion)
