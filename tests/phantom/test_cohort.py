import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from small_data import contents

from sct_lesion_losses.errors import OutputError, UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom import PhantomScan, make_cohort, make_scan
from sct_lesion_losses.phantom import cohort as phantom_cohort
from sct_lesion_losses.phantom.cohort import scans_of, write_scan
from sct_lesion_losses.phantom.dataset import centerline_mask, claim, description, write_nifti
from sct_lesion_losses.phantom.scan import has_lesions


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(3, 1, tmp_path_factory.mktemp("cohort"), preset="tiny")


def test_a_second_run_writes_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    assert contents(make_cohort(3, 1, tmp_path, preset="tiny", jobs=2)) == contents(cohort)


@pytest.mark.parametrize(
    ("options", "made"),
    [({"n_subjects": 4}, ["001", "002", "003", "004"]), ({"only": ["C"]}, ["002"])],
)
def test_scans_of_a_larger_or_partial_cohort_are_the_same(
    cohort: Path, tmp_path: Path, options: dict[str, Any], made: list[str]
) -> None:
    make_cohort(**{"n_subjects": 3, "seed": 1, "out": tmp_path, "preset": "tiny"} | options)
    assert sorted(path.name for path in tmp_path.glob("sub-*")) == [f"sub-{k}" for k in made]
    known, found = contents(cohort), contents(tmp_path)
    shared = {name for name in known if any(f"sub-{k}" in name for k in made)}
    assert len(shared) > 4
    assert all(found[name] == known[name] for name in shared)
    people = known["participants.tsv"].splitlines()
    rows = [row for row in people if row[4:7].decode() in made]
    assert found["participants.tsv"].splitlines()[1 : len(rows) + 1] == rows


def test_a_subject_with_two_scans_has_sessions(cohort: Path) -> None:
    names = [path.name for path in sorted(cohort.glob("sub-*/**/*_T2w.nii.gz"))]
    assert names == [
        "sub-001_T2w.nii.gz",
        "sub-002_T2w.nii.gz",
        "sub-003_ses-01_T2w.nii.gz",
        "sub-003_ses-02_T2w.nii.gz",
    ]


def test_labels_lie_on_the_grid_of_their_scan(cohort: Path) -> None:
    raw = nib.load(cohort / "sub-001" / "anat" / "sub-001_T2w.nii.gz")
    folder = cohort / "derivatives" / "labels" / "sub-001" / "anat"
    for label in ("lesion_seg", "SC_seg", "centerline"):
        mask = nib.load(folder / f"sub-001_T2w_label-{label}.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        assert mask.shape == raw.shape
        assert np.array_equal(mask.affine, raw.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1}


def test_the_tables_describe_subjects_and_lesions(cohort: Path) -> None:
    people = (cohort / "participants.tsv").read_text().splitlines()
    assert people[0].split("\t")[:2] == ["participant_id", "site"]
    assert len(people) == 4
    assert len({row.split("\t")[1] for row in people[1:]}) == 3
    head, *rows = [line.split("\t") for line in (cohort / "truth.tsv").read_text().splitlines()]
    assert rows
    for row in rows:
        lesion = dict(zip(head, row, strict=True))
        assert (cohort / lesion["scan"]).is_file()
        assert 1.12 <= float(lesion["intensity_ratio"]) <= 2
    made = json.loads((cohort / "dataset_description.json").read_text())["GeneratedBy"][0]
    assert made["Seed"] == 1


def test_108_subjects_have_161_scans_46_of_them_without_lesions() -> None:
    counts = np.array([len(scans_of(k)) for k in range(108)])
    assert counts.sum() == 161
    assert set(counts) == {1, 2}
    assert counts[[not has_lesions(1, k) for k in range(108)]].sum() == 46


@pytest.mark.parametrize(
    ("unlabelled", "lesion_free", "said"),
    [
        ({(0, 0), (1, 0)}, 0.0, "2 of the scans of subjects with lesions; the first is sub-001"),
        ({(2, 1)}, 0.0, "1 of the scans of subjects with lesions; the first is sub-003 ses-02"),
        ({(0, 0)}, 1.0, ""),
        (set(), 0.0, ""),
    ],
)
def test_scans_whose_lesions_are_all_too_small_are_told_of(
    unlabelled: set[tuple[int, int]],
    lesion_free: float,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    scans: list[PhantomScan],
) -> None:
    def small(seed: int, subject: int, scan: int, *, lesions: bool, **rest: Any) -> PhantomScan:
        items = scans[0].lesions if lesions else ()
        volumes = (9.0 * ((subject, scan) not in unlabelled),) * len(items)
        return replace(scans[0], lesions=items, volumes_mm3=volumes)

    monkeypatch.setattr(phantom_cohort, "make_scan", small)
    make_cohort(3, 0, tmp_path, lesion_free=lesion_free, preset="tiny")
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_subjects": 0}, "received 0 subjects and 1 jobs, expected 1 or more"),
        ({"jobs": 0}, "received 1 subjects and 0 jobs, expected 1 or more"),
        ({"lesion_free": 1.5}, "the lesion-free share is 1.5, expected 0 to 1"),
        ({"sites": 0}, "sites is 0, expected 1 to 13"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"raters": -1}, "raters is -1, expected 0 or more"),
        ({"only": ["A", "Z"]}, "no site is named 'Z'; choose from A, B, C, D, E, F, G, .*"),
        ({"only": ["H"], "sites": 3}, "no site is named 'H'; choose from A, B, C"),
        ({"only": ["A"]}, "none of 1 subjects is scanned at A; ask for more subjects"),
        ({"only": ["A"], "preset": "wide"}, "the scans of the preset wide belong to no site; .*"),
        ({"preset": "huge"}, "preset is 'huge', expected tiny, demo, study or wide"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=f"^{said}$"):
        make_cohort(**{"n_subjects": 1, "seed": 1, "out": tmp_path / "cohort", **options})
    assert not (tmp_path / "cohort").exists()


