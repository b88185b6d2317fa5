"""Weights files: what goes in comes out, the bytes are the same, a save is all or nothing, and docs/format.md
tells the truth.
"""

import base64
import dataclasses
import hashlib
import os
import pathlib
import re
import stat
import subprocess
import sys
import threading
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest

import evsnn
from evsnn.errors import WeightsError
from evsnn.files import atomic, weights
from evsnn.files import storage as stored
from evsnn.files.schema import FIELDS, STEP_PARAMETER_FIELDS, STORAGES
from evsnn.network.layers import (
    IF,
    KINDS,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    Readout,
)
from evsnn.network.network import Network, Samples
from evsnn.network.ranges import LARGEST
from evsnn.network.step_parameters import StepParameters

ROOT = pathlib.Path(__file__).parents[2]
FORMAT = (ROOT / "docs/format.md").read_text("utf-8")


def content(network):
    """All of a network, comparable to the bit."""
    found = {
        name: getattr(network, name) for name in ("n_steps", "shift", "readout", "input_range", "classes")
    }
    found["metadata"] = dict(network.metadata)
    if network.samples is not None:
        labels = network.samples.labels
        found["samples"] = (
            network.samples.images.shape,
            network.samples.images.tobytes(),
            None if labels is None else labels.tolist(),
        )
    for layer in network.layers:
        found[layer.name] = (layer.kind, fields_of(layer))
    found["tables"] = [
        (T, [(name, fields_of(step_parameters)) for name, step_parameters in table.items()])
        for T, table in network.step_parameters.items()
    ]
    return found


