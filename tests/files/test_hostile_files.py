"""Files from strangers: each one loads, or is refused with one `WeightsError` that says where."""

import contextlib
import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

from evsnn.errors import EvsnnError, WeightsError
from evsnn.files import gate, weights
from evsnn.files.hdf5 import source
from evsnn.network.layers import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, Readout
from evsnn.network.network import Network, Samples
from evsnn.network.step_parameters import StepParameters


def small_network():
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 256, (5, 1, 6, 6)) / 255).astype(np.float32)
    return Network(
        [
            Input(shape=(1, 6, 6)),
            Conv2d(weight=rng.normal(size=(4, 1, 3, 3)), bias=rng.normal(size=4), padding=1, stride=1),
            IF(v_threshold=rng.uniform(0.5, 1, 4)),
            AvgPool2d(2),
            Conv2d(weight=rng.normal(size=(4, 2, 1, 1)), groups=2),
            IF(v_init=0.1),
            Flatten(),
            Linear(weight=rng.normal(size=(3, 36))),
            Readout(),
        ],
        classes=("zero", "one", "two"),
        metadata={"accuracy": 0.5, "note": "a\nb"},
        input_range=(0, 1),
        samples=Samples(images, np.array([0, 1, 2, 0, 1])),
        step_parameters={
            4: {
                "if1": StepParameters(v_threshold=rng.uniform(0.5, 1, 4), negative_threshold=1.5),
                "conv2d1": StepParameters(bias=rng.normal(size=4)),
            },
            16: {"if2": StepParameters(v_init=0.2)},
        },
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.h5"
    weights.save(path, small_network(), compress=True)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, good):
    file = tmp_path / "weights.h5"
    file.write_bytes(good)
    return file


def refused(path, match, **options):
    with pytest.raises(WeightsError, match=match) as caught:
        weights.load(path, **options)
    message = str(caught.value)
    assert os.fspath(path) in message and "\n" not in message and len(message) < 1000
    return message


def digest(array):
    array = np.ascontiguousarray(array)
    return np.bytes_(hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest())


def put(f, name, array, **options):
    """Replace a dataset, with a digest that is right."""
    if name in f:
        del f[name]
    dataset = f.create_dataset(name, data=array, **options)
    dataset.attrs["sha256"] = digest(dataset[()])
    return dataset


CONV, CONV2, RELU, LINEAR, POOL = (
    "/layers/001_conv2d",
    "/layers/004_conv2d",
    "/layers/002_if",
    "/layers/007_linear",
    "/layers/003_avgpool2d",
)
WEIGHT = f"{CONV}/weight"
TABLES, TABLE, TUNED, TUNED_CONV = (
    "/step_parameters",
    "/step_parameters/00004",
    "/step_parameters/00004/002_if",
    "/step_parameters/00004/001_conv2d",
)


# The file itself


def test_the_good_file_is_good(path):
    assert weights.load(path).n_classes == 3


def test_missing(tmp_path):
    refused(tmp_path / "none.h5", "cannot be opened: got No such file")


def test_folder(tmp_path):
    refused(tmp_path, "this is a folder")


def test_fifo(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")


def test_fifo_that_takes_the_place_of_a_file(path, monkeypatch):
    """Between looking and opening: opening must not wait for a writer."""
    status = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(gate.os, "stat", lambda name: status)
    refused(path, "not a regular file")


def test_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s")
        refused("s", "not a regular file")


def test_device():
    refused("/dev/zero", "not a regular file")


def test_without_permission(path, monkeypatch):
    def no(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(gate, "_open_without_waiting", no)
    refused(path, "cannot be opened: got Permission denied")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(path):
    path.chmod(0)
    refused(path, "cannot be opened: got Permission denied")


@pytest.mark.parametrize("name", [3, None, ["a"], 1.5])
def test_not_a_path(name):
    with pytest.raises(WeightsError, match="a path is expected: got"):
        weights.load(name)


def test_nul_in_the_path(tmp_path):
    with pytest.raises(WeightsError, match="cannot be opened: got embedded null"):
        weights.load(f"{tmp_path}/a\0b")


def test_control_characters_in_the_path(tmp_path):
    with pytest.raises(WeightsError) as caught:
        weights.load(tmp_path / "a\x1b[31m\nb")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "the file is empty"),
        (b"evsnn = 1\n" * 20, "not an HDF5 file"),
        (b"\x89HDF\r\n\x1a", "not an HDF5 file"),
        (b"\x89HDF\n\x1a\n" + bytes(99), "not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "damaged"),
        (b"\x89HDF\r\n\x1a\n\x09" + bytes(99), "unknown version"),
        (bytes(4096), "not an HDF5 file"),
    ],
)
def test_other_content(tmp_path, content, match):
    (tmp_path / "f.h5").write_bytes(content)
    refused(tmp_path / "f.h5", match)


