"""MS lesion segmentation on T2-weighted spinal cord MRI, with tuned decision thresholds."""

from __future__ import annotations

__version__ = "0.1.0"
