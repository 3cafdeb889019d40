"""Segmenting many scans with the shipped bundle: each once, whatever fails, dies or runs beside."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import worker_tasks
from filelock import FileLock
from small_data import copies, save_filtering, simulate, table_rows

from sct_lesion_losses.bundle import store
from sct_lesion_losses.errors import DataError, UsageError
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.workflows import batch, segment
from sct_lesion_losses.workflows.batch import DONE, FAILED, SKIPPED, BatchSettings
from sct_lesion_losses.workflows.rethreshold import default_outputs, rethreshold
from sct_lesion_losses.workflows.segment import SegmentSettings

NAMES = (
    "sub-01/anat/sub-01_run-1_T2w.nii.gz",
    "sub-01/anat/sub-01_run-2_T2w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz",
)
EVERY = SegmentSettings(lesions=True, pmap=True)


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> list[Path]:
    """Two small simulated scans with lesions."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in (4, 5):
        simulate(folder / f"{seed}.nii.gz", seed)
    return [folder / "4.nii.gz", folder / "5.nii.gz"]


@pytest.fixture(scope="module")
def segmented(scans, tmp_path_factory) -> Path:
    """A BIDS folder of three scans, all of them segmented; to be left as it is."""
    folder = tmp_path_factory.mktemp("segmented") / "data"
    copies(scans[0], *(folder / name for name in NAMES[:2]))
    copies(scans[1], folder / NAMES[2])
    found, _ = batch.run(batch.find([folder]), BatchSettings(EVERY))
    assert statuses(found) == [DONE] * 3
    return folder


@pytest.fixture
def done(segmented, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(segmented, tmp_path / "data")


@pytest.fixture
def own_bundle(tmp_path) -> Path:
    """A copy of a shipped bundle beside the data."""
    return shutil.copytree(store.find("tversky"), tmp_path / "tversky")


def derivatives(dataset: Path) -> Path:
    return dataset / "derivatives" / "sct_lesion_losses"


def statuses(found: dict[batch.BatchScan, batch.Outcome]) -> list[str]:
    return [outcome.status for outcome in found.values()]


def masks(folder: Path) -> dict[Path, int]:
    """Masks with the times at which they were written."""
    found = [path for path in folder.rglob("*_mask.nii.gz") if not path.name.startswith(".")]
    return {path: path.stat().st_mtime_ns for path in found}


def test_the_tables_tell_of_every_scan_and_lesion_and_describe_themselves(segmented):
    folder = derivatives(segmented)
    told = table_rows(folder / batch.SCANS)
    assert [row["scan"] for row in told] == list(NAMES)
    assert {row["status"] for row in told} == {DONE}
    counts = []
    for row in told:
        mask = folder / row["mask"]
        sidecar = json.loads(mask.with_name(mask.name.replace(".nii.gz", ".json")).read_text())
        assert (row["bundle"], float(row["threshold"])) == ("default", sidecar["Threshold"])
        assert int(row["lesions"]) == sidecar["LesionCount"]
        assert float(row["volume_mm3"]) == sidecar["LesionVolumeMm3"] > 0
        assert float(row["seconds"]) == sidecar["Seconds"] > 0
        assert row["error"] == "n/a"
        counts.append(int(row["lesions"]))
    lesions = table_rows(folder / batch.LESIONS)
    each = [path for name in told for path in (folder / name["mask"]).parent.glob("*_lesions.tsv")]
    alone = [row for path in dict.fromkeys(each) for row in table_rows(path)]
    assert [{k: v for k, v in row.items() if k != "scan"} for row in lesions] == alone
    assert [row["scan"] for row in lesions] == [
        name for name, count in zip(NAMES, counts, strict=True) for _ in range(count)
    ]
    for table in (batch.SCANS, batch.LESIONS):
        described = json.loads((folder / table).with_suffix(".json").read_text())
        assert list(described) == list(table_rows(folder / table)[0])
    assert not list(segmented.rglob(".*"))


def test_what_is_done_is_skipped_and_said_and_told_in_the_tables(done, caplog):
    caplog.set_level("INFO")
    folder = derivatives(done)
    before = {name: table_rows(folder / name) for name in (batch.SCANS, batch.LESIONS)}
    for name in before:
        (folder / name).unlink()
    written = masks(folder)
    copies(done / NAMES[0], done / "sub-03/anat/sub-03_T2w.nii.gz")
    loaded = predict.opened.cache_info().misses
    found, tables = batch.run(batch.find([done]), BatchSettings(EVERY))
    assert statuses(found) == [SKIPPED, SKIPPED, SKIPPED, DONE]
    assert "3 of 4 scans done already" in caplog.messages
    assert predict.opened.cache_info().misses == loaded  # the network stays for the next scan
    assert written.items() <= masks(folder).items()
    assert tables == [folder / batch.SCANS, folder / batch.LESIONS]
    old, new = before[batch.SCANS], table_rows(folder / batch.SCANS)
    assert new[:3] == [{**row, "status": SKIPPED} for row in old]
    assert table_rows(folder / batch.LESIONS)[: len(before[batch.LESIONS])] == before[batch.LESIONS]
    again, _ = batch.run(batch.find([done])[:1], BatchSettings(EVERY, force=True))
    assert statuses(again) == [DONE]


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        (EVERY, True),
        (SegmentSettings(), True),
        (replace(EVERY, command="another -engine"), True),
        (replace(EVERY, inference=InferenceSettings(engine="onnxruntime")), True),
        (replace(EVERY, threshold=0.123), False),
        (replace(EVERY, bundle="tversky"), False),
        (replace(EVERY, inference=InferenceSettings(contrast="t2s")), False),
        (replace(EVERY, inference=InferenceSettings(precision="bfloat16")), False),
        (replace(EVERY, figure=True), False),
    ],
)
def test_a_scan_is_done_where_all_files_are_there_and_made_in_the_same_way(
    settings, same, segmented
):
    bundle, _ = segment.opened(replace(settings, inference=InferenceSettings()))
    kept = [batch.kept(scan, settings, bundle) for scan in batch.find([segmented])]
    assert [outcome is not None for outcome in kept] == [same] * 3