def test_truncated(path, good):
    for n in sorted({1, 8, 47, 48, 95, 96, 97, *range(100, len(good), len(good) // 40), len(good) - 1}):
        path.write_bytes(good[:n])
        refused(path, "cut short|not an HDF5|damaged")


def test_more_behind_its_end(path, good):
    path.write_bytes(good + b"\0")
    refused(path, "goes on behind its end")


def test_file_too_large(path, good):
    refused(path, "too large: got .* expected at most 1000", max_bytes=1000)
    assert weights.load(path, max_bytes=len(good))


def test_sparse_giant(tmp_path):
    with open(tmp_path / "f.h5", "wb") as f:
        f.truncate(1 << 42)
    refused(tmp_path / "f.h5", "too large")


def test_chunks_are_counted_whole(path, monkeypatch):
    """A value in a chunk of a megabyte takes a megabyte to inflate, however many such there are."""
    with h5py.File(path, "r+") as f:
        for i in range(4):
            name = f"{CONV}/bias{i}"
            put(f, name, np.ones(1, "<f4"), chunks=(1 << 18,), maxshape=(None,), compression="gzip")
    monkeypatch.setattr(gate, "_decoded", None)
    refused(path, "the file holds too much: got .* bytes up to here once decoded", max_bytes=3 << 20)


def test_a_small_file_may_not_hold_much(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "FREE_BYTES", 1000)
    network = Network([Input((1000,)), Linear(np.ones((1000, 1000))), Readout()])
    weights.save(tmp_path / "f.h5", network, compress=True)
    size = os.path.getsize(tmp_path / "f.h5")
    assert 256 * size < 4_000_000
    monkeypatch.setattr(gate, "_decoded", None)
    refused(tmp_path / "f.h5", f"holds too much: .* expected at most {1000 + 256 * size}. If you trust it")
    monkeypatch.undo()
    monkeypatch.setattr(gate, "FREE_BYTES", 1000)
    assert weights.load(tmp_path / "f.h5", max_bytes=gate.MAX_BYTES + 1)


def test_step_parameters_are_checked_for_the_layers_that_they_name(monkeypatch):
    """Not for all layers at each T: that grows with the product of both."""
    layers = [layer for _ in range(50) for layer in (Linear([[1.0]]), IF())]
    names = []
    fitted = Network._fitted
    monkeypatch.setattr(
        Network,
        "_fitted",
        lambda self, given, layer, *a: names.append(layer.name) or fitted(self, given, layer, *a),
    )
    tables = {T: {"if50": StepParameters(v_init=0.5), "if1": StepParameters(v_init=0.1)} for T in (1, 2, 3)}
    network = Network([Input((1,)), *layers, Linear([[1.0]]), Readout()], step_parameters=tables)
    assert names == ["if1", "if50"] * 3
    assert list(network.step_parameters[2]) == ["if1", "if50"]


@pytest.mark.parametrize(
    "options", [{"userblock_size": 512}, {"fs_strategy": "page"}, {"fs_strategy": "fsm", "fs_persist": True}]
)
@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_features_without_need(tmp_path, options, libver):
    with h5py.File(tmp_path / "f.h5", "w", libver=libver, **options) as f:
        f.attrs["format"] = np.bytes_("evsnn")
    refused(tmp_path / "f.h5", "not an HDF5 file|features of HDF5")


def test_a_part_of_a_family(tmp_path):
    with h5py.File(tmp_path / "f%d.h5", "w", driver="family", memb_size=1 << 20) as f:
        f.attrs["format"] = np.bytes_("evsnn")
    refused(tmp_path / "f0.h5", "features of HDF5")


def test_a_dataset_for_a_root(path):
    with h5py.File(path) as f:
        address = h5py.h5o.get_info(f[WEIGHT].id).addr
    data = bytearray(path.read_bytes())
    data[36:44] = struct.pack("<Q", address)
    data[44:48] = struct.pack("<I", source.checksum(bytes(data[:44])))
    path.write_bytes(data)
    refused(path, "not an evsnn weights file")
    with (
        gate.open_file(path) as file,
        pytest.raises(WeightsError, match="the root is not a group: got a dataset"),
    ):
        file.tree()


# Versions


@pytest.mark.parametrize(
    "name, value, match",
    [
        ("format", "keras", "not an evsnn weights file"),
        ("format", None, "not an evsnn weights file"),
        ("format", 1, "not an evsnn weights file"),
        (
            "format_version",
            "1.1",
            "written by a newer evsnn: got format 1.1, expected at most 1.0. Upgrade evsnn",
        ),
        ("format_version", "2.0", "newer evsnn"),
        ("format_version", "0.9", "no such version"),
        ("format_version", "1", "not a version"),
        ("format_version", "1.0\n", "not a version"),
        ("format_version", "one", "not a version"),
        ("format_version", None, "not a version"),
        ("format_version", 1.0, "not a version"),
    ],
)
def test_version(path, name, value, match):
    with h5py.File(path, "r+") as f:
        del f.attrs[name]
        if value is not None:
            f.attrs[name] = np.bytes_(value) if isinstance(value, str) else value
    refused(path, match)


def test_someone_elses_file(tmp_path):
    """What it is comes before what is wrong with it."""
    with h5py.File(tmp_path / "model.h5", "w") as f:
        f.attrs["keras_version"] = "of variable length"
        f["weights"] = h5py.ExternalLink("other.h5", "/")
    refused(tmp_path / "model.h5", "this is a Keras model, not a weights file")


def test_a_newer_file_is_called_newer_whatever_is_in_it(path):
    with h5py.File(path, "r+") as f:
        f.attrs["format_version"] = np.bytes_("1.7")
        f["layers/001_conv2d/of_the_future"] = h5py.SoftLink("/layers")
    refused(path, "newer evsnn")


# What the file holds

EDITS = {}


def edit(match, inside=None, **options):
    """Register a way to spoil a good file, and what is said about it."""

    def register(function):
        EDITS[function.__name__.strip("_")] = (function, match, inside, options)
        return function

    return register


@edit("links are not followed: got a link to another file", "/layers/001_conv2d")
def _external_link(f):
    f[f"{CONV}/extra"] = h5py.ExternalLink("other.h5", "/secret")


@edit("links are not followed: got a soft link named 'weight'", "/layers/001_conv2d")
def _soft_link(f):
    f.move(WEIGHT, f"{CONV}/other")
    f[WEIGHT] = h5py.SoftLink(f"{CONV}/other")


@edit("links are not followed: got a soft link")
def _dangling_link(f):
    f["samples/labels2"] = h5py.SoftLink("/nowhere")


@edit("reached by two paths", "/layers/loop")
def _loop_to_the_root(f):
    f["layers/loop"] = f["/"]


@edit("reached by two paths")
def _loop_to_the_parent(f):
    f[f"{CONV}/up"] = f["layers"]


@edit("reached by two paths")
def _one_dataset_twice(f):
    del f[f"{CONV2}/weight"]
    f[f"{CONV2}/weight"] = f[WEIGHT]


@edit("nested too deep")
def _deep(f):
    f.create_group("metadata/a/b/c/d/e/f")


@edit("name of an object is not usable", "/layers")
def _odd_name(f):
    f.create_group("layers/a b\x1b[1m")


@edit("a link or attribute is too large", ":/layers")
def _long_name(f):
    f.create_group("layers/" + "a" * 70_000)


@edit("unknown object: got notes", ":/")
def _unknown_group(f):
    f.create_group("notes")


@edit("neither a group nor a dataset: got a named datatype", f"{CONV}/type")
def _named_datatype(f):
    f[f"{CONV}/type"] = np.dtype("<f4")


@edit("a named datatype is not followed", WEIGHT)
def _dataset_of_a_named_datatype(f):
    del f[WEIGHT]
    f["type"] = np.dtype("<f4")
    f.create_dataset(WEIGHT, (4, 1, 3, 3), dtype=f["type"])
    del f["type"]


@edit("attribute 'groups': a named datatype is not followed", CONV)
def _attribute_of_a_named_datatype(f):
    f["type"] = np.dtype("<i8")
    f[CONV].attrs.create("groups", 1, dtype=f["type"])
    del f["type"]


@edit("of the wrong kind: expected a group", ":/layers")
def _dataset_for_a_group(f):
    del f["layers"]
    put(f, "layers", np.ones(3, "<f4"))


@edit("of the wrong kind", f"{CONV}/bias")
def _group_for_a_dataset(f):
    del f[f"{CONV}/bias"]
    f.create_group(f"{CONV}/bias")


# Where data lies


@edit("a virtual dataset is not followed", WEIGHT)
def _virtual(f):
    layout = h5py.VirtualLayout((4, 1, 3, 3), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 1, 3, 3))
    del f[WEIGHT]
    f.create_virtual_dataset(WEIGHT, layout)


@edit("data in another file is not followed", WEIGHT)
def _external_storage(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (4, 1, 3, 3), "<f4", external=[("other.bin", 0, 144)])


@edit("holds too much: got shape .* expected at most", WEIGHT)
def _four_tebibytes_in_chunks(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (1 << 20, 1 << 20), "<f4", chunks=(1024, 1024))


@edit("holds too much", WEIGHT)
def _four_tebibytes_in_one_piece(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (1 << 20, 1 << 20), "<f4")


@edit("holds too much", WEIGHT)
def _two_to_the_63(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (1 << 31, 1 << 31, 1 << 1), "|i1", chunks=(1, 1024, 2))


@edit("holds too much", None, max_bytes=1 << 20)
def _gzip_bomb(f):
    put(f, WEIGHT, np.zeros((2, 1, 1024, 256), "<f4"), compression="gzip", chunks=(1, 1, 1024, 256))


@edit("holds too much", None, max_bytes=1 << 20)
def _bomb_of_many_small_ones(f):
    for i in range(20):
        put(f, f"metadata/d{i}", np.zeros(20_000, "<f4"), compression="gzip")


@edit("inflates to more than it should", WEIGHT)
def _chunk_that_inflates_too_far(f):
    del f[WEIGHT]
    dataset = f.create_dataset(WEIGHT, (4, 1, 3, 3), "<f4", chunks=(4, 1, 3, 3), compression="gzip")
    dataset.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(64 << 20)))
    dataset.attrs["sha256"] = digest(np.zeros(36, "<f4"))


