from pathlib import Path

import pytest

from sct_lesion_losses.errors import OutputError, UsageError
from sct_lesion_losses.images import outputs


def test_names_follow_sct_and_keep_the_extension_of_the_scan() -> None:
    names = outputs.for_scan(Path("in/t2.nii"), folder=Path("out"))
    assert names.mask == Path("out/t2_lesionseg.nii")
    assert names.sidecar == Path("out/t2_lesionseg.json")
    assert names.pmap == Path("out/t2_lesionseg_pmap.nii")
    assert names.table == Path("out/t2_lesionseg_lesions.tsv")
    assert names.cord == Path("out/t2_lesionseg_cord.nii")


def test_everything_lies_beside_a_mask_of_ones_own_name() -> None:
    names = outputs.for_scan(Path("t2.nii.gz"), out=Path("deep/mine.nii.gz"), folder=Path("out"))
    assert names.mask == Path("out/deep/mine.nii.gz")
    assert names.labels == Path("out/deep/mine_labels.nii.gz")


def test_the_scan_itself_is_never_overwritten(tmp_path: Path) -> None:
    scan = tmp_path / "t2.nii.gz"
    with pytest.raises(UsageError, match="overwrite the scan"):
        outputs.for_scan(scan, out=Path("t2.nii.gz"), folder=tmp_path)


def test_bids_names_use_the_reserved_lesion_label() -> None:
    scan = Path("data/sub-01/ses-02/anat/sub-01_ses-02_acq-sag_T2w.nii.gz")
    folder = Path("out/sub-01/ses-02/anat")
    names = outputs.for_bids_scan(scan, folder)
    assert names.mask == folder / "sub-01_ses-02_acq-sag_label-L_mask.nii.gz"
    assert names.pmap == folder / "sub-01_ses-02_acq-sag_label-L_probseg.nii.gz"
    assert names.labels == folder / "sub-01_ses-02_acq-sag_label-L_dseg.nii.gz"
    assert names.cord == folder / "sub-01_ses-02_acq-sag_label-SC_mask.nii.gz"


@pytest.mark.parametrize(("old", "new"), [(".nii", ".nii.gz"), (".nii.gz", ".nii")])
def test_a_sidecar_that_belongs_to_another_mask_is_refused(
    old: str, new: str, tmp_path: Path
) -> None:
    names = outputs.for_scan(Path(f"t2{new}"), folder=tmp_path)
    names.mask.touch()
    names.require_own()  # the same mask again
    (tmp_path / f"t2_lesionseg{old}").touch()
    with pytest.raises(OutputError, match=rf"json belongs to t2_lesionseg{old}, which is there"):
        names.require_own()
