"""The plan of the house as numbers: rooms, floors, imports, circles, sizes and repeated lines.

    python tests/plan_of_the_house.py                   # this checkout
    python tests/plan_of_the_house.py --root FOLDER     # another checkout, an older one too
    python tests/plan_of_the_house.py --json            # one JSON object

Files are parsed, never imported. A *room* is a package or a module at the top level of a package. A *floor*
holds the rooms whose longest chain of imports down to the ground has one length. `house.py` says which order
of floors is meant, `test_floors.py` holds it; this script only measures.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from house import ROOT, Arrow, hinted, rooms

__all__ = [
    "Block",
    "Module",
    "Plan",
    "arrows_of",
    "circles",
    "floors",
    "graph_of",
    "measure",
    "read",
    "reduced",
    "repeated",
    "room_graph",
]

PACKAGES = ("evsnn", "firmware_export")
LEAST_LINES = 6
"""Lines from which on a repeated run counts as a block."""

Graph = Mapping[str, set[str]]
"""What each node points to; every node is a key."""


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed file.

    Parameters
    ----------
    name : str
        Dotted; a package's is that of its ``__init__``.
    text : str
    tree : ast.Module
    is_package : bool
        Whether it is an ``__init__`` file.
    """

    name: str
    text: str
    tree: ast.Module
    is_package: bool

    @property
    def n_lines(self) -> int:
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Place:
    """Lines `first` to `last` of a module, counted from 1."""

    module: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.module}:{self.first}-{self.last}"

    def holds(self, other: Place) -> bool:
        """Whether the other place lies within this one."""
        return self.module == other.module and self.first <= other.first and other.last <= self.last


@dataclass(frozen=True)
class Block:
    """A run of lines that stands in several places.

    Parameters
    ----------
    n_lines : int
        Without blank lines, comments and imports.
    places : tuple of Place
    """

    n_lines: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Size:
    """Something long: its name and its number of lines."""

    name: str
    n_lines: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of one package.

    Parameters
    ----------
    package : str
    lines : int
        Of all files.
    packages : int
        ``__init__`` files.
    modules : int
        All other files.
    mean_lines : float
        Per module.
    rooms : int
    floors : int
        Rooms of the longest chain of imports between rooms; a circle counts as one room.
    module_arrows, room_arrows : int
        Pairs (importer, imported), those inside functions too, those for type hints not.
    circles : tuple of tuple of str
        Modules that import each other, directly or by way of others.
    circles_with_hints : tuple of tuple of str
        The same with imports for type hints, which never run.
    room_circles : tuple of tuple of str
        Rooms that import each other.
    longest_module, longest_function : Size
    blocks : tuple of Block
    block_lines : int
        Lines that stand in a block, each place counted.
    functions, documented_functions : int
        Public functions and methods, and those with a docstring.
    """

    package: str
    lines: int
    packages: int
    modules: int
    mean_lines: float
    rooms: int
    floors: int
    module_arrows: int
    room_arrows: int
    circles: tuple[tuple[str, ...], ...]
    circles_with_hints: tuple[tuple[str, ...], ...]
    room_circles: tuple[tuple[str, ...], ...]
    longest_module: Size
    longest_function: Size
    blocks: tuple[Block, ...]
    block_lines: int
    functions: int
    documented_functions: int


def read(root: Path, package: str) -> dict[str, Module]:
    """Every file of a package by its dotted name."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, text, ast.parse(text, str(path)), is_package)
    return found


# Imports


def arrows_of(modules: Mapping[str, Module], hints: bool = False) -> tuple[Arrow, ...]:
    """All imports between the modules, anywhere in a file.

    Parameters
    ----------
    modules : mapping of str to Module
    hints : bool
        Whether imports for type hints alone are meant, too.
    """
    return tuple(arrow for module in modules.values() for arrow in _arrows(module, modules, hints))


