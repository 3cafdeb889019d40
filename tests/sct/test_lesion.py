"""SCT's lesion model and its crop, against what SCT itself made of two scans."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import sct_graph
from geometry import rpi_grid, straight
from hypothesis import given
from hypothesis import strategies as st
from nibabel import Nifti1Image
from nibabel.processing import resample_from_to
from scipy import ndimage

from sct_lesion_losses.errors import CenterlineError, GeometryError, UsageError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.inference import engine
from sct_lesion_losses.sct import lesion
from sct_lesion_losses.sct.lesion import Crop

SCANS = {
    "t2_ax": ("t2/t2_fake_lesion", "t2/t2_fake_lesion_sc_seg", "t2fake_t2ax"),
    "t2s": ("t2s/t2s", "t2s/t2s_seg", "t2s_t2s"),
}


def read(path: Path) -> tuple[np.ndarray, Grid]:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), Grid(image.shape, image.affine)


@dataclass(frozen=True)
class Case:
    contrast: str
    image: np.ndarray
    grid: Grid
    line: Centerline
    outputs: str

    def network(self) -> engine.Network:
        return engine.load(lesion.load(self.contrast).network, "onnxruntime")

    def sct(self, name: str) -> np.ndarray:
        """Map that SCT made."""
        return np.asanyarray(nib.load(f"{self.outputs}_{name}.nii.gz").dataobj)


@pytest.fixture(params=list(SCANS))
def case(request: pytest.FixtureRequest, shared: Path, sct_dir: Path) -> Case:
    scan, cord, outputs = SCANS[request.param]
    data = shared / "data" / "sct_testing_data"
    image, grid = read(data / f"{scan}.nii.gz")
    mask, mask_grid = read(data / f"{cord}.nii.gz")
    line = lesion.centerline(mask, mask_grid)
    return Case(request.param, image, grid, line, str(shared / "data" / "sct_outputs" / outputs))


@pytest.mark.parametrize(
    ("contrast", "threshold", "said"),
    [
        ("t2", 0.05, "0.05 is published (Hussein et al. 2023, Table 2: tuned on 14 scans of "),
        ("t2_ax", None, "0.5 is not tuned."),
        ("t2s", None, "0.5 is not tuned."),
    ],
)
def test_the_published_threshold_is_that_of_t2_alone(
    contrast: str, threshold: float | None, said: str, tmp_path: Path, monkeypatch
) -> None:
    sct = sct_graph.install(tmp_path, sct_graph.make((2, 4)), contrast)
    monkeypatch.setenv("SCT_DIR", str(sct))
    bundle = lesion.load(contrast)
    assert bundle.tuned_threshold == threshold
    assert bundle.threshold == (threshold or 0.5)
    assert said in bundle.info.limits[0]


def voxel(shape: tuple[int, int, int] = (60, 60, 20)) -> tuple[Grid, Centerline]:
    """Grid of 0.5 mm in RPI, and a straight line through its middle."""
    grid = rpi_grid(shape, (0.5, 0.5, 0.5))
    return grid, straight(grid, shape[0] / 2, shape[1] / 2)


def network_of(infer: Callable[[np.ndarray], np.ndarray]) -> engine.Network:
    return engine.Network("none", "0", "float32", (1, 1, 48, 48, 48), infer)


def constant_network(value: float) -> engine.Network:
    """Stands for an engine: the same probability everywhere."""
    return network_of(lambda patches: np.full_like(patches, value))


def prepared(shape: tuple[int, int, int] = (60, 60, 20)) -> lesion.SctPrepared:
    grid, line = voxel(shape)
    image = np.random.default_rng(0).random(shape)
    return lesion.prepare(image, grid, line, lesion.PREPARATIONS["t2"])


@pytest.mark.sct
def test_the_mask_is_scts_voxel_for_voxel(case: Case) -> None:
    mask = lesion.sct_rule(case.image, case.grid, case.line, case.contrast, case.network())
    expected = case.sct("native_seg")
    assert expected.any()
    np.testing.assert_array_equal(mask, expected == 1)


@pytest.mark.sct
def test_the_crop_and_its_pmap_are_scts_there_and_on_the_scan(case: Case) -> None:
    preparation = lesion.PREPARATIONS[case.contrast]
    made = lesion.prepare(case.image, case.grid, case.line, preparation)
    # float32 in place of float64 interpolation: 0.0005 of 2611.
    np.testing.assert_allclose(made.values, case.sct("crop05_input"), atol=1e-3)
    pmap = lesion.block_pmap(made, case.network())
    np.testing.assert_allclose(pmap, case.sct("crop05_soft"), atol=1e-4)
    np.testing.assert_allclose(made.to_native(pmap), case.sct("native_soft"), atol=1e-4)


@pytest.mark.sct
def test_scts_model_is_a_bundle(sct_dir: Path) -> None:
    bundle = lesion.load("t2s")
    assert (bundle.name, bundle.threshold, bundle.folder) == ("sct", 0.5, None)
    assert bundle.preparation == lesion.PREPARATIONS["t2s"]
    assert bundle.network.startswith(b"\x08")


def test_an_unknown_contrast_is_wrong_use() -> None:
    grid, line = voxel()
    with pytest.raises(UsageError, match="t2, t2_ax, t2s"):
        lesion.load("t1")
    with pytest.raises(UsageError, match="t2, t2_ax, t2s"):
        lesion.sct_rule(np.zeros(grid.shape), grid, line, "t1", constant_network(0.5))


def test_normalise_takes_the_numbers_of_the_contrast() -> None:
    patches = np.array([871.309, 871.309 + 2 * 557.916], np.float32).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(prepared().normalise(patches).ravel(), [0, 2], atol=1e-6)


def test_a_short_crop_is_padded_to_one_patch_and_back() -> None:
    made = prepared((60, 60, 20))
    assert made.values.shape == (48, 48, 48)
    assert not made.values[:, :, 20:].any()
    # The centre is 30, the window 7 to 54.
    expected = np.zeros((60, 60, 20))
    expected[7:55, 7:55] = 1
    np.testing.assert_array_equal(made.to_native(np.ones((48, 48, 48), np.float32)), expected)


def test_the_map_comes_back_on_the_images_own_axes() -> None:
    grid, line = voxel((60, 64, 50))
    stored = Grid((50, 60, 64), grid.affine @ np.eye(4)[[1, 2, 0, 3]])
    image = np.random.default_rng(0).random(grid.shape).astype(np.float32)
    preparation = lesion.PREPARATIONS["t2s"]
    plain = lesion.prepare(image, grid, line, preparation)
    turned = lesion.prepare(image.transpose(2, 0, 1), stored, line, preparation)
    np.testing.assert_array_equal(turned.values, plain.values)
    back = turned.to_native(turned.values)
    np.testing.assert_array_equal(back, plain.to_native(plain.values).transpose(2, 0, 1))


def test_blocks_do_not_overlap_and_blocks_of_zeros_are_not_predicted() -> None:
    made = prepared((60, 60, 110))
    values = made.values.copy()
    values[:, :, 48:96] = 0
    emptied = lesion.SctPrepared(values, made.crop, made.preparation, made.undo)
    done: list[int] = []
    pmap = lesion.block_pmap(emptied, constant_network(0.75), done.append)
    assert done == [1, 1]
    assert (pmap[:, :, :48] == 0.75).all()
    assert not pmap[:, :, 48:96].any()
    assert (pmap[:, :, 96:] == 0.75).all()
    assert pmap.shape == (48, 48, 110)


@pytest.mark.parametrize(("probability", "found"), [(0.1001, True), (0.1, False), (0.0, False)])
def test_the_rule_cuts_above_a_tenth(probability: float, found: bool) -> None:
    grid, line = voxel()
    image = np.random.default_rng(0).random(grid.shape)
    # float32 0.1 is above 0.1; SCT compares in float32 and so do we.
    mask = lesion.sct_rule(image, grid, line, "t2", constant_network(probability))
    assert mask[7:55, 7:55].all() == found
    assert mask.any() == found


def test_the_second_cut_keeps_voxels_that_are_mostly_outside() -> None:
    # 0.8 mm voxels: the line at 30 is voxel 48 of 0.5 mm, the window 25 to 72. The network finds
    # only voxel 25; native voxel 16 lies at 25.6, 0.4 of it from there, 15 and 17 beyond reach.
    grid = Grid((60, 60, 40), np.diag([-0.8, 0.8, 0.8, 1.0]))
    line = Centerline(grid, np.full((40, 2), 30.0))
    edge = np.zeros((1, 1, 48, 48, 48), np.float32)
    edge[:, :, 0] = 1
    image = np.random.default_rng(0).random(grid.shape)
    mask = lesion.sct_rule(image, grid, line, "t2", network_of(lambda _: edge))
    assert mask[16, 16:46].all()
    assert not mask[:16].any()
    assert not mask[17:].any()


def test_a_constant_image_is_survived() -> None:
    grid, line = voxel()
    made = lesion.prepare(np.full(grid.shape, 7), grid, line, lesion.PREPARATIONS["t2"])
    assert np.isfinite(made.values).all()


@pytest.mark.parametrize(
    ("centre", "start"),
    [
        (50.0, 27),  # 50 - 23: voxel 23 of the window is the centre
        (50.9, 27),  # cut, not rounded
        (10.0, 0),  # would start at -13
        (95.0, 52),  # would end at 120: 100 - 48
    ],
)
def test_windows_stay_inside_the_image(centre: float, start: int) -> None:
    grid = rpi_grid((100, 100, 3), (0.5, 0.5, 3))
    assert (Crop.around(straight(grid, centre, centre), grid).starts == start).all()


def test_a_line_on_the_scans_own_voxels_is_moved_to_the_plane_grid() -> None:
    # 1 mm voxels become two: voxel 30 becomes 60, and 60 - 23 = 37.
    grid = rpi_grid((80, 80, 2), (1, 1, 3))
    assert (Crop.around(straight(grid, 30, 30), grid).starts == 37).all()


def test_cut_takes_the_window_and_nothing_where_there_is_no_centerline() -> None:
    grid = rpi_grid((100, 90, 3), (0.5, 0.5, 3))
    image = np.arange(100 * 90 * 3, dtype=np.int32).reshape(100, 90, 3)
    cut = Crop.around(straight(grid, 50, 40, slice(1, 2)), grid).cut(image)
    np.testing.assert_array_equal(cut[:, :, 1], image[27:75, 17:65, 1])
    assert not cut[:, :, [0, 2]].any()
    narrow = rpi_grid((40, 60, 2), (0.5, 0.5, 3))  # padded with zeros at its end
    cut = Crop.around(straight(narrow, 20, 30), narrow).cut(np.ones(narrow.shape))
    assert (cut[:40] == 1).all()
    assert not cut[40:].any()


def test_refine_is_linear_between_slices_and_level_beyond_them() -> None:
    # Two slices of 1 mm become four: at 0, 0.5, 1 and 1.5 slices; the last is beyond.
    grid = rpi_grid((60, 60, 2), (0.5, 0.5, 1))
    values = np.zeros((48, 48, 2), np.float32)
    values[:, :, 1] = 8
    fine = Crop.around(straight(grid, 30, 30), grid).refine(values)
    assert fine[0, 0].tolist() == [0, 4, 8, 8]


@given(
    st.tuples(st.integers(30, 70), st.integers(50, 70), st.integers(1, 5)),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(0, 200),
)
def test_uncut_puts_every_voxel_back(
    shape: tuple[int, int, int], thickness_mm: float, seed: int
) -> None:
    grid = rpi_grid(shape, (0.5, 0.5, thickness_mm))
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, np.array(shape[:2]) - 1, (shape[2], 2))
    xy[rng.random(shape[2]) < 0.3] = np.nan
    xy[0] = shape[0] / 2, shape[1] / 2
    found = Crop.around(Centerline(grid, xy), grid)
    image = rng.random(shape).astype(np.float32)
    expected = np.zeros_like(image)
    for z in np.flatnonzero(found.covered):
        x, y = found.starts[z]
        window = np.s_[x : x + 48, y : y + 48, z]
        expected[window] = image[window]
    back = found.uncut(found.refine(found.cut(image)))
    np.testing.assert_allclose(back, expected, atol=1e-6)


def test_uncut_of_ones_is_one_inside_the_windows_and_zero_away_from_them() -> None:
    grid = rpi_grid((60, 60, 6), (0.8, 0.8, 2))
    found = Crop.around(straight(grid, 30, 30, slice(1, 5)), grid)
    back = found.uncut(np.ones(found.fine.shape, np.float32))
    # The centre is voxel 48 of 0.5 mm, the window voxels 25 to 72 of it: 15.6 to 45 of 0.8 mm.
    assert (back[16:46, 16:46, 1:5] == 1).all()
    assert not back[:, :, [0, 5]].any()
    assert not back[:15].any()
    assert not back[47:].any()


def test_uncut_reaches_the_edge_of_the_image_and_refuses_a_map_of_another_crop() -> None:
    # Linear interpolation has no value beyond the last voxel centre: the edge value holds.
    grid = rpi_grid((20, 20, 2), (0.8, 0.8, 2))
    found = Crop.around(straight(grid, 10, 10), grid)
    assert (found.uncut(np.ones(found.fine.shape, np.float32)) == 1).all()
    with pytest.raises(GeometryError, match="expected"):
        found.uncut(np.zeros((48, 48, 7), np.float32))


@given(st.integers(0, 100), st.sampled_from([0.35, 0.5, 0.7, 0.8, 1.0]))
def test_the_line_of_a_mask_is_that_of_nibabels_resampling_to_the_bit(
    seed: int, spacing_mm: float
) -> None:
    rng = np.random.default_rng(seed)
    spacing, origin = (spacing_mm, spacing_mm, 2.5), (17.3, -41.9, 5.1)
    grid = lesion.as_header(rpi_grid((40, 50, 6), spacing, origin))
    mask = np.zeros(grid.shape, bool)
    for z in range(1, 5):
        x, y = rng.integers(2, 30, 2)
        mask[x : x + rng.integers(1, 9), y : y + rng.integers(1, 9), z] = True
    plane = lesion.in_plane(grid)
    whole = resample_from_to(
        Nifti1Image(mask.astype(np.float64), grid.affine),
        (plane.shape, plane.affine),
        order=1,
        mode="nearest",
    ).get_fdata()
    expected = np.full((6, 2), np.nan)
    for z in np.flatnonzero(whole.any(axis=(0, 1))):
        expected[z] = ndimage.center_of_mass(whole[:, :, z])
    np.testing.assert_array_equal(lesion.centerline(mask, grid).xy, expected)


def test_the_line_of_a_mask_does_not_depend_on_the_axis_order() -> None:
    grid = rpi_grid((40, 50, 6), (0.8, 0.8, 2.5))
    mask = np.zeros(grid.shape, bool)
    mask[10:17, 20:24, 1:5] = True
    # The same voxels stored as z, x, y.
    stored = Grid((6, 40, 50), grid.affine @ np.eye(4)[[1, 2, 0, 3]])
    found = lesion.centerline(mask.transpose(2, 0, 1), stored)
    np.testing.assert_array_equal(found.xy, lesion.centerline(mask, grid).xy)
    with pytest.raises(CenterlineError):
        lesion.centerline(np.zeros(grid.shape, np.uint8), grid)
