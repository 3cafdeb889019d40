"""SCT's centerline weights, read strictly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses.errors import SctError, UsageError
from sct_lesion_losses.sct import centerline

HEAD = """%YAML:1.0
HOG: !!opencv-object-detector-hog
   winSize: [ 32, 32 ]
   blockSize: [ 8, 8 ]
   blockStride: [ 8, 8 ]
   cellSize: [ 4, 4 ]
   nbins: 9
   derivAperture: 1
   winSigma: 2.
   histogramNormType: 0
   L2HysThreshold: 2.0000000000000001e-01
   gammaCorrection: 1
   nlevels: 64
   signedGradient: 1
"""


def detector(values: list[str]) -> str:
    rows = ",\n       ".join(", ".join(values[k : k + 4]) for k in range(0, len(values), 4))
    return f"{HEAD}   SVMDetector: [ {rows} ]\nps0: 1.\nps1: 1.\n"


def test_weights_are_read_in_order() -> None:
    values = centerline.parse(detector([f"{k}.5e-02" for k in range(577)]), "t2_model.yml")
    np.testing.assert_allclose(values, (np.arange(577) + 0.5) / 100, rtol=1e-6)
    assert values.dtype == np.float32


@pytest.mark.parametrize("count", [0, 576, 578])
def test_another_number_of_weights_is_refused(count: int) -> None:
    with pytest.raises(SctError, match="expected 577 finite weights"):
        centerline.parse(detector(["0.1"] * count), "t2_model.yml")


@pytest.mark.parametrize("word", [".Nan", "nan", ".Inf", "abc"])
def test_a_weight_that_is_no_number_is_refused(word: str) -> None:
    with pytest.raises(SctError, match="577 finite weights"):
        centerline.parse(detector(["0.1"] * 576 + [word]), "t2_model.yml")


def test_the_weights_of_another_hog_are_refused() -> None:
    other = detector(["0.1"] * 577).replace("nbins: 9", "nbins: 8")
    with pytest.raises(SctError, match=r"t2_model.yml: nbins is 8, OptiC needs 9"):
        centerline.parse(other, "t2_model.yml")


@pytest.mark.parametrize("text", ["", "version https://git-lfs.github.com/spec/v1", "\0" * 99])
def test_a_file_that_is_no_detector_is_refused(text: str) -> None:
    with pytest.raises(SctError, match="winSize is missing"):
        centerline.parse(text, "t2_model.yml")


def test_an_unknown_contrast_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="'flair'"):
        centerline.weights("flair")


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCT_DIR", str(tmp_path))
    with pytest.raises(SctError, match=r"optic_models/t2_model\.yml .*reinstall SCT"):
        centerline.weights("t2")
    with pytest.raises(SctError, match="sct_download_data -d deepseg_sc_models"):
        centerline.ctr_model("t2")


@pytest.mark.sct
@pytest.mark.parametrize(("contrast", "first", "last"), [("t2", 1.03807012e-02, -1.26354277e00)])
def test_sct_own_weights_are_read(contrast: str, first: float, last: float, sct_dir: Path) -> None:
    values = centerline.weights(contrast)
    assert values[[0, -1]] == pytest.approx([first, last], rel=1e-6)


@pytest.mark.sct
@pytest.mark.parametrize("contrast", centerline.CONTRASTS)
def test_every_contrast_has_weights(contrast: str, sct_dir: Path) -> None:
    assert centerline.weights(contrast).shape == (577,)


@pytest.mark.sct
def test_sct_own_centerline_network_is_read(sct_dir: Path) -> None:
    path = sct_dir / "data" / "deepseg_sc_models" / "t2_ctr.onnx"
    assert centerline.ctr_model("t2") == path.read_bytes()
