"""Samples in the shape in which the trained model reads them: what convert took, run takes as well."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_builder import OnnxModel

import evsnn
from evsnn import IF, Input, InputError, Linear, Network, NetworkError, Readout
from evsnn.convert import main as convert_command
from evsnn.run import main as run_command

RNG = np.random.default_rng(12)


def channels_last():
    m = OnnxModel((6, 5, 3), seed=1)
    x = m.op("Relu", m.conv(m.op("Transpose", "x", perm=[0, 3, 1, 2]), 3, 4))
    return m.model(m.head(x, 4 * 4 * 3, 3))


def rows():
    m = OnnxModel((20, 3), seed=1)
    x = m.op("Reshape", "x", np.array([-1, 60]))
    return m.model(m.gemm(m.op("Relu", m.gemm(x, 60, 8)), 8, 3))


def signal():
    m = OnnxModel((3, 24), seed=1)
    x = m.op("Conv", "x", m.floats(4, 3, 5))
    return m.model(m.gemm(m.op("Flatten", m.op("Relu", x)), 4 * 20, 3))


MODELS = {
    "channels last": (channels_last, (6, 5, 3), (3, 6, 5)),
    "rows": (rows, (20, 3), (60,)),
    "a signal": (signal, (3, 24), (3, 1, 24)),
}


@pytest.mark.parametrize("case", MODELS)
def test_the_calibration_file_runs(case, tmp_path, capsys):
    make, own, network_shape = MODELS[case]
    samples = RNG.random((64, *own), np.float32)
    onnx.save(make(), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", images=samples)
    weights = str(tmp_path / "w.h5")
    words = [str(tmp_path / "m.onnx"), "-o", weights, "--calibration", str(tmp_path / "x.npz")]
    assert convert_command([*words, "--steps", "16", "--threshold", "max"]) == 0
    assert (
        run_command([weights, "--input", str(tmp_path / "x.npz"), "--outputs", str(tmp_path / "o.npz")]) == 0
    )
    network = evsnn.load(weights)
    assert network.input_shape == network_shape and network.input.source_shape == own
    arranged = network.input.arranged(samples)
    assert arranged.shape == (64, *network_shape)
    wanted = evsnn.simulate(network, arranged).outputs
    np.testing.assert_array_equal(np.load(tmp_path / "o.npz")["readout"], wanted)
    np.testing.assert_array_equal(evsnn.simulate(network, samples).outputs, wanted)
    np.testing.assert_array_equal(evsnn.simulate(network, samples[0]).outputs, wanted[:1])
    np.save(tmp_path / "one.npy", samples[0])
    assert run_command([weights, "--input", str(tmp_path / "one.npy"), "--json"]) == 0
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": samples})
    assert np.abs(wanted - scores).max() < 0.25 * np.abs(scores).max()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_shapes_are_still_refused():
    network = evsnn.convert(channels_last(), RNG.random((64, 6, 5, 3), np.float32), n_steps=4)
    with pytest.raises(InputError, match="images have the wrong shape"):
        evsnn.simulate(network, np.zeros((2, 5, 6, 3)))


BAD = {
    "too many values": ({"source_shape": (2, 3)}, "another number of values: got .*6, expected .*4"),
    "axes without a shape": ({"source_axes": (0,)}, "source_axes are those of a source_shape"),
    "axes that repeat": ({"source_shape": (2, 2), "source_axes": (0, 0)}, "no order of the axes"),
    "an axis too many": ({"source_shape": (2, 2), "source_axes": (0, 1, 2)}, "source_axes"),
    "zero": ({"source_shape": (0, 4)}, "source_shape"),
    "text": ({"source_shape": "ab"}, "source_shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_shapes_that_do_not_fit_are_refused(case):
    options, message = BAD[case]
    with pytest.raises(NetworkError, match=message):
        Network([Input((4,), **options), Linear(np.eye(4)), IF(), Linear(np.eye(4)), Readout()])
