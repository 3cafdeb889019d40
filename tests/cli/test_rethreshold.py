import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sct_lesion_losses.cli.rethreshold import main
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import cord_mask

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def pmap(tmp_path, monkeypatch) -> np.ndarray:
    """p-map in t2_lesionseg_pmap.nii.gz of the current folder: two lesions, 0.35 and 0.8."""
    monkeypatch.chdir(tmp_path)
    array = np.zeros((6, 6, 6), np.float32)
    array[1, 1, 1:3] = 0.35
    array[4, 4, 2:5] = [0.2, 0.8, 0.2]
    nib.Nifti1Image(array, AFFINE).to_filename("t2_lesionseg_pmap.nii.gz")
    return array


def test_the_mask_is_p_at_or_above_the_threshold(pmap, capsys):
    assert main(["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.35"]) == 0
    image = nib.load("t2_lesionseg_thr0.35.nii.gz")
    mask = np.asarray(image.dataobj)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, pmap >= np.float32(0.35))  # the voxels of 0.35 are in it
    assert np.array_equal(image.affine, AFFINE)
    assert capsys.readouterr().out.splitlines() == [
        "t2_lesionseg_thr0.35.nii.gz",
        "t2_lesionseg_thr0.35.json",
        "",
        "Done! To view results, type:",
        "fsleyes t2_lesionseg_pmap.nii.gz -cm greyscale t2_lesionseg_thr0.35.nii.gz "
        "-cm red -a 70.0 &",
        "",
    ]


def test_the_sidecar_says_what_was_done(pmap, tmp_path):
    file = str(tmp_path / "t2_lesionseg_pmap.nii.gz")
    main(["-i", file, "-thr", "0.5", "-ofolder", str(tmp_path / "out"), "-v", "0"])
    text = (tmp_path / "out" / "t2_lesionseg_thr0.5.json").read_text()
    said = json.loads(text)
    assert said["Threshold"] == 0.5
    assert said["Sources"] == ["t2_lesionseg_pmap.nii.gz"]
    assert (said["LesionCount"], said["LesionVolumeMm3"]) == (1, 2.0)
    assert said["HighestProbability"] == 0.8
    line = "sct_rethreshold_lesion -i t2_lesionseg_pmap.nii.gz -thr 0.5 -ofolder out -v 0"
    assert said["GeneratedBy"][0]["Name"] == f"sct_lesion_losses: {line}"
    assert str(tmp_path) not in text


def test_lesions_writes_the_table_and_the_numbered_mask(pmap, capsys):
    args = ["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.1", "-lesions", "1", "-o", "m.nii"]
    assert main([*args, "-v", "0"]) == 0
    written = ["m.nii", "m_labels.nii", "m_lesions.tsv", "m_lesions.json", "m.json"]
    assert capsys.readouterr().out.splitlines() == written
    labels = np.asarray(nib.load("m_labels.nii").dataobj)
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert labels[4, 4, 3] == 1  # three voxels before two
    rows = [row.split("\t") for row in Path("m_lesions.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["lesion", "1", "2"]
    assert dict(zip(rows[0], rows[2], strict=True))["vanishes_above"] == "0.349999994"


def test_an_empty_mask_is_said_with_the_highest_probability_and_its_place(pmap, capsys):
    assert main(["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.9", "-v", "0"]) == 0
    unknown = (
        "WARNING: t2_lesionseg_pmap.nii.gz: t2_lesionseg_pmap.json is not there to tell of a "
        "lesion filter, so every lesion is kept; segmenting with a bundle that has one drops some\n"
    )
    assert capsys.readouterr().err == (
        f"{unknown}WARNING: t2_lesionseg_pmap.nii.gz: the mask is empty; "
        "highest probability 0.8 at (-4, 4, 6) mm\n"
    )
    assert not np.asarray(nib.load("t2_lesionseg_thr0.9.nii.gz").dataobj).any()
    assert main(["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.5"]) == 0
    assert capsys.readouterr().err == f"{unknown}t2_lesionseg_pmap.nii.gz: 1 lesion, 2 mm³\n"


def told(point: object, threshold: float | None = 0.3) -> None:
    """Write the JSON of the p-map."""
    made = {"Bundle": "mine", "BundleSHA256": "ab12", "Threshold": 0.9}
    entries = {**made, "TunedThreshold": threshold, "TunedLesionFilter": point}
    Path("t2_lesionseg_pmap.json").write_text(json.dumps(entries))


def test_lesions_are_dropped_by_the_filter_of_the_bundle_that_made_the_pmap(pmap, capsys):
    told({"LeastPeak": 0.5, "LeastVolumeMm3": 0.0})
    args = ["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.2", "-o", "m.nii"]
    assert main(args) == 0
    assert np.array_equal(np.argwhere(nib.load("m.nii").get_fdata())[:, 0], [4, 4, 4])
    said = capsys.readouterr().err
    assert "chosen at threshold 0.3) dropped 1 of 2 predicted lesions" in said
    assert "it keeps those of a highest probability of at least 0.5\n" in said
    said = {"LeastPeak": 0.5, "LeastVolumeMm3": 0.0, "LesionsRemoved": 1}
    assert json.loads(Path("m.json").read_text())["LesionFilter"] == said
    assert main([*args, "-lesion_point", "0"]) == 0
    assert np.count_nonzero(nib.load("m.nii").get_fdata()) == 5
    assert json.loads(Path("m.json").read_text())["LesionFilter"] is None


def described(*options: str, threshold: str = "0.3") -> dict[str, object]:
    """Threshold the p-map; the new mask's JSON."""
    args = ["-i", "t2_lesionseg_pmap.nii.gz", "-thr", threshold, "-o", "m.nii", *options]
    assert main(args) == 0
    found: dict[str, object] = json.loads(Path("m.json").read_text())
    return found


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (None, "t2_lesionseg_pmap.json is not there to tell of a lesion filter"),
        ('{"Bundle": "mine"}', "t2_lesionseg_pmap.json does not tell of a lesion filter"),
    ],
)
def test_a_filter_that_is_not_known_of_is_a_warning_unless_none_is_asked_for(pmap, beside, said):
    if beside is not None:
        Path("t2_lesionseg_pmap.json").write_text(beside)
    for options in ([], ["-cord", cord("cord.nii.gz", 6)]):
        [warning] = [text for text in described(*options)["Warnings"] if "filter" in text]
        assert said in warning
    assert described("-lesion_point", "0")["Warnings"] == []
    told(None)
    assert described()["Warnings"] == []


