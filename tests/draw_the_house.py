"""Draw the packages and their rooms, from the imports, into docs/figures/architecture.svg.

    python tests/draw_the_house.py            # write the picture
    python tests/draw_the_house.py --check    # exit status 1 if the file is not what would be written

The floors of a package stand from the ground up: a room imports lower rooms only. Arrows that follow from
others are left out. The same imports give the same bytes: no time, no library, no chance.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from html import escape

from house import ROOT, arrows, modules, trees
from plan_of_the_house import floors, reduced, room_graph

__all__ = ["FILE", "draw"]

FILE = ROOT / "docs" / "figures" / "architecture.svg"

# Sizes in pixels. Text is monospaced, so that its width is known without a font.
CHARACTER, TITLE_CHARACTER = 6.75, 7.9
ROW, TITLE_ROW = 15, 22
PADDING, COLUMN_GAP, BOX_GAP = 10, 14, 22
FLOOR_GAP, GAP_PER_ARROW = 30, 2.5  # between floors, where arrows bend
MARGIN, LABELS = 18, 26  # around a house; left of its floors, for their numbers
HEAD = 62  # above its highest floor
MOST_ROWS = 20  # of a column
STARTS = 8  # orders from which the best one is sought

STYLE = """
  text {
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: 11px; fill: #3d4a5c;
  }
  .title { font-size: 13px; font-weight: 700; fill: #16202e; }
  .house-title { font-size: 17px; font-weight: 700; fill: #16202e; }
  .part { font-weight: 700; fill: #2f5d8c; }
  .quiet { fill: #6a788c; }
  .page { fill: #ffffff; }
  .house { fill: #f6f8fb; stroke: #d3dbe6; }
  .floor { fill: #ebeff5; }
  .room { fill: #ffffff; stroke: #b9c5d4; }
  .base { fill: none; stroke: #8d9bb0; stroke-dasharray: 5 4; }
  .package { fill: #3b78b5; }
  .module { fill: #93a1b5; }
  .command { fill: #d9902f; }
  .arrow { fill: none; stroke: #77879c; stroke-width: 1.3; }
  .tip { fill: #77879c; }
  @media (prefers-color-scheme: dark) {
    text { fill: #b8c4d4; }
    .title, .house-title { fill: #eef3f9; }
    .part { fill: #86b8ec; }
    .quiet { fill: #8d9bb0; }
    .page { fill: #0d1117; }
    .house { fill: #131a23; stroke: #2b3645; }
    .floor { fill: #19222d; }
    .room { fill: #202b38; stroke: #42526a; }
    .base { stroke: #6f8098; }
    .package { fill: #4f94d8; }
    .module { fill: #73839a; }
    .command { fill: #e0a04a; }
    .arrow { stroke: #8496ae; }
    .tip { fill: #8496ae; }
  }
"""

Column = list[tuple[str, str]]
"""Lines of a box: text and class."""


@dataclass(eq=False)
class Box:
    """A room, or a bend in an arrow that passes a floor.

    Parameters
    ----------
    name : str
    floor : int
    kind : {"package", "module", "command", "bend"}
    columns : list of Column
        What it holds, side by side.
    x, y : float
        Its middle, and its upper edge.
    """

    name: str
    floor: int
    kind: str
    columns: list[Column] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @cached_property
    def width(self) -> float:
        if self.kind == "bend":
            return 4
        inner = sum(_width(column) for column in self.columns) + COLUMN_GAP * (len(self.columns) - 1)
        return max(inner, TITLE_CHARACTER * len(self.name), 40) + 2 * PADDING

    @property
    def height(self) -> float:
        rows = max(map(len, self.columns), default=0)
        return TITLE_ROW + 8 + (rows and rows * ROW + 4)


def _width(column: Column) -> float:
    return max((CHARACTER * len(text) for text, _ in column), default=0)


# What stands in a box


def _columns(package: str) -> list[Column]:
    """A package's own modules, then its packages, each with the higher modules above those they import."""
    own, parts = _members(package)
    groups = [[(name, "") for name in own], *(_listed(package, part) for part in parts)]
    columns: list[Column] = []
    for group in filter(None, groups):
        if columns and len(columns[-1]) + len(group) <= MOST_ROWS:
            columns[-1] += group
        else:
            columns.append(group)
    return columns


def _listed(package: str, part: str) -> Column:
    """An inner package as one list, its modules moved to the right."""
    own, parts = _members(f"{package}.{part}")
    lines = [(name, "") for name in own]
    for inner in parts:
        lines += _listed(f"{package}.{part}", inner)
    return [(f"{part}/", "part"), *((f"\u00a0{text}", kind) for text, kind in lines)]


def _members(package: str) -> tuple[list[str], list[str]]:
    """Modules and packages directly in a package, from the highest floor down."""
    graph = room_graph(package, modules(), arrows())
    floor = floors(graph)
    ordered = sorted(graph, key=lambda name: (-floor[name], name))
    is_package = {name: modules()[f"{package}.{name}"].name == "__init__.py" for name in ordered}
    return [n for n in ordered if not is_package[n]], [n for n in ordered if is_package[n]]


def _kind(name: str) -> str:
    if modules()[name].name == "__init__.py":
        return "package"
    functions = (node.name for node in trees()[name].body if isinstance(node, ast.FunctionDef))
    return "command" if "main" in functions else "module"


# Where boxes stand


class House:
    """A package: its rooms on their floors, and the arrows between them.

    Parameters
    ----------
    package : str
    base : list of str
        Rooms of another package that it imports; drawn as its base.
    """

    def __init__(self, package: str, base: Sequence[str] = ()):
        self.package, self.base = package, base
        graph = room_graph(package, modules(), arrows())
        floor = floors(graph)
        self.n_floors = 1 + max(floor.values())
        self.rooms = {name: self._room(name, floor[name]) for name in sorted(graph)}
        self.levels: list[list[Box]] = [[] for _ in range(self.n_floors)]
        for room in self.rooms.values():
            self.levels[room.floor].append(room)
        self.paths = [
            self._path(self.rooms[source], self.rooms[target])
            for source, targets in sorted(reduced(graph).items())
            for target in sorted(targets)
        ]
        self.above: dict[Box, list[Box]] = defaultdict(list)
        self.below: dict[Box, list[Box]] = defaultdict(list)
        for path in self.paths:
            for upper, lower in zip(path, path[1:]):
                self.below[upper].append(lower)
                self.above[lower].append(upper)
        self._order()
        self._place()

    def _room(self, name: str, floor: int) -> Box:
        whole = f"{self.package}.{name}"
        kind = _kind(whole)
        return Box(name, floor, kind, _columns(whole) if kind == "package" else [])

    def _path(self, source: Box, target: Box) -> list[Box]:
        """From a room down to another, with a bend on each floor between them."""
        bends = [Box("", i, "bend") for i in range(source.floor - 1, target.floor, -1)]
        for bend in bends:
            self.levels[bend.floor].append(bend)
        return [source, *bends, target]

    def _order(self) -> None:
        """Order each floor so that few arrows cross and all are short.

        From each of several orders, boxes change places as long as that helps; the best result is taken.
        """
        given = [list(level) for level in self.levels]
        tried = []
        for start in range(STARTS):
            for level, boxes in zip(self.levels, given):
                level[:] = [box for _, box in sorted(enumerate(boxes), key=lambda item: item[0] * start % 11)]
            self._spread_out(3)
            for neighbours, levels in ((self.below, self.levels), (self.above, self.levels[::-1])):
                for level in levels:
                    level.sort(key=lambda box: _mean([b.x for b in neighbours[box]], box.x))
                    self._spread_out(3)
            tried.append((self._improve(), [list(level) for level in self.levels]))
        _, self.levels = min(tried, key=lambda item: item[0])

    def _improve(self) -> float:
        """Move boxes to better places of their floors; the cost in the end."""
        best, better = self._cost(), True
        while better:
            better = False
            for level in self.levels:
                for box in list(level):
                    at = level.index(box)
                    for to in range(len(level)):
                        level.remove(box)
                        level.insert(to, box)
                        if (cost := self._cost()) < best:
                            best, at, better = cost, to, True
                    level.remove(box)
                    level.insert(at, box)
        return best

    def _cost(self) -> float:
        """How far arrows lead sideways, and 40 pixels for each two that cross."""
        self._spread_out(3)
        cost = 0.0
        for level in self.levels:
            pairs = [(upper.x, lower.x) for upper in level for lower in self.below[upper]]
            cost += sum(abs(a - b) for a, b in pairs)
            cost += 40 * sum(
                (a - c) * (b - d) < 0 for i, (a, b) in enumerate(pairs) for c, d in pairs[i + 1 :]
            )
        return round(cost, 3)

    def _spread_out(self, n_rounds: int) -> None:
        """Boxes of each floor side by side, moved towards those that they are joined with, in order."""
        for level in self.levels:
            x = -sum(box.width + BOX_GAP for box in level) / 2
            for box in level:
                box.x = x + (box.width + BOX_GAP) / 2
                x += box.width + BOX_GAP
        for _ in range(n_rounds):
            for level in [*self.levels, *self.levels[::-1]]:
                wanted = [_mean([b.x for b in self.above[box] + self.below[box]], box.x) for box in level]
                gaps = [(a.width + b.width) / 2 + BOX_GAP for a, b in zip(level, level[1:])]
                weights = [4.0 if box.kind == "bend" else 1.0 for box in level]
                for box, x in zip(level, _nearest(wanted, gaps, weights)):
                    box.x = x

    def _place(self) -> None:
        """Where each box stands."""
        self._spread_out(60)
        left = min(box.x - box.width / 2 for level in self.levels for box in level)
        for box in (box for level in self.levels for box in level):
            box.x = round(box.x - left + MARGIN + LABELS, 1)
        self.width = MARGIN + max(box.x + box.width / 2 for level in self.levels for box in level)
        self.width = max(self.width, 2 * (MARGIN + PADDING) + CHARACTER * len(", ".join(self.base)))
        self.tops, self.bottoms = [0.0] * self.n_floors, [0.0] * self.n_floors
        y = float(HEAD)
        for floor in range(self.n_floors - 1, -1, -1):
            level = self.levels[floor]
            height = max((box.height for box in level if box.kind != "bend"), default=0)
            for box in level:
                box.y = y if box.kind == "bend" else y + height - box.height
            self.tops[floor], self.bottoms[floor] = y, y + height
            y += height + FLOOR_GAP + GAP_PER_ARROW * sum(len(self.below[box]) for box in level)
        self.height = self.bottoms[0] + MARGIN
        if self.base:
            self.height += FLOOR_GAP + 2 * ROW + 8

    # As SVG

    def draw(self, left: float, top: float) -> Iterator[str]:
        """Its elements, its upper left corner at (left, top)."""
        yield f'<g transform="translate({left:g} {top:g})">'
        yield _rect("house", 0, 0, self.width, self.height, 10)
        yield _text("house-title", MARGIN, 28, self.package)
        yield _text("quiet", MARGIN, 44, f"{len(self.rooms)} rooms on {self.n_floors} floors")
        for floor, (y, bottom) in enumerate(zip(self.tops, self.bottoms)):
            yield _rect("floor", 6, y - 9, self.width - 12, bottom - y + 18, 6)
            yield _text("quiet", MARGIN - 3, bottom - 9, str(floor))
        if self.base:
            yield from self._draw_base()
        yield from self._lines()
        for room in self.rooms.values():
            yield from _draw_room(room)
        yield "</g>"

    def _draw_base(self) -> Iterator[str]:
        height = 2 * ROW + 8
        y = self.height - MARGIN - height
        yield _rect("base", MARGIN, y, self.width - 2 * MARGIN, height, 6)
        yield _text("quiet", MARGIN + PADDING, y + 16, "stands on these rooms of evsnn:")
        yield _text("", MARGIN + PADDING, y + 16 + ROW, ", ".join(self.base))
        yield _arrow(MARGIN, y + height / 2, -MARGIN)

    def _lines(self) -> Iterator[str]:
        """Arrows from importers down to what they import."""
        out, into = self._ports(self.below, below=True), self._ports(self.above, below=False)
        for path in self.paths:
            source, target = path[0], path[-1]
            x, y = out[source, path[1]], source.y + source.height
            line = f"M{x:.1f} {y:.1f}"
            if y < self.bottoms[source.floor]:
                y = self.bottoms[source.floor]
                line += f"V{y:.1f}"
            for box in path[1:]:
                to_x = into[target, path[-2]] if box is target else box.x
                to_y = self.tops[box.floor]
                middle = (y + to_y) / 2
                line += f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
                end = target.y - 5 if box is target else self.bottoms[box.floor]
                line += f"V{end:.1f}"
                x, y = to_x, end
            yield f'<path class="arrow" d="{line}"/>'
            yield f'<path class="tip" d="M{x:.1f} {target.y:.1f}l-4 -8h8z"/>'

    def _ports(self, neighbours: Mapping[Box, list[Box]], below: bool) -> dict[tuple[Box, Box], float]:
        """Where the arrows of a box leave it, or arrive: side by side, in the order of where they lead."""
        ports = {}
        for box in self.rooms.values():
            others = sorted(neighbours[box], key=lambda other: other.x)
            step = min(26.0, (box.width - 24) / max(1, len(others) - 1))
            for i, other in enumerate(others):
                ports[box, other] = box.x + (i - (len(others) - 1) / 2) * step
        return ports


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _nearest(wanted: Sequence[float], gaps: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The places nearest to the wanted ones, in weighted squares, that keep order and gaps.

    The algorithm is that of pooled adjacent violators.
    """
    offsets = [sum(gaps[:i]) for i in range(len(wanted))]
    groups: list[tuple[float, float, int]] = []  # mean, weight and number of places that move together
    for place, offset, weight in zip(wanted, offsets, weights):
        groups.append((place - offset, weight, 1))
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:
            (a, wa, na), (b, wb, nb) = groups[-2:]
            groups[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    places = [mean for mean, _, n in groups for _ in range(n)]
    return [place + offset for place, offset in zip(places, offsets)]


def _rect(kind: str, x: float, y: float, width: float, height: float, radius: float = 0) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size} rx="{radius:g}"/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    of_class = f' class="{kind}"' if kind else ""
    return f'<text{of_class} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _arrow(x: float, y: float, to: float) -> str:
    """A straight one, sideways."""
    back = 8 if to < x else -8
    line = f'<path class="arrow" d="M{x:.1f} {y:.1f}H{to + back / 2:.1f}"/>'
    return f'{line}<path class="tip" d="M{to:.1f} {y:.1f}l{back} -4v8z"/>'


def _draw_room(room: Box) -> Iterator[str]:
    left = room.x - room.width / 2
    yield _rect("room", left, room.y, room.width, room.height, 6)
    yield _rect(room.kind, left + 5, room.y + 6, 3, room.height - 12, 1.5)
    yield _text("title", left + PADDING + 4, room.y + 20, room.name)
    x = left + PADDING + 4
    for column in room.columns:
        for row, (text, kind) in enumerate(column):
            if text:
                yield _text(kind, x, room.y + TITLE_ROW + 14 + row * ROW, text)
        x += _width(column) + COLUMN_GAP


def _legend(y: float) -> Iterator[str]:
    x = float(MARGIN)
    for kind in ("package", "module", "command"):
        yield _rect(kind, x, y - 9, 10, 10, 2)
        yield _text("quiet", x + 16, y, kind)
        x += 16 + CHARACTER * len(kind) + 20
    yield _arrow(x, y - 4, x + 30)
    yield _text("quiet", x + 38, y, "imports; arrows that follow from others are left out")


@cache
def draw() -> str:
    """The picture."""
    base = sorted(
        {
            arrow.target.split(".")[1]
            for arrow in arrows()
            if arrow.source.startswith("firmware_export") and arrow.target.startswith("evsnn.")
        }
    )
    houses = [House("evsnn"), House("firmware_export", base)]
    ground = MARGIN + max(house.height for house in houses)
    width = MARGIN + sum(house.width + MARGIN for house in houses)
    height = ground + 2 * MARGIN + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-labelledby="title">',
        '<title id="title">The packages of evsnn and firmware_export, floor by floor, and who imports whom'
        "</title>",
        f"<style>{STYLE}</style>",
        _rect("page", 0, 0, width, height, 0),
    ]
    left = float(MARGIN)
    for house in houses:
        lines += house.draw(left, ground - house.height)
        left += house.width + MARGIN
    return "\n".join([*lines, *_legend(ground + MARGIN + 6), "</svg>", ""])


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("--check", action="store_true", help="compare the file instead of writing it")
    options = p.parse_args(argv)
    text, name = draw(), FILE.relative_to(ROOT)
    if options.check:
        current = FILE.exists() and FILE.read_text(encoding="utf-8") == text
        print(f"{name} is current" if current else f"{name} is not current: run tests/draw_the_house.py")
        return int(not current)
    FILE.write_text(text, encoding="utf-8")
    print(f"{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
