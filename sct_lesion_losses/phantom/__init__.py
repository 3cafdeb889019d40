"""Synthetic T2-weighted scans of the spinal cord with exact lesion masks.

Procedural anatomy in cord coordinates, simulated acquisition, ground truth by partial volume.
:func:`make_scan` makes one scan in memory, :func:`make_cohort` a BIDS folder of them.
"""

from __future__ import annotations

from sct_lesion_losses.phantom.cohort import make_cohort
from sct_lesion_losses.phantom.scan import PhantomScan, make_scan

__all__ = ["PhantomScan", "make_cohort", "make_scan"]