def test_what_made_the_pmap_is_passed_on_and_another_threshold_than_the_tuned_one_is_said(pmap):
    told(None)
    mask = described(threshold="0.2")
    assert (mask["Bundle"], mask["BundleSHA256"], mask["TunedThreshold"]) == ("mine", "ab12", 0.3)
    assert (mask["Threshold"], mask["TunedLesionFilter"]) == (0.2, None)
    said = "threshold 0.2 instead of 0.3, the one the bundle 'mine' was tuned to"
    assert mask["Warnings"] == [said]
    told(None, threshold=None)
    [said] = described()["Warnings"]
    assert "the bundle 'mine' was never tuned" in said


def test_a_mask_that_the_filter_emptied_says_so(pmap):
    told({"LeastPeak": 0.9, "LeastVolumeMm3": 0.0})
    [said] = described()["Warnings"]
    assert said.startswith("the mask is empty; highest probability 0.8 ")
    assert said.endswith("; 2 lesions dropped by the lesion filter")


@pytest.mark.parametrize(
    ("point", "threshold", "status", "said"),
    [
        (None, 0.3, 2, "no JSON beside it tells of a lesion filter"),
        ({"LeastPeak": "high"}, 0.3, 1, "t2_lesionseg_pmap.json: cannot be read"),
        ({"LeastPeak": 0.5, "LeastVolumeMm3": 0.0}, None, 1, "cannot be read"),
        ([0.5], 0.3, 1, "cannot be read"),
    ],
)
def test_a_filter_that_is_demanded_must_be_known(pmap, capsys, point, threshold, status, said):
    told(point, threshold)
    args = ["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.2", "-lesion_point", "1"]
    assert main(args) == status
    assert said in capsys.readouterr().err
    assert not Path("t2_lesionseg_thr0.2.nii.gz").exists()


def test_the_pmap_is_never_overwritten(pmap):
    before = Path("t2_lesionseg_pmap.nii.gz").read_bytes()
    args = ["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.5"]
    assert main([*args, "-o", "t2_lesionseg_pmap.nii.gz"]) == 2
    assert Path("t2_lesionseg_pmap.nii.gz").read_bytes() == before


