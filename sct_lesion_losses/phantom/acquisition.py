"""The scanner: slices through the anatomy, k-space, coil, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.phantom.anatomy import Body
from sct_lesion_losses.phantom.canal import RADIUS_MM, canal
from sct_lesion_losses.phantom.kspace import ghosts, noisy, through_k_space
from sct_lesion_losses.phantom.lesions import Lesions
from sct_lesion_losses.phantom.noise import Floats
from sct_lesion_losses.phantom.sites import Protocol
from sct_lesion_losses.phantom.tissue import surroundings
from sct_lesion_losses.space.grid import Grid

_NODE_MM = 6.0  # spacing of the lattice on which cord coordinates are computed exactly
_CHUNK = 1 << 16  # points painted at a time: their arrays stay in the processor's cache
_CANAL_TOP_MM = 24.0  # above it the canal belongs to the head
CORD_TOP_MM = 3.0  # upper end of the cord's mask: the edge of C1


@dataclass(frozen=True, eq=False)
class Acquired:
    """One scan in RPI: magnitude signal, and share of each voxel inside cord and lesion."""

    signal: Floats
    cord: Floats
    lesion: Floats


@dataclass(frozen=True, eq=False)
class _Frame:
    """Cord coordinates all over a grid, interpolated from a coarse lattice.

    nodes : (3, A, B, C) float32, coordinates u, v, s on the lattice
    at : positions of the lattice along the slice axis and the two axes in plane, in voxels
    """

    nodes: Floats
    at: tuple[npt.NDArray[np.float64], ...]

    def plane(self, k: float) -> Floats:
        """Coordinates on the lattice of one plane, (3, B, C)."""
        w = _weights(self.at[0], np.array([k]))
        result: Floats = np.tensordot(self.nodes, w[0], axes=([1], [0]))
        return result


def _weights(nodes: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> Floats:
    """Matrix, (len(at), len(nodes)), that interpolates linearly between nodes."""
    step = nodes[1] - nodes[0]
    x = np.clip((at - nodes[0]) / step, 0, len(nodes) - 1 - 1e-9)
    low = x.astype(int)
    matrix = np.zeros((len(at), len(nodes)), np.float32)
    rows = np.arange(len(at))
    matrix[rows, low] = 1 - (x - low)
    matrix[rows, low + 1] += x - low
    return matrix


def rpi_grid(body: Body, protocol: Protocol) -> Grid:
    """Grid of a protocol's voxels in RPI, placed in the body."""
    step = np.array([protocol.pixel_mm] * 3)
    if protocol.plane != "3d":
        step[slice_axis(protocol)] = protocol.slice_mm + protocol.gap_mm
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


def _turn(axis: int, angle: float) -> npt.NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def slice_axis(protocol: Protocol) -> int:
    """Axis of an RPI array across which the slices are stacked."""
    return 2 if protocol.plane == "axial" else 0


def acquire(
    rng: np.random.Generator,
    body: Body,
    lesions: Lesions,
    protocol: Protocol,
    grid: Grid,
    *,
    with_column: bool = True,
) -> Acquired:
    """Scan a body.

    Every slice is painted on a grid twice as fine in plane, averaged over the slice profile,
    cut to the acquired part of k-space and transformed back; then come coil, ghosts and noise.

    Parameters
    ----------
    rng : Generator
        For noise and bias only.
    body, lesions, protocol
    grid : Grid
        RPI grid of the voxels.
    with_column : bool
        False leaves out the spine and all it contains.
    """
    axis = slice_axis(protocol)
    order = (axis, *(k for k in range(3) if k != axis))
    frame = _frame(body, grid, order)
    shape = tuple(grid.shape[k] for k in order)
    signal, cord, lesion = (np.zeros(shape, np.float32) for _ in range(3))
    field = _field(rng, protocol, shape)
    for k in range(shape[0]):
        fine, cord[k], lesion[k], pulse = _slice(
            body, lesions, protocol, frame, k, shape, with_column
        )
        clean = through_k_space(fine, protocol, shape[1:])
        clean += ghosts(pulse, protocol)
        sensitivity = field[k] * _coil(protocol, frame, k, shape)
        signal[k] = noisy(rng, clean * sensitivity, protocol)
        signal[k] /= sensitivity ** np.float32(protocol.normalised)
    back = np.argsort(order)
    return Acquired(*(np.ascontiguousarray(a.transpose(*back)) for a in (signal, cord, lesion)))


def _frame(body: Body, grid: Grid, order: tuple[int, ...]) -> _Frame:
    at = []
    for k in range(3):
        n, step = grid.shape[k], grid.spacing_mm[k]
        count = max(int(np.ceil((n + 1) * step / _NODE_MM)), 2) + 1
        at.append(np.linspace(-1.0, n, count))
    nodes = np.stack(np.meshgrid(*at, indexing="ij"), axis=-1)
    uvs = np.stack(body.coordinates(grid.to_world(nodes))).astype(np.float32)
    moved = uvs.transpose(0, *(k + 1 for k in order))
    return _Frame(np.ascontiguousarray(moved), tuple(at[k] for k in order))


