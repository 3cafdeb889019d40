import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_data import write_cohort

from sct_lesion_losses.cohorts import table as cohort
from sct_lesion_losses.errors import DataError, ImageError


@pytest.fixture
def bids(tmp_path):
    return write_cohort(tmp_path / "bids", subjects=3)


def test_a_bids_folder_gives_scans_with_labels_and_sites(bids):
    scans = cohort.read(bids)
    assert [s.subject for s in scans] == ["sub-001", "sub-002", "sub-003"]
    assert [s.site for s in scans] == ["B", "A", "B"]
    assert scans[0].name == "sub-001_T2w"
    assert scans[0].lesion_mask.name == "sub-001_T2w_label-lesion_seg.nii.gz"
    assert scans[0].centerline.name == "sub-001_T2w_label-centerline.nii.gz"
    assert scans[0].split == ""
    assert cohort.cord_mask(scans[0]) is None
    beside = scans[1].lesion_mask.with_name("sub-002_T2w_label-SC_seg.nii.gz")
    beside.touch()
    assert cohort.cord_mask(scans[1]) == beside


def test_a_scan_without_a_mask_is_left_out_and_named(bids, caplog):
    cohort.read(bids)[1].lesion_mask.unlink()
    scans = cohort.read(bids)
    assert [s.subject for s in scans] == ["sub-001", "sub-003"]
    assert "sub-002_T2w.nii.gz: no lesion mask" in caplog.text


def test_a_written_table_is_read_back_but_for_further_columns(bids, tmp_path):
    scans = cohort.read(bids)
    (tmp_path / "elsewhere").mkdir()
    table = tmp_path / "elsewhere" / "table.tsv"
    cohort.write(scans, table, {"lesions": {s.scan: k / 3 for k, s in enumerate(scans)}})
    again = cohort.read(table)
    assert [(s.scan.resolve(), s.subject, s.site) for s in again] == [
        (s.scan.resolve(), s.subject, s.site) for s in scans
    ]
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert "/" not in rows[1][2]
    assert [row[-1] for row in rows] == ["lesions", "0", "0.333333", "0.666667"]


def table_of(bids, text: str):
    path = bids / "table.tsv"
    path.write_text(text)
    return path


