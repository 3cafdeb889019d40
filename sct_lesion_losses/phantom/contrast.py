"""Signal of the tissues, relative to normal white matter of the cord."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class Contrast:
    """Relative signal of each tissue; white matter of the cord is 1, air is 0."""

    gm: float = 1.09
    csf: float = 2.8
    muscle: float = 0.4
    bone: float = 0.65
    disc: float = 0.8
    fat: float = 1.75
    cortex: float = 0.2  # cortical bone, ligaments, dura
    skin: float = 0.6
    gland: float = 1.0
    vessel: float = 0.15  # flowing blood
    slow: float = 1.3  # slowly flowing blood


# Lower and upper bound of every value, for any scan.
_BOUNDS = {
    "gm": (1.03, 1.16),
    "csf": (1.9, 3.9),
    "muscle": (0.12, 0.7),
    "bone": (0.2, 1.1),
    "disc": (0.25, 1.4),
    "fat": (0.4, 3.0),
    "cortex": (0.05, 0.3),
    "skin": (0.3, 1.2),
    "gland": (0.5, 1.6),
    "vessel": (0.05, 0.5),
    "slow": (0.6, 2.6),
}
_FAT_SATURATED = 0.08


def jittered(rng: np.random.Generator, base: Contrast, sd: float = 0.1) -> Contrast:
    """Contrast of one scan of a site: every value off by a log-normal factor, within bounds."""
    values = {}
    for f in fields(Contrast):
        spread = sd * 0.35 if f.name == "gm" else sd
        value = getattr(base, f.name) * rng.lognormal(0, spread)
        values[f.name] = float(np.clip(value, *_BOUNDS[f.name]))
    return Contrast(**values)


def any_contrast(rng: np.random.Generator) -> Contrast:
    """Contrast from the whole range of T2-weighted sequences, fat saturation included."""
    values = {}
    for f in fields(Contrast):
        low, high = _BOUNDS[f.name]
        values[f.name] = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    values["csf"] = float(rng.uniform(1.5, 4.5))
    values["gm"] = float(rng.uniform(1.0, 1.3))
    # Marrow is part fat: the two go together.
    values["bone"] = float(np.clip(values["fat"] * rng.uniform(0.25, 0.75), 0.15, 1.2))
    contrast = Contrast(**values)
    if rng.random() < _FAT_SATURATED:
        return saturated(rng, contrast)
    return contrast


def saturated(rng: np.random.Generator, contrast: Contrast) -> Contrast:
    """Return the same contrast with the fat suppressed, as in STIR."""
    return replace(
        contrast,
        fat=float(rng.uniform(0.08, 0.35)),
        bone=float(rng.uniform(0.1, 0.3)),
        muscle=float(rng.uniform(0.3, 0.6)),
    )
