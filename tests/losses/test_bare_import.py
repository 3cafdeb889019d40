import pytest
from on_backend import BACKENDS, run


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_trains_where_only_keras_and_numpy_are_installed(backend):
    done = run(backend, "bare_import")
    assert done["loss"][-1] < done["loss"][0]
    assert done["modules"].tolist() == []
