"""Whatever marks lesions in a scan: bundles, SCT's model, masks and p-maps of another tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import logs
from sct_lesion_losses.bundle.store import SCT_NAME, Bundle
from sct_lesion_losses.centerline import find
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.table import CohortScan
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.images import nifti
from sct_lesion_losses.images.nifti import Scan
from sct_lesion_losses.inference import predict
from sct_lesion_losses.inference.engine import Network
from sct_lesion_losses.inference.predict import InferenceSettings
from sct_lesion_losses.sct import lesion as sct_lesion
from sct_lesion_losses.thresholds.lesion_filter import Filter

AS_IN_COHORT = "cohort"
IN_COHORT = InferenceSettings(centerline=AS_IN_COHORT)
Kind = Literal["network", "sct_rule", "masks", "pmaps"]
RULE_THRESHOLDS = (0.5,)  # a mask is swept as a p-map of 0 and 1


@dataclass(frozen=True, eq=False)
class LocatedScan:
    """A scan of a cohort as it is read: what every model takes.

    Attributes
    ----------
    scan : CohortScan
    image : Scan
    truth : (X, Y, Z) bool
        The untouched manual mask.
    inference : InferenceSettings
        Its centerline `AS_IN_COHORT` takes the scan's own, and finds one where it has none.
    """

    scan: CohortScan
    image: Scan
    truth: npt.NDArray[np.bool_]
    inference: InferenceSettings

    @property
    def file(self) -> Path | None:
        """File that the line is read from."""
        in_cohort = self.inference.centerline == AS_IN_COHORT
        return self.scan.centerline if in_cohort else None

    @cached_property
    def line(self) -> Centerline:
        """Centerline on the image's RPI grid, found where a model first asks for it.

        Raises
        ------
        NoCordError
            The scan shows no cord.
        LesionError
            The scan's centerline cannot be used.
        """
        method = self.inference.centerline
        with logs.about(self.scan.scan):
            return find.centerline(
                self.image.array,
                self.image.grid,
                "auto" if method == AS_IN_COHORT else method,
                contrast=self.inference.contrast,
                file=self.file,
                brain=self.inference.brain,
            )

    @cached_property
    def sct_line(self) -> Centerline:
        """Line as SCT's lesion model takes it, which differs for one from a file."""
        if self.file is None:
            return self.line
        with logs.about(self.scan.scan):
            return find.centerline(self.image.array, self.image.grid, file=self.file, as_sct=True)

    def pmap(self, bundle: Bundle, network: Network) -> npt.NDArray[np.float32]:
        """P-map by a bundle, or SCT's model, (X, Y, Z) float32 on the scan's own grid."""
        line = self.sct_line if bundle.name == SCT_NAME else self.line
        with logs.about(self.scan.scan):
            return predict.pmap(bundle, self.image.array, self.image.grid, line, network=network)


def read_scan(scan: CohortScan, inference: InferenceSettings = IN_COHORT) -> LocatedScan:
    """Read a scan and its manual mask; the cord is found once a model asks for it.

    Raises
    ------
    LesionError
        The scan or its mask cannot be used.
    """
    image = nifti.read(scan.scan)
    return LocatedScan(scan, image, cohorts.read_lesions(scan, image.grid).array, inference)


def locate(scan: CohortScan, inference: InferenceSettings = IN_COHORT) -> LocatedScan:
    """Read a scan and its manual mask, and find the cord.

    Raises
    ------
    NoCordError
        The scan shows no cord.
    LesionError
        The scan, its mask or its centerline cannot be used.
    """
    found = read_scan(scan, inference)
    _ = found.line
    return found


@dataclass(frozen=True)
class Model:
    """Whatever marks lesions in scans, and the thresholds it is counted at.

    Attributes
    ----------
    name : str
        Name or folder of a bundle, or ``sct``; or the folder of what is given.
    sha256 : str
        Of what its p-maps follow from, see `Bundle.pmap_sha256`; empty for what is given.
    thresholds : tuple of float
        Rising; `RULE_THRESHOLDS` for masks.
    kind : str
        ``network``: a bundle, or SCT's lesion model. ``sct_rule``: SCT's model exactly as
        `sct_deepseg_lesion` runs it, in ONNX Runtime; its mask has no threshold. ``masks``,
        ``pmaps``: files of another tool, or of a person.
    rule : Filter or None
        Of the predicted lesions; at every threshold above 0, only what it keeps is counted.
    noted : bool
        The predicted lesions are noted as well, for the choice of a filter.
    files : mapping of Path to Path
        What is given, by the path of the scan.
    """

    name: str
    sha256: str
    thresholds: tuple[float, ...]
    kind: Kind = "network"
    rule: Filter | None = None
    noted: bool = False
    files: Mapping[Path, Path] = field(default_factory=dict, compare=False)

    @property
    def is_given(self) -> bool:
        """True for files of another tool or of a person: nothing is computed, no cord is needed."""
        return self.kind in ("masks", "pmaps")

    @property
    def has_masks(self) -> bool:
        """True for masks without a threshold."""
        return self.kind in ("sct_rule", "masks")

    def sees(self, scan: CohortScan) -> bool:
        """Tell whether there is a file of the scan, where files are given."""
        return not self.is_given or scan.scan in self.files

    def on(self, scan: CohortScan) -> Model:
        """Return the same model with the file of one scan alone, for a worker."""
        return replace(self, files={scan.scan: self.files[scan.scan]}) if self.is_given else self

    def computed_in(self, inference: InferenceSettings) -> tuple[str, str]:
        """Engine and precision; see `engine.load`."""
        if self.kind == "sct_rule":
            return sct_lesion.RULE_ENGINE, "float32"
        return inference.engine, inference.precision

    def pmap(self, found: LocatedScan) -> tuple[npt.NDArray[np.floating[Any]], str]:
        """P-map of a scan, a mask as one of 0 and 1, and what computed it.

        Returns
        -------
        pmap : (X, Y, Z) floating, in [0, 1]
            Before any filter.
        engine : str
            Name, version and precision; empty for what is given.

        Raises
        ------
        NoCordError
            The scan shows no cord, which what is given does without.
        LesionError
            The model, or what is given, cannot be used.
        """
        grid = found.image.grid
        if self.kind == "pmaps":
            return nifti.read_pmap(self.files[found.scan.scan], like=grid).array, ""
        if self.kind == "masks":
            mask = nifti.read_mask(self.files[found.scan.scan], like=grid).array
            return mask.astype(np.float32), ""
        inference = found.inference
        bundle, network = predict.opened(
            self.name, inference.contrast, *self.computed_in(inference), self.sha256
        )
        computed_by = f"{network.name} {network.version}, {network.precision}"
        if self.kind == "network":
            return found.pmap(bundle, network), computed_by
        line = found.sct_line
        with logs.about(found.scan.scan):
            mask = sct_lesion.sct_rule(found.image.array, grid, line, inference.contrast, network)
        return mask.astype(np.float32), computed_by
