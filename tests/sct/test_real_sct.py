"""The commands of a real SCT: a checkout that $SCT_DIR named when the tests began.

Its models and binaries are not needed: `docs/contributing.md` says how such a checkout is made.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from real_sct import Sct
from scipy import ndimage
from small_data import script, simulate

from sct_lesion_losses.centerline import find
from sct_lesion_losses.cli import segment as command
from sct_lesion_losses.geometry.centerline import HOW_TO_GIVE
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import bids, cord_mask, nifti
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.phantom.dataset import write_nifti

pytestmark = [pytest.mark.sct, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
logger = logging.getLogger(__name__)
SPINE_DETECT = "isct_spine_detect"  # of SCT's binaries, which a checkout lacks
LOOK = ["-centerline", "embedded", "-bundle", "bce", "-thr", "0.05", "-lesion_point", "0"]


@pytest.fixture
def packaged(testing_data: Path, tmp_path: Path) -> Path:
    """A folder with the packaged scan and its cord mask."""
    for name in ("t2_fake_lesion", "t2_fake_lesion_sc_seg"):
        shutil.copy(testing_data / f"{name}.nii.gz", tmp_path)
    return tmp_path


def test_a_missing_binary_ends_in_a_sentence_that_names_the_embedded_detector(
    sct: Sct, packaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which(SPINE_DETECT, path=str(sct.root / "bin")):
        pytest.skip(f"this SCT has {SPINE_DETECT}")
    args = ["-i", str(packaged / "t2_fake_lesion.nii.gz"), "-ofolder", str(packaged / "out")]
    assert command.main([*args, "-centerline", "svm"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert SPINE_DETECT in said
    assert said.endswith(f"; use -centerline embedded, or give the cord's course {HOW_TO_GIVE}")
    assert not list((packaged / "out").glob("*"))


def test_a_missing_model_of_the_cord_ends_in_a_sentence_that_names_the_file(
    sct: Sct, packaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if any(path.is_file() for path in (sct.root / "data" / "deepseg_models").rglob("*")):
        pytest.skip("this SCT has models of sct_deepseg")
    args = ["-i", str(packaged / "t2_fake_lesion.nii.gz"), "-ofolder", str(packaged / "out")]
    assert command.main([*args, *LOOK, "-cord", "sct"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "sct_deepseg spinalcord -i scan.nii" in said
    assert said.endswith("; give a mask of the cord with -cord <file>")


def test_a_fitted_centerline_is_read_from_its_image_and_its_csv(sct: Sct, packaged: Path) -> None:
    cord, line = packaged / "t2_fake_lesion_sc_seg.nii.gz", packaged / "line.nii.gz"
    done = sct.run("sct_get_centerline", "-i", cord, "-method", "fitseg", "-o", line)
    assert done.returncode == 0, done.stderr
    scan = nifti.read(packaged / "t2_fake_lesion.nii.gz")
    drawn = nifti.read_mask(line, like=scan.grid)
    fitted = find.centerline(scan.array, scan.grid, file=line)
    assert fitted.method == "file (line.csv)"
    rounded = find.centerline(scan.array, scan.grid, file=line.rename(packaged / "voxels.nii.gz"))
    np.testing.assert_array_equal(fitted.covered, rounded.covered)
    known = fitted.covered
    assert known.sum() == np.count_nonzero(drawn.array)
    assert np.abs(fitted.xy[known] - rounded.xy[known]).max() <= 0.5
    by_mask = find.centerline(scan.array, scan.grid, file=cord)
    both = known & by_mask.covered
    apart_mm = (fitted.xy[both] - by_mask.xy[both]) * scan.grid.to_rpi()[0].spacing_mm[:2]
    assert np.linalg.norm(apart_mm, axis=1).max() < 1


def test_the_qc_report_gets_an_entry_without_the_folders_of_the_scan(
    sct: Sct, packaged: Path
) -> None:
    args = ["-i", str(packaged / "t2_fake_lesion.nii.gz"), "-ofolder", str(packaged / "out")]
    names = ["-qc-dataset", "trial", "-qc-subject", "s7"]
    assert command.main([*args, *LOOK, "-qc", str(packaged / "qc"), *names]) == 0
    assert (packaged / "qc" / "index.html").stat().st_size
    [entry] = (packaged / "qc" / "_json").glob("*.json")
    told = json.loads(entry.read_text())
    assert (told["command"], told["dataset"], told["subject"]) == (
        *("sct_deepseg_lesion", "trial", "s7"),
    )
    pictures = list((packaged / "qc" / "trial" / "s7").rglob("*.png"))
    assert {path.name for path in pictures} == {"background_img.png", "overlay_img.png"}
    assert str(packaged) not in entry.read_text()


def analysed(sct: Sct, scan: Path, cord: Path, folder: Path) -> None:
    """Compare the lesion table with SCT's: volumes, and largest shares of the cord's section."""
    args = ["-i", str(scan), "-ofolder", str(folder), "-lesions", "1", "-cord", str(cord)]
    assert command.main([*args, *LOOK]) == 0
    name = nifti.stem(scan)[0]
    ours = bids.read_table(folder / f"{name}_lesionseg_lesions.tsv")
    told = json.loads((folder / f"{name}_lesionseg.json").read_text())
    [theirs] = sct.analyses([(folder / f"{name}_lesionseg.nii.gz", cord)])
    assert isinstance(theirs, dict), theirs
    theirs = theirs["measures"]
    assert len(ours) == len(theirs["label"]) == told["LesionCount"] > 0
    pairs = {"volume_mm3": "volume [mm3]", "cord_share": "max_axial_damage_ratio []"}
    for own, name in pairs.items():
        here, there = sorted(float(row[own]) for row in ours), sorted(theirs[name])
        digits = [round(value, 3) for value in there]
        logger.info("%s: %s %s, %s %s", scan.name, own, here, name, digits)
        np.testing.assert_allclose(here, there, rtol=2e-3, atol=2e-3)  # of the table's digits
    assert told["LesionVolumeMm3"] == pytest.approx(sum(theirs["volume [mm3]"]), abs=1e-3)


def test_lesions_of_the_packaged_scan_are_measured_alike_once_they_are_cut_to_the_cord(
    sct: Sct, packaged: Path
) -> None:
    scan = packaged / "t2_fake_lesion.nii.gz"
    cord = packaged / "t2_fake_lesion_sc_seg.nii.gz"
    assert command.main(["-i", str(scan), "-ofolder", str(packaged / "whole"), *LOOK]) == 0
    mask = packaged / "whole" / "t2_fake_lesion_lesionseg.nii.gz"
    [refused] = sct.analyses([(mask, cord)])
    assert "Lesion count has drifted" in refused  # some lie outside the cord
    analysed(sct, scan, cord, packaged / "cut")


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_lesions_of_simulated_scans_are_measured_alike(sct: Sct, tmp_path: Path, seed: int) -> None:
    made = simulate(tmp_path / "t2.nii.gz", seed)
    write_nifti(tmp_path / "cord.nii.gz", made.cord, made.grid)
    analysed(sct, tmp_path / "t2.nii.gz", tmp_path / "cord.nii.gz", tmp_path / "out")


AXES = np.array([[-0.7, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 2.5, 0], [0, 0, 0, 1]])


def random_masks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Blobs in and about a winding cord, in any axis order; the lowest slices hold none."""
    shape = (20, 22, 16)
    x, y, z = np.indices(shape)
    bend = np.cumsum(rng.normal(0, 0.4, (2, shape[2])), axis=1)
    away = np.hypot(x - 10 - bend[0][z], y - 11 - bend[1][z])
    cord = (away <= rng.uniform(4, 7)) & (z >= rng.integers(0, 4))
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.8, 2))
    blobs = smooth > np.quantile(smooth, rng.uniform(0.8, 0.99))
    blobs[:, :, -4:] = False  # sct_analyze_lesion looks two slices beyond the largest lesion
    order, flips = rng.permutation(3), rng.choice([1, -1], 3)
    turned = [
        np.transpose(mask, order)[tuple(slice(None, None, k) for k in flips)]
        for mask in (blobs, cord)
    ]
    affine = AXES.copy()
    affine[:3, :3] = AXES[:3, order] * flips
    return turned[0], turned[1], Grid(turned[0].shape, affine)


