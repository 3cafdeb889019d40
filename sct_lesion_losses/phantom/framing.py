"""Fields of view that no site's protocol sets: tiny ones, cropped ones, and ones without a cord."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sct_lesion_losses.phantom.sites import Protocol

# Where a field of view without a cord lies, and how often.
_BESIDE_CANAL, _BESIDE_SPINE, _WITHOUT_SPINE, _NOISE = range(4)
_SHARES = (0.35, 0.3, 0.25, 0.1)


def tiny(protocol: Protocol) -> Protocol:
    """Return a small isotropic scan around the cord, at least 24 mm across and 34 mm long."""
    return replace(
        protocol, plane="3d", pixel_mm=0.8, slice_mm=0.8, gap_mm=0.0, fov_mm=(28.8, 28.8, 38.4),
        middle_mm=(0.0, 0.0, -65.0), tilt=(0.0, 0.0, 0.0),
    )  # fmt: skip


def cropped(rng: np.random.Generator, protocol: Protocol) -> Protocol:
    """Cut the field of view of a part of the scans, as users do before processing."""
    if rng.random() > 0.3:
        return protocol
    x, y, z = protocol.fov_mm
    x = min(x, float(rng.uniform(26, 55)))
    y = min(y, float(rng.uniform(45, 110)))
    z = min(z, float(rng.uniform(50, 120)))
    u, v, s = protocol.middle_mm
    u = float(np.clip(u, -x / 2 + 8, x / 2 - 8))
    v = float(np.clip(v, -y / 2 + 14, y / 2 - 14))
    return replace(protocol, fov_mm=(x, y, z), middle_mm=(u, v, s + float(rng.uniform(-25, 25))))


def elsewhere(rng: np.random.Generator, protocol: Protocol) -> tuple[Protocol, bool]:
    """Move the field of view where no cord is; also return whether the spine is drawn.

    Beside the canal, in the tissue beside the spine, in a part of the body without spine, or
    nothing but noise.
    """
    kind = int(rng.choice(4, p=_SHARES))
    x, y, z = min(protocol.fov_mm[0], 60.0), protocol.fov_mm[1], protocol.fov_mm[2]
    side, (_, v, s) = float(rng.choice([-1, 1])), protocol.middle_mm
    gap = float(rng.uniform(20, 30)) if kind == _BESIDE_CANAL else float(rng.uniform(12, 30))
    if kind == _NOISE:
        return replace(protocol, snr=0.02, scale=protocol.scale * 0.02), False
    if kind == _WITHOUT_SPINE:
        return protocol, False
    moved = replace(
        protocol, fov_mm=(x, y, z), middle_mm=(side * (x / 2 + gap), v, s), tilt=(0.0, 0.0, 0.0)
    )
    return moved, kind == _BESIDE_CANAL