LABELS = "derivatives/labels/sub-001/anat"
ROW = f"sub-001/anat/sub-001_T2w.nii.gz\t{LABELS}/sub-001_T2w_label-lesion_seg.nii.gz\tsub-001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scan\tlesion_mask\n", "no scan with a lesion mask"),
        ("scan\tsubject\na.nii\ts\n", "no column lesion_mask, only scan, subject"),
        ("scan\tlesion_mask\tsubject\na.nii\tb.nii\t\n", "line 2: subject is empty"),
        ("scan\tlesion_mask\tsubject\na.nii\tb.nii\ts\n", r"line 2: .*a\.nii does not exist"),
        ("scan\tlesion_mask\tsubject\na.png\tb.nii\ts\n", r"line 2: .*expected a name"),
        (f"scan\tlesion_mask\tsubject\tsplit\n{ROW}\ttest\n", "line 2: split is 'test'"),
        (f"scan\tlesion_mask\tsubject\n{ROW}\n{ROW}\n", "a scan is listed twice"),
        (
            f"scan\tlesion_mask\tsubject\tcohort\n{ROW}\ta\n{ROW.replace('001', '002')}\t\n",
            "column cohort is empty for 1 of 2 scans, sub-002_T2w for one",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(bids, text, message):
    with pytest.raises(DataError, match=message):
        cohort.read(table_of(bids, text))


def test_content_does_not_depend_on_type_order_or_file():
    array = np.random.default_rng(0).integers(0, 1000, (4, 5, 6)).astype(np.int16)
    known = cohort.content_hash(array)
    assert cohort.content_hash(array.astype(np.float64)) == known
    assert cohort.content_hash(np.asfortranarray(array)) == known
    assert cohort.content_hash(array.reshape(5, 4, 6)) != known
    array[0, 0, 0] += 1
    assert cohort.content_hash(array) != known


@pytest.mark.parametrize(
    ("sidecar", "known"),
    [
        (None, None),
        ("not JSON", None),
        ("[]", None),
        ('{"Modality": "MR"}', None),
        ('{"ImplantHostHash": 3}', None),
        ('{"ImplantHostHash": "' + "ab" * 16 + '"}', "ab" * 16),
    ],
)
def test_the_host_of_implants_is_known_by_the_sidecar(tmp_path, sidecar, known):
    scan = cohort.CohortScan(tmp_path / "a_T2w.nii.gz", tmp_path / "l.nii.gz", "a")
    if sidecar is not None:
        (tmp_path / "a_T2w.json").write_text(sidecar)
    assert cohort.host_hash(scan) == known


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_tables_are_read_as_spreadsheets_leave_them(bids, delimiter, encoding):
    text = f"Scan\tLesion_mask\tsubject\tSite\n{ROW}\tZürich\n".replace("\t", delimiter)
    path = table_of(bids, "")
    path.write_text(text, encoding=encoding)
    assert [s.site for s in cohort.read(path)] == ["Zürich"]


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize("header", ["participant_id\tsite", "Participant_ID\tinstitution"])
@pytest.mark.parametrize("prefix", ["sub-", ""])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_sites_are_read_from_participants_of_any_kind(bids, delimiter, header, prefix, encoding):
    rows = [header, f"{prefix}001\tZürich", f"{prefix}002\tn/a", f"{prefix}003\tBern"]
    people = bids / "participants.tsv"
    people.write_text("\r\n".join(rows).replace("\t", delimiter), encoding=encoding)
    assert [s.site for s in cohort.read(bids)] == ["Zürich", "", "Bern"]


def test_participants_that_give_no_scan_a_site_are_warned_of(bids, caplog):
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-001\t40\n")
    assert [s.site for s in cohort.read(bids)] == ["", "", ""]
    assert "participants.tsv gives no scan a site: expected a column site" in caplog.text


def test_another_folder_in_the_derivatives_gives_the_masks_and_labels_the_centerlines(
    bids, monkeypatch
):
    for name in ("T2w_label-lesion_seg", "label-L_mask", "T2w_lesion-manual"):
        folder = bids / "derivatives" / "rater-2"
        (folder / "sub-001" / "anat").mkdir(parents=True, exist_ok=True)
        own = folder / "sub-001" / "anat" / f"sub-001_{name}.nii.gz"
        own.write_bytes((bids / LABELS / "sub-001_T2w_label-lesion_seg.nii.gz").read_bytes())
        [scan] = cohort.read(folder)
        before = next(s for s in cohort.read(bids) if s.subject == "sub-001")
        assert (scan.lesion_mask, scan.scan.name) == (own, before.scan.name)
        assert scan.centerline is not None
        assert scan.centerline.samefile(before.centerline)
        monkeypatch.chdir(folder)
        assert cohort.read(Path()) == [scan]
        monkeypatch.chdir(bids)
        shutil.rmtree(folder)


def test_a_raw_dataset_in_a_folder_of_that_name_keeps_its_own_labels(bids, tmp_path):
    within = tmp_path / "derivatives" / "raw"
    shutil.copytree(bids, within)
    assert len(cohort.read(within)) == len(cohort.read(bids))


def test_subjects_that_differ_in_capitals_are_warned_of(bids, caplog):
    second = ROW.replace("001", "002").removesuffix("sub-002")
    path = table_of(bids, f"scan\tlesion_mask\tsubject\n{ROW}\n{second}SUB-001\n")
    assert [s.subject for s in cohort.read(path)] == ["sub-001", "SUB-001"]
    assert "sub-001 and SUB-001 are taken for two subjects" in caplog.text


def linked(bids, extension):
    """Let every image of a cohort be a link to a key in a store, as git-annex has them."""
    store = bids / ".git" / "annex"
    store.mkdir(parents=True)
    for number, file in enumerate(sorted(bids.rglob("*.nii.gz"))):
        key = store / f"MD5E-s{number}{extension}"
        file.rename(key)
        file.symlink_to(key)
    return store


@pytest.mark.parametrize("extension", [".nii.gz", ""])
def test_links_keep_their_own_names(bids, extension, tmp_path):
    linked(bids, extension)
    scans = cohort.read(bids)
    cohort.write(scans, tmp_path / "table.tsv")
    assert "MD5E" not in (tmp_path / "table.tsv").read_text()
    assert [s.name for s in cohort.read(tmp_path / "table.tsv")] == [s.name for s in scans]


def test_a_table_in_a_folder_that_is_a_link_leads_to_its_scans(bids, tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "away")
    cohort.write(cohort.read(bids), tmp_path / "near" / "table.tsv")
    again = cohort.read(tmp_path / "near" / "table.tsv")
    assert [s.scan.exists() for s in again] == [True, True, True]


@pytest.mark.parametrize("ending", ["T2w", "label-lesion_seg", "label-centerline"])
def test_links_that_lead_nowhere_are_said(bids, ending):
    lost = sorted(bids.rglob(f"*_{ending}.nii.gz"))[0]
    lost.unlink()
    lost.symlink_to("nowhere.nii.gz")
    with pytest.raises(DataError, match=rf"{lost.name} is a link that leads nowhere; .*git annex"):
        cohort.read(bids)


def test_a_link_that_leads_nowhere_is_said_with_its_line(bids):
    path = table_of(bids, f"scan\tlesion_mask\tsubject\n{ROW}\n")
    (bids / "sub-001" / "anat" / "sub-001_T2w.nii.gz").unlink()
    (bids / "sub-001" / "anat" / "sub-001_T2w.nii.gz").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"line 2: .*leads nowhere"):
        cohort.read(path)