def fields_of(owner):
    values = {field.name: getattr(owner, field.name) for field in dataclasses.fields(owner)}
    return {
        name: (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def every_kind(seed=0):
    """A network with every kind of layer and every field off its default somewhere."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return Network(
        [
            Input(shape=(3, 9, 8)),
            Conv2d(
                weight=normal(8, 3, 3, 2),
                bias=normal(8),
                stride=(2, 1),
                padding=(1, 0, 2, 1),
                dilation=(1, 2),
                name="first",
            ),
            IF(
                v_threshold=rng.uniform(0.5, 2, 8),
                v_init=normal(8),
                leak=0.9,
                shift=False,
                negative_threshold=0.25,
                warm_up_steps=3,
                name="a",
            ),
            AvgPool2d((2, 3), stride=(1, 2), padding=(1, 1, 0, 2)),
            Conv2d(weight=normal(8, 1, 3, 3), groups=8, padding=1),
            IF(v_threshold=0.75, v_init=0.25, name="b"),
            MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0, 1, 1), name="m"),
            Conv2d(weight=normal(8, 8, 1, 1), bias=normal(8), name="shortcut"),
            Add(inputs=("shortcut", "m")),
            IF(name="c"),
            Concat(inputs=("m", "c")),
            AvgPool2d(),
            Flatten(),
            Linear(weight=normal(5, 16), bias=normal(5)),
            Readout(name="out"),
        ],
        n_steps=7,
        shift="initial",
        input_range=(-1, 2.5),
        classes=("null", "eins", "zwölf", "", "日本"),
        metadata={
            "accuracy": 0.1 + 0.2,
            "seed": 1,
            "least": -(2**63),
            "note": "two\n\tlines é",
            "empty": "",
            "key of ü": 1e-300,
        },
        samples=Samples(normal(4, 3, 9, 8), np.array([0, 4, 2, 2])),
        step_parameters={
            32: {
                "a": StepParameters(
                    v_threshold=rng.uniform(0.5, 2, 8),
                    v_init=normal(8),
                    negative_threshold=0.75,
                    warm_up_steps=0,
                ),
                "linear1": StepParameters(bias=normal(5)),
                "conv2d1": StepParameters(bias=normal(8)),
            },
            4: {
                "b": StepParameters(v_threshold=0.5),
                "c": StepParameters(v_init=-0.5, negative_threshold=0.0),
            },
            65_536: {},
            1: {"first": StepParameters(bias=normal(8))},
        },
    )


def saved(tmp_path, network, **options):
    weights.save(tmp_path / "f.h5", network, **options)
    return weights.load(tmp_path / "f.h5")


# Round trips


@pytest.mark.parametrize("compress", [None, False, True])
def test_every_kind(tmp_path, compress):
    network = every_kind()
    assert {layer.kind for layer in network.layers} == set(KINDS)
    assert content(saved(tmp_path, network, compress=compress)) == content(network)


def test_every_field_is_stored():
    for kind, layer in KINDS.items():
        fields = (
            {field.name for field in dataclasses.fields(layer)}
            - {"name", "inputs"}
            - ({"shape"} if kind == "input" else set())
        )
        assert set(FIELDS[kind]) == fields
    assert {name for fields in STEP_PARAMETER_FIELDS.values() for name in fields} == {
        field.name for field in dataclasses.fields(StepParameters)
    }


@pytest.mark.parametrize("storage", STORAGES)
def test_tables(tmp_path, storage):
    """Groups named as T and as the layer's; what a table does not change is not stored; whatever weights are
    stored as, its numbers are float32.
    """
    network = every_kind()
    again = saved(tmp_path, network, storage=storage)
    assert content(again)["tables"] == content(network)["tables"] and list(again.step_parameters) == [
        1,
        4,
        32,
        65_536,
    ]
    assert content(saved(tmp_path, network.replace(step_parameters={})))["tables"] == []
    first = (tmp_path / "f.h5").read_bytes()
    weights.save(
        tmp_path / "f.h5",
        network.replace(
            step_parameters={
                T: dict(reversed([*table.items()]))
                for T, table in reversed([*network.step_parameters.items()])
            }
        ),
    )
    weights.save(tmp_path / "g.h5", network)
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "g.h5").read_bytes() != first
    names, numbers = [], []
    with h5py.File(tmp_path / "f.h5") as f:
        f["step_parameters"].visititems(
            lambda name, item: (numbers if isinstance(item, h5py.Dataset) else names).append(name)
        )
        assert (
            f["step_parameters/00032/002_if"].attrs["negative_threshold"] == 0.75
            and list(f["step_parameters/00004/005_if"].attrs) == []
        )
        assert all(f["step_parameters"][name].dtype == "<f4" for name in numbers)
    assert names == [
        "00001",
        "00001/001_conv2d",
        "00004",
        "00004/005_if",
        "00004/009_if",
        "00032",
        "00032/002_if",
        "00032/004_conv2d",
        "00032/013_linear",
        "65536",
    ]
    assert numbers == [
        "00001/001_conv2d/bias",
        "00004/005_if/v_threshold",
        "00004/009_if/v_init",
        "00032/002_if/v_init",
        "00032/002_if/v_threshold",
        "00032/004_conv2d/bias",
        "00032/013_linear/bias",
    ]
    assert {array.path for array in weights.verify(tmp_path / "f.h5") if "step_parameters" in array.path} == {
        f"/step_parameters/{name}" for name in numbers
    }


@pytest.mark.parametrize("encoding, shape", [("constant", (4,)), ("poisson", (4,)), ("events", (3, 4))])
def test_encodings(tmp_path, encoding, shape):
    network = Network(
        [Input(shape=4, encoding=encoding), Linear(weight=np.ones((2, 4))), IF(), Readout()],
        readout="spikes",
        shift="none",
        samples=Samples(np.ones((2, *shape), np.float32)),
    )
    again = saved(tmp_path, network)
    assert content(again) == content(network) and again.samples.labels is None and again.input_range is None


def random_network(rng):
    """Convolutions, pools, sums and concatenations in any order, then a classifier."""
    layers, shape = [Input(shape=(int(rng.integers(1, 4)), 12, 12))], None
    shape, sources = layers[0].shape, []
    for number in range(int(rng.integers(1, 6))):
        n_out, kernel = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        layers.append(
            Conv2d(
                weight=rng.normal(size=(n_out, shape[0], kernel, kernel)),
                bias=rng.normal(size=n_out) if rng.random() < 0.5 else None,
                padding=int(rng.integers(0, 2)),
            )
        )
        layers.append(
            IF(
                v_threshold=rng.uniform(0.1, 9, n_out) if rng.random() < 0.5 else rng.uniform(0.1, 9),
                leak=rng.random(),
                name=f"n{number}",
            )
        )
        sources = [f"n{number}"]
        size = shape[1] + 2 * layers[-2].padding[0] - kernel + 1
        shape = (n_out, size, size)
        if rng.random() < 0.3:
            layers.append(Concat(inputs=sources * 2))
            shape = (2 * n_out, size, size)
        if size > 4 and rng.random() < 0.4:
            layers.append(AvgPool2d(2))
            shape = (shape[0], size // 2, size // 2)
    layers += [Flatten(), Linear(weight=rng.normal(size=(3, int(np.prod(shape))))), Readout()]
    return Network(
        layers, n_steps=int(rng.integers(1, 99)), shift=str(rng.choice(["bias", "initial", "none"]))
    )


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(tmp_path, seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    assert content(saved(tmp_path, network, compress=bool(seed % 2))) == content(network)


def test_every_bit_of_float32(tmp_path):
    """Subnormal numbers and the largest too, through chunks that do not divide the array."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, (800, 1000), dtype=np.uint64).astype(np.uint32)
    weight = bits.view(np.float32)
    largest = LARGEST / 1000  # sums of 1000 weights stay in float32's range
    weight = np.where(np.abs(weight) <= largest, weight, 1).astype(np.float32)
    weight[0, :4] = [1e-45, -1e-45, largest / 2, 0]
    network = Network([Input(shape=1000), Linear(weight=weight), Readout()])
    for compress in (False, True):
        assert saved(tmp_path, network, compress=compress).layers[1].weight.tobytes() == weight.tobytes()


def test_float16(tmp_path):
    network = every_kind()
    again = saved(tmp_path, network, storage="float16")
    for a, b in zip(network.layers, again.layers):
        if hasattr(a, "weight"):
            assert np.array_equal(b.weight, a.weight.astype(np.float16).astype(np.float32))
    assert np.array_equal(again.by_name["first"].bias, network.by_name["first"].bias)
    assert content(saved(tmp_path, again, storage="float16")) == content(again)


def test_int8(tmp_path):
    """Against the file itself: integers in range, nearest, one float32 multiplication, and again the same."""
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(40, 3, 3, 3)) * 10.0 ** rng.integers(-30, 30, (40, 1, 1, 1))).astype(
        np.float32
    )
    weight[7] = 0
    weight[8] = 1e-45
    network = Network([Input(shape=(3, 3, 3)), Conv2d(weight=weight), Readout()])
    again = saved(tmp_path, network, storage="int8")
    with h5py.File(tmp_path / "f.h5") as f:
        integers, scale = (f["layers/001_conv2d"][name][()] for name in ("weight", "weight_scale"))
    assert (
        integers.dtype == np.int8 and integers.min() >= -127 and scale.dtype == np.float32 and scale[7] == 1
    )
    rows = scale.reshape(-1, 1, 1, 1)
    assert np.array_equal(again.layers[1].weight, integers.astype(np.float32) * rows)
    assert np.array_equal(
        again.layers[1].weight.astype(np.float64), integers.astype(np.float64) * rows.astype(np.float64)
    )  # exact
    assert (np.abs(again.layers[1].weight.astype(np.float64) - weight) <= rows.astype(np.float64) / 2).all()
    usual = np.abs(weight).max(axis=(1, 2, 3)) > 1e-30
    assert (np.abs(integers).max(axis=(1, 2, 3)) == 127)[usual].all()
    before = (tmp_path / "f.h5").read_bytes()
    weights.save(tmp_path / "f.h5", again, storage="int8")
    assert (tmp_path / "f.h5").read_bytes() == before