@edit("a chunk has the wrong size", WEIGHT)
def _chunk_that_is_short(f):
    del f[WEIGHT]
    dataset = f.create_dataset(WEIGHT, (4, 1, 3, 3), "<f4", chunks=(4, 1, 3, 3), compression="gzip")
    dataset.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(140)))
    dataset.attrs["sha256"] = digest(np.zeros(36, "<f4"))


@edit("cannot be inflated", WEIGHT)
def _chunk_of_rubbish(f):
    del f[WEIGHT]
    dataset = f.create_dataset(WEIGHT, (4, 1, 3, 3), "<f4", chunks=(4, 1, 3, 3), compression="gzip")
    dataset.id.write_direct_chunk((0, 0, 0, 0), b"rubbish")
    dataset.attrs["sha256"] = digest(np.zeros(36, "<f4"))


@edit("smaller than it can be", WEIGHT)
def _chunk_smaller_than_possible(f):
    del f[WEIGHT]
    dataset = f.create_dataset(WEIGHT, (1024, 1024), "<f4", chunks=(1024, 1024), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), zlib.compress(b""))


@edit("chunks of the dataset are missing", WEIGHT)
def _no_chunks(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (4, 1, 3, 3), "<f4", chunks=(1, 1, 3, 3))


@edit("chunks of the dataset are missing", WEIGHT)
def _few_chunks(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (4, 1, 3, 3), "<f4", chunks=(1, 1, 3, 3))[1] = 1


@edit("the file holds too much", WEIGHT)
def _huge_chunk(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (1 << 28,), "<f4", chunks=(1 << 28,), compression="gzip")


