from __future__ import annotations

import numpy as np

from sct_lesion_losses.report.figures.thresholds import box


def test_whiskers_reach_1_5_box_lengths_along_the_axis() -> None:
    values = np.array([1.0, 4.0, 8.0, 16.0, 100.0])
    # Quartiles 4, 8, 16. Linear: from 4 - 18 to 16 + 18. Logarithmic: from 4 / 8 to 16 * 8.
    assert box(values, logarithmic=False) == (1.0, 4.0, 8.0, 16.0, 16.0)
    assert box(values, logarithmic=True) == (1.0, 4.0, 8.0, 16.0, 100.0)