@pytest.mark.parametrize(
    ("pmap_name", "cord_name", "out"),
    [
        ("t2_lesionseg_pmap.nii.gz", "t2_seg.nii.gz", "t2_seg.nii.gz"),
        ("t2_lesionseg_pmap.nii.gz", "t2_seg_labels.nii.gz", "t2_seg.nii.gz"),
        ("t2_lesions.nii.gz", "cord.nii.gz", "t2.nii.gz"),  # t2_lesions.json is of the p-map
    ],
    ids=["mask", "labels", "JSON"],
)
def test_neither_the_cord_mask_nor_the_json_of_the_pmap_is_overwritten(
    pmap, capsys, pmap_name, cord_name, out
):
    told(None)
    Path("t2_lesionseg_pmap.nii.gz").rename(pmap_name)
    Path("t2_lesionseg_pmap.json").rename(pmap_name.replace(".nii.gz", ".json"))
    nib.Nifti1Image(np.ones((6, 6, 6), np.uint8), AFFINE).to_filename(cord_name)
    before = {file: file.read_bytes() for file in Path().iterdir()}
    args = ["-i", pmap_name, "-thr", "0.5", "-cord", cord_name, "-o", out, "-lesions", "1"]
    assert main(args) == 2
    assert "would be overwritten; choose another name with -o" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in Path().iterdir()} == before


def cord(name: str, last: int) -> str:
    """Write a cord mask of the slices up to `last`."""
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[:, :, :last] = 1
    nib.Nifti1Image(mask, AFFINE).to_filename(name)
    return name


def test_a_pmap_that_is_cut_takes_no_other_cord_mask(pmap, capsys):
    narrow = cord_mask.read(Path(cord("narrow.nii.gz", 3)), Grid((6, 6, 6), AFFINE))
    cut = {"CordMask": narrow.name, "CordMaskSHA256": narrow.sha256, "TunedLesionFilter": None}
    Path("t2_lesionseg_pmap.json").write_text(json.dumps(cut))
    args = ["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.1", "-o", "m.nii"]
    assert main([*args, "-cord", cord("wide.nii.gz", 6)]) == 2
    said = "is cut to the cord mask narrow.nii.gz already, what is outside it is lost; leave out"
    assert said in capsys.readouterr().err
    assert not Path("m.nii").exists()
    assert (
        described("-cord", narrow.name)["CordMask"] == "narrow.nii.gz"
    )  # the same changes nothing


def test_the_hash_of_a_run_is_not_that_of_a_mask_that_was_cut_afterwards(pmap):
    entries = {"InferenceSHA256": "cd34", "ScanSHA256": "ef56", "TunedLesionFilter": None}
    Path("t2_lesionseg_pmap.json").write_text(json.dumps(entries))
    assert described()["InferenceSHA256"] == "cd34"
    made = described("-cord", cord("cord.nii.gz", 4))
    assert (made["CordMask"], made["ScanSHA256"]) == ("cord.nii.gz", "ef56")
    assert "InferenceSHA256" not in made