def test_whatever_is_cut_to_a_cord_mask_is_analysed_with_the_same_counts_and_volumes(
    sct: Sct, tmp_path: Path
) -> None:
    pairs, expected = [], []
    for seed in range(24):
        blobs, mask, grid = random_masks(np.random.default_rng(seed))
        write_nifti(tmp_path / f"cord{seed}.nii.gz", mask.astype(np.uint8), grid)
        cord = cord_mask.read(tmp_path / f"cord{seed}.nii.gz", grid)
        cut = cord.cut(blobs)
        if not cut.any():
            continue
        write_nifti(tmp_path / f"mask{seed}.nii.gz", cut.astype(np.uint8), grid)
        pairs.append((tmp_path / f"mask{seed}.nii.gz", tmp_path / f"cord{seed}.nii.gz"))
        labels = lesionwise.components(cut)
        measured = lesionwise.measures(labels, cut.astype(np.float32), grid.affine)
        expected.append(sorted(lesion.volume_mm3 for lesion in measured))
    assert len(pairs) > 20
    found = sct.analyses(pairs)
    for (mask, _), theirs, ours in zip(pairs, found, expected, strict=True):
        assert isinstance(theirs, dict), f"{mask.name}: {theirs}"
        np.testing.assert_allclose(sorted(theirs["measures"]["volume [mm3]"]), ours, rtol=1e-5)
    logger.info("%d masks with %d lesions are analysed alike", len(pairs), sum(map(len, expected)))


