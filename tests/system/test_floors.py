"""Who imports whom: within each package, lower rooms never import upper ones, and there is no circle."""

from __future__ import annotations

import pytest
from house import FLOORS, arrows, floor, modules, rooms


def rooms_of(package: str) -> set[str]:
    return {name[len(package) + 1 :].split(".")[0] for name in modules() if name.startswith(f"{package}.")}


def packages() -> set[str]:
    return {name for name, path in modules().items() if path.name == "__init__.py"}


def test_every_package_has_its_floors():
    assert set(FLOORS) == packages() - {"evsnn.engine.kernels.descriptors"}


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_its_floor(package):
    listed = [room for rooms in FLOORS[package] for room in rooms]
    assert sorted(listed) == sorted(rooms_of(package))


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_down(package):
    for arrow in arrows():
        found = rooms(arrow)
        if found and found[0] == package:
            _, source, target = found
            assert floor(package, target) < floor(package, source), (
                f"{arrow.source}:{arrow.line} imports {arrow.target}, which stands on its floor or above it"
            )


def test_firmware_imports_evsnn_and_never_the_other_way():
    assert any(
        arrow.source.startswith("firmware_export") and arrow.target.startswith("evsnn") for arrow in arrows()
    )
    assert not any(
        arrow.source.startswith("evsnn") and arrow.target.startswith("firmware_export")
        for arrow in arrows(hints=True)
    )


@pytest.mark.parametrize(
    "reader", ["evsnn.circuit", "evsnn.network", "evsnn.files", "evsnn.conversion", "evsnn.output"]
)
def test_the_specification_never_imports_the_engine(reader):
    """Only simulation, profiling, start-up and the commands know how fast things are done."""
    assert not [
        arrow
        for arrow in arrows(hints=True)
        if arrow.source.startswith(f"{reader}.") and arrow.target.startswith("evsnn.engine")
    ]


def test_a_package_is_imported_by_its_modules():
    """`__init__` files of packages hold a docstring alone: importing one costs nothing. The two of the top
    say what is public.
    """
    for name in packages() - {"evsnn", "firmware_export"}:
        assert not [arrow for arrow in arrows() if arrow.source == name], name