def _arrows(module: Module, modules: Mapping[str, Module], hints: bool) -> Iterator[Arrow]:
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    skipped = set() if hints else hinted(module.tree)
    for node in ast.walk(module.tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            inner = [f"{source}.{alias.name}" for alias in node.names]
            targets = [name if name in modules else source for name in inner]
        else:
            continue
        for target in dict.fromkeys(targets):
            if target in modules and "." in target:  # the package itself holds names, not code
                yield Arrow(module.name, target, node.lineno)


def graph_of(nodes: Iterable[str], arrows: Iterable[Arrow]) -> dict[str, set[str]]:
    """What each module imports."""
    graph: dict[str, set[str]] = {node: set() for node in nodes}
    for arrow in arrows:
        if arrow.target != arrow.source:
            graph[arrow.source].add(arrow.target)
    return graph


def room_graph(package: str, modules: Iterable[str], arrows: Iterable[Arrow]) -> dict[str, set[str]]:
    """What each room of a package imports."""
    depth = package.count(".") + 1
    inside = (name.split(".") for name in modules if name.startswith(f"{package}."))
    graph: dict[str, set[str]] = {parts[depth]: set() for parts in inside}
    for arrow in arrows:
        found = rooms(arrow)
        if found and found[0] == package:
            graph[found[1]].add(found[2])
    return graph


# Graphs


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """Groups of nodes that reach each other (strongly connected components of more than one), sorted."""
    return sorted(tuple(sorted(group)) for group in _components(graph) if len(group) > 1)


def _components(graph: Graph) -> list[set[str]]:
    """Strongly connected components, each behind those that it points to (Tarjan 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: list[str] = []
    closed: set[str] = set()
    found: list[set[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        open_.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
            if target not in closed:
                lowest[node] = min(lowest[node], lowest[target])
        if lowest[node] == order[node]:
            first = open_.index(node)
            found.append(set(open_[first:]))
            closed.update(open_[first:])
            del open_[first:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def floors(graph: Graph) -> dict[str, int]:
    """The floor of each node: 0 if it points to nothing, else one above the highest that it points to.

    The nodes of a circle share a floor.
    """
    floor: dict[str, int] = {}
    for group in _components(graph):
        below = [floor[target] for node in group for target in graph[node] - group]
        floor |= dict.fromkeys(group, 1 + max(below, default=-1))
    return floor


def reduced(graph: Graph) -> dict[str, set[str]]:
    """A graph without circles, less the arrows that follow from others."""
    below: dict[str, set[str]] = {}
    for group in _components(graph):
        (node,) = group
        below[node] = graph[node].union(*(below[target] for target in graph[node]))
    return {
        node: {t for t in targets if not any(t in below[other] for other in targets)}
        for node, targets in graph.items()
    }


# Sizes


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Qualified name, node, and whether it is public, of all functions and methods."""

    def walk(node: ast.AST, name: str, public: bool) -> Iterator:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inner, is_public = f"{name}{child.name}", public and not child.name.startswith("_")
                if isinstance(child, ast.ClassDef):
                    yield from walk(child, f"{inner}.", is_public)
                else:
                    yield inner, child, is_public
                    yield from walk(child, f"{inner}.", False)
            else:
                yield from walk(child, name, public)

    return walk(tree, "", True)


def _code_lines(module: Module) -> list[tuple[int, str]]:
    """Number and text of each line, spaces normalised: no blank lines, comments, docstrings and imports."""
    left_out = {
        line
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.Import, ast.ImportFrom)) or _is_docstring(node)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    comments = {
        token.start[0]: token.start[1]
        for token in tokenize.generate_tokens(io.StringIO(module.text).readline)
        if token.type == tokenize.COMMENT
    }
    texts = (
        (number, " ".join(line[: comments.get(number)].split()))
        for number, line in enumerate(module.text.splitlines(), start=1)
    )
    return [(number, text) for number, text in texts if text and number not in left_out]


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def repeated(modules: Iterable[Module], least: int = LEAST_LINES) -> list[Block]:
    """Runs of at least `least` equal lines that stand in two or more places, the costliest first.

    A run is as long as it can be: the lines before it differ, and so do those behind it. A run all of whose
    places lie within longer runs is left out.
    """
    numbers: dict[str, int] = {}
    ids: list[int] = []  # of lines, one file after another, with a number of its own between files
    where: list[tuple[str, int]] = []
    for module in modules:
        for number, text in _code_lines(module):
            ids.append(numbers.setdefault(text, len(numbers)))
            where.append((module.name, number))
        ids.append(-1 - len(where))
        where.append((module.name, 0))

    windows: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i in range(len(ids) - least):
        window = tuple(ids[i : i + least])
        if min(window) >= 0:
            windows[window].append(i)
    found: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for starts in windows.values():
        for n, first in enumerate(starts):
            for second in starts[n + 1 :]:
                if first and ids[first - 1] == ids[second - 1]:
                    continue  # part of a longer run
                length = least
                while ids[first + length] == ids[second + length]:
                    length += 1
                length = min(length, second - first)
                if length >= least:
                    found[tuple(ids[first : first + length])] |= {first, second}

    blocks: list[Block] = []
    taken: list[Place] = []
    for lines, at in sorted(found.items(), key=lambda item: (-len(item[0]), min(item[1]))):
        ends = ((where[i], where[i + len(lines) - 1][1]) for i in sorted(at))
        places = tuple(Place(name, first, last) for (name, first), last in ends)
        if not all(any(other.holds(place) for other in taken) for place in places):
            blocks.append(Block(len(lines), places))
            taken += places
    return sorted(blocks, key=lambda b: (-b.n_lines * (len(b.places) - 1), str(b.places[0])))


