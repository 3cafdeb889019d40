"""The only door to the Spinal Cord Toolbox: its folder, its commands, its models, its reports."""

from __future__ import annotations

from typing import Literal

CONTRASTS: tuple[Literal["t2", "t2_ax", "t2s"], ...] = (
    "t2",
    "t2_ax",
    "t2s",
)  # of SCT's lesion models
