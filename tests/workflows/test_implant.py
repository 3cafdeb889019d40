"""A cohort of implants: what is written, named and refused."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_data import contents, reoriented, table_rows

from sct_lesion_losses.cohorts import table
from sct_lesion_losses.errors import DataError, OutputError, UsageError
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images import nifti
from sct_lesion_losses.phantom import make_scan
from sct_lesion_losses.phantom.dataset import write_nifti
from sct_lesion_losses.workflows import implant
from sct_lesion_losses.workflows.implant import ImplantSettings

SETTINGS = ImplantSettings(variants=3, seed=2, free=0.4, acquisitions=("native", "axial"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> tuple[list[Path], list[Path]]:
    """Two lesion-free scans with their cord masks."""
    folder = tmp_path_factory.mktemp("hosts")
    scans, cords = [], []
    for seed, name in enumerate(("sub-01_T2w", "healthy two")):
        scan = make_scan(seed, preset="tiny", lesions=False)
        scans.append(folder / f"{name}.nii.gz")
        cords.append(folder / f"{name}_seg.nii.gz")
        write_nifti(scans[-1], scan.image, scan.grid)
        write_nifti(cords[-1], scan.cord, scan.grid)
    return scans, cords


@pytest.fixture(scope="module")
def made(hosts, tmp_path_factory) -> Path:
    return implant.run(*hosts, tmp_path_factory.mktemp("made") / "cohort", SETTINGS)


def test_a_cohort_of_implants_is_a_cohort_with_one_subject_a_host(made):
    scans = table.read(made)
    assert [scan.name for scan in scans if scan.subject == "sub-01"] == [
        "sub-01_acq-axial_run-02_T2w",
        "sub-01_acq-native_run-01_T2w",
        "sub-01_acq-native_run-03_T2w",
    ]
    assert {scan.subject for scan in scans} == {"sub-01", "sub-healthytwo"}
    assert {scan.site for scan in scans} == {"implants"}
    for scan in scans:
        grid = nifti.read(scan.scan).grid
        lesion = table.read_lesions(scan, grid).array
        cord_mask = table.cord_mask(scan)
        assert cord_mask is not None
        cord = nifti.read_mask(cord_mask, like=grid).array
        assert not (lesion & ~cord).any()
        assert scan.centerline is not None


def test_the_truth_table_holds_the_labelled_volume_of_every_scan(made):
    truth = table_rows(made / "truth.tsv")
    assert {row["level"] for row in truth} == {"n/a"}
    free = 0
    for scan in table.read(made):
        mask = nifti.read_mask(scan.lesion_mask)
        own = [float(row["volume_mm3"]) for row in truth if row["scan"].endswith(scan.scan.name)]
        volume = mask.array.sum() * mask.grid.voxel_volume_mm3
        assert sum(own) == pytest.approx(volume, abs=0.05 * max(len(own), 1))
        free += not own
    assert free == 2  # 0.4 of six, of each host one


def test_a_native_variant_is_its_host_away_from_lesions(hosts, made):
    host = nib.load(hosts[0][0])
    for variant in sorted(made.glob("sub-01/anat/*native*.nii.gz")):
        image = nib.load(variant)
        np.testing.assert_array_equal(image.affine, host.affine)
        assert image.get_data_dtype() == host.get_data_dtype()
        changed = np.asanyarray(image.dataobj) != np.asanyarray(host.dataobj)
        assert changed.mean() < 0.1
        sidecar = json.loads(variant.with_name(variant.name[:-7] + ".json").read_text())
        assert sidecar["ImplantHost"] == "sub-01_T2w"
        assert sidecar["ImplantHostHash"] == table.content_hash(nifti.read(hosts[0][0]).array)
        assert sidecar["ImplantCord"] == "given"


def test_the_same_call_writes_the_same_bytes_whatever_else_is_in_it(hosts, made, tmp_path):
    scans, cords = hosts
    implant.run(scans[1:], cords[1:], tmp_path / "one", SETTINGS)
    one = contents(tmp_path / "one")
    both = contents(made)
    shared = [name for name in one if "sub-" in name]
    assert len(shared) == 3 * 5  # scan, sidecar and three labels
    assert all(one[name] == both[name] for name in shared)
    again = implant.run(scans, cords, made, SETTINGS)
    assert contents(again) == both


@pytest.mark.parametrize("acquisition", ["native", "axial"])
def test_the_axis_order_of_a_host_does_not_matter(hosts, made, tmp_path, acquisition):
    turned = []
    for path in (hosts[0][0], hosts[1][0]):
        turned.append(tmp_path / path.name)
        nib.save(reoriented(nib.load(path), "SPR"), turned[-1])
    other = implant.run(turned[:1], turned[1:], tmp_path / "turned", SETTINGS)
    for pattern in ("sub-01/anat/*T2w.nii.gz", "derivatives/labels/sub-01/anat/*_seg.nii.gz"):
        for path in sorted(made.glob(pattern)):
            if acquisition in path.name:
                same = other / path.relative_to(made)
                one, two = (nib.as_closest_canonical(nib.load(file)) for file in (path, same))
                np.testing.assert_array_equal(one.get_fdata(), two.get_fdata())
                np.testing.assert_allclose(one.affine, two.affine, atol=1e-5)


def test_a_bids_folder_is_taken_with_its_cord_masks(hosts, tmp_path, caplog):
    labels = tmp_path / "bids" / "derivatives" / "labels" / "sub-01" / "anat"
    anat = tmp_path / "bids" / "sub-01" / "anat"
    for folder in (labels, anat):
        folder.mkdir(parents=True)
    (anat / "sub-01_T2w.nii.gz").write_bytes(hosts[0][0].read_bytes())
    (labels / "sub-01_T2w_label-SC_seg.nii.gz").write_bytes(hosts[1][0].read_bytes())
    out = implant.run([tmp_path / "bids"], [], tmp_path / "out", ImplantSettings(variants=1))
    (sidecar,) = (out / "sub-01" / "anat").glob("*.json")
    assert json.loads(sidecar.read_text())["ImplantCord"] == "given"
    with pytest.raises(UsageError, match="one BIDS folder alone, or single scans"):
        implant.run([tmp_path / "bids", hosts[0][1]], [], tmp_path / "out")
    with pytest.raises(UsageError, match="-cord goes with single scans"):
        implant.run([tmp_path / "bids"], hosts[1], tmp_path / "out")
    assert "estimated" not in caplog.text


def test_a_cord_is_estimated_and_said_where_no_mask_is_given(hosts, tmp_path, caplog):
    out = implant.run(hosts[0][:1], [], tmp_path / "out", ImplantSettings(variants=1))
    assert "it is estimated around the centerline" in caplog.text
    (found,) = out.glob("derivatives/labels/sub-01/anat/*SC_seg.nii.gz")
    mask, truth = (nifti.read_mask(path).array for path in (found, hosts[1][0]))
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.8


def test_what_cannot_be_implanted_into_is_refused(hosts, tmp_path):
    scans, cords = hosts
    with pytest.raises(UsageError, match="received 2 scans and 1 cord masks"):
        implant.run(scans, cords[:1], tmp_path)
    with pytest.raises(UsageError, match="another scan has the same name"):
        implant.run([scans[0], scans[0]], [], tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sub-99").mkdir()
    with pytest.raises(OutputError, match=r"another cohort \(sub-99\)"):
        implant.run(scans, cords, tmp_path / "other")
    cord = nib.load(cords[0])
    empty = np.zeros(cord.shape, np.uint8)
    empty[8:12, 8:12, 8:12] = 1
    nib.save(nib.Nifti1Image(empty, cord.affine), tmp_path / "small.nii.gz")
    with pytest.raises(DataError, match=r"sub-01_T2w.*covers \d+ axial slices"):
        implant.run(scans[:1], [tmp_path / "small.nii.gz"], tmp_path / "out")


def test_a_host_has_one_copy_among_its_variants(hosts, tmp_path):
    settings = ImplantSettings(variants=4, free=0.99, acquisitions=("native",))
    out = implant.run(hosts[0][:1], hosts[1][:1], tmp_path / "out", settings)
    host = nib.load(hosts[0][0]).get_fdata()
    same = [(nib.load(scan.scan).get_fdata() == host).all() for scan in table.read(out)]
    assert sum(same) == 1


def test_the_cord_mask_is_written_whole_where_the_estimate_is_doubtful(
    hosts, tmp_path, monkeypatch
):
    grid, turn = nifti.read(hosts[0][0]).grid.to_rpi()
    mask = turn.apply(nifti.read_mask(hosts[1][0]).array)
    certain = mask.any((0, 1))
    middle = slice(grid.shape[2] // 2, grid.shape[2] // 2 + 3)
    certain[middle] = False
    found = implant.cords.CordEstimate(mask, certain)
    monkeypatch.setattr(implant.cords, "estimate", lambda image, line: found)
    out = implant.run(hosts[0][:1], [], tmp_path / "out", ImplantSettings(free=0))
    for path in out.glob("derivatives/labels/sub-01/anat/*SC_seg.nii.gz"):
        np.testing.assert_array_equal(turn.apply(nifti.read_mask(path).array), mask)
    for row in table_rows(out / "truth.tsv"):  # none has an end on either side of what is doubtful
        ends = float(row["s_mm"]) + np.array([-1, 1]) * float(row["half_length_mm"])
        top = np.flatnonzero(mask.any((0, 1)))[-1]
        z = top + ends / grid.spacing_mm[2]
        assert z[1] < middle.stop or z[0] > middle.start - 1


@pytest.mark.parametrize(
    ("dtype", "highest", "expected"),
    [
        (np.int16, 32767.0, np.int16),
        (np.int16, 32768.0, np.float32),
        (np.uint8, 255.4, np.uint8),
        (np.float32, 4e4, np.float32),
        (np.dtype(">i2"), 100.0, np.dtype(">i2")),
    ],
)
def test_a_signal_has_the_type_of_its_host_where_it_fits(dtype, highest, expected):
    signal = np.array([0, highest], np.float32)
    typed = implant._typed(signal, np.dtype(dtype))
    assert typed.dtype == expected
    np.testing.assert_allclose(typed, signal, atol=0.5)


def named(*paths: str) -> list[str]:
    return ["_".join(names) for _, names in implant._named([Path(path) for path in paths])]


def test_the_names_of_hosts_become_labels_that_tell_them_apart():
    assert named("a/sub-a b_ses-1.2_T2w.nii.gz") == ["sub-ab_ses-12"]
    assert named("s1/t2.nii.gz", "s2/t2.nii.gz", "s3/t2_ax.nii.gz") == [
        "sub-s1t2",
        "sub-s2t2",
        "sub-t2ax",
    ]
    assert named("x/a_b.nii", "y/ab.nii") == ["sub-xab", "sub-yab"]
    assert named("x/sub-ab_T2w.nii", "y/ab.nii") == ["sub-ab", "sub-yab"]
    assert named("sub-1_ses-1/t2.nii", "sub-1_ses-2/t2.nii") == ["sub-sub1ses1t2", "sub-sub1ses2t2"]
    assert named("x/脊髄.nii") == ["sub-x"]
    assert named("x/sub-01_acq-ax_T2w.nii", "x/sub-01_acq-sag_T2w.nii") == ["sub-01", "sub-01"]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (("x/a_b.nii", "x/ab.nii"), "another scan would be sub-xab too"),
        (("x/sub-a b_T2w.nii", "x/sub-ab_T2w.nii"), "another scan would be sub-ab too"),
        (("x/sub-1_ses-a+_T2w.nii", "x/sub-1_ses-a_T2w.nii"), "would be sub-1_ses-a too"),
        (("x/t2.nii", "y/x/t2.nii"), "another scan has the same name"),
        (("脊/髄.nii",), "no ASCII letter or digit"),
        (("x/sub-01_ses-+_T2w.nii",), "no ASCII letter or digit"),
    ],
)
def test_hosts_that_cannot_be_told_apart_by_name_are_refused(paths, said):
    with pytest.raises(UsageError, match=said):
        named(*paths)


def test_a_scan_too_coarse_for_an_acquisition_is_refused_before_it_is_written(tmp_path):
    x, y, _ = np.indices((24, 24, 12))
    cord = np.hypot(x - 12, y - 12) <= 5
    image = np.where(cord, 100, 300).astype(np.int16)
    grid = Grid((24, 24, 12), np.diag([-1.0, 1.0, 5.0, 1.0]))
    write_nifti(tmp_path / "thick.nii.gz", image, grid)
    write_nifti(tmp_path / "cord.nii.gz", cord.astype(np.uint8), grid)
    files = [tmp_path / "thick.nii.gz"], [tmp_path / "cord.nii.gz"]
    settings = ImplantSettings(acquisitions=("native", "isotropic"))
    with pytest.raises(DataError, match=r"thick.nii.gz: its voxels of 1 × 1 × 5 mm are too coarse"):
        implant.run(*files, tmp_path / "out", settings)
    assert not list((tmp_path / "out").glob("sub-*"))
    # What the failed call left does not stand in the way of the next one.
    implant.run(*files, tmp_path / "out", ImplantSettings(variants=1))