@pytest.mark.parametrize(
    "options, match",
    [
        (
            {"storage": "float16"},
            (
                "f.h5: layer 'linear1': weights do not fit float16: got up to 70000, expected at most 65504."
                " Use storage='float32'"
            ),
        ),
        ({"storage": "bfloat16"}, "unknown storage: got 'bfloat16', expected float32 or float16 or int8"),
    ],
)
def test_storage_that_does_not_fit(tmp_path, options, match):
    network = Network([Input(shape=1), Linear(weight=[[7e4]]), Readout()])
    with pytest.raises(WeightsError, match=match):
        weights.save(tmp_path / "f.h5", network, **options)
    assert not list(tmp_path.iterdir())


def test_int8_of_the_largest(tmp_path):
    network = Network([Input(shape=1), Linear(weight=[[LARGEST / 2]]), Readout()])
    again = saved(tmp_path, network, storage="int8").layers[1].weight
    assert np.allclose(again, network.layers[1].weight, rtol=1 / 254)


def test_smaller_files(tmp_path):
    rng = np.random.default_rng(0)
    network = Network([Input(shape=256), Linear(weight=rng.normal(size=(256, 256))), Readout()])
    sizes = {}
    for storage in STORAGES:
        weights.save(tmp_path / "f.h5", network, storage=storage)
        sizes[storage] = os.path.getsize(tmp_path / "f.h5")
    assert (
        sizes["float32"] > 65_536 * 4
        and 65_536 * 2 < sizes["float16"] < 65_536 * 2.2
        and sizes["int8"] < 65_536 * 1.1
    )


# Samples, classes, metadata


def with_samples(images, labels=None):
    return Network(
        [
            Input(shape=images.shape[1:]),
            Flatten(),
            Linear(weight=np.ones((3, int(np.prod(images.shape[1:]))))),
            Readout(),
        ],
        samples=Samples(images, labels),
    )


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 1, 5, 5))


@pytest.mark.parametrize(
    "images, dtype",
    [
        ((PIXELS / 255).astype(np.float32), np.uint8),
        (PIXELS.astype(np.float32), np.uint8),
        ((PIXELS / np.float32(255)).astype(np.float32), np.uint8),
        ((PIXELS - 128).astype(np.float32), np.uint8),
        ((PIXELS > 99).astype(np.float32), np.uint8),
        ((PIXELS % 3 * 0.5 - 1).astype(np.float32), np.uint8),
        ((PIXELS / 127.5 - 1).astype(np.float32), None),
        (((PIXELS / 255 - 0.1307) / 0.3081).astype(np.float32), None),
        (np.random.default_rng(1).normal(size=(6, 1, 5, 5)).astype(np.float32), np.float32),
        (np.full((2, 1, 5, 5), 3.5, np.float32), np.float32),
        (np.array([0, -0.0, 1, 2, 3] * 5, np.float32).reshape(1, 1, 5, 5), np.float32),
        (np.array([0, 1e-45, 3e38, 1, -3e38] * 5, np.float32).reshape(1, 1, 5, 5), np.float32),
    ],
)
def test_images_keep_every_bit(tmp_path, images, dtype):
    again = saved(tmp_path, with_samples(images))
    assert again.samples.images.tobytes() == images.tobytes()
    with h5py.File(tmp_path / "f.h5") as f:
        assert dtype is None or f["samples/images"].dtype == dtype


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], np.array([2] * 6, np.uint8)])
def test_labels(tmp_path, labels):
    again = saved(tmp_path, with_samples((PIXELS / 255).astype(np.float32), labels)).samples.labels
    assert again.dtype == np.int64 and again.tolist() == list(labels)


