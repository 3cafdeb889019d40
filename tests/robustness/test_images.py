"""Images as disks, networks, converters and other tools leave them."""

import gzip
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sct_lesion_losses.errors import ImageError
from sct_lesion_losses.images import nifti

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])
IMAGE = np.random.default_rng(0).integers(0, 1000, (16, 16, 8)).astype(np.int16)


def plain(image: np.ndarray = IMAGE, affine: np.ndarray = AFFINE, **fields: object) -> bytes:
    """Bytes of a .nii file with some raw header fields replaced."""
    made = nib.Nifti1Image(image, affine)
    made.header.set_xyzt_units("mm")
    block = bytearray(made.to_bytes())
    header = nib.Nifti1Header(bytes(block[:348]), check=False)
    for field, value in fields.items():
        header[field] = value
    return header.binaryblock + bytes(block[348:])


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refused(path: Path, within_mib: float = np.inf) -> str:
    """What is said of an image that is refused, in so much memory."""
    tracemalloc.start()
    with pytest.raises(ImageError) as caught:
        nifti.read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < within_mib * 2**20
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


def accepted(path: Path, caplog: pytest.LogCaptureFixture, said: str) -> nifti.Scan:
    """Read with a warning that is logged, with the base name alone, and kept in the notes."""
    scan = nifti.read(path)
    assert any(said in note for note in scan.notes)
    logged = [record.getMessage() for record in caplog.records]
    assert any(line.startswith(f"{path.name}: ") and said in line for line in logged)
    return scan


# --- the file


@pytest.mark.parametrize("keep", [5, 100, 400, -100, -9, -1])
@pytest.mark.parametrize("gz", [True, False])
def test_a_truncated_file_is_refused(keep: int, gz: bool, tmp_path: Path) -> None:
    content = gzip.compress(plain()) if gz else plain()
    path = put(tmp_path / ("t.nii.gz" if gz else "t.nii"), content[:keep])
    assert "truncated" in refused(path)


def test_a_gzip_stream_that_is_whole_but_holds_too_few_voxels_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "t.nii.gz", gzip.compress(plain()[:-100]))
    said = "truncated: 3996 of 4096 bytes of voxels; copy the file again"
    assert refused(path) == f"{path}: {said}"


