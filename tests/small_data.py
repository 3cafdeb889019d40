"""Cohorts, bundles and crops that are made in seconds, and what is read back of outputs."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
from example_points import LESIONS

from sct_lesion_losses import phantom
from sct_lesion_losses.bundle import store
from sct_lesion_losses.bundle.schema import BundleInfo
from sct_lesion_losses.bundle.store import Bundle
from sct_lesion_losses.phantom import PhantomScan
from sct_lesion_losses.phantom.dataset import write_nifti
from sct_lesion_losses.preprocessing.cache import TrainingCrop

SHAPE = (60, 60, 64)  # 30 x 30 x 32 mm at 0.5 mm


def write_cohort(folder: Path, subjects: int, lesion_free: int = 1, seed: int = 0) -> Path:
    """Scans of a bright cord in dark noise; every lesion is a brighter block inside it.

    The first `lesion_free` subjects have no lesion. Labels follow BIDS derivatives; participants
    have the sites A and B in turn.
    """
    rows = ["participant_id\tsite"]
    for number in range(1, subjects + 1):
        subject = f"sub-{number:03d}"
        rng = np.random.default_rng([seed, number])
        image, lesion, centerline = _scan(rng, bright=number > lesion_free)
        _write(folder / subject / "anat" / f"{subject}_T2w.nii.gz", image)
        labels = folder / "derivatives" / "labels" / subject / "anat"
        _write(labels / f"{subject}_T2w_label-lesion_seg.nii.gz", lesion)
        _write(labels / f"{subject}_T2w_label-centerline.nii.gz", centerline)
        rows.append(f"{subject}\t{'AB'[number % 2]}")
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def _scan(rng: np.random.Generator, bright: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = rng.normal(100, 10, SHAPE)
    image[22:38, 22:38] += 200
    lesion, centerline = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    centerline[30, 30] = 1
    if bright:
        x, y, z = rng.integers((22, 22, 4), (28, 28, 40))
        lesion[x : x + 8, y : y + 8, z : z + 16] = 1
    return (image + 200 * lesion).astype(np.int16), lesion, centerline


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Stored axes run right to left, front to back, bottom to top: another order than RPI.
    affine = np.diag([0.5, -0.5, 0.5, 1.0])
    nib.save(nib.Nifti1Image(array, affine), path)


def simulate(path: Path, seed: int) -> PhantomScan:
    """Write a small simulated scan with lesions, and return it with its truth."""
    made = phantom.make_scan(seed, lesions=True, preset="tiny")
    write_nifti(path, made.image, made.grid)
    return made


def train_small(folder: Path) -> Path:
    """Train the bundle `small` enough to find bright blocks; return the split of its cohort."""
    from sct_lesion_losses.training.recipe import study
    from sct_lesion_losses.workflows import train

    data = write_cohort(folder / "data", subjects=18, lesion_free=2)
    recipe = study(
        filters=(4,),
        batch_size=2,
        epochs_planned=8,
        patches_per_epoch=16,
        validation_patches=2,
        rate=2e-2,
        rotations=False,
    )
    train.run(data, folder / "small", recipe)
    return folder / "small.training" / train.SPLIT_TABLE


def save_changed(folder: Path, bundle: Bundle, **changes: object) -> Bundle:
    """Save a bundle with changes of its description, under the folder's name."""
    changed = {**bundle.info.model_dump(), "name": folder.name, **changes}
    info = BundleInfo.model_validate(changed)
    card = f"# {info.name} {info.version}\n"
    return store.save(folder, info, bundle.network, bundle.weights, card, overwrite=True)


def save_filtering(
    folder: Path, bundle: Bundle, peak: float, volume_mm3: float, threshold: float
) -> Bundle:
    """Save a bundle at another threshold, with a filter of lesions, under the folder's name."""
    point = bundle.info.operating_point.model_dump() | {"threshold": threshold}
    point["lesions"] = LESIONS | {"peak": peak, "volume_mm3": volume_mm3}
    return save_changed(folder, bundle, operating_point=point)


def stored(file: Path) -> np.ndarray:
    """Voxels of an image."""
    return np.asarray(nib.load(file).dataobj)


def reoriented(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """Return the image with its voxels stored along other axes, at the same places."""
    own, other = nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform(own, other))


def run_onnx(network: bytes, patches: np.ndarray) -> np.ndarray:
    """Lesion of every patch, (N, X, Y, Z), by ONNX Runtime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: patches[:, None]})[0][:, 0]


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file below a folder, by its path in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def copies(source: Path, *files: Path) -> None:
    """Copy a file to several places, whose folders are made."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, file)


def script(path: Path, body: str = "") -> Path:
    """Make a program of the shell, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def table_rows(table: Path) -> list[dict[str, str]]:
    """Rows of a TSV by the names of its columns."""
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def with_block(seed: int, length: int = 60) -> TrainingCrop:
    """Noise with one bright block, which is the lesion."""
    lesion = np.zeros((48, 48, length), bool)
    lesion[10:30, 12:30, 8:40] = True
    values = np.random.default_rng(seed).normal(size=lesion.shape) + 3 * lesion
    return TrainingCrop(values.astype(np.float32), lesion, f"scan{seed}")


def with_voxel(length: int = 60, margin: int = 0, lesion_at: int | None = None) -> TrainingCrop:
    """Noise of some length; the lesion is one voxel in the middle of a slice."""
    side = 48 + 2 * margin
    values = np.random.default_rng(length).normal(size=(side, side, length)).astype(np.float32)
    lesion = np.zeros(values.shape, bool)
    if lesion_at is not None:
        lesion[side // 2, side // 2, lesion_at] = True
    return TrainingCrop(values, lesion)
