"""Every way to find the cord, behind one function, `find.centerline`; its methods by name."""

from __future__ import annotations

import importlib
from typing import Any

METHODS = {
    "auto": "svm where SCT's weights are found, else embedded",
    "svm": "OptiC: SCT's own command where installed, else computed here from SCT's weights",
    "cnn": "SCT's centerline network, and the best path on its heatmap",
    "viewer": "points drawn by hand in SCT's viewer",
    "file": "a cord mask, a centerline image or SCT's CSV of a centerline",
    "embedded": "the detector that this package carries",
}
UNATTENDED = tuple(name for name in METHODS if name not in ("viewer", "file"))


def __getattr__(name: str) -> Any:
    """Load `detect`, the embedded detector, when it is used."""
    if name == "detect":
        return importlib.import_module(f"{__name__}.detector").detect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
