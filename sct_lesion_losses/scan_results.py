"""One scan through several models, its results kept in a file so that no run repeats them.

A result is kept under a hash of all that it follows from but the scan: the network, the preparation
of a scan for it, thresholds, lesion presets, how the cord is found, engine and precision, this
software. The file holds a hash of the scan, its mask and its centerline, or of what finds that
where the cohort has none, and is of no use where that has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sct_lesion_losses import __version__, locate, models, notices, predict
from sct_lesion_losses.bundle.store import SCT_NAME
from sct_lesion_losses.data import cache
from sct_lesion_losses.data.cohort import CohortScan
from sct_lesion_losses.errors import DataError, LesionError, NoCordError
from sct_lesion_losses.files import write_text
from sct_lesion_losses.judged import AS_IN_COHORT, Located, line_for_sct, located
from sct_lesion_losses.metrics.detection import PRESETS
from sct_lesion_losses.operating_point import Tally, tally
from sct_lesion_losses.operating_point.tally import from_dict
from sct_lesion_losses.sct import lesion as sct_lesion

FLOAT32 = "float32"
RULE_THRESHOLDS = (0.5,)  # a mask is swept as a p-map of 0 and 1


@dataclass(frozen=True)
class Model:
    """What predicts.

    Attributes
    ----------
    name : str
        Name or folder of a bundle, or ``sct``.
    sha256 : str
        Of what its p-maps follow from; see `Bundle.pmap_sha256`.
    thresholds : tuple of float
        Rising.
    sct_rule : bool
        SCT's model exactly as `sct_deepseg_lesion` runs it, in ONNX Runtime; its mask has no
        threshold.
    """

    name: str
    sha256: str
    thresholds: tuple[float, ...]
    sct_rule: bool = False

    def computed_in(self, conditions: Conditions) -> tuple[str, str]:
        """Engine and precision; see `engine.load`."""
        if self.sct_rule:
            return sct_lesion.RULE_ENGINE, FLOAT32
        return conditions.engine, conditions.precision


@dataclass(frozen=True)
class Conditions:
    """How scans are looked at.

    Attributes
    ----------
    centerline : str
        ``cohort``, or a method of `locate`.
    contrast : {"t2", "t2_ax", "t2s"}
        For SCT's model and its ways to find the cord.
    engine : str
        See `engine.load`.
    finder : str
        What finds the cord where no file of the cohort says where it is; see `locate.identity`.
        Empty where a file does so in every scan.
    precision : str
        See `engine.load`.
    """

    centerline: str
    contrast: str
    engine: str
    finder: str = ""
    precision: str = FLOAT32

    @classmethod
    def of(
        cls,
        centerline: str,
        contrast: str,
        engine: str,
        scans: Sequence[CohortScan],
        precision: str = FLOAT32,
    ) -> Conditions:
        """Conditions for some scans of a cohort."""
        if centerline != AS_IN_COHORT:
            finder = locate.identity(centerline, contrast)
        elif all(scan.centerline for scan in scans):
            finder = ""
        else:
            finder = locate.identity("auto", contrast)
        return cls(centerline, contrast, engine, finder, precision)

    @property
    def finds_by_contrast(self) -> bool:
        """Whether the cord may be found in another way where the contrast is another."""
        if self.centerline == AS_IN_COHORT:
            return bool(self.finder)
        return self.centerline == "auto" or self.centerline in locate.BY_CONTRAST


@dataclass(frozen=True, eq=False)
class Result:
    """What a model does on a scan.

    Attributes
    ----------
    tally : Tally or None
        None where no cord was found.
    refused : str
        Why there is none.
    engine : str
        Name, version and precision of what computed it.
    """

    tally: Tally | None
    refused: str = ""
    engine: str = ""


@dataclass(frozen=True)
class Task:
    """A scan, and the models that are to see it.

    Attributes
    ----------
    scan : CohortScan
    file : Path
        Where its results are kept.
    content : str
        Hash of the scan; see `content`.
    models : tuple of Model
    conditions : Conditions
    """

    scan: CohortScan
    file: Path
    content: str
    models: tuple[Model, ...]
    conditions: Conditions


def content(scan: CohortScan, conditions: Conditions) -> str:
    """Hash the files that a scan is read from, bytes and not names.

    Raises
    ------
    ImageError
        One cannot be read.
    """
    own, by = None, ""
    if conditions.centerline == AS_IN_COHORT:
        own = scan.centerline
        by = conditions.finder if own is None else "file"
    hashes = [cache.file_hash(file) for file in (scan.scan, scan.lesion_mask, own) if file]
    return hashlib.sha256("\n".join([by, *hashes]).encode()).hexdigest()


def key(model: Model, conditions: Conditions) -> str:
    """Hash what a result follows from, the scan aside."""
    engine, precision = model.computed_in(conditions)
    by_contrast = model.name == SCT_NAME or conditions.finds_by_contrast
    facts = {
        "software": __version__,
        "network": model.sha256,
        "thresholds": model.thresholds,
        "sct_rule": model.sct_rule,
        "presets": [asdict(preset) for preset in PRESETS.values()],
        "centerline": conditions.centerline,
        "contrast": conditions.contrast if by_contrast else "",
        "engine": engine,
    }
    if conditions.centerline != AS_IN_COHORT:
        facts["finder"] = conditions.finder
    if precision != FLOAT32:
        facts["precision"] = precision
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def kept(task: Task) -> dict[str, Result]:
    """Return the results that are there already, by their keys; what is damaged is not."""
    read = {name: _from_dict(stored) for name, stored in _stored(task).items()}
    return {name: result for name, result in read.items() if result is not None}


def compute(task: Task) -> dict[str, Result]:
    """Let the models see the scan; keep what they do beside what is kept already.

    Returns
    -------
    dict of str to Result
        By the keys of the models; without a tally, all of them, where the scan shows no cord.

    Raises
    ------
    LesionError
        The scan or a model cannot be used; the message names the scan. Nothing is kept of it then.
    """
    name, conditions = task.scan.scan.name, task.conditions
    try:
        results = _results(task)
    except LesionError as error:
        if name in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error
    by_key = {key(model, conditions): result for model, result in results.items()}
    stored = {**_stored(task), **{name: _to_dict(result) for name, result in by_key.items()}}
    text = json.dumps({"content": task.content, "results": stored}, allow_nan=False)
    write_text(task.file, text + "\n")
    return by_key


def _results(task: Task) -> dict[Model, Result]:
    conditions = task.conditions
    try:
        found = located(task.scan, conditions.centerline, conditions.contrast)
    except NoCordError as error:
        return {model: Result(None, str(error)) for model in task.models}
    return {model: _result(model, found, conditions) for model in task.models}


def _result(model: Model, found: Located, conditions: Conditions) -> Result:
    bundle, network = models.opened(
        model.name, conditions.contrast, *model.computed_in(conditions), model.sha256
    )
    image, grid = found.image.array, found.image.grid
    by_sct = model.name == SCT_NAME
    line = line_for_sct(found, conditions.centerline) if by_sct else found.line
    pmap: npt.NDArray[np.float32]
    with notices.about(found.scan.scan):
        if model.sct_rule:
            mask = sct_lesion.sct_rule(image, grid, line, conditions.contrast, network)
            pmap = mask.astype(np.float32)
        else:
            pmap = predict.pmap(bundle, image, grid, line, network=network)
        counted = tally(found.truth, pmap, grid.spacing_mm, model.thresholds)
    return Result(counted, "", f"{network.name} {network.version}, {network.precision}")


def _to_dict(result: Result) -> dict[str, Any]:
    counts = None if result.tally is None else result.tally.to_dict()
    return {"tally": counts, "refused": result.refused, "engine": result.engine}


def _from_dict(stored: Any) -> Result | None:
    """Return the result that `_to_dict` wrote; None if it did not."""
    try:
        counts = stored["tally"]
        found = None if counts is None else from_dict(counts)
        return Result(found, str(stored["refused"]), str(stored["engine"]))
    except (KeyError, TypeError, ValueError):
        return None


def _stored(task: Task) -> Mapping[str, Any]:
    """Results of the scan's file, if it is of the scan as it is now."""
    try:
        held = json.loads(task.file.read_text(encoding="utf-8"))
        if held["content"] == task.content:
            return dict(held["results"])
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(
            f"{task.file}: cannot be read ({error.strerror}); remove it, or choose another folder"
        ) from error
    except (KeyError, TypeError, ValueError):
        pass
    return {}
