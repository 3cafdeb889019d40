"""The files of one synthetic scan."""

from __future__ import annotations

import gzip
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from sct_lesion_losses.files import replacing, write_json
from sct_lesion_losses.phantom.scan import PhantomScan
from sct_lesion_losses.space.grid import Grid


def write_scan(scan: PhantomScan, raw: Path, labels: Path, stem: str) -> Path:
    """Write a scan, its sidecar and its labels; return the path of the scan."""
    slope = 0.5 if scan.protocol.dtype == "int16-scaled" else None
    path = raw / f"{stem}.nii.gz"
    write_nifti(path, scan.image, scan.grid, slope)
    write_json(raw / f"{stem}.json", _sidecar(scan))
    write_nifti(labels / f"{stem}_label-lesion_seg.nii.gz", scan.lesion, scan.grid)
    write_nifti(labels / f"{stem}_label-SC_seg.nii.gz", scan.cord, scan.grid)
    write_nifti(labels / f"{stem}_label-centerline.nii.gz", centerline_mask(scan), scan.grid)
    return path


def write_nifti(
    path: Path, array: npt.NDArray[Any], grid: Grid, slope: float | None = None
) -> None:
    """Write a compressed NIfTI file without time stamp; `slope` is stored, not applied."""
    image = nib.Nifti1Image(array, grid.affine)
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def centerline_mask(scan: PhantomScan) -> npt.NDArray[np.uint8]:
    """One voxel on the cord's centre in each axial slice, (X, Y, Z), in stored orientation."""
    mask = np.zeros(scan.grid.shape, np.uint8)
    if not len(scan.centerline):
        return mask
    grid, turn = scan.grid.to_rpi()
    points = grid.to_voxel(scan.centerline)
    points = points[np.argsort(points[:, 2])]
    z = np.arange(grid.shape[2])
    z = z[(z >= points[0, 2] - 0.5) & (z <= points[-1, 2] + 0.5)]
    xy = [np.interp(z, points[:, 2], points[:, k]) for k in range(2)]
    x, y = (
        np.clip(np.round(a).astype(int), 0, n - 1) for a, n in zip(xy, grid.shape, strict=False)
    )
    turn.apply(mask)[x, y, z] = 1  # in RPI it is a view: this writes into the mask itself
    return mask


def _sidecar(scan: PhantomScan) -> dict[str, Any]:
    p, negatives = scan.protocol, scan.hard_negatives
    return {
        "Modality": "MR",
        "Manufacturer": p.manufacturer,
        "MagneticFieldStrength": p.tesla,
        "InstitutionName": f"Site {p.site}",
        "SliceThickness": round(p.slice_mm, 3),
        "SpacingBetweenSlices": round(p.slice_mm + p.gap_mm, 3),
        "MRAcquisitionType": "3D" if p.plane == "3d" else "2D",
        "Simulated": True,
        "SimulationProtocol": asdict(p),
        "SimulationSeed": [scan.seed, scan.subject, scan.scan],
        "SimulatedHardNegatives": {} if negatives is None else asdict(negatives),
        "DroppedComponents": scan.dropped,
    }
