"""What the study reports, to stand beside what is measured.

References
----------
Hussein et al., "A study on loss functions and decision thresholds for the segmentation of multiple
sclerosis lesions on spinal cord MRI", ISBI 2023
"""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE = "Hussein et al., ISBI 2023"


@dataclass(frozen=True)
class Published:
    """The study's values for one model on its unseen set.

    Attributes
    ----------
    threshold : float
        Tuned on its thr-optimization set.
    v_f1, l_f1 : float
        Medians at that threshold over the scans with lesions.
    p_sensitivity, p_specificity : float
        Share of the scans with lesions in which one is detected, of those without in which none is
        predicted.
    v_f1_untuned : float or None
        Median V-F1 at 0.5, where it is known here.
    """

    threshold: float
    v_f1: float
    l_f1: float
    p_sensitivity: float
    p_specificity: float
    v_f1_untuned: float | None = None


@dataclass(frozen=True)
class PublishedCohort:
    """Scans of the study; those of the unseen set with and without lesions are apart."""

    scans: int
    subjects: int
    sites: int
    training: int
    validation: int
    thr_optimization: int
    unseen_with_lesions: int
    unseen_without: int


COHORT = PublishedCohort(
    scans=161,
    subjects=108,
    sites=13,
    training=62,
    validation=13,
    thr_optimization=14,
    unseen_with_lesions=26,
    unseen_without=46,
)

# By the name of the loss, and SCT's own lesion model.
PUBLISHED = {
    "bce": Published(0.15, 0.33, 0.27, 0.58, 0.24),
    "combo": Published(0.05, 0.30, 0.18, 0.54, 0.17),
    "dice": Published(0.30, 0.36, 0.31, 0.62, 0.26),
    "focal_tversky": Published(0.15, 0.31, 0.26, 0.65, 0.22, v_f1_untuned=0.40),
    "generalized_dice": Published(0.75, 0.41, 0.34, 0.66, 0.20),
    "log_cosh_dice": Published(0.20, 0.37, 0.17, 0.54, 0.20),
    "sct": Published(0.05, 0.39, 0.38, 0.62, 0.33),
    "tversky": Published(0.30, 0.41, 0.40, 0.65, 0.26),
}
