"""What the default bundle does on the real scans of SCT's testing data, all of healthy cords."""

from __future__ import annotations

import json
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cli.segment import main

AROUND_MM = 2.0
TIE = 1e-5  # of the probability, between two orders of the same sums
TOUCHING = np.ones((3, 3, 3))  # one lesion where voxels share a corner
ORDERS = [
    "".join(pair[side] for pair, side in zip(pairs, sides, strict=True))
    for pairs in permutations(("RL", "AP", "SI"))
    for sides in product((0, 1), repeat=3)
]


@pytest.fixture(scope="module")
def t2(shared: Path) -> Path:
    """Folder of the T2-weighted scans and their cord masks."""
    return shared / "data" / "sct_testing_data" / "t2"


def segmented(scans: list[Path], folder: Path) -> list[nib.Nifti1Image]:
    named = [str(scan) for scan in scans]
    assert (
        main(["-i", *named, "-ofolder", str(folder), "-centerline", "embedded", "-pmap", "1"]) == 0
    )
    return [nib.load(folder / scan.name.replace(".nii.gz", "_lesionseg.nii.gz")) for scan in scans]


def array(image: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj)


@pytest.fixture(scope="module")
def healthy(t2: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return array(segmented([t2 / "t2.nii.gz"], tmp_path_factory.mktemp("healthy"))[0]) > 0


def test_a_healthy_cord_holds_at_most_two_false_lesions(healthy: np.ndarray) -> None:
    assert ndimage.label(healthy, TOUCHING)[1] <= 2


def test_nothing_is_marked_outside_the_cord(t2: Path, healthy: np.ndarray) -> None:
    cord = nib.load(t2 / "t2_seg-manual.nii.gz")
    away = ndimage.distance_transform_edt(array(cord) == 0, sampling=cord.header.get_zooms())
    assert not (healthy & (away > AROUND_MM)).any()


@pytest.mark.slow
def test_every_axis_order_of_a_scan_gives_the_same_mask(testing_data: Path, tmp_path: Path) -> None:
    scan = nib.load(testing_data / "t2_fake_lesion.nii.gz")
    paths = [tmp_path / f"{codes}.nii.gz" for codes in ORDERS]
    for path, codes in zip(paths, ORDERS, strict=True):
        reordered(scan, codes).to_filename(path)
    masks = [array(reordered(mask, "RPI")) > 0 for mask in segmented(paths, tmp_path / "masks")]
    pmap = nib.load(tmp_path / "masks" / f"{ORDERS[0]}_lesionseg_pmap.nii.gz")
    decided = np.abs(array(reordered(pmap, "RPI")) - store.load("default").threshold) > TIE
    assert masks[0].any()
    for codes, mask in zip(ORDERS, masks, strict=True):
        assert not ((mask != masks[0]) & decided).any(), codes


def test_blank_slices_and_columns_change_no_voxel_of_the_mask(
    testing_data: Path, tmp_path: Path
) -> None:
    plain = nib.load(testing_data / "t2_fake_lesion.nii.gz")  # P, S, R
    padded = tmp_path / "padded.nii.gz"
    affine = plain.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ (0, 50, 20)
    values = np.pad(array(plain).astype(np.float32), ((0, 0), (50, 10), (20, 20)))
    values[:, :7] = np.nan
    nib.save(nib.Nifti1Image(values, affine), padded)
    scans = [testing_data / "t2_fake_lesion.nii.gz", padded]
    expected, found = (array(mask) for mask in segmented(scans, tmp_path / "masks"))
    assert expected.any()
    np.testing.assert_array_equal(found[:, 50:149, 20:49], expected)
    assert found.sum() == expected.sum()
    described = json.loads((tmp_path / "masks" / "padded_lesionseg.json").read_text())
    assert (described["CenterlineSlices"], described["ScanSlices"]) == (99, 159)
    assert any("no signal in 60 of 159 axial slices" in text for text in described["Warnings"])


def reordered(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """Return the image with its voxels stored along other axes, at the same places."""
    orientations = nib.orientations
    own = orientations.io_orientation(image.affine)
    return image.as_reoriented(orientations.ornt_transform(own, orientations.axcodes2ornt(codes)))
