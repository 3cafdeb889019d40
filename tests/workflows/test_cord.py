"""Lesions cut to a cord mask: the mask, what is told of it, and the scans of a batch."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from small_data import copies, save_filtering, script, stored, table_rows

from sct_lesion_losses.bundle import store
from sct_lesion_losses.cli import segment as command
from sct_lesion_losses.errors import DataError, SctError
from sct_lesion_losses.images import nifti, outputs
from sct_lesion_losses.phantom.dataset import write_nifti
from sct_lesion_losses.report.sidecar import Segmentation
from sct_lesion_losses.sct import mask as sct_mask
from sct_lesion_losses.workflows import batch, segment
from sct_lesion_losses.workflows.batch import DONE, FAILED, SKIPPED, BatchSettings
from sct_lesion_losses.workflows.rethreshold import rethreshold
from sct_lesion_losses.workflows.segment import SegmentSettings

EDGES = ndimage.generate_binary_structure(3, 2)
CUT = SegmentSettings(
    "bce", 0.05, lesion_point=False, lesions=True, pmap=True, cord=Path("cord.nii.gz")
)


@pytest.fixture(scope="module")
def folder(simulated, tmp_path_factory) -> Path:
    """A small simulated scan, and the right half of its cord, cut off at two thirds."""
    place = tmp_path_factory.mktemp("scan")
    write_nifti(place / "t2.nii.gz", simulated.image, simulated.grid)
    rpi, turn = simulated.grid.to_rpi()
    cord = turn.apply(simulated.cord).copy()
    cord[round(np.argwhere(cord)[:, 0].mean()) :] = 0
    cord[:, :, 2 * rpi.shape[2] // 3 :] = 0
    write_nifti(place / "cord.nii.gz", turn.undo(cord), simulated.grid)
    return place


@pytest.fixture(scope="module")
def whole(folder) -> Segmentation:
    """The scan segmented without the cord mask."""
    names = outputs.for_scan(folder / "t2.nii.gz", folder=folder / "whole")
    return segment.segment(folder / "t2.nii.gz", replace(CUT, cord=None), names)


def test_lesions_keep_what_is_inside_and_what_is_outside_is_counted(
    folder, whole, tmp_path, caplog
):
    caplog.set_level("INFO")
    cord = stored(folder / "cord.nii.gz") > 0
    assert whole.pmap is not None
    every = whole.pmap >= np.float32(0.05)
    parts, count = ndimage.label(every, EDGES)
    sides = [{bool(side) for side in cord[parts == k]} for k in range(1, count + 1)]
    removed, cut = sides.count({False}), sides.count({False, True})
    assert removed > 0
    assert cut > 0
    names = outputs.for_scan(folder / "t2.nii.gz", folder=tmp_path)
    result = segment.segment(folder / "t2.nii.gz", replace(CUT, cord=folder / "cord.nii.gz"), names)
    np.testing.assert_array_equal(stored(names.mask) > 0, every & cord)
    np.testing.assert_array_equal(stored(names.pmap), np.where(cord, whole.pmap, 0))
    told = json.loads(names.sidecar.read_text())
    voxel_mm3 = float(abs(np.linalg.det(nib.load(names.mask).affine)))
    outside_mm3 = np.count_nonzero(every & ~cord) * voxel_mm3
    assert told["OutsideCord"] == {
        "LesionsRemoved": removed,
        "LesionsCut": cut,
        "RemovedMm3": pytest.approx(outside_mm3, abs=1e-3),
    }
    assert told["LesionCount"] == ndimage.label(every & cord, EDGES)[1]
    assert len(table_rows(names.table)) == told["LesionCount"] == stored(names.labels).max()
    volume_mm3 = sum(float(row["volume_mm3"]) for row in table_rows(names.table))
    assert all(0 < float(row["cord_share"]) <= 1 for row in table_rows(names.table))
    assert volume_mm3 == pytest.approx(np.count_nonzero(every & cord) * voxel_mm3, rel=1e-3)
    assert result.cord is not None
    for file in (names.sidecar, names.pmap_sidecar):
        entries = json.loads(file.read_text())
        assert (entries["CordMask"], entries["CordMaskSHA256"]) == (
            "cord.nii.gz",
            result.cord.sha256,
        )
    said = f"outside the cord mask cord.nii.gz: {removed} of {count} predicted lesions, and parts"
    assert said in caplog.text
    assert f"{removed} more outside the cord mask" in result.sentence


def test_a_stored_pmap_is_cut_to_the_cord_as_its_scan_is(folder, whole, tmp_path):
    names = outputs.for_scan(folder / "t2.nii.gz", folder=tmp_path / "cut")
    segment.segment(folder / "t2.nii.gz", replace(CUT, cord=folder / "cord.nii.gz"), names)
    told = json.loads(names.sidecar.read_text())
    again = outputs.for_scan(folder / "t2.nii.gz", folder=tmp_path / "again")
    pmap = next(path for path in whole.written if path.name.endswith("_pmap.nii.gz"))
    rethreshold(pmap, 0.05, again, cord=folder / "cord.nii.gz", lesion_point=False, lesions=True)
    same = ("CordMask", "CordMaskSHA256", "OutsideCord", "LesionCount", "LesionVolumeMm3")
    described = json.loads(again.sidecar.read_text())
    assert {key: described[key] for key in same} == {key: told[key] for key in same}
    np.testing.assert_array_equal(stored(again.mask), stored(names.mask))
    known = ("lesion", "volume_mm3", "highest_p")
    kept = [
        [{key: row[key] for key in known} for row in table_rows(each.table)]
        for each in (again, names)
    ]
    assert kept[0] == kept[1]
    # One that was cut already tells of the cord it was cut to.
    rethreshold(names.pmap, 0.05, again, lesion_point=False)
    np.testing.assert_array_equal(stored(again.mask), stored(names.mask))
    assert json.loads(again.sidecar.read_text())["CordMaskSHA256"] == told["CordMaskSHA256"]


def test_lesions_are_cut_first_and_filtered_by_what_is_left_of_them(folder, tmp_path, whole):
    assert whole.pmap is not None
    every, cord = whole.pmap >= np.float32(0.05), stored(folder / "cord.nii.gz") > 0
    lesions, parts = ndimage.label(every, EDGES)[0], ndimage.label(every & cord, EDGES)[0]
    voxel_mm3 = float(abs(np.linalg.det(nib.load(folder / "t2.nii.gz").affine)))
    # The smallest part has too little volume inside the cord; its lesion has enough in all.
    sizes = np.bincount(parts.ravel())[1:]
    smallest = parts == 1 + np.argmin(sizes)
    least = (sizes.min() + 0.5) * voxel_mm3
    assert np.count_nonzero(lesions == lesions[smallest][0]) * voxel_mm3 > least
    save_filtering(tmp_path / "large", store.load("bce"), 0.05, least, threshold=0.05)
    names = outputs.for_scan(folder / "t2.nii.gz", folder=tmp_path)
    settings = replace(CUT, bundle=str(tmp_path / "large"), threshold=None, lesion_point=None)
    segment.segment(folder / "t2.nii.gz", replace(settings, cord=folder / "cord.nii.gz"), names)
    np.testing.assert_array_equal(stored(names.mask) > 0, every & cord & ~smallest)
    assert json.loads(names.sidecar.read_text())["LesionFilter"]["LesionsRemoved"] == 1


def test_scans_of_a_batch_find_their_cord_masks_and_are_segmented_anew_with_another(
    folder, tmp_path
):
    data, labels = tmp_path / "data", tmp_path / "data" / "derivatives" / "labels"
    copies(folder / "t2.nii.gz", *(data / f"sub-0{k}/anat/sub-0{k}_T2w.nii.gz" for k in (1, 2, 3)))
    labels.mkdir(parents=True)
    cords = [
        labels / "sub-01" / "anat" / "sub-01_T2w_label-SC_seg.nii.gz",
        labels / "sub-02" / "anat" / "sub-02_label-SC_seg.nii.gz",
    ]
    found = batch.find([data])
    with pytest.raises(DataError, match=r"no cord mask of 3 scans.*_T2w_label-SC_seg\.nii\.gz"):
        batch.with_labels(found, "cord", labels)
    copies(folder / "cord.nii.gz", *cords)
    settings = BatchSettings(replace(CUT, cord=None, pmap=False))
    given = batch.with_labels(found, "cord", labels)
    outcomes, tables = batch.run(given, settings)
    assert [outcome.status for outcome in outcomes.values()] == [DONE, DONE, FAILED]
    first, *_, last = table_rows(tables[0])
    cut = json.loads(given[0].outputs.sidecar.read_text())["OutsideCord"]
    assert float(first["outside_mm3"]) == cut["RemovedMm3"] > 0
    assert int(first["outside_lesions"]) == cut["LesionsRemoved"]
    assert last["outside_mm3"] == "n/a"
    missing = outcomes[given[2]].error
    assert "sub-03_T2w_label-SC_seg.nii.gz" in missing
    image = nib.load(cords[0])
    larger = nib.Nifti1Image(ndimage.binary_dilation(image.dataobj).astype(np.uint8), image.affine)
    nib.save(larger, cords[0])
    outcomes, _ = batch.run(given, settings)
    assert [outcome.status for outcome in outcomes.values()] == [DONE, SKIPPED, FAILED]
    outcomes, _ = batch.run(found, settings)  # without cord masks
    assert [outcome.status for outcome in outcomes.values()] == [DONE, DONE, DONE]


def test_a_mask_never_overwrites_its_cord_mask(folder, tmp_path):
    mask = tmp_path / "t2_lesionseg.nii.gz"
    mask.write_bytes((folder / "cord.nii.gz").read_bytes())
    args = ["-i", str(folder / "t2.nii.gz"), "-ofolder", str(tmp_path), "-cord", str(mask)]
    assert command.main(args) == 2
    assert mask.read_bytes() == (folder / "cord.nii.gz").read_bytes()


def fake_sct(root: Path, cord: Path) -> Path:
    """Make an SCT whose command for the cord gives a file."""
    tool = f"""printf '%s ' "$(basename "$0")" "$@" > {root}/called
