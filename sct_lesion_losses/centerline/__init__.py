"""Every way to find the cord, behind one function, `find.centerline`; its methods by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from sct_lesion_losses.geometry.centerline import Centerline
    from sct_lesion_losses.geometry.grid import Grid

METHODS = {
    "auto": "svm where SCT's weights are found, else embedded",
    "svm": "OptiC: SCT's own command where installed, else computed here from SCT's weights",
    "cnn": "SCT's centerline network, and the best path on its heatmap",
    "viewer": "points drawn by hand in SCT's viewer",
    "file": "a cord mask, a centerline image or SCT's CSV of a centerline",
    "embedded": "the detector that this package carries",
}
UNATTENDED = tuple(name for name in METHODS if name not in ("viewer", "file"))
BY_CONTRAST = ("svm", "cnn")  # each contrast has weights of its own


def detect(image: npt.NDArray[Any], grid: Grid) -> Centerline:
    """Centerline of a scan by the embedded detector; see `detector.detect`."""
    from sct_lesion_losses.centerline import detector

    return detector.detect(image, grid)
