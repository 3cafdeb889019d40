"""The default bundle as it is shipped, on the scan of `bin/demo` and on SCT's healthy cords."""

import contextlib
import io
import json
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from small_data import reoriented

import sct_lesion_losses as sll
from sct_lesion_losses.bundle import store
from sct_lesion_losses.cli.segment import main

SCAN, STEM = "t2_fake_lesion.nii.gz", "t2_fake_lesion_lesionseg"
MASK, SIDECAR, PMAP = f"{STEM}.nii.gz", f"{STEM}.json", f"{STEM}_pmap.nii.gz"
AROUND_MM = 2.0
TIE = 1e-5  # of the probability, between two orders of the same sums
TOUCHING = np.ones((3, 3, 3))  # one lesion where voxels share a corner
ORDERS = [
    "".join(pair[side] for pair, side in zip(pairs, sides, strict=True))
    for pairs in permutations(("RL", "AP", "SI"))
    for sides in product((0, 1), repeat=3)
]


def array(image: nib.Nifti1Image | Path) -> np.ndarray:
    return np.asarray((nib.load(image) if isinstance(image, Path) else image).dataobj)


def segmented(scans: list[Path], folder: Path) -> list[nib.Nifti1Image]:
    args = ["-i", *map(str, scans), "-ofolder", str(folder), "-centerline", "embedded"]
    assert main([*args, "-pmap", "1"]) == 0
    return [nib.load(folder / scan.name.replace(".nii.gz", "_lesionseg.nii.gz")) for scan in scans]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, testing_data: Path) -> tuple[Path, str]:
    """Folder with all that can be written of the packaged scan, and what was said."""
    folder = tmp_path_factory.mktemp("demo")
    args = ["-i", str(testing_data / SCAN), "-ofolder", str(folder), "-centerline", "embedded"]
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        assert main([*args, "-pmap", "1", "-lesions", "1", "-figure", "1"]) == 0
    return folder, stderr.getvalue()


def test_the_command_says_how_the_cord_was_found_and_what_was(demo: tuple[Path, str]) -> None:
    folder, said = demo
    assert said.startswith("t2_fake_lesion.nii.gz: centerline by embedded (detector")
    assert " lesion" in said.splitlines()[-1]
    assert "highest probability" in said.splitlines()[-1]
    assert str(folder) not in said


def test_the_drawn_lesion_is_found_on_the_grid_of_the_scan(
    demo: tuple[Path, str], testing_data: Path
) -> None:
    scan, mask = nib.load(testing_data / SCAN), nib.load(demo[0] / MASK)
    truth = array(testing_data / "t2_fake_lesion_lesion_seg.nii.gz") > 0
    assert (array(mask)[truth] > 0).sum() >= 0.25 * truth.sum()  # the rule of L-sensitivity
    assert mask.shape == scan.shape
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(array(mask))) == {0, 1}
    for code in ("sform_code", "qform_code"):
        assert mask.header[code] == scan.header[code]
    np.testing.assert_array_equal(mask.get_sform(), scan.get_sform())
    np.testing.assert_allclose(mask.get_qform(), scan.get_qform(), atol=1e-5)


def test_everything_asked_for_is_written_at_the_tuned_threshold(demo: tuple[Path, str]) -> None:
    assert {path.name for path in demo[0].iterdir()} == {
        *(MASK, SIDECAR, PMAP, f"{STEM}_pmap.json", f"{STEM}.png"),
        *(f"{STEM}_labels.nii.gz", f"{STEM}_lesions.tsv", f"{STEM}_lesions.json"),
    }
    told = json.loads((demo[0] / SIDECAR).read_text())
    assert told["Bundle"] == "default"
    assert told["Threshold"] == told["TunedThreshold"] == store.load("default").threshold
    assert told["LesionCount"] >= 1


def test_python_gives_the_mask_of_the_command(
    demo: tuple[Path, str], testing_data: Path, tmp_path: Path
) -> None:
    found = sll.segment(testing_data / SCAN, ofolder=tmp_path, centerline="embedded")
    assert [path.name for path in found.written] == [MASK, SIDECAR]
    assert found.written[0].read_bytes() == (demo[0] / MASK).read_bytes()
    np.testing.assert_array_equal(found.mask, array(found.written[0]))
    np.testing.assert_array_equal(found.pmap, array(demo[0] / PMAP))
    told = json.loads(found.written[1].read_text())
    assert (found.found.lesions, found.threshold) == (told["LesionCount"], told["Threshold"])
    assert told["GeneratedBy"][0]["Name"] == "sct_lesion_losses: segment t2_fake_lesion.nii.gz"
    assert 0 < told["CenterlineSlices"] <= told["ScanSlices"] == found.mask.shape[1]


