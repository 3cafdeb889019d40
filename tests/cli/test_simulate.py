from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from sct_lesion_losses.cli.simulate import SUBJECTS, main
from sct_lesion_losses.phantom.scan import Preset


def test_the_command_prints_the_folder_it_made_and_refuses_it_for_another_cohort(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cohort"
    args = ["-ofolder", str(out), "-preset", "tiny", "-seed", "2"]
    assert main([*args, "-n", "1"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert (out / "sub-001" / "anat" / "sub-001_T2w.nii.gz").is_file()
    assert main([*args, "-n", "2"]) == 1
    assert "holds another cohort" in capsys.readouterr().err


def test_raters_have_folders_of_their_own_beside_the_truth(tmp_path: Path) -> None:
    assert main(["-ofolder", str(tmp_path), "-preset", "tiny", "-n", "1", "-raters", "2"]) == 0
    folders = sorted(path.name for path in (tmp_path / "derivatives").iterdir())
    assert folders == ["labels", "rater-01", "rater-02"]
    for folder in folders:
        derived = tmp_path / "derivatives" / folder
        mask = derived / "sub-001" / "anat" / "sub-001_T2w_label-lesion_seg.nii.gz"
        assert mask.is_file()
        assert (derived / "dataset_description.json").is_file()


def test_a_contact_sheet_is_drawn_where_asked_for(tmp_path: Path) -> None:
    out, picture = tmp_path / "cohort", tmp_path / "sheet.png"
    args = ["-preset", "tiny", "-n", "1", "-figure", str(picture)]
    assert main(["-ofolder", str(out), *args]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("picture", "status", "said"),
    [("sheet.tiff", 2, "ends in .png"), ("file/sheet.png", 1, "not a folder")],
)
def test_a_picture_that_cannot_be_written_is_refused_before_the_cohort_is_made(
    picture: str, status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cohort"
    (tmp_path / "file").touch()
    assert main(["-ofolder", str(out), "-figure", str(tmp_path / picture)]) == status
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_every_preset_has_a_number_of_subjects() -> None:
    assert tuple(SUBJECTS) == get_args(Preset)