def test_an_interrupted_cohort_is_made_whole_by_the_same_call(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seed: int, subject: int, scan: int, **options: Any) -> PhantomScan:
        if subject == 1:
            raise KeyboardInterrupt
        return make_scan(seed, subject, scan, **options)

    with monkeypatch.context() as patched:
        patched.setattr(phantom_cohort, "make_scan", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_cohort(3, 1, tmp_path, preset="tiny")
    assert (tmp_path / "sub-001").is_dir()
    assert contents(make_cohort(3, 1, tmp_path, preset="tiny")) == contents(cohort)


@pytest.mark.parametrize(
    "options", [{"n_subjects": 2}, {"seed": 2}, {"sites": 5}, {"lesion_free": 0.5}, {"raters": 0}]
)
def test_a_folder_with_another_cohort_is_left_as_it_is(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    usual = {"n_subjects": 1, "seed": 1, "out": tmp_path, "preset": "tiny", "raters": 1}
    make_cohort(**usual)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="choose an empty folder"):
        make_cohort(**(usual | options))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("left", "text", "said"),
    [
        ("sub-009/x", "", "sub-009"),
        ("derivatives/labels/sub-009/x", "", "derivatives/labels/sub-009"),
        ("derivatives/rater-01/x", "", "derivatives/rater-01"),
        ("sub-001/x", "", "no dataset_description.json"),
        ("dataset_description.json", "{", "another dataset_description.json"),
        ("dataset_description.json", "null", "another dataset_description.json"),
    ],
)
def test_a_folder_with_subjects_or_a_description_of_another_dataset_is_refused(
    tmp_path: Path, left: str, text: str, said: str
) -> None:
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text(text)
    with pytest.raises(OutputError, match=rf"holds another cohort \({said}\)"):
        make_cohort(1, 1, tmp_path, preset="tiny")
    assert (tmp_path / left).read_text() == text


def test_what_a_call_that_failed_left_alone_in_its_folder_is_replaced(tmp_path: Path) -> None:
    claim(tmp_path, description("one", "raw", Seed=1), [])
    claim(tmp_path, description("one", "raw", Seed=2), ["sub-001"])
    left = json.loads((tmp_path / "dataset_description.json").read_text())
    assert left["GeneratedBy"][0]["Seed"] == 2
    (tmp_path / "sub-001").mkdir()
    with pytest.raises(OutputError, match=r"another dataset_description\.json"):
        claim(tmp_path, description("one", "raw", Seed=1), ["sub-001"])


def test_a_stored_slope_multiplies_the_stored_numbers(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "a.nii.gz", array, Grid((2, 3, 4), np.eye(4)), slope=0.5)
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert image.dataobj.slope == 0.5
    assert np.array_equal(np.asarray(image.dataobj), array * 0.5)
    assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1


def test_the_centerline_mask_has_one_voxel_in_each_slice(scans: list[PhantomScan]) -> None:
    scan = scans[0]
    _, turn = scan.grid.to_rpi()
    mask = turn.apply(centerline_mask(scan.centerline, scan.grid))
    assert (mask.sum(axis=(0, 1)) == 1).all()
    assert (turn.apply(scan.cord)[mask > 0] == 1).all()


def test_the_sidecar_tells_of_artefacts(scans: list[PhantomScan], tmp_path: Path) -> None:
    write_scan(scans[0], tmp_path, "anat", "a_T2w")
    sidecar = json.loads((tmp_path / "anat" / "a_T2w.json").read_text())
    artefacts = {"flow", "ghost", "edge", "matrix", "fall", "csf_fall", "stripe", "mottle"}
    assert artefacts <= set(sidecar["SimulationProtocol"])


def test_a_scan_without_a_cord_is_written_with_empty_masks(
    cordless: PhantomScan, tmp_path: Path
) -> None:
    write_scan(cordless, tmp_path, "anat", "a_T2w")
    masks = list((tmp_path / "derivatives" / "labels" / "anat").glob("*.nii.gz"))
    assert len(masks) == 3
    assert not any(np.any(nib.load(path).dataobj) for path in masks)
