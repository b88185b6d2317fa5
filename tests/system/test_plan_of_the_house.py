"""The numbers of the plan, on a house of a few lines; and ours has no circle."""

from __future__ import annotations

import json

import house
import plan_of_the_house
import pytest
from plan_of_the_house import circles, floors, measure, read, reduced, repeated

BLOCK = """\
    total = 0
    for value in values:{comment}
        if  value > 0:
            total += value

        else:
            total -= value
    return total
"""

FILES = {
    "__init__.py": '"""A house."""\n\nfrom .rooms.first import up\n',
    "ground.py": f"import json\n\n\ndef add(values):\n{BLOCK.format(comment='')}",
    "rooms/__init__.py": "",
    "rooms/first.py": (
        "from typing import TYPE_CHECKING\n\n"
        "from ..ground import add\n\n"
        "if TYPE_CHECKING:\n    from ..roof import Roof\n\n\n"
        'def up(values):\n    """Say it."""\n    from . import second\n\n    return second.down, add\n'
    ),
    "rooms/second.py": (
        "from . import first\nfrom house import ground\n\n\n"
        f"def down(values):\n    del first, ground\n{BLOCK.format(comment='  # here, too')}\n\n"
        "def _hidden():\n    pass\n"
    ),
    "roof.py": (
        "import house.rooms.first as first\n\n\n"
        'class Roof:\n    def top(self):\n        """It is."""\n\n        def inner():\n            pass\n\n'
        "        return inner, first\n\n    def _below(self):\n        pass\n"
    ),
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_numbers_of_a_small_house(root):
    plan = measure(root, "house")
    lines = {name: len(text.splitlines()) for name, text in FILES.items()}
    modules = [name for name in FILES if not name.endswith("__init__.py")]
    assert (plan.packages, plan.modules, plan.rooms) == (2, 4, 3)
    assert plan.lines == sum(lines.values())
    assert plan.mean_lines == round(sum(lines[name] for name in modules) / 4, 1)
    assert plan.floors == 3  # ground, rooms, roof
    assert plan.room_arrows == 2  # rooms -> ground, roof -> rooms
    assert plan.module_arrows == 6  # of these rooms.first <-> rooms.second, and the __init__'s
    assert plan.circles == (("house.rooms.first", "house.rooms.second"),)
    assert plan.circles_with_hints == (("house.roof", "house.rooms.first", "house.rooms.second"),)
    assert plan.room_circles == ()
    assert plan.longest_module.name == "house.rooms.second"
    assert plan.longest_function == plan_of_the_house.Size("house.rooms.second.down", 10)
    assert (plan.functions, plan.documented_functions) == (4, 2)  # add, up, down, Roof.top


def test_a_repeated_block_is_found(root):
    """Whatever its spaces, comments and blank lines; and as long as it is."""
    plan = measure(root, "house")
    (block,) = plan.blocks
    assert block.n_lines == 7
    assert [str(place) for place in block.places] == ["house.ground:5-12", "house.rooms.second:7-14"]
    assert plan.block_lines == 16


def test_a_shorter_block_is_none(root):
    modules = read(root, "house").values()
    assert not repeated(modules, least=8)
    assert len(repeated(modules, least=7)) == 1


def test_a_block_may_stand_in_three_places(tmp_path):
    part = "".join(f"x{i} = {i}\n" for i in range(6))
    texts = (f"{part}y = 1\n", f"z = 2\n{part}y = 1\n{part}")
    (tmp_path / "house").mkdir()
    for name, text in zip(("a.py", "b.py"), texts):
        (tmp_path / "house" / name).write_text(text)
    blocks = repeated(read(tmp_path, "house").values())
    assert [(b.n_lines, [str(p) for p in b.places]) for b in blocks] == [
        (6, ["house.a:1-6", "house.b:2-7", "house.b:9-14"]),
        (7, ["house.a:1-7", "house.b:2-8"]),
    ]


def test_equal_lines_in_a_row_are_no_trouble(tmp_path):
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "a.py").write_text("x += 1\n" * 30)
    places = [place for block in repeated(read(tmp_path, "house").values()) for place in block.places]
    assert places
    assert max(place.last for place in places) <= 30


def test_graphs():
    graph = {"a": {"b", "c", "d"}, "b": {"d"}, "c": {"d"}, "d": set(), "e": set()}
    assert floors(graph) == {"a": 2, "b": 1, "c": 1, "d": 0, "e": 0}
    assert reduced(graph) == {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set(), "e": set()}
    assert circles(graph) == []
    graph["d"] = {"b"}
    assert circles(graph) == [("b", "d")]
    assert floors(graph) == {"a": 2, "b": 0, "c": 1, "d": 0, "e": 0}


@pytest.mark.slow
@pytest.mark.parametrize("hints", [False, True])
def test_imports_are_those_of_the_floor_test(hints):
    modules = {}
    for package in plan_of_the_house.PACKAGES:
        modules |= read(house.ROOT, package)
    assert plan_of_the_house.arrows_of(modules, hints) == house.arrows(hints)


@pytest.mark.slow
@pytest.mark.parametrize("package", plan_of_the_house.PACKAGES)
def test_our_house_has_no_circle(package):
    plan = measure(house.ROOT, package)
    assert not plan.circles
    assert not plan.circles_with_hints
    assert not plan.room_circles


def test_the_script_prints_what_it_measured(root, monkeypatch, capsys):
    monkeypatch.setattr(plan_of_the_house, "PACKAGES", ("house", "garden"))  # there is no garden
    assert plan_of_the_house.main(["--root", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["house"]
    assert found["house"]["module_arrows"] == 6
    assert plan_of_the_house.main(["--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert "circle: house.rooms.first <-> house.rooms.second" in text
    assert "7 lines  house.ground:5-12, house.rooms.second:7-14" in text


def test_a_folder_without_packages_is_a_wrong_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        plan_of_the_house.main(["--root", str(tmp_path)])
    assert stopped.value.code == 2
    assert "holds none of the packages" in capsys.readouterr().err
