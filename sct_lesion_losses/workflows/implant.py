"""From real lesion-free scans to a cohort of implants: cords, lesions, files."""

from __future__ import annotations

import functools
import itertools
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import executor, logs
from sct_lesion_losses.centerline import cord as cords
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table
from sct_lesion_losses.errors import UsageError
from sct_lesion_losses.images import bids, nifti
from sct_lesion_losses.images.atomic import write_json
from sct_lesion_losses.phantom import dataset
from sct_lesion_losses.phantom.anatomy import Floats
from sct_lesion_losses.phantom.implant import Acquisition, Host, make_implant, require_fine
from sct_lesion_losses.phantom.lesions import RATIOS
from sct_lesion_losses.phantom.scan import STEP, Mask
from sct_lesion_losses.phantom.sites import stored_grid

SITE = "implants"  # the hosts' scanners are not known

_BRIGHTEST = 5.0  # relative to the cord: that of fluid

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImplantSettings:
    """How a cohort of implants is made.

    Attributes
    ----------
    variants : int
        Scans made of each host.
    seed : int
    free : float
        Share of the variants without lesions, of each host at most one of them native: it is a
        copy of the host.
    acquisitions : tuple of {"native", "sagittal", "axial", "isotropic"}
        Taken in turn by the variants of a host.
    contrast : (float, float)
        Lowest and highest brightness of a lesion relative to the cord around it.
    """

    variants: int = 5
    seed: int = 1
    free: float = 0.35
    acquisitions: tuple[Acquisition, ...] = ("native",)
    contrast: tuple[float, float] = RATIOS

    def __post_init__(self) -> None:
        low, high = self.contrast
        if not 1 < low <= high <= _BRIGHTEST:
            raise UsageError(
                f"-contrast is {low:g} {high:g}, expected a lowest and a highest brightness above "
                f"1 and up to {_BRIGHTEST:g}: lesions are brighter than the cord around them"
            )


@dataclass(frozen=True)
class _Source:
    """A host's files.

    Attributes
    ----------
    scan : Path
    cord : Path or None
        Its cord mask; estimated where there is none.
    host : str
        What it is called in the cohort.
    names : tuple of str
        Folders of what is made of it: subject and, where its name has one, session.
    first : int
        Number of its first variant among those of its subject and session.
    """

    scan: Path
    cord: Path | None
    host: str
    names: tuple[str, ...]
    first: int


