import json

import numpy as np
import pytest


@pytest.fixture(scope="session")
def oracle(testing_data):
    """Values of the losses by name, case and pooling; inputs and gradients by their key."""
    with np.load(testing_data / "oracles" / "losses.npz") as stored:
        arrays = dict(stored)
    return json.loads((testing_data / "oracles" / "losses.json").read_text()), arrays
