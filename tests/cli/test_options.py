from __future__ import annotations

import importlib.util
import os
from importlib.machinery import ModuleSpec

import pytest

from sct_lesion_losses.cli import options
from sct_lesion_losses.errors import UsageError

MACHINE = {"backend": None, "device": "auto", "threads": None}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that Keras reads, put back afterwards."""
    for name in (
        "KERAS_BACKEND",
        "CUDA_VISIBLE_DEVICES",
        "JAX_PLATFORMS",
        "OMP_NUM_THREADS",
        "NPROC",
    ):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.setenv(name, "before")


def installed(monkeypatch: pytest.MonkeyPatch, *backends: str) -> None:
    def find(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None) if name in backends else None

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.parametrize(
    ("there", "asked", "wanted", "chosen"),
    [
        (("tensorflow", "jax"), None, None, "tensorflow"),
        (("jax",), None, None, "jax"),
        (("tensorflow", "jax"), "jax", None, "jax"),
        (("tensorflow", "jax"), None, "jax", "jax"),
        (("tensorflow", "torch"), "torch", "tensorflow", "torch"),
    ],
)
def test_the_backend_is_the_option_s_then_the_environment_s_then_the_first_there_is(
    there, asked, wanted, chosen, monkeypatch
):
    installed(monkeypatch, *there)
    if wanted is not None:
        monkeypatch.setenv("KERAS_BACKEND", wanted)
    options.chosen_device(dict(MACHINE, backend=asked))
    assert os.environ["KERAS_BACKEND"] == chosen


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [
        ((), None, "none of which is installed"),
        (("tensorflow",), "jax", "jax is not installed: pip install"),
        (("tensorflow",), "theano", "choose from tensorflow, jax, torch"),
    ],
)
def test_a_backend_that_is_not_there_is_refused_with_what_to_install(
    there, asked, said, monkeypatch
):
    installed(monkeypatch, *there)
    with pytest.raises(UsageError, match=said):
        options.chosen_device(dict(MACHINE, backend=asked))


def test_the_cpu_hides_every_gpu(monkeypatch):
    installed(monkeypatch, "jax")
    options.chosen_device(dict(MACHINE, device="cpu"))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["JAX_PLATFORMS"]) == ("-1", "cpu")


def test_other_devices_leave_the_choice_of_gpu_alone(monkeypatch):
    installed(monkeypatch, "jax")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    options.chosen_device(dict(MACHINE, device="gpu"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert "JAX_PLATFORMS" not in os.environ


def test_threads_are_those_of_the_option(monkeypatch):
    installed(monkeypatch, "tensorflow")
    options.chosen_device(dict(MACHINE, threads=3))
    for name in ("TF_NUM_INTRAOP_THREADS", "NPROC", "OMP_NUM_THREADS"):
        assert os.environ[name] == "3"
