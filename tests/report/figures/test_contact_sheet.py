from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from small_data import write_cohort

from sct_lesion_losses.cohorts import table
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.errors import DataError, OutputError, UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.report.figures import contact_sheet
from sct_lesion_losses.report.figures import scan as figure

SHAPE = (24, 40, 30)  # RPI, of 2 x 1 x 1.5 mm
LESION = (slice(13, 16), slice(18, 22), slice(20, 24))
CORD = (slice(9, 16), slice(14, 26), slice(0, 30))


def labelled_scan(folder: Path, stored: str = "RPI", empty: bool = False) -> CohortScan:
    """A scan with one lesion in its cord, in any stored orientation."""
    image = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    lesion, cord = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    if not empty:
        lesion[LESION] = 1
        cord[CORD] = 1
        image[LESION] += 200
    affine = np.diag([-2.0, 1.0, 1.5, 1.0])
    # nibabel names an axis after where it ends, the convention here after where it starts.
    ends = stored.translate(str.maketrans("RLAPIS", "LRPASI"))
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(ends)
    )
    names = {"T2w": image, "T2w_label-lesion_seg": lesion, "T2w_label-SC_seg": cord}
    for name, array in names.items():
        made = nib.Nifti1Image(array, affine).as_reoriented(turn)
        nib.save(made, folder / f"sub-1_{name}.nii.gz")
    return CohortScan(
        folder / "sub-1_T2w.nii.gz", folder / "sub-1_T2w_label-lesion_seg.nii.gz", "sub-1", "A"
    )


def outlines(axes: Any) -> dict[str, np.ndarray]:
    """Lowest and highest (x, y) of each outline in some axes, by its colour."""
    from matplotlib.colors import to_hex

    found = {}
    for drawn in axes.collections:
        points = np.concatenate([path.vertices for path in drawn.get_paths()])
        found[to_hex(drawn.get_edgecolor()[0])] = np.array([points.min(axis=0), points.max(axis=0)])
    return found


def test_every_scan_of_a_small_cohort_has_three_panels(tmp_path: Path) -> None:
    scans = table.read(write_cohort(tmp_path / "cohort", subjects=5, lesion_free=2))
    made = contact_sheet.sheet([contact_sheet.tile(s) for s in contact_sheet.chosen(scans)])
    assert len(made.axes) == 3 * 5
    titles = [text.get_text() for text in made.texts[:-1]]  # the last is the legend
    assert titles[0] == "sub-004, site A\n3-D, 0.50 × 0.50 × 0.50 mm, 1 lesion"
    assert titles[-1] == "sub-001, site B\n3-D, 0.50 × 0.50 × 0.50 mm, no lesions"


def test_the_same_cohort_gives_the_same_png(tmp_path: Path) -> None:
    scans = table.read(write_cohort(tmp_path / "cohort", subjects=2))
    for name in ("one.png", "two.PNG"):
        contact_sheet.draw(scans, tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "two.PNG").read_bytes()


@pytest.mark.parametrize("stored", ["RPI", "PIR", "ASL", "LPI", "SAL"])
def test_the_outlines_lie_where_the_labels_are(stored: str, tmp_path: Path) -> None:
    tile = contact_sheet.tile(labelled_scan(tmp_path, stored))
    made = contact_sheet.sheet([tile])
    _, _, zoom = made.axes
    found = outlines(zoom)
    # The cord's voxels are 9 to 15 and 14 to 25: its centre (12, 19.5) is the panel's middle.
    # Its edges are 3.5 voxels of 2 mm and 6 of 1 mm away; the lesion's are at voxels 12.5 and
    # 15.5, 17.5 and 21.5, so 1 and 7 mm to the right, 2 mm below and above.
    half = tile.zoom.size_mm[0] / tile.zoom.image.shape[1]  # the line is half a pixel inside
    assert found[figure.CORD_COLOUR] == pytest.approx(np.array([[-7, -6], [7, 6]]), abs=half)
    assert found[figure.LESION_COLOUR] == pytest.approx(np.array([[1, -2], [7, 2]]), abs=half)


def test_what_is_outlined_is_what_is_bright(tmp_path: Path) -> None:
    zoom = contact_sheet.tile(labelled_scan(tmp_path, "PIR")).zoom
    assert zoom.image.shape == zoom.lesions.shape
    # Linear interpolation blurs the edge, which is half of the lesion's 200 over the cord's 100.
    inside = zoom.image > 200
    assert (inside == (zoom.lesions > 0)).mean() > 0.98
    assert inside.sum() > 100


