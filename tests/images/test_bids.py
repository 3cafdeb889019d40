import json
from pathlib import Path

import pytest

from sct_lesion_losses.errors import DataError
from sct_lesion_losses.images import bids


def dataset(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_scans_are_found_with_and_without_sessions_and_sorted(tmp_path: Path) -> None:
    dataset(
        tmp_path,
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-ax_T2w.nii",
        "sub-01/ses-1/anat/sub-01_ses-1_T2star.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-ax_T2w.json",
        "sub-01/ses-1/dwi/sub-01_ses-1_dwi.nii.gz",
        "derivatives/labels/sub-02/anat/sub-02_T2w.nii.gz",
    )
    assert [path.name for path in bids.find_scans(tmp_path)] == [
        "sub-01_ses-1_acq-ax_T2w.nii",
        "sub-02_T2w.nii.gz",
    ]
    stars = bids.find_scans(tmp_path, bids.SUFFIXES["t2s"])
    assert [path.name for path in stars] == ["sub-01_ses-1_T2star.nii.gz"]


def test_a_folder_without_such_scans_says_what_there_is(tmp_path: Path) -> None:
    dataset(tmp_path, "t2.nii.gz")
    with pytest.raises(DataError, match="no image in sub-"):
        bids.find_scans(tmp_path)
    dataset(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")
    with pytest.raises(DataError, match="no T2w scan, only FLAIR, T1w;"):
        bids.find_scans(tmp_path)


@pytest.mark.parametrize(
    ("image", "tail", "name"),
    [
        ("sub-01_T2w.nii.gz", "label-L_mask", "sub-01_label-L_mask.nii.gz"),
        ("sub-01_ses-2_acq-ax_T2w.nii", "label-L_dseg", "sub-01_ses-2_acq-ax_label-L_dseg.nii"),
        ("sub-01_T2star.nii.gz", "label-L_mask", "sub-01_label-L_desc-T2star_mask.nii.gz"),
        ("sub-01_T2w.nii.gz", "label-centerline", "sub-01_label-centerline.nii.gz"),
    ],
)
def test_derivative_names_follow_bids(image: str, tail: str, name: str) -> None:
    assert bids.derivative_name(Path("anat") / image, tail) == name


@pytest.mark.parametrize(
    "label",
    [
        "sub-01_T2w_lesionseg.nii.gz",
        "tool/anat/sub-01_label-L_mask.nii",
        "labels/sub-01_T2w_lesion-manual.nii.gz",
        "sub-01/anat/sub-01_T2w_label-lesion_seg.nii.gz",
        "sub-01_T2w_seg.nii.gz",
        "sub-01_T2w.nii.gz",
        "sub-01/anat/T2w_lesionseg.nii.gz",
    ],
)
def test_a_mask_is_found_by_the_name_of_its_scan_anywhere(tmp_path: Path, label: str) -> None:
    scan, other = Path("sub-01_T2w.nii.gz"), Path("sub-011_T2w.nii.gz")
    folder = dataset(tmp_path, label, "sub-01_T2w_lesionseg.json", ".git/sub-011_lesionseg.nii")
    name = "sub-01_anat_T2w" if label.startswith("sub-01/anat/T2w") else "sub-01_T2w"
    names = {scan: name, other: "sub-011_T2w"}
    found = bids.find_labels(folder, names, (bids.LESION_MASKS, bids.PLAIN_MASKS))
    assert found == {scan: tmp_path / label}


def test_a_lesion_mask_comes_before_what_may_be_another_one(tmp_path: Path) -> None:
    scan, raw = Path("sub-01_T2w.nii.gz"), "sub-01/anat/sub-01_T2w.nii.gz"
    dataset(tmp_path, raw, "sub-01_T2w_seg.nii.gz", "sub-01_T2w_lesionseg.nii.gz")
    groups = (bids.LESION_MASKS, bids.PLAIN_MASKS)
    found = bids.find_labels(tmp_path, {scan: "sub-01_T2w"}, groups)
    assert found[scan].name == "sub-01_T2w_lesionseg.nii.gz"
    found[scan].unlink()
    with pytest.raises(DataError, match=r"several files for 1 of 1 scans \(sub-01_T2w: .*_seg"):
        bids.find_labels(tmp_path, {scan: "sub-01_T2w"}, groups)
    found = bids.find_labels(tmp_path, {scan: "sub-01_T2w"}, groups, [tmp_path / raw])
    assert found[scan].name == "sub-01_T2w_seg.nii.gz"
    with pytest.raises(DataError, match="no such folder"):
        bids.find_labels(tmp_path / "none", {}, groups)


def test_where_one_is_preferred_each_scan_has_its_own_first_one(tmp_path: Path) -> None:
    names = {Path(f"sub-0{k}_T2w.nii"): f"sub-0{k}_T2w" for k in (1, 2, 3)}
    kinds = ("T2w_seg_labeled", "T2w_labels-disc", "T2w_labels-disc-manual")
    held = [f"sub-01_{kinds[0]}", *(f"sub-02_{kind}" for kind in kinds[1:]), f"sub-03_{kinds[2]}"]
    dataset(tmp_path, *(f"{name}.nii.gz" for name in held))
    found = bids.find_labels(tmp_path, names, (bids.LEVELS, bids.DISCS), preferred=True)
    wanted = (held[0], held[2], held[3])
    assert [path.name for path in found.values()] == [f"{name}.nii.gz" for name in wanted]
    dataset(tmp_path / "more", f"{held[2]}.nii.gz")
    with pytest.raises(DataError, match="several files for 1 of 3 scans"):
        bids.find_labels(tmp_path, names, (bids.LEVELS, bids.DISCS), preferred=True)


def test_masks_in_linked_folders_are_found_once(tmp_path: Path) -> None:
    kept = dataset(tmp_path / "kept", "sub-01/anat/sub-01_lesionseg.nii.gz", ".old/x.nii")
    folder = dataset(tmp_path / "masks", "sub-02/sub-02_lesionseg.nii.gz")
    (folder / "sub-01").symlink_to(kept / "sub-01")
    (folder / "latest").symlink_to(folder / "sub-02")  # another way to one that is there
    (folder / "sub-02" / "up").symlink_to(folder)
    (folder / "out").symlink_to(tmp_path)
    (folder / ".hidden").symlink_to(kept)
    names = {Path(f"{name}.nii"): name for name in ("sub-01_T2w", "sub-02_T2w")}
    assert bids.find_labels(folder, names, (bids.LESION_MASKS,)) == {
        Path("sub-01_T2w.nii"): folder / "sub-01" / "anat" / "sub-01_lesionseg.nii.gz",
        Path("sub-02_T2w.nii"): folder / "sub-02" / "sub-02_lesionseg.nii.gz",
    }
    (tmp_path / "link").symlink_to(folder)
    assert len(bids.find_labels(tmp_path / "link", names, (bids.LESION_MASKS,))) == 2


def test_rows_of_a_table_are_texts_by_column(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text('Scan \tsite\n"a, b"\t n/a\nc\n\nd\tx\tmore\n', encoding="utf-8-sig")
    assert bids.read_table(table) == [
        {"scan": "a, b", "site": ""},
        {"scan": "c", "site": ""},
        {"scan": "d", "site": "x"},
    ]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    with pytest.raises(DataError, match=r"t\.tsv: no such table; correct its path$"):
        bids.read_table(table)
    table.write_bytes(bytes(40))
    said = r"cannot be read as a TSV table \(it holds binary data\); save it as text with tabs$"
    with pytest.raises(DataError, match=rf"t\.tsv: {said}"):
        bids.read_table(table)
    with pytest.raises(DataError, match=r"TSV table \(Is a directory\); save"):
        bids.read_table(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it has no column 'scan'"),
        (b"scan;site\na;b\n", "it has no column 'scan'"),
        (b"scan\tsite\na\tb\nc\n", "it is cut short"),
        (b"scan\tsite\na\tb", "it is cut short"),
        ("scan\tsite\nä\tb\n".encode("latin-1"), "codec can't decode"),
    ],
)
def test_a_table_that_this_package_wrote_is_read_whole_or_not_at_all(
    tmp_path: Path, content: bytes, why: str
) -> None:
    table = tmp_path / "t.tsv"
    table.write_text('scan\tsite\n"ä; \tb\n', encoding="utf-8")
    assert bids.read_table(table, own=("scan", "site")) == [{"scan": '"ä;', "site": "b"}]
    table.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"cannot be read as a TSV table \(.*{why}.*\); remove it$"
    ):
        bids.read_table(table, own=("scan", "site"))


def test_derivatives_are_described_once(tmp_path: Path) -> None:
    bids.describe_derivatives(tmp_path / "out")
    path = tmp_path / "out" / "dataset_description.json"
    described = json.loads(path.read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "sct_lesion_losses"
    path.write_text("mine")
    bids.describe_derivatives(tmp_path / "out")
    assert path.read_text() == "mine"
