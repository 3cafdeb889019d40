"""MS lesion segmentation on T2-weighted spinal cord MRI, with tuned decision thresholds.

::

    import sct_lesion_losses as sll
    found = sll.segment("t2.nii.gz")

The rooms of the package (`sll.losses`, `sll.metrics`, `sll.thresholds`, …) are loaded when they are
first used.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from typing import Any

__version__ = "0.1.0"

# ONNX Runtime reports usage to its maker unless told so before it is first imported, anywhere.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


_NAMES = {"segment": ("workflows.segment", "segment_file")}  # what is no room


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        room, name = _NAMES[name]
        return getattr(importlib.import_module(f"{__name__}.{room}"), name)
    if name in __dir__():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_NAMES, *(room.name for room in pkgutil.iter_modules(__path__))]