def test_another_lesion_filter_or_none_has_the_scan_segmented_anew(segmented, tmp_path):
    bundle, _ = segment.opened(EVERY)
    scan = batch.find([segmented])[0]
    filtering = save_filtering(tmp_path / "default", bundle, 0.4, 30.0, bundle.threshold)
    assert batch.kept(scan, EVERY, bundle) is not None
    assert batch.kept(scan, EVERY, filtering) is None
    assert batch.kept(scan, replace(EVERY, lesion_point=False), bundle) is None


def test_another_image_or_a_missing_or_damaged_file_has_the_scan_segmented_anew(done, scans):
    bundle, _ = segment.opened(EVERY)
    one, two, three = batch.find([done])
    shutil.copy(scans[1], one.image)
    two.outputs.labels.unlink()
    three.outputs.sidecar.write_text("{")
    assert [batch.kept(scan, EVERY, bundle) for scan in (one, two, three)] == [None] * 3


@pytest.mark.parametrize(
    "between",
    [
        [replace(EVERY, bundle="tversky"), SegmentSettings()],
        [replace(EVERY, threshold=0.5), SegmentSettings(threshold=0.3)],
        [SegmentSettings(bundle="tversky", threshold=0.0)],
    ],
)
def test_files_that_another_run_left_are_never_taken_for_those_of_a_scan(between, done):
    scans = batch.find([done])[:1]
    again = BatchSettings(replace(EVERY, threshold=between[-1].threshold or None))
    for settings in between:
        assert statuses(batch.run(scans, BatchSettings(settings))[0]) == [DONE]
    assert statuses(batch.run(scans, again)[0]) == [DONE]
    made = scans[0].outputs
    assert json.loads(made.pmap_sidecar.read_text())["Bundle"] == "default"
    assert len(table_rows(made.table)) == json.loads(made.sidecar.read_text())["LesionCount"]
    assert statuses(batch.run(scans, again)[0]) == [SKIPPED]


def test_rows_of_scans_that_are_not_in_this_run_stay_while_their_masks_do(done):
    first, second, third = batch.find([done])
    before = [table_rows(derivatives(done) / name) for name in (batch.SCANS, batch.LESIONS)]
    third.outputs.mask.unlink()
    batch.run([first], BatchSettings(EVERY))
    after = [table_rows(derivatives(done) / name) for name in (batch.SCANS, batch.LESIONS)]
    assert [row["scan"] for row in after[0]] == [first.name, second.name]
    assert after[1] == [row for row in before[1] if row["scan"] != third.name]


