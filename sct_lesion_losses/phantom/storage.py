"""How a scan is stored: axis order, scale and data type."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.sites import Protocol
from sct_lesion_losses.space.grid import Grid, Reorientation

_ARRIVED = {"R": ("x", 1), "L": ("x", -1), "P": ("y", 1), "A": ("y", -1), "I": ("z", 1),
            "S": ("z", -1)}  # fmt: skip


def stored_grid(grid: Grid, orientation: str) -> tuple[Grid, Reorientation]:
    """Grid in the stored orientation, and the reorientation from there to RPI."""
    order = [_ARRIVED[letter] for letter in orientation]
    names = [name for name, _ in order]
    axes = (names.index("x"), names.index("y"), names.index("z"))
    flips = (order[axes[0]][1] < 0, order[axes[1]][1] < 0, order[axes[2]][1] < 0)
    move = np.zeros((4, 4))
    move[3, 3] = 1.0
    shape = [0, 0, 0]
    for k in range(3):
        shape[axes[k]] = grid.shape[k]
        move[k, axes[k]] = -1.0 if flips[k] else 1.0
        move[k, 3] = grid.shape[k] - 1 if flips[k] else 0.0
    turned = Grid((shape[0], shape[1], shape[2]), grid.affine @ move)
    return turned, Reorientation(axes, flips)


def typed(signal: npt.NDArray[np.float32], protocol: Protocol) -> npt.NDArray[Any]:
    """Scale the signal and give it the site's data type."""
    scaled = signal * np.float32(protocol.scale)
    if protocol.dtype == "float32":
        return np.ascontiguousarray(scaled)
    top = 65535 if protocol.dtype == "uint16" else 32767
    dtype = np.uint16 if protocol.dtype == "uint16" else np.int16
    return np.ascontiguousarray(np.clip(np.round(scaled), 0, top).astype(dtype))