def test_samples_are_the_callers_own(tmp_path):
    images = (PIXELS / 255).astype(np.float32)
    again = saved(tmp_path, with_samples(images))
    images[0] = 1  # saving made nothing read-only
    with pytest.raises(ValueError):
        again.samples.images[0] = 1


SIMPLE = [Input(shape=2), Linear(weight=np.ones((2, 2))), Readout()]


@pytest.mark.parametrize(
    "fields, match",
    [
        (
            {"samples": Samples(np.zeros((3, 3)))},
            r"images do not fit the network: got shape \(3, 3\), expected \(n, 2\)",
        ),
        ({"samples": Samples(np.zeros((0, 2)))}, "images do not fit"),
        ({"samples": Samples(np.full((1, 2), np.nan))}, "NaN"),
        ({"samples": Samples(np.zeros((3, 2)), [0, 1])}, "labels and images do not fit"),
        ({"samples": Samples(np.zeros((1, 2)), [2])}, "a label is not a class: got 2 to 2, expected 0 to 1"),
        ({"samples": Samples([["a", "b"]])}, "samples are not numbers"),
        *[
            ({"classes": ("a", name)}, "name of a class is not usable")
            for name in ("b\n", "b" * 2000, "\ud800")
        ],
        *[
            ({"metadata": {"a": value}}, "metadata 'a' is not usable")
            for value in ([1], 1 << 63, None, "\0", "\ud800", "b" * 20_000)
        ],
        *[({"metadata": {key: 1}}, "a metadata key is not usable") for key in ("", 3, "a\n", "k" * 200)],
        ({"metadata": {f"k{i}": i for i in range(600)}}, "too much metadata"),
    ],
)
def test_what_a_file_cannot_hold(tmp_path, fields, match):
    (tmp_path / "f.h5").write_text("old")
    with pytest.raises(WeightsError, match=match) as caught:
        weights.save(tmp_path / "f.h5", Network(SIMPLE, **fields))
    assert str(tmp_path / "f.h5") in str(caught.value)
    assert (tmp_path / "f.h5").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_metadata_types(tmp_path):
    metadata = {
        "whole": np.int32(3),
        "real": np.float32(0.5),
        "yes": True,
        "nothing": float("nan"),
        "text": np.str_("t"),
    }
    again = saved(tmp_path, Network(SIMPLE, metadata=metadata)).metadata
    assert (
        list(again) == sorted(metadata)
        and [again[name] for name in ("whole", "real", "yes", "text")] == [3, 0.5, 1, "t"]
        and again["nothing"] != again["nothing"]
    )
    assert {type(v) for v in again.values()} == {int, float, str}


@pytest.mark.slow
def test_the_most_metadata(tmp_path):
    metadata = {f"key {i}": "x" * 15_000 if i < 300 else i for i in range(512)}
    assert dict(saved(tmp_path, Network(SIMPLE, metadata=metadata)).metadata) == metadata
    with pytest.raises(WeightsError, match="too much metadata"):
        weights.save(
            tmp_path / "g.h5",
            Network(SIMPLE, metadata={f"key {i}": "x" * 16_000 for i in range(512)} | {"l": "y" * 16_000}),
        )


def test_more_than_a_thousand_layers(tmp_path):
    network = Network(
        [Input(shape=2), *[Flatten() for _ in range(1000)], Linear(weight=np.ones((2, 2))), Readout()]
    )
    assert content(saved(tmp_path, network)) == content(network)
    with h5py.File(tmp_path / "f.h5") as f:
        assert list(f["layers"])[:2] == ["0000_input", "0001_flatten"]


