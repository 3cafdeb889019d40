import gzip
import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sct_lesion_losses.errors import GeometryError, ImageError, OutputError
from sct_lesion_losses.images import nifti

AFFINE = np.array([[-0.5, 0, 0, 12.5], [0, 0.75, 0, -30], [0, 0, 2, 7], [0, 0, 0, 1.0]])
PLACING = [
    *("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
]


def voxels(shape: tuple[int, ...] = (4, 5, 6), dtype: str = "int16") -> np.ndarray:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)
    return path


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("t2.nii.gz", ("t2", ".nii.gz")),
        ("t2.nii", ("t2", ".nii")),
        ("T2.NII.GZ", ("T2", ".NII.GZ")),
        ("my.scan.v2.nii", ("my.scan.v2", ".nii")),
    ],
)
def test_stem_takes_nii_gz_as_one_extension(name: str, parts: tuple[str, str]) -> None:
    assert nifti.stem(Path("folder.nii") / name) == parts


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, "") for name in ("t2", "t2.gz", "t2.nii.gz.json")),
        *((name, f"nib-convert {name} t2.nii.gz") for name in ("t2.mgz", "t2.IMG")),
        *(("cohort.csv", "a table of scans"), ("t2.dcm", "dcm2niix")),
    ],
)
def test_other_formats_are_refused_with_what_to_do(name: str, said: str) -> None:
    with pytest.raises(ImageError, match=rf"ends in \.nii or \.nii\.gz.*{said}"):
        nifti.stem(Path(name))
    assert not nifti.is_nifti_name(Path(name))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "<f4", ">f8"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_every_real_type_is_read_as_nibabel_reads_it(dtype: str, name: str, tmp_path: Path) -> None:
    array = voxels(dtype=dtype)
    image = nib.Nifti1Image(array, AFFINE, dtype=array.dtype)
    header = image.header.as_byteswapped(dtype[0]) if dtype[0] in "<>" else image.header
    nib.Nifti1Image(array, AFFINE, header=header).to_filename(tmp_path / name)
    scan = nifti.read(tmp_path / name)
    assert np.array_equal(scan.array, array)
    assert scan.array.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(scan.grid.affine, AFFINE)
    assert scan.notes == ()


def test_nifti2_is_read_and_written_as_nifti2(tmp_path: Path) -> None:
    nib.Nifti2Image(voxels(), AFFINE).to_filename(tmp_path / "a.nii.gz")
    scan = nifti.read(tmp_path / "a.nii.gz")
    nifti.write(tmp_path / "b.nii.gz", scan.array, scan, np.float32)
    again = nib.load(tmp_path / "b.nii.gz")
    assert isinstance(again, nib.Nifti2Image)
    assert np.array_equal(again.affine, AFFINE)
    assert np.array_equal(np.asarray(again.dataobj), voxels())


def placed(tmp_path: Path, affine: np.ndarray, s_code: int, q_code: int) -> Path:
    image = nib.Nifti1Image(voxels(), None)
    image.set_sform(affine, s_code)
    image.set_qform(affine, q_code)
    image.header.set_xyzt_units("mm", "sec")
    path = tmp_path / "a.nii.gz"
    image.to_filename(path)
    return path


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 0), (0, 1), (4, 3), (0, 0)])
def test_sform_qform_and_codes_of_an_output_are_those_of_the_input(
    codes: tuple[int, int], tmp_path: Path
) -> None:
    path = placed(tmp_path, AFFINE, *codes)
    scan = nifti.read(path)
    nifti.write(tmp_path / "b.nii.gz", scan.array > 3, scan, np.uint8)
    one, two = nib.load(path).header, nib.load(tmp_path / "b.nii.gz").header
    for field in PLACING:
        assert np.array_equal(one[field], two[field]), field
    assert np.array_equal(one["pixdim"][:4], two["pixdim"][:4])
    assert np.array_equal(nib.load(path).affine, nib.load(tmp_path / "b.nii.gz").affine)
    assert two.get_data_dtype() == np.uint8


ORDERS = list(itertools.permutations(range(3)))
SIGNS = list(itertools.product((1, -1), repeat=3))


@pytest.mark.parametrize("order", ORDERS)
def test_all_48_axis_orders_come_back_bit_for_bit(
    order: tuple[int, int, int], tmp_path: Path
) -> None:
    for signs in SIGNS:  # half of them are left-handed
        affine = np.eye(4)
        affine[:3, :3] = (np.diag(signs) @ np.diag([0.5, 0.75, 2.0]))[:, order]
        affine[:3, 3] = [10, -20, 30]
        path = placed(tmp_path, affine, 1, 1)
        scan = nifti.read(path)
        assert np.array_equal(scan.grid.affine, affine)
        assert scan.notes == ()
        nifti.write(tmp_path / "b.nii.gz", scan.array, scan, np.int16)
        again = nifti.read(tmp_path / "b.nii.gz")
        assert np.array_equal(again.array, scan.array)
        assert np.array_equal(
            nib.load(tmp_path / "b.nii.gz").get_qform(), nib.load(path).get_qform()
        )


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-0.8, 0.8)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    gz=st.booleans(),
)
def test_oblique_grids_come_back_as_nibabel_reads_them(
    angles: tuple[float, ...], spacing: tuple[float, ...], gz: bool, tmp_path: Path
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*angles) @ np.diag(spacing)
    path = tmp_path / ("o.nii.gz" if gz else "o.nii")
    save(path, voxels(), affine)
    scan = nifti.read(path)
    assert np.array_equal(scan.grid.affine, nib.load(path).affine)
    nifti.write(path, scan.array, scan, np.int16)
    assert np.array_equal(nib.load(path).affine, scan.grid.affine)
    assert np.array_equal(nifti.read(path).array, scan.array)


