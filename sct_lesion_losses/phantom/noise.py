"""Smooth random fields over space, and soft edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

_SIZE = 64  # samples along each axis of a periodic table; a power of two
_PITCH = _SIZE + 1  # the first sample is repeated at the end, so that neighbours need no wrapping
_CORNERS = tuple(
    a * _PITCH * _PITCH + b * _PITCH + c for a in (0, 1) for b in (0, 1) for c in (0, 1)
)
_STEPS = 4  # samples per correlation length: close enough for a nearest-neighbour look-up


@dataclass(frozen=True, eq=False)
class NoiseField:
    """A stationary random field of three coordinates, zero mean and unit variance.

    Attributes
    ----------
    table : (65 * 65 * 65,) float32
        One period of the field and its first samples once more, raveled.
    scale : tuple of float
        Table samples per mm along u, v and s.
    offset : tuple of float
        Where the origin lies in the table, in samples.
    """

    table: Floats
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]

    def __call__(self, u: Floats, v: Floats, s: Floats) -> Floats:
        """Values of the field at coordinates in mm, arrays of one shape.

        Fine fields are looked up, coarse ones (steps of over 1 mm) interpolated linearly.
        """
        i, j, k = (
            x * np.float32(f) + np.float32(o)
            for x, f, o in zip((u, v, s), self.scale, self.offset, strict=True)
        )
        if min(self.scale[:2]) >= 1.0:
            return self.table.take(_index(*(x.astype(np.int32) for x in (i, j, k))))
        return self._interpolated(i, j, k)

    def _interpolated(self, i: Floats, j: Floats, k: Floats) -> Floats:
        low = [x.astype(np.int32) for x in (i, j, k)]
        wi, wj, wk = (x - n.astype(np.float32) for x, n in zip((i, j, k), low, strict=True))
        index = _index(*low)
        corners = [self.table[step:].take(index) for step in _CORNERS]
        lines = [_between(corners[n], corners[n + 1], wk) for n in (0, 2, 4, 6)]
        planes = [_between(lines[n], lines[n + 1], wj) for n in (0, 2)]
        return _between(planes[0], planes[1], wi)


def _between(low: Floats, high: Floats, weight: Floats) -> Floats:
    high -= low
    high *= weight
    high += low
    return high


def _index(
    i: npt.NDArray[np.int32], j: npt.NDArray[np.int32], k: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Index into a raveled table of the samples (i, j, k), periodic."""
    i, j, k = i & (_SIZE - 1), j & (_SIZE - 1), k & (_SIZE - 1)
    i *= _PITCH * _PITCH
    j *= _PITCH
    i += j
    i += k
    return i


def make_tables(rng: np.random.Generator, count: int) -> list[Floats]:
    """Return `count` independent periodic tables of smooth noise."""
    return [_table(rng) for _ in range(count)]


def _table(rng: np.random.Generator) -> Floats:
    white = rng.standard_normal((_SIZE, _SIZE, _SIZE), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, _STEPS / 2, mode="wrap")
    smooth -= smooth.mean()
    smooth /= smooth.std()
    return np.pad(smooth, (0, _PITCH - _SIZE), mode="wrap").ravel().astype(np.float32)


def field(
    rng: np.random.Generator, table: Floats, length_mm: float | tuple[float, float, float]
) -> NoiseField:
    """Field with the given correlation length, isotropic or along u, v and s.

    Fields from one table differ by a random shift only; take tables of their own where two
    fields must not be related.
    """
    lengths = (length_mm,) * 3 if isinstance(length_mm, float) else length_mm
    scale = (_STEPS / lengths[0], _STEPS / lengths[1], _STEPS / lengths[2])
    # A large positive offset keeps the truncation to integers away from zero.
    shift = rng.uniform(0, _SIZE, 3) + 64 * _SIZE
    return NoiseField(table, scale, (float(shift[0]), float(shift[1]), float(shift[2])))


def cover(distance_mm: Floats, edge_mm: float) -> Floats:
    """Share of a point's surroundings inside a surface: 1 inside, 0 outside, linear between.

    Parameters
    ----------
    distance_mm : (...) float32
        Signed distance to the surface, negative inside.
    edge_mm : float
        Width of the transition.
    """
    share = distance_mm * np.float32(-1.0 / edge_mm)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def ellipse_distance(u: Floats, v: Floats, ru: Floats | float, rv: Floats | float) -> Floats:
    """Signed distance, mm, to an ellipse around the origin; exact to first order at its edge."""
    a, b = u / ru, v / rv
    e = np.sqrt(a * a + b * b) + np.float32(1e-4)
    slope = np.hypot(a / ru, b / rv) / e + np.float32(1e-4)
    result: Floats = (e - 1) / slope
    return result


def smooth_walk(
    rng: np.random.Generator, size: int, step_mm: float, length_mm: float, sd: float
) -> npt.NDArray[np.float64]:
    """Smooth random function on a line, (size,), with correlation length and deviation given."""
    sigma = length_mm / step_mm / 2
    margin = int(3 * sigma) + 1
    white = rng.standard_normal(size + 2 * margin)
    smooth = ndimage.gaussian_filter1d(white, sigma, mode="wrap")[margin : margin + size]
    # Deviation of white noise after a Gaussian filter, known in advance: no division by a sample.
    expected = 1 / np.sqrt(2 * sigma * np.sqrt(np.pi))
    result: npt.NDArray[np.float64] = smooth * (sd / expected)
    return result


def paint(value: Floats, share: Floats, colour: Floats | np.float32 | float) -> None:
    """Lay a colour over `value` in place, where and as far as it covers."""
    value += share * (colour - value)