# The same bytes


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compress", [False, True])
def test_same_bytes(tmp_path, storage, compress):
    for name in ("a.h5", "b.h5"):
        weights.save(tmp_path / name, every_kind(), storage=storage, compress=compress)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_same_bytes_in_another_process(tmp_path):
    """Another hash seed, another order of metadata, another name."""
    script = """
import sys
sys.path[:0] = ["tests", "tests/files"]
from test_weights import every_kind, weights
network = every_kind()
weights.save(sys.argv[1], network.replace(metadata=dict(reversed(network.metadata.items()))))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "another name.h5")],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=120,
    )
    weights.save(tmp_path / "f.h5", every_kind())
    assert (tmp_path / "f.h5").read_bytes() == (tmp_path / "another name.h5").read_bytes()


def test_no_times(tmp_path):
    weights.save(tmp_path / "f.h5", every_kind())
    flags = re.findall(rb"OHDR\x02(.)", (tmp_path / "f.h5").read_bytes(), re.DOTALL)
    assert len(flags) > 30 and not any(flag[0] & 0x20 for flag in flags)


def test_all_metadata_carries_checksums(tmp_path):
    """No object header of the old kind, no tree of the old kind."""
    weights.save(tmp_path / "f.h5", every_kind(), compress=True)
    data = (tmp_path / "f.h5").read_bytes()
    assert data[8] == 3 and not any(word in data for word in (b"TREE", b"SNOD", b"HEAP", b"GCOL"))


# All or nothing


def refuse_disk(*_):
    raise OSError(28, "No space left on device")


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("old", [b"the old file", None])
@pytest.mark.parametrize(
    "module, name",
    [
        (atomic.os, "fsync"),
        (atomic.os, "replace"),
        (atomic.os, "fchmod"),
        (stored, "sha256_of"),
        (weights, "open_stream"),
    ],
)
@pytest.mark.parametrize("failure, error", [(refuse_disk, OSError), (interrupt, KeyboardInterrupt)])
def test_failure_leaves_the_old_file(tmp_path, monkeypatch, old, module, name, failure, error):
    if name == "fchmod" and old is None:
        pytest.skip("a new file keeps the mode it is made with")
    path = tmp_path / "f.h5"
    if old:
        path.write_bytes(old)
    monkeypatch.setattr(module, name, failure)
    with pytest.raises(error) as caught:
        weights.save(path, every_kind())
    monkeypatch.undo()
    if error is OSError and module is atomic.os:
        assert (
            type(caught.value) is WeightsError
            and str(caught.value) == f"{path}: the file cannot be written: got No space left on device"
        )
    assert [p.name for p in tmp_path.iterdir()] == (["f.h5"] if old else [])
    assert not old or path.read_bytes() == old


@pytest.mark.parametrize("failure, error", [(refuse_disk, WeightsError), (interrupt, KeyboardInterrupt)])
def test_failure_in_the_middle(tmp_path, monkeypatch, failure, error):
    """Half of the bytes are on the disk when writing fails."""
    path = tmp_path / "f.h5"
    weights.save(path, every_kind(1))
    before = path.read_bytes()
    monkeypatch.setattr(atomic, "open", lambda *a, **k: HalfWritten(open(*a, **k), failure), raising=False)
    with pytest.raises(error):
        weights.save(path, every_kind(2))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


class HalfWritten:
    def __init__(self, stream, failure):
        self.stream, self.failure = stream, failure

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, data):
        self.stream.write(data[: len(data) // 2])
        self.stream.flush()
        assert len(os.listdir(os.path.dirname(self.stream.name))) == 2
        self.failure()


def test_order_of_events(tmp_path, monkeypatch):
    """Flushed before it is renamed; the folder flushed after."""
    events = []
    fsync, replace = os.fsync, os.replace
    kind = {stat.S_IFDIR: "folder", stat.S_IFREG: "file"}
    monkeypatch.setattr(
        atomic.os,
        "fsync",
        lambda fd: (
            events.append((kind[stat.S_IFMT(os.fstat(fd).st_mode)], os.fstat(fd).st_size)) or fsync(fd)
        ),
    )
    monkeypatch.setattr(atomic.os, "replace", lambda a, b: events.append(("rename", None)) or replace(a, b))
    weights.save(tmp_path / "f.h5", every_kind())
    assert [event for event, _ in events] == ["file", "rename", "folder"] and events[0][1] == os.path.getsize(
        tmp_path / "f.h5"
    )


def test_a_folder_that_cannot_be_flushed(tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(
        atomic.os, "fsync", lambda fd: refuse_disk() if stat.S_ISDIR(os.fstat(fd).st_mode) else fsync(fd)
    )
    assert content(saved(tmp_path, every_kind())) == content(every_kind())


def test_overwriting_keeps_the_mode(tmp_path):
    path = tmp_path / "f.h5"
    weights.save(path, every_kind(1))
    path.chmod(0o640)
    weights.save(path, every_kind(2))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert content(weights.load(path)) == content(every_kind(2))


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_follows_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        weights.save(tmp_path / "f.h5", every_kind())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f.h5").stat().st_mode) == mode


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.h5").symlink_to("real/f.h5")
    weights.save(tmp_path / "link.h5", every_kind())
    assert (tmp_path / "link.h5").is_symlink() and (tmp_path / "real/f.h5").is_file()
    assert content(weights.load(tmp_path / "link.h5")) == content(every_kind())


def test_kinds_of_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a.h5", b"b.h5", pathlib.Path("c.h5"), os.fsencode(tmp_path) + b"/\xff.h5"):
        weights.save(path, every_kind())
        assert weights.load(path).n_classes == 5
    assert len(os.listdir()) == 4


def test_targets_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, match in (
        (tmp_path, "something else has that name: got a folder"),
        (tmp_path / "pipe", "something else"),
        ("/dev/null", "something else"),
        (tmp_path / "none/f.h5", "cannot be written: got No such file"),
    ):
        with pytest.raises(WeightsError, match=match):
            weights.save(path, every_kind())
    for path, match in (
        (3, "a path is expected"),
        ("a\0b", "a path is expected"),
        (every_kind(), "a path is expected: got .{,80}$"),
    ):
        with pytest.raises(WeightsError, match=match):
            weights.save(path, every_kind())
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_only_networks(tmp_path):
    with pytest.raises(
        WeightsError, match=r"only a Network can be saved: got str. Call save\(path, network\)"
    ):
        weights.save(every_kind(), "f.h5")


def test_write_protection(tmp_path, monkeypatch):
    path = tmp_path / "f.h5"
    path.write_bytes(b"old")
    monkeypatch.setattr(atomic.os, "access", lambda name, mode: False)  # root may write everything
    with pytest.raises(WeightsError, match="the file is write-protected"):
        weights.save(path, every_kind())
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def no(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic.os, "open", no)
    with pytest.raises(WeightsError, match="cannot be written: got Permission denied"):
        weights.save(tmp_path / "f.h5", every_kind())


# Reading


def test_verify(tmp_path):
    path = tmp_path / "f.h5"
    weights.save(path, every_kind(), storage="int8")
    arrays = weights.verify(path)
    assert all(array.intact for array in arrays) and [a.path for a in arrays] == sorted(
        a.path for a in arrays
    )
    with h5py.File(path, "r+") as f:
        for array in arrays:
            assert (
                f[array.path].shape == array.shape
                and f[array.path].dtype == array.dtype
                and f[array.path].nbytes == array.n_bytes
            )
            assert (
                f[array.path].id.get_storage_size() == array.stored_bytes
                and hashlib.sha256(f[array.path][()].tobytes()).hexdigest() == array.sha256
            )
        count = 0

        def visit(name, item):
            nonlocal count
            count += isinstance(item, h5py.Dataset)

        f.visititems(visit)
        assert count == len(arrays)
        f["layers/001_conv2d/bias"][0] += 1
        f["samples/labels"][0] = 1
    assert [a.path for a in weights.verify(path) if not a.intact] == [
        "/layers/001_conv2d/bias",
        "/samples/labels",
    ]
    with pytest.raises(WeightsError, match="sha256 differs"):
        weights.load(path)


def test_reading_imports_neither_h5py_nor_numba_nor_scipy(tmp_path):
    weights.save(tmp_path / "f.h5", every_kind())
    script = """
