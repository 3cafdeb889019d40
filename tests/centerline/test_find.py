from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
GRID = Grid(SHAPE, LAS)
IMAGE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
FOUND = Centerline(GRID, np.ones((6, 2)), "embedded (detector test)")
COURSE = [[10 + z, 5] for z in range(6)]


@pytest.fixture
def no_sct(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.fixture
def models_only(sct_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SCT's models without SCT's commands."""
    monkeypatch.setenv("PATH", str(tmp_path))


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


def fake_sct(root: Path, script: str) -> str:
    """Make an SCT installation whose centerline command is a shell script."""
    (root / "bin").mkdir(parents=True)
    (root / "data" / "optic_models").mkdir(parents=True)
    for name, text in {"sct_get_centerline": script, "sct_version": "echo test"}.items():
        command = root / "bin" / name
        command.write_text(f"#!/bin/sh\n{text}\n")
        command.chmod(0o755)
    return str(root)


@pytest.mark.usefixtures("no_sct", "cord_everywhere")
def test_auto_without_sct_is_the_embedded_detector_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        assert find.centerline(IMAGE, GRID).method == FOUND.method
    assert "SCT was not found: the embedded detector" in caplog.text


@pytest.mark.sct
@pytest.mark.usefixtures("models_only", "cord_everywhere")
@pytest.mark.parametrize("method", ["auto", "svm"])
def test_scts_weights_alone_give_optic_computed_here(method: str) -> None:
    line = find.centerline(IMAGE, GRID, method, contrast="t2_ax")
    assert line.method == "svm (OptiC computed here with SCT's weights)"
    assert line.covered.all()


@pytest.mark.usefixtures("cord_everywhere")
@pytest.mark.parametrize(
    ("method", "name", "arguments"),
    [("auto", "svm", "-method optic -c t2s"), ("viewer", "viewer", "-method viewer")],
)
def test_where_scts_command_is_installed_it_draws_the_line(
    method: str, name: str, arguments: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result, said = save(tmp_path / "result.nii.gz", line_mask([0, 5])), tmp_path / "said"
    script = f'echo "$@" > "{said}"; while [ "$1" != -o ]; do shift; done; cp "{result}" "$2"'
    monkeypatch.setenv("SCT_DIR", fake_sct(tmp_path / "sct", script))
    line = find.centerline(IMAGE, GRID, method, contrast="t2s")
    assert line.method == f"{name} (SCT's sct_get_centerline)"
    assert line.xy.tolist() == COURSE
    assert said.read_text().startswith(f"{arguments} -i scan.nii -o ")


def test_a_command_that_writes_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCT_DIR", fake_sct(tmp_path / "sct", "exit 0"))
    with pytest.raises(SctError, match="wrote no centerline"):
        find.centerline(IMAGE, GRID, "svm")


@pytest.mark.parametrize(
    ("installed", "method", "said"),
    [
        ("no_sct", "svm", "SCT_DIR"),
        ("no_sct", "cnn", "SCT_DIR"),
        ("no_sct", "viewer", "SCT_DIR"),
        pytest.param(
            *(
                "models_only",
                "viewer",
                "sct_get_centerline was not found; use -centerline embedded",
            ),
            marks=pytest.mark.sct,
        ),
    ],
)
def test_a_method_without_what_it_needs_of_sct_is_refused(
    installed: str, method: str, said: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(installed)
    with pytest.raises(SctError, match=said):
        find.centerline(IMAGE, GRID, method)


@pytest.mark.sct
@pytest.mark.usefixtures("models_only")
@pytest.mark.parametrize("method", ["auto", "svm", "cnn", "embedded"])
def test_a_volume_without_a_cord_is_refused_whatever_the_method(method: str) -> None:
    noise = np.random.default_rng(0).normal(500, 100, (60, 70, 30)).astype(np.float32)
    with pytest.raises(CenterlineError, match=r"no spinal cord was (recognised|found)"):
        find.centerline(noise, Grid(noise.shape, np.diag([-1.0, 1.0, 3.0, 1.0])), method)


@pytest.mark.parametrize(
    ("scan", "mask", "mean_mm"),
    [
        ("t2/t2", "t2/t2_seg-manual", {"embedded": 1.0, "cnn": 0.6}),
        ("t2/t2_fake_lesion", "t2/t2_fake_lesion_sc_seg", {"embedded": 1.5, "cnn": 0.6}),
        ("t2s/t2s", "t2s/t2s_seg", {"embedded": 1.5, "cnn": 0.6}),
    ],
)
@pytest.mark.parametrize("method", ["embedded", pytest.param("cnn", marks=pytest.mark.sct)])
def test_the_line_is_near_the_middle_of_the_cord_in_real_scans(
    load: Callable[[str], tuple[np.ndarray, Grid]],
    errors_mm: Callable[[Centerline, str], np.ndarray],
    sct_dir: Path,
    scan: str,
    mask: str,
    mean_mm: dict[str, float],
    method: str,
) -> None:
    line = find.centerline(*load(scan), method, contrast=scan.split("/")[0])
    errors = errors_mm(line, mask)
    assert errors.mean() < mean_mm[method]
    assert errors.max() < 3


@pytest.mark.parametrize("method", ["file", "auto"])
def test_a_mask_file_gives_its_centre_in_each_slice(method: str, tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:11, 4:9, 1:5] = 1
    line = find.centerline(IMAGE, GRID, method, file=save(tmp_path / "cord.nii.gz", mask))
    assert line.method == "file (cord.nii.gz)"
    assert np.flatnonzero(line.covered).tolist() == [1, 2, 3, 4]
    assert line.xy[1].tolist() == [9, 6]


def test_gaps_of_a_file_with_other_axes_are_interpolated_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = nib.Nifti1Image(line_mask([0, 1, 4]), LAS).as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(drawn, tmp_path / "gaps.nii.gz")
    line = find.centerline(IMAGE, GRID, "file", file=tmp_path / "gaps.nii.gz")
    assert "2 slices between others have no point" in caplog.text
    assert line.xy[:5].tolist() == COURSE[:5]
    assert not line.covered[5]


MOVED = LAS + np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 3], [0, 0, 0, 0]])
WAVE = np.column_stack([10 + np.sin(np.arange(6.0)), 5.3 + np.arange(6) / 7, np.arange(6.0)])


def csv_of(path: Path, points: np.ndarray = WAVE) -> Path:
    np.savetxt(path, points, delimiter=",")  # as SCT does
    return path


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda at: save(at / "a.nii.gz", line_mask([])), r"a\.nii\.gz: the mask is empty"),
        (lambda at: save(at / "a.nii.gz", line_mask(range(6)), MOVED), "20 × 22 × 6 .* 3.0 mm, in"),
        (lambda at: save(at / "a.nii.gz", line_mask(range(6))[1:]), r"19 × .*\(20 × 22 × 6 voxels"),
        (lambda at: at / "away.csv", r"away\.csv: cannot be read"),
        (lambda at: csv_of(at / "far.csv", WAVE + np.array([0, 0, 1])), r"far\.csv: row 6 is"),
    ],
    ids=["empty", "shifted", "cropped", "missing", "outside"],
)
def test_a_file_that_does_not_fit_the_scan_is_refused(
    made: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    with pytest.raises((CenterlineError, GeometryError), match=said):
        find.centerline(IMAGE, GRID, "file", file=made(tmp_path))


@pytest.mark.parametrize("given", ["line.csv", "line.nii.gz"])
def test_a_csv_gives_the_line_in_full_digits_by_itself_or_beside_its_image(
    given: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.zeros(SHAPE)
    mask[tuple(np.rint(WAVE).astype(int).T)] = 1
    save(tmp_path / "line.nii.gz", mask)
    csv_of(tmp_path / "line.csv")
    line = find.centerline(IMAGE, GRID, file=tmp_path / given)
    np.testing.assert_array_equal(line.xy, WAVE[:, :2])
    assert line.method == "file (line.csv)"
    assert caplog.messages == []


# Stored with x mirrored, so that both readings lie inside; and with z first, so that one does.
MIRRORED = Grid(SHAPE, np.diag([1.0, 1.0, 1.0, 1.0]))
Z_FIRST = Grid((6, 20, 22), np.array([[0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]))


@pytest.mark.parametrize(
    ("grid", "points", "expected", "said"),
    [
        (MIRRORED, WAVE, [19, 0] - WAVE[:, :2] * [1, -1], "as it is stored (LPI), as SCT 7.0 and"),
        (Z_FIRST, WAVE, WAVE[:, :2], "only when it is turned to RPI, as SCT before 7.0"),
        (Z_FIRST, WAVE[:, [2, 0, 1]], WAVE[:, :2], None),
        (MIRRORED, np.array([[9.5, 5, 0]]), np.array([[9.5, 5]]), None),  # in the middle
    ],
    ids=["both fit", "only the older", "only the newer", "both are one"],
)
def test_a_csv_alone_whose_axes_are_not_certain_is_said_with_how_it_is_read(
    grid: Grid,
    points: np.ndarray,
    expected: np.ndarray,
    said: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = np.random.default_rng(0).normal(size=grid.shape)
    line = find.centerline(image, grid, file=csv_of(tmp_path / "line.csv", points))
    np.testing.assert_allclose(line.xy[: len(expected)], expected)
    assert [said in text for text in caplog.messages] == ([] if said is None else [True])


def test_a_csv_of_another_line_beside_an_image_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(tmp_path / "line.nii.gz", line_mask(range(6)))
    csv_of(tmp_path / "line.csv")
    assert find.centerline(IMAGE, GRID, file=file).xy.tolist() == COURSE
    assert "line.csv: holds another line than line.nii.gz" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "expected one of auto, svm, cnn, viewer, file, embedded"),
        ({"contrast": "flair"}, "'flair'"),
        ({"method": "file"}, "-file_centerline <file>"),
        ({"method": "svm", "file": Path("x.nii.gz")}, "not with svm"),
    ],
)
def test_wrong_use_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find.centerline(IMAGE, GRID, **arguments)


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
        (tmp_path / version / "spinalcordtoolbox").mkdir()
        (tmp_path / version / "spinalcordtoolbox" / "version.txt").write_text(version)
        monkeypatch.setenv("SCT_DIR", root)
        found += [find.identity(method) for method in of_sct]
    assert len(set(found)) == 2 + 2 * len(of_sct)


def test_a_file_is_no_method_with_an_identity() -> None:
    with pytest.raises(UsageError, match="-centerline file needs"):
        find.identity("file")


@pytest.mark.sct
@pytest.mark.usefixtures("models_only")
def test_every_method_of_scts_knows_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    automatic = find.identity()
    found = {find.identity(method) for method in ("svm", "cnn", "embedded")}
    assert len(found) == 3
    assert find.identity("svm") == automatic != find.identity(contrast="t1")
    monkeypatch.setattr(find.sct_centerline, "ctr_model", lambda _contrast: b"another")
    assert find.identity("cnn") not in found
    monkeypatch.delenv("SCT_DIR")
    assert find.identity() != automatic


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


def test_a_cord_mask_is_given_on_the_axes_of_the_scan_and_a_line_is_none(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:12, 4:9, 1:5] = 1
    mask[8, 4, 1] = 0
    turned = nib.Nifti1Image(mask, LAS).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(turned, tmp_path / "cord.nii.gz")
    found = find.drawn_cord(find.read(tmp_path / "cord.nii.gz"), GRID)
    assert found is not None
    np.testing.assert_array_equal(found, mask > 0)
    line = save(tmp_path / "line.nii.gz", line_mask(range(6)))
    assert find.drawn_cord(find.read(line), GRID) is None
    assert find.drawn_cord(find.read(tmp_path / "line.csv"), GRID) is None
    assert find.drawn_cord(None, GRID) is None


def test_coverage_is_said_in_slices_and_mm() -> None:
    line = Centerline(Grid((4, 4, 3), np.diag([-1, 1, 2.5, 1])), [[1, 1], [1, 1], [np.nan] * 2])
    assert find.coverage(line) == "it covers 2 of 3 axial slices, 5 mm"
