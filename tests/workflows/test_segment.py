"""Segmenting whole scans with the shipped bundle: what is written, said and never lost."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import sct_graph
from geometry import affine_of
from small_data import contents, save_filtering, stored

from sct_lesion_losses.bundle import store
from sct_lesion_losses.errors import CenterlineError, OutputError, UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti, outputs
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.phantom.dataset import centerline_mask, write_nifti
from sct_lesion_losses.workflows import segment
from sct_lesion_losses.workflows.rethreshold import rethreshold

PRIVATE = b"DOE^JANE"


@pytest.fixture(scope="module")
def scan(simulated, tmp_path_factory) -> Path:
    """A small simulated scan with its centerline, personal data in every text of its header."""
    folder = tmp_path_factory.mktemp("scan")
    image = nib.Nifti1Image(simulated.image, simulated.grid.affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = PRIVATE
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", PRIVATE))
    nib.save(image, folder / "t2.nii.gz")
    line = centerline_mask(simulated.centerline, simulated.grid)
    write_nifti(folder / "line.nii.gz", line, simulated.grid)
    return folder / "t2.nii.gz"


def run(scan: Path, folder: Path, **settings: object) -> dict[str, object]:
    """Segment with the given centerline; the sidecar."""
    line = scan.with_name("line.nii.gz")
    chosen = segment.SegmentSettings(
        inference=InferenceSettings(centerline="file"), centerline_file=line, **settings
    )
    result = segment.segment(scan, chosen, outputs.for_scan(scan, folder=folder))
    described: dict[str, object] = json.loads(result.written[-1].read_text())
    return described


def test_an_empty_mask_is_said_to_be_empty_with_the_highest_probability(
    scan, tmp_path, caplog, monkeypatch
):
    pmap = predict.pmap
    monkeypatch.setattr(
        predict, "pmap", lambda *args, **rest: pmap(*args, **rest) * np.float32(0.5)
    )
    told = run(scan, tmp_path, threshold=0.9)
    assert told["LesionCount"] == 0
    assert 0 < told["HighestProbability"] <= 0.5
    assert "the mask is empty; highest probability" in caplog.text
    assert any("the mask is empty" in text for text in told["Warnings"])


def test_a_threshold_that_is_not_the_tuned_one_is_said(scan, tmp_path, caplog):
    run(scan, tmp_path)
    assert "the one the bundle" not in caplog.text
    told = run(scan, tmp_path, threshold=0.123)
    assert "threshold 0.123 instead of" in caplog.text
    assert any("0.123" in text for text in told["Warnings"])


@pytest.mark.parametrize(("contrast", "doubted"), [("t2", 0), ("t2_ax", 0), ("t2s", 1)])
def test_a_contrast_that_the_bundle_is_not_for_is_said(contrast, doubted, scan, tmp_path):
    inference = InferenceSettings(centerline="embedded", contrast=contrast)
    settings = segment.SegmentSettings(inference=inference, pmap=True)
    result = segment.segment(scan, settings, outputs.for_scan(scan, folder=tmp_path))
    assert sum("not to be trusted on T2*w" in text for text in result.warnings) == doubted
    for file in ("t2_lesionseg.json", "t2_lesionseg_pmap.json"):
        told = json.loads((tmp_path / file).read_text())["Warnings"]
        assert sum("'default' is for T2w scans" in text for text in told) == doubted


def test_the_entry_of_the_page_needs_no_file_of_the_pmap(scan, tmp_path):
    told = run(scan, tmp_path, page_entry=True)
    entry = json.loads((tmp_path / "t2_lesionseg_page.json").read_text())
    assert (entry["lesions"], entry["threshold"]) == (told["LesionCount"], told["Threshold"])
    assert max(entry["curve"]["lesions"]) >= entry["lesions"] > 0
    assert entry["warnings"] == told["Warnings"]
    assert not entry["stored"]
    assert not (tmp_path / entry["pmap"]).exists()
    assert PRIVATE.decode() not in json.dumps(entry)


@pytest.fixture
def filtering(tmp_path) -> str:
    """The bundle bce at threshold 0.05, with a filter of lesions of at least 30 mm³."""
    folder = tmp_path / "bundles" / "filtering"
    save_filtering(folder, store.load("bce"), peak=0.4, volume_mm3=30.0, threshold=0.05)
    return str(folder)


def test_the_filter_of_lesions_is_applied_and_said_unless_it_is_turned_off(
    scan, tmp_path, filtering, caplog
):
    caplog.set_level("INFO")
    told = run(scan, tmp_path / "all", bundle=filtering, lesion_point=False, pmap=True)
    tuned = {"LeastPeak": 0.4, "LeastVolumeMm3": 30.0}
    assert (told["LesionFilter"], told["TunedLesionFilter"]) == (None, tuned)
    assert "dropped" not in caplog.text
    beside = json.loads((tmp_path / "all" / "t2_lesionseg_pmap.json").read_text())
    of_mask = {"Threshold", "LesionFilter", "LesionCount", "LesionVolumeMm3"}
    assert beside.keys().isdisjoint(of_mask)
    assert {key: told[key] for key in beside if key != "Warnings"} == {
        key: value for key, value in beside.items() if key != "Warnings"
    }
    kept = run(scan, tmp_path / "kept", bundle=filtering, lesions=True)
    every, some = (stored(tmp_path / name / "t2_lesionseg.nii.gz") > 0 for name in ("all", "kept"))
    wanted = by_hand(every, stored(tmp_path / "all" / "t2_lesionseg_pmap.nii.gz"), scan)
    np.testing.assert_array_equal(some, wanted)
    removed = told["LesionCount"] - kept["LesionCount"]
    assert kept["LesionFilter"] == {**tuned, "LesionsRemoved": removed}
    assert 0 < removed < told["LesionCount"]
    said = (
        f"the lesion filter (chosen at threshold 0.05) dropped {removed} of {told['LesionCount']} "
    )
    assert said in caplog.text
    run(scan, tmp_path / "kept", bundle=filtering, lesion_point=True)
    np.testing.assert_array_equal(stored(tmp_path / "kept" / "t2_lesionseg.nii.gz") > 0, wanted)
    with pytest.raises(UsageError, match="has no second operating point"):
        run(scan, tmp_path / "none", bundle="bce", lesion_point=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("lesion_point", [None, False])
@pytest.mark.parametrize("threshold", [0.05, 0.2])
def test_a_stored_pmap_gives_the_mask_that_segmenting_gives(
    scan, tmp_path, filtering, threshold, lesion_point
):
    told = run(
        scan, tmp_path, bundle=filtering, threshold=threshold, lesion_point=lesion_point, pmap=True
    )
    pmap = tmp_path / "t2_lesionseg_pmap.nii.gz"
    mask = stored(tmp_path / "t2_lesionseg.nii.gz")
    if lesion_point is None:
        plain = stored(pmap) >= np.float32(threshold)
        np.testing.assert_array_equal(mask > 0, by_hand(plain, stored(pmap), scan))
    # What another run leaves beside it says nothing of this p-map.
    run(scan, tmp_path, threshold=0.9)
    names = outputs.for_scan(scan, folder=tmp_path / "again")
    again = rethreshold(pmap, threshold, names, lesion_point=lesion_point)
    np.testing.assert_array_equal(stored(names.mask), mask)
    assert json.loads(again.written[-1].read_text())["LesionFilter"] == told["LesionFilter"]
    alone = tmp_path / "alone"
    run(scan, alone, bundle=filtering, threshold=0.0)
    rethreshold(alone / pmap.name, threshold, names, lesion_point=lesion_point)
    np.testing.assert_array_equal(stored(names.mask), mask)


def by_hand(mask: np.ndarray, pmap: np.ndarray, scan: Path) -> np.ndarray:
    """Lesions of a mask of at least 30 mm³ and a peak of at least 0.4."""
    voxel_mm3 = Grid(mask.shape, nib.load(scan).affine).voxel_volume_mm3
    labels, wanted = lesionwise.components(mask), np.zeros_like(mask)
    for number in range(1, labels.max() + 1):
        one = labels == number
        if one.sum() * voxel_mm3 >= 30 and pmap[one].max() >= np.float32(0.4):
            wanted |= one
    return wanted


def test_files_of_an_earlier_run_are_named_and_a_pmap_alone_leaves_them(scan, tmp_path, caplog):
    run(scan, tmp_path, lesions=True, pmap=True)
    assert "earlier run" not in caplog.text
    told = run(scan, tmp_path)
    [said] = [text for text in told["Warnings"] if "earlier run" in text]
    for name in ("_pmap.nii.gz", "_labels.nii.gz", "_lesions.tsv", "_lesions.json"):
        assert f"t2_lesionseg{name}" in said
    before = (tmp_path / "t2_lesionseg.json").read_bytes()
    run(scan, tmp_path, threshold=0.0)
    assert (tmp_path / "t2_lesionseg.json").read_bytes() == before
    assert (tmp_path / "t2_lesionseg_pmap.json").exists()


def test_the_table_holds_the_lesions_of_the_mask_and_no_output_the_header_or_a_folder(
    scan, tmp_path
):
    every = {"lesions": True, "pmap": True, "figure": True, "keep_centerline": True}
    told = run(scan, tmp_path, threshold=0.2, **every)
    names, *rows = (tmp_path / "t2_lesionseg_lesions.tsv").read_text().splitlines()
    first = dict(zip(names.split("\t"), rows[0].split("\t"), strict=True))
    assert {first["side"]} <= {"left", "right", "both"}
    assert 0 < float(first["from_top_mm"]) < 200
    labels, mask = (
        np.asarray(nib.load(tmp_path / f"t2_lesionseg{name}.nii.gz").dataobj)
        for name in ("_labels", "")
    )
    assert len(rows) == told["LesionCount"] == labels.max() >= 1
    np.testing.assert_array_equal(labels > 0, mask > 0)
    volume = sum(float(row.split("\t")[1]) for row in rows)
    assert volume == pytest.approx(told["LesionVolumeMm3"], rel=1e-3)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = nib.load(path).to_bytes()
        for private in (PRIVATE, str(scan.parent).encode(), str(tmp_path).encode()):
            assert private not in content, path.name


@pytest.mark.parametrize(
    ("axes", "signs"), [((2, 0, 1), (1, -1, -1)), ((1, 2, 0), (-1, 1, -1)), ((0, 1, 2), (1, 1, 1))]
)
def test_the_order_of_the_stored_axes_does_not_matter(axes, signs, scan, tmp_path):
    run(scan, tmp_path, threshold=0.0)
    expected = nib.load(tmp_path / "t2_lesionseg_pmap.nii.gz")
    order = np.column_stack([axes, signs])
    (tmp_path / "turned").mkdir()
    for name in ("t2.nii.gz", "line.nii.gz"):
        image = nib.as_closest_canonical(nib.load(scan.with_name(name)))
        nib.save(image.as_reoriented(order), tmp_path / "turned" / name)
    run(tmp_path / "turned" / "t2.nii.gz", tmp_path / "out", threshold=0.0)
    found = nib.as_closest_canonical(nib.load(tmp_path / "out" / "t2_lesionseg_pmap.nii.gz"))
    np.testing.assert_allclose(
        found.get_fdata(), nib.as_closest_canonical(expected).get_fdata(), atol=2e-4
    )


@pytest.mark.parametrize(
    ("shape", "spacing", "shear"),
    [
        ((320, 320, 260), (0.1, 0.1, 0.1), 0.0),
        ((10, 10, 12), (10.0, 10.0, 10.0), 0.0),
        ((60, 60, 1), (0.8, 0.8, 3.0), 0.0),
        ((60, 60, 40), (0.8, 0.8, 0.8), 0.2),
    ],
    ids=["0.1 mm", "10 mm", "one slice", "sheared"],
)
def test_odd_grids_get_a_mask_of_their_own_shape(shape, spacing, shear, tmp_path):
    rng = np.random.default_rng(0)
    grid = Grid(shape, affine_of((0, 1, 2), (-1, 1, 1), spacing, shear=shear))
    line = np.zeros(shape, np.uint8)
    line[shape[0] // 2, shape[1] // 2] = 1
    write_nifti(tmp_path / "t2.nii.gz", rng.integers(0, 900, shape).astype(np.int16), grid)
    write_nifti(tmp_path / "line.nii.gz", line, grid)
    run(tmp_path / "t2.nii.gz", tmp_path / "out")
    mask = nib.load(tmp_path / "out" / "t2_lesionseg.nii.gz")
    assert mask.shape == shape
    np.testing.assert_allclose(mask.affine, grid.affine, atol=1e-5)


def test_a_mask_that_cannot_be_written_leaves_every_file_as_it_was(scan, tmp_path, monkeypatch):
    run(scan, tmp_path, lesions=True, pmap=True, threshold=0.3)
    before = contents(tmp_path)
    write = nifti.write

    def full(path: Path, *args: object) -> None:
        if path.name == "t2_lesionseg.nii.gz":
            raise OutputError(f"{path}: cannot write this file (No space left on device)")
        write(path, *args)

    monkeypatch.setattr(nifti, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        run(scan, tmp_path, lesions=True, pmap=True, figure=True, threshold=0.6)
    assert contents(tmp_path) == before


def test_a_mask_of_the_other_extension_keeps_its_sidecar(scan, tmp_path):
    (tmp_path / "t2_lesionseg.nii").write_bytes(b"a mask of t2.nii")
    with pytest.raises(OutputError, match=r"json belongs to t2_lesionseg\.nii"):
        run(scan, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["t2_lesionseg.nii"]


def test_an_error_about_the_cord_names_the_scan(tmp_path):
    noise = np.random.default_rng(0).integers(0, 900, (60, 60, 40)).astype(np.int16)
    write_nifti(tmp_path / "t2.nii.gz", noise, Grid(noise.shape, np.diag([-1.0, 1.0, 2.0, 1.0])))
    settings = segment.SegmentSettings(inference=InferenceSettings(centerline="embedded"))
    with pytest.raises(CenterlineError, match=r"^t2\.nii\.gz: no spinal cord was found"):
        segment.segment(tmp_path / "t2.nii.gz", settings, outputs.for_scan(tmp_path / "t2.nii.gz"))


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 0.0, "lesions": True},
        {"threshold": 0.0, "lesion_point": True},
        {"threshold": 0.0, "qc": Path("qc")},
        {"bundle": "sct", "sct_rule": True, "inference": InferenceSettings(precision="bfloat16")},
        {"bundle": "sct", "sct_rule": True, "inference": InferenceSettings(engine="openvino")},
    ],
)
def test_options_that_would_be_dropped_are_refused(settings):
    with pytest.raises(UsageError):
        segment.SegmentSettings(**settings)


def command(scan: Path, folder: Path, *more: str) -> list[str]:
    program = Path(sys.executable).with_name("sct_deepseg_lesion_tuned")
    line = scan.with_name("line.nii.gz")
    return [str(program), "-i", str(scan), "-file_centerline", str(line), "-ofolder", str(folder),
            *more]  # fmt: skip


@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.2, 0.4])
def test_a_command_told_to_stop_while_it_starts_does_not_say_it_is_done(after_s, scan, tmp_path):
    with subprocess.Popen(
        command(scan, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(after_s)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    # -15: before the first line of Python nobody handles the signal. 0: the work was done already.
    done = (tmp_path / "t2_lesionseg.nii.gz").exists()
    assert process.returncode in ((143, -15, 0) if done else (143, -15))


def test_a_batch_names_the_scan_of_every_warning(scan, tmp_path):
    noise = np.full((60, 60, 40), 7, np.int16)
    write_nifti(tmp_path / "flat.nii.gz", noise, Grid(noise.shape, np.diag([-1.0, 1.0, 2.0, 1.0])))
    done = subprocess.run(
        [command(scan, tmp_path)[0], "-i", str(tmp_path / "flat.nii.gz"), str(scan),
         "-centerline", "embedded", "-thr", "0.123", "-ofolder", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert lines
    assert all("flat.nii.gz" in line or "t2.nii.gz" in line for line in lines)
    assert str(tmp_path) not in done.stderr
    assert "1 of 2 scans failed:" in done.stderr


@pytest.mark.parametrize(("rule", "engine"), [(True, "onnxruntime"), (False, "auto")])
def test_the_rule_of_sct_is_computed_in_onnx_runtime(monkeypatch, rule, engine):
    asked = []

    def opened(*arguments):
        asked.append(arguments)
        return None, None

    monkeypatch.setattr(predict, "opened", opened)
    segment.opened(segment.SegmentSettings(bundle="sct", sct_rule=rule))
    assert asked == [("sct", "t2", engine, "float32")]


@pytest.mark.parametrize(
    ("contrast", "threshold", "tuned", "said"),
    [
        ("t2", 0.05, 0.05, "threshold 0.05, published (Hussein et al. 2023, Table 2"),
        ("t2_ax", 0.5, None, "threshold 0.5; the bundle 'sct' was never tuned to scans"),
    ],
)
def test_scts_model_is_cut_at_the_published_threshold_where_there_is_one(
    scan, tmp_path, monkeypatch, caplog, contrast, threshold, tuned, said
):
    caplog.set_level("INFO")
    sct = sct_graph.install(tmp_path / "sct", sct_graph.make((2, 4)), contrast)
    monkeypatch.setenv("SCT_DIR", str(sct))
    predict.opened.cache_clear()
    settings = segment.SegmentSettings(
        bundle="sct",
        inference=InferenceSettings(centerline="file", contrast=contrast),
        centerline_file=scan.with_name("line.nii.gz"),
        pmap=True,
    )
    result = segment.segment(scan, settings, outputs.for_scan(scan, folder=tmp_path / "out"))
    np.testing.assert_array_equal(result.mask, result.pmap >= np.float32(threshold))
    assert (result.threshold, result.tuned_threshold) == (threshold, tuned)
    assert said in caplog.text
    ruled = replace(settings, pmap=False, sct_rule=True)
    result = segment.segment(scan, ruled, outputs.for_scan(scan, folder=tmp_path / "ruled"))
    assert (result.threshold, result.tuned_threshold) == (None, None)
