"""Names of everything that segmenting one scan writes, in SCT's layout."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from sct_lesion_losses.errors import OutputError, UsageError
from sct_lesion_losses.images import bids, nifti

SUFFIX = "_lesionseg"  # what sct_deepseg_lesion appends


@dataclass(frozen=True)
class Outputs:
    """Files of one segmented scan; all of them lie beside the mask and share its stem.

    Attributes
    ----------
    mask, pmap, labels, centerline, cord : Path
        Images on the scan's grid: lesion mask, lesion probability, numbered lesions, centerline,
        and the cord mask where SCT was asked for it.
    points : Path
        The centerline in full digits, as SCT's CSV.
    sidecar, pmap_sidecar : Path
        JSON of the mask, and of the p-map.
    table, columns, figure : Path
        One row per lesion as TSV, and what its columns mean as JSON; PNG.
    page_entry : Path
        JSON of the scan's entry of the page of `-qc_page`.
    """

    mask: Path
    sidecar: Path
    pmap: Path
    pmap_sidecar: Path
    labels: Path
    table: Path
    columns: Path
    centerline: Path
    points: Path
    cord: Path
    figure: Path
    page_entry: Path

    @classmethod
    def beside(cls, mask: Path) -> Outputs:
        """All names from that of the mask."""
        stem, extension = nifti.stem(mask)
        folder = mask.parent
        return cls(
            mask=mask,
            sidecar=folder / f"{stem}.json",
            pmap=folder / f"{stem}_pmap{extension}",
            pmap_sidecar=folder / f"{stem}_pmap.json",
            labels=folder / f"{stem}_labels{extension}",
            table=folder / f"{stem}_lesions.tsv",
            columns=folder / f"{stem}_lesions.json",
            centerline=folder / f"{stem}_centerline{extension}",
            points=folder / f"{stem}_centerline.csv",
            cord=folder / f"{stem}_cord{extension}",
            figure=folder / f"{stem}.png",
            page_entry=folder / f"{stem}_page.json",
        )

    def absolute(self) -> Outputs:
        """Return the same with paths that hold in any working folder."""
        return Outputs(*(path.absolute() for path in astuple(self)))

    def require_own(self) -> None:
        """Refuse names that belong to another mask: `t2_lesionseg.nii` beside `….nii.gz`.

        Both would share one sidecar, one table and one picture.

        Raises
        ------
        OutputError
            There is such a mask; nothing is to be written.
        """
        stem, extension = nifti.stem(self.mask)
        for other in (".nii", ".nii.gz"):
            neighbour = self.mask.with_name(f"{stem}{other}")
            if other != extension.lower() and neighbour.exists():
                raise OutputError(
                    f"{self.mask}: {self.sidecar.name} belongs to {neighbour.name}, which is there "
                    "already; choose another name with -o or another folder with -ofolder, or "
                    f"remove {neighbour.name}"
                )


def for_scan(image: Path, *, out: Path | None = None, folder: Path | None = None) -> Outputs:
    """Names of the outputs of a scan.

    Parameters
    ----------
    image : Path
        The scan.
    out : Path, optional
        Name of the mask; a relative one is taken inside `folder` where that is given.
        ``<stem>_lesionseg<extension of the scan>`` by default.
    folder : Path, optional
        Where to write; the current folder by default.

    Raises
    ------
    UsageError
        `out` is not the name of a NIfTI file, or would overwrite the scan.
    """
    stem, extension = nifti.stem(image)
    mask = out or Path(f"{stem}{SUFFIX}{extension}")
    if out is not None and not nifti.is_nifti_name(out):
        raise UsageError(
            f"-o {out}: expected a file name that ends in .nii or .nii.gz; "
            "to choose a folder, use -ofolder"
        )
    if folder is not None:
        mask = folder / mask
    if os.path.realpath(mask) == os.path.realpath(image):
        raise UsageError(f"{mask}: the mask would overwrite the scan; choose another name with -o")
    return Outputs.beside(mask)


def for_bids_scan(image: Path, folder: Path) -> Outputs:
    """Names of the outputs of a scan with a BIDS name, as derivatives in a folder.

    The lesion label is BIDS' ``L``: ``…_label-L_mask``, ``…_label-L_probseg``,
    ``…_label-L_dseg``; the cord's ``SC``: ``…_label-SC_mask``.
    """
    name = bids.derivative_name(image, "label-L_mask")
    mask = folder / name
    plain = Outputs.beside(mask)
    pmap = mask.with_name(bids.derivative_name(image, "label-L_probseg"))
    centerline = mask.with_name(bids.derivative_name(image, "label-centerline"))
    return replace(
        plain,
        pmap=pmap,
        pmap_sidecar=pmap.with_name(f"{nifti.stem(pmap)[0]}.json"),
        labels=mask.with_name(bids.derivative_name(image, "label-L_dseg")),
        centerline=centerline,
        points=centerline.with_name(f"{nifti.stem(centerline)[0]}.csv"),
        cord=mask.with_name(bids.derivative_name(image, "label-SC_mask")),
    )
