"""The scanner: slices through the anatomy, k-space, coil, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import fft, ndimage

from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.phantom.anatomy import Body, Doubles, Floats
from sct_lesion_losses.phantom.lesions import Lesions
from sct_lesion_losses.phantom.sites import Protocol
from sct_lesion_losses.phantom.tissue import RADIUS_MM, Points, canal, surroundings


def bias_field(rng: np.random.Generator, protocol: Protocol, shape: tuple[int, ...]) -> Floats:
    """Smooth bias, (slices, rows, columns): a random polynomial and the ends of the coil."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    x = np.meshgrid(*axes, indexing="ij", sparse=True)
    w = (rng.standard_normal(9) * protocol.bias).tolist()
    total: Any = w[0] * x[0] * 0.5 + w[1] * x[1] * 0.6 + w[2] * x[2] * 0.6
    total = total + w[3] * x[1] * x[2] + 0.6 * (w[4] * x[1] ** 2 + w[5] * x[2] ** 2)
    total = total + 0.5 * (w[6] * x[1] ** 3 + w[7] * x[2] ** 3) + 0.5 * w[8] * x[0] * x[1]
    along = x[0] if protocol.plane == "axial" else x[2]
    ends = protocol.edge * np.clip((np.abs(along) - 0.75) / 0.25, 0, 1) ** 2
    return np.asarray(np.exp(total + ends), np.float32)


def sensitivity(body: Body, protocol: Protocol, v: Floats, s: Floats) -> Floats:
    """Sensitivity of the coil behind the spine at cord coordinates v and s, less under the band."""
    decay = np.exp(-np.clip(v + 30, -40, 200) / protocol.coil_mm)
    decay *= np.float32(np.exp(30 / protocol.coil_mm))
    upwards = (s - protocol.middle_mm[2]) * np.float32(-np.log(protocol.fall) / 100)
    decay *= np.exp(upwards + np.float32(protocol.drift) * body.at(s, "drift")[0])
    decay *= 1 - (1 - protocol.band) * np.clip((v - 42) / 12, 0, 1)
    return np.asarray(np.maximum(decay, np.float32(0.02)), np.float32)


_MARGIN = 10  # pixels mirrored at the borders before the Fourier transform


def through_k_space(fine: Floats, protocol: Protocol, shape: tuple[int, ...]) -> Floats:
    """Keep the acquired centre of k-space and return the image on its pixels."""
    sizes = [fft.next_fast_len(n + 2 * _MARGIN) for n in shape]
    pads = [(2 * _MARGIN, 2 * (m - n - _MARGIN)) for m, n in zip(sizes, shape, strict=True)]
    spectrum = fft.fft2(np.pad(fine, pads, mode="symmetric"))
    for axis in range(2):
        keep = np.fft.fftfreq(sizes[axis], 1 / sizes[axis]).astype(int)
        spectrum = spectrum.take(keep, axis=axis)  # negative frequencies count from the end
    spectrum *= _window(protocol, tuple(sizes)) / 4
    image = fft.ifft2(spectrum).real
    cut = tuple(slice(_MARGIN, _MARGIN + n) for n in shape)
    return np.ascontiguousarray(image[cut], dtype=np.float32)


def _window(protocol: Protocol, shape: tuple[int, ...]) -> Floats:
    """Weight of every k-space sample: 0 where nothing is acquired, less at the edges.

    `protocol.matrix` holds the acquired shares in the order of the axes in plane.
    """
    factors = []
    for n, share in zip(shape, protocol.matrix, strict=True):
        f = np.abs(np.fft.fftfreq(n)) / (0.5 * share)
        taper = 1 - protocol.smooth * 0.6 * np.clip(f, 0, 1) ** 2
        factors.append(np.where(f <= 1, taper, 0))
    return np.outer(*factors).astype(np.float32)


