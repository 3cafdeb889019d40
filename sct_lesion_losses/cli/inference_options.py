"""The options that say how scans are segmented, alike in every command that does."""

from __future__ import annotations

from sct_lesion_losses.cli.common import choice, option

ENGINE = option(
    "-engine",
    "engine",
    choice("auto", "onnxruntime", "openvino"),
    "Inference engine. auto: openvino where it is installed.",
    default="auto",
)
PRECISION = option(
    "-precision",
    "precision",
    choice("float32", "bfloat16"),
    "Precision of the network; bfloat16 needs openvino.",
    default="float32",
)
COHORT_CENTERLINE = option(
    "-centerline",
    "centerline",
    choice("cohort", "auto", "svm", "cnn", "embedded"),
    "How the spinal cord is found. cohort: the cohort's own centerline where it has one.",
    default="cohort",
)
PRESET = choice("paper", "anima", "candidate")
CONTRAST = choice("t2", "t2_ax", "t2s")
