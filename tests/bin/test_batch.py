"""The batch scripts, with a command in place of the real one that notes how it was called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

BIN = Path(__file__).resolve().parents[2] / "bin"
# Writes the mask, unless the scan's name tells it to fail with a status.
COMMAND = """#!/bin/sh
printf '%s|' "$@" >>"$CALLS"; echo >>"$CALLS"
case $2 in *status*) s=${2##*status}; exit "${s%%_*}" ;; esac
name=$(basename "$2"); stem=${name%%.[nN]*}; mkdir -p "$4"; : >"$4/${stem}_lesionseg${name#"$stem"}"
"""


class Site:
    """A dataset and a command; `run` calls a script on them."""

    def __init__(self, folder: Path) -> None:
        self.data, self.results = folder / "my data", folder / "my results"
        self.calls = folder / "calls"
        self.env = {"CALLS": str(self.calls), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        self.tool("sct_deepseg_lesion_tuned", COMMAND)

    def tool(self, name: str, text: str = "#!/bin/sh\n") -> None:
        path = self.calls.parent / name
        path.write_text(text)
        path.chmod(0o755)

    def scan(self, name: str) -> Path:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def run(self, script: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / script, *args], env=self.env | env, capture_output=True, text=True
        )

    def loop(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("batch_bids.sh", str(self.data), str(self.results), *options)

    def subject(self, name: str, **env: str) -> subprocess.CompletedProcess[str]:
        paths = {"PATH_DATA": str(self.data), "PATH_RESULTS": str(self.results)}
        return self.run("batch_subject.sh", name, **paths, **env)

    def called(self) -> list[list[str]]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line.split("|")[:-1] for line in lines]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_loop_segments_every_session_once(site: Site) -> None:
    one = site.scan("sub-01/anat/sub-01_T2w.nii.gz")
    two = site.scan("sub-02/ses-1/anat/sub-02_ses-1_T2w.nii")
    site.scan("sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz.bak")
    site.scan("sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz")
    done = site.loop("-thr", "0.3")
    assert (done.returncode, done.stderr) == (0, "2 segmented, 0 already there\n")
    assert sorted(site.called()) == sorted(
        [
            ["-i", str(one), "-ofolder", f"{site.results}/sub-01/anat", "-thr", "0.3"],
            ["-i", str(two), "-ofolder", f"{site.results}/sub-02/ses-1/anat", "-thr", "0.3"],
        ]
    )
    again = site.loop("-thr", "0.3")
    assert (again.returncode, again.stderr) == (0, "0 segmented, 2 already there\n")
    assert len(site.called()) == 2


def test_the_loop_goes_on_after_a_scan_that_fails_and_lists_it(site: Site) -> None:
    site.scan("sub-01/anat/sub-01status1_T2w.nii.gz")
    site.scan("sub-02/anat/sub-02_T2w.nii.gz")
    link = site.scan("sub-03/anat/x").with_name("sub-03status1_T2w.nii.gz")
    link.symlink_to("not fetched")
    done = site.loop()
    assert done.returncode == 1
    assert "1 segmented" in done.stderr
    assert "sub-01/anat/sub-01status1_T2w.nii.gz" in done.stderr
    assert "sub-03/anat/sub-03status1_T2w.nii.gz" in done.stderr


def test_the_loop_keeps_no_mask_of_other_options(site: Site) -> None:
    site.scan("sub-01/anat/sub-01_T2w.nii.gz")
    assert site.loop("-thr", "0.3").returncode == 0
    other = site.loop("-thr", "0.4")
    assert other.returncode == 2
    assert "made with other options: -thr 0.3\n" in other.stderr
    assert len(site.called()) == 1
    site.results = site.results.with_name("others")
    assert site.loop("-thr", "0.4").returncode == 0
    assert len(site.called()) == 2


@pytest.mark.parametrize("script", ["loop", "subject"])
def test_extensions_are_found_in_any_case(script: str, site: Site) -> None:
    scans = [site.scan(f"sub-01/anat/sub-01_run-{n}_T2w.{n}") for n in ("NII.GZ", "Nii", "txt")]
    for _ in range(2):
        done = site.loop() if script == "loop" else site.subject("sub-01")
        assert done.returncode == 0
    assert [call[1] for call in site.called()[:2]] == [str(scan) for scan in scans[:2]]
    assert len(site.called()) == (2 if script == "loop" else 4)


@pytest.mark.parametrize("status", [2, 130, 143])
def test_the_loop_stops_where_no_scan_could_work(site: Site, status: int) -> None:
    site.scan(f"sub-01/anat/sub-01status{status}_T2w.nii.gz")
    site.scan("sub-02/anat/sub-02_T2w.nii.gz")
    assert site.loop().returncode == status
    assert len(site.called()) == 1


def test_no_scans_is_an_error(site: Site) -> None:
    site.data.mkdir()
    done = site.loop()
    assert (done.returncode, "no sub-*" in done.stderr) == (1, True)
    site.scan("sub-01/anat/sub-01_T1w.nii.gz")
    assert site.subject("sub-01").returncode == 1


def test_a_subject_is_segmented_with_options_and_a_report(site: Site) -> None:
    site.tool("sct_qc")
    scan = site.scan("sub-01/ses-1/anat/sub-01_T2w.nii.gz")
    done = site.subject("sub-01/ses-1", LESION_OPTIONS="-lesions 1 -thr 0.3", PATH_QC="/my qc")
    assert done.returncode == 0
    report = ["-qc", "/my qc", "-qc-dataset", "my data", "-qc-subject", "sub-01/ses-1"]
    folder = f"{site.results}/sub-01/ses-1/anat"
    expected = ["-i", str(scan), "-ofolder", folder, "-lesions", "1", "-thr", "0.3", *report]
    assert site.called() == [expected]


def test_a_subjects_other_scans_are_segmented_after_one_that_fails(site: Site) -> None:
    site.scan("sub-01/anat/sub-01_run-1status1_T2w.nii.gz")
    site.scan("sub-01/anat/sub-01_run-2_T2w.nii.gz")
    assert site.subject("sub-01").returncode == 1
    assert len(site.called()) == 2


@pytest.mark.parametrize("script", ["loop", "subject"])
def test_a_scan_that_is_there_twice_is_an_error(script: str, site: Site) -> None:
    for name in ("run-1_T2w.nii", "run-2_T2w.nii", "run-1_T2w.nii.gz"):
        site.scan(f"sub-01/anat/sub-01_{name}")
    done = site.loop() if script == "loop" else site.subject("sub-01")
    assert done.returncode == 1
    assert "compressed and not" in done.stderr
    assert len(site.called()) == 2


def test_a_subject_gets_a_lesion_table_unless_other_options_are_given(site: Site) -> None:
    site.scan("sub-01/anat/sub-01_T2w.nii.gz")
    site.subject("sub-01")
    site.subject("sub-01", LESION_OPTIONS="-thr 0")
    assert [call[4:] for call in site.called()] == [["-lesions", "1"], ["-thr", "0"]]
