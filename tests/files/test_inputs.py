"""Inputs: what is read, what is refused, and that looking costs no memory."""

import io
import os
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

import evsnn
from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, InputError, Linear, Network, Readout, Samples
from evsnn.files.inputs import N_NOISE, open_inputs, range_warning

RANDOM = np.random.default_rng(7)
IMAGES = RANDOM.random((5, 1, 8, 8)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1])
EVENTS = RANDOM.random((5, 6, 1, 8, 8)) < 0.2


def make_network(encoding="constant", samples=None):
    layers = (
        Input((1, 8, 8), encoding=encoding),
        Conv2d(RANDOM.normal(size=(4, 1, 3, 3)), padding=1),
        IF(1.0),
        AvgPool2d(2),
        Flatten(),
        Linear(RANDOM.normal(size=(3, 64))),
        Readout(),
    )
    return Network(layers, n_steps=4, input_range=(0, 1), samples=samples)


NETWORK = make_network()


def read(path=None, network=NETWORK, **options):
    with open_inputs(network, path, **options) as inputs:
        samples = inputs.read()
        assert len(samples.images) == inputs.n_samples
        assert (
            samples.images.nbytes + (0 if samples.labels is None else samples.labels.nbytes) <= inputs.n_bytes
        )
        return samples


def refusal(path, network=NETWORK, **options):
    with pytest.raises(InputError) as caught:
        read(path, network, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def npy(header, data=b"", version=1):
    header = header.encode()
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(header))
        + header
        + data
    )


def plain(shape, descr="<f4"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"


def write_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


# What is read


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed, write_h5])
def test_named_arrays_come_back(tmp_path, write):
    path = str(tmp_path / ("f.h5" if write is write_h5 else "f.npz"))
    write(path, images=IMAGES, labels=LABELS)
    samples = read(path)
    assert samples.images.dtype == np.float32 and np.array_equal(samples.images, IMAGES)
    assert samples.labels.dtype == np.int64 and np.array_equal(samples.labels, LABELS)
    first = read(path, limit=2)
    assert np.array_equal(first.images, IMAGES[:2]) and np.array_equal(first.labels, LABELS[:2])
    assert len(read(path, limit=1000).images) == 5


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8"])
def test_npy_of_any_number_is_taken_as_it_is(tmp_path, dtype):
    values = (100 * IMAGES).astype(dtype)
    np.save(tmp_path / "f.npy", values)
    samples = read(tmp_path / "f.npy")
    assert np.array_equal(samples.images, values.astype(np.float32)) and samples.labels is None


def test_the_name_of_a_file_does_not_matter(tmp_path):
    np.savez(tmp_path / "f.npz", images=IMAGES)
    os.rename(tmp_path / "f.npz", tmp_path / "digits")
    assert np.array_equal(read(tmp_path / "digits").images, IMAGES)


@pytest.mark.parametrize("label", [LABELS[1], LABELS[1:2]])
def test_one_sample_needs_no_batch(tmp_path, label):
    np.savez(tmp_path / "f.npz", images=IMAGES[1], labels=label)
    samples = read(tmp_path / "f.npz")
    assert np.array_equal(samples.images, IMAGES[1:2]) and samples.labels.tolist() == [1]


@pytest.mark.parametrize(
    "data",
    [
        npy(plain("(5L, 1L, 8L, 8L)"), IMAGES.tobytes()),
        npy(plain("(5, 1, 8, 8)"), IMAGES.tobytes(), 2),
        npy(plain("(5, 1, 8, 8)"), IMAGES.tobytes(), 3),
    ],
)
def test_every_version_of_npy(tmp_path, data):
    (tmp_path / "f.npy").write_bytes(data)
    assert np.array_equal(read(tmp_path / "f.npy").images, IMAGES)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_events(tmp_path, dtype):
    network = make_network("events")
    np.save(tmp_path / "f.npy", EVENTS.astype(dtype))
    with open_inputs(network, tmp_path / "f.npy") as inputs:
        images = inputs.read().images
        assert inputs.n_steps == 6 and images.dtype == bool and np.array_equal(images, EVENTS)
    np.save(tmp_path / "f.npy", EVENTS[0].astype(dtype))
    assert np.array_equal(read(tmp_path / "f.npy", network).images, EVENTS[:1])


