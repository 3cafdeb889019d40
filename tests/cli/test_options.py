import importlib.util
import os
from importlib.machinery import ModuleSpec
from unittest import mock

import pytest

from sct_lesion_losses.cli.options import chosen_device
from sct_lesion_losses.errors import UsageError

GIVEN = {"backend": None, "device": "auto", "threads": None}
BOTH = ("tensorflow", "jax")


@pytest.fixture
def installed(monkeypatch, request):
    """Backends that look as if they were installed; no others do."""

    def find(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None) if name in request.param else None

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.parametrize(
    ("installed", "options", "before", "after"),
    [
        (BOTH, {}, {}, {"KERAS_BACKEND": "tensorflow"}),
        (("jax",), {}, {}, {"KERAS_BACKEND": "jax"}),
        (BOTH, {}, {"KERAS_BACKEND": "jax"}, {"KERAS_BACKEND": "jax"}),
        (BOTH, {"backend": "jax"}, {"KERAS_BACKEND": "tensorflow"}, {"KERAS_BACKEND": "jax"}),
        (BOTH, {}, {}, {"TF_ENABLE_ONEDNN_OPTS": "1"}),
        (BOTH, {}, {"TF_ENABLE_ONEDNN_OPTS": "0"}, {"TF_ENABLE_ONEDNN_OPTS": "0"}),
        (("jax",), {"device": "cpu"}, {}, {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}),
        (
            ("jax",),
            {"device": "gpu"},
            {"CUDA_VISIBLE_DEVICES": "3"},
            {"CUDA_VISIBLE_DEVICES": "3", "JAX_PLATFORMS": None},
        ),
        (
            BOTH,
            {"threads": 3},
            {"NPROC": "5"},
            dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "NPROC", "OMP_NUM_THREADS"), "3"),
        ),
    ],
    indirect=["installed"],
)
def test_options_of_the_machine_come_before_the_environment(installed, options, before, after):
    with mock.patch.dict(os.environ, before, clear=True):
        assert chosen_device(GIVEN | options) == options.get("device", "auto")
        assert {name: os.environ.get(name) for name in after} == after


@pytest.mark.parametrize(
    ("installed", "asked", "said"),
    [
        ((), None, "none of which is installed"),
        (("tensorflow",), "jax", "jax is not installed: pip install"),
        (("tensorflow",), "theano", "choose from tensorflow, jax, torch"),
    ],
    indirect=["installed"],
)
def test_a_backend_that_is_not_there_is_refused_with_what_to_install(installed, asked, said):
    with mock.patch.dict(os.environ, {}, clear=True), pytest.raises(UsageError, match=said):
        chosen_device(GIVEN | {"backend": asked})
