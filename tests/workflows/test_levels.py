"""Where lesions are, in the tables: vertebral levels by labels, and the share of a cord's area."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_data import copies, table_rows

from sct_lesion_losses.cli import segment as command
from sct_lesion_losses.errors import DataError, GeometryError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.location import VERTEBRAE
from sct_lesion_losses.images import outputs
from sct_lesion_losses.phantom.dataset import centerline_mask, write_nifti
from sct_lesion_losses.workflows import batch, segment
from sct_lesion_losses.workflows.batch import DONE, FAILED, SKIPPED, BatchSettings
from sct_lesion_losses.workflows.rethreshold import rethreshold
from sct_lesion_losses.workflows.segment import SegmentSettings

TABLE = SegmentSettings("bce", 0.05, lesion_point=False, lesions=True)
LEVELS = (3, 4, 5, 6)


@pytest.fixture(scope="module")
def folder(simulated, tmp_path_factory) -> Path:
    """A small simulated scan with its cord, four levels of equal height and their five discs."""
    place = tmp_path_factory.mktemp("scan")
    grid = simulated.grid
    rpi, turn = grid.to_rpi()
    cord = turn.apply(simulated.cord) > 0
    labels, discs = np.zeros((2, *rpi.shape), np.uint8)
    borders = np.linspace(rpi.shape[2] - 1, 0, 5).astype(int)
    for level, top, bottom in zip(LEVELS, borders, borders[1:], strict=False):
        labels[:, :, bottom + 1 : top + 1] = level * cord[:, :, bottom + 1 : top + 1]
    for disc, z in zip((*LEVELS, LEVELS[-1] + 1), borders, strict=True):
        x, y = np.argwhere(cord[:, :, z]).mean(axis=0).astype(int)
        discs[x, y - 3, z] = disc
    line = centerline_mask(simulated.centerline, grid)
    stored = {"t2": simulated.image, "cord": simulated.cord, "line": line}
    stored |= {"labels": turn.undo(labels), "discs": turn.undo(discs)}
    for name, array in stored.items():
        write_nifti(place / f"{name}.nii.gz", array, grid)
    return place


def run(folder: Path, out: Path, **settings: object) -> tuple[list[dict[str, str]], dict]:
    """Rows of the lesion table and the sidecar of the scan segmented with these settings."""
    names = outputs.for_scan(folder / "t2.nii.gz", folder=out)
    segment.segment(folder / "t2.nii.gz", replace(TABLE, **settings), names)
    return table_rows(names.table), json.loads(names.sidecar.read_text())


def test_the_table_tells_vertebral_levels_by_a_labelled_segmentation_or_by_discs(
    folder, tmp_path, caplog
):
    caplog.set_level("INFO")
    rows, told = run(folder, tmp_path, levels=folder / "labels.nii.gz")
    assert "vertebral levels by labels.nii.gz: C3, C4, C5, C6" in caplog.text
    assert told["Levels"] == "labels.nii.gz"
    labels = nib.load(folder / "labels.nii.gz")
    values, grid = np.asarray(labels.dataobj), Grid(labels.shape, labels.affine)
    rpi, turn = grid.to_rpi()
    for row in rows:
        # In this scan the cord is nearly upright: the level of the slice of the centre, but for
        # lesions at a border.
        z = int(rpi.to_voxel([float(row[f"{axis}_mm"]) for axis in "xyz"])[2])
        near = turn.apply(values)[:, :, max(z - 2, 0) : z + 4]
        names = {VERTEBRAE[level - 1] for level in np.unique(near[near > 0])}
        assert row["level"] in names
        assert row["level"] in row["levels"] or "-" in row["levels"]
    assert len({row["level"] for row in rows}) > 1
    by_discs, told = run(folder, tmp_path, levels=folder / "discs.nii.gz")
    assert told["Levels"] == "discs.nii.gz"
    same = [one["level"] == other["level"] for one, other in zip(rows, by_discs, strict=True)]
    assert np.mean(same) > 0.6  # a disc lies behind a cord that is not quite upright
    rows, told = run(folder, tmp_path)
    assert {row["level"] for row in rows} == {"n/a"}
    assert told["Levels"] is None


def test_the_cord_of_the_centerline_s_file_is_what_shares_are_told_of(folder, tmp_path):
    rows, told = run(folder, tmp_path, centerline_file=folder / "cord.nii.gz")
    assert told["CordMask"] is None  # nothing is cut to it
    assert all(0 <= float(row["cord_share"]) <= 1 for row in rows)
    assert any(float(row["cord_share"]) > 0 for row in rows)
    rows, _ = run(folder, tmp_path, centerline_file=folder / "line.nii.gz")
    assert {row["cord_share"] for row in rows} == {"n/a"}


def test_a_stored_pmap_s_lesions_are_located_by_the_centerline_beside_it(folder, tmp_path):
    made, _ = run(folder, tmp_path, levels=folder / "labels.nii.gz", pmap=True)
    pmap = tmp_path / "t2_lesionseg_pmap.nii.gz"
    names = outputs.for_scan(folder / "t2.nii.gz", folder=tmp_path / "again")

    def again(**settings: object) -> list[dict[str, str]]:
        rethreshold(pmap, 0.05, names, lesion_point=False, lesions=True, **settings)
        return table_rows(names.table)

    assert {row["side"] for row in again()} == {"n/a"}
    by_cord = again(cord=folder / "cord.nii.gz")
    assert {row["side"] for row in by_cord} <= {"left", "right", "both"}
    assert all(float(row["cord_share"]) > 0 for row in by_cord)
    run(folder, tmp_path, pmap=True, keep_centerline=True)
    unknown = dict.fromkeys(("level", "levels"), "n/a")
    assert again() == [{**row, **unknown} for row in made]
    (tmp_path / "t2_lesionseg_centerline.csv").write_text("1,2\n")
    with pytest.raises(DataError, match=r"t2_lesionseg_centerline\.csv: .*row 1"):
        again()


def test_a_cord_mask_for_the_centerline_is_read_once_and_told_of_once(folder, tmp_path, caplog):
    image = nib.load(folder / "cord.nii.gz")
    white = nib.Nifti1Image(np.asarray(image.dataobj) * np.uint8(255), image.affine)
    nib.save(white, tmp_path / "cord.nii.gz")
    rows, told = run(folder, tmp_path / "out", centerline_file=tmp_path / "cord.nii.gz")
    said = "cord.nii.gz: the mask is 0 and 255: 255 is taken as 1"
    assert caplog.messages.count(said) == told["Warnings"].count(said) == 1
    assert all(float(row["cord_share"]) > 0 for row in rows)


def test_labels_that_do_not_fit_are_refused_and_nothing_is_written(folder, tmp_path):
    image = nib.load(folder / "labels.nii.gz")
    nib.save(image.slicer[1:], tmp_path / "other.nii.gz")
    with pytest.raises(GeometryError, match=r"other\.nii\.gz: shape .* on an image of shape"):
        run(folder, tmp_path / "out", levels=tmp_path / "other.nii.gz")
    with pytest.raises(GeometryError, match=r"cord\.nii\.gz: holds the label 1 alone"):
        run(folder, tmp_path / "out", levels=folder / "cord.nii.gz")
    assert not (tmp_path / "out").exists()


def test_scans_of_a_batch_find_their_labels_and_are_segmented_anew_with_others(folder, tmp_path):
    data, labels = tmp_path / "data", tmp_path / "data" / "derivatives" / "labels"
    copies(folder / "t2.nii.gz", *(data / f"sub-0{k}/anat/sub-0{k}_T2w.nii.gz" for k in (1, 2)))
    labels.mkdir(parents=True)
    found = batch.find([data])
    with pytest.raises(DataError, match=r"no labels of vertebral levels of 2 scans.*_seg_labeled"):
        batch.with_labels(found, "levels", labels)
    own = labels / "sub-01" / "anat" / "sub-01_T2w_seg_labeled.nii.gz"
    copies(folder / "labels.nii.gz", own)
    given, settings = batch.with_labels(found, "levels", labels), BatchSettings(TABLE)
    outcomes, tables = batch.run(given, settings)
    assert [outcome.status for outcome in outcomes.values()] == [DONE, FAILED]
    assert "sub-02_T2w_seg_labeled.nii.gz" in outcomes[given[1]].error
    assert {row["level"][0] for row in table_rows(tables[1])} == {"C"}  # the labels are cervical
    outcomes, _ = batch.run(given, settings)
    assert [outcome.status for outcome in outcomes.values()] == [SKIPPED, FAILED]
    copies(folder / "discs.nii.gz", own)
    outcomes, _ = batch.run(given, settings)
    assert [outcome.status for outcome in outcomes.values()] == [DONE, FAILED]


def test_levels_alone_ask_for_the_table(folder, tmp_path):
    image, levels = str(folder / "t2.nii.gz"), str(folder / "labels.nii.gz")
    args = ["-i", image, "-levels", levels, "-ofolder", str(tmp_path), "-bundle", "bce", "-v", "0"]
    assert command.main(args) == 0
    assert "level\tlevels" in (tmp_path / "t2_lesionseg_lesions.tsv").read_text()


def test_a_scan_that_a_pattern_leaves_out_needs_no_labels(folder, tmp_path):
    data, labels = tmp_path / "data", tmp_path / "labels"
    copies(folder / "t2.nii.gz", *(data / f"sub-0{k}/anat/sub-0{k}_T2w.nii.gz" for k in (1, 2)))
    names = ("sub-01", "a/sub-02", "b/sub-02")  # two of the second scan
    copies(folder / "labels.nii.gz", *(labels / f"{name}_seg_labeled.nii.gz" for name in names))
    args = ["-i", str(data), "-levels", str(labels), "-ofolder", str(tmp_path / "o"), "-v", "0"]
    assert command.main([*args, "-include", "sub-02", "-bundle", "bce"]) == 1
    assert command.main([*args, "-exclude", "sub-02", "-bundle", "bce"]) == 0
