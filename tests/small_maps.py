"""Small masks and p-maps with many lesions, drawn by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SHAPE = (7, 6, 5)
SPACING_MM = (0.5, 1.0, 3.0)
VOXEL_MM3 = 1.5

truths = arrays(np.bool_, SHAPE, elements=st.sampled_from([False, False, False, True]))
values = st.sampled_from([0.0, 0.0, 0.0, 0.3, 0.35, 0.6, 0.95, 0.999, 1.0])
pmaps = st.tuples(
    arrays(np.float64, SHAPE, elements=values),
    st.sampled_from([np.float16, np.float32, np.float64]),
).map(lambda drawn: drawn[0].astype(drawn[1]))
