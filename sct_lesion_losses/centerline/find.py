"""The cord in a scan: one centerline by the method that was asked for (`centerline.METHODS`)."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses.centerline import METHODS, cnn, optic
from sct_lesion_losses.centerline.detector import detect, shipped, shows_cord
from sct_lesion_losses.errors import CenterlineError, GeometryError, NoCordError, UsageError
from sct_lesion_losses.geometry import signal as signals
from sct_lesion_losses.geometry.centerline import HOW_TO_GIVE, Centerline
from sct_lesion_losses.geometry.grid import Grid
from sct_lesion_losses.geometry.signal import Signal
from sct_lesion_losses.images import cord_mask, nifti
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.sct import centerline as sct_centerline
from sct_lesion_losses.sct import install
from sct_lesion_losses.sct import lesion as sct_lesion

logger = logging.getLogger(__name__)

_MODELS = {"t1": "t1", "t2": "t2", "t2_ax": "t2", "t2s": "t2s", "dwi": "dwi"}
STEEP = 1.0  # of the cord against the axial slices: 45 degrees
_CHECKED_CONTRASTS = ("t2", "t2_ax", "t2s")  # the embedded detector knows a cord in these


def centerline(
    image: npt.NDArray[Any],
    grid: Grid,
    method: str = "auto",
    *,
    contrast: str = "t2",
    file: Path | Scan | None = None,
    brain: bool = True,
    as_sct: bool = False,
) -> Centerline:
    """Find the cord's centerline.

    Slices without signal, as padding, stitching and defacing leave them, have no point: the scan is
    searched without them, and a line from a file is cut to the others.

    Parameters
    ----------
    image : (X, Y, Z)
        Scan on its own axes; finite.
    grid : Grid
        Grid of the scan.
    method : str
        One of `centerline.METHODS`.
    contrast : {"t1", "t2", "t2_ax", "t2s", "dwi"}
        Contrast of the scan, for SCT's weights.
    file : Path or Scan, optional
        Cord mask, centerline image, read or not, or SCT's CSV for ``file``; with ``auto`` it means
        ``file``.
    brain : bool
        Whether the scan may show the brain, for ``cnn``.
    as_sct : bool
        Take the centres of mass of a file as SCT's lesion model does, to the last bit; the line is
        then on the grid of that model.

    Returns
    -------
    Centerline
        On the scan's grid in RPI; its `method` says what was used.

    Raises
    ------
    UsageError
        The method, the contrast or the combination of both with `file` is unknown.
    NoCordError
        The scan shows no cord. Nothing tells so with ``viewer`` and ``file``, nor of ``svm`` and
        ``cnn`` with a contrast other than t2, t2_ax and t2s, which the embedded detector does not
        know; no command takes another.
    CenterlineError
        The file does not fit the scan.
    SctError
        The method needs a part of SCT that is missing, or its command failed.
    """
    chosen = _chosen(method, contrast, file)
    if (method, chosen) == ("auto", "embedded"):
        logger.info("SCT was not found: the embedded detector finds the centerline")
    rpi, reorientation = grid.to_rpi()
    upright = reorientation.apply(image)
    signal = Signal.of(upright, rpi)
    mask = None
    if chosen == "file" and file is not None:
        mask, drawn = from_file(file, grid)
        name = (file.path if isinstance(file, Scan) else file).name
        line = _bridged(signal.crop_line(drawn), name, as_sct and mask is not None)
    elif signal.is_whole:
        line = _searched(image, grid, chosen, contrast, brain)
    else:
        line = _searched(signal.crop(upright), signal.grid, chosen, contrast, brain)
    line = signal.uncrop_line(line)
    seen = signal.along(upright, line)
    if not seen.is_whole:
        logger.warning("no signal in %s: they are left out", seen.left_out)
    if mask is not None and as_sct:
        line = sct_lesion.centerline(mask.array, mask.grid, line.method)
    return line if seen.is_whole else line.only(seen.z)


def _searched(
    image: npt.NDArray[Any], grid: Grid, method: str, contrast: str, brain: bool
) -> Centerline:
    """Line of a scan that has signal in every slice."""
    if method == "embedded":
        return detect(image, grid)
    model = _MODELS[contrast]
    if method == "cnn":
        line = cnn.centerline(image, grid, sct_centerline.ctr_model(model), model, brain)
    elif method == "viewer" or install.require(sct_centerline.REMEDY).has(sct_centerline.COMMAND):
        arguments = ["viewer"] if method == "viewer" else ["optic", "-c", model]
        drawn = sct_centerline.get(image, grid, ["-method", *arguments])
        name = f"{method} (SCT's {sct_centerline.COMMAND})"
        line = _bridged(_drawn(drawn, grid.to_rpi()[0], name), drawn.path.name)
    else:
        line = optic.centerline(image, grid, sct_centerline.weights(model))
    # SCT's methods draw a line through anything.
    checked = method != "viewer" and contrast in _CHECKED_CONTRASTS
    if checked and not shows_cord(image, grid):
        raise NoCordError(
            "no spinal cord was recognised in the scan, the line may follow something else; check "
            "the scan and its contrast (-c). Where it does show the cord, give its course with "
            f"-centerline viewer, or {HOW_TO_GIVE}"
        )
    return line


def read(file: Path) -> Path | Scan:
    """Read an image for `centerline` and `drawn_cord` once; a CSV stays a path.

    Raises
    ------
    ImageError
        It is neither.
    """
    return file if file.suffix.lower() == ".csv" else nifti.read_mask(file)


def drawn_cord(given: Path | Scan | None, grid: Grid) -> npt.NDArray[np.bool_] | None:
    """Cord mask in what `read` returned, stored as a scan is; None where it is a line.

    Parameters
    ----------
    given : Path, Scan or None
    grid : Grid
        Grid of the scan.
    """
    if not isinstance(given, Scan) or cord_mask.section_vox(given) <= cord_mask.LINE_VOX:
        return None
    return grid.to_rpi()[1].undo(given.grid.to_rpi()[1].apply(given.array))


def identity(method: str = "auto", contrast: str = "t2") -> str:
    """Identify how a method finds the cord: its weights, its version, and the detector's.

    Two calls of `centerline` find the same line in a scan where this has not changed in between,
    but for what a person draws in ``viewer``.

    Parameters
    ----------
    method : {"auto", "svm", "cnn", "viewer", "embedded"}
        ``auto`` has the identity of the method that it stands for where no file is given.
    contrast : {"t1", "t2", "t2_ax", "t2s", "dwi"}

    Raises
    ------
    UsageError
        The method or the contrast is unknown, or the line comes from a file.
    SctError
        SCT is missing, or is there without what the method needs.
    """
    chosen = _chosen(method, contrast, None)
    parts = [chosen, shipped().identity, repr((signals.FAINT, signals.WINDOW_MM))]
    if chosen == "cnn":
        network = sct_centerline.ctr_model(_MODELS[contrast])
        parts.append(hashlib.sha256(network).hexdigest())
    elif chosen != "embedded":
        installation = install.require(sct_centerline.REMEDY)
        if chosen == "viewer" or installation.has(sct_centerline.COMMAND):
            parts += [str(installation.bin), str(installation.version)]
        else:
            parts.append(sct_centerline.weights(_MODELS[contrast]).tobytes().hex())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def coverage(line: Centerline) -> str:
    """Say how much of the scan a centerline covers."""
    covered = int(line.covered.sum())
    return (
        f"it covers {covered} of {len(line.xy)} axial slices, "
        f"{covered * line.grid.spacing_mm[2]:.0f} mm"
    )


def _chosen(method: str, contrast: str, file: Path | Scan | None) -> str:
    """Check the arguments; the method that `auto` stands for."""
    if method not in METHODS:
        raise UsageError(f"-centerline {method}: expected one of {', '.join(METHODS)}")
    if contrast not in _MODELS:
        raise UsageError(f"contrast {contrast!r}: expected one of {', '.join(_MODELS)}")
    if method == "file" and file is None:
        raise UsageError("-centerline file needs the image: add -file_centerline <file>")
    if file is not None and method not in ("auto", "file"):
        raise UsageError(f"-file_centerline goes with -centerline file, not with {method}")
    if method != "auto":
        return method
    if file is not None:
        return "file"
    installation = install.find()
    if installation is not None and (installation.data / "optic_models").is_dir():
        return "svm"
    return "embedded"


def from_file(given: Path | Scan, grid: Grid) -> tuple[Scan | None, Centerline]:
    """Line of a cord mask, a centerline image, or SCT's CSV; and the image where it is one's.

    A CSV of the same name beside a centerline image holds the line that the image was rounded from.

    Raises
    ------
    ImageError
        The file cannot be read as a mask.
    CenterlineError, GeometryError
        It does not fit the scan, whose grid is `grid`.
    """
    file = given.path if isinstance(given, Scan) else given
    name, mask, rpi = f"file ({file.name})", None, grid.to_rpi()[0]
    if file.suffix.lower() == ".csv":
        line = _from_csv_alone(file, grid, name)
    else:
        mask = given if isinstance(given, Scan) else nifti.read_mask(file)
        line = _drawn(mask, rpi, name)
        exact = file.with_name(f"{nifti.stem(file)[0]}.csv")
        if mask.array.sum() == line.covered.sum() and exact.is_file():
            finer = _from_csv(exact, grid, f"file ({exact.name})")
            if np.array_equal(np.rint(finer.xy), line.xy, equal_nan=True):
                logger.info("%s: its line is taken in full digits from %s", file.name, exact.name)
                return None, finer
            logger.warning("%s: holds another line than %s and is not used", exact.name, file.name)
        cord_mask.warn_of_size(mask, line=True)
    _warn_of_jumps(line, file.name)
    return mask, line


def _from_csv(file: Path, grid: Grid, method: str) -> Centerline:
    try:
        return Centerline.from_csv(file.read_text(encoding="utf-8-sig"), grid, method)
    except (OSError, UnicodeDecodeError) as error:
        raise CenterlineError(f"{file}: cannot be read as text: {error}") from error
    except CenterlineError as error:
        raise CenterlineError(f"{file}: {error}") from error


def _from_csv_alone(file: Path, grid: Grid, method: str) -> Centerline:
    """Line of a CSV without its image, in whose axes the voxels may be those of older SCT.

    SCT 7 writes voxels of the stored image, SCT before it those of the image turned to RPI
    (spinalcordtoolbox/spinalcordtoolbox, pull request 4622).
    """
    if grid.orientation == "RPI":
        return _from_csv(file, grid, method)
    try:
        older = _from_csv(file, grid.to_rpi()[0], method)
    except CenterlineError:
        return _from_csv(file, grid, method)
    try:
        line = _from_csv(file, grid, method)
    except CenterlineError:
        logger.warning(
            "%s: its voxels fit the scan (%s) only when it is turned to RPI, as SCT before 7.0 "
            "wrote them, and are taken so; does the line follow the cord? Its image would tell",
            *(file.name, grid.orientation),
        )
        return older
    if not np.array_equal(line.xy, older.xy, equal_nan=True):
        logger.warning(
            "%s: its voxels are taken as those of the scan as it is stored (%s), as SCT 7.0 and "
            "newer write them; does the line follow the cord? Its image would tell",
            *(file.name, grid.orientation),
        )
    return line


def _warn_of_jumps(line: Centerline, name: str) -> None:
    """Warn of a line that runs as no cord does."""
    dx, dy, dz = line.grid.spacing_mm
    known = np.flatnonzero(line.covered)
    steps = np.hypot(*(np.diff(line.xy[known], axis=0) * (dx, dy)).T)
    jumps = steps > np.diff(known) * dz * STEEP + 2 * max(dx, dy)
    if jumps.any():
        at = int(known[1:][jumps][0])
        logger.warning(
            "%s: %d jumps from slice to slice, the first of %.0f mm to slice %d from below: does "
            "it follow the cord?",
            *(name, int(jumps.sum()), float(steps[jumps][0]), at),
        )


def _drawn(mask: Scan, rpi: Grid, method: str) -> Centerline:
    """Centerline of a mask on the grid of the scan, in any axis order."""
    own, reorientation = mask.grid.to_rpi()
    name = mask.path.name
    if not own.matches(rpi, tolerance_mm=min(rpi.spacing_mm) / 10):
        raise GeometryError(
            f"{name}: its grid ({_described(own)}) is not the scan's ({_described(rpi)}); "
            "draw it on the scan, or resample it with `sct_register_multimodal -identity 1`"
        )
    if not mask.array.any():
        raise CenterlineError(f"{name}: the mask is empty; draw the cord or its centerline")
    return Centerline.from_mask(reorientation.apply(mask.array), rpi, method)


def _bridged(line: Centerline, name: str, as_sct: bool = False) -> Centerline:
    """Interpolate the slices between others that have no point, and say so."""
    whole = line.filled()
    gaps = int(whole.covered.sum() - line.covered.sum())
    if gaps:
        fate = "are left out, as SCT does" if as_sct else "are interpolated"
        logger.warning("%s: %d slices between others have no point; they %s", name, gaps, fate)
    return whole


def _described(grid: Grid) -> str:
    shape = " × ".join(str(n) for n in grid.shape)
    size = " × ".join(f"{mm:.3g}" for mm in grid.spacing_mm)
    x, y, z = grid.affine[:3, 3]
    return f"{shape} voxels of {size} mm from {x:.1f}, {y:.1f}, {z:.1f} mm, in RPI"