@edit("too many chunks: got 1000000", WEIGHT)
def _tiny_chunks(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (1_000_000,), "<f4", chunks=(1,))


@edit("the data was never written", WEIGHT)
def _never_written(f):
    del f[WEIGHT]
    f.create_dataset(WEIGHT, (4, 1, 3, 3), "<f4")


@edit("filter is not allowed: got lzf", WEIGHT)
def _lzf(f):
    put(f, WEIGHT, np.ones((4, 1, 3, 3), "<f4"), compression="lzf")


@edit("filter is not allowed: got scaleoffset", f"{CONV}/weight")
def _scaleoffset(f):
    put(f, WEIGHT, np.ones((4, 1, 3, 3), "<i1"), scaleoffset=3)


@edit("filter is not allowed: got gzip twice", WEIGHT)
def _gzip_twice(f):
    del f[WEIGHT]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4, 1, 3, 3))
    properties.set_deflate(4)
    properties.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (4,))
    h5py.h5d.create(
        f.id, WEIGHT.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4, 1, 3, 3)), properties
    )


# Shapes and types


@edit("it has no shape", WEIGHT)
def _null_space(f):
    del f[WEIGHT]
    f[WEIGHT] = h5py.Empty("<f4")


TYPES = {
    "vlen_string": (h5py.string_dtype(), "variable-length string"),
    "vlen": (h5py.vlen_dtype("<f4"), "variable-length"),
    "boolean": (np.dtype(bool), "enumeration or boolean"),
    "enumeration": (h5py.enum_dtype({"A": 1}, "<i4"), "enumeration"),
    "compound": (np.dtype([("a", "<f4"), ("b", "<i4")]), "compound"),
    "opaque": (np.dtype("V8"), "opaque"),
    "reference": (h5py.ref_dtype, "reference"),
    "region": (h5py.regionref_dtype, "reference"),
    "complex": (np.dtype("<c8"), "compound|complex"),
    "array": (np.dtype(("<f4", (2,))), "array"),
    "long_double": (np.dtype(np.longdouble), "float in an unusual format"),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("place", ["dataset", "attribute"])
def test_type(path, kind, place):
    dtype, word = TYPES[kind]
    with h5py.File(path, "r+") as f:
        if place == "dataset":
            del f[WEIGHT]
            f.create_dataset(WEIGHT, (2,), dtype)
        else:
            h5py.h5a.create(
                f[CONV].id, b"strange", h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple((2,))
            )
    message = refused(path, f"the type is not allowed: got .*({word})")
    assert f"{path}:{WEIGHT if place == 'dataset' else CONV}: " in message


@edit("too many attributes", CONV)
def _many_attributes(f):
    for i in range(600):
        f[CONV].attrs[f"a{i}"] = i


@edit("its sha256 differs", WEIGHT)
def _changed_value(f):
    f[WEIGHT][0, 0, 0, 0] += 1


# Networks that cannot be


@edit("a dataset is missing: expected v_threshold", RELU)
def _no_threshold(f):
    del f[f"{RELU}/v_threshold"]


@edit("a dataset is missing: expected weight", LINEAR)
def _no_weight(f):
    del f[f"{LINEAR}/weight"]


@edit("unknown kind of layer: got 'dropout'", "/layers/003_dropout")
def _unknown_kind(f):
    f.move(POOL, "/layers/003_dropout")
    f["/layers/003_dropout"].attrs["kind"] = np.bytes_("dropout")


@edit("a layer's number is missing", ":/layers")
def _gap(f):
    f.move(POOL, "/layers/099_avgpool2d")


@edit("two layers have one number", ":/layers")
def _one_number_twice(f):
    f.copy(POOL, "/layers/0003_avgpool2d")


@edit("a layer's group has no number", ":/layers")
def _no_number(f):
    f.move(POOL, "/layers/pool")


@edit("an input and a readout")
def _no_layers_in_the_group(f):
    del f["layers"]
    f.create_group("layers")


@edit("the file has no layers")
def _no_layers(f):
    del f["layers"]


@edit("starts with an input")
def _no_input(f):
    for i, name in enumerate(sorted(f["layers"])[1:]):
        f.move(f"layers/{name}", f"layers/{i + 100}_{name[4:]}")
    del f["layers/000_input"]
    for i, name in enumerate(sorted(f["layers"])):
        f.move(f"layers/{name}", f"layers/{i:03d}_{name[4:]}")


# int8


@edit("an int8 weight has no scale", CONV)
def _no_scale(f):
    put(f, WEIGHT, np.ones((4, 1, 3, 3), "|i1"))


@edit("weight_scale and weight do not fit", CONV)
def _scales_of_another_number(f):
    put(f, WEIGHT, np.ones((4, 1, 3, 3), "|i1"))
    put(f, f"{CONV}/weight_scale", np.ones(3, "<f4"))


@edit("weight_scale is not positive", CONV)
def _zero_scale(f):
    put(f, WEIGHT, np.ones((4, 1, 3, 3), "|i1"))
    put(f, f"{CONV}/weight_scale", np.zeros(4, "<f4"))


@edit("weight_scale is not positive", CONV)
def _nan_scale(f):
    put(f, WEIGHT, np.ones((4, 1, 3, 3), "|i1"))
    put(f, f"{CONV}/weight_scale", np.full(4, np.nan, "<f4"))


@edit("weight holds NaN or infinity", CONV)
def _scale_that_overflows(f):
    put(f, WEIGHT, np.full((4, 1, 3, 3), 100, "|i1"))
    put(f, f"{CONV}/weight_scale", np.full(4, 3e38, "<f4"))


# Samples, classes, metadata


@edit("a dataset is missing: expected images", ":/samples")
def _labels_alone(f):
    del f["samples/images"]


@edit("unknown object: got more", ":/metadata")
def _metadata_in_a_group(f):
    f.create_group("metadata/more")


# Tables


@edit("the object is of the wrong kind: expected a group", TABLES)
def _tables_are_an_array(f):
    del f[TABLES]
    put(f, TABLES, np.ones(4, "<f4"))


@edit("the object is of the wrong kind: expected a group", TABLE)
def _a_table_is_an_array(f):
    del f[TABLE]
    put(f, TABLE, np.ones(4, "<f4"))


@edit("the object is of the wrong kind: expected a group", TUNED)
def _a_tuning_is_an_array(f):
    del f[TUNED]
    put(f, TUNED, np.ones(4, "<f4"))


@edit("groups are nested too deep", f"{TUNED}/v_threshold")
def _tuned_thresholds_are_a_group(f):
    del f[f"{TUNED}/v_threshold"]
    f.create_group(f"{TUNED}/v_threshold")


@edit("the object is reached by two paths", TABLES)
def _one_table_for_two(f):
    f["/step_parameters/00008"] = f[TABLE]


@edit("the object is reached by two paths", TUNED)
def _thresholds_of_the_layer(f):
    del f[f"{TUNED}/v_threshold"]
    f[f"{TUNED}/v_threshold"] = f[f"{RELU}/v_threshold"]


@edit("links are not followed", TABLES)
def _a_table_by_a_soft_link(f):
    f["/step_parameters/00008"] = h5py.SoftLink(TABLE)


@edit("holds too much", f"{TUNED_CONV}/bias", max_bytes=1 << 20)
def _bomb_in_a_table(f):
    put(f, f"{TUNED_CONV}/bias", np.zeros(1 << 20, "<f4"), compression="gzip")


@edit("bias and weight do not fit: got 262144 biases, expected 4", TUNED_CONV)
def _large_bias_in_a_table(f):
    put(f, f"{TUNED_CONV}/bias", np.zeros(1 << 18, "<f4"), compression="gzip")


@edit("the file holds too much metadata", TABLES)
def _tables_without_end(f):
    for i in range(13_000):
        f.create_group(f"step_parameters/{i + 20:05d}/002_if")


@pytest.mark.parametrize(
    "name",
    ["4", "004", "000004", "T0004", "0004a", "00000", "65537", "99999", "-0004", "+0004", "0x004", "00_04"],
)
def test_a_table_of_no_number_of_steps(path, name):
    with h5py.File(path, "r+") as f:
        f.move(TABLE, f"{TABLES}/{name}")
    match = (
        "the name of an object is not usable"
        if name[0] == "+"
        else "the name of a group of step parameters is not a number of steps:"
        f" got {name}, expected 00001 to 65536"
    )
    assert refused(path, match).startswith(f"{path}:{TABLES}: ")


@pytest.mark.parametrize(
    "name",
    [
        "2_if",
        "02_if",
        "0002_if",
        "005_IF",
        "002_conv2d",
        "009_if",
        "000_input",
        "003_avgpool2d",
        "006_flatten",
        "008_readout",
        "if1",
    ],
)
def test_a_table_of_no_layer(path, name):
    with h5py.File(path, "r+") as f:
        f.move(TUNED, f"{TABLE}/{name}")
    assert refused(
        path,
        f"the step parameters name no layer that takes them: got {name}, expected .* conv2d, if, linear",
    ).startswith(f"{path}:{TABLE}: ")


def test_two_tables_of_one_number(path):
    """Two links of one name, under a checksum that is right."""
    data = path.read_bytes()
    with h5py.File(path) as f:
        address = h5py.h5o.get_info(f[TABLES].id).addr
    assert (
        data[address : address + 6] == b"OHDR\x02\x10"
    )  # a size of one byte, after 4 that say when attributes move
    header = data[address : address + 11 + data[address + 10]]
    assert header.count(b"00016") == header.count(b"00004") == 1
    header = header.replace(b"00016", b"00004")
    path.write_bytes(
        data[:address]
        + header
        + struct.pack("<I", source.checksum(header))
        + data[address + len(header) + 4 :]
    )
    assert refused(path, "two objects have one name: got 00004").startswith(f"{path}:{TABLES}: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EDITS))
def test_edit(path, name, capfd):
    function, match, inside, options = EDITS[name]
    with h5py.File(path, "r+") as f:
        function(f)
    message = refused(path, match, **options)
    if inside:
        assert inside in message.removeprefix(str(path))
    with contextlib.suppress(WeightsError):
        weights.verify(path, **options)
    assert capfd.readouterr() == ("", "")


# Attributes

ATTRIBUTES = [
    (CONV, "paddding", 1, "unknown attribute: got paddding"),
    (WEIGHT, "unit", 1, "unknown attribute: got unit"),
    ("/", "author", 1, "unknown attribute: got author"),
    ("/", "n_steps", None, "an attribute is missing: expected n_steps"),
    (CONV, "kind", None, "an attribute is missing: expected kind"),
    (CONV, "name", "conv", "attribute 'name': the type is not allowed: got variable-length string"),
    (CONV, "name", np.bytes_(b"\xfc"), "a text is not UTF-8"),
    (CONV, "name", np.bytes_(b"a" * 1_000_000), "a link or attribute is too large"),
    (CONV, "name", np.bytes_("a b"), "name is not usable"),
    (
        CONV,
        "kind",
        np.bytes_("flatten"),
        "unknown kind of layer: got 'flatten', expected the one in the group's name",
    ),
    (CONV, "stride", np.ones((2, 2), int), "attribute 'stride': it is too large"),
    (CONV, "stride", np.ones(4000, int), "stride is not usable"),
    (CONV, "stride", h5py.Empty("<i8"), "attribute 'stride': it has no shape"),
    (
        CONV,
        "stride",
        [1.0, 1.5],
        "attribute stride has the wrong type: got .1.0, 1.5., expected a list of integers",
    ),
    (CONV, "stride", [0, 1], "stride is not usable: got .0, 1., expected 2 integers from 1 to 16777215"),
    (CONV, "padding", [-1, 0, 0, 0], "padding is not usable"),
    (CONV, "dilation", [1 << 40, 1], "dilation is not usable"),
    (CONV, "groups", np.bytes_("1"), "attribute groups has the wrong type"),
    (CONV2, "groups", 3, "groups do not divide"),
    (CONV, "inputs", np.array([b"nobody"]), "not an earlier layer: got 'nobody'"),
    (CONV, "inputs", np.array([b"conv2d1"]), "not an earlier layer: got 'conv2d1', itself"),
    (CONV2, "name", np.bytes_("conv2d1"), "two layers have one name"),
    (RELU, "shift", 2, "attribute shift has the wrong type: got 2, expected 0 or 1"),
    (RELU, "leak", 1.5, "leak is out of range"),
    (RELU, "warm_up_steps", 65_537, "warm_up_steps is out of range: got 65537, expected 0"),
    (RELU, "warm_up_steps", -1, "warm_up_steps is not usable"),
    (RELU, "warm_up_steps", 1.0, "attribute warm_up_steps has the wrong type: got 1.0, expected an integer"),
    ("", "n_steps", 0, "n_steps is out of range: got 0, expected an integer from 1 to 65536"),
    ("", "n_steps", 10**9, "n_steps is out of range: got 1000000000"),
    ("", "shift", np.bytes_("left"), "unknown shift: got 'left', expected bias or initial or none"),
    ("", "readout", np.bytes_("loud"), "unknown readout"),
    ("", "input_range", [0, np.nan], "input_range is not a range"),
    ("/", "input_range", [0, 1, 2], "input_range is not a range: got 3 values"),
    (CONV, "/input_shape", [2, 6, 6], "weight and input do not fit"),
    ("/layers/000_input", "/input_shape", [1, 0, 6], "shape is not usable"),
    ("/layers/000_input", "/input_shape", [6, 6], "a map or a vector"),
    ("/layers/000_input", "/input_shape", [1, 1 << 23, 1 << 23], "the layer is too large"),
    (WEIGHT, "sha256", None, "has no usable sha256: got None"),
    (WEIGHT, "sha256", np.bytes_("ab" * 31), "has no usable sha256: got 'abab"),
    (WEIGHT, "sha256", 1, "has no usable sha256: got 1"),
    (WEIGHT, "sha256", np.bytes_("ab" * 32), "its sha256 differs"),
    (TABLES, "n", 2, "unknown attribute: got n"),
    (TABLE, "n_steps", 4, "unknown attribute: got n_steps"),
    (TUNED, "kind", np.bytes_("if"), "unknown attribute: got kind"),
    (TUNED, "leak", 0.5, "unknown attribute: got leak"),
    (TUNED_CONV, "negative_threshold", 1.0, "unknown attribute: got negative_threshold"),
    (
        TUNED,
        "negative_threshold",
        np.bytes_("1"),
        "attribute negative_threshold has the wrong type: got '1', expected a number",
    ),
    (TUNED, "negative_threshold", [1.0], "attribute negative_threshold has the wrong type"),
    (TUNED, "warm_up_steps", 1.5, "attribute warm_up_steps has the wrong type"),
    (
        f"{TUNED} (the step parameters of T = 4, layer 'if1')",
        f"{TUNED}/warm_up_steps",
        -1,
        "warm_up_steps is not usable",
    ),
    (
        f"{TUNED} (the step parameters of T = 4, layer 'if1')",
        f"{TUNED}/negative_threshold",
        -1.0,
        "negative_threshold is out of range: got -1.0, expected 0",
    ),
    (
        f"{TUNED} (the step parameters of T = 4, layer 'if1')",
        f"{TUNED}/negative_threshold",
        np.nan,
        "negative_threshold is out of range",
    ),
    (f"{TUNED}/v_threshold", "sha256", None, "has no usable sha256: got None"),
    (f"{TUNED}/v_threshold", "sha256", np.bytes_("ab" * 32), "its sha256 differs"),
    ("/samples", "/samples/images/offset", 1e300, "images hold NaN or infinity"),
    ("/samples/images", "scale", None, "an attribute is missing: expected scale"),
    ("/metadata", "list", [1, 2], "attribute list has the wrong type"),
    ("/metadata", "bell", np.bytes_("\x07"), "metadata 'bell' is not usable"),
]


@pytest.mark.parametrize("where, name, value, match", ATTRIBUTES)
def test_attribute(path, where, name, value, match):
    """An attribute changed or removed; the message has to name its object, unless its path says another."""
    with h5py.File(path, "r+") as f:
        owner, slash, name = name.rpartition("/")
        owner = f[(owner if slash else where) or "/"]
        if value is None:
            del owner.attrs[name]
        else:
            owner.attrs[name] = value
    assert refused(path, match).startswith(f"{path}:{where}".rstrip(":") if where else f"{path}: ")


# Arrays

NAN, INF = np.float32("nan"), np.float32("inf")
ARRAYS = [
    (WEIGHT, np.ones((1,) * 6, "<f4"), WEIGHT, "it has too many dimensions: got 6"),
    (WEIGHT, np.ones((4, 1, 3, 3, 1), "<f4"), CONV, "weight has the wrong rank: got shape .* expected 4"),
    (WEIGHT, np.ones((0, 1, 3, 3), "<f4"), WEIGHT, "it is empty: got shape"),
    *[
        (
            WEIGHT,
            np.ones((4, 1, 3, 3)).astype(t),
            WEIGHT,
            "dataset has the wrong type: .* expected float32 or float16 or int8",
        )
        for t in ("<f8", "<i4", "<u1", "<i8", "S4")
    ],
    (WEIGHT, np.full((4, 1, 3, 3), NAN), CONV, "weight holds NaN or infinity"),
    (WEIGHT, np.full((4, 1, 3, 3), INF, "<f2"), CONV, "weight holds NaN or infinity"),
    (f"{CONV}/bias", np.full(4, -INF), CONV, "bias holds NaN or infinity"),
    (f"{CONV}/bias", np.ones(5, "<f4"), CONV, "bias and weight do not fit"),
    (f"{CONV}/gamma", np.ones(4, "<f4"), CONV, "unknown object: got gamma"),
    (f"{CONV}/weight_scale", np.ones(4, "<f4"), CONV, "unknown object: got weight_scale"),
    (
        f"{RELU}/v_threshold",
        np.array([1, 0, 1, 1], "<f4"),
        RELU,
        "v_threshold is not positive: got minimum 0.0",
    ),
    (f"{RELU}/v_threshold", np.float32(-1), RELU, "v_threshold is not positive"),
    (f"{RELU}/v_threshold", NAN, RELU, "v_threshold holds NaN"),
    (f"{RELU}/v_threshold", np.ones(5, "<f4"), f"{RELU} (layer 'if1')", "v_threshold and input do not fit"),
    (
        f"{TUNED}/v_threshold",
        np.array([1, 0, 1, 1], "<f4"),
        f"{TUNED} (the step parameters of T = 4, layer 'if1')",
        "v_threshold is not positive: got minimum 0.0",
    ),
    (
        f"{TUNED}/v_threshold",
        np.ones(5, "<f4"),
        f"{TUNED} (the step parameters of T = 4, layer 'if1')",
        "v_threshold and input do not fit: got 5 values",
    ),
    (
        f"{TUNED}/v_threshold",
        np.ones((4, 1), "<f4"),
        f"{TUNED} (the step parameters of T = 4, layer 'if1')",
        "v_threshold is for pairs of neurons: got shape .4, 1., but no negative_slope",
    ),
    (
        f"{TUNED}/v_threshold",
        np.ones(4, "<f8"),
        f"{TUNED}/v_threshold",
        "dataset has the wrong type: got float64, expected float32",
    ),
    (
        f"{TUNED}/v_threshold",
        np.ones(4, "<f2"),
        f"{TUNED}/v_threshold",
        "dataset has the wrong type: got float16, expected float32",
    ),
    (f"{TUNED}/v_init", NAN, f"{TUNED} (the step parameters of T = 4, layer 'if1')", "v_init holds NaN"),
    (f"{TUNED}/bias", np.ones(4, "<f4"), TUNED, "unknown object: got bias"),
    (f"{TUNED_CONV}/weight", np.ones((4, 1, 3, 3), "<f4"), TUNED_CONV, "unknown object: got weight"),
    (
        f"{TUNED_CONV}/bias",
        np.full(4, INF),
        f"{TUNED_CONV} (the step parameters of T = 4, layer 'conv2d1')",
        "bias holds NaN or infinity",
    ),
    (
        f"{TUNED_CONV}/bias",
        np.float32(1),
        f"{TUNED_CONV} (the step parameters of T = 4, layer 'conv2d1')",
        "bias has the wrong rank",
    ),
    (
        f"{LINEAR}/weight",
        np.ones((3, 35), "<f4"),
        f"{LINEAR} (layer 'linear1')",
        "weight and input do not fit: got 36 features",
    ),
    (
        "/samples/images",
        np.zeros((5, 1, 6, 7), "<f4"),
        "/samples",
        "images do not fit the network: got shape",
    ),
    ("/samples/images", np.full((5, 1, 6, 6), NAN), "/samples", "images hold NaN"),
    (
        "/samples/images",
        np.zeros((5, 1, 6, 6), "|u1"),
        "/samples/images",
        "an attribute is missing: expected scale",
    ),
    ("/samples/labels", np.zeros(4, "<i8"), "/samples", "labels and images do not fit"),
    (
        "/samples/labels",
        np.array([0, 1, 2, 3, 0], "<i8"),
        "/samples",
        "a label is not a class: got 0 to 3, expected 0 to 2",
    ),
    ("/samples/labels", np.zeros(5, "<f4"), "/samples/labels", "dataset has the wrong type"),
    ("/classes", np.array([b"a", b"b"]), "", "classes and readout do not fit: got 2 names, expected 3"),
    ("/classes", np.arange(3), "/classes", "classes are not a list of strings"),
    ("/classes", np.array([b"a", b"b", b"\xfc"]), "/classes", "classes are not UTF-8"),
    ("/classes", np.array([b"a", b"b", b"\x07\x1b[31m"]), "/classes", "name of a class is not usable"),
    ("/classes", np.array([b"a" * 5000] * 3), "/classes", "strings are too long: got 5000"),
]


@pytest.mark.parametrize("name, array, where, match", ARRAYS)
def test_array(path, name, array, where, match):
    """A dataset replaced, under a digest that is right."""
    with h5py.File(path, "r+") as f:
        put(f, name, array)
    assert refused(path, match).startswith(f"{path}:{where}: " if where else f"{path}: ")


# No other file, no other library


def test_nothing_else_is_opened(path, tmp_path):
    """Links and storage point at a file; only the named file is opened, and not by HDF5's library."""
    files = []
    for name in ("external_link", "virtual", "external_storage", "soft_link"):
        spoilt = tmp_path / f"{name}.h5"
        spoilt.write_bytes(path.read_bytes())
        with h5py.File(spoilt, "r+") as f:
            EDITS[name][0](f)
        files.append(spoilt)
    (tmp_path / "other.h5").write_bytes(path.read_bytes())
    (tmp_path / "other.bin").write_bytes(bytes(144))
    script = """
import os, sys
from evsnn.files import weights
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
for name in sys.argv[1:]:
    try:
        weights.load(name)
    except weights.WeightsError:
        pass
    assert opened == [name, name], opened  # once by open, once by its opener
    opened.clear()
assert "h5py" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, [path, *files])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# Damage at random


def content(network):
    """All of a network, comparable."""
    found = [
        network.n_steps,
        network.shift,
        network.readout,
        network.input_range,
        network.classes,
        network.metadata,
        network.samples.images.tobytes(),
        network.samples.labels.tobytes(),
    ]
    found += [(T, list(table)) for T, table in network.step_parameters.items()]
    for owner in (
        *network.layers,
        *(
            step_parameters
            for table in network.step_parameters.values()
            for step_parameters in table.values()
        ),
    ):
        found += [
            (name, value.tobytes() if isinstance(value, np.ndarray) else value)
            for name, value in sorted(vars(owner).items())
        ]
    return repr(found)


def outcome(path, data):
    """The network, or None if the file is refused. Anything else fails the test."""
    path.write_bytes(data)
    try:
        return content(weights.load(path))
    except EvsnnError as error:
        assert type(error) is WeightsError and "\n" not in str(error)
        assert error.what != "the file is damaged", (
            error
        )  # what the gate says when it did not know what it met
        return None


def test_any_bit(path, good, capfd):
    """A bit that flips is refused, or it was in a gap."""
    intact = content(weights.load(path))
    rng = random.Random(1)
    refusals = 0
    for _ in range(500):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        found = outcome(path, data)
        assert found in (None, intact)
        refusals += found is None
    assert refusals > 400
    assert capfd.readouterr() == ("", "")


def test_any_bytes(path, good):
    """Runs of bytes, cut out, doubled or overwritten."""
    intact = content(weights.load(path))
    rng = random.Random(2)
    for _ in range(200):
        a, b = sorted(rng.randrange(len(good)) for _ in range(2))
        b = min(b, a + 200)
        middle = rng.choice((b"", good[a:b] * 2, bytes(b - a), b"\xff" * (b - a), rng.randbytes(b - a)))
        assert outcome(path, good[:a] + middle + good[b:]) in (None, intact)


def mutated(data, rng, spans):
    """`data` with a few numbers replaced by what programs stumble over."""
    data = bytearray(data)
    start, end = rng.choice(spans)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, n = rng.randrange(start, end), rng.choice((1, 1, 2, 4, 8))
        value = rng.choice(
            (
                0,
                1,
                2,
                3,
                8,
                255,
                1 << 16,
                1 << 31,
                (1 << 32) - 1,
                1 << 62,
                (1 << 64) - 1,
                rng.randrange(len(data)),
                rng.choice(spans)[0],
                rng.getrandbits(64),
            )
        )
        n = min(n, end - at)
        data[at : at + n] = struct.pack("<Q", value)[:n]
    return data, (start, end)


@pytest.mark.slow
def test_metadata_of_malice(path, good, monkeypatch):
    """Damage under right checksums, as an attacker writes it: no error of another kind is raised."""
    spans = []
    block = source.Source.block
    monkeypatch.setattr(
        source.Source,
        "block",
        lambda self, address, n, signature: (
            spans.append((address + len(signature), address + n - 4, address))
            or block(self, address, n, signature)
        ),
    )
    weights.load(path)
    monkeypatch.setattr(source.Source, "block", block)
    spans.append((8, 44, 0))
    starts = {start: address for start, _, address in spans}
    rng = random.Random(3)
    refusals = 0
    for _ in range(800):
        data, (start, end) = mutated(good, rng, [span[:2] for span in spans])
        data[end : end + 4] = struct.pack("<I", source.checksum(bytes(data[starts[start] : end])))
        refusals += outcome(path, data) is None
    assert refusals > 600


@pytest.mark.slow
def test_old_files_of_malice(tmp_path, path):
    """The same for h5py's default format, which has no checksums."""

    def copy(a, b):
        for key in a.attrs:
            b.attrs.create(key, a.attrs[key], dtype=a.attrs.get_id(key).dtype)
        for name, member in a.items():
            if isinstance(member, h5py.Group):
                copy(member, b.create_group(name))
            else:
                target = b.create_dataset(
                    name,
                    data=member[()],
                    compression="gzip" if member.ndim else None,
                    chunks=member.shape or None,
                )
                for key in member.attrs:
                    target.attrs.create(key, member.attrs[key], dtype=member.attrs.get_id(key).dtype)

    old = tmp_path / "old.h5"
    with h5py.File(path) as a, h5py.File(old, "w", libver="earliest") as b:
        copy(a, b)
    data = old.read_bytes()
    assert content(weights.load(old)) == content(weights.load(path))
    rng = random.Random(4)
    used = [(i, i + 64) for i in range(8, len(data) - 64, 64) if any(data[i : i + 64])]
    for _ in range(800):
        outcome(old, mutated(data, rng, used)[0])