@pytest.mark.parametrize("damage", ["empty", "cut", "row", "latin"])
def test_a_damaged_lesion_table_has_the_scan_segmented_anew(damage, done):
    scan = batch.find([done])[0]
    whole = scan.outputs.table.read_bytes()
    assert whole.count(b"\n") > 1
    header, _, rows = whole.partition(b"\n")
    damaged = {
        "empty": b"",
        "cut": b"\t".join(whole.split(b"\t")[:-3]),
        "row": header + b"\n" + rows.partition(b"\n")[2],
        "latin": whole.replace(b"n/a", b"\xe4"),
    }[damage]
    assert damaged != whole
    before = table_rows(derivatives(done) / batch.LESIONS)
    scan.outputs.table.write_bytes(damaged)
    found, _ = batch.run(batch.find([done]), BatchSettings(EVERY))
    assert statuses(found) == [DONE, SKIPPED, SKIPPED]
    assert scan.outputs.table.read_bytes() == whole
    assert table_rows(derivatives(done) / batch.LESIONS) == before


@pytest.mark.parametrize("name", [batch.SCANS, batch.LESIONS])
def test_a_foreign_table_is_not_replaced_and_said(name, done):
    table = derivatives(done) / name
    table.write_text("subject\tage\n1\t40\n")
    with pytest.raises(DataError, match=rf"{name}: .*it has no column '\w+'\); remove it"):
        batch.run(batch.find([done]), BatchSettings(EVERY))
    assert table.read_text() == "subject\tage\n1\t40\n"


def test_a_lesion_table_that_cannot_be_read_or_a_report_has_the_scan_segmented_anew(done):
    bundle, _ = segment.opened(EVERY)
    one, two, _ = batch.find([done])
    one.outputs.table.write_bytes(bytes(40))
    assert batch.kept(one, EVERY, bundle) is None
    told = json.loads(two.outputs.sidecar.read_text())
    two.outputs.centerline.touch()
    for file in (two.outputs.sidecar, two.outputs.pmap_sidecar):
        told["Files"] = [*told["Files"], two.outputs.centerline.name]
        file.write_text(json.dumps(told))
    assert batch.kept(two, EVERY, bundle) is not None
    assert batch.kept(two, replace(EVERY, qc=Path("qc")), bundle) is None


def test_folders_above_stay_whole_in_errors():
    (scan,) = batch.find([Path("../data/x.nii.gz")])
    assert batch._failed(scan, DataError("../other/x: bad")).error == "../other/x: bad"


def test_a_scan_that_fails_is_told_at_once_and_in_the_table_and_is_tried_again(done, caplog):
    (done / NAMES[1]).write_bytes(b"truncated")
    (done / "sub-00" / "anat").mkdir(parents=True)
    (done / "sub-00/anat/sub-00_T2w.nii.gz").symlink_to("not fetched")
    told: list[tuple[int, int, int]] = []
    found, _ = batch.run(
        batch.find([done]),
        BatchSettings(EVERY),
        lambda *now: told.append((*now, len(caplog.records))),
    )
    assert statuses(found) == [FAILED, SKIPPED, FAILED, SKIPPED]
    assert told == [(1, 2, 1), (2, 2, 2)]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
    table = table_rows(derivatives(done) / batch.SCANS)
    assert [row["status"] for row in table] == statuses(found)
    assert [row["mask"] == "n/a" for row in table] == [True, False, True, False]
    for row in (table[0], table[2]):
        assert row["error"] not in ("", "n/a")
        assert str(done) not in row["error"]
    assert {row["scan"] for row in table_rows(derivatives(done) / batch.LESIONS)} == {
        NAMES[0],
        NAMES[2],
    }
    copies(done / NAMES[0], done / NAMES[1])
    (done / "sub-00/anat/sub-00_T2w.nii.gz").unlink()
    found, _ = batch.run(batch.find([done])[:2], BatchSettings(EVERY))
    assert statuses(found) == [SKIPPED, SKIPPED]


