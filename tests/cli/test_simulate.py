from typing import get_args

from sct_lesion_losses.cli.simulate import SUBJECTS, main
from sct_lesion_losses.phantom.scan import Preset


def test_the_command_makes_what_it_is_asked_for_and_refuses_the_folder_for_another_cohort(
    tmp_path, capsys
):
    out, sheet = tmp_path / "cohort", tmp_path / "sheet.png"
    args = ["-ofolder", str(out), "-preset", "tiny", "-seed", "2", "-raters", "2"]
    assert main([*args, "-n", "1", "-figure", str(sheet)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert (out / "sub-001" / "anat" / "sub-001_T2w.nii.gz").is_file()
    folders = sorted((out / "derivatives").iterdir())
    assert [folder.name for folder in folders] == ["labels", "rater-01", "rater-02"]
    for folder in folders:
        assert (folder / "sub-001" / "anat" / "sub-001_T2w_label-lesion_seg.nii.gz").is_file()
        assert (folder / "dataset_description.json").is_file()
    assert main([*args, "-n", "2"]) == 1
    assert "holds another cohort" in capsys.readouterr().err


def test_every_preset_has_a_number_of_subjects():
    assert tuple(SUBJECTS) == get_args(Preset)