import sys, evsnn, evsnn.files.weights
evsnn.load(sys.argv[1])
evsnn.files.weights.verify(sys.argv[1])
sys.exit(len({"h5py", "numba", "scipy"} & set(sys.modules)))
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "f.h5")], cwd=ROOT, timeout=60
        ).returncode
        == 0
    )


def test_memory(tmp_path):
    """Beside the network itself, one layer at a time."""
    rng = np.random.default_rng(0)
    layers = [Input(shape=500)]
    for _ in range(8):
        layers += [Linear(weight=rng.normal(size=(500, 500))), IF()]
    weights.save(tmp_path / "f.h5", Network([*layers[:-1], Readout()]))
    weights.load(tmp_path / "f.h5")
    tracemalloc.start()
    network = weights.load(tmp_path / "f.h5")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        network.n_classes == 500 and 8_000_000 < held < 8_300_000 and peak - held < 1_600_000
    )  # a layer is 1 MB


def test_threads(tmp_path):
    weights.save(tmp_path / "f.h5", every_kind())
    found = []

    def work():
        for _ in range(3):
            found.append(content(weights.load(tmp_path / "f.h5")))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12 and all(f == content(every_kind()) for f in found)


def test_arrays_of_a_loaded_network_are_read_only(tmp_path):
    network = saved(tmp_path, every_kind())
    arrays = [v for layer in network.layers for v in vars(layer).values() if isinstance(v, np.ndarray)] + [
        network.samples.images,
        network.samples.labels,
    ]
    assert not any(array.flags.writeable for array in arrays)


# Version 1.0, for good

