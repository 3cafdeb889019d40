"""The engines: ONNX Runtime and OpenVINO behind one function."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sct_lesion_losses.errors import EngineError, UsageError
from sct_lesion_losses.inference import engine
from sct_lesion_losses.inference.engine import batch_shape

onnx = pytest.importorskip("onnx")

OPENVINO = pytest.param(
    "openvino",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
    ),
)
EVERY_ENGINE = pytest.mark.parametrize("name", ["onnxruntime", OPENVINO])
SIDE = 4
RNG = np.random.default_rng(0)
PATCHES = RNG.standard_normal((5, SIDE, SIDE, SIDE)).astype(np.float32)


def network(
    shape: tuple[int | str, ...] = ("N", 1, SIDE, SIDE, SIDE),
    operator: str = "Sigmoid",
    inputs: str = "x",
) -> bytes:
    """ONNX model of one operator that keeps the shape."""
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    *given, made = (helper.make_tensor_value_info(name, real, shape) for name in f"{inputs}y")
    names = inputs * (2 if operator == "Div" else 1)  # x / x is NaN at 0
    node = helper.make_node(operator, list(names), ["y"])
    graph = helper.make_graph([node], "graph", given, [made])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return bytes(model.SerializeToString())


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))))


@EVERY_ENGINE
@pytest.mark.parametrize(
    "shape",
    [
        ("N", 1, SIDE, SIDE, SIDE),
        ("N", SIDE, SIDE, SIDE, 1),
        (1, 1, SIDE, SIDE, SIDE),
        (2, SIDE, SIDE, SIDE, 1),
    ],
)
def test_every_patch_is_predicted_to_the_same_bits_whatever_the_layout(
    name: str, shape: tuple[int | str, ...]
) -> None:
    loaded = engine.load(network(shape), name)
    np.testing.assert_allclose(loaded.run(PATCHES), sigmoid(PATCHES), atol=1e-6)
    assert (loaded.name, loaded.precision) == (name, "float32")
    np.testing.assert_array_equal(loaded.run(PATCHES), loaded.run(PATCHES))
    assert loaded.run(PATCHES[:0]).shape == (0, SIDE, SIDE, SIDE)


@pytest.mark.parametrize(("batch", "calls"), [("N", [1] * 5), (2, [2, 2, 1])])
def test_progress_adds_up_to_the_number_of_patches(batch: int | str, calls: list[int]) -> None:
    done: list[int] = []
    loaded = engine.load(network((batch, 1, SIDE, SIDE, SIDE)), "onnxruntime")
    loaded.run(PATCHES, done.append)
    assert done == calls


def test_patches_of_another_size_or_with_nan_are_named_as_the_cause() -> None:
    loaded = engine.load(network(), "onnxruntime")
    with pytest.raises(EngineError, match=r"expected patches \(N, 4, 4, 4\)"):
        loaded.run(np.zeros((1, 5, 4, 4), np.float32))
    patches = PATCHES.copy()
    patches[3, 0, 0, 0] = np.nan
    with pytest.raises(EngineError, match="so has its input"):
        loaded.run(patches)


@EVERY_ENGINE
@pytest.mark.parametrize(
    "data", [b"", b"version https://git-lfs.github.com/spec/v1", network()[:40]]
)
def test_damaged_bytes_are_refused_and_stdout_stays_free(
    name: str, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineError, match=r"cannot load the network .*verify the bundle"):
        engine.load(data, name)
    assert capfd.readouterr().out == ""


@EVERY_ENGINE
def test_nan_made_by_the_network_is_refused(name: str) -> None:
    loaded = engine.load(network(operator="Div"), name)
    with pytest.raises(EngineError, match="weights are damaged"):
        loaded.run(np.zeros_like(PATCHES))


@pytest.mark.parametrize(
    "shape", [(None, 3, 4, 4, 4), (None, 1), (None, 1, 4, None, 4), (None, None, None, None, 1)]
)
def test_inputs_that_are_no_patches_are_refused(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(EngineError, match="export it with"):
        batch_shape(shape)


def test_a_network_with_two_inputs_is_refused() -> None:
    with pytest.raises(EngineError, match="one input and one output, received 2 and 1"):
        engine.load(network(operator="Add", inputs="ab"), "onnxruntime")


@pytest.mark.parametrize("wrong", [{"engine": "tensorrt"}, {"precision": "float16"}])
def test_unknown_settings_are_wrong_use(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        engine.load(network(), **wrong)  # type: ignore[arg-type]


def test_bfloat16_without_openvino_says_how_to_get_it() -> None:
    with pytest.raises(EngineError, match=r"pip install 'sct_lesion_losses\[fast\]'"):
        engine.load(network(), "onnxruntime", "bfloat16")


def test_onnxruntime_that_cannot_be_imported_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"ONNX Runtime cannot be imported .*pip install onnx"):
        engine.load(network(), "onnxruntime")


def test_where_openvino_is_missing_auto_uses_onnxruntime_and_openvino_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert engine.load(network()).name == "onnxruntime"
    assert caplog.text == ""
    with pytest.raises(EngineError, match=r"OpenVINO cannot be imported .*lesion_losses\[fast\]"):
        engine.load(network(), "openvino")


def test_auto_says_that_openvino_is_broken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise ImportError("libopenvino.so: cannot open shared object file")

    monkeypatch.setattr(engine.importlib, "import_module", broken)
    assert engine.load(network()).name == "onnxruntime"
    assert "libopenvino.so" in caplog.text
    assert "using ONNX Runtime" in caplog.text
    with pytest.raises(EngineError, match=r"libopenvino\.so"):
        engine.load(network(), "openvino")


def test_bfloat16_on_a_cpu_without_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engine, "_computes_bfloat16", lambda core: False)
    engine.load(network(), "openvino", "bfloat16")
    assert "no bfloat16 arithmetic" in caplog.text


def test_bfloat16_is_close_to_float32() -> None:
    pytest.importorskip("openvino")
    predicted = engine.load(network(), "openvino", "bfloat16").run(PATCHES)
    np.testing.assert_allclose(predicted, sigmoid(PATCHES), atol=0.02)


def test_threads_are_the_cpus_of_the_process_and_no_more_than_openmp_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)
    for asked, threads in (("", 3), ("2,1", 2), ("9", 3), ("no number", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert engine.available_cpus() == threads
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert engine.available_cpus() == 1


def run_elsewhere(code: str, home: Path, *arguments: str) -> str:
    """Run Python code with another home folder; return all that it printed."""
    home.mkdir()
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CI"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


@EVERY_ENGINE
def test_running_a_network_leaves_nothing_in_the_home_and_says_nothing(
    name: str, tmp_path: Path
) -> None:
    # Both engines would keep an identifier for their telemetry in the home folder.
    (tmp_path / "net.onnx").write_bytes(network())
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from sct_lesion_losses.inference import engine\n"
        "engine.load(Path(sys.argv[1]).read_bytes(), sys.argv[2]).run(np.ones((1, 4, 4, 4), 'f4'))"
    )
    home = tmp_path / "home"
    assert run_elsewhere(code, home, str(tmp_path / "net.onnx"), name) == ""
    assert list(home.rglob("*")) == []


def test_the_package_keeps_onnxruntime_silent_wherever_it_is_imported(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run_elsewhere("import sct_lesion_losses, onnxruntime", home) == ""
    assert list(home.rglob("*")) == []


@pytest.mark.sct
@EVERY_ENGINE
def test_sct_own_network_runs(name: str, sct_dir: Path, request: pytest.FixtureRequest) -> None:
    model = sct_dir / "data" / "deepseg_lesion_models" / "t2_ax_lesion.onnx"
    patches = np.zeros((1, 48, 48, 48), np.float32)
    predicted = engine.load(model.read_bytes(), name).run(patches)
    assert predicted.shape == patches.shape
    assert 0 <= predicted.min() <= predicted.max() <= 1
