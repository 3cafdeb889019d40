"""Boxes that sum up values, as the figures draw them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FROM = 5  # fewer points have no quartiles worth a box
WHISKER = 1.5  # box lengths


def box(
    values: npt.NDArray[np.float64], logarithmic: bool = False
) -> tuple[float, float, float, float, float]:
    """Lower whisker, quartile, median, quartile and upper whisker of some values.

    Parameters
    ----------
    values : (N,) float64
        Above 0 where `logarithmic`.
    logarithmic : bool
        The 1.5 box lengths of a whisker are factors, not differences.
    """
    low, middle, high = np.percentile(values, (25, 50, 75))
    if logarithmic:
        reach = (high / low) ** WHISKER
        inside = values[(values >= low / reach) & (values <= high * reach)]
    else:
        reach = WHISKER * (high - low)
        inside = values[(values >= low - reach) & (values <= high + reach)]
    # No whisker ends inside the box, where interpolated quartiles leave no point beyond it.
    ends = min(inside.min(), low), max(inside.max(), high)
    return float(ends[0]), float(low), float(middle), float(high), float(ends[1])