def test_samples_of_the_network():
    network = make_network(samples=Samples(IMAGES, LABELS))
    with open_inputs(network, limit=3) as inputs:
        assert inputs.source == "samples" and inputs.n_samples == 3
        assert np.array_equal(inputs.read().images, IMAGES[:3]) and inputs.read().labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("encoding", ["constant", "poisson", "events"])
def test_noise_is_seeded_and_limited(encoding):
    network = make_network(encoding)
    with open_inputs(network, seed=3, n_steps=7) as inputs:
        assert inputs.source == "noise" and inputs.n_samples == N_NOISE
    a, b, c = (
        read(None, network, seed=3, n_steps=7),
        read(None, network, seed=3, n_steps=7),
        read(None, network, seed=4, n_steps=7),
    )
    assert np.array_equal(a.images, b.images) and not np.array_equal(a.images, c.images)
    assert a.images.shape == (N_NOISE, *((7,) if encoding == "events" else ()), 1, 8, 8)
    assert a.images.min() >= 0 and a.images.max() <= 1 and a.labels is None
    assert (
        len(read(None, network, limit=2).images) == 2
        and len(read(None, network, limit=10**9).images) == N_NOISE
    )


def test_a_wrong_scale_is_noticed():
    assert range_warning(NETWORK, IMAGES) is None
    assert range_warning(NETWORK, np.zeros_like(IMAGES)) is None
    assert "0 to 255" in range_warning(NETWORK, np.array([[0.0, 255.0]]))
    assert "-1 to 1" in range_warning(NETWORK, np.array([[-1.0, 1.0]]))
    assert "0 to 0.5" in range_warning(NETWORK.replace(input_range=(0, 255)), np.array([[0.0, 0.5]]))
    assert range_warning(NETWORK.replace(input_range=None), np.array([[0.0, 255.0]])) is None


# What is refused


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda p: None, "cannot be opened"),
        (lambda p: p.mkdir(), "is not a file"),
        (lambda p: os.mkfifo(p), "is not a file"),
        (lambda p: p.symlink_to(p), "cannot be opened"),
        (lambda p: p.symlink_to("/dev/zero"), "is not a file"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_text("1,2,3\n"), "is not a file of images"),
        (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(50)), "not a readable .npz"),
        (lambda p: p.write_bytes(b"\x93NUMP"), "is not a file of images"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n"), "f.npz: "),
    ],
)
def test_things_that_are_no_file_of_images(tmp_path, make, words):
    make(tmp_path / "f.npz")
    assert words in refusal(tmp_path / "f.npz")


@pytest.mark.parametrize(
    "data, words",
    [
        (npy(plain("(17179869184, 1, 8, 8)")), "got 0 bytes, expected 4398046511104"),
        (npy(plain("(5, 1, 8, 8)"), IMAGES.tobytes()[:-1]), "damaged"),
        (npy(plain("(5, 1, 8, 8)"), IMAGES.tobytes() + b"x"), "damaged"),
        (npy(plain("(5, 1, 8, 8)"))[:40], "ends too early"),
        (npy(plain("(-1, 1, 8, 8)")), "plain array"),
        (npy(plain(f"({'9' * 400}, 1, 8, 8)")), "plain array"),
        (npy("(" * 9000), "plain array"),
        (npy("__import__('os').abort()"), "plain array"),
        (npy(plain("(5, 1, 8, 8)"), version=9), ".npy format"),
        (npy("", version=2)[:8] + struct.pack("<I", 1 << 31), "header that is too long"),
        (npy(plain("(5, 1, 8, 8)", "|O"), bytes(320 * 8)), "'|O'"),
        (npy(plain("(5, 1, 8, 8)", ">f4"), IMAGES.tobytes()), "little-endian order"),
        (npy(plain("(5, 1, 8, 8)", "<c8"), bytes(320 * 8)), "'<c8'"),
        (npy(plain("(5, 1, 8, 8)", "<U1"), bytes(320 * 4)), "'<U1'"),
        (npy(plain("(5, 1, 8, 8)", "<M8[s]"), bytes(320 * 8)), "M8"),
        (npy(plain("(5, 1, 8, 8)").replace("'<f4'", "[('a', '<f4')]"), IMAGES.tobytes()), "plain array"),
        (npy(plain("(5, 1, 8, 8)").replace("False", "True"), IMAGES.tobytes()), "Fortran order"),
    ],
)
def test_npy_headers_that_lie_or_are_not_read(tmp_path, data, words):
    (tmp_path / "f.npy").write_bytes(data)
    assert words in refusal(tmp_path / "f.npy")
    with zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", data)
    message = refusal(tmp_path / "f.npz")
    assert words in message and "f.npz:/images" in message


