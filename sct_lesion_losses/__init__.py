"""MS lesion segmentation on T2-weighted spinal cord MRI, with tuned decision thresholds.

::

    import sct_lesion_losses as sll
    found = sll.segment("t2.nii.gz")

The rooms of the package (`sll.losses`, `sll.metrics`, `sll.thresholds`, …) are loaded when they are
first used.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sct_lesion_losses.report.sidecar import Segmentation

__version__ = "0.1.0"

# ONNX Runtime reports usage to its maker unless told so before it is first imported, anywhere.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def segment(
    image: str | Path,
    *,
    bundle: str = "default",
    threshold: float | None = None,
    ofolder: str | Path | None = None,
    **options: Any,
) -> Segmentation:
    """Segment the lesions of a scan, as `sct_deepseg_lesion_tuned` does.

    Parameters
    ----------
    image : str or Path
        NIfTI file, 3-D, any orientation.
    bundle : str
        Name or folder of a model bundle, or ``sct`` for SCT's own lesion model.
    threshold : float, optional
        Decision threshold in (0, 1]; the bundle's tuned one by default; 0 writes the p-map alone.
    ofolder : str or Path, optional
        Folder of the outputs; the current folder by default.
    **options
        Other entries of `workflows.segment.SegmentSettings` and `inference.predict.
        InferenceSettings`: ``lesions=True`` writes a table of the lesions, ``pmap=True`` the p-map,
        ``centerline_file=Path("cord.nii.gz")`` gives the cord.

    Returns
    -------
    Segmentation
        `mask`, (X, Y, Z) bool, and `pmap`, (X, Y, Z) float32, on the scan's own grid; `found` with
        the number of `lesions`, their `load_mm3` and the highest probability; `threshold`;
        `written`, the paths of the files, the mask first; `warnings`.

    Raises
    ------
    LesionError
        The scan, the cord or the bundle cannot be used, or the folder cannot be written.
    """
    from sct_lesion_losses.images import outputs
    from sct_lesion_losses.inference.predict import InferenceSettings
    from sct_lesion_losses.workflows.segment import SegmentSettings
    from sct_lesion_losses.workflows.segment import segment as segment_scan

    image = Path(image)
    inference = InferenceSettings.taken_from(options)
    options.setdefault("command", f"segment {image.name}")
    settings = SegmentSettings(bundle, threshold, inference, **options)
    folder = None if ofolder is None else Path(ofolder)
    return segment_scan(image, settings, outputs.for_scan(image, folder=folder))


def __getattr__(name: str) -> Any:
    if name in __dir__():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *(room.name for room in pkgutil.iter_modules(__path__))]