def test_a_batch_of_scts_own_segments_every_subject_and_fails_the_one_that_cannot_be(
    sct: Sct, tmp_path: Path
) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    for number in (1, 2):
        simulate(data / f"sub-0{number}" / "anat" / f"sub-0{number}_T2w.nii.gz", 3 + number)
    broken = data / "sub-03" / "anat" / "sub-03_T2w.nii.gz"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    tool = sct.folder / "sct_deepseg_lesion_tuned"
    code = (
        "import sys; from sct_lesion_losses.cli.segment import main; sys.exit(main(sys.argv[1:]))"
    )
    script(tool, f"PYTHONPATH={REPOSITORY} exec {sys.executable} -c '{code}' \"$@\"")
    done = subprocess.run(
        [
            *(sct.root / "bin" / "sct_run_batch", "-jobs", "2", "-continue-on-error", "1"),
            *("-script", REPOSITORY / "bin" / "batch_subject.sh"),
            *("-path-data", data, "-path-output", results),
        ],
        cwd=sct.folder,
        env=os.environ
        | {
            "PATH": os.pathsep.join([str(sct.folder), str(sct.root / "bin"), os.environ["PATH"]]),
            "LESION_OPTIONS": " ".join(["-lesions", "1", *LOOK]),
        },
        capture_output=True,
        text=True,
    )
    logs = {path.name: path.read_text() for path in (results / "log").glob("*.log")}
    assert "err.batch_subject_sub-03.log" in logs, done.stdout + done.stderr
    assert "sub-03_T2w.nii.gz" in logs["err.batch_subject_sub-03.log"]
    for subject in ("sub-01", "sub-02"):
        assert f"batch_subject_{subject}.log" in logs, logs
        made = results / "results" / subject / "anat"
        assert (made / f"{subject}_T2w_lesionseg.nii.gz").exists()
        assert bids.read_table(made / f"{subject}_T2w_lesionseg_lesions.tsv")
    entries = [json.loads(path.read_text()) for path in (results / "qc" / "_json").glob("*.json")]
    assert sorted(entry["subject"] for entry in entries) == ["sub-01", "sub-02"]
