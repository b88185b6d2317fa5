"""Work on several threads gives what one gives."""

from __future__ import annotations

import threading

import pytest

from evsnn.parallel import in_parallel, usable_cores


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_values_stand_in_the_order_of_their_items(threads):
    assert in_parallel(lambda x: x * x, range(50), threads) == [x * x for x in range(50)]
    assert in_parallel(str, [], threads) == [] and in_parallel(str, [3], threads) == ["3"]


def test_several_threads_work():
    met = threading.Barrier(2, timeout=60)
    assert len(set(in_parallel(lambda _: met.wait() * 0 + threading.get_ident(), range(2), 2))) == 2


def test_what_fails_is_raised_when_what_had_begun_has_ended():
    begun, ended = [], []

    def work(x: int) -> None:
        if x == 0:
            raise ValueError("first")
        begun.append(x)
        ended.append(x)

    with pytest.raises(ValueError, match="first"):
        in_parallel(work, range(8), 4)
    assert ended == begun


def test_cores_are_counted():
    assert usable_cores() >= 1