def ghosts(pulse: Floats, protocol: Protocol) -> Floats:
    """Faint copies of the pulsating fluid along the phase-encoding axis."""
    # Along the body in sagittal scans, front to back in axial ones: the second axis in plane, not
    # the one along which the site acquires the lesser share of k-space.
    axis = 1
    step = int(pulse.shape[axis] * (0.13 + 2.5 * protocol.ghost))
    copies = np.roll(pulse, step, axis) + np.roll(pulse, -step, axis)
    return np.float32(protocol.ghost * protocol.contrast.csf) * copies


def noisy(rng: np.random.Generator, clean: Floats, protocol: Protocol) -> Floats:
    """Magnitude of the signal with complex noise of the acquired frequencies only."""
    white = rng.standard_normal((2, *clean.shape), dtype=np.float32)
    window = _window(protocol, clean.shape)
    noise = fft.ifft2(fft.fft2(white[0] + 1j * white[1]) * window)
    noise *= np.float32(1 / (protocol.snr * np.sqrt((window**2).mean())))
    return np.asarray(np.abs(clean + noise), np.float32)


_NODE_MM = 6.0  # spacing of the lattice on which cord coordinates are computed exactly


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices through a body, with cord coordinates on a coarse lattice over them.

    Attributes
    ----------
    body : Body
    protocol : Protocol
    shape : (int, int, int)
        Number of slices, and of rows and columns in them.
    nodes : (3, A, B, C) float32
        Coordinates u, v and s.
    at : tuple of (N,) float64
        Positions of the lattice along the slice axis and the two axes in plane, in voxels.
    """

    body: Body
    protocol: Protocol
    shape: tuple[int, ...]
    nodes: Floats
    at: tuple[Doubles, ...]

    def coordinates(self, k: float, rows: Doubles, columns: Doubles) -> Floats:
        """u, v, s, (3, R, C), at rows and columns of the plane k; all in voxels."""
        across = linear_weights(self.at[0], np.array([k]))
        plane = np.tensordot(self.nodes, across[0], axes=([1], [0]))
        left, right = linear_weights(self.at[1], rows), linear_weights(self.at[2], columns)
        return np.asarray(np.matmul(np.matmul(left, plane), right.T), np.float32)

    def at_pixels(self, k: float) -> Floats:
        """u, v, s, (3, R, C), at the pixels of the plane k."""
        return self.coordinates(k, *(np.arange(n, dtype=np.float64) for n in self.shape[1:]))


def make_slices(body: Body, protocol: Protocol, grid: Grid) -> Slices:
    """Lay the slices of a protocol through a body; `grid` is that of the scan in RPI."""
    at = []
    for n, step in zip(grid.shape, grid.spacing_mm, strict=True):
        count = max(int(np.ceil((n + 1) * step / _NODE_MM)), 2) + 1
        at.append(np.linspace(-1.0, n, count))
    nodes = np.stack(np.meshgrid(*at, indexing="ij"), axis=-1)
    uvs = np.stack(body.coordinates(grid.to_world(nodes))).astype(np.float32)
    axes = _axes(protocol)
    moved = np.ascontiguousarray(uvs.transpose(0, *(k + 1 for k in axes)))
    shape = tuple(grid.shape[k] for k in axes)
    return Slices(body, protocol, shape, moved, tuple(at[k] for k in axes))


def _axes(protocol: Protocol) -> tuple[int, int, int]:
    """Axes of an RPI array: the one across which slices are stacked, and the two in plane."""
    return (2, 0, 1) if protocol.plane == "axial" else (0, 1, 2)


def linear_weights(nodes: Doubles, at: Doubles) -> Floats:
    """Matrix, (len(at), len(nodes)), that interpolates linearly between nodes."""
    step = nodes[1] - nodes[0]
    x = np.clip((at - nodes[0]) / step, 0, len(nodes) - 1 - 1e-9)
    hats = np.maximum(1 - np.abs(x[:, None] - np.arange(len(nodes))), 0)
    return np.asarray(hats, np.float32)


_CANAL_TOP_MM = 24.0  # above it the canal belongs to the head
CORD_TOP_MM = 3.0  # upper end of the cord's mask: the edge of C1


def rpi_grid(body: Body, protocol: Protocol) -> Grid:
    """Grid of a protocol's voxels in RPI, placed in the body."""
    step = np.array([protocol.pixel_mm] * 3)
    if protocol.plane != "3d":
        step[_axes(protocol)[0]] = protocol.slice_mm + protocol.gap_mm
    shape = np.maximum(np.round(np.array(protocol.fov_mm) / step).astype(int), 3)
    x, y, z = np.deg2rad(protocol.tilt)
    turn = _turn(0, x) @ _turn(1, y) @ _turn(2, z)
    axes = turn @ np.diag([-1.0, 1.0, 1.0]) * step
    u, v, s = protocol.middle_mm
    middle = body.cord_centre(np.array([s]))[0] + np.array([u, v, 0.0])
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = middle - axes @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _turn(axis: int, angle: float) -> Doubles:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def acquire(
    rng: np.random.Generator, body: Body, lesions: Lesions, protocol: Protocol, grid: Grid
) -> tuple[Floats, Floats, Floats]:
    """Scan a body.

    The canal is painted at half-pixel steps on every sub-slice of the profile: seven of a thick
    slice, three of a thin one of a 3-D scan. What surrounds it has edges a pixel wide, so it is
    painted at the pixels, on three of the seven or the middle one of the three, and interpolated
    to half-pixel steps. The mean over the profile is cut to the acquired part of k-space and
    transformed back; then come coil, ghosts and noise.

    Parameters
    ----------
    rng : Generator
        For noise and bias only.
    body, lesions, protocol
    grid : Grid
        RPI grid of the voxels.

    Returns
    -------
    signal : (X, Y, Z) float32
        Magnitude.
    cord, lesion : (X, Y, Z) float32
        Share of each voxel inside.
    """
    slices = make_slices(body, protocol, grid)
    made = np.zeros((3, *slices.shape), np.float32)
    field = bias_field(rng, protocol, slices.shape)
    for k, (signal, cord, lesion) in enumerate(zip(*made, strict=True)):
        fine, pulsating = _doubled(_surrounded(slices, k)), np.zeros_like(signal)
        if window := _canal_window(slices, k):
            steps = tuple(slice(2 * w.start, 2 * w.stop - 1) for w in window)
            change, *shares = _canal_sums(slices, lesions, k, fine[steps], steps)
            fine[steps] += change
            for target, share in zip((cord, lesion, pulsating), shares, strict=True):
                target[window] = _halved(share)
        clean = through_k_space(fine, protocol, signal.shape) + ghosts(pulsating, protocol)
        gain = field[k] * sensitivity(body, protocol, *slices.at_pixels(k)[1:])
        signal[:] = noisy(rng, clean * gain, protocol)
        signal /= gain ** np.float32(protocol.normalised)
    back = np.argsort(_axes(protocol))
    signal, cord, lesion = (np.ascontiguousarray(a.transpose(back)) for a in made)
    return signal, cord, lesion


