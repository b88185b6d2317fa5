"""A model file that is checked: its protobuf, its tensors and its attributes.

Files may come from anyone. Nothing is trusted before it is checked: sizes, types, what a tensor declares
against what it stores, and that data outside the file is inside the model's folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import MissingExtraError, ModelError
from ...files.kinds import HEAD_BYTES, ONNX, kind_of
from ...files.regular import open_regular
from ...text import printable

if TYPE_CHECKING:
    import onnx

__all__ = [
    "FLOATS",
    "MAX_MODEL_BYTES",
    "MAX_NODES",
    "ModelFile",
    "attributes_of",
    "open_model",
    "plain",
    "tensor",
]

MAX_MODEL_BYTES = (1 << 31) - 1
"""Protobuf's own limit. Larger models keep their tensors in other files."""
MAX_NODES = 100_000
FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
"""The types of onnx.TensorProto.DataType that are read as float32."""
_OPSETS = (7, 28)
_IR_VERSIONS = (3, 14)


@dataclass(frozen=True, eq=False)
class ModelFile:
    """An ONNX model in memory.

    Parameters
    ----------
    name : str
        The file's stem, or the graph's name; printable.
    folder : str or None
        The folder of the model's file; data outside the file must be inside this folder.
    opset : int
        The version of the default domain.
    graph : onnx.GraphProto
        With local functions inlined.
    """

    name: str
    folder: str | None
    opset: int
    graph: onnx.GraphProto


def open_model(source) -> ModelFile:
    """Read and check a model: a path, the bytes of a file, or an `onnx.ModelProto`.

    Raises
    ------
    ModelError
        If it is not a model that can be converted.
    MissingExtraError
        If the onnx package is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtraError(
            "reading ONNX models needs the onnx package", hint='install it with: pip install "evsnn[onnx]"'
        ) from error

    name, folder = "model", None
    if isinstance(source, onnx.ModelProto):
        model = source
    else:
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
        else:
            if not isinstance(source, (str, os.PathLike)):
                hint = "export it first: torch.onnx.export(model, example, 'net.onnx'), or tf2onnx for Keras"
                raise ModelError(
                    "this is not an ONNX model",
                    got=type(source).__name__,
                    expected="a path, bytes or onnx.ModelProto",
                    hint=hint,
                )
            path = os.fspath(source)
            data = _contents(path)
            folder, file_name = os.path.split(os.path.abspath(os.fsdecode(path)))
            name = printable(os.path.splitext(file_name)[0])
        kind = kind_of(data[:HEAD_BYTES])
        if kind is not None and kind is not ONNX:
            raise ModelError(f"is {kind.what}, not an ONNX model", where=name, hint=kind.as_model)
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
        except (DecodeError, ValueError, RuntimeError) as error:
            raise ModelError(
                "is not an ONNX model, or is damaged", where=name, hint="export it again"
            ) from error
    if not model.ir_version or not model.graph.node:
        raise ModelError(
            "is not an ONNX model, or holds no network",
            where=name,
            expected="a graph with nodes",
            hint="export it again",
        )
    if not _IR_VERSIONS[0] <= model.ir_version <= _IR_VERSIONS[1]:
        expected = f"{_IR_VERSIONS[0]} to {_IR_VERSIONS[1]}"
        raise ModelError(
            "is of an ONNX version that is not read",
            where=name,
            got=f"IR version {model.ir_version}",
            expected=expected,
            hint="export it with opset 17",
        )
    opset = _opset(model, name)
    n_nodes = _expanded(model, name)
    if n_nodes > MAX_NODES:
        raise ModelError("has too many nodes", where=name, got=n_nodes, expected=f"at most {MAX_NODES}")
    if model.functions:
        import onnx.inliner

        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:  # onnx's C++ may raise any exception
            raise ModelError(
                "its local functions cannot be inlined", where=name, got=_brief(error)
            ) from error
    if not all(isinstance(text, str) for text in _texts(model.graph)):
        raise ModelError("is damaged: a name in it is not text", where=name, hint="export it again")
    return ModelFile(name if folder else printable(model.graph.name[:80]) or name, folder, opset, model.graph)


def _contents(path: str | bytes) -> bytes:
    """The bytes of a regular file."""
    where = printable(os.fsdecode(path))
    try:
        file = open(open_regular(path), "rb")
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise ModelError(
            "cannot be opened", where=where, got=getattr(error, "strerror", None) or error
        ) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if not 0 < size <= MAX_MODEL_BYTES:
            raise ModelError(
                "is not an ONNX model", where=where, got=f"{size} bytes", expected=f"1 to {MAX_MODEL_BYTES}"
            )
        return file.read()


def _opset(model: onnx.ModelProto, name: str) -> int:
    """The opset of the default domain."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    expected = f"{_OPSETS[0]} to {_OPSETS[1]}"
    if len(set(versions)) != 1:
        raise ModelError(
            "does not say which opset it uses",
            where=name,
            got=versions or "none",
            expected=expected,
            hint="export it again",
        )
    if not _OPSETS[0] <= versions[0] <= _OPSETS[1]:
        raise ModelError(
            "uses an opset that is not read",
            where=name,
            got=versions[0],
            expected=expected,
            hint="export it with opset 17, or use onnx.version_converter",
        )
    return versions[0]


