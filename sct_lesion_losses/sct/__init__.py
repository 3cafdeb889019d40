"""The only door to the Spinal Cord Toolbox: its folder, its commands, its models, its reports."""

from __future__ import annotations

from typing import Literal, get_args

Contrast = Literal["t2", "t2_ax", "t2s"]
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)  # of SCT's lesion models