def changed(at, value):
    images = IMAGES.astype(np.float64)
    images[at] = value
    return images


@pytest.mark.parametrize(
    "images, words",
    [
        (IMAGES[:0], "no images"),
        (IMAGES[:, :, :, :7], "expected (n, 1, 8, 8)"),
        (IMAGES[None], "do not fit"),
        (np.float32(3), "do not fit"),
        (IMAGES.transpose(0, 2, 3, 1).copy(), "channels first"),
        (changed((3, 0, 1, 1), np.nan), "f.npy[3]: images hold NaN"),
        (changed((2, 0, 1, 1), -np.inf), "f.npy[2]: images hold NaN"),
        (changed((1, 0, 1, 1), 1e300), "f.npy[1]: images hold NaN"),
        (IMAGES > 0.5, "boolean"),
    ],
)
def test_images_that_do_not_fit(tmp_path, images, words):
    np.save(tmp_path / "f.npy", images)
    assert words in refusal(tmp_path / "f.npy")


@pytest.mark.parametrize(
    "labels, words",
    [
        (LABELS[:4], "got shape (4,), expected (5,)"),
        (np.eye(3, dtype=int)[LABELS], "got shape (5, 3)"),
        (LABELS[0], "got shape ()"),
        (
            LABELS * 1.0,
            "not integers: got float64, expected class indices, from 0 on. Give labels.astype(int)",
        ),
        (LABELS > 0, "not integers"),
        (LABELS - 1, "labels[0]: a label is out of range: got -1"),
        (LABELS + 1, "labels[2]: a label is out of range: got 3, expected 0 to 2. Number the classes"),
        (LABELS.astype(np.uint64) + np.uint64(1 << 63), "out of range"),
    ],
)
@pytest.mark.parametrize("write", [np.savez, write_h5])
def test_labels_that_do_not_fit(tmp_path, labels, words, write):
    path = str(tmp_path / ("f.h5" if write is write_h5 else "f.npz"))
    write(path, images=IMAGES, labels=labels)
    message = refusal(path)
    assert words in message or (write is write_h5 and "boolean" in message)


@pytest.mark.parametrize(
    "encoding, images",
    [("events", IMAGES), ("events", EVENTS * 2.0), ("poisson", IMAGES * 2), ("poisson", -IMAGES)],
)
def test_values_that_are_no_spikes(tmp_path, encoding, images):
    np.save(
        tmp_path / "f.npy",
        images if images.ndim == 5 or encoding == "poisson" else np.repeat(images[:, None], 6, axis=1),
    )
    assert "values from" in refusal(tmp_path / "f.npy", make_network(encoding))


def test_booleans_that_are_neither(tmp_path):
    np.save(tmp_path / "f.npy", EVENTS)
    data = bytearray((tmp_path / "f.npy").read_bytes())
    data[-1] = 7
    (tmp_path / "f.npy").write_bytes(data)
    assert "values from 0 to 7" in refusal(tmp_path / "f.npy", make_network("events"))


# Archives


def test_archives_without_images(tmp_path):
    np.savez(tmp_path / "f.npz", IMAGES, LABELS)
    assert "got arr_0, arr_1" in refusal(tmp_path / "f.npz")
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("\x1b[31mevil\n", "")
    assert "\x1b" not in refusal(tmp_path / "f.npz")
    with zipfile.ZipFile(tmp_path / "f.npz", "w"):
        pass
    assert "no array named 'images'. Write" in refusal(tmp_path / "f.npz")