def _expanded(model: onnx.ModelProto, name: str) -> int:
    """How many nodes there are after every call of a local function is replaced by its body."""
    bodies = {(f.domain, f.name): f for f in model.functions}
    sizes: dict = {}

    def size(nodes, depth: int) -> int:
        if depth > 50:
            raise ModelError(
                "its local functions call each other too deeply", where=name, expected="at most 50 levels"
            )
        total = 0
        for node in nodes:
            key = node.domain, node.op_type
            if key in bodies and key not in sizes:
                sizes[key] = size(bodies[key].node, depth + 1)
            total += sizes.get(key, 1)
        return min(total, MAX_NODES + 1)

    return size(model.graph.node, 0)


def _texts(graph: onnx.GraphProto) -> Iterator[str]:
    """Every text of a graph that is used; protobuf returns bytes for text that is not UTF-8."""
    yield graph.name
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for stored in graph.initializer:
        yield stored.name
        yield from (text for entry in stored.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (
            text
            for attribute in node.attribute
            for text in (attribute.name, attribute.ref_attr_name, attribute.t.name)
        )


def attributes_of(node: onnx.NodeProto, folder: str | None, where: str) -> dict:
    """A node's attributes as plain values; tensors as arrays.

    Raises
    ------
    ModelError
        If an attribute is a graph, a type or the like, which no operator has that can be imported.
    """
    values: dict = {}
    for attribute in node.attribute:
        kind = (
            attribute.AttributeType.Name(attribute.type)
            if attribute.type in attribute.AttributeType.values()
            else "?"
        )
        if attribute.name in values or attribute.ref_attr_name or kind not in _PLAIN:
            raise ModelError(
                f"attribute {attribute.name!r:.60} cannot be read", where=where, got=f"type {kind}"
            )
        value = values[attribute.name] = _PLAIN[kind](attribute, folder, where)
        if kind in ("FLOAT", "FLOATS") and np.isnan(value).any():
            raise ModelError(
                f"attribute {attribute.name!r:.60} is NaN",
                where=where,
                expected="numbers",
                hint="export it again",
            )
    return values


_PLAIN: Mapping = {
    "FLOAT": lambda a, *_: a.f,
    "INT": lambda a, *_: a.i,
    "STRING": lambda a, *_: a.s.decode("utf-8", "replace"),
    "TENSOR": lambda a, folder, where: tensor(a.t, folder, where),
    "FLOATS": lambda a, *_: tuple(a.floats),
    "INTS": lambda a, *_: tuple(a.ints),
}


def tensor(
    proto: onnx.TensorProto, folder: str | None, where: str, most_bytes: int = MAX_MODEL_BYTES
) -> np.ndarray:
    """A stored tensor as a float32, int64 or bool array; narrower and wider floats are cast.

    Parameters
    ----------
    proto : onnx.TensorProto
    folder : str or None
        See `ModelFile`.
    where : str
        For messages.
    most_bytes : int
        How many bytes a tensor of another file may have.

    Raises
    ------
    ModelError
        If it is of another type, does not hold what it declares, is too large, or lies outside the model's
        folder.
    """
    from onnx import TensorProto, helper, numpy_helper

    where = f"{where}: tensor {proto.name!r:.80}"
    names = (
        "FLOAT",
        "FLOAT16",
        "BFLOAT16",
        "DOUBLE",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "BOOL",
    )
    if proto.data_type not in (getattr(TensorProto, name) for name in names):
        known = proto.data_type in TensorProto.DataType.values()
        got = TensorProto.DataType.Name(proto.data_type) if known else f"type {proto.data_type}"
        raise ModelError(
            "holds data of a type that is not read",
            where=where,
            got=got,
            expected="floats or integers",
            hint="export the float32 model",
        )
    shape = tuple(proto.dims)
    itemsize = (
        2
        if proto.data_type == TensorProto.BFLOAT16
        else helper.tensor_dtype_to_np_dtype(proto.data_type).itemsize
    )
    n_bytes = math.prod(shape) * itemsize
    if any(size < 0 for size in shape) or len(shape) > 8:
        raise ModelError("has an impossible shape", where=where, got=shape[:9])
    if proto.data_location == TensorProto.EXTERNAL:
        if n_bytes > most_bytes:
            raise ModelError(
                "has too many weights",
                where=where,
                got=f"{n_bytes} bytes more",
                expected=f"at most {most_bytes} more",
            )
        data = _external(proto, folder, n_bytes, where)
        if proto.data_type != TensorProto.BFLOAT16:  # numpy has the others
            dtype = helper.tensor_dtype_to_np_dtype(proto.data_type).newbyteorder("<")
            with np.errstate(over="ignore"):
                return plain(np.frombuffer(data, dtype).reshape(shape))
        stored = TensorProto(data_type=proto.data_type, dims=shape, raw_data=data)
    else:
        stored = proto
        held = len(proto.raw_data) if proto.HasField("raw_data") else None
        if held is not None and held != n_bytes:
            raise ModelError(
                "is damaged: it does not hold what it declares",
                where=where,
                got=f"{held} bytes",
                expected=f"{n_bytes} for {shape}",
            )
        if held is None and math.prod(shape) > max(
            len(f)
            for f in (
                proto.float_data,
                proto.double_data,
                proto.int32_data,
                proto.int64_data,
                proto.uint64_data,
            )
        ):
            raise ModelError(
                "is damaged: it does not hold what it declares",
                where=where,
                expected=f"{math.prod(shape)} numbers for {shape}",
            )
    try:
        values = numpy_helper.to_array(stored).reshape(shape)
    except (ValueError, TypeError, OverflowError, IndexError) as error:
        raise ModelError("is damaged", where=where, got=_brief(error)) from error
    with np.errstate(over="ignore"):
        return plain(values)


def plain(values: np.ndarray) -> np.ndarray:
    """`values` as float32, int64 or bool."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64, copy=False)
    return values if values.dtype.kind == "b" else values.astype(np.float32, copy=False)


def _external(proto: onnx.TensorProto, folder: str | None, n_bytes: int, where: str) -> bytes:
    """The bytes of a tensor in another file in the model's folder."""
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(
            "lies outside the model, whose folder is not known",
            where=where,
            got=repr(location)[:80],
            hint="give the path of the model instead of its bytes",
        )
    numbers = [entries.get("offset", "0"), entries.get("length", str(n_bytes))]
    if not all(n.isascii() and n.isdigit() and len(n) < 19 for n in numbers) or int(numbers[1]) != n_bytes:
        raise ModelError(
            "has an impossible place in its file",
            where=where,
            got=f"offset {numbers[0]:.20}, length {numbers[1]:.20}",
            expected=f"{n_bytes} bytes",
        )
    folder, path = (
        os.path.realpath(folder),
        os.path.realpath(os.path.join(folder, location.replace("\0", ""))),
    )
    inside = (
        location
        and "\0" not in location
        and "\\" not in location
        and not os.path.isabs(location)
        and ".." not in location.split("/")
    )
    if not inside or os.path.commonpath([folder, path]) != folder:
        raise ModelError(
            "lies outside the model's folder",
            where=where,
            got=repr(location)[:80],
            hint="put the model and its data into one folder",
        )
    try:
        file = open(open_regular(path), "rb")
    except OSError as error:
        raise ModelError(
            "its file cannot be opened",
            where=where,
            got=f"{location!r:.80}: {error.strerror}",
            hint="keep the data file beside the model",
        ) from error
    with file:
        offset, size = int(numbers[0]), os.fstat(file.fileno()).st_size
        if offset + n_bytes > size:
            raise ModelError(
                "its file is too short",
                where=where,
                got=f"{size} bytes",
                expected=f"at least {offset + n_bytes}",
            )
        file.seek(offset)
        return file.read(n_bytes)


def _brief(error: Exception) -> str:
    """The first line of another library's message."""
    return printable((str(error).splitlines() or [type(error).__name__])[0][:120])