def run(
    scans: Sequence[Path],
    cords: Sequence[Path],
    out: Path,
    settings: ImplantSettings = ImplantSettings(),
    *,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort of implants as a BIDS folder; byte for byte the same for the same arguments.

    Parameters
    ----------
    scans : sequence of Path
        Scans of people without lesions, or one BIDS folder with nothing else.
    cords : sequence of Path
        A cord mask for each scan, in their order; without any they are estimated. Those of a BIDS
        folder are found in its labels.
    out : Path
        Folder of the cohort.
    settings : ImplantSettings
    jobs : int
        Hosts worked on at the same time.
    progress : callable, optional
        Called with (done, total) hosts.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        Scans and cord masks are not the same number, or two hosts have the same name, or one has
        none.
    DataError
        A cord mask does not fit its scan, or shows too little of a cord; or a scan is too coarse
        for an acquisition.
    NoCordError
        No cord is found in a scan.
    OutputError
        The folder holds another cohort, or cannot be written.
    """
    sources = _sources(scans, cords, settings)
    described = dataset.description(
        "Lesions implanted into lesion-free scans",
        "raw",
        Seed=settings.seed,
        Variants=settings.variants,
        LesionFree=settings.free,
        Acquisitions=list(settings.acquisitions),
        Contrast=list(settings.contrast),
        Hosts=[source.host for source in sources],
    )
    subjects = sorted({source.names[0] for source in sources})
    dataset.claim(out, described, [*subjects, dataset.TRUTH])
    rows = executor.run(
        functools.partial(_write_variants, out, settings),
        sources,
        jobs,
        name=lambda source: source.scan.name,
        progress=progress,
    )
    people = [("participant_id", "site"), *((name, SITE) for name in subjects)]
    truth = {dataset.TRUTH: "Ground truth of the implants"}
    dataset.write_tables(out, people, itertools.chain(*rows), truth)
    return out


def hosts(scans: Sequence[Path]) -> list[Path]:
    """Return the scans that get lesions: those given, or those of the one BIDS folder given.

    Raises
    ------
    UsageError
        A folder is among several paths.
    LesionError
        The folder holds no scan.
    """
    folders = [path for path in scans if path.is_dir()]
    if folders and len(scans) > 1:
        raise UsageError(
            f"-i has the folder {folders[0]} among {len(scans)} paths, expected one BIDS folder "
            "alone, or single scans"
        )
    return bids.find_scans(folders[0]) if folders else list(scans)


def _sources(
    scans: Sequence[Path], cords: Sequence[Path], settings: ImplantSettings
) -> list[_Source]:
    """Hosts with their masks, names and numbers."""
    given, scans = scans, hosts(scans)
    if len(given) == 1 and given[0].is_dir():
        folder = given[0]
        if cords:
            raise UsageError(
                f"-cord goes with single scans; the cord masks of {folder} are found in "
                "derivatives/labels"
            )
        masks: list[Path | None] = [table.cord_of(folder, scan) for scan in scans]
    elif cords and len(cords) != len(scans):
        raise UsageError(
            f"received {len(scans)} scans and {len(cords)} cord masks, expected one for each scan"
        )
    else:
        masks = list(cords) or [None] * len(scans)
    numbers: Counter[tuple[str, ...]] = Counter()
    sources = []
    for scan, mask, (host, names) in zip(scans, masks, _named(scans), strict=True):
        sources.append(_Source(scan, mask, host, names, 1 + settings.variants * numbers[names]))
        numbers[names] += 1
    return sources


def _named(scans: Sequence[Path]) -> list[tuple[str, tuple[str, ...]]]:
    """Name each host, and its subject and, where its BIDS name has one, its session.

    Any other name is the subject's, with the folder's in front where it is not enough to tell the
    subjects apart, as in SCT's layout ``person/t2.nii.gz``.

    >>> _named([Path("sub-01_ses-02_acq-ax_T2w.nii.gz"), Path("t2_healthy.nii")])
    [('sub-01_ses-02_acq-ax_T2w', ('sub-01', 'ses-02')), ('t2_healthy', ('sub-t2healthy',))]
    >>> _named([Path("a/t2.nii"), Path("b/t2.nii")])
    [('a/t2', ('sub-at2',)), ('b/t2', ('sub-bt2',))]
    """
    stems = [nifti.stem(scan)[0] for scan in scans]
    uses = Counter(_names(stem)[0] for stem in stems)
    named: list[tuple[str, tuple[str, ...]]] = []
    holders: dict[tuple[str, ...], tuple[str, ...]] = {}
    for scan, stem in zip(scans, stems, strict=True):
        host, names = stem, _names(stem)
        if not _entities(stem) and (uses[names[0]] > 1 or names[0] == "sub-"):
            host = f"{scan.absolute().parent.name}/{stem}"
            names = (_label("sub", host),)
        if any(name.endswith("-") for name in names):
            raise UsageError(
                f"{scan}: its name has no ASCII letter or digit to name a subject or session by; "
                "rename it"
            )
        if any(host == other for other, _ in named):
            raise UsageError(f"{scan}: another scan has the same name; rename one of the two")
        # What is left out of a name must not make one person, or one session, of two.
        whole = _entities(stem) or (host,)
        for k in range(len(names)):
            if holders.setdefault(names[: k + 1], whole[: k + 1]) != whole[: k + 1]:
                raise UsageError(
                    f"{scan}: another scan would be {'_'.join(names[: k + 1])} too; rename one of "
                    "the two"
                )
        named.append((host, names))
    return named


def _entities(stem: str) -> tuple[str, ...]:
    """Subject and session of a BIDS name, as they stand in it; none of any other name."""
    kept = tuple(part for part in stem.split("_") if part.startswith(("sub-", "ses-")))
    return kept if kept and kept[0].startswith("sub-") else ()


def _names(stem: str) -> tuple[str, ...]:
    """Subject and session with labels of letters and digits; another name is the subject's."""
    entities = _entities(stem)
    return tuple(_label(part[:3], part[4:]) for part in entities) or (_label("sub", stem),)


def _label(entity: str, text: str) -> str:
    return f"{entity}-{re.sub('[^A-Za-z0-9]', '', text.removesuffix('_T2w'))}"


def _write_variants(
    out: Path, settings: ImplantSettings, source: _Source
) -> list[tuple[object, ...]]:
    """Make the variants of one host and write their files; return their rows of the truth table."""
    with logs.about(source.scan):
        scan = nifti.read(source.scan)
        grid, turn = scan.grid.to_rpi()
        cord, certain, how = _cord(source, scan)
        host = Host.of(turn.apply(scan.array), turn.apply(cord), grid, certain)
        for acquisition in settings.acquisitions:
            require_fine(grid, acquisition)
    # By name, so that the other hosts of a call do not matter.
    number = zlib.crc32("_".join(source.names).encode())
    host_hash = table.content_hash(scan.array)
    rows: list[tuple[object, ...]] = []
    copied = False
    for k in range(source.first, source.first + settings.variants):
        acquisition = settings.acquisitions[(k - 1) % len(settings.acquisitions)]
        affected = (k * STEP + number / 2**32) % 1.0 >= settings.free
        native = acquisition == "native"
        affected |= native and copied  # one copy of the host is enough
        copied |= native and not affected
        seed = [settings.seed, number, k]
        made = make_implant(
            np.random.default_rng(seed),
            host,
            acquisition,
            affected=affected,
            contrast=settings.contrast,
        )
        stored = scan.grid if native else stored_grid(made.grid, scan.grid.orientation)
        back = stored.to_rpi()[1]
        folder = "/".join((*source.names, "anat"))
        stem = "_".join((*source.names, f"acq-{acquisition}", f"run-{k:02d}", "T2w"))
        path = f"{folder}/{stem}.nii.gz"
        if affected and not made.lesions:
            logger.warning("%s has no lesion: none that was drawn could be labelled", stem)
        image = _typed(back.undo(made.signal), scan.array.dtype)
        dataset.write_nifti(out / path, image, stored)
        sidecar = {
            "Modality": "MR",
            "Implanted": True,
            "ImplantHost": source.host,
            table.HOST_HASH: host_hash,
            "ImplantCord": how,
            "ImplantAcquisition": made.acquisition,
            "ImplantSeed": seed,
            "DroppedComponents": made.dropped,
        }
        write_json(out / folder / f"{stem}.json", sidecar)
        labels = {
            f"{dataset.TRUTH}/lesion_seg": back.undo(made.lesion),
            f"{dataset.TRUTH}/SC_seg": back.undo(made.cord),
            f"{dataset.TRUTH}/centerline": dataset.centerline_mask(made.centerline, stored),
        }
        dataset.write_labels(out, folder, stem, stored, labels)
        lesions = [replace(lesion, level="n/a") for lesion in made.lesions]  # levels are not known
        rows += dataset.truth_rows(source.names, path, lesions, made.volumes_mm3)
    return rows


def _cord(source: _Source, scan: nifti.Scan) -> tuple[Mask, Mask | None, str]:
    """Cord mask of a host on its stored grid, its certain slices in RPI, and how it was had."""
    if source.cord is not None:
        return nifti.read_mask(source.cord, like=scan.grid).array, None, "given"
    turn = scan.grid.to_rpi()[1]
    line = find.centerline(scan.array, scan.grid)
    found = cords.estimate(turn.apply(scan.array), line)
    logger.warning(
        "no cord mask is given: it is estimated around the centerline; look at it before you "
        "trust the implants, or give masks with -cord"
    )
    return turn.undo(found.mask), found.certain, "estimated"


def _typed(signal: Floats, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Signal in the host's type of whole numbers, or in float32 where it does not fit."""
    if dtype.kind not in "iu":
        return np.ascontiguousarray(signal)
    limits, whole = np.iinfo(dtype), signal.round()
    if whole.min() < limits.min or whole.max() > limits.max:
        return np.ascontiguousarray(signal)
    return np.ascontiguousarray(whole.astype(dtype))
