"""Calibration sets: read slice by slice from every kind of file, refused where they cannot be, and what looks
wrong in them.
"""

import gc
import os
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from evsnn import InputError
from evsnn.conversion.balance import calibration
from evsnn.conversion.balance.calibration import open_calibration, suspicions

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.normal(size=(50, 3, 8, 6)).astype(np.float32)
LABELS = RANDOM.integers(0, 10, 50)
SHAPE = IMAGES.shape[1:]
SLICES = ((0, 50), (3, 9), (40, 50), (0, 1), (7, 14), (6, 7), (49, 50))


def write_h5(path, images=IMAGES, labels=LABELS, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **options)
        if labels is not None:
            file["labels"] = labels


def refusal(source, shape=SHAPE, n_classes=10, **options):
    with pytest.raises(InputError) as caught:
        samples = open_calibration(source, **options).fitted(shape, n_classes)
        samples.read(0, samples.n)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


# What is read


WRITERS = {
    "npz": lambda p: np.savez(p, images=IMAGES, labels=LABELS),
    "compressed npz": lambda p: np.savez_compressed(p, images=IMAGES, labels=LABELS),
    "h5": write_h5,
    "chunks": lambda p: write_h5(p, chunks=(7, 2, 3, 6)),
    "compressed chunks": lambda p: write_h5(p, chunks=(1, 3, 8, 6), compression="gzip", shuffle=True),
    "one chunk": lambda p: write_h5(p, chunks=IMAGES.shape, compression="gzip"),
    "latest h5": lambda p: write_h5_latest(p),
}