def measure(root: Path, package: str) -> Plan:
    """The plan of a package below `root`."""
    modules = read(root, package)
    arrows = arrows_of(modules)
    graph, of_rooms = graph_of(modules, arrows), room_graph(package, modules, arrows)
    files = [module for module in modules.values() if not module.is_package]
    functions = [
        (f"{name}.{function}", node, public)
        for name, module in modules.items()
        for function, node, public in _functions(module.tree)
    ]
    public = [node for _, node, is_public in functions if is_public]
    sizes = [Size(name, 1 + (node.end_lineno or node.lineno) - node.lineno) for name, node, _ in functions]
    blocks = repeated(modules.values())
    lines = {(p.module, n) for block in blocks for p in block.places for n in range(p.first, p.last + 1)}
    return Plan(
        package=package,
        lines=sum(module.n_lines for module in modules.values()),
        packages=len(modules) - len(files),
        modules=len(files),
        mean_lines=round(sum(module.n_lines for module in files) / max(1, len(files)), 1),
        rooms=len(of_rooms),
        floors=1 + max(floors(of_rooms).values(), default=-1),
        module_arrows=sum(map(len, graph.values())),
        room_arrows=sum(map(len, of_rooms.values())),
        circles=tuple(circles(graph)),
        circles_with_hints=tuple(circles(graph_of(modules, arrows_of(modules, hints=True)))),
        room_circles=tuple(circles(of_rooms)),
        longest_module=max((Size(m.name, m.n_lines) for m in files), key=lambda s: s.n_lines),
        longest_function=max(sizes, key=lambda s: s.n_lines, default=Size("", 0)),
        blocks=tuple(blocks),
        block_lines=len(lines),
        functions=len(public),
        documented_functions=sum(ast.get_docstring(node) is not None for node in public),
    )


# What people read


def _rows(plan: Plan) -> dict[str, str]:
    share = plan.documented_functions / max(1, plan.functions)
    return {
        "lines": f"{plan.lines:,}",
        "packages": str(plan.packages),
        "modules": str(plan.modules),
        "lines per module, mean": f"{plan.mean_lines:g}",
        "rooms": str(plan.rooms),
        "floors": str(plan.floors),
        "imports between modules": str(plan.module_arrows),
        "imports between rooms": str(plan.room_arrows),
        "circles of modules": str(len(plan.circles)),
        "the same with type hints": str(len(plan.circles_with_hints)),
        "circles of rooms": str(len(plan.room_circles)),
        "lines of the longest module": str(plan.longest_module.n_lines),
        "lines of the longest function": str(plan.longest_function.n_lines),
        f"repeated blocks of {LEAST_LINES} lines or more": str(len(plan.blocks)),
        "lines in them": str(plan.block_lines),
        "public functions": str(plan.functions),
        "of these with a docstring": f"{share:.0%}",
    }


def text_of(plans: Sequence[Plan]) -> str:
    """The numbers as a table, then names: what is longest, what is a circle, what is repeated."""
    columns = [_rows(plan) for plan in plans]
    width = max(map(len, columns[0]))
    lines = [" " * width + "".join(f"{plan.package:>18}" for plan in plans)]
    lines += [f"{name:{width}}" + "".join(f"{c[name]:>18}" for c in columns) for name in columns[0]]
    for plan in plans:
        lines += ["", plan.package]
        lines += [f"  longest module    {plan.longest_module.name}"]
        lines += [f"  longest function  {plan.longest_function.name}"]
        for what, groups in (
            ("circle", plan.circles),
            ("circle with type hints", plan.circles_with_hints),
            ("circle of rooms", plan.room_circles),
        ):
            lines += [f"  {what}: {' <-> '.join(group)}" for group in groups]
        for block in plan.blocks:
            lines += [f"  {block.n_lines:3} lines  {', '.join(map(str, block.places))}"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    options = p.parse_args(argv)
    plans = [measure(options.root, name) for name in PACKAGES if (options.root / name).is_dir()]
    if not plans:
        p.error(f"{options.root} holds none of the packages {', '.join(PACKAGES)}")
    if options.json:
        print(json.dumps({plan.package: asdict(plan) for plan in plans}, indent=2))
    else:
        print(text_of(plans))
    return 0


if __name__ == "__main__":
    sys.exit(main())
