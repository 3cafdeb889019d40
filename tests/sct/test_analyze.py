"""Where lesions are, beside what SCT's own commands make of the same masks."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from real_sct import Sct

from sct_lesion_losses.geometry import levels
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.location import Location, locate
from sct_lesion_losses.metrics import lesionwise

pytestmark = [pytest.mark.sct, pytest.mark.slow]

# Height along the cord (0 at the bottom), mm to the left and to the front, radius and half length.
LESIONS = ((0.15, 2, -2, 2.5, 5), (0.5, -2, 1, 2, 8), (0.68, 1, 3, 1.5, 3), (0.85, 0, -2.5, 2, 4))
DISCS = ((3, 95), (4, 75), (5, 55), (6, 35), (7, 15))  # and their slices


class Scan:
    """The packaged cord with drawn lesions and discs, as files and on RPI axes."""

    def __init__(self, seg: Path, folder: Path) -> None:
        image = nib.load(seg)
        self.folder, self.affine = folder, image.affine
        self.grid = Grid(image.shape, image.affine)
        self.rpi, self.turn = self.grid.to_rpi()
        self.cord = np.asarray(image.dataobj) > 0
        upright = self.turn.apply(self.cord)
        self.line = Centerline.from_mask(upright, self.rpi)
        lesions, discs = np.zeros(self.rpi.shape, bool), np.zeros(self.rpi.shape, np.uint8)
        place = np.indices(self.rpi.shape, float).T * self.rpi.spacing_mm
        for height, left, front, radius, half in LESIONS:
            z = int(height * (self.rpi.shape[2] - 1))
            middle = np.append(self.line.xy[z], z) * self.rpi.spacing_mm + (left, front, 0)
            away = (place - middle) / (radius, radius, half)
            lesions |= (np.linalg.norm(away, axis=-1) <= 1).T & upright
        for disc, z in DISCS:
            x, y = np.rint(self.line.xy[z]).astype(int)
            discs[x, y - 10, z] = disc
        self.labels = lesionwise.components(self.turn.undo(lesions))
        assert self.labels.max() == len(LESIONS)
        self.save("cord", self.cord)
        self.save("lesions", self.labels > 0)
        self.save("discs", self.turn.undo(discs))

    def save(self, name: str, array: np.ndarray) -> Path:
        path = self.folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array.astype(np.uint8), self.affine), path)
        return path

    def located(self, along: np.ndarray | None = None) -> list[Location]:
        return locate(self.labels, self.grid, self.line, self.cord, along)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    seg = Path(__file__).resolve().parents[2] / "testing_data" / "t2_fake_lesion_sc_seg.nii.gz"
    return Scan(seg, tmp_path_factory.mktemp("analyze"))


def analysed(sct: Sct, scan: Scan, *more: object) -> tuple[list[int], dict[str, Any]]:
    """SCT's number of each lesion, which it counts in its own order, and its sheets."""
    files = [scan.folder / f"{name}.nii.gz" for name in ("lesions", "cord")]
    [sheets] = sct.analyses([files], *more)
    theirs = np.asarray(nib.load(sct.folder / "lesions_label.nii.gz").dataobj)
    found = [np.unique(theirs[scan.labels == k]) for k in range(1, scan.labels.max() + 1)]
    assert all(one.size == 1 for one in found)
    return [int(one[0]) for one in found], sheets


def test_extents_and_shares_of_the_cord_are_those_of_sct_analyze_lesion(
    scan: Scan, sct: Sct
) -> None:
    numbers, sheets = analysed(sct, scan)
    measures = sheets["measures"]
    for number, own in zip(numbers, scan.located(), strict=True):
        row = measures["label"].index(number)
        told = {name: column[row] for name, column in measures.items()}
        assert own.cord_share == pytest.approx(told["max_axial_damage_ratio []"], abs=1e-9)
        # Both are corrected for the cord's tilt; SCT smooths its line by splines.
        assert own.cord_length_mm == pytest.approx(told["length [mm]"], rel=0.02)
        assert own.diameter_mm == pytest.approx(told["max_equivalent_diameter [mm]"], rel=0.01)


def test_levels_are_those_of_sct_label_vertebrae_and_sct_analyze_lesion(
    scan: Scan, sct: Sct
) -> None:
    cord, out = scan.folder / "cord.nii.gz", sct.folder / "levels"
    options = ["-c", "t2", "-discfile", scan.folder / "discs.nii.gz", "-ofolder", out]
    done = sct.run("sct_label_vertebrae", "-i", cord, "-s", cord, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    labelled = nib.load(out / "cord_labeled.nii.gz")
    theirs = scan.turn.apply(np.asarray(labelled.dataobj).astype(int))
    discs = np.asarray(nib.load(scan.folder / "discs.nii.gz").dataobj).astype(int)
    by_discs = levels.along(scan.turn.apply(discs), scan.line)
    by_levels = levels.along(theirs, scan.line)
    between = by_discs > 0
    assert between.sum() > 70
    # SCT finds the point nearest to a disc on a line of whole voxels.
    assert np.count_nonzero(by_discs[between] != by_levels[between]) <= len(DISCS)

    scan.save("f/template/PAM50_levels", np.asarray(labelled.dataobj))
    scan.save("f/atlas/PAM50_atlas_00", np.ones(scan.grid.shape))
    numbers, sheets = analysed(sct, scan, "-f", scan.folder / "f")
    for number, own in zip(numbers, scan.located(by_levels), strict=True):
        rows = sheets[f"lesion#{number}_distribution"]
        pairs = zip(rows["row"], rows["PAM50_00"], strict=True)
        shares = {int(row): float(share) for row, share in pairs if str(row).isdigit()}
        assert own.level == max(shares, key=lambda level: shares[level])
        # The lesion's levels, but for slivers on the other side of a border.
        spanned = set(range(own.levels[0], own.levels[-1] + 1))
        assert sum(share for level, share in shares.items() if level in spanned) > 95
        assert all(shares[level] > 0 for level in spanned)
