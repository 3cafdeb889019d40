from __future__ import annotations

import numpy as np
import onnxruntime
from on_backend import run
from small_data import write_cohort

from sct_lesion_losses.bundle import store


def test_a_bundle_is_trained_on_jax_without_tensorflow(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", subjects=8)
    folder = tmp_path / "small"
    trained = run("jax", "trained_bundle", cohort, folder)
    bundle = store.load(folder)
    assert bundle.info.recipe.backend == "jax"
    assert trained["history"][1] < trained["history"][0]
    session = onnxruntime.InferenceSession(bundle.network, providers=["CPUExecutionProvider"])
    found = session.run(["lesion"], {"patches": trained["patches"].transpose(0, 4, 1, 2, 3)})[0]
    assert np.abs(found - trained["keras"].transpose(0, 4, 1, 2, 3)).max() < 1e-5