def _profile(protocol: Protocol) -> list[list[float]]:
    """Sub-slices of a slice: three of the thin ones of 3-D scans, seven of thick ones.

    Each has an offset from the middle of the slice, in slice spacings, a weight in the image and
    one in the label. A thick slice's profile reaches a little beyond the slice; the label counts
    the slice alone. The surroundings are painted on every second sub-slice only, from the second.
    """
    if protocol.plane == "3d":
        return [[k / 3, 1 / 3, 1 / 3] for k in (-1, 0, 1)]
    thick = protocol.slice_mm / (protocol.slice_mm + protocol.gap_mm)
    offsets, weights = slice_profile()
    label = (np.abs(offsets) < 0.5) / 5
    parts: list[list[float]] = np.stack([offsets * thick, weights, label], 1).tolist()
    return parts


def slice_profile(parts: int = 1) -> tuple[Doubles, Doubles]:
    """Sub-slices of a thick slice: offsets in slice thicknesses, and weights that sum to one.

    They are 0.2 apart, or so many times closer; an odd number divides the slice evenly.
    """
    offsets = np.arange(-3 * parts, 3 * parts + 1) * (0.2 / parts)
    weights = np.exp(-0.5 * (offsets / 0.42) ** 4)
    return np.asarray(offsets, np.float64), np.asarray(weights / weights.sum(), np.float64)


