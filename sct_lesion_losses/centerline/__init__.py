"""Finding the cord: scores per voxel by a trained detector, and the best path through them."""

from __future__ import annotations

from sct_lesion_losses.centerline.detector import detect

__all__ = ["detect"]
