from typing import get_args

import pytest

from sct_lesion_losses.cli.implant import ACQUISITIONS, main
from sct_lesion_losses.phantom import make_scan
from sct_lesion_losses.phantom.dataset import write_nifti
from sct_lesion_losses.phantom.implant import Acquisition


def test_the_command_makes_a_cohort_of_implants_and_draws_it(tmp_path, capsys):
    scan = make_scan(1, preset="tiny", lesions=False)
    names = ("healthy.nii.gz", "cord.nii.gz", "cohort", "sheet.png")
    host, cord, out, sheet = (tmp_path / name for name in names)
    write_nifti(host, scan.image, scan.grid)
    write_nifti(cord, scan.cord, scan.grid)
    args = f"-i {host} -cord {cord} -ofolder {out} -n 2 -acquisition native axial -free 0"
    assert main([*args.split(), "-figure", str(sheet)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert sheet.read_bytes().startswith(b"\x89PNG")
    made = sorted(path.name for path in out.rglob("*lesion_seg.nii.gz"))
    assert made == [
        "sub-healthy_acq-axial_run-02_T2w_label-lesion_seg.nii.gz",
        "sub-healthy_acq-native_run-01_T2w_label-lesion_seg.nii.gz",
    ]
    assert main([*args.split(), "-seed", "2"]) == 1
    assert "holds another cohort" in capsys.readouterr().err


@pytest.mark.parametrize("contrast", ["1.5", "1.2 1.5 2", "2 1.5", "1 1.5", "1.5 9"])
def test_contrasts_that_no_lesion_can_have_are_refused(contrast, tmp_path, capsys):
    args = ["-i", str(tmp_path / "a.nii.gz"), "-ofolder", str(tmp_path / "out")]
    assert main([*args, "-contrast", *contrast.split()]) != 0
    assert "-contrast" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_knows_every_acquisition():
    assert get_args(Acquisition) == ACQUISITIONS