def test_the_same_array_gives_the_same_bytes_packed_or_not(tmp_path: Path) -> None:
    scan = nifti.read(save(tmp_path / "a.nii.gz", voxels()))
    for name in ("b.nii.gz", "ANOTHER NAME.NII.GZ", "c.nii"):
        nifti.write(tmp_path / name, scan.array, scan, np.float32)
    packed = (tmp_path / "b.nii.gz").read_bytes()
    assert packed == (tmp_path / "ANOTHER NAME.NII.GZ").read_bytes()
    flags, mtime = struct.unpack("<xxxBI", packed[:8])
    assert (flags, mtime) == (0, 0)  # no file name, no time
    assert gzip.decompress(packed) == (tmp_path / "c.nii").read_bytes()


def test_an_array_that_does_not_fit_the_scan_or_the_type_is_not_written(tmp_path: Path) -> None:
    scan = nifti.read(save(tmp_path / "a.nii", voxels()))
    with pytest.raises(GeometryError, match=r"\(1, 1, 1\)"):
        nifti.write(tmp_path / "b.nii", np.zeros((1, 1, 1)), scan, np.uint8)
    with pytest.raises(OutputError, match="do not fit uint8"):
        nifti.write(tmp_path / "b.nii", np.full((4, 5, 6), 256), scan, np.uint8)
    assert not (tmp_path / "b.nii").exists()


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_mask_is_read_as_bool(top: int, dtype: str, tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), dtype)
    array[1, 2, 3] = top
    mask = nifti.read_mask(save(tmp_path / "m.nii.gz", array))
    assert mask.array.dtype == bool
    assert np.argwhere(mask.array).tolist() == [[1, 2, 3]]
    assert bool(mask.notes) == (top == 255)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_labels_are_read_as_whole_numbers(dtype: str, tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), dtype)
    array[1, 2, 3], array[0, 0, 0] = 5, 50
    labels = nifti.read_labels(save(tmp_path / "l.nii.gz", array)).array
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, array)


@pytest.mark.parametrize("value", [2.5, -1.0, 1e9, np.nan])
def test_labels_that_are_no_whole_numbers_are_refused(value: float, tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), "f4")
    array[1, 2, 3] = value
    with pytest.raises(ImageError, match="expected whole numbers from 0"):
        nifti.read_labels(save(tmp_path / "l.nii.gz", array))


def test_labels_on_another_grid_than_their_image_are_refused(tmp_path: Path) -> None:
    image = nifti.read(save(tmp_path / "i.nii", voxels())).grid
    path = save(tmp_path / "l.nii", voxels((4, 5, 7)))
    with pytest.raises(GeometryError, match=r"l\.nii: shape \(4, 5, 7\) on an image of shape"):
        nifti.read_labels(path, like=image)


def test_a_pmap_is_read_as_it_was_written(tmp_path: Path) -> None:
    scan = nifti.read(save(tmp_path / "a.nii", voxels()))
    pmap = np.linspace(0, 1, 120, dtype=np.float32).reshape(4, 5, 6)
    nifti.write(tmp_path / "p.nii.gz", pmap, scan, np.float32)
    again = nifti.read_pmap(tmp_path / "p.nii.gz")
    assert again.array.dtype == np.float32
    assert np.array_equal(again.array, pmap)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (voxels(dtype="uint8"), "floating-point probabilities"),
        (voxels(dtype="float32"), "values from 0 to 119"),
        (np.full((2, 2, 2), np.nan, "float32"), "values from nan to nan"),
        (np.full((2, 2, 2), -0.1, "float32"), "expected probabilities"),
    ],
)
def test_what_is_no_pmap_is_refused(array: np.ndarray, said: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=said):
        nifti.read_pmap(save(tmp_path / "p.nii", array))


def test_real_scans_are_read_as_nibabel_reads_them(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = sorted((shared / "data" / "sct_testing_data").rglob("*.nii.gz"))
    assert len(paths) == 13
    for path in paths:
        scan, image = nifti.read(path), nib.load(path)
        assert np.array_equal(scan.array, np.asarray(image.dataobj)), path.name
        assert np.array_equal(scan.grid.affine, image.affine), path.name
    assert caplog.records == []
