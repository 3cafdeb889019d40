"""Fields of an operating point and of its parts, as `bundle.schema` names them."""

from typing import Any

CURVE = (0.4, 0.5, None)
TUNED: dict[str, Any] = {
    **{"kind": "tuned", "objective": "median V-F1", "threshold": 0.3, "interval": (0.25, 0.35)},
    **{"thresholds": (0.25, 0.3, 0.35), "curve": CURVE, "n_scans": 1, "n_subjects": 1},
    "per_scan": ({"scan": "scan-01", "subject": "subject-01", "values": CURVE},),
}
SITE: dict[str, Any] = {
    **{"name": "Zurich", "weight": 0.4, "shipped_threshold": 0.3, "local_threshold": 0.35},
    **{"shipped_curve": CURVE, "local_curve": CURVE, "held_out_shipped": 0.4},
}
FROC = {"peaks": (0.3, 0.5), "sensitivity": (0.7, 0.5), "false_lesions": (2.5, 0.2)}
LESIONS: dict[str, Any] = {
    **{"peak": 0.5, "volume_mm3": 3.0, "preset": "paper", "n_scans": 2},
    **{"f1": 0.6, "f1_unfiltered": 0.5, "froc": FROC},
}
SHARE: dict[str, Any] = {"low": 0, "high": 1.1, "n": 4, "found": 1, "interval": (0, 0.5)}
LIMIT: dict[str, Any] = {
    **{"people": 2, "held_out": True, "untouched": 2, "false_lesions": 0.5},
    "by_contrast": [SHARE, {"low": 1.1, "n": 0, "found": 0}],
    "by_volume": [{"low": 300, "n": 2, "found": 2}],
}
