"""MS lesion segmentation on T2-weighted spinal cord MRI, with tuned decision thresholds."""

from __future__ import annotations

import os

__version__ = "0.1.0"

# ONNX Runtime reports usage to its maker unless told so before it is first imported, anywhere.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
