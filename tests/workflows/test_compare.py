"""Masks and p-maps of other tools in an evaluation, by values worked out by hand."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.errors import DataError, GeometryError, ImageError, OutputError, UsageError
from sct_lesion_losses.inference.instances import InstanceTask, number
from sct_lesion_losses.inference.models import IN_COHORT, Model
from sct_lesion_losses.metrics import PRESETS
from sct_lesion_losses.workflows import evaluate
from sct_lesion_losses.workflows.evaluate import EvaluateSettings
from sct_lesion_losses.workflows.evaluated import EvaluatedModel, require_told_apart

SHAPE = (12, 12, 12)  # voxels of 1 mm³
Span = tuple[slice, slice, slice]


def block(start: int, side: int = 2) -> Span:
    """A cube on the diagonal."""
    return (slice(start, start + side),) * 3


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def noise(seed: int) -> np.ndarray:
    """A scan in which no cord is found."""
    return np.random.default_rng(seed).integers(1, 900, SHAPE).astype(np.int16)


def write(path: Path, *lesions: Span, p: float = 1, dtype: type = np.uint8) -> Path:
    """Write lesions of one value as an image."""
    array = np.zeros(SHAPE, dtype)
    for lesion in lesions:
        array[lesion] = p
    return save(path, array)


TRUTH = {"sub-01": (block(1), block(6)), "sub-02": (block(1),), "sub-03": ()}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three scans of noise, in which no cord is found: with two lesions, with one, with none."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (subject, lesions) in enumerate(TRUTH.items()):
        save(folder / subject / "anat" / f"{subject}_T2w.nii.gz", noise(seed))
        labels = folder / "derivatives" / "labels" / subject / "anat"
        write(labels / f"{subject}_T2w_label-lesion_seg.nii.gz", *lesions)
    return folder


@pytest.fixture
def rater(tmp_path) -> Path:
    """Masks with one of two lesions; with the lesion and a false one; with a false one alone."""
    folder = tmp_path / "rater"
    write(folder / "sub-01" / "sub-01_T2w_lesionseg.nii.gz", block(1))
    write(folder / "sub-02" / "sub-02_label-L_mask.nii.gz", block(1), block(8))
    write(folder / "sub-03_T2w_lesionseg.nii.gz", block(8))
    return folder


def read(table: Path) -> pd.DataFrame:
    return pd.read_csv(table, sep="\t", na_values="n/a", keep_default_na=False)


def test_masks_of_a_rater_are_scored_without_a_threshold(data, rater, tmp_path):
    out = tmp_path / "out"
    again = shutil.copytree(rater, tmp_path / "again")
    settings = EvaluateSettings(masks={"rater": rater, "itself": again})
    found = evaluate.run([], data, out, settings)
    rows = read(out / "scores.tsv")
    rows = rows[(rows["bundle"] == "rater") & (rows["preset"] == "paper")]
    # Blocks of 8 voxels: 8 of 16 are found; all 8 with 8 false ones; 8 false ones alone.
    assert rows["tp_vox"].tolist() == [8, 8, 0]
    assert rows["fp_vox"].tolist() == [0, 8, 8]
    assert rows["fn_vox"].tolist() == [8, 0, 0]
    assert rows["l_sensitivity"].fillna(-1).tolist() == [0.5, 1, -1]
    assert rows["l_precision"].fillna(-1).tolist() == [1, 0.5, -1]
    assert rows["threshold"].isna().all()
    assert set(rows["tuned"]) == {1}
    assert len(found.rows) == 2 * 3 * len(PRESETS)
    assert found.tables["table2"].body[["Model", "Threshold"]].values.tolist() == [
        ["rater", "n/a"],
        ["itself", "n/a"],
    ]
    tests = found.tables["models"].body
    assert (
        tests[["First", "Second", "n", "Pairs"]].values.tolist()
        == [["rater", "itself", "2", "0"]] * 2
    )
    said = json.loads((out / "scores.json").read_text())
    assert said["bundle"]["Levels"]["rater"]["Description"] == "Masks as they were given"
    assert said["bundle"]["Levels"]["rater"]["Folder"] == "rater"
    assert said["ScansWithoutCord"] == []
    assert any("rater, itself" in note for note in found.tables["table2"].notes)


def test_masks_have_one_operating_point_of_lesions_found_against_false_ones(data, rater, tmp_path):
    found = evaluate.run([], data, tmp_path / "out", EvaluateSettings(masks={"rater": rater}))
    # 1 of 2 lesions and 1 of 1: 0.75; 2 false ones in 3 scans.
    assert found.tables["froc"].body.values.tolist() == [
        ["rater", "n/a", *["n/a"] * 6, "0.75", "0.67", "2", "3"]
    ]
    assert (tmp_path / "out" / "figures" / "froc.png").is_file()


def test_p_maps_are_cut_at_every_threshold_and_tuned_where_scans_for_it_are_given(data, tmp_path):
    # The lesions have 0.3, and false ones 0.2: only 0.25 and 0.3 give the lesions alone.
    for subject, lesions in TRUTH.items():
        name = f"{subject}_T2w_pmap.nii.gz"
        array = np.zeros(SHAPE, np.float32)
        for lesion in lesions:
            array[lesion] = 0.3
        array[block(9)] = 0.2
        save(tmp_path / "tool" / name, array)
    scans = cohorts.read(data)
    parts = dict(zip(TRUTH, ("thr-optimization", "unseen", "unseen"), strict=True))
    table = tmp_path / "split.tsv"
    cohorts.write([type(s)(**{**vars(s), "split": parts[s.subject]}) for s in scans], table)
    settings = EvaluateSettings(pmaps={"tool": tmp_path / "tool"})
    found = evaluate.run([], table, tmp_path / "out", settings)
    [tuned] = {row.threshold for row in found.rows if row.tuned}
    assert tuned == 0.3  # of two that do the same the nearer to 0.5
    own = {(row.threshold, row.scan): row.voxels for row in found.rows}
    assert (own[0.3, "sub-02_T2w"].tp, own[0.3, "sub-02_T2w"].n_predicted) == (8, 8)
    assert (own[0.2, "sub-02_T2w"].tp, own[0.2, "sub-02_T2w"].n_predicted) == (8, 16)
    assert own[0.5, "sub-02_T2w"].n_predicted == 0
    # At 0.5 nothing is left; at 0.3 the lesions alone.
    assert found.tables["froc"].body.values.tolist() == [
        ["tool", "0.5", *["0.00"] * 8, "1", "2"],
        ["tool", "0.3", *["1.00"] * 7, "0.00", "1", "2"],
    ]
    # Without those of the tuning scans it is not tuned.
    (tmp_path / "tool" / "sub-01_T2w_pmap.nii.gz").unlink()
    found = evaluate.run([], table, tmp_path / "out", settings)
    assert not any(row.tuned for row in found.rows)


def test_only_a_mask_that_has_changed_is_counted_again(data, rater, tmp_path, caplog):
    caplog.set_level("INFO")
    settings = EvaluateSettings(masks={"rater": rater})
    evaluate.run([], data, tmp_path / "out", settings)
    write(rater / "sub-03_T2w_lesionseg.nii.gz")
    found = evaluate.run([], data, tmp_path / "out", settings)
    assert "2 of 3 results" in caplog.text
    assert {row.voxels.n_predicted for row in found.rows if row.subject == "sub-03"} == {0}


def test_masks_that_are_missing_or_there_twice_are_refused_by_a_list(data, rater, tmp_path):
    settings = EvaluateSettings(masks={"rater": rater})
    write(rater / "old" / "sub-01_T2w_lesionseg.nii.gz")
    with pytest.raises(DataError, match=r"sub-01_T2w: old/sub-01_T2w_lesionseg.nii.gz, sub-01/sub"):
        evaluate.run([], data, tmp_path / "out", settings)
    for path in rater.rglob("sub-0[13]*.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match="no mask of 2 of 3 scans: sub-01_T2w, sub-03_T2w; exp"):
        evaluate.run([], data, tmp_path / "out", settings)
    assert not (tmp_path / "out" / "scans").exists()


def test_a_cord_mask_is_not_taken_for_the_lesion_mask_that_a_scan_lacks(
    data, rater, tmp_path, caplog
):
    caplog.set_level("INFO")
    settings = EvaluateSettings(masks={"rater": rater})
    path = rater / "sub-03_T2w_lesionseg.nii.gz"
    path.rename(rater / "sub-03_T2w_seg.nii.gz")
    with pytest.raises(DataError, match="no mask of 1 of 3 scans: sub-03_T2w; exp"):
        evaluate.run([], data, tmp_path / "out", settings)
    write(path)
    evaluate.run([], data, tmp_path / "out", settings)
    said = "rater: masks of 3 scans, by the ends of their names: lesionseg (2), label-L_mask (1)"
    assert said in caplog.messages


def test_masks_that_are_none_or_on_another_grid_are_refused(data, rater, tmp_path):
    settings = EvaluateSettings(masks={"rater": rater})
    path = write(rater / "sub-03_T2w_lesionseg.nii.gz", block(2), p=2)
    with pytest.raises(
        ImageError, match=r"sub-03_T2w_lesionseg.* holds the values 0, 2, .* binarise it"
    ):
        evaluate.run([], data, tmp_path / "out", settings)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([2, 1, 1, 1])), path)
    with pytest.raises(GeometryError, match=r"sub-03_T2w_lesionseg.*its voxels lie elsewhere"):
        evaluate.run([], data, tmp_path / "out", settings)
    with pytest.raises(ImageError, match="expected a p-map"):
        for subject in TRUTH:
            write(tmp_path / "tool" / f"{subject}_pmap.nii.gz", block(1))
        evaluate.run(
            [], data, tmp_path / "out", EvaluateSettings(pmaps={"tool": tmp_path / "tool"})
        )


def test_names_that_cannot_be_used_are_refused_before_any_work(data, rater, tmp_path):
    with pytest.raises(UsageError, match="'a b' is no name"):
        EvaluateSettings(masks={"a b": rater})
    for subject in TRUTH:
        write(tmp_path / "tool" / f"{subject}_T2w_pmap.nii.gz", p=0.3, dtype=np.float32)
    alike = EvaluateSettings(masks={"x": rater}, pmaps={"x": tmp_path / "tool"})
    with pytest.raises(UsageError, match="2 of the models are named x"):
        evaluate.run([], data, tmp_path / "out", alike)
    with pytest.raises(UsageError, match="one folder"):
        evaluate.run([], data, tmp_path / "out", EvaluateSettings(masks={"x": rater, "y": rater}))
    assert not (tmp_path / "out" / "scans").exists()


def test_models_are_told_apart_by_the_names_of_their_files():
    labels = ("sct as shipped", "sct_as_shipped")
    models = [EvaluatedModel(one, None, Model(one, "", (0.5,), "masks")) for one in labels]
    with pytest.raises(UsageError, match="2 of the models are named sct_as_shipped"):
        require_told_apart(models)


def test_the_challenge_gets_numbered_masks_and_the_probabilities_of_their_lesions(data, tmp_path):
    for subject in TRUTH:
        array = np.zeros(SHAPE, np.float32)
        # Two blocks that touch by a corner are one lesion; what is below 0.5 is none.
        array[block(1)], array[block(3)], array[block(7)], array[block(10)] = 0.75, 0.625, 1, 0.25
        save(tmp_path / "tool" / f"{subject}_pmap.nii.gz", array)
    settings = EvaluateSettings(pmaps={"tool": tmp_path / "tool"}, challenge=True)
    evaluate.run([], data, tmp_path / "out", settings)
    folder = tmp_path / "out" / "challenge" / "tool"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{subject}_T2w{ending}" for subject in TRUTH for ending in (".csv", ".nii.gz")
    ]
    assert (folder / "sub-03_T2w.csv").read_text() == "label,p\n1,0.6875\n2,1\n"
    image = nib.load(folder / "sub-03_T2w.nii.gz")
    expected = np.zeros(SHAPE, np.uint8)
    expected[block(1)], expected[block(3)], expected[block(7)] = 1, 1, 2
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)


def test_a_folder_of_the_challenge_that_cannot_be_written_costs_no_scores(data, rater, tmp_path):
    settings = EvaluateSettings(masks={"rater": rater}, challenge=True)
    out = tmp_path / "out"
    (out / "challenge").mkdir(parents=True)
    (out / "challenge" / "rater").touch()
    with pytest.raises(OutputError, match="rater: cannot write here"):
        evaluate.run([], data, out, settings)
    assert len(read(out / "scores.tsv")) == 3 * len(PRESETS)
    assert (out / "tables" / "table2.md").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "challenge").touch()
    with pytest.raises(OutputError, match="challenge is not a folder"):
        evaluate.run([], data, tmp_path / "other", settings)
    assert not (tmp_path / "other" / "scans").exists()


def test_more_lesions_than_a_byte_counts_are_numbered_in_two(tmp_path):
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[::2, ::2, ::2] = 1  # 512 lesions of a voxel
    files = [tmp_path / name for name in ("scan.nii", "mask.nii")]
    for file, array in zip(files, (mask, mask * 0), strict=True):
        save(file, array)
    scan = cohorts.CohortScan(*files, "s1")
    model = Model("x", "", (0.5,), "masks", files={files[0]: files[0]})
    out = tmp_path / "out.nii.gz"
    assert number(InstanceTask(scan, {model: 0.5}, {model: out}, False, IN_COHORT)) == {}
    image = nib.load(out)
    assert image.get_data_dtype() == np.uint16
    assert np.asarray(image.dataobj).max() == 512
    assert (tmp_path / "out.csv").read_text().splitlines()[-1] == "512,1"


REPEATED = {
    "sub-01_ses-1_run-1": (block(1), block(6)),
    "sub-01_ses-1_run-2": (block(1),),
    "sub-02_ses-1_run-1": (block(2),),
    "sub-02_ses-1_run-2": (block(2),),
    "sub-02_ses-2_run-1": (block(2),),  # another session
}


def test_scans_of_one_session_are_compared_by_volume_and_lesion(data, rater, tmp_path):
    for seed, (name, lesions) in enumerate(REPEATED.items()):
        anat = Path(*name.split("_")[:2]) / "anat"
        save(tmp_path / "data" / anat / f"{name}_T2w.nii.gz", noise(seed))
        write(
            tmp_path / "data" / "derivatives" / "labels" / anat / f"{name}_lesionseg.nii.gz",
            *lesions,
        )
        kept = lesions if name.endswith("1") else ()
        write(tmp_path / "tool" / f"{name}_lesionseg.nii.gz", *kept)
    settings = EvaluateSettings(masks={"tool": tmp_path / "tool"}, repeat=True)
    found = evaluate.run([], tmp_path / "data", tmp_path / "out", settings)
    # Manual: 16 and 8 mm³ have an SD of 8 / root 2 and a mean of 12, so a CV of 0.47; 8 and 8 have
    # one of 0; root mean square 0.33. Of 2 + 1 lesions 1 + 1 are found again, of 1 + 1 both.
    # Tool: 16 and 0, 8 and 0: CVs of root 2; none of 2 and 1 lesions is found again.
    manual, tool = (" | ".join(row) for row in found.tables["repeat"].body.values.tolist())
    assert manual == (
        "manual masks | n/a | 2 | 4 | 10.00 | 0.33 (0.00 to 0.47) | 2 | 5 | 0.80 (0.67 to 1.00) | 0"
    )
    assert tool == (
        "tool | n/a | 2 | 4 | 6.00 | 1.41 (1.41 to 1.41) | 2 | 3 | 0.00 (0.00 to 0.00) | 0"
    )
    assert (tmp_path / "out" / "tables" / "repeat.md").is_file()
    with pytest.raises(DataError, match="none of the 3 scans to evaluate is repeated"):
        evaluate.run([], data, tmp_path / "no", EvaluateSettings(masks={"x": rater}, repeat=True))
