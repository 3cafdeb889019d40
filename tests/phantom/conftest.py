from __future__ import annotations

import numpy as np
import pytest

from sct_lesion_losses.phantom import PhantomScan, make_scan
from sct_lesion_losses.phantom.anatomy import Body, make_body
from sct_lesion_losses.phantom.lesions import Lesions, draw_lesions

EXTENT = (-140.0, 0.0)


@pytest.fixture(scope="session")
def body() -> Body:
    return make_body(np.random.default_rng(5))


@pytest.fixture(scope="session")
def lesions(body: Body) -> Lesions:
    return draw_lesions(np.random.default_rng(5), body, EXTENT, affected=True)


@pytest.fixture(scope="session")
def scans() -> list[PhantomScan]:
    """Tiny scans of subjects with lesions, each segmented by three raters."""
    return [make_scan(4, k, preset="tiny", lesions=True, raters=3) for k in range(8)]


@pytest.fixture(scope="session")
def cordless() -> PhantomScan:
    return make_scan(4, preset="tiny", with_cord=False)
