"""What a long evaluation says on the way."""

from __future__ import annotations

import time

from evsnn.output.console import print_message

__all__ = ["Estimate", "News"]

SAY_EVERY_S = 10.0


class News:
    """Lines on stderr, not more often than every few seconds."""

    def __init__(self) -> None:
        self.next = time.monotonic() + SAY_EVERY_S

    def __call__(self, line: str) -> None:
        if time.monotonic() >= self.next:
            print_message(line)
            self.next = time.monotonic() + SAY_EVERY_S


class Estimate:
    """How long the rest may take, if time grows with the ANNs' multiply-adds times steps."""

    def __init__(self, total: float):
        self.left, self.done, self.seconds, self.news = total, 0.0, 0.0, News()

    def add(self, work: float, seconds: float) -> None:
        self.left, self.done, self.seconds = self.left - work, self.done + work, self.seconds + seconds

    def __str__(self) -> str:
        return (
            f"about {self.left * self.seconds / self.done / 60:.1f} min left in all"
            if self.done
            else "no estimate yet"
        )
