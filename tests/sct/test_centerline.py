"""SCT's centerline weights, read strictly."""

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


RIGHT = detector(["0.1"] * 577)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((detector(["0.1"] * n), "expected 577 finite weights") for n in (0, 576, 578)),
        *(
            (detector(["0.1"] * 576 + [word]), "577 finite weights")
            for word in (".Nan", "nan", ".Inf", "abc")
        ),
        (RIGHT.replace("nbins: 9", "nbins: 8"), r"t2_model.yml: nbins is 8, OptiC needs 9"),
        ("", "winSize is missing"),
        ("version https://git-lfs.github.com/spec/v1", "winSize is missing"),
        ("\0" * 99, "winSize is missing"),
    ],
)
def test_other_weights_those_of_another_hog_and_other_files_are_refused(
    text: str, said: str
) -> None:
    with pytest.raises(SctError, match=said):
        centerline.parse(text, "t2_model.yml")


def test_an_unknown_contrast_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="'flair'"):
        centerline.weights("flair")


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCT_DIR", str(tmp_path))
    with pytest.raises(
        SctError, match=r"optic_models/t2_model\.yml .*reinstall SCT, or use -centerline embedded"
    ):
        centerline.weights("t2")
    # sct_evaluate_lesion and others have no -file_centerline: a cohort holds its centerlines.
    with pytest.raises(SctError, match=r"deepseg_sc_models, or use .*, as a centerline in the coh"):
        centerline.ctr_model("t2")


@pytest.mark.sct
def test_sct_own_models_are_read(sct_dir: Path) -> None:
    found = {contrast: centerline.weights(contrast) for contrast in centerline.CONTRASTS}
    assert {values.shape for values in found.values()} == {(577,)}
    assert found["t2"][[0, -1]] == pytest.approx([1.03807012e-02, -1.26354277e00], rel=1e-6)
    path = sct_dir / "data" / "deepseg_sc_models" / "t2_ctr.onnx"
    assert centerline.ctr_model("t2") == path.read_bytes()