GOLDEN = r"""
c-qZaO^h5z6|R|C&y085cz3<AO@6#KIErl)yZXNyDcVi2EGLje*a8kg8R~bp+1Z|9dUo-TL@Xglj8G6Fi8yeG5+pbv5g{ak1WE)U0uCrrq)4$3SrRY^ArU8mn`5fFx@V@Fo}FEL57cPXGgYr%RlWDV@4f1aCy$@l
F@EcKrCtYVyPmY~?ot0?(*LdK7grxXdHhs)3X}nOwlp~jz`JENW+gJ?Wl#b@j{LNuddy@*I{-ih)Ic4K0l-_GWz+?`rU2L`#-
tLq8ik>DmlWDLDAZVGohWF9v2Z03){jE%LHSn$GvWh+u)Wf4bWpg!z|{UZpbj$+tO;OU7n91RQYqOfD1)N*?p&%+>nn^FQJaBDp)FM?6(t7)>9dqP$8t~Yu#~9_g`y{HL|xX7vdVxuek^>a5{^&aVTiU?lzr;SmY
3Nw76)Y7$E09Y2}X+nS7Nn9EC_>cfSOX}E3@xC-}e_Nm1c?!QK^HHR1t4S_^(o}PmA8t!AkZ#w@k~Q*K<w#;(%X;!3^7pH#DED0J-
B?I`(y&5ylNnDHZ=9gBD{HBO5s!8oI|2w~?*;*l~2%G8~9(NNk;RZ~|;md+Yuuzx?p0PJX&PJs9O_t4>Q#)<_dY5sTImryhFYjjti_+h4_YoRkMTQ#@S-
esxAF*$yFW#1Zs%V#4YzvVR;xy+K;xszJY(7*!(WKOa%QUC{3<?NGlD_P2j`@Q2&w_KV#hCq1_-
3r6tN<?pxqJAZDyoeyzt9F^OZb6H4QGzb?m@z!nyQPc{xSt+<p2`&X8&0ssWg|>e{Bt*+B7O4)3=&%0xkMD2P)Kk)=)vvN(VX=E_0;B3q**S&-
6g^a3FKVT^a7{^kCk1ddwcGFLBVW%T=eXG9n1D_W@xz#4*mz|Il&1F2CWzV(_SC_i$8xAUQq6k)#!yEHaWQrX_c4RewTX+EO|Xr0lXDDh<YVf4+^{LPsYeLZb&d^cxVGn-
K5@bLAaW)SoD@ngye#yKFA(1gFR76Wb1{>FdGWn4U&J>5W0MWo;L+MvFc0;8W_y-t8<t6Z&bUuJ&u~rbQQJ1L#WAud#E5$k`qc0lVy?xJm<5Hn?SfC<4BPCx_j7*|k2wih?LGygIJMBAiMleO<?~9Om-
Cj>4yp6T`DCHfS}8~;Jy|2QO`6Q2KHLhtqTrW-Xb;6HL=|&s`-)&ZHXx&YHqCot?KYw@XXFo?PnM+-Pi;Ouyigi-I{{@Q4VZua=JkoEHp(u$<<b+YjqYNHMT@N_J+nO_3B^0B4Vh`bJwA$Lo}Ew<m->-
$ZsnKPwhAdvjBiPfb`55l(8AEP3=>(d<5I&THfI$2+|#K@%#d@DluZg<k2pj(ZO9n*Fk^;?Zw@IxzjW%VIA4}M#?;O>VuK${{9mxe17Hi=`%4$U(qj);jODQ*SdKAxdl8b$X|m<oQ8hjz$D0f-
6_?Gu{rr7SyQ2vAm7Ydj)$UbAPpUA@vs2o_e?Nb00EiMNcP0hT1Es->#1K~=D>g`F7`bsBOcfaU$eX`@LK?WbSIX{y&}^X9g?6jeH0U`^$-
Mf7AH6)hXw0zE66=JlxoK9?K3?Ri?TJKhL)yV2`;X_v^c!N|QEe;O_k7FyOwQ?d?@Sy7HsExp*y-a#oZh!cwwC$Od-9lcs9gV!N!9111)ySm2(1PeNxI9zR#KaT6aRRzy-pk)DDq)iBPY7l%`NZ2dR9n(@5=nC8!
3TLPmW4OO9=)prl$DlIv#&)ZT4_#rt{O;3rg=cV>g;X$WZ5*ohh*If9S0Yjf<cym;13%8dBnHgyu=I{rXMOJhK@j%=9@To=>Q6ihCzU9wvwyoSC8+_K0g+x=UPUS-z!nF@ssm^0-
d8Yl9=3q46uu2d^bX@=Gz5Tg5?K9}>iAP^@2=DJNuNuoqsnjEsKI4<E1RK=`xiO@PoW-
hXY#{*zU~j+|XSfA7BE$IPoD7($~F@T>J43Y|vsBIJX__5b|Ixl=a^!bH{jAWVdG+`0Vt20=K)P%){ORWd|F%XDe~H<DZX>C`y2o|%Hn?6wqyFU(}$r&V`JHT7lIMHF?>ZHX3e&uR0SIMhC&b`WQHJR-fX&1rj;c
x)FE8>N(1M%O-
kns1Jhf@QS8qIYI8C36#D){M^XPS!lS*_!CJe^t&81Wgm2Wu53y`i4clzKPIsyUC)%$;#Khd3B}FN8!+m{HWVVe!QZA(qwPEu6U|8A$kQ0fc!|w`mC5yE^m_wS1h`B;4EnOx+IoVe6jCZoJXuX!hs@1A5-
O5JSQTk$%amuj9Ytd6jx$q*#sL7v@tgw%rIq+XL**6439%jEt5FDXUkgwVe+zok>mS@$C!yc-
`BtK;I6eZkCHD@%n>7hTl>q~SN{ChcWR*gA~?ID3y`$(0CEPi!NomWkqulT5`k_y)UtGwBS&{l$8?$JnOK~}qo%=h>bN!+S%Ff{eM&Ilrm1@d<QDe8eOpoNuXvYUNzeRW9gQrs
"""


