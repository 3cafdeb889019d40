"""Commands that are stopped, and commands that meet."""

import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_data import write_cohort

from sct_lesion_losses.cohorts import table

SLOW = """
import sys, time
import nibabel as nib
from sct_lesion_losses.cli.{module} import main

def half(image, file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)

nib.Nifti1Image.to_stream = half
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def pmap(tmp_path: Path) -> Path:
    array = np.random.default_rng(0).random((30, 30, 30), np.float32)
    nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / "p.nii.gz")
    (tmp_path / "p.json").write_text('{"TunedLesionFilter": null}', encoding="utf-8")
    return tmp_path / "p.nii.gz"


def stopped_while_writing(
    mask: Path, module: str, args: list[str], with_signal: signal.Signals
) -> tuple[int, str]:
    """Exit status and stderr of a command that is stopped in the middle of writing a mask."""
    mask.parent.mkdir()
    mask.write_bytes(b"old")
    out = ["-v", "0", "-o", mask.name, "-ofolder", str(mask.parent)]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW.format(module=module), *args, *out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(with_signal)
        _, err = process.communicate(timeout=30)
        return process.returncode, err


@pytest.mark.parametrize(
    ("module", "with_signal", "status", "said"),
    [
        ("rethreshold", signal.SIGTERM, 143, "sct_rethreshold_lesion: error: terminated\n"),
        ("rethreshold", signal.SIGINT, 130, "sct_rethreshold_lesion: error: interrupted\n"),
        ("segment", signal.SIGTERM, 143, "sct_deepseg_lesion_tuned: error: terminated\n"),
    ],
)
def test_a_stopped_command_leaves_the_old_mask_and_nothing_else(
    module: str, with_signal: signal.Signals, status: int, said: str, pmap: Path, tmp_path: Path
) -> None:
    [scan] = table.read(write_cohort(tmp_path / "data", subjects=1, lesion_free=0))
    args = {
        "rethreshold": ["-i", str(pmap), "-thr", "0.5"],
        "segment": ["-i", str(scan.scan), "-file_centerline", str(scan.centerline)],
    }
    mask = tmp_path / "out" / "m.nii"
    stopped, err = stopped_while_writing(mask, module, args[module], with_signal)
    told = [line for line in err.splitlines(keepends=True) if not line.startswith("WARNING: ")]
    assert (stopped, told) == (status, [said])  # that a mask is empty is a warning
    assert mask.read_bytes() == b"old"
    assert list(mask.parent.iterdir()) == [mask]


def test_a_killed_command_leaves_the_old_mask(pmap: Path) -> None:
    mask, args = pmap.parent / "out" / "m.nii", ["-i", str(pmap), "-thr", "0.5"]
    assert stopped_while_writing(mask, "rethreshold", args, signal.SIGKILL)[0] == -signal.SIGKILL
    assert mask.read_bytes() == b"old"
    # What is left of the work is hidden and does not look like an image to a search for sub-*.
    assert all(path == mask or path.name.startswith(".") for path in mask.parent.iterdir())


def test_two_commands_with_one_output_leave_one_whole_mask(pmap: Path) -> None:
    code = "import sys\nfrom sct_lesion_losses.cli.rethreshold import main\nsys.exit(main())"
    args = [sys.executable, "-c", code, "-i", str(pmap), "-thr", "0.5", "-v", "0"]
    out = ["-ofolder", str(pmap.parent / "out")]
    both = [
        subprocess.Popen([*args, *out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in both] == [
        (b"", 0),
        (b"", 0),
    ]
    mask = np.asarray(nib.load(pmap.parent / "out" / "p_thr0.5.nii.gz").dataobj)
    assert np.array_equal(mask, np.asarray(nib.load(pmap).dataobj) >= np.float32(0.5))
    names = sorted(path.name for path in (pmap.parent / "out").iterdir())
    assert names == ["p_thr0.5.json", "p_thr0.5.nii.gz"]


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-"])
def test_a_command_without_a_stream_does_its_work(closed: str, pmap: Path) -> None:
    program = Path(sys.executable).with_name("sct_rethreshold_lesion")
    line = f'"{program}" -i p.nii.gz -thr 0.5 -lesions 1 -o m.nii {closed}'
    done = subprocess.run(["sh", "-c", line], cwd=pmap.parent, capture_output=True)
    assert done.returncode == 0, done.stderr
    mask = np.asarray(nib.load(pmap.parent / "m.nii").dataobj)
    assert np.array_equal(mask, np.asarray(nib.load(pmap).dataobj) >= np.float32(0.5))


def test_a_command_whose_folder_was_deleted_does_its_work(pmap: Path) -> None:
    program = Path(sys.executable).with_name("sct_rethreshold_lesion")
    (pmap.parent / "gone").mkdir()
    line = f'rmdir "$PWD"; "{program}" -i "{pmap}" -thr 0.5 -ofolder "{pmap.parent}/out"'
    done = subprocess.run(["sh", "-c", line], cwd=pmap.parent / "gone", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (pmap.parent / "out" / "p_thr0.5.nii.gz").is_file()
