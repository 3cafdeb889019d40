from pathlib import Path

import pytest
from small_bundle import NETWORK, WEIGHTS, make_info

from sct_lesion_losses.bundle import store


@pytest.fixture
def bundle(tmp_path: Path) -> store.Bundle:
    """The small bundle in a folder of its own."""
    return store.save(tmp_path / "store" / "tiny", make_info(), NETWORK, WEIGHTS, "# tiny\n")