while [ "$1" != -o ]; do shift; done
cp {cord} "$2\""""
    for name in ("sct_version", "sct_deepseg"):
        script(root / "bin" / name, tool)
    (root / "spinalcordtoolbox").mkdir()
    (root / "spinalcordtoolbox" / "version.txt").write_text("7.4")
    return root


def test_sct_is_asked_for_the_cord(folder, tmp_path, monkeypatch):
    root = fake_sct(tmp_path / "sct", folder / "cord.nii.gz")
    monkeypatch.setenv("SCT_DIR", str(root))
    names = outputs.for_scan(folder / "t2.nii.gz", folder=tmp_path)
    settings = replace(CUT, cord="sct")
    segment.segment(folder / "t2.nii.gz", settings, names)
    assert (root / "called").read_text().startswith("sct_deepseg spinalcord -i")
    told = json.loads(names.sidecar.read_text())
    assert told["CordMask"] == "sct_deepseg spinalcord"
    assert told["OutsideCord"]["LesionsRemoved"] > 0
    bundle, _ = segment.opened(settings)
    before = segment.inference_sha256(bundle, settings)
    (root / "spinalcordtoolbox" / "version.txt").write_text("7.4.1")
    assert segment.inference_sha256(bundle, settings) != before


def test_the_cord_that_sct_drew_is_kept_for_other_commands_and_expected_by_a_batch(
    folder, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("SCT_DIR", str(fake_sct(tmp_path / "sct", folder / "cord.nii.gz")))
    found = batch.find([folder / "t2.nii.gz"], folder=tmp_path / "out")
    settings = BatchSettings(replace(CUT, cord="sct"))
    assert [one.status for one in batch.run(found, settings)[0].values()] == [DONE]
    names = found[0].outputs
    np.testing.assert_array_equal(stored(names.cord), stored(folder / "cord.nii.gz"))
    assert stored(names.cord).dtype == np.uint8
    assert names.cord.name in json.loads(names.sidecar.read_text())["Files"]
    assert [one.status for one in batch.run(found, settings)[0].values()] == [SKIPPED]
    names.cord.unlink()
    assert [one.status for one in batch.run(found, settings)[0].values()] == [DONE]
    mask = stored(names.mask)
    rethreshold(names.pmap, 0.05, names, cord=names.cord, lesion_point=False)
    np.testing.assert_array_equal(stored(names.mask), mask)
    caplog.clear()
    segment.segment(folder / "t2.nii.gz", replace(CUT, cord=names.cord), names)
    assert "from an earlier run" not in caplog.text  # it is of this run: given


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (lambda image: image.slicer[:-1], r"another grid \(shape .*-cord <file>"),
        (lambda image: image.slicer[::-1], r"another grid .*orientation .*-cord <file>"),
    ],
    ids=["shape", "orientation"],
)
def test_a_cord_that_sct_draws_on_another_grid_is_refused(
    folder, tmp_path, monkeypatch, turn, said
):
    nib.save(turn(nib.load(folder / "cord.nii.gz")), tmp_path / "turned.nii.gz")
    monkeypatch.setenv("SCT_DIR", str(fake_sct(tmp_path / "sct", tmp_path / "turned.nii.gz")))
    scan = nifti.read(folder / "t2.nii.gz")
    with pytest.raises(SctError, match=said):
        sct_mask.cord(scan.array, scan.grid)


