"""From the signal to the image: truncated k-space, ghosts of pulsation, noise."""

from __future__ import annotations

import numpy as np
from scipy import fft

from sct_lesion_losses.phantom.noise import Floats
from sct_lesion_losses.phantom.sites import Protocol

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
    if protocol.ghost == 0:
        return np.zeros_like(pulse)
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
    result: Floats = np.abs(clean + noise).astype(np.float32)
    return result
