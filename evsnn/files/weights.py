"""The weights file: a `Network` as one HDF5 file, and back. docs/format.md is its reference.

Files are read by `gate`, which knows HDF5; this module knows what evsnn puts into it. What is in a file but
not in the format is refused, so that a misspelt ``paddding`` is an error and not a default.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from ..errors import NetworkError, WeightsError
from ..network.layers import KINDS, Layer, settled
from ..network.network import MAX_STEPS, Network, Samples, step_parameters_where
from ..network.step_parameters import StepParameters
from ..text import shown
from .atomic import replace_file
from .gate import MAX_BYTES, Dataset, File, Group, open_file, open_stream
from .kinds import KERAS
from .schema import (
    FIELDS,
    FORMAT_VERSION,
    FORMS,
    LABEL_TYPES,
    PARAMETER_GROUPS,
    RENAMED,
    REQUIRED,
    STEP_PARAMETER_FIELDS,
    STORAGES,
    checked_classes,
    checked_metadata,
    checked_samples,
    decode_table,
    sha256_of,
)

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

__all__ = ["StoredArray", "as_stored", "load", "save", "verify"]

MOST_EXPANSION = 256
"""How many times the size of a file its arrays may take in memory, beside 256 MiB: trained weights are stored
nearly as large as they are, and small files may not take long to be read.
"""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")
_LAYER_NAME = re.compile(r"([0-9]{1,6})_([a-z0-9]{1,32})")
_STEPS_NAME = re.compile(r"[0-9]{5}")


@dataclass(frozen=True)
class StoredArray:
    """A dataset of a weights file that was read and compared with its digest; see `verify`.

    Parameters
    ----------
    path : str
        Inside the file: ``/layers/001_conv2d/weight``.
    shape : tuple of int
    dtype : str
    n_bytes, stored_bytes : int
        Its bytes once decoded, and in the file.
    sha256 : str
        The digest of the values that were read.
    intact : bool
        Whether it is the digest that the file says.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    n_bytes: int
    stored_bytes: int
    sha256: str
    intact: bool


def load(
    path: StrOrBytesPath, *, max_bytes: int = MAX_BYTES, before: Callable[[int], None] | None = None
) -> Network:
    """Read a weights file.

    The file is not trusted (SECURITY.md): it is read or refused, but never executed, and no other file is
    opened for it.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        The file to read.
    max_bytes : int
        Limit on the size of the file, and on the size of all that it holds, in float32. Up to the default,
        that is also at most 256 MiB and 256 times the size of the file.
    before : callable (n_bytes), optional
        It is called with the bytes that the network will take, before its arrays are read; an exception that
        it raises ends the reading.

    Returns
    -------
    Network
        With float32 weights, in whatever type the file stores them.

    Raises
    ------
    WeightsError
        If the file cannot be read, is damaged, or does not describe a network that can run.

    Examples
    --------
    >>> evsnn.save("net.h5", net)
    >>> evsnn.load("net.h5").n_steps == net.n_steps
    True
    """
    with _opened(path, max_bytes) as file:
        tree = file.tree()
        if before is not None:
            before(_decoded_bytes(tree))
        return _network(tree, file.where)


def verify(path: StrOrBytesPath, *, max_bytes: int = MAX_BYTES) -> tuple[StoredArray, ...]:
    """Compare every dataset of a weights file with its digest.

    `load` stops at the first damaged dataset; this function reports all of them.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        The file to read.
    max_bytes : int
        As for `load`.

    Returns
    -------
    tuple of StoredArray
        In order of path.

    Raises
    ------
    WeightsError
        If the file cannot be read, or a dataset has no digest.
    """
    with _opened(path, max_bytes) as file:
        found = []
        groups = [file.tree()]
        while groups:
            for member in groups.pop().members.values():
                if isinstance(member, Group):
                    groups.append(member)
                    continue
                digest = sha256_of(member.read())
                inside = member.where[len(file.where) + 1 :]
                found.append(
                    StoredArray(
                        inside,
                        member.shape,
                        str(member.dtype),
                        member.n_bytes,
                        member.stored_bytes,
                        digest,
                        digest == _digest(member),
                    )
                )
        return tuple(sorted(found, key=lambda array: array.path))


