"""Windows against a loop, always, and against torch where it is installed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from evsnn.network.geometry import Window

SETTINGS = settings(
    deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), max_examples=200
)


@st.composite
def cases(draw, upsampled=False):
    """A window and the size of a map on which at least one output exists."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    window = Window(
        pair(1, 4),
        pair(1, 3),
        (*pair(0, 3), *pair(0, 3)),
        pair(1, 3),
        pair(1, 3) if upsampled else (1, 1),
    )
    size = pair(1, 9)
    assume(min(window.output_size(size)) >= 1)
    return window, size


def by_loop(window: Window, size, axis: int) -> list[list[int]]:
    """The input positions of each output along an axis, -1 off the map: the formula, one number at a time."""
    line = {i * window.upsample[axis]: i for i in range(size[axis])}
    found, start = [], -window.padding[axis]
    end = (size[axis] - 1) * window.upsample[axis] + 1 + window.padding[2 + axis]
    while start + (window.kernel[axis] - 1) * window.dilation[axis] < end:
        found.append([line.get(start + k * window.dilation[axis], -1) for k in range(window.kernel[axis])])
        start += window.stride[axis]
    return found


@given(cases(upsampled=True))
@SETTINGS
def test_taps_reach_and_sizes_are_those_of_a_loop(case):
    window, size = case
    for axis in (0, 1):
        expected = by_loop(window, size, axis)
        assert window.output_size(size)[axis] == len(expected)
        assert window.taps(axis, size[axis]).tolist() == expected
        flat = [i for row in expected for i in row]
        assert window.reach(axis, size[axis]).tolist() == [flat.count(i) for i in range(size[axis])]
        if len(expected) > 1:
            low, high = window.span(axis, 0, len(expected) - 1)
            assert low == -window.padding[axis]
            assert high == low + (len(expected) - 1) * window.stride[axis] + window.extent(axis) - 1
    both = [window.reach(axis, size[axis]).sum() for axis in (0, 1)]
    assert window.fan_out(size) == both[0] * both[1]


def test_counts_take_no_memory_for_kernels():
    window = Window((1, 30_000), padding=(0, 30_000, 0, 29_999), dilation=(1, 2))
    tracemalloc.start()
    try:
        assert window.reach(1, 30_000).sum() == window.fan_out((1, 30_000))
        assert tracemalloc.get_traced_memory()[1] < 40 * 8 * 30_000
    finally:
        tracemalloc.stop()


@given(cases())
@SETTINGS
def test_what_lies_inside_is_that_of_a_loop(case):
    window, size = case
    for axis in (0, 1):
        expected = by_loop(window, size, axis)
        first, last = window.inside(axis, size[axis])
        for row, a, b in zip(expected, first, last):
            assert [k for k, i in enumerate(row) if i >= 0] == list(range(a, b))
        for k in range(window.kernel[axis]):
            outputs, inputs = window.overlap(axis, k, size[axis])
            pairs = [(o, row[k]) for o, row in enumerate(expected) if row[k] >= 0]
            assert list(zip(range(len(expected))[outputs], range(size[axis])[inputs])) == pairs


@given(cases())
@SETTINGS
def test_sizes_and_sums_are_those_of_torch(case):
    torch = pytest.importorskip("torch")
    window, size = case
    rng = np.random.default_rng(0)
    x, weight = (
        rng.integers(-5, 6, size).astype(np.float32),
        rng.integers(-5, 6, window.kernel).astype(np.float32),
    )
    top, left, bottom, right = window.padding
    padded = torch.nn.functional.pad(torch.from_numpy(x)[None, None], (left, right, top, bottom))
    found = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight)[None, None], stride=window.stride, dilation=window.dilation
    )[0, 0].numpy()
    assert found.shape == window.output_size(size)
    assert np.array_equal(found, summed(window, x, weight))


@given(cases(upsampled=True))
@SETTINGS
def test_a_transposed_convolution_is_a_window_on_an_upsampled_map(case):
    torch = pytest.importorskip("torch")
    window, size = case
    assume(window.stride == window.dilation == (1, 1))
    assume(
        all(p < k for p, k in zip(window.padding, window.kernel * 2))
        and window.padding[:2] == window.padding[2:]
    )
    rng = np.random.default_rng(0)
    x, weight = (
        rng.integers(-5, 6, size).astype(np.float32),
        rng.integers(-5, 6, window.kernel).astype(np.float32),
    )
    pads = tuple(k - 1 - p for k, p in zip(window.kernel, window.padding))
    found = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(x)[None, None],
        torch.from_numpy(weight[::-1, ::-1].copy())[None, None],
        stride=window.upsample,
        padding=pads,
    )[0, 0].numpy()
    assert np.array_equal(found, summed(window, x, weight))


def summed(window: Window, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A convolution of one channel by `taps`."""
    padded = np.pad(x, ((0, 1), (0, 1)))  # index -1 is a zero
    ys, xs = (window.taps(axis, x.shape[axis]) for axis in (0, 1))
    return np.einsum("oypx,yx->op", padded[ys[:, :, None, None], xs[None, None]], weight)


def test_a_window_larger_than_its_map_has_no_output():
    assert Window((5, 1)).output_size((4, 4))[0] < 1


def test_names_for_common_windows():
    assert Window((1, 1)).plain and not Window((1, 1), (2, 1)).plain and not Window((1, 2)).plain
    assert Window((2, 3), (2, 3)).tiles and not Window((2, 2), (1, 2)).tiles and Window((2, 3)).area == 6