def test_damaged_archives(tmp_path):
    np.savez_compressed(tmp_path / "f.npz", images=IMAGES, labels=LABELS)
    whole = (tmp_path / "f.npz").read_bytes()
    for cut in range(0, len(whole), 97):
        (tmp_path / "f.npz").write_bytes(whole[:cut])
        refusal(tmp_path / "f.npz")
    for at in range(60, 700, 37):
        flipped = bytearray(whole)
        flipped[at] ^= 0x55
        (tmp_path / "f.npz").write_bytes(flipped)
        assert "f.npz:/images" in refusal(tmp_path / "f.npz")


def test_unusual_archives(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "f.npz", "w", method) as archive:
            archive.writestr("images.npy", buffer.getvalue())
        assert "unusually compressed" in refusal(tmp_path / "f.npz")
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        for i in range(25_000):
            archive.writestr(f"{i}", "")
    assert "directory that is too long" in refusal(tmp_path / "f.npz")


def test_a_bomb_costs_nothing(tmp_path):
    n = 40_000_000 // 64
    with (
        zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as file,
    ):
        file.write(npy(plain(f"({n}, 1, 8, 8)", "|u1")))
        for _ in range(40):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    try:
        assert len(read(tmp_path / "f.npz", limit=3).images) == 3
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_more_than_can_be_held(tmp_path, monkeypatch):
    monkeypatch.setattr("evsnn.files.inputs.MAX_INPUT_BYTES", 1_000)
    np.save(tmp_path / "f.npy", IMAGES)
    assert "--limit" in refusal(tmp_path / "f.npy")
    assert len(read(tmp_path / "f.npy", limit=3).images) == 3


@pytest.mark.parametrize(
    "name", ["external link", "soft link", "virtual", "external data", "huge", "group", "text"]
)
def test_h5_follows_nothing(tmp_path, name):
    write_h5(tmp_path / "other.h5", images=IMAGES)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        if name == "external link":
            file["images"] = h5py.ExternalLink("other.h5", "/images")
        elif name == "soft link":
            file["x"], file["images"] = IMAGES, h5py.SoftLink("/x")
        elif name == "virtual":
            layout = h5py.VirtualLayout(IMAGES.shape, "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "images", IMAGES.shape)
            file.create_virtual_dataset("images", layout)
        elif name == "external data":
            file.create_dataset(
                "images", IMAGES.shape, "f4", external=[(str(tmp_path / "other.h5"), 0, h5py.h5f.UNLIMITED)]
            )
        elif name == "huge":
            file.create_dataset("images", (1 << 34, 1, 8, 8), "f4", chunks=(1, 1, 8, 8))
        elif name == "group":
            file.create_group("images")
        else:
            file["images"] = np.array([b"a", b"b"])
    message = refusal(tmp_path / "f.h5")
    assert message.startswith(str(tmp_path / "f.h5:/")) and "images" in message


def test_h5_may_hold_more(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.attrs["source"] = "text of any length"
        file["names"] = ["a", "bc"]
        file.create_dataset("images", data=IMAGES, chunks=(2, 1, 8, 8), compression="gzip", shuffle=True)
        file["images"].attrs["unit"] = "of any length"
    assert np.array_equal(read(tmp_path / "f.h5").images, IMAGES)


def test_h5_without_images(tmp_path):
    write_h5(tmp_path / "f.h5", pictures=IMAGES)
    assert "no array named 'images'" in refusal(tmp_path / "f.h5")


@pytest.mark.parametrize("form", [(5, 6, 4), (5, 24), (6, 4), (24,)])
def test_one_channel_may_be_left_out(tmp_path, form):
    """28x28 or 784 numbers are a digit, too."""
    network = evsnn.Network(
        [
            evsnn.Input((1, 6, 4)),
            evsnn.Flatten(),
            evsnn.Linear(np.random.default_rng(0).normal(size=(3, 24))),
            evsnn.Readout(),
        ],
        n_steps=2,
    )
    images = np.random.default_rng(1).random(form, dtype=np.float32)
    whole = images.reshape(-1, 1, 6, 4)
    np.save(tmp_path / "x.npy", images)
    with open_inputs(network, str(tmp_path / "x.npy")) as inputs:
        assert np.array_equal(inputs.read().images, whole)
    assert np.array_equal(evsnn.simulate(network, images).outputs, evsnn.simulate(network, whole).outputs)
