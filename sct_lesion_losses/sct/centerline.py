"""SCT's centerlines: the models of its methods, and its command, run on a scan in memory."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sct_lesion_losses.errors import SctError, UsageError
from sct_lesion_losses.geometry.centerline import HOW_TO_GIVE
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.sct import install, mask

COMMAND = "sct_get_centerline"
REMEDY = f"use -centerline embedded, or give the cord's course {HOW_TO_GIVE}"
CONTRASTS = ("t1", "t2", "t2s", "dwi")
WEIGHTS = 577  # 16 blocks x 4 cells x 9 bins, and the bias
# The HOG that the weights belong to; another one would give other scores without a word.
EXPECTED = {
    "winSize": (32, 32),
    "blockSize": (8, 8),
    "blockStride": (8, 8),
    "cellSize": (4, 4),
    "nbins": (9,),
    "derivAperture": (1,),
    "winSigma": (2,),
    "histogramNormType": (0,),
    "L2HysThreshold": (0.2,),
    "gammaCorrection": (1,),
    "signedGradient": (1,),
}
FIELD = re.compile(r"^\s*(\w+):\s*(\[[^\]]*\]|\S+)\s*$", re.MULTILINE)


def weights(contrast: str) -> NDArray[np.float32]:
    """Return OptiC's weights for a contrast, the bias last.

    Parameters
    ----------
    contrast : {"t1", "t2", "t2s", "dwi"}

    Returns
    -------
    (577,) float32

    Raises
    ------
    SctError
        SCT or its model is missing, or the model is not the one OptiC is written for.
    """
    _require_known(contrast)
    name = f"{contrast}_model.yml"
    text = (
        install.require(REMEDY).read("optic_models", name, REMEDY).decode("utf-8", errors="replace")
    )
    return parse(text, f"data/optic_models/{name}")


def ctr_model(contrast: str) -> bytes:
    """Return SCT's centerline network for a contrast, (N, 80, 80, 1), as ONNX.

    Parameters
    ----------
    contrast : {"t1", "t2", "t2s", "dwi"}
    """
    _require_known(contrast)
    return install.require(REMEDY).read("deepseg_sc_models", f"{contrast}_ctr.onnx", REMEDY)


def parse(text: str, name: str) -> NDArray[np.float32]:
    """Read the weights from the text of a detector as OpenCV writes it.

    Parameters
    ----------
    text : str
    name : str
        What the text is called in messages.
    """
    fields = {key: _numbers(value) for key, value in FIELD.findall(text)}
    for key, expected in EXPECTED.items():
        if fields.get(key) != expected:
            raise SctError(
                f"{name}: {key} is {_listed(fields.get(key))}, OptiC needs {_listed(expected)}; "
                "reinstall SCT"
            )
    found = fields.get("SVMDetector") or ()
    values = np.asarray(found, dtype=np.float32)
    if values.shape != (WEIGHTS,) or not np.isfinite(values).all():
        raise SctError(
            f"{name}: expected {WEIGHTS} finite weights, found {values.size}; reinstall SCT"
        )
    return values


def _require_known(contrast: str) -> None:
    if contrast not in CONTRASTS:
        raise UsageError(
            f"centerline: SCT has no model for {contrast!r}; choose one of {', '.join(CONTRASTS)}"
        )


def _numbers(value: str) -> tuple[float, ...] | None:
    try:
        return tuple(float(word) for word in value.strip("[]").split(","))
    except ValueError:
        return None


def _listed(numbers: tuple[float, ...] | None) -> str:
    return "missing" if numbers is None else " x ".join(f"{number:g}" for number in numbers)


def get(image: NDArray[Any], grid: Grid, arguments: list[str]) -> Scan:
    """Centerline image that the command draws on a copy of the scan as it was read and repaired.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes.
    grid : Grid
        Its grid.
    arguments : list of str
        Options of the command, those of input and output left out.

    Returns
    -------
    Scan
        Its array is a mask with the line's voxels.

    Raises
    ------
    SctError
        The command is missing, fails, or writes nothing.
    """
    return mask.drawn(image, grid, [COMMAND, *arguments], REMEDY, "centerline")
