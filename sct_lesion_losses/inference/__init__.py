"""Scans through models: p-maps and counts."""

from __future__ import annotations

ENGINES = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16")
