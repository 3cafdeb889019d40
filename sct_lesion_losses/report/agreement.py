"""Tables of single lesions: found against false ones (FROC), and found again in repeated scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter

import numpy as np

from sct_lesion_losses.metrics import statistics
from sct_lesion_losses.metrics.froc import FALSE_LESIONS, MIN_IOU, NEIGHBOURS, FrocScore
from sct_lesion_losses.metrics.repeat import SessionRepeat, root_mean_square
from sct_lesion_losses.report.tables import (
    Columns,
    Table,
    frame,
    score,
    threshold_text,
    with_bounds,
)

Sessions = Sequence[tuple[str, SessionRepeat]]


def _at(false_lesions: float, found: FrocScore) -> str:
    return score(found.at(false_lesions))


_FROC: Columns[FrocScore] = {
    **{f"{false:g}": partial(_at, false) for false in FALSE_LESIONS},
    "Mean": lambda found: score(found.mean),
    "Sensitivity": lambda found: score(found.sensitivity[-1]),
    "False lesions": lambda found: score(found.false_lesions[-1]),
    "n": lambda found: str(found.n_bearing),
    "Scans": lambda found: str(found.n_scans),
}


def over_false_lesions(found: Mapping[tuple[str, float | None], FrocScore]) -> Table:
    """List the sensitivities of models at given numbers of false lesions a scan.

    Parameters
    ----------
    found : mapping of (str, float or None) to FrocScore
        By model and threshold.
    """
    models = {(model, threshold_text(at)): own for (model, at), own in found.items()}
    notes = (
        f"Columns {FALSE_LESIONS[0]:g} to {FALSE_LESIONS[-1]:g}: share of the lesions found, mean "
        "over the n scans with lesions, where the predicted lesions of the highest mean "
        "probabilities bring so many false ones a scan, over all scans; linear between two points, "
        "and that of the whole masks beyond their false lesions. Mean: of these columns, the score "
        "of the MS-Multi-Spine challenge.",
        "Sensitivity, False lesions: of the whole masks at the threshold. Masks without "
        "probabilities have this one operating point, and no other column.",
        f"Lesions are of {NEIGHBOURS} neighbours; one is found where it and a predicted one have "
        f"more than {MIN_IOU:g} of their union in common, and a predicted one that finds none is "
        "false.",
    )
    title = "Lesions found at given numbers of false ones a scan (FROC)"
    return Table(title, frame(("Model", "Threshold"), models, _FROC), notes=notes)


def _repeated(sessions: Sessions) -> dict[str, str]:
    """Texts of the sessions of a model, by column."""
    own = [session for _, session in sessions]
    cv = statistics.interval(
        [one.cv for one in own], [subject for subject, _ in sessions], root_mean_square
    )
    again = statistics.interval(
        [float(found) for one in own for found in one.again],
        [subject for subject, one in sessions for _ in one.again],
        np.mean,
    )
    return {
        "Sessions": str(len(own)),
        "Scans": str(sum(len(one.volumes_mm3) for one in own)),
        "Volume, mm³": score(float(np.mean([np.mean(one.volumes_mm3) for one in own]))),
        "CV": with_bounds(cv),
        "n": str(cv.n),
        "Lesions": str(again.n),
        "Found again": with_bounds(again),
        "Outside": str(sum(one.outside for one in own)),
    }


def over_repeats(found: Mapping[tuple[str, float | None], Sessions]) -> Table:
    """List how far lesion volume and lesions agree in scans that were repeated in one session.

    Parameters
    ----------
    found : mapping of (str, float or None) to sequence of (str, SessionRepeat)
        By model and threshold; subject and agreement of every session.
    """
    models = {(model, threshold_text(at)): _repeated(own) for (model, at), own in found.items()}
    columns = {name: itemgetter(name) for texts in models.values() for name in texts}
    notes = (
        "Volume: mean over sessions, within what all scans of a session show. CV: its standard "
        "deviation within a session (n - 1) over its mean, root mean square over the n sessions "
        "with lesions (Glüer et al. 1995), with its 95 % interval by resampling subjects.",
        f"Found again: share of the lesions ({NEIGHBOURS} neighbours) that the other scan of the "
        "session has a lesion on, by at least one voxel, as the headers place the scans in the "
        "world, unregistered; each pair of scans both ways, with its 95 % interval by resampling "
        "subjects. Outside: lesions whose centre the other scan does not show, not counted.",
    )
    title = "Scans repeated in one session"
    return Table(title, frame(("Model", "Threshold"), models, columns), notes=notes)