def test_lesions_are_placed_by_the_image_of_the_centerline_before_its_csv(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    stored, size = np.diag([1.0, 1.0, 2.0, 1.0]), (20, 20, 8)  # x to the patient's right
    values, line = np.zeros((2, *size), np.float32)
    values[10, 9:12, 3:5] = 0.8
    line[14, 10] = 1  # the lesion is to its left
    nib.Nifti1Image(values, stored).to_filename("t2_lesionseg_pmap.nii.gz")
    image, table = "t2_lesionseg_centerline.nii.gz", "t2_lesionseg_centerline.csv"
    nib.Nifti1Image(line.astype(np.uint8), stored).to_filename(image)
    # In RPI, as earlier versions wrote it: x is 19 - 14.
    np.savetxt(table, [(5, 10, z) for z in range(8)], delimiter=",")
    run = {"Files": ["t2_lesionseg.nii.gz", image, table], "TunedLesionFilter": None}
    Path("t2_lesionseg_pmap.json").write_text(json.dumps(run))

    def side() -> str:
        args = ["-i", "t2_lesionseg_pmap.nii.gz", "-thr", "0.5", "-o", "m.nii", "-lesions", "1"]
        assert main(args) == 0
        names, row = (text.split("\t") for text in Path("m_lesions.tsv").read_text().splitlines())
        return dict(zip(names, row, strict=True))["side"]

    assert side() == "left"
    assert f"{table}: holds another line than {image} and is not used" in capsys.readouterr().err
    Path(image).rename("kept.nii.gz")
    assert side() == "right"  # as of SCT 7, and said
    assert "as SCT 7.0 and newer write them" in capsys.readouterr().err
    Path("kept.nii.gz").rename(image)
    Path(table).unlink()
    assert side() == "left"


def test_bids_probability_maps_give_a_name_of_their_own(pmap):
    Path("t2_lesionseg_pmap.nii.gz").rename("sub-01_label-L_probseg.nii.gz")
    assert main(["-i", "sub-01_label-L_probseg.nii.gz", "-thr", "0.5"]) == 0
    assert Path("sub-01_label-L_thr0.5.nii.gz").exists()


def test_a_table_of_thresholds_is_applied_row_by_row_beside_the_pmaps(
    pmap, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "sub-01" / "anat"
    folder.mkdir(parents=True)
    nib.Nifti1Image(pmap, AFFINE).to_filename(folder / "sub-01_label-L_probseg.nii.gz")
    rows = [
        *("scan\tpmap\tthreshold", "a\tt2_lesionseg_pmap.nii.gz\t0.35"),
        *("b\tmissing_pmap.nii.gz\t0.5", "c\tt2_lesionseg_pmap.nii.gz\thigh"),
        *("d\tt2_lesionseg_pmap.nii.gz\t1.5", "e\tsub-01/anat/sub-01_label-L_probseg.nii.gz\t0.5"),
    ]
    (tmp_path / "thresholds.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["-i", "../thresholds.tsv", "-v", "0"]) == 1
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [file.resolve().relative_to(tmp_path).as_posix() for file in written] == [
        *("t2_lesionseg_thr0.35.nii.gz", "t2_lesionseg_thr0.35.json"),
        *("sub-01/anat/sub-01_label-L_thr0.5.nii.gz", "sub-01/anat/sub-01_label-L_thr0.5.json"),
    ]
    for file, threshold in ((written[0], 0.35), (written[2], 0.5)):
        assert np.array_equal(np.asarray(nib.load(file).dataobj), pmap >= np.float32(threshold))


@pytest.mark.parametrize(
    ("column", "given", "applied"),
    [("0", [], False), ("1", [], True), ("", [], True), ("0", ["-lesion_point", "1"], True)],
)
def test_a_table_says_of_each_row_whether_lesions_are_filtered_unless_the_option_does(
    pmap, column, given, applied
):
    told = {"TunedThreshold": 0.5, "TunedLesionFilter": {"LeastPeak": 1.0, "LeastVolumeMm3": 0.0}}
    Path("t2_lesionseg_pmap.json").write_text(json.dumps(told))
    row = f"t2_lesionseg_pmap.nii.gz\t0.5\t{column}"
    Path("t.tsv").write_text(f"pmap\tthreshold\tlesion_point\n{row}\n")
    assert main(["-i", "t.tsv", "-v", "0", *given]) == 0
    made = json.loads(Path("t2_lesionseg_thr0.5.json").read_text())
    assert (made["LesionFilter"] is not None) == applied


def test_every_bad_row_of_a_table_is_told(pmap, capsys):
    rows = ["pmap\tthreshold", "missing_pmap.nii.gz\t0.5"]
    rows += ["t2_lesionseg_pmap.nii.gz\thigh", "t2_lesionseg_pmap.nii.gz\tn/a"]
    Path("t.tsv").write_text("\n".join(rows))
    assert main(["-i", "t.tsv"]) == 1
    first, second, third, last = capsys.readouterr().err.splitlines()
    assert "t.tsv, row 1: missing_pmap.nii.gz: " in first
    assert second.endswith("t.tsv, row 2: the threshold is 'high', expected a number in (0, 1]")
    assert third.endswith("row 3: the threshold is missing, expected a number in (0, 1]")
    assert last.endswith("3 of 3 rows failed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pmap\tthr\na\t0.5\n", "has no column 'threshold'"),
        ("thr;threshold\na;0.5\n", "has no column 'pmap'"),
        ("pmap\tthreshold\n", "has no row"),
        ("pmap\tthreshold\tlesion_point\na\t0.5\tyes\n", "lesion_point is 'yes', expected 0, 1"),
        (None, "t.tsv: no such table"),
    ],
)
def test_a_table_that_names_no_thresholds_is_refused(pmap, capsys, text, said):
    if text is not None:
        Path("t.tsv").write_text(text)
    assert main(["-i", "t.tsv"]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "comma"), [("t.tsv", "\t"), ("t.csv", ","), ("t.CSV", ";")])
def test_a_table_may_have_the_quotation_marks_of_a_spreadsheet(pmap, name, comma):
    Path("t2_lesionseg_pmap.nii.gz").rename('"a", pmap.nii.gz')
    rows = [('"pmap"', '"threshold"'), ('"""a"", pmap.nii.gz"', "0.5")]
    Path(name).write_text("\n".join(map(comma.join, rows)))
    assert main(["-i", name, "-v", "0"]) == 0
    assert Path('"a", pmap_thr0.5.nii.gz').exists()