def test_what_is_no_cohort_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such BIDS folder or TSV"):
        cohort.read(tmp_path / "nowhere")
    path = tmp_path / "table.tsv"
    path.write_bytes(gzip.compress(b"scan") + b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as a TSV table"):
        cohort.read(path)


def test_scans_are_named_by_their_files_or_by_their_folders(tmp_path):
    def scan(*parts):
        return cohort.CohortScan(tmp_path.joinpath(*parts), tmp_path / "mask.nii.gz", "s")

    apart = [scan("a", "t2.nii.gz"), scan("b", "t2s.nii.gz")]
    assert list(cohort.names(apart).values()) == ["t2", "t2s"]
    alike = [scan("x", "a", "t2.nii.gz"), scan("x", "b", "1", "t2.nii.gz")]
    assert list(cohort.names(alike).values()) == ["a_t2", "b_1_t2"]
    with pytest.raises(DataError, match="named a_t2"):
        cohort.names([scan("a", "t2.nii.gz"), scan("a_t2.nii.gz"), scan("b", "t2.nii.gz")])


def test_several_cohorts_have_names_and_their_subjects_with_them(bids, tmp_path):
    alone = cohort.read(bids)
    assert cohort.read_several([bids]) == [alone]
    data = write_cohort(tmp_path / "other", subjects=2)
    first, second = cohort.read_several([bids, data])
    assert [scan.subject for scan in second] == ["other/sub-001", "other/sub-002"]
    assert {scan.cohort for scan in first} == {bids.name}
    cohort.write([*first, *second], tmp_path / "both.tsv")
    (again,) = cohort.read_several([tmp_path / "both.tsv"])
    assert sorted(again, key=str) == sorted([*first, *second], key=str)
    third = write_cohort(tmp_path / "third", subjects=1)
    more = cohort.read_several([tmp_path / "both.tsv", third])
    assert [{scan.cohort for scan in own} for own in more] == [{bids.name, "other"}, {"third"}]


def test_cohorts_of_other_derivatives_are_named_by_their_datasets(bids, tmp_path):
    data = write_cohort(tmp_path / "other", subjects=1)
    for one in (bids, data):
        shutil.copytree(one / "derivatives" / "labels", one / "derivatives" / "rater")
    given = [one / "derivatives" / "rater" for one in (bids, data)]
    first, second = cohort.read_several(given)
    assert {scan.cohort for scan in (*first, *second)} == {f"{bids.name}_rater", "other_rater"}


def test_cohorts_that_cannot_be_told_apart_are_refused(bids, tmp_path):
    data = write_cohort(tmp_path / bids.name, subjects=1)
    with pytest.raises(DataError, match=f"two cohorts are named {bids.name}; rename"):
        cohort.read_several([bids, data])
    cohort.write(cohort.read(data), tmp_path / "same.tsv")
    with pytest.raises(DataError, match="is in two of the cohorts"):
        cohort.read_several([data, tmp_path / "same.tsv"])


def test_the_hash_of_a_file_is_that_of_its_bytes_whatever_its_name(tmp_path):
    for name, content in {"a": b"x" * 3_000_000, "b": b"x" * 3_000_000, "c": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    one, other, short = (cohort.file_hash(tmp_path / name) for name in "abc")
    assert one == other != short
    with pytest.raises(ImageError, match=r"gone\.nii: cannot be read"):
        cohort.file_hash(tmp_path / "gone.nii")