def _profile(protocol: Protocol) -> list[tuple[float, float, float, bool]]:
    """Sub-slices: offset in slice spacings, weight in the image, weight in the label, coarse.

    The image's profile reaches a little beyond the slice; the label counts the slice alone. The
    surroundings, painted on the coarse sub-slices only, get the same total weight.
    """
    if protocol.plane == "3d":
        return [
            (-1 / 3, 1 / 3, 1 / 3, False),
            (0, 1 / 3, 1 / 3, True),
            (1 / 3, 1 / 3, 1 / 3, False),
        ]
    thick = protocol.slice_mm / (protocol.slice_mm + protocol.gap_mm)
    offsets = np.arange(-3, 4) * 0.2
    shape = np.exp(-0.5 * (offsets / 0.42) ** 4)
    shape /= shape.sum()
    label = (np.abs(offsets) < 0.5) / 5
    return [
        (float(o * thick), float(w), float(b), k in (1, 3, 5))
        for k, (o, w, b) in enumerate(zip(offsets, shape, label, strict=True))
    ]


def _slice(
    body: Body, lesions: Lesions, protocol: Protocol, frame: _Frame, k: int,
    shape: tuple[int, ...], with_column: bool,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """One slice: twice-as-fine signal, and at the pixels cord, lesion and pulsating fluid."""
    rows, columns = (np.arange(n, dtype=np.float64) for n in shape[1:])
    profile = _profile(protocol)
    coarse = [p for p in profile if p[3]]
    total = sum(p[1] for p in coarse)
    base = np.zeros(shape[1:], np.float32)
    for offset, weight, _, _ in coarse:
        u, v, s = _coordinates(frame, k + offset, rows, columns)
        painted = _painted(body, protocol, u, v, s, protocol.pixel_mm * 1.1, with_column)
        base += np.float32(weight / total) * painted
    fine = _doubled(base)
    empty = [np.zeros(shape[1:], np.float32) for _ in range(3)]
    if not with_column:
        return fine, empty[0], empty[1], empty[2]
    u, v, s = _coordinates(frame, float(k), rows, columns)
    near = (u * u + v * v < (RADIUS_MM + 2) ** 2) & (s < _CANAL_TOP_MM)
    if not near.any():
        return fine, empty[0], empty[1], empty[2]
    box = [np.flatnonzero(near.any(axis=1 - a)) for a in range(2)]
    window = tuple(slice(2 * int(b[0]), 2 * int(b[-1]) + 1) for b in box)
    patch = fine[window]
    places = [np.arange(w.start, w.stop) / 2 for w in window]
    sums = [np.zeros_like(patch) for _ in range(4)]
    for offset, weight, label, _ in profile:
        u, v, s = _coordinates(frame, k + offset, places[0], places[1])
        r = np.sqrt(u * u + v * v)
        chosen = np.flatnonzero((r < RADIUS_MM) & (s < _CANAL_TOP_MM))
        p = [x.ravel()[chosen] for x in (patch, u, v, s)]
        found = canal(
            body, protocol.contrast, lesions, p[0], p[1], p[2], p[3],
            protocol.pixel_mm / 2, protocol.flow,
        )  # fmt: skip
        share = np.clip((_CANAL_TOP_MM - p[3]) / 8, 0, 1)
        mask = (p[3] < CORD_TOP_MM).astype(np.float32)
        new = (share * (found.signal - p[0]), found.cord * mask, found.lesion * mask)
        for total_, values, w in zip(sums, new, (weight, label, label), strict=False):
            total_.reshape(-1)[chosen] += np.float32(w) * values
        sums[3].reshape(-1)[chosen] += np.float32(weight) * found.pulsating * share
    fine[window] = patch + sums[0]
    pixels = tuple(slice(int(b[0]), int(b[-1]) + 1) for b in box)
    for target, values in zip(empty, sums[1:], strict=True):
        target[pixels] = _halved(values)
    return fine, empty[0], empty[1], empty[2]


def _coordinates(
    frame: _Frame, k: float, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> Floats:
    """u, v, s, (3, R, C), at places of a plane, in voxels."""
    left = _weights(frame.at[1], rows)
    right = _weights(frame.at[2], columns)
    result: Floats = np.matmul(np.matmul(left, frame.plane(k)), right.T)
    return result


def _painted(
    body: Body, protocol: Protocol, u: Floats, v: Floats, s: Floats, edge_mm: float,
    with_column: bool,
) -> Floats:  # fmt: skip
    flat = [x.ravel() for x in (u, v, s)]
    out = np.empty_like(flat[0])
    for start in range(0, out.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = surroundings(
            body, protocol.contrast, flat[0][part], flat[1][part], flat[2][part], edge_mm,
            with_column=with_column,
        )  # fmt: skip
    return out.reshape(u.shape)


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


def _field(rng: np.random.Generator, protocol: Protocol, shape: tuple[int, ...]) -> Floats:
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


def _coil(protocol: Protocol, frame: _Frame, k: int, shape: tuple[int, ...]) -> Floats:
    """Sensitivity of the coil behind the spine, and the saturation band in front."""
    rows, columns = (np.arange(n, dtype=np.float64) for n in shape[1:])
    _, v, _ = _coordinates(frame, float(k), rows, columns)
    decay = np.exp(-np.clip(v + 30, -40, 200) / protocol.coil_mm)
    decay *= np.float32(np.exp(30 / protocol.coil_mm))
    if protocol.band < 1:
        under = np.clip((v - 42) / 12, 0, 1)
        decay *= 1 - np.float32(1 - protocol.band) * under
    result: Floats = np.maximum(decay, np.float32(0.02)).astype(np.float32)
    return result
