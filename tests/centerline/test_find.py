from __future__ import annotations

import logging
import stat
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from geometry import PADDINGS, Padding

from sct_lesion_losses.centerline import find
from sct_lesion_losses.errors import CenterlineError, GeometryError, SctError, UsageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])
SHAPE = (20, 22, 6)
FOUND = Centerline(Grid(SHAPE, LAS), np.ones((6, 2)), "embedded (detector test)")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture
def grid() -> Grid:
    return Grid(SHAPE, LAS)


@pytest.fixture
def no_sct(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.fixture
def cord_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "shows_cord", lambda *_: True)
    monkeypatch.setattr(find, "detect", lambda *_: FOUND)


def save(path: Path, mask: np.ndarray, affine: np.ndarray = LAS) -> Path:
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), path)
    return path


def line_mask(slices: range | list[int]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for z in slices:
        mask[10 + z, 5, z] = 1
    return mask


def fake_sct(root: Path, script: str) -> Path:
    """Make an SCT installation whose centerline command is a shell script."""
    (root / "bin").mkdir(parents=True)
    (root / "data" / "optic_models").mkdir(parents=True)
    for name, text in {"sct_get_centerline": script, "sct_version": "echo test"}.items():
        command = root / "bin" / name
        command.write_text(f"#!/bin/sh\n{text}\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return root


@pytest.mark.usefixtures("no_sct", "cord_everywhere")
def test_auto_without_sct_is_the_embedded_detector_and_says_so(
    image: np.ndarray, grid: Grid, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        line = find.centerline(image, grid)
    assert line.method == FOUND.method
    assert "SCT was not found: the embedded detector" in caplog.text


@pytest.mark.sct
@pytest.mark.usefixtures("sct_dir", "cord_everywhere")
@pytest.mark.parametrize("method", ["auto", "svm"])
def test_scts_weights_alone_give_optic_computed_here(
    image: np.ndarray, grid: Grid, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    line = find.centerline(image, grid, method, contrast="t2_ax")
    assert line.method == "svm (OptiC computed here with SCT's weights)"
    assert line.covered.all()


@pytest.mark.usefixtures("cord_everywhere")
def test_where_scts_command_is_installed_svm_runs_it(
    image: np.ndarray, grid: Grid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = save(tmp_path / "result.nii.gz", line_mask(range(6)))
    root = fake_sct(tmp_path / "sct", f'echo "$@" > "{tmp_path}/said"; cp "{result}" "$8"')
    monkeypatch.setenv("SCT_DIR", str(root))
    line = find.centerline(image, grid, "auto", contrast="t2s")
    said = (tmp_path / "said").read_text().split()
    assert line.method == "svm (SCT's sct_get_centerline)"
    assert line.xy.tolist() == [[10 + z, 5] for z in range(6)]
    assert said[:7] == ["-i", "scan.nii", "-method", "optic", "-c", "t2s", "-o"]


def test_the_viewer_is_scts(
    image: np.ndarray, grid: Grid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = save(tmp_path / "result.nii.gz", line_mask([0, 5]))
    root = fake_sct(tmp_path / "sct", f'cp "{result}" "$6"')
    monkeypatch.setenv("SCT_DIR", str(root))
    line = find.centerline(image, grid, "viewer")
    assert line.method == "viewer (SCT's sct_get_centerline)"
    assert line.xy[2].tolist() == [12, 5]


def test_a_command_that_writes_nothing_is_an_error(
    image: np.ndarray, grid: Grid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCT_DIR", str(fake_sct(tmp_path / "sct", "exit 0")))
    with pytest.raises(SctError, match="wrote no centerline"):
        find.centerline(image, grid, "svm")


@pytest.mark.sct
@pytest.mark.usefixtures("sct_dir")
def test_the_viewer_without_scts_commands_says_what_to_install(
    image: np.ndarray, grid: Grid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SctError, match="sct_get_centerline was not found; install it"):
        find.centerline(image, grid, "viewer")


@pytest.mark.usefixtures("no_sct")
@pytest.mark.parametrize("method", ["svm", "cnn", "viewer"])
def test_methods_of_sct_without_sct_are_refused(image: np.ndarray, grid: Grid, method: str) -> None:
    with pytest.raises(SctError, match="SCT_DIR"):
        find.centerline(image, grid, method)


@pytest.mark.sct
@pytest.mark.usefixtures("sct_dir")
@pytest.mark.parametrize("method", ["auto", "svm", "cnn", "embedded"])
def test_a_volume_without_a_cord_is_refused_whatever_the_method(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    noise = np.random.default_rng(0).normal(500, 100, (60, 70, 30)).astype(np.float32)
    with pytest.raises(CenterlineError, match=r"no spinal cord was (recognised|found)"):
        find.centerline(noise, Grid(noise.shape, np.diag([-1.0, 1.0, 3.0, 1.0])), method)


@pytest.mark.parametrize("method", ["file", "auto"])
def test_a_mask_file_gives_its_centre_in_each_slice(
    image: np.ndarray, grid: Grid, method: str, tmp_path: Path
) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:11, 4:9, 1:5] = 1
    file = save(tmp_path / "cord.nii.gz", mask)
    line = find.centerline(image, grid, method, file=file)
    assert line.method == "file (cord.nii.gz)"
    assert np.flatnonzero(line.covered).tolist() == [1, 2, 3, 4]
    assert line.xy[1].tolist() == [9, 6]


def test_the_file_may_store_its_axes_in_another_order(
    image: np.ndarray, grid: Grid, tmp_path: Path
) -> None:
    stored = nib.Nifti1Image(line_mask(range(6)), LAS).as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(stored, tmp_path / "turned.nii.gz")
    line = find.centerline(image, grid, "file", file=tmp_path / "turned.nii.gz")
    assert line.xy.tolist() == [[10 + z, 5] for z in range(6)]


def test_gaps_of_the_file_are_interpolated_with_a_warning(
    image: np.ndarray, grid: Grid, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(tmp_path / "gaps.nii.gz", line_mask([0, 1, 4]))
    line = find.centerline(image, grid, "file", file=file)
    assert "2 slices between others have no point" in caplog.text
    assert line.xy[:5].tolist() == [[10 + z, 5] for z in range(5)]
    assert not line.covered[5]


def test_an_empty_file_is_refused(image: np.ndarray, grid: Grid, tmp_path: Path) -> None:
    file = save(tmp_path / "empty.nii.gz", line_mask([]))
    with pytest.raises(CenterlineError, match=r"empty\.nii\.gz: the mask is empty"):
        find.centerline(image, grid, "file", file=file)


@pytest.mark.parametrize("change", ["shifted", "cropped"])
def test_a_file_on_another_grid_is_refused_with_both_grids(
    image: np.ndarray, grid: Grid, change: str, tmp_path: Path
) -> None:
    affine, mask = LAS.copy(), line_mask(range(6))
    if change == "shifted":
        affine[2, 3] = 3
    else:
        mask = mask[1:]
    file = save(tmp_path / "other.nii.gz", mask, affine)
    with pytest.raises(GeometryError, match="20 × 22 × 6 voxels of 1 × 1 × 1 mm"):
        find.centerline(image, grid, "file", file=file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "expected one of auto, svm, cnn, viewer, file, embedded"),
        ({"contrast": "flair"}, "'flair'"),
        ({"method": "file"}, "-file_centerline <file>"),
        ({"method": "svm", "file": Path("x.nii.gz")}, "not with svm"),
    ],
)
def test_wrong_use_is_named(
    image: np.ndarray, grid: Grid, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find.centerline(image, grid, **arguments)


@pytest.mark.usefixtures("no_sct")
@pytest.mark.parametrize(
    ("by_itself", "of_sct"), [("auto", ["auto"]), ("embedded", ["svm", "viewer"])]
)
def test_a_method_is_another_with_another_detector_or_another_sct(
    by_itself: str, of_sct: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = [find.identity(by_itself)]
    assert find.identity(by_itself) == found[0]
    other = replace(find.shipped(), limit=find.shipped().limit + 0.001)
    with monkeypatch.context() as patched:
        patched.setattr(find, "shipped", lambda: other)
        found.append(find.identity(by_itself))
    for version in ("6.5", "7.1"):
        root = fake_sct(tmp_path / version, "true")
        (root / "spinalcordtoolbox").mkdir()
        (root / "spinalcordtoolbox" / "version.txt").write_text(version)
        monkeypatch.setenv("SCT_DIR", str(root))
        found += [find.identity(method) for method in of_sct]
    assert len(set(found)) == 2 + 2 * len(of_sct)


def test_a_file_is_no_method_with_an_identity() -> None:
    with pytest.raises(UsageError, match="-centerline file needs"):
        find.identity("file")


@pytest.mark.sct
@pytest.mark.usefixtures("sct_dir")
def test_every_method_of_scts_knows_its_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {find.identity(method) for method in ("svm", "cnn", "embedded")}
    assert len(found) == 3
    assert find.identity("svm") == find.identity()
    monkeypatch.setattr(find.sct_centerline, "ctr_model", lambda _contrast: b"another")
    assert find.identity("cnn") not in found


@pytest.mark.sct
@pytest.mark.usefixtures("sct_dir")
def test_the_automatic_method_knows_scts_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = find.identity()
    assert before != find.identity(contrast="t1")
    monkeypatch.delenv("SCT_DIR")
    assert find.identity() != before


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("method", ["embedded", "file", "file as SCT"])
def test_blank_planes_do_not_move_the_line(
    padding: Padding,
    method: str,
    testing_data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if method == "file as SCT":  # whose grid depends on the columns
        padding = replace(padding, before=(0, 0, 9), after=(0, 0, 4))
    scan, cord = (
        nib.as_closest_canonical(nib.load(testing_data / f"t2_fake_lesion{end}.nii.gz"))
        for end in ("", "_sc_seg")
    )
    rpi, reorientation = Grid(scan.shape, scan.affine).to_rpi()
    image = reorientation.apply(np.asarray(scan.dataobj))
    mask = reorientation.apply(np.asarray(cord.dataobj)).astype(np.uint8)
    more, grid = padding.of(image, rpi)
    options: dict[str, object] = {"as_sct": method.endswith("SCT")}
    if method != "embedded":
        options["file"] = save(tmp_path / "cord.nii.gz", mask, rpi.affine)
    expected = find.centerline(image, rpi, method.split()[0], **options)
    assert caplog.messages == []
    if method != "embedded":  # drawn through the blank slices as well
        drawn = np.pad(mask, list(zip(padding.before, padding.after, strict=True)), mode="edge")
        for z in padding.between:
            drawn = np.insert(drawn, z, drawn[:, :, z], axis=2)
        options["file"] = save(tmp_path / "cord.nii.gz", drawn, grid.affine)
    found = find.centerline(more, grid, method.split()[0], **options)
    blank = more.shape[2] - image.shape[2]
    shift = found.grid.to_voxel(grid.to_world(np.array([*padding.before[:2], 0.0])))
    shift -= found.grid.to_voxel(grid.to_world(np.zeros(3)))
    assert len(found.xy) - found.covered.sum() == len(expected.xy) - expected.covered.sum() + blank
    np.testing.assert_allclose(
        found.xy[found.covered] - shift[:2], expected.xy[expected.covered], atol=1e-3
    )
    assert caplog.messages[-1].startswith("no signal in")


WAVE = np.column_stack([10 + np.sin(np.arange(6.0)), 5.3 + np.arange(6) / 7, np.arange(6.0)])


def csv_of(path: Path, points: np.ndarray = WAVE) -> Path:
    np.savetxt(path, points, delimiter=",")  # as SCT does
    return path


@pytest.mark.parametrize("given", ["line.csv", "line.nii.gz"])
def test_a_csv_gives_the_line_in_full_digits_by_itself_or_beside_its_image(
    given: str, image: np.ndarray, grid: Grid, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.zeros(SHAPE)
    mask[tuple(np.rint(WAVE).astype(int).T)] = 1
    save(tmp_path / "line.nii.gz", mask)
    csv_of(tmp_path / "line.csv")
    line = find.centerline(image, grid, file=tmp_path / given)
    np.testing.assert_array_equal(line.xy, WAVE[:, :2])
    assert line.method == "file (line.csv)"
    assert caplog.messages == []


def test_a_csv_of_another_line_beside_an_image_is_not_used(
    image: np.ndarray, grid: Grid, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(tmp_path / "line.nii.gz", line_mask(range(6)))
    csv_of(tmp_path / "line.csv")
    line = find.centerline(image, grid, file=file)
    assert line.xy.tolist() == [[10 + z, 5] for z in range(6)]
    assert "line.csv: holds another line than line.nii.gz" in caplog.text


def test_a_csv_that_cannot_be_read_is_named(image: np.ndarray, grid: Grid, tmp_path: Path) -> None:
    with pytest.raises(CenterlineError, match=r"away\.csv: cannot be read"):
        find.centerline(image, grid, file=tmp_path / "away.csv")
    with pytest.raises(CenterlineError, match=r"far\.csv: row 6 is"):
        find.centerline(image, grid, file=csv_of(tmp_path / "far.csv", WAVE + np.array([0, 0, 1])))


def block(half: int, slices: slice = slice(None)) -> np.ndarray:
    mask = np.zeros((40, 40, 12), np.uint8)
    mask[20 - half : 20 + half, 20 - half : 20 + half, slices] = 1
    return mask


def zigzag() -> np.ndarray:
    mask = np.zeros((40, 40, 12), np.uint8)
    mask[20, 10, ::2], mask[20, 30, 1::2] = 1, 1
    return mask


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (block(20), "1600 mm² in the middle of its axial slices, a cord has 20 to 200"),
        (block(2, slice(3, 7)), "16 mm² in the middle of its axial slices"),
        (zigzag(), "11 jumps from slice to slice, the first of 20 mm to slice 1 from below"),
        (block(5), None),
        (block(1), None),
    ],
)
def test_what_cannot_be_a_cord_is_warned_of(
    mask: np.ndarray, said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan = np.random.default_rng(0).normal(size=mask.shape)
    find.centerline(scan, Grid(mask.shape, LAS), file=save(tmp_path / "given.nii.gz", mask))
    assert (said in caplog.text) if said else caplog.messages == []


def test_coverage_is_said_in_slices_and_mm() -> None:
    line = Centerline(Grid((4, 4, 3), np.diag([-1, 1, 2.5, 1])), [[1, 1], [1, 1], [np.nan] * 2])
    assert find.coverage(line) == "it covers 2 of 3 axial slices, 5 mm"
