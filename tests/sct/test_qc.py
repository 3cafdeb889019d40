"""Entries in SCT's QC report, made by a script that stands for `sct_qc`."""

from pathlib import Path

import pytest
from small_data import script

from sct_lesion_losses.errors import OutputError, SctError
from sct_lesion_losses.sct import qc

# Writes what SCT would keep: its arguments and its folder, and reads the three images.
SCT_QC = """
printf '%s\\n' "$@" > report/arguments
pwd > report/folder
cat "$2" "$4" "$6" > report/images
"""


@pytest.fixture
def fake_sct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "sct"
    for name, body in [("sct_version", "echo 7.4"), ("sct_qc", SCT_QC)]:
        script(root / "bin" / name, body)
    monkeypatch.setenv("SCT_DIR", str(root))
    return root


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "jane doe" / "cohort" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    paths = [folder / name for name in ("t2.nii.gz", "t2_lesionseg.nii.gz", "t2_cord.nii.gz")]
    for path in paths:
        path.write_text(path.name + "\n")
    return paths


def test_an_entry_names_the_files_and_the_folders_sct_would_name(
    fake_sct: Path, files: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "new" / "qc"
    qc.entry(*files, plane="axial", folder=report)
    assert " ".join((report / "arguments").read_text().split()) == (
        "-i scan/anat/t2.nii.gz -s cord/t2_cord.nii.gz -d mask/t2_lesionseg.nii.gz "
        "-p sct_deepseg_lesion -plane axial -qc report -qc-dataset cohort -qc-subject sub-01"
    )
    lines = (report / "images").read_text().split()
    assert lines == ["t2.nii.gz", "t2_cord.nii.gz", "t2_lesionseg.nii.gz"]
    assert "jane" not in (report / "folder").read_text()  # nor anywhere in the arguments


def test_dataset_and_subject_are_the_callers(
    fake_sct: Path, files: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "qc"
    qc.entry(*files, plane="sagittal", folder=report, dataset="trial", subject="s7")
    words = (report / "arguments").read_text().split()
    assert words[-4:] == ["-qc-dataset", "trial", "-qc-subject", "s7"]


def test_a_failed_report_and_a_folder_that_cannot_be_made_are_errors(
    fake_sct: Path, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="use another -qc"):
        qc.entry(*files, plane="axial", folder=tmp_path / "file" / "qc")
    (fake_sct / "bin" / "sct_qc").write_text("#!/bin/sh\necho broken image\nexit 1\n")
    said = r"sct_qc -i t2\.nii\.gz.*broken image; make a page .* by -qc_page page\.html"
    with pytest.raises(SctError, match=said):
        qc.entry(*files, plane="axial", folder=tmp_path / "qc")
    (fake_sct / "bin" / "sct_qc").unlink()
    with pytest.raises(SctError, match=r"by -qc_page page\.html in place of -qc, or install it"):
        qc.require()