def save(
    path: StrOrBytesPath, network: Network, *, storage: str = "float32", compress: bool | None = None
) -> None:
    """Write a weights file, all or nothing.

    The file is written beside `path` under another name, flushed to the disk and renamed. Until then, and if
    anything fails, an existing file stays as it was. The mode of an existing file is kept. Equal networks
    give equal bytes (with the same HDF5 and zlib).

    Parameters
    ----------
    path : str, bytes or os.PathLike
        Its folder must exist. A symbolic link is followed.
    network : Network
        The network to store.
    storage : {"float32", "float16", "int8"}
        How weights are stored. "float32" keeps every bit; "float16" rounds; "int8" rounds to 255 levels
        with one scale per output channel. Biases and thresholds are always float32.
    compress : bool, optional
        Whether weights are compressed (gzip). None: only those that are stored as integers.

    Raises
    ------
    WeightsError
        If the file cannot be written, or the network holds what the format cannot.

    Examples
    --------
    >>> evsnn.save("net.h5", net, storage="int8")
    """
    if not isinstance(network, Network):
        raise WeightsError(
            "only a Network can be saved", got=type(network).__name__, hint="call save(path, network)"
        )
    if storage not in STORAGES:
        raise WeightsError("unknown storage", got=repr(storage), expected=" or ".join(STORAGES))
    try:
        target = os.path.realpath(os.fsdecode(path))
        where = shown(os.fsdecode(path), 400)
    except (TypeError, ValueError) as error:
        raise WeightsError("a path is expected", got=shown(repr(path), 80)) from error
    from .storage import image  # imported here, because `load` needs no h5py, which is slow to import

    file = image(network, storage, storage == "int8" if compress is None else bool(compress), where)
    open_stream(file, where).tree()  # what the gate would refuse is not written
    _check_target(target, where)
    try:
        replace_file(target, file.getbuffer(), flush=True)
    except OSError as error:
        raise WeightsError(
            "the file cannot be written", where=where, got=shown(error.strerror or error)
        ) from error


