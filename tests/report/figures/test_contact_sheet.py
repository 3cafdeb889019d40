import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from small_data import reoriented

from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.report.figures import contact_sheet
from sct_lesion_losses.report.figures.scan import CORD_COLOUR, LESION_COLOUR

SHAPE = (24, 40, 30)  # RPI, of 2 x 1 x 1.5 mm
LESION = (slice(13, 16), slice(18, 22), slice(20, 24))
CORD = (slice(9, 16), slice(14, 26), slice(0, 30))


def labelled_scan(folder: Path, stored: str = "RPI", empty: bool = False) -> CohortScan:
    """A scan with one lesion in its cord, bright at the front, in any stored orientation."""
    image = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    lesion, cord = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    image[:, 30:] = 500
    cord[CORD] = 1
    if not empty:
        lesion[LESION] = 1
        image[LESION] += 200
    affine = np.diag([-2.0, 1.0, 1.5, 1.0])
    # nibabel names an axis after where it ends, the convention here after where it starts.
    ends = stored.translate(str.maketrans("RLAPIS", "LRPASI"))
    names = {"T2w": image, "T2w_label-lesion_seg": lesion, "T2w_label-SC_seg": cord}
    for name, array in names.items():
        nib.save(reoriented(nib.Nifti1Image(array, affine), ends), folder / f"sub-1_{name}.nii.gz")
    sidecar = {"Manufacturer": "GE", "MagneticFieldStrength": 1.5}
    (folder / "sub-1_T2w.json").write_text(json.dumps(sidecar))
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


@pytest.mark.parametrize("stored", ["RPI", "PIR", "ASL", "LPI", "SAL"])
def test_a_scan_in_any_orientation_has_its_labels_where_they_are(
    stored: str, tmp_path: Path
) -> None:
    made = contact_sheet.figure([labelled_scan(tmp_path, stored)])
    side, axial, zoom = made.axes
    found = outlines(zoom)
    # The cord's voxels are 9 to 15 and 14 to 25: its centre (12, 19.5) is the panel's middle.
    # Its edges are 3.5 voxels of 2 mm and 6 of 1 mm away; the lesion's are at voxels 12.5 and
    # 15.5, 17.5 and 21.5, so 1 and 7 mm to the right, 2 mm below and above.
    shown = zoom.images[0].get_array()
    half = 30 / shown.shape[1]  # the line is half a pixel inside
    assert found[CORD_COLOUR] == pytest.approx(np.array([[-7, -6], [7, 6]]), abs=half)
    assert found[LESION_COLOUR] == pytest.approx(np.array([[1, -2], [7, 2]]), abs=half)
    # Linear interpolation blurs the edge of the lesion, 300 in a cord of 100.
    left, right, bottom, top = zoom.images[0].get_extent()
    x = np.linspace(left, right, 2 * shown.shape[1] + 1)[1::2]
    y = np.linspace(bottom, top, 2 * shown.shape[0] + 1)[1::2]
    near = (y < 9)[:, None] & np.ones(len(x), bool)  # without the bright front
    lesion = (np.abs(y) < 2)[:, None] & (np.abs(x - 4) < 3)
    assert ((shown > 200) == lesion)[near].mean() > 0.98
    # The field is 45 mm high, so its middle, voxel 14.5, is that of the panel; the lesion's slices
    # are alike, and the first of them, 20, is drawn: at the marks.
    assert [line.get_ydata()[0] for line in side.lines] == pytest.approx([8.25, 8.25])
    assert outlines(side) == outlines(axial) == {}
    from_side = side.images[0].get_array()
    width = from_side.shape[1]
    assert from_side[:, : width // 5].min() == 500  # the front is on the left
    assert from_side[:, width // 3 :].max() < 400
    assert made.texts[0].get_text() == (
        "sub-1, site A, GE 1.5 T\n3-D, 1.00 × 1.50 × 2.00 mm, 1 lesion"
    )


def test_a_scan_without_lesions_is_drawn_at_the_middle_of_its_cord(tmp_path: Path) -> None:
    made = contact_sheet.figure([labelled_scan(tmp_path, empty=True)])
    side, _, zoom = made.axes
    assert list(outlines(zoom)) == [CORD_COLOUR]
    assert [line.get_ydata()[0] for line in side.lines] == pytest.approx([-0.75, -0.75])  # voxel 14
    assert made.texts[0].get_text().endswith("no lesions")


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
