"""Fixtures and hooks that all test modules share: markers by place, and why tests were skipped."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of firmware are marked by their folder."""
    for item in items:
        if HERE / "firmware" in item.path.parents:
            item.add_marker(pytest.mark.firmware)


def pytest_terminal_summary(terminalreporter) -> None:
    """How many tests were skipped, and why: a green run that skipped the emulators says so."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "no reason"
        for report in skipped
    )
    if reasons:
        terminalreporter.section(f"{len(skipped)} skipped")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")