def _check_target(target: str, where: str) -> None:
    """Refuse what a file must not take the place of."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WeightsError("the file cannot be written", where=where, got=shown(error.strerror)) from error
    if not stat.S_ISREG(status.st_mode):
        word = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise WeightsError(
            "something else has that name", where=where, got=word, expected="a file, or nothing"
        )
    if not os.access(target, os.W_OK):
        raise WeightsError(
            "the file is write-protected", where=where, hint="choose another name, or allow writing"
        )


def as_stored(network: Network, storage: str) -> Network:
    """The network that `load` returns after `save`, without a file.

    Parameters
    ----------
    network : Network
        The network to store.
    storage : {"float32", "float16", "int8"}
        How weights are stored.

    Returns
    -------
    Network
        The network itself if `storage` is "float32".

    Raises
    ------
    WeightsError
        If the network holds what the format cannot.
    """
    if storage not in STORAGES:
        raise WeightsError("unknown storage", got=repr(storage), expected=" or ".join(STORAGES))
    from .storage import image

    return _network(
        open_stream(image(network, storage, False, "the network"), "the network").tree(), "the network"
    )


# From a file to a network


@contextmanager
def _opened(path: StrOrBytesPath, max_bytes: int) -> Iterator[File]:
    """A weights file that is open, and of a version that is known."""
    with open_file(path, max_bytes=max_bytes) as file:
        _check_format(file)
        yield file.expanding(MOST_EXPANSION) if max_bytes <= MAX_BYTES else file


def _is_keras(file: File) -> bool:
    """Whether a file is a model of Keras, which writes its version into each."""
    try:
        return "keras_version" in file.attributes(("keras_version",))
    except WeightsError:  # it is there, as text of a kind that weights files do not use
        return True


def _decoded_bytes(tree: Group) -> int:
    """Bytes of all arrays once they are float32."""
    return sum(
        _decoded_bytes(member)
        if isinstance(member, Group)
        else member.n_bytes // member.dtype.itemsize * max(4, member.dtype.itemsize)
        for member in tree.members.values()
    )


def _check_format(file: File) -> None:
    """Refuse a file of another format or of an unknown version before anything else in it is checked."""
    attributes = file.attributes(("format", "format_version"))
    if attributes.get("format") != "evsnn":
        hint = "make one with evsnn.save or python -m evsnn.convert"
        if _is_keras(file):
            raise WeightsError(
                "this is a Keras model, not a weights file", where=file.where, hint=KERAS.as_weights
            )
        raise WeightsError(
            "this HDF5 file is not an evsnn weights file",
            where=file.where,
            got="no root attribute format = 'evsnn'",
            hint=hint,
        )
    text = attributes.get("format_version")
    version = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if not version:
        raise WeightsError(
            "format_version is not a version",
            where=file.where,
            got=shown(repr(text), 80),
            expected="major.minor",
        )
    known = ".".join(map(str, FORMAT_VERSION))
    major, minor = map(int, version.groups())
    if major > FORMAT_VERSION[0] or (major == FORMAT_VERSION[0] and minor > FORMAT_VERSION[1]):
        raise WeightsError(
            "the file was written by a newer evsnn",
            where=file.where,
            got=f"format {text}",
            expected=f"at most {known}",
            hint="upgrade evsnn",
        )
    if major < 1:
        raise WeightsError(
            "there is no such version of the format", where=file.where, got=text, expected=f"1.0 to {known}"
        )


_Node = TypeVar("_Node", Group, Dataset)


class _Fields:
    """What a group (or dataset) holds, taken piece by piece. What is left at the end is refused."""

    def __init__(self, node: Group | Dataset):
        self.where = node.where
        self.attributes = dict(node.attributes)
        self.members = dict(node.members) if isinstance(node, Group) else {}

    @overload
    def attribute(self, name: str, form: Literal["text"], default: str = ...) -> str: ...
    @overload
    def attribute(self, name: str, form: Literal["integer"]) -> int: ...
    @overload
    def attribute(self, name: str, form: Literal["integers"]) -> tuple[int, ...]: ...
    @overload
    def attribute(self, name: str, form: Literal["real"]) -> float: ...
    @overload
    def attribute(self, name: str, form: Literal["reals"], default: None) -> tuple[float, ...] | None: ...
    @overload
    def attribute(self, name: str, form: str, default: object = ...) -> object: ...

    def attribute(self, name: str, form: str, default: object = ...) -> object:
        """An attribute of the given form; the default, if there is one and the attribute is absent."""
        value = self.attributes.pop(name, default)
        words, fits = FORMS[form]
        if value is ...:
            raise WeightsError("an attribute is missing", where=self.where, expected=f"{name}, {words}")
        if value is not default and not fits(value):
            raise WeightsError(
                f"attribute {name} has the wrong type",
                where=self.where,
                got=shown(repr(value), 80),
                expected=words,
            )
        return value

    def group(self, name: str) -> Group | None:
        return self.member(name, Group, "a group")

    def present(self, name: str) -> Group:
        """A group that is known to be there."""
        group = self.group(name)
        if group is None:
            raise WeightsError("a group is missing", where=self.where, expected=name)
        return group

    def array(self, name: str, dtypes: Sequence[str]) -> np.ndarray | None:
        """A dataset's values, intact and of one of the types; None if it is absent."""
        dataset = self.member(name, Dataset, "a dataset")
        if dataset is None:
            return None
        values, rest = _intact(dataset, dtypes)
        rest.done()
        return values

    def member(self, name: str, kind: type[_Node], words: str) -> _Node | None:
        member = self.members.pop(name, None)
        if member is not None and not isinstance(member, kind):
            raise WeightsError("the object is of the wrong kind", where=member.where, expected=words)
        return member

    def done(self) -> None:
        for what, left in (("attribute", self.attributes), ("object", self.members)):
            if left:
                name = min(left)
                hint = "remove it, or upgrade evsnn; notes of your own belong into /metadata"
                if name in RENAMED:
                    hint = (
                        f"it was renamed before format 1 was released: name it {RENAMED[name]}, with the"
                        " lines in docs/format.md, or convert the model again"
                    )
                raise WeightsError(f"unknown {what}", where=self.where, got=shown(name, 80), hint=hint)


def _digest(dataset: Dataset) -> str:
    digest = dataset.attributes.get("sha256")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise WeightsError(
            "the dataset has no usable sha256",
            where=dataset.where,
            got=shown(repr(digest), 80),
            expected="an attribute sha256 of 64 hexadecimal digits",
        )
    return digest


def _intact(dataset: Dataset, dtypes: Sequence[str]) -> tuple[np.ndarray, _Fields]:
    """The values of a dataset, and its attributes beside the digest."""
    if dtypes and dataset.dtype.newbyteorder("<") not in map(np.dtype, dtypes):
        raise WeightsError(
            "the dataset has the wrong type",
            where=dataset.where,
            got=dataset.dtype,
            expected=" or ".join(np.dtype(t).name for t in dtypes),
        )
    expected = _digest(dataset)
    values = dataset.read()
    if sha256_of(values) != expected:
        raise WeightsError(
            "the data is damaged: its sha256 differs",
            where=dataset.where,
            hint="copy or download the file again",
        )
    fields = _Fields(dataset)
    del fields.attributes["sha256"]
    return values, fields