def golden_network():
    return Network(
        [
            Input(shape=(1, 4, 4), encoding="poisson"),
            Conv2d(weight=np.arange(-4, 5).reshape(1, 1, 3, 3), bias=[0.5], stride=2, padding=1, name="conv"),
            IF(v_threshold=[2.5], v_init=0.5, leak=0.75, shift=False),
            AvgPool2d(2),
            Flatten(),
            Linear(weight=[[1], [-0.5]]),
            Readout(),
        ],
        n_steps=5,
        shift="initial",
        readout="membrane",
        input_range=(0, 1),
        classes=("a", "ü"),
        metadata={"a": 1, "b": 0.5, "c": "d"},
        samples=Samples(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) / 255, np.array([1])),
    )


def test_a_file_of_version_1_0_loads(tmp_path):
    (tmp_path / "f.h5").write_bytes(zlib.decompress(base64.b85decode("".join(GOLDEN.split()))))
    assert content(weights.load(tmp_path / "f.h5")) == content(golden_network())


# docs/format.md


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", FORMAT, re.DOTALL)


def dump(path):
    """What is in a file, in the manner of `h5ls -rv`."""

    def shown(value):
        if isinstance(value, (bytes, np.bytes_)):
            text = value.decode()
            return f'"{text[:8]}..."' if re.fullmatch("[0-9a-f]{64}", text) else f'"{text}"'
        return "{" + ", ".join(map(shown, value)) + "}" if isinstance(value, np.ndarray) else f"{value:.9g}"

    def describe(name, item):
        if isinstance(item, h5py.Dataset):
            kind = f"string of {item.dtype.itemsize} bytes" if item.dtype.kind == "S" else item.dtype.name
            storage = f", {item.compression}" if item.compression else ""
            lines.append(f"{'/' + name:<34} Dataset {{{', '.join(map(str, item.shape))}}} {kind}{storage}")
        else:
            lines.append(f"{'/' + name:<34} Group")
        lines.extend(f"    {key:<14} {shown(item.attrs[key])}" for key in sorted(item.attrs))

    lines = []
    with h5py.File(path) as f:
        describe("", f)
        f.visititems(describe)
    return "\n".join(lines) + "\n"


def test_the_pages_example(tmp_path, monkeypatch, capsys):
    """The page's code runs, its file is the one it shows, and h5py alone reads and writes such files."""
    monkeypatch.chdir(tmp_path)
    _, make, read, write = blocks("python")
    exec(make, {})
    assert dump("example.h5") == blocks("text")[0]
    names = {}
    exec(read, names)
    network = evsnn.load("example.h5")
    assert np.array_equal(names["weight"], network.layers[1].weight)
    assert capsys.readouterr().out.splitlines()[1] == "001_conv2d conv2d ['input1']"
    exec(write, {})
    by_hand = evsnn.load("by_hand.h5")
    assert [layer.name for layer in by_hand.layers] == [
        "input1",
        "linear1",
        "if1",
        "linear2",
        "readout1",
    ] and by_hand.layers[2].v_threshold == 1


def test_the_page_names_every_field():
    for kind, fields in FIELDS.items():
        assert f"`{kind}`" in FORMAT
        for name in fields:
            assert re.search(rf"`{name}`", FORMAT), name
    (tables,) = re.findall(r"^## Step parameters\n(.*?)^## ", FORMAT, re.DOTALL | re.MULTILINE)
    for kind, fields in STEP_PARAMETER_FIELDS.items():
        for name in (kind, *fields):
            assert f"`{name}`" in tables, name
    assert f"**{'.'.join(map(str, weights.FORMAT_VERSION))}**" in FORMAT


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("layers/002_if", "signed", "negative_threshold"),
        ("layers/002_if", "delay", "warm_up_steps"),
        ("", "tables", "step_parameters"),
    ],
)
def test_names_from_before_the_release_are_refused_and_the_page_renames_them(tmp_path, place, old, new):
    path = str(tmp_path / "old.h5")
    network = every_kind()
    weights.save(path, network)
    with h5py.File(path, "r+") as f:
        if place:
            group = next(g for name, g in f["layers"].items() if name.endswith("_if"))
            group.attrs[old] = group.attrs[new]
            del group.attrs[new]
        else:
            f.move(new, old)
    with pytest.raises(
        WeightsError, match=rf"unknown \w+: got {old}.*name it {new}, with the lines in docs/format.md"
    ):
        weights.load(path)
    names: dict = {}
    (code,) = re.findall(r"^```python\n(import h5py.*?def renamed.*?)^```", FORMAT, re.M | re.S)
    exec(compile(code, "docs/format.md", "exec"), names)
    names["renamed"](path)
    assert content(weights.load(path)) == content(network)
