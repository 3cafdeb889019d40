"""The coil: smooth bias over the field, sensitivity with depth, the saturation band in front."""

from __future__ import annotations

from typing import Any

import numpy as np

from sct_lesion_losses.phantom.noise import Floats
from sct_lesion_losses.phantom.sites import Protocol


def bias_field(rng: np.random.Generator, protocol: Protocol, shape: tuple[int, ...]) -> Floats:
    """Smooth bias, (slices, rows, columns): a random polynomial and the ends of the coil."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    x = [a.reshape([-1 if j == k else 1 for j in range(3)]) for k, a in enumerate(axes)]
    w = (rng.standard_normal(9) * protocol.bias).tolist()
    total: Any = w[0] * x[0] * 0.5 + w[1] * x[1] * 0.6 + w[2] * x[2] * 0.6
    total = total + w[3] * x[1] * x[2] + 0.6 * (w[4] * x[1] ** 2 + w[5] * x[2] ** 2)
    total = total + 0.5 * (w[6] * x[1] ** 3 + w[7] * x[2] ** 3) + 0.5 * w[8] * x[0] * x[1]
    along = x[0] if protocol.plane == "axial" else x[2]
    ends = protocol.edge * np.clip((np.abs(along) - 0.75) / 0.25, 0, 1) ** 2
    result: Floats = np.exp(total + ends).astype(np.float32)
    return result


def sensitivity(protocol: Protocol, v: Floats) -> Floats:
    """Sensitivity of the coil behind the spine at cord coordinates v, less under the band."""
    decay = np.exp(-np.clip(v + 30, -40, 200) / protocol.coil_mm)
    decay *= np.float32(np.exp(30 / protocol.coil_mm))
    if protocol.band < 1:
        under = np.clip((v - 42) / 12, 0, 1)
        decay *= 1 - np.float32(1 - protocol.band) * under
    result: Floats = np.maximum(decay, np.float32(0.02)).astype(np.float32)
    return result