def _network(tree: Group, where: str) -> Network:
    """The network that a tree describes."""
    root = _Fields(tree)
    inside = tree.where  # file:/
    for name in ("format", "format_version"):
        root.attribute(name, "text")
    input_shape = root.attribute("input_shape", "integers")
    n_steps, shift = root.attribute("n_steps", "integer"), root.attribute("shift", "text")
    readout, task = root.attribute("readout", "text"), root.attribute("task", "text", "classify")
    coding = root.attribute("coding", "text", "steps")
    ends, input_range = root.attribute("input_range", "reals", None), None
    if ends is not None:
        if len(ends) != 2:
            raise WeightsError(
                "input_range is not a range",
                where=inside,
                got=f"{len(ends)} values",
                expected="2: smallest and largest",
            )
        input_range = ends[0], ends[1]
    stored = root.group("layers")
    if stored is None:
        raise WeightsError("the file has no layers", where=where, expected="a group /layers")
    metadata, samples = root.group("metadata"), root.group("samples")
    tables = {coding: root.group(name) for coding, name in PARAMETER_GROUPS.items()}
    classes = _classes(root.array("classes", ()), f"{inside}classes")
    root.done()
    notes: dict[str, str | int | float] = {}
    if metadata is not None:
        fields = _Fields(metadata)
        notes = checked_metadata(
            {name: fields.attribute(name, "scalar") for name in tuple(fields.attributes)}, fields.where
        )
        fields.done()
    groups = _ordered(stored)
    layers = [_layer(group, kind, input_shape) for group, kind in groups]
    with _at_home({layer._where: group.where for layer, (group, _) in zip(layers, groups)}, where):
        network = Network(
            layers,
            n_steps=n_steps,
            shift=shift,
            readout=readout,
            input_range=input_range,
            classes=classes,
            metadata=notes,
            task=task,
            coding=coding,
        )
    if samples is not None:
        network = network.replace(samples=_read_samples(samples, network))
    names = {group.where.rpartition("/")[2]: layer for layer, (group, _) in zip(network.layers, groups)}
    for coding, table in tables.items():
        if table is not None:
            network = _with_parameters(table, network, names, where, coding)
    return network


@contextmanager
def _at_home(homes: Mapping[str, str], where: str) -> Iterator[None]:
    """Turn a network's errors into errors that name the group they come from."""
    try:
        yield
    except NetworkError as error:
        at = error.where or ""
        raise _as_weights_error(
            error, f"{homes[at]} ({at})" if at in homes else f"{where}: {at}" if at else where
        ) from error


def _as_weights_error(error: NetworkError, where: str) -> WeightsError:
    got = None if error.got is None else shown(error.got)  # a file can hold a stride of 8,000 numbers
    return WeightsError(error.what, where=where, got=got, expected=error.expected, hint=error.hint)


def _ordered(stored: Group) -> list[tuple[Group, str]]:
    """The layers' groups in the order of their numbers, and their kinds."""
    fields = _Fields(stored)
    numbered: dict[int, tuple[Group, str]] = {}
    for name in stored.members:
        match = _LAYER_NAME.fullmatch(name)
        if not match:
            raise WeightsError(
                "a layer's group has no number",
                where=stored.where,
                got=name,
                expected="000_input, 001_conv2d, ...",
            )
        if int(match[1]) in numbered:
            raise WeightsError("two layers have one number", where=stored.where, got=name)
        numbered[int(match[1])] = (fields.present(name), match[2])
    fields.done()
    if sorted(numbered) != list(range(len(numbered))):
        raise WeightsError(
            "a layer's number is missing",
            where=stored.where,
            got=f"{len(numbered)} layers up to number {max(numbered)}",
            expected="0, 1, 2, ...",
        )
    return [numbered[i] for i in range(len(numbered))]


def _with_parameters(
    stored: Group, network: Network, names: Mapping[str, Layer], where: str, coding: str
) -> Network:
    """The network with the step or graded parameters of a file; `names` are those of its layers' groups."""
    fields = _Fields(stored)
    step_parameters: dict[int, dict[str, StepParameters]] = {}
    homes = {}
    for name in stored.members:
        if not _STEPS_NAME.fullmatch(name) or not 1 <= int(name) <= MAX_STEPS:
            raise WeightsError(
                "the name of a group of step parameters is not a number of steps",
                where=stored.where,
                got=name,
                expected=f"00001 to {MAX_STEPS}",
            )
        table = step_parameters[int(name)] = {}
        entries = _Fields(fields.present(name))
        for entry in tuple(entries.members):
            if entry not in names or names[entry].kind not in STEP_PARAMETER_FIELDS:
                kinds = ", ".join(sorted(STEP_PARAMETER_FIELDS))
                raise WeightsError(
                    "the step parameters name no layer that takes them",
                    where=entries.where,
                    got=entry,
                    expected=f"the group of a layer of kind {kinds}",
                )
            layer, group = names[entry], entries.present(entry)
            table[layer.name] = _step_parameters(group, layer)
            homes[step_parameters_where(int(name), layer, coding)] = group.where
        entries.done()
    fields.done()
    with _at_home(homes, where):
        return network.replace(**{PARAMETER_GROUPS[coding]: step_parameters})