@pytest.mark.parametrize(
    ("version", "old"),
    [("6.5", True), ("5.8.dev0", True), ("7.4.dev0", False), ("10.0", False), ("git-6", False)],
)
def test_an_sct_that_cannot_segment_the_cord_is_refused_before_any_scan(
    folder, tmp_path, monkeypatch, version, old
):
    root = fake_sct(tmp_path / "sct", folder / "cord.nii.gz")
    (root / "spinalcordtoolbox" / "version.txt").write_text(version)
    monkeypatch.setenv("SCT_DIR", str(root))
    found = batch.find([folder / "t2.nii.gz"], folder=tmp_path / "out")
    if not old:
        batch.require(found, replace(CUT, cord="sct"))
        return
    said = f"SCT {version} has no sct_deepseg spinalcord, expected 7 or newer; give a mask"
    with pytest.raises(SctError, match=said):
        batch.require(found, replace(CUT, cord="sct"))


def test_no_sct_to_ask_for_the_cord_is_said_with_what_goes_without(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    names = outputs.for_scan(folder / "t2.nii.gz", folder=tmp_path)
    with pytest.raises(SctError, match="was not found; give a mask of the cord with -cord <file>"):
        segment.segment(folder / "t2.nii.gz", replace(CUT, cord="sct"), names)
    assert not list(tmp_path.iterdir())
