"""Kinds of files that people give in place of another one: known by how they begin, and what to do then."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HEAD_BYTES", "KERAS", "ONNX", "Kind", "kind_of"]

HEAD_BYTES = 4096
"""So much of a file's beginning `kind_of` looks at."""

_CONVERT = "python -m evsnn.convert model.onnx -o weights.h5 --calibration samples.npz"
_PYTORCH = "load it in PyTorch and export it: torch.onnx.export(model.eval(), example, 'model.onnx')"
_KERAS = "export it with tf2onnx: tf2onnx.convert.from_keras(model, output_path='model.onnx')"
_ARRAYS = "save an array: numpy.savez('samples.npz', images=...)"


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Parameters
    ----------
    what : str
        "a PyTorch file".
    as_model, as_weights, as_inputs : str
        What to do if it was given as a model, as a weights file or as samples.
    """

    what: str
    as_model: str
    as_weights: str
    as_inputs: str


def _all(what: str, hint: str) -> Kind:
    return Kind(what, hint, hint, hint)


def _model(what: str, export: str) -> Kind:
    """A model of another tool."""
    return Kind(what, export, f"{export}, then {_CONVERT}", _ARRAYS)


_POINTER = _all(
    "a pointer of Git LFS, which stands for the file itself", "run git lfs pull, or download the file itself"
)
_PAGE = _all("a web page", "download the file itself: of a repository's page, the raw file")
_PACKED = _all("a compressed file", "unpack it first")
_PICTURE = Kind(
    "a picture", "give the model.onnx", "give the weights.h5", f"read pictures into an array, and {_ARRAYS}"
)
_SOUND = Kind(
    "a recording of sound", "give the model.onnx", "give the weights.h5", f"compute its features; {_ARRAYS}"
)
_NUMPY = Kind(
    "an array of NumPy",
    "samples are given with --calibration",
    "samples are given with --input",
    "write it anew with numpy.savez",
)
ONNX = Kind("an ONNX model", "export it again", f"convert it first: {_CONVERT}", _ARRAYS)
_TFLITE = _model(
    "a TensorFlow Lite model", "bring it to ONNX: python -m tf2onnx.convert --tflite F --output model.onnx"
)
_TORCH = _model("a PyTorch file", _PYTORCH)
_SAFETENSORS = _model("a file of safetensors, which holds weights and no network", _PYTORCH)
_PICKLE = _model(
    "a pickle of Python, which is never opened here",
    "export the model to ONNX where it was made (torch.onnx.export, skl2onnx)",
)
KERAS = _model("a Keras model", _KERAS)
_HDF5 = Kind(
    "an HDF5 file",
    f"a weights file runs as it is (python -m evsnn.run F); a Keras model: {_KERAS}",
    "make one with evsnn.save or python -m evsnn.convert",
    _ARRAYS,
)
_ZIP = Kind("a zip file", "unpack it first", "unpack it first", _ARRAYS)

_STARTS = (
    (b"version https://git-lfs", _POINTER),
    (b"\x89HDF\r\n\x1a\n", _HDF5),
    (b"\x93NUMPY", _NUMPY),
    (b"\x89PNG", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"GIF8", _PICTURE),
    (b"BM", _PICTURE),
    (b"RIFF", _SOUND),
    (b"\x1f\x8b", _PACKED),
    (b"BZh", _PACKED),
    (b"\xfd7zXZ", _PACKED),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
)


def kind_of(head: bytes) -> Kind | None:
    """What a file is that begins so; None if that is not known.

    Parameters
    ----------
    head : bytes
        Its first `HEAD_BYTES` bytes, or all if it is shorter.

    Returns
    -------
    Kind or None

    Examples
    --------
    >>> from evsnn.files.kinds import kind_of
    >>> kind_of(b"TFL3"), kind_of(b"....TFL3 and more").what
    (None, 'a TensorFlow Lite model')
    """
    text = head[:64].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return _PAGE
    if head[4:8] == b"TFL3":
        return _TFLITE
    if head[:4] == b"PK\x03\x04":
        return _in_zip(head)
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return _SAFETENSORS
    if len(head) > 2 and head[0] == 8 and 3 <= head[1] < 32 and head[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42):
        return ONNX  # the field of its version, then the next one
    return next((kind for start, kind in _STARTS if head.startswith(start)), None)


def _in_zip(head: bytes) -> Kind:
    """What a zip file is, by the names of its first members."""
    if b"data.pkl" in head or b"/version" in head:
        return _TORCH
    if b"model.weights.h5" in head or b"config.json" in head:
        return KERAS
    return _NUMPY if b".npy" in head else _ZIP
