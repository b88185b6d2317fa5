"""Tables: rows of text and numbers, drawn with rich if it is installed, else tab-separated."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from .. import text
from . import console

__all__ = ["Column", "Table", "apportion", "draw"]

_WIDTH = 160  # columns of a table if stdout is not a terminal


@dataclass(frozen=True)
class Column:
    """A column: its title, which may break before a slash, and the format of its numbers.

    `spec` is a format without grouping; "" is for text.
    """

    title: str
    spec: str = ""

    def cell(self, value: str | float | Decimal | None, grouped: bool) -> str:
        """`value` as text, with thousands grouped or not; None is a dash."""
        if value is None:
            return "-"
        return (
            text.printable(value)
            if isinstance(value, str)
            else format(value, f",{self.spec}" if grouped else self.spec)
        )


@dataclass(frozen=True)
class Table:
    """Columns, rows of one value per column, and at most one row of totals."""

    columns: tuple[Column, ...]
    rows: tuple[tuple, ...]
    total: tuple | None = None

    @classmethod
    def of_facts(cls, facts: Sequence[tuple[str, str]]) -> Table:
        """A table of two columns without titles: the name of a fact, and the fact."""
        return cls((Column(""), Column("")), tuple(facts))

    def cells(self, grouped: bool) -> list[list[str]]:
        """The rows as text, the total last."""
        rows = [*self.rows, *([self.total] if self.total else [])]
        return [[column.cell(value, grouped) for column, value in zip(self.columns, row)] for row in rows]


def apportion(values: Sequence[float], digits: int) -> tuple[list[Decimal], Decimal]:
    """Round values to `digits` decimals so that they sum exactly to the rounded sum (largest remainders).

    Parameters
    ----------
    values : sequence of float
    digits : int
        Decimals, at least 0.

    Returns
    -------
    rounded : list of Decimal
        Each differs from its value by less than one unit of the last digit.
    total : Decimal
    """
    scaled = [Fraction(value) * 10**digits for value in values]
    units = [math.floor(value) for value in scaled]
    by_remainder = sorted(range(len(units)), key=lambda i: units[i] - scaled[i])
    for i in by_remainder[: round(sum(scaled)) - sum(units)]:
        units[i] += 1
    return [Decimal(unit).scaleb(-digits) for unit in units], Decimal(sum(units)).scaleb(-digits)


def draw(tables: Sequence[Table]) -> str:
    """The tables as one text for stdout, an empty line between them."""
    if text.has_extra("rich"):
        return _draw_rich(tables)
    texts = []
    for table in tables:
        titles = (
            [[column.title for column in table.columns]]
            if any(column.title for column in table.columns)
            else []
        )
        texts.append("\n".join("\t".join(row) for row in titles + table.cells(grouped=False)))
    return "\n\n".join(texts)


def _draw_rich(tables: Sequence[Table]) -> str:
    from rich import box
    from rich.console import Console, Group
    from rich.table import Table as RichTable
    from rich.text import Text

    plain = not (getattr(sys.stdout, "encoding", None) or "ascii").lower().startswith("utf")
    drawn: list = []
    for table in tables:
        titled = any(column.title for column in table.columns)
        two_lines = any("/" in column.title for column in table.columns)
        lines = RichTable(
            box=None if not titled else box.ASCII2 if plain else box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0) if titled else (0, 2, 0, 0),
            show_header=titled,
            show_footer=table.total is not None,
            footer_style="bold",
            pad_edge=False,
        )
        cells = table.cells(grouped=True)
        footer = cells.pop() if table.total else [""] * len(table.columns)
        for column, total in zip(table.columns, footer):
            title = (
                column.title.replace("/", "\n/") if "/" in column.title else "\n" * two_lines + column.title
            )
            lines.add_column(
                Text(title),
                Text(total),
                justify="right" if column.spec else "left",
                overflow="fold",
                no_wrap=bool(column.spec),
            )
        for row in cells:
            lines.add_row(*map(Text, row))
        drawn += [Text(""), lines] if drawn and not titled else [lines]
    text, terminal = io.StringIO(), console.is_terminal(sys.stdout)
    Console(
        file=text,
        width=None if terminal else _WIDTH,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        highlight=False,
    ).print(Group(*drawn))
    lines = [line.rstrip() for line in text.getvalue().split("\n")]
    drawn_lines = [
        line for line, before in zip(lines, ["", *lines]) if line or before
    ]  # no two empty lines, none on top
    return "\n".join(drawn_lines).rstrip("\n")