def write_h5_latest(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("images", data=IMAGES, chunks=(4, 3, 5, 6))
        file["labels"] = LABELS


@pytest.mark.parametrize("kind", WRITERS)
def test_slices_in_any_order(tmp_path, kind):
    path = str(tmp_path / ("f.npz" if "npz" in kind else "f.h5"))
    WRITERS[kind](path)
    with open_calibration(path) as samples:
        assert (samples.n, samples.shape, samples.source) == (50, SHAPE, path)
        for start, stop in SLICES:
            part = samples.read(start, stop)
            assert part.dtype == np.float32 and np.array_equal(part, IMAGES[start:stop])
        assert samples.labels.dtype == np.int64 and np.array_equal(samples.labels, LABELS)
        assert np.array_equal(np.concatenate(list(samples.fitted(SHAPE, 10).batches())), IMAGES)


@pytest.mark.parametrize("kind", WRITERS)
def test_blocks_of_any_size(tmp_path, monkeypatch, kind):
    """However much is read at once, the slices are the same."""
    WRITERS[kind](tmp_path / "f.npz" if "npz" in kind else tmp_path / "f.h5")
    for block in (5000,) if "npz" in kind else (1, 600, 5000):  # zipfile itself reads 4096 bytes at once
        monkeypatch.setattr(f"evsnn.files.{'arrayfile' if 'npz' in kind else 'imagefile'}.BLOCK_BYTES", block)
        monkeypatch.setattr("evsnn.files.imagefile._BAND_BYTES", 3 * block)
        with open_calibration(tmp_path / "f.npz" if "npz" in kind else tmp_path / "f.h5") as samples:
            for start, stop in SLICES:
                assert np.array_equal(samples.read(start, stop), IMAGES[start:stop])


@pytest.mark.parametrize("dtype", ["f2", "f8", "u1", "i4"])
def test_numbers_are_taken_as_they_are(tmp_path, dtype):
    values = (20 * IMAGES).astype(dtype)
    np.save(tmp_path / "f.npy", values)
    for source in (tmp_path / "f.npy", values):
        assert np.array_equal(open_calibration(source).read(2, 9), values[2:9].astype(np.float32))


def test_arrays_pairs_and_memory_maps(tmp_path):
    np.save(tmp_path / "f.npy", IMAGES)
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    for source in (IMAGES, mapped, IMAGES.tolist(), (IMAGES, LABELS), (mapped, LABELS.tolist())):
        samples = open_calibration(source).fitted(SHAPE, 10)
        assert np.array_equal(samples.read(4, 6), IMAGES[4:6]) and samples.source == "calibration"
        assert (samples.labels is not None) == isinstance(source, tuple)


def test_limit():
    samples = open_calibration((IMAGES, LABELS), limit=7).fitted(SHAPE, 10)
    assert samples.n == 7 and np.array_equal(samples.labels, LABELS[:7])
    assert open_calibration(IMAGES, limit=900).n == 50


@pytest.mark.parametrize("form", [(5, 1, 6, 4), (5, 6, 4), (5, 24), (6, 4), (24,), (1, 6, 4)])
def test_one_channel_and_one_batch_may_be_left_out(form):
    images = RANDOM.random(form).astype(np.float32)
    samples = open_calibration(images).fitted((1, 6, 4), 3)
    assert np.array_equal(samples.read(0, samples.n), images.reshape(-1, 1, 6, 4))


def test_channels_last_may_leave_one_out():
    images = RANDOM.random((5, 6, 4)).astype(np.float32)
    assert open_calibration(images).fitted((6, 4, 1), 3).read(1, 3).shape == (2, 6, 4, 1)


def test_more_than_is_held(tmp_path):
    """200 MB, of which a slice costs a slice."""
    with open(tmp_path / "f.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (200_000, 1, 40, 25)}
        )
        file.truncate(file.tell() + 200_000_000)  # sparse: nothing is written
    with open_calibration(tmp_path / "f.npy") as samples:
        samples = samples.fitted((1, 40, 25), 10)
        tracemalloc.start()
        try:
            assert not samples.read(150_000, 150_064).any()
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()


def test_h5_beyond_the_limit_of_weights_files(tmp_path):
    """2.5 GB, of which a slice costs a slice."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        form = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        form.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        form.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # sparse: nothing is written
        h5py.h5d.create(
            file.id, b"images", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((625_000, 1, 40, 25)), form
        )
    with open_calibration(tmp_path / "f.h5") as samples:
        tracemalloc.start()
        try:
            assert samples.n == 625_000 and not samples.read(600_000, 600_064).any()
            assert tracemalloc.get_traced_memory()[1] < 6_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.slow
def test_files_are_closed(tmp_path):
    """By the context, or when nobody holds the set; a fitted set keeps its file."""
    np.savez(tmp_path / "f.npz", images=IMAGES)
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")

    def n_open():
        gc.collect()
        return sum(
            os.path.realpath(f"/proc/self/fd/{name}") == str(tmp_path / "f.npz")
            for name in os.listdir("/proc/self/fd")
        )

    samples = open_calibration(tmp_path / "f.npz")
    fitted = samples.fitted(SHAPE, 10)
    del samples
    assert n_open() == 1 and np.array_equal(fitted.read(0, 2), IMAGES[:2])
    del fitted
    assert n_open() == 0
    with open_calibration(tmp_path / "f.npz"):
        assert n_open() == 1
    assert n_open() == 0
    np.savez(tmp_path / "f.npz", pictures=IMAGES)
    with pytest.raises(InputError, match="no array named 'images'"):
        open_calibration(tmp_path / "f.npz")
    assert n_open() == 0


# What is refused


@pytest.mark.parametrize(
    "images, words",
    [
        (IMAGES[:0], "there are no calibration samples"),
        (np.float32(3), "one number"),
        (IMAGES > 0, "boolean"),
        (IMAGES.astype(complex), "not numbers"),
        (np.array(["a"]), "not numbers"),
        ([IMAGES[0], IMAGES[1, :2]], "one shape"),
        (
            IMAGES.transpose(0, 2, 3, 1),
            (
                "got shape (50, 8, 6, 3), expected (n, 3, 8, 6). The axes are in another order:"
                " images.transpose(0, 3, 1, 2)"
            ),
        ),
        (IMAGES.reshape(50, -1), "Reshape them: images.reshape(-1, 3, 8, 6)"),
        (IMAGES[:, 0], "The channel axis is missing"),
        (IMAGES[..., 0], "got shape (50, 3, 8), expected (n, 3, 8, 6)"),
        (IMAGES[..., :5], "got shape (50, 3, 8, 5), expected (n, 3, 8, 6)"),
        (np.where(np.arange(50)[:, None, None, None] == 31, np.nan, IMAGES), "images[31]: images hold NaN"),
        (np.where(np.arange(50)[:, None, None, None] == 2, -np.inf, IMAGES), "images[2]: images hold NaN"),
        (IMAGES.astype(np.float64) * 1e300, "images[0]: images hold NaN or infinity"),
    ],
)
def test_images_that_do_not_fit(images, words):
    assert words in refusal(images)


@pytest.mark.parametrize(
    "labels, words",
    [
        (LABELS[:4], "got shape (4,), expected (50,)"),
        (LABELS * 1.0, "not integers"),
        (LABELS - 1, "out of range: got -1"),
        (LABELS + 1, "out of range: got 10, expected 0 to 9"),
        (np.eye(10, dtype=int)[LABELS], "got shape (50, 10)"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, labels, words):
    assert words in refusal((IMAGES, labels))
    np.savez(tmp_path / "f.npz", images=IMAGES, labels=labels)
    assert words in refusal(tmp_path / "f.npz")


@pytest.mark.parametrize("source", [(IMAGES,), (IMAGES, LABELS, LABELS)])
def test_what_is_no_pair(source):
    assert "not a pair" in refusal(source)


def test_limits(monkeypatch):
    assert "limit 0" in refusal(IMAGES, limit=0)
    monkeypatch.setattr(calibration, "MAX_SAMPLES", 49)
    assert "too many samples" in refusal(IMAGES)
    assert open_calibration(IMAGES, limit=49).n == 49


def test_files_that_are_no_sets(tmp_path):
    assert "cannot be opened" in refusal(tmp_path / "none.npz")
    (tmp_path / "f").write_text("hello, world")
    assert "is not a file of images" in refusal(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"")
    assert "is empty" in refusal(tmp_path / "f")
    write_h5(tmp_path / "f.h5", chunks=(7, 3, 8, 6), compression="gzip")
    data = (tmp_path / "f.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    assert "cut.h5" in refusal(tmp_path / "cut.h5")
    np.savez_compressed(tmp_path / "f.npz", images=IMAGES)
    flipped = bytearray((tmp_path / "f.npz").read_bytes())
    flipped[len(flipped) // 2] ^= 0x55
    (tmp_path / "f.npz").write_bytes(flipped)
    assert "f.npz:/images" in refusal(tmp_path / "f.npz")
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("images.npy", b"nothing of the kind")
    assert ".npy format" in refusal(tmp_path / "f.npz")


# What looks wrong


@pytest.mark.parametrize(
    "images, words",
    [
        (IMAGES, None),
        (np.abs(IMAGES) / 8, None),
        ((IMAGES > 0).astype(np.uint8), None),
        (IMAGES[:31], "only 31 calibration samples"),
        (IMAGES[:1], "there is only 1 calibration sample;"),
        (np.float32(1e12) * IMAGES, "few models read"),  # whole, as all large numbers of float32 are
        ((40 * np.abs(IMAGES)).clip(0, 255).astype(np.uint8), "whole numbers from 0 to"),
        ((40 * np.abs(IMAGES)).clip(0, 255).round(), "like pixels before scaling"),
        (60 * IMAGES, None),  # decibels and cepstral coefficients
        (6000 * IMAGES, "few models read"),
        ((6000 * IMAGES).round(), "like readings of a converter before scaling"),
        (0 * IMAGES, "50 of the first 50 calibration samples are the same value throughout"),
        (
            np.where(np.arange(50)[:, None, None, None] == 4, np.float32(0.5), IMAGES),
            "1 of the first 50 calibration samples are the same value",
        ),
        (np.repeat(IMAGES[:1], 50, axis=0), "49 of the first 50 calibration samples are copies"),
    ],
)
def test_suspicions(images, words):
    found = suspicions(open_calibration(images))
    told = suspicions(open_calibration(images), own_scale=True)
    assert not any("scal" in line for line in told)
    assert (found == ()) if words is None else any(words in line for line in found), found
    assert all("\n" not in line for line in found)