def test_the_rooms_are_loaded_when_they_are_used() -> None:
    code = (
        "import sys, sct_lesion_losses as sll\n"
        "loaded = lambda: [n for n in ('numpy', 'keras', 'nibabel') if n in sys.modules]\n"
        "before = loaded(); sll.metrics.lesionwise.score\n"
        "print(before, loaded(), hasattr(sll, 'lsses'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[] ['numpy'] False\n"


def test_the_centerline_that_is_left_makes_the_same_mask(
    demo: tuple[Path, str], testing_data: Path, tmp_path: Path
) -> None:
    common = ["-i", str(testing_data / SCAN), "-v", "0", "-ofolder"]
    assert main([*common, str(tmp_path), "-centerline", "embedded", "-r", "0"]) == 0
    for ending in (".nii.gz", ".csv"):
        line = tmp_path / f"{STEM}_centerline{ending}"
        assert main([*common, str(tmp_path / "again"), "-file_centerline", str(line)]) == 0
        assert (tmp_path / "again" / MASK).read_bytes() == (demo[0] / MASK).read_bytes()


@pytest.mark.parametrize(
    "scan", ["sct_testing_data/t2/t2", "healthy/sctfull_T2w", "healthy/errsm23_T2w"]
)
def test_a_healthy_cord_holds_no_lesion(shared: Path, tmp_path: Path, scan: str) -> None:
    assert not array(segmented([shared / "data" / f"{scan}.nii.gz"], tmp_path)[0]).any()


def test_beside_the_drawn_lesion_only_the_bright_middle_is_marked_and_not_for_long(
    demo: tuple[Path, str], testing_data: Path
) -> None:
    labels, number = ndimage.label(array(demo[0] / MASK), TOUCHING)
    drawn = array(testing_data / "t2_fake_lesion_lesion_seg.nii.gz") > 0
    assert number == 2
    [hit] = np.unique(labels[drawn & (labels > 0)])
    assert 2 * (drawn & (labels == hit)).sum() > 0.7 * (drawn.sum() + (labels == hit).sum())  # Dice
    cord = nib.load(testing_data / "t2_fake_lesion_sc_seg.nii.gz")
    along = ndimage.find_objects(labels)[2 - hit][1]  # the scan's second axis runs to the head
    assert (along.stop - along.start) * cord.header.get_zooms()[1] < 20
    away = ndimage.distance_transform_edt(array(cord) == 0, sampling=cord.header.get_zooms())
    assert not ((labels > 0) & (away > AROUND_MM)).any()


@pytest.mark.slow
def test_every_axis_order_of_a_scan_gives_the_same_mask(testing_data: Path, tmp_path: Path) -> None:
    scan = nib.load(testing_data / SCAN)
    paths = [tmp_path / f"{codes}.nii.gz" for codes in ORDERS]
    for path, codes in zip(paths, ORDERS, strict=True):
        reoriented(scan, codes).to_filename(path)
    masks = [array(reoriented(mask, "RPI")) > 0 for mask in segmented(paths, tmp_path / "masks")]
    pmap = nib.load(tmp_path / "masks" / f"{ORDERS[0]}_lesionseg_pmap.nii.gz")
    decided = np.abs(array(reoriented(pmap, "RPI")) - store.load("default").threshold) > TIE
    assert masks[0].any()
    for codes, mask in zip(ORDERS, masks, strict=True):
        assert not ((mask != masks[0]) & decided).any(), codes


def test_blank_slices_and_columns_change_no_voxel_of_the_mask(
    demo: tuple[Path, str], testing_data: Path, tmp_path: Path
) -> None:
    plain = nib.load(testing_data / SCAN)  # P, S, R
    affine = plain.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ (0, 50, 20)
    values = np.pad(array(plain).astype(np.float32), ((0, 0), (50, 10), (20, 20)))
    values[:, :7] = np.nan
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "padded.nii.gz")
    found = array(segmented([tmp_path / "padded.nii.gz"], tmp_path)[0])
    expected = array(demo[0] / MASK)
    assert expected.any()
    np.testing.assert_array_equal(found[:, 50:149, 20:49], expected)
    assert found.sum() == expected.sum()
    described = json.loads((tmp_path / "padded_lesionseg.json").read_text())
    assert (described["CenterlineSlices"], described["ScanSlices"]) == (99, 159)
    assert any("no signal in 60 of 159 axial slices" in text for text in described["Warnings"])
