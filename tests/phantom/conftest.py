import numpy as np
import pytest

from sct_lesion_losses.phantom import PhantomScan, make_scan
from sct_lesion_losses.phantom.anatomy import Body, make_body


@pytest.fixture(scope="session")
def bodies() -> list[Body]:
    return [make_body(np.random.default_rng([3, k])) for k in range(30)]


@pytest.fixture(scope="session")
def scans() -> list[PhantomScan]:
    """Tiny scans of subjects with lesions, each segmented by three raters."""
    return [make_scan(4, k, preset="tiny", lesions=True, raters=3) for k in range(8)]


@pytest.fixture(params=range(8))
def scan(scans: list[PhantomScan], request: pytest.FixtureRequest) -> PhantomScan:
    """Each of the tiny scans."""
    return scans[request.param]


@pytest.fixture(scope="session")
def cordless() -> PhantomScan:
    return make_scan(4, preset="tiny", with_cord=False)