def test_patterns_choose_scans_by_their_paths_and_the_rows_of_the_others_stay(done, caplog):
    caplog.set_level("INFO")
    before = [table_rows(derivatives(done) / name) for name in (batch.SCANS, batch.LESIONS)]
    chosen = BatchSettings(EVERY, include="^sub-01/", exclude="run-2_")
    found, _ = batch.run(batch.find([done]), chosen)
    assert [scan.name for scan in found] == [NAMES[0]]
    assert "2 of 3 scans left out by -include and -exclude" in caplog.messages
    after = [table_rows(derivatives(done) / name) for name in (batch.SCANS, batch.LESIONS)]
    assert after == [[{**before[0][0], "status": SKIPPED}, *before[0][1:]], before[1]]
    shutil.rmtree(done / "sub-02")
    shutil.rmtree(derivatives(done) / "sub-02")
    batch.run(batch.find([done]), chosen)
    assert [row["scan"] for row in table_rows(derivatives(done) / batch.SCANS)] == list(NAMES[:2])
    with pytest.raises(UsageError, match=r"leave none of 2 scans, the first of them sub-01/anat"):
        batch.run(batch.find([done]), BatchSettings(EVERY, include="sub-1"))
    with pytest.raises(UsageError, match=r"-include \(\?<=a\+\)b: not a regular expression"):
        BatchSettings(EVERY, include="(?<=a+)b")
    with pytest.raises(UsageError, match=r"-exclude \(: not a regular expression"):
        BatchSettings(EVERY, exclude="(")


@pytest.mark.parametrize("given_up", [False, True])
def test_a_scan_that_another_process_is_at_comes_last_and_is_waited_for(
    given_up, done, caplog, monkeypatch
):
    caplog.set_level("INFO")
    monkeypatch.setattr(batch, "PATIENCE_S", 0.2 if given_up else 20.0)
    for scan in batch.find([done])[:2]:
        scan.outputs.labels.unlink()
    first = batch.find([done])[0]
    lock = FileLock(first.outputs.mask.with_name(".sub-01_run-1_label-L_mask.lock"))
    lock.acquire()

    def report(done: int, total: int) -> None:
        if (done, total) == (2, 2) and not given_up:
            lock.release()

    found, _ = batch.run(batch.find([done]), BatchSettings(EVERY), report)
    lock.release()
    assert statuses(found) == [FAILED if given_up else DONE, DONE, SKIPPED]
    assert "1 scan at work elsewhere: waiting" in caplog.messages
    if given_up:
        assert "another process has been segmenting it" in found[first].error


def test_a_run_that_was_interrupted_is_gone_on_with_and_its_tables_are_complete(done):
    folder = derivatives(done)
    whole = table_rows(folder / batch.LESIONS)
    for name in (batch.SCANS, batch.LESIONS):
        (folder / name).unlink()
    for scan in batch.find([done])[:2]:
        scan.outputs.mask.unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.run(batch.find([done]), BatchSettings(EVERY), stop)
    assert not (folder / batch.SCANS).exists()
    found, _ = batch.run(batch.find([done]), BatchSettings(EVERY))
    assert statuses(found) == [SKIPPED, DONE, SKIPPED]
    assert [row["status"] for row in table_rows(folder / batch.SCANS)] == statuses(found)
    assert table_rows(folder / batch.LESIONS) == whole


def test_what_a_killed_process_left_of_a_scan_is_removed(done):
    first = batch.find([done])[0].outputs
    first.mask.unlink()
    folder = first.mask.parent
    left = [folder / ".tmp-0a1b2c3d-sub-01_run-1_label-L_mask.nii.gz"]
    left += [folder / ".sub-01_run-1_label-L_mask.lock"]
    others = folder / ".tmp-0a1b2c3d-sub-01_run-2_label-L_mask.nii.gz"
    for path in (*left, others):
        path.touch()
    found, _ = batch.run(batch.find([done]), BatchSettings(EVERY))
    assert statuses(found) == [DONE, SKIPPED, SKIPPED]
    assert list(done.rglob(".*")) == [others]