def _step_parameters(group: Group, layer: Layer) -> StepParameters:
    fields = _Fields(group)
    values: dict[str, Any] = {
        name: fields.array(name, ("<f4",)) if form == "array" else fields.attribute(name, form, None)
        for name, form in STEP_PARAMETER_FIELDS[layer.kind].items()
    }
    fields.done()
    return StepParameters(**values)


def _layer(group: Group, kind: str, input_shape: tuple[int, ...]) -> Layer:
    fields = _Fields(group)
    if fields.attribute("kind", "text") != kind or kind not in FIELDS:
        expected = f"the one in the group's name, of {', '.join(sorted(FIELDS))}"
        raise WeightsError(
            "unknown kind of layer",
            where=group.where,
            got=shown(repr(group.attributes["kind"]), 80),
            expected=expected,
        )
    values: dict[str, Any] = {
        "name": fields.attribute("name", "text", ""),
        "inputs": fields.attribute("inputs", "texts", ()),
    }
    value: object
    if kind == "input":
        values["shape"] = input_shape
    for name, form in FIELDS[kind].items():
        if form == "weight":
            value = _weight(fields)
        elif form == "array":
            value = fields.array(name, ("<f4",))
        else:
            value = fields.attribute(name, form, None)
        if value is None and name in REQUIRED:
            raise WeightsError("a dataset is missing", where=group.where, expected=name)
        if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.flags.writeable:
            value = settled(value)
        if value is not None:
            values[name] = value
    fields.done()
    try:
        return KINDS[kind](**values)
    except NetworkError as error:
        raise _as_weights_error(error, group.where) from error


def _weight(fields: _Fields) -> np.ndarray | None:
    """The weight; int8 becomes float32(q) * scale of its output channel."""
    weight = fields.array("weight", ("<f4", "<f2", "|i1"))
    if weight is None or weight.dtype != np.int8:
        return weight
    scale = fields.array("weight_scale", ("<f4",))
    if scale is None:
        raise WeightsError(
            "an int8 weight has no scale", where=fields.where, expected="a dataset weight_scale"
        )
    if scale.shape != weight.shape[:1]:
        raise WeightsError(
            "weight_scale and weight do not fit",
            where=fields.where,
            got=f"shapes {scale.shape} and {weight.shape}",
            expected="one scale per output channel",
        )
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise WeightsError(
            "weight_scale is not positive and finite",
            where=fields.where,
            got=f"{scale.min()} to {scale.max()}",
        )
    values = weight.astype(np.float32)
    with np.errstate(over="ignore"):  # infinity is refused by the layer
        values *= scale.reshape(-1, *[1] * (weight.ndim - 1))
    return values


def _classes(names: np.ndarray | None, where: str) -> tuple[str, ...]:
    if names is None:
        return ()
    if names.dtype.kind != "S" or names.ndim != 1:
        raise WeightsError(
            "classes are not a list of strings", where=where, got=f"{names.dtype}, shape {names.shape}"
        )
    try:
        return checked_classes([name.decode("utf-8") for name in names.tolist()], where)
    except UnicodeDecodeError as error:
        raise WeightsError("classes are not UTF-8", where=where, got=shown(error)) from error


def _read_samples(group: Group, network: Network) -> Samples:
    fields = _Fields(group)
    stored = fields.member("images", Dataset, "a dataset")
    if stored is None:
        raise WeightsError("a dataset is missing", where=group.where, expected="images")
    images, rest = _intact(stored, ("<f4", "|u1"))
    if images.dtype == np.uint8:
        images = decode_table(rest.attribute("scale", "real"), rest.attribute("offset", "real"))[images]
    rest.done()
    labels = fields.array("labels", LABEL_TYPES)
    fields.done()
    samples = checked_samples(Samples(images, labels), network, group.where)
    for array in (samples.images, samples.labels):
        if array is not None:
            array.setflags(write=False)
    return samples
