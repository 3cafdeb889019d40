"""The batch scripts, with a command in place of the real one that notes how it was called."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_data import script, simulate

BIN = Path(__file__).resolve().parents[2] / "bin"
# The scan's name may tell it to fail with a status.
COMMAND = r"""printf '%s\t' "$@" >>"$CALLS"; echo >>"$CALLS"
case $2 in *status*) s=${2##*status}; exit "${s%%_*}" ;; esac
"""


class Site:
    """A dataset and a command; `run` calls a script on them."""

    def __init__(self, folder: Path) -> None:
        self.data, self.results = folder / "my data", folder / "my results"
        self.calls = folder / "calls"
        self.env = {"CALLS": str(self.calls), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        self.tool("sct_deepseg_lesion_tuned", COMMAND)

    def tool(self, name: str, body: str = "") -> None:
        script(self.calls.parent / name, body)

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
        return self.run("batch_loop.sh", str(self.data), str(self.results), *options)

    def array(self, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("batch_slurm.sh", str(self.data), str(self.results), *options, **env)

    def subject(self, name: str, **env: str) -> subprocess.CompletedProcess[str]:
        paths = {"PATH_DATA": str(self.data), "PATH_RESULTS": str(self.results)}
        return self.run("batch_subject.sh", name, **paths, **env)

    def called(self) -> list[list[str]]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line.split("\t")[:-1] for line in lines]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_loop_goes_through_all_sessions_and_past_a_scan_that_fails(site: Site) -> None:
    scans = [
        site.scan("sub-01/anat/sub-01status1_T2w.nii.gz"),
        site.scan("sub-02/ses-1/anat/sub-02_ses-1_T2w.nii"),
    ]
    site.scan("sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz")
    named = ["-bids", "1", "-ofolder", str(site.results), "-thr", "0.3"]
    assert site.loop("-thr", "0.3").returncode == 1
    assert site.called() == [["-i", str(scan), *named] for scan in scans]
    scans[0].unlink()
    assert site.loop("-thr", "0.3").returncode == 0


def test_the_loop_ends_where_it_is_stopped_and_fails_without_scans(site: Site) -> None:
    assert site.loop().returncode == 1
    assert site.loop().stderr.startswith("error: no *_T2w.nii")
    for name in ("1status130", "2status143", "3"):
        site.scan(f"sub-{name}/anat/sub-{name}_T2w.nii.gz")
    assert site.loop().returncode == 130
    assert len(site.called()) == 1


@pytest.mark.parametrize("script", ["batch_loop.sh", "batch_slurm.sh"])
def test_a_scan_that_was_not_fetched_is_not_passed_over(script: str, site: Site) -> None:
    link = site.scan("sub-01/anat/sub-01_T2w.nii.gz")
    link.unlink()
    link.symlink_to("not fetched")
    site.run(script, str(site.data), str(site.results), **array(1, 1, 1))
    assert len(site.called()) == 1


def array(task: int, first: int, last: int) -> dict[str, str]:
    """Variables of SLURM in a task of an array without gaps."""
    return {
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_MAX": str(last),
        "SLURM_ARRAY_TASK_COUNT": str(last - first + 1),
    }


def test_the_tasks_of_an_array_share_the_subjects_out(site: Site) -> None:
    subjects = [f"sub-{n:02d}" for n in range(1, 6)]
    for subject in subjects:
        site.scan(f"{subject}/anat/{subject}_T2w.nii.gz")
    site.scan("sub-00/anat/sub-00_T1w.nii.gz")  # of no share
    for task in (4, 5, 6):
        slurm = array(task, 4, 6) | {"SLURM_CPUS_PER_TASK": "4"}
        assert site.array("-thr", "0.3", **slurm).returncode == 0
    shares = []
    for call in site.called():
        assert call[:4] == ["-i", str(site.data), "-ofolder", str(site.results)]
        assert call[6:] == ["-jobs", "4", "-thr", "0.3"]
        shares.append([name for name in subjects if re.search(call[5], f"{name}/anat/x")])
    assert sorted(name for share in shares for name in share) == subjects
    assert [len(share) for share in shares] == [2, 2, 1]
    assert site.array(**array(9, 1, 9)).returncode == 0
    assert len(site.called()) == 3
    gaps = array(1, 1, 5) | {"SLURM_ARRAY_TASK_COUNT": "3"}
    refused = site.array(**gaps)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "submit it as --array=1-3" in refused.stderr
    assert site.array("-c", "t2s", **array(1, 1, 1)).returncode == 1
    site.scan("sub-00/anat/sub-00_T2starw.nii.gz")
    assert site.array("-c", "t2s", **array(1, 1, 1)).returncode == 0
    assert site.called()[-1][5] == "^(sub-00)/"


@pytest.mark.parametrize(("name", "status"), [("sub-01", 0), ("status1", 1)])
def test_a_job_of_dask_starts_a_cluster_and_ends_it(name: str, status: int, site: Site) -> None:
    site.data = site.data / name  # where the fake command reads its status from
    site.data.mkdir(parents=True)
    site.tool("srun", 'exec "$@"')
    site.tool(
        "dask",
        """echo "$*" >>"$CALLS.dask"; echo $$ >>"$CALLS.pids"
case $1 in scheduler) sleep 0.2; : >"$4" ;; esac
exec sleep 60
""",
    )
    done = site.run("batch_dask.sh", str(site.data), str(site.results), SLURM_JOB_ID="7")
    assert done.returncode == status
    file = site.results / ".scheduler-7.json"
    named = ["-i", str(site.data), "-ofolder", str(site.results), "-scheduler_file", str(file)]
    assert site.called() == [named]
    assert sorted(Path(f"{site.calls}.dask").read_text().splitlines()) == [
        f"scheduler --no-dashboard --scheduler-file {file}",
        f"worker --nthreads 1 --no-dashboard --scheduler-file {file}",
    ]
    for process in Path(f"{site.calls}.pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)
    assert not file.exists()


@pytest.mark.parametrize("script", sorted(BIN.glob("batch_*.sh")), ids=lambda path: path.name)
def test_scripts_are_plain_posix(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, script], check=True)


def test_extensions_are_found_in_any_case(site: Site) -> None:
    scans = [site.scan(f"sub-01/anat/sub-01_run-{n}_T2w.{n}") for n in ("NII.GZ", "Nii", "txt")]
    assert site.subject("sub-01").returncode == 0
    assert [call[1] for call in site.called()] == [str(scan) for scan in scans[:2]]


def test_no_scans_is_an_error(site: Site) -> None:
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


def test_a_scan_that_is_there_twice_is_an_error(site: Site) -> None:
    for name in ("run-1_T2w.nii", "run-2_T2w.nii", "run-1_T2w.nii.gz"):
        site.scan(f"sub-01/anat/sub-01_{name}")
    done = site.subject("sub-01")
    assert done.returncode == 1
    assert "compressed and not" in done.stderr
    assert len(site.called()) == 2


def test_a_subject_gets_a_lesion_table_unless_other_options_are_given(site: Site) -> None:
    site.scan("sub-01/anat/sub-01_T2w.nii.gz")
    site.subject("sub-01")
    site.subject("sub-01", LESION_OPTIONS="-thr 0")
    assert [call[4:] for call in site.called()] == [["-lesions", "1"], ["-thr", "0"]]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["batch_slurm.sh", "batch_dask.sh"])
def test_a_cohort_is_segmented_by_the_real_commands(script: str, site: Site) -> None:
    if script == "batch_dask.sh":
        pytest.importorskip("distributed")
    subjects = [f"sub-{n:02d}" for n in range(1, 6)]
    for subject in subjects:
        simulate(site.scan(f"{subject}/anat/{subject}_T2w.nii.gz"), 4)
    (site.calls.parent / "sct_deepseg_lesion_tuned").unlink()
    # Two tasks of a job.
    site.tool("srun", '"$@" & first=$!\n"$@" & second=$!\n'
              'trap \'kill "$first" "$second"\' TERM\nwait\n')  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), site.env["PATH"]])
    tasks = [array(task, 1, 2) for task in (1, 2)] if "slurm" in script else [{}]
    for task in tasks:
        names = {"SLURM_JOB_ID": "7", "PATH": path, **task}
        done = site.run(script, str(site.data), str(site.results), **names)
        assert done.returncode == 0, done.stderr
    lines = (site.results / "segmented_scans.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[:2] for line in lines] == [
        [f"{subject}/anat/{subject}_T2w.nii.gz", "done"] for subject in subjects
    ]
    assert not list(site.results.rglob(".*"))