@pytest.mark.filterwarnings("default")  # libraries of Dask warn
@pytest.mark.slow
def test_workers_of_a_cluster_need_not_be_in_the_same_folder(done, own_bundle, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(done.parent)
    settings = replace(EVERY, bundle=f"./{own_bundle.name}")
    with worker_tasks.cluster() as made:
        with distributed.Client(made) as client:
            client.run(os.chdir, "/")
        scans = batch.find([Path("data")])
        (done / NAMES[1]).write_bytes(b"truncated")
        found, tables = batch.run(scans, BatchSettings(settings, jobs=made.scheduler_address))
    assert statuses(found) == [DONE, FAILED, DONE]
    assert tables[0] == Path("data/derivatives/sct_lesion_losses/segmented_scans.tsv")
    assert table_rows(tables[0])[0]["bundle"] == own_bundle.name
    assert str(done) not in tables[0].read_text()


def test_outputs_are_named_as_asked(tmp_path):
    copies(Path(__file__), *(tmp_path / name for name in NAMES[1:]))
    out = tmp_path / "out"
    for asked, tails in (
        (False, ["sub-01_run-2_T2w_lesionseg.nii.gz", "sub-02_ses-1_T2w_lesionseg.nii.gz"]),
        (None, ["sub-01_run-2_label-L_mask.nii.gz", "sub-02_ses-1_label-L_mask.nii.gz"]),
    ):
        folders = [(out / name).parent for name in NAMES[1:]]
        found = batch.find([tmp_path], folder=out, derivatives=asked)
        assert [one.outputs.mask for one in found] == [
            folder / tail for folder, tail in zip(folders, tails, strict=True)
        ]
        assert [one.derivative for one in found] == [asked is None] * 2
    files = batch.find([tmp_path / name for name in NAMES[1:]], folder=out, derivatives=True)
    assert [one.outputs for one in files] == [one.outputs for one in found]
    with pytest.raises(UsageError, match=r"t2\.nii\.gz: not the name of a BIDS scan"):
        batch.find([Path("t2.nii.gz")], derivatives=True)
    with pytest.raises(DataError, match="no T2star or T2starw scan"):
        batch.find([tmp_path], contrast="t2s")


def test_a_stored_pmap_with_a_bids_name_is_cut_again_with_what_lies_beside_it(done, caplog):
    scan, tuned = batch.find([done])[0], store.load("default").threshold
    again = rethreshold(scan.outputs.pmap, tuned, default_outputs(scan.outputs.pmap, tuned, done))
    assert caplog.messages == []
    told = json.loads(again.written[-1].read_text())
    assert again.written[0].name == f"sub-01_run-1_label-L_thr{tuned:g}.nii.gz"
    assert told["Bundle"] == "default"
    assert again.written[0].read_bytes() == scan.outputs.mask.read_bytes()
    assert told["ScanSHA256"] == json.loads(scan.outputs.sidecar.read_text())["ScanSHA256"]


PROGRAM = Path(sys.executable).with_name("sct_deepseg_lesion_tuned")


def start(dataset: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, "-i", dataset, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(err: str) -> list[str]:
    """Names of the scans that a command says it segmented."""
    return re.findall(r"^(sub-\S+): (?:\d+|no) lesion", err, re.MULTILINE)


@pytest.mark.slow
def test_two_batches_over_one_folder_segment_every_scan_once(scans, tmp_path):
    names = [f"sub-{n:02d}/anat/sub-{n:02d}_T2w.nii.gz" for n in range(1, 9)]
    copies(scans[0], *(tmp_path / name for name in names))
    both = [start(tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=600)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(finished("".join(said))) == [Path(name).name for name in names]
    table = table_rows(derivatives(tmp_path) / batch.SCANS)
    assert [row["scan"] for row in table] == names
    assert {row["status"] for row in table} <= {DONE, SKIPPED}
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.slow
def test_a_killed_worker_costs_a_batch_of_40_a_retry_and_the_next_run_does_nothing(scans, tmp_path):
    names = [f"sub-{n:02d}/anat/sub-{n:02d}_T2w.nii.gz" for n in range(1, 41)]
    copies(scans[0], *(tmp_path / name for name in names))
    with start(tmp_path, "-jobs", "2") as process:
        folder = derivatives(tmp_path)
        while len(masks(folder)) < 20:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(worker_of(process.pid), signal.SIGKILL)
        _, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    assert "ERROR" not in err
    table = table_rows(folder / batch.SCANS)
    assert [row["scan"] for row in table] == names
    assert {row["status"] for row in table} <= {DONE, SKIPPED}
    assert len({(row["lesions"], row["volume_mm3"]) for row in table}) == 1
    assert len(table_rows(folder / batch.LESIONS)) == sum(int(row["lesions"]) for row in table)
    assert len(set(finished(err))) >= 39  # a finished scan may have gone with its worker
    assert not list(tmp_path.rglob(".*"))
    before = masks(folder)
    with start(tmp_path, "-jobs", "2") as again:
        _, err = again.communicate(timeout=600)
    assert (again.returncode, err) == (0, "40 of 40 scans done already\n")
    assert masks(folder) == before


def worker_of(parent: int) -> int:
    """Process number of a worker of a command."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise AssertionError("no worker")