@pytest.mark.parametrize("keep", [4, 348, 539])
def test_a_nifti2_file_cut_in_its_header_is_truncated(keep: int, tmp_path: Path) -> None:
    content = nib.Nifti2Image(IMAGE, AFFINE).to_bytes()
    path = put(tmp_path / "t.nii", content[:keep])
    assert refused(path) == f"{path}: truncated in its header; copy the file again"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "no permission to read it; ask its owner"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_a_file_that_cannot_be_opened_is_not_to_be_copied_again(
    error: OSError, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = put(tmp_path / "a.nii", plain())
    monkeypatch.setattr(Path, "open", fail)
    message = refused(path)
    assert said in message
    assert "copy" not in message


def test_a_flipped_bit_of_a_gzip_file_never_changes_a_voxel_unnoticed(tmp_path: Path) -> None:
    content = gzip.compress(plain(), mtime=0)
    rng = np.random.default_rng(1)
    path = tmp_path / "f.nii.gz"
    refusals = 0
    for place in rng.integers(0, len(content), 500):
        broken = bytearray(content)
        broken[place] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            scan = nifti.read(path)
        except ImageError:
            refusals += 1
        else:  # a bit that means nothing: the time in the header, the padding at the end
            assert np.array_equal(scan.array, IMAGE)
            assert np.array_equal(scan.grid.affine, AFFINE)
    assert refusals > 490


GARBAGE = {
    "text": (b"patient id, age\n" * 40, "a text file"),
    "html": (b"<!DOCTYPE html>\n<html><body>404 Not Found" + b" " * 400, "an HTML page"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
        "git lfs pull",
    ),
    "annex": (b"/annex/objects/MD5E-s7--1234.nii.gz\n", "git annex get"),
    "dicom": (b"\0" * 128 + b"DICM" + b"\2\0" * 300, "dcm2niix"),
    "zip": (b"PK\x03\x04" + b"\1" * 500, "unpack it"),
    "noise": (bytes(range(256)) * 3, "not a NIfTI"),
    "short": (b"\x5c\x01", "truncated in its header"),
    "packed": (gzip.compress(b"hello " * 99), "a text file"),
    "empty": (b"", "0 bytes"),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("name", ["g.nii", "g.nii.gz"])
def test_what_is_not_an_image_is_named(kind: str, name: str, tmp_path: Path) -> None:
    content, said = GARBAGE[kind]
    assert said in refused(put(tmp_path / name, content))


def test_a_missing_file_a_dangling_link_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.nii")
    link = tmp_path / "link.nii.gz"
    link.symlink_to(tmp_path / "gone" / "target.nii.gz")
    assert refused(link).endswith("dangling link to target.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.nii")  # not waited for
    for name in ("folder.nii", "pipe.nii"):
        assert "is a folder or a special file" in refused(tmp_path / name)


def test_a_link_to_an_image_is_followed(tmp_path: Path) -> None:
    target = put(tmp_path / "annexed", plain())
    (tmp_path / "link.nii").symlink_to(target)
    assert np.array_equal(nifti.read(tmp_path / "link.nii").array, IMAGE)


@pytest.mark.parametrize(
    "name",
    [
        "T2.NII.GZ",
        "my t2 scan.nii.gz",
        "Rückenmark_脊髄.nii.gz",
        "-t2.nii.gz",
        "x" * 240 + ".nii.gz",
    ],
)
def test_unusual_names_are_read_and_written(name: str, tmp_path: Path) -> None:
    scan = nifti.read(put(tmp_path / name, gzip.compress(plain())))
    nifti.write(tmp_path / name, scan.array, scan, np.int16)
    assert np.array_equal(nifti.read(tmp_path / name).array, IMAGE)
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- claims that would fill the memory


@pytest.mark.parametrize("gz", [True, False])
def test_a_header_that_claims_terabytes_is_refused(gz: bool, tmp_path: Path) -> None:
    content = plain(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    path = put(tmp_path / "t.nii", gzip.compress(content) if gz else content)
    assert "GiB of voxels" in refused(path)


def test_a_claim_that_the_file_cannot_hold_allocates_nothing(tmp_path: Path) -> None:
    content = gzip.compress(plain(dim=[3, 1500, 1500, 1500, 1, 1, 1, 1]))  # 6.3 GiB of int16
    path = put(tmp_path / "t.nii.gz", content)
    assert "cannot hold" in refused(path, within_mib=4)


def test_a_gzip_bomb_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb") as file:
        file.write(plain())
        for _ in range(200):
            file.write(bytes(1 << 20))
    assert "much more data than its header describes" in refused(path, within_mib=8)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
NOWHERE = {"sform_code": 1, "qform_code": 1, "quatern_b": np.nan}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        *(
            (plain(vox_offset=offset), "voxels start at byte")
            for offset in (np.nan, -1, 3, 348, 1e12, np.inf)
        ),
        (plain(np.full(IMAGE.shape, np.nan, np.float32)), "no voxel is a finite number"),
        (plain(np.full(IMAGE.shape, 0, np.int16)), "every voxel is 0"),
        (plain(np.full(IMAGE.shape, 7, np.int16)), "every voxel is 7"),
        (plain(np.zeros((4, 4, 4), RGB)), "RGB colours"),
        (plain(np.ones((4, 4, 4), np.complex64)), "complex numbers"),
        (plain(np.ones((4, 4, 4), np.complex128)), "complex numbers"),
        (plain(datatype=999), "code 999"),
        (plain(dim=[2, 16, 16, 1, 1, 1, 1, 1]), "the image is 2-D, shape (16, 16)"),
        *(
            (plain(dim=[*dim, *[1] * (8 - len(dim))]), "dim is")
            for dim in ([0], [3, 0, 16, 8], [3, -16, 16, 8])
        ),
        (plain(IMAGE.reshape(8, 8, 8, 4)), "holds 4 volumes, shape (8, 8, 8, 4); split it with"),
        (plain(IMAGE.reshape(8, 8, 8, 1, 4)), "holds 4 volumes"),
        (plain(magic=b"ni1"), ".img file"),
        (plain(magic=b""), "Analyze"),
        *(
            (plain(srow_x=row, **NOWHERE), "neither sform nor qform")
            for row in ([np.nan, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0])
        ),
        (plain(sform_code=0, qform_code=0, pixdim=[1, 0, 1, 1, 1, 1, 1, 1]), "no voxel size"),
        *(
            (plain(affine=np.diag([mm, mm, mm, 1])), "check the units")  # metres, micrometres
            for mm in (0.0005, 1000.0)
        ),
    ],
)
def test_a_header_or_voxels_that_are_no_3d_scan_are_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    assert said in refused(put(tmp_path / "a.nii", content))


# --- voxels


def test_nan_and_infinite_voxels_are_counted_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = IMAGE.astype(np.float64) - 5
    image[0, 0, :5] = [np.nan, -np.inf, np.inf, np.nan, 1e300]  # the last is beyond float32
    scan = accepted(put(tmp_path / "n.nii", plain(image)), caplog, "5 of 2048 voxels")
    rest = image[np.abs(image) < 1e9]
    low, high = rest.min(), rest.max()
    assert scan.array[0, 0, :5].tolist() == [low, low, high, low, high]
    assert np.array_equal(scan.array[1:], image[1:])


@pytest.mark.parametrize("shape", [(16, 16, 8, 1), (16, 16, 8, 1, 1), (16, 128, 1)])
def test_one_volume_in_4d_and_one_slice_are_read_as_3d(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    scan = nifti.read(put(tmp_path / "v.nii", plain(IMAGE.reshape(shape))))
    assert np.array_equal(scan.array, IMAGE.reshape(shape[:3]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_values_on_a_surface_are_called_so(tmp_path: Path) -> None:
    axes = (
        nib.cifti2.ScalarAxis(["a"] * 27),
        nib.cifti2.BrainModelAxis.from_surface([0, 1], 9, "CORTEX_LEFT"),
    )
    image = nib.Cifti2Image(np.ones((27, 2), np.float32), header=axes)
    image.to_filename(tmp_path / "thickness.dscalar.nii")
    with pytest.raises(ImageError, match="is a CIFTI file, values on a surface"):
        nifti.read(tmp_path / "thickness.dscalar.nii")


# --- scaling


def test_a_scaling_slope_is_applied_and_zero_means_none(tmp_path: Path) -> None:
    path = put(tmp_path / "s.nii", plain(scl_slope=0.5, scl_inter=-10))
    assert np.array_equal(nifti.read(path).array, IMAGE * 0.5 - 10)
    assert np.array_equal(nifti.read(path).array, nib.load(path).get_fdata())
    scan = nifti.read(put(path, plain(scl_slope=0, scl_inter=7)))
    assert np.array_equal(scan.array, IMAGE)
    assert scan.array.dtype == np.int16


# --- where the voxels are


BOTH = {"sform_code": 1, "qform_code": 1}
PARALLEL = {"srow_x": [1, 1, 0, 0], "srow_y": [1, 1.0005, 0, 0]}  # x and y, but for 0.01 degrees


@pytest.mark.parametrize(
    ("name", "content", "said", "factor"),
    [
        ("a.nii", gzip.compress(plain()), "the content is gzip", 1),
        ("a.nii.gz", plain(), "the content is not gzip", 1),
        ("a.nii.gz", gzip.compress(plain() + bytes(512)), "512 bytes behind the voxels", 1),
        ("a.nii", plain(scl_slope=np.nan, scl_inter=7), "scl_slope", 1),
        ("a.nii", plain(scl_slope=np.inf, scl_inter=0), "scl_slope", 1),
        ("a.nii", plain(scl_slope=2, scl_inter=np.nan), "scl_inter", 2),
        ("a.nii", plain(qform_code=1, qoffset_x=5), "differ by up to 5.0 mm: the sform is used", 1),
        *(
            ("a.nii", plain(srow_x=row, **BOTH), "the sform is singular or not finite", 1)
            for row in ([np.nan, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0])
        ),
        ("a.nii", plain(**PARALLEL, **BOTH), "the sform is singular or not finite", 1),
        ("a.nii", plain(quatern_b=2, qform_code=1), "qform is singular or not finite", 1),
        ("a.nii", plain(**BOTH | {"sform_code": 77}), "the sform code 77", 1),
        ("a.nii", plain(**BOTH | {"qform_code": 77}), "the qform code 77", 1),
    ],
)
def test_what_has_one_sensible_reading_is_read_so_with_a_warning(
    name: str,
    content: bytes,
    said: str,
    factor: float,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scan = accepted(put(tmp_path / name, content), caplog, said)
    assert np.array_equal(scan.array, IMAGE * factor)
    assert np.allclose(scan.grid.affine, AFFINE, atol=1e-6)
    nifti.write(tmp_path / "b.nii", scan.array, scan, np.int16)
    assert np.array_equal(nib.load(tmp_path / "b.nii").affine, scan.grid.affine)


def test_forms_that_differ_by_rounding_are_not_spoken_of(tmp_path: Path) -> None:
    assert nifti.read(put(tmp_path / "a.nii", plain(qform_code=1, qoffset_x=0.01))).notes == ()


def test_without_any_form_the_orientation_is_a_guess(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(tmp_path / "a.nii", plain(sform_code=0, qform_code=0))
    scan = accepted(path, caplog, "the orientation is a guess")
    assert np.array_equal(scan.grid.affine, nib.load(path).affine)


def test_a_qfac_of_0_stands_for_1(tmp_path: Path) -> None:
    made = plain(affine=np.diag([1.0, 1, 2, 1]), sform_code=0, qform_code=1)
    header = nib.Nifti1Header(made[:348], check=False)
    header["pixdim"][0] = 0
    scan = nifti.read(put(tmp_path / "a.nii", header.binaryblock + made[348:]))
    assert np.allclose(scan.grid.affine[:3, :3], np.diag([1, 1, 2]))


def test_negative_voxel_sizes_lose_their_sign(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixdim = [-1, 1, -1, 2, 1, 1, 1, 1]
    path = put(tmp_path / "a.nii", plain(sform_code=0, qform_code=1, pixdim=pixdim))
    scan = accepted(path, caplog, "without their sign")
    assert scan.grid.spacing_mm == (1, 1, 2)


@pytest.mark.parametrize(("shear", "verdict"), [(0.01, ""), (0.1, "warned"), (0.5, "refused")])
def test_shear_is_warned_of_and_beyond_12_degrees_refused(
    shear: float, verdict: str, tmp_path: Path
) -> None:
    affine = np.eye(4)
    affine[0, 1] = shear
    image = nib.Nifti1Image(IMAGE, None)
    image.set_sform(affine, 1)
    image.set_qform(np.eye(4), 0)
    image.to_filename(tmp_path / "a.nii")
    if verdict == "refused":
        assert "27° off a right angle" in refused(tmp_path / "a.nii")
    else:
        notes = nifti.read(tmp_path / "a.nii").notes
        assert ["6° off a right angle" in note for note in notes] == [True] * bool(verdict)


# --- writing


@pytest.fixture
def scan(tmp_path: Path) -> nifti.Scan:
    return nifti.read(put(tmp_path / "scan.nii", plain()))


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from sct_lesion_losses.images import nifti
from sct_lesion_losses.errors import OutputError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
scan = nifti.read(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    nifti.write(Path(sys.argv[2]), scan.array, scan, np.float32)
except OutputError as error:
    print(error)
"""


def test_a_disk_that_fills_leaves_the_old_file_and_no_other(
    scan: nifti.Scan, tmp_path: Path
) -> None:
    target = put(tmp_path / "mask.nii", b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, scan.path, target], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{target}: ")
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.nii", "scan.nii"]


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
def test_outputs_carry_no_text_and_no_extension_of_the_input(name: str, tmp_path: Path) -> None:
    fields = ("descrip", "aux_file", "intent_name", "db_name")
    image = nib.Nifti1Image(IMAGE, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jean Dupont" * 9))
    for field in fields:
        image.header[field] = b"Dupont"
    image.to_filename(tmp_path / "scan.nii")
    scan = nifti.read(tmp_path / "scan.nii")
    assert np.array_equal(scan.array, IMAGE)
    nifti.write(tmp_path / name, scan.array, scan, np.int16)
    content = (tmp_path / name).read_bytes()
    assert b"scan" not in content
    if name.endswith(".gz"):
        assert struct.unpack("<I", content[4:8]) == (0,)  # no time
        content = gzip.decompress(content)
    assert b"Dupont" not in content
    assert len(content) == 352 + IMAGE.nbytes


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@example(changes=[(81, b"\x00\x00\x00\x00\x00\x81\x7f")])  # a signalling NaN in pixdim
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 351), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
    )
)
def test_no_header_however_damaged_gets_past_the_error_tree(
    changes: list[tuple[int, bytes]], tmp_path: Path
) -> None:
    content = bytearray(plain())
    for place, value in changes:
        content[place : place + len(value)] = value
    path = put(tmp_path / "h.nii", bytes(content))
    try:
        scan = nifti.read(path)
    except ImageError:
        return
    assert scan.array.ndim == 3
    assert np.isfinite(scan.array).all()
    nifti.write(tmp_path / "out.nii", scan.array, scan, np.float64)
    again = nib.load(tmp_path / "out.nii")
    assert np.allclose(again.affine, scan.grid.affine, rtol=1e-4, atol=1e-4)
