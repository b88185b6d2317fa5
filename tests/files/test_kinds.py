"""Files of another kind than what was asked for: each is called what it is, and what to do is said."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile

import h5py
import numpy as np
import pytest
from onnx_builder import OnnxModel

import evsnn
from evsnn import InputError, ModelError, WeightsError
from evsnn.conversion.onnx.importer import import_onnx
from evsnn.files.demo import demo
from evsnn.files.inputs import open_inputs
from evsnn.files.kinds import HEAD_BYTES, kind_of


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            file.writestr(name, b"\x80\x02}q\0.")
    return stream.getvalue()


def hdf5(**attributes) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_group("model_weights")
        file.attrs.update(attributes)
    return stream.getvalue()


def onnx_model() -> bytes:
    m = OnnxModel((4,))
    return m.model(m.gemm(m.op("Relu", m.gemm("x", 4, 4)), 4, 2)).SerializeToString()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4242\n"
FILES = {
    "a pointer of Git LFS": (POINTER, "git lfs pull"),
    "a web page": (b"\n<!DOCTYPE html>\n<html>", "raw file"),
    "a TensorFlow Lite model": (b"\x1c\0\0\0TFL3" + bytes(200), "tf2onnx"),
    "a PyTorch file": (zipped("net/data.pkl", "net/version"), r"torch\.onnx\.export"),
    "a Keras model": (zipped("metadata.json", "config.json", "model.weights.h5"), "from_keras"),
    "a file of safetensors": (
        (40).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}' + bytes(40),
        r"torch\.onnx\.export",
    ),
    "a pickle of Python": (pickle.dumps({"weights": [1.0]}), "never opened"),
    "a compressed file": (gzip.compress(b"x" * 100), "unpack"),
    "a zip file": (zipped("readme.txt"), "unpack"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), r"model\.onnx"),
}


@pytest.mark.parametrize("what", FILES)
def test_known_files_are_called_what_they_are(what, tmp_path):
    content, hint = FILES[what]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"is {what}.*(?i:{hint})"):
        import_onnx(path)
    with pytest.raises(WeightsError, match=f"this is {what}.*not a weights file") as caught:
        evsnn.load(path)
    assert "\n" not in str(caught.value)
    if not content.startswith(b"PK"):
        with (
            pytest.raises(InputError, match=f"is {what}.*not a file of samples"),
            open_inputs(demo(), path),
        ):
            pass


@pytest.mark.parametrize("version", [b"3.0", "2.15.0", np.bytes_("2.1")])
def test_a_keras_file_is_told_from_a_weights_file(version, tmp_path):
    path = tmp_path / "keras.h5"
    path.write_bytes(hdf5(keras_version=version))
    with pytest.raises(WeightsError, match=r"this is a Keras model, not a weights file.*from_keras"):
        evsnn.load(path)
    with pytest.raises(ModelError, match=r"is an HDF5 file, not an ONNX model.*evsnn\.run.*from_keras"):
        import_onnx(path)
    path.write_bytes(hdf5())
    with pytest.raises(WeightsError, match="this HDF5 file is not an evsnn weights file"):
        evsnn.load(path)


def test_a_model_is_told_to_be_converted_first(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_model())
    import_onnx(path)
    with pytest.raises(WeightsError, match=r"this is an ONNX model, not a weights file.*evsnn\.convert"):
        evsnn.load(path)


def test_no_head_is_too_short_and_no_model_is_taken_for_something_else():
    whole = onnx_model()
    assert kind_of(whole[:HEAD_BYTES]).what == "an ONNX model"
    for content, _ in FILES.values():
        for n in range(12):
            kind_of(content[:n])
    for first in range(256):
        kind_of(bytes([first]))
    assert kind_of(b"") is None and kind_of(bytes(64)) is None


def test_labels_that_are_names_get_a_hint_that_helps(tmp_path):
    images = np.zeros((4, 1, 28, 28), np.float32)
    for labels in (np.array(["cat", "dog"] * 2), np.array([0, 1] * 2, dtype=object)):
        np.savez(tmp_path / "x.npz", images=images, labels=labels)
        with (
            pytest.raises(InputError, match=r"labels.*(?i:number the classes)"),
            open_inputs(demo(), tmp_path / "x.npz"),
        ):
            pass
    np.savez(tmp_path / "x.npz", images=images, labels=np.unique(["cat", "dog"] * 2, return_inverse=True)[1])
    with open_inputs(demo(), tmp_path / "x.npz") as inputs:
        assert inputs.read().labels.tolist() == [0, 1, 0, 1]
