from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.cohorts import corrections, table


def write(path: Path, *voxels: int, spacing: float = 2.0) -> None:
    """An image with so many lesion voxels, of 8 mm³, at these places along z."""
    mask = np.zeros((3, 3, 12), np.uint8)
    mask[1, 1, list(voxels)] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, np.diag([spacing] * 3 + [1])), path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Scans whose masks were corrected, left, drawn without one, and drawn on another grid."""
    for number in range(1, 5):
        place = Path(f"sub-0{number}") / "anat"
        write(tmp_path / place / f"sub-0{number}_T2w.nii.gz", 0)
        labels = tmp_path / "derivatives" / "labels" / place
        write(labels / f"sub-0{number}_T2w_lesion-manual.nii.gz", 2, 3, 4)
    ours = tmp_path / "derivatives" / "sct_lesion_losses"
    write(ours / "sub-01" / "anat" / "sub-01_label-L_mask.nii.gz", 2)
    write(ours / "sub-02" / "anat" / "sub-02_T2w_lesionseg.nii.gz", 2, 3, 4)
    write(ours / "sub-04" / "anat" / "sub-04_label-L_mask.nii.gz", 2, spacing=1.0)
    return tmp_path


def test_corrected_masks_are_told_with_dice_and_volume_and_those_left_are_counted(data, caplog):
    caplog.set_level("INFO")
    corrections.say(table.read(data))
    # One voxel of three in common: Dice 2 / (1 + 3); of 8 mm³ each.
    first, second, third = (record.getMessage() for record in caplog.records)
    assert first == (
        "sub-01_T2w: differs from what this package marked, Dice 0.500, 8.0 mm³ to 24.0 mm³"
    )
    assert second.startswith("not compared with what this package marked")
    assert third.startswith("1 of 2 masks differ from what this package marked; 1 are as it left")


def test_a_mask_of_this_package_that_was_not_fetched_is_passed_over(data, caplog):
    caplog.set_level("INFO")
    ours = data / "derivatives" / "sct_lesion_losses" / "sub-01" / "anat"
    link = ours / "sub-01_label-L_mask.nii.gz"
    link.unlink()
    link.symlink_to(".git/annex/objects/nowhere.nii.gz")
    corrections.say(table.read(data))
    first, *_, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("not compared with what this package marked")
    assert str(link) in first
    assert last.startswith("0 of 1 masks differ")


def test_without_masks_of_this_package_nothing_is_said(data, caplog):
    caplog.set_level("INFO")
    scans = table.read(data)
    (data / "derivatives" / "sct_lesion_losses").rename(data / "derivatives" / "other")
    corrections.say(scans)
    assert caplog.records == []


def test_a_mask_corrected_by_hand_comes_before_the_one_it_started_from(data):
    label = (
        data / "derivatives" / "labels" / "sub-01" / "anat" / "sub-01_T2w_label-lesion_seg.nii.gz"
    )
    write(label)
    assert table.read(data)[0].lesion_mask.name == "sub-01_T2w_lesion-manual.nii.gz"