def _surrounded(slices: Slices, k: int) -> Floats:
    """Signal of all but the canal at the pixels of a slice, (R, C)."""
    parts = _profile(slices.protocol)[1::2]
    total = sum(weight for _, weight, _ in parts)
    signal = np.zeros(slices.shape[1] * slices.shape[2], np.float32)
    for offset, weight, _ in parts:
        u, v, s = slices.at_pixels(k + offset).reshape(3, -1)
        points = Points(slices.body, slices.protocol, u, v, s, slices.protocol.pixel_mm * 1.1)
        signal += np.float32(weight / total) * surroundings(points)
    return signal.reshape(slices.shape[1:])


def _canal_window(slices: Slices, k: int) -> tuple[slice, ...] | None:
    """Pixels of a slice that the canal may touch; None where there are none."""
    u, v, s = slices.at_pixels(k)
    near = (u * u + v * v < (RADIUS_MM + 2) ** 2) & (s < _CANAL_TOP_MM) & slices.body.has_column
    return next(iter(ndimage.find_objects(near.astype(int))), None)


def _canal_sums(
    slices: Slices, lesions: Lesions, k: int, under: Floats, steps: tuple[slice, ...]
) -> Floats:
    """Sum over the sub-slices of the canal at half-pixel steps of a slice.

    Parameters
    ----------
    under : (H, W) float32
        Signal that is there without the canal.
    steps : (slice, slice)
        Which of the slice's half-pixel steps these are.

    Returns
    -------
    (4, H, W) float32
        What the canal adds to the signal; shares inside cord and lesions, and of pulsating fluid.
    """
    rows, columns = (np.arange(w.start, w.stop) / 2 for w in steps)
    sums = np.zeros((4, *under.shape), np.float32)
    for offset, weight, label in _profile(slices.protocol):
        u, v, s = slices.coordinates(k + offset, rows, columns)
        chosen = (np.sqrt(u * u + v * v) < RADIUS_MM) & (s < _CANAL_TOP_MM)
        points = Points(slices.body, slices.protocol, u, v, s, slices.protocol.pixel_mm / 2)[chosen]
        before = under[chosen]
        signal, cord, lesion, pulsating = canal(points, lesions, before)
        below_head = np.clip((_CANAL_TOP_MM - points.s) / 8, 0, 1)
        in_mask = (points.s < CORD_TOP_MM).astype(np.float32)
        sums[0, chosen] += weight * (below_head * (signal - before))
        sums[1, chosen] += label * (cord * in_mask)
        sums[2, chosen] += label * (lesion * in_mask)
        sums[3, chosen] += weight * pulsating * below_head
    return sums


def _doubled(image: Floats) -> Floats:
    """Linear interpolation to half-pixel steps; the last step repeats."""
    for axis in range(2):
        image = np.moveaxis(image, axis, 0)
        out = np.empty((2 * len(image), *image.shape[1:]), np.float32)
        out[::2] = image
        out[1:-1:2] = (image[1:] + image[:-1]) / 2
        out[-1] = image[-1]
        image = np.moveaxis(out, 0, axis)
    return np.ascontiguousarray(image)


def _halved(fine: Floats) -> Floats:
    """Mean over each pixel of values at half-pixel steps: weights 1/4, 1/2, 1/4 along an axis."""
    for axis in range(2):
        fine = np.moveaxis(fine, axis, 0)
        out = fine[::2] * np.float32(0.5)
        out[1:] += fine[1:-1:2] / 4
        out[:-1] += fine[1:-1:2] / 4
        fine = np.moveaxis(out, 0, axis)
    return fine