def test_the_axial_cut_goes_through_the_lesion_and_is_marked_in_the_sagittal_one(
    tmp_path: Path,
) -> None:
    tile = contact_sheet.tile(labelled_scan(tmp_path, "ASL"))
    # The field is 45 mm high, so its middle, voxel 14.5, is that of the panel; the lesion's slices
    # are alike, and the first of them, 20, is drawn.
    assert tile.axial.middle == (11.5, 19.5, 20.0)  # the field's middle: 48 x 40 mm of 90
    assert tile.level_mm == pytest.approx((20 - 14.5) * 1.5)
    side = contact_sheet.sheet([tile]).axes[0]
    assert [line.get_ydata()[0] for line in side.lines] == pytest.approx([8.25, 8.25])


def test_the_front_is_on_the_left_of_the_sagittal_cut(tmp_path: Path) -> None:
    scan = labelled_scan(tmp_path, "LPI")
    stored = nib.load(scan.scan)
    array = np.asarray(stored.dataobj).copy()
    array[:, 30:] = 500  # in LPI the second axis runs from the back to the front
    nib.save(nib.Nifti1Image(array, stored.affine), scan.scan)
    side = contact_sheet.tile(scan).sagittal
    width = side.image.shape[1]
    assert side.image[:, : width // 5].min() == 500
    assert side.image[:, width // 3 :].max() < 400


def test_a_scan_without_any_label_is_drawn_at_its_middle(tmp_path: Path) -> None:
    scan = labelled_scan(tmp_path, empty=True)
    made = contact_sheet.sheet([contact_sheet.tile(scan)])
    assert len(made.axes) == 3
    assert [outlines(axes) for axes in made.axes] == [{}, {}, {}]


def test_the_scanner_is_named_by_the_sidecar(tmp_path: Path) -> None:
    scan = labelled_scan(tmp_path)
    sidecar = {"Manufacturer": "GE", "MagneticFieldStrength": 1.5}
    (tmp_path / "sub-1_T2w.json").write_text(json.dumps(sidecar))
    first, second = contact_sheet.tile(scan).title.splitlines()
    assert first == "sub-1, site A, GE 1.5 T"
    assert second == "3-D, 1.00 × 1.50 × 2.00 mm, 1 lesion"


def test_one_scan_of_each_site_comes_first_and_lesion_free_ones_from_other_sites(
    tmp_path: Path,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "empty").mkdir()
    full = labelled_scan(tmp_path / "full").lesion_mask
    empty = labelled_scan(tmp_path / "empty", empty=True).lesion_mask

    def scan(number: int, site: str, mask: Path) -> CohortScan:
        return CohortScan(Path(f"s{number:02d}.nii"), mask, f"s{number:02d}", site)

    # 9 sites have two scans with lesions, 18 in all; 13 are shown: 9 and the second ones of A to D.
    scans = [scan(n, "ABCDEFGHI"[n // 2], full) for n in range(18)]
    # Sites Y and Z have no scan with lesions, so a scan of each comes before those of A.
    scans += [scan(20 + n, "A", empty) for n in range(3)]
    scans += [scan(30 + n, "YYZ"[n], empty) for n in range(3)]
    shown = contact_sheet.chosen(scans)
    numbers = [int(s.subject[1:]) for s in shown]
    assert numbers == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 30, 32]


def test_a_cohort_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no scan to draw"):
        contact_sheet.draw([], tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_refused() -> None:
    with pytest.raises(UsageError, match=r"ends in \.png"):
        contact_sheet.check(Path("sheet.jpg"))


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        contact_sheet.check(tmp_path / "file" / "sheet.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OutputError, match=r"sct_lesion_losses\[report\]"):
        contact_sheet.check(Path("sheet.png"))


@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((3.3, 0.5, 0.6), "sagittal, 0.50 × 0.60 × 3.30 mm"),
        ((0.5, 3.3, 0.6), "coronal, 0.50 × 0.60 × 3.30 mm"),
        ((0.5, 0.5, 5.0), "axial, 0.50 × 0.50 × 5.00 mm"),
        ((0.8, 0.8, 1.0), "3-D, 0.80 × 0.80 × 1.00 mm"),
    ],
)
def test_the_plane_is_that_of_the_thick_slices(
    spacing: tuple[float, float, float], said: str
) -> None:
    grid = Grid((4, 4, 4), np.diag([-spacing[0], spacing[1], spacing[2], 1.0]))
    assert contact_sheet.acquired(grid) == said
