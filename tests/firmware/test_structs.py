"""The structures of the C runtime and the descriptors that Python fills: the same fields, in one order, of
one size; and the runtime's parts need what they say they need.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from firmware_networks import cnn, residual

from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout
from evsnn.circuit.quantized import quantize
from firmware_export.memory.arena import NO_VIEW, Arena
from firmware_export.text import fast_layer
from firmware_export.text.ctext import initialiser
from firmware_export.text.header import export_header
from firmware_export.text.runtime import PARTS, RUNTIME, joined, runtime
from firmware_export.text.tables import STRUCT_BYTES, WIDE_FIELDS, Tables

BYTES = {"int": 4} | {f"{sign}int{bits}_t": bits // 8 for sign in ("", "u") for bits in (8, 16, 32)}


@dataclass(frozen=True)
class Field:
    """A field of a structure: its type, or POINTER, and how many of them if it is an array."""

    name: str
    type: str
    length: int | None


POINTER = "pointer"


def structs() -> dict[str, list[Field]]:
    """Every structure of the runtime."""
    text = re.sub(r"/\*.*?\*/", "", joined(), flags=re.DOTALL)
    found = {}
    for body, name in re.findall(r"typedef struct \{([^}]*)\} (evsnn_\w+_t);", text):
        found[name] = []
        for line in filter(None, map(str.strip, body.split(";"))):
            kind, names = re.fullmatch(r"(?:const )?(\w+) (.*)", line, re.DOTALL).groups()
            for one in names.split(","):
                star, field, length = re.fullmatch(r"(\*?)(\w+)(?:\[(\d+)\])?", one.strip()).groups()
                found[name].append(Field(field, POINTER if star else kind, int(length) if length else None))
    return found


STRUCTS = structs()


def layout(name: str, pointer: int) -> tuple[int, int, dict[str, int]]:
    """Bytes, alignment and the fields' offsets of a structure on a core whose pointers have so many bytes."""
    at, widest, offsets = 0, 1, {}
    for field in STRUCTS[name]:
        if field.type in STRUCTS:
            size, alignment, _ = layout(field.type, pointer)
        else:
            size = alignment = pointer if field.type == POINTER else BYTES[field.type]
        at = -(-at // alignment) * alignment
        offsets[field.name] = at
        at += size * (field.length or 1)
        widest = max(widest, alignment)
    return -(-at // widest) * widest, widest, offsets


def networks() -> Iterator[tuple[Network, dict]]:
    """Together they fill every structure, with each of its optional parts."""
    rng = np.random.default_rng(0)
    pooled = Network(
        [
            Input((2, 8, 8)),
            AvgPool2d(2),
            Conv2d(rng.normal(size=(6, 1, 3, 3)), padding=1, groups=2),
            IF(1.0, negative_threshold=0.1),
            MaxPool2d(2),
            Conv2d(rng.normal(size=(6, 1, 1, 1)), groups=6),
            IF(0.7, leak=0.5),
            AvgPool2d(2, 1),
            Flatten(),
            Linear(rng.normal(size=(4, 6))),
            Readout(),
        ],
        n_steps=5,
        input_range=(-1, 1),
    )
    for network in (cnn(), residual(negative_threshold=0.1), pooled, residual(60)):
        for by_step in (False, True):
            for compact in (False, True):
                yield network, {"by_step": by_step, "compact": compact}


def described(monkeypatch) -> dict[str, list[Mapping]]:
    """Every descriptor that exports make, by its C structure."""
    found: dict[str, list[Mapping]] = {name: [] for name in STRUCTS}
    add, view, gather = Tables.structs, Arena.view, fast_layer.describe_fast

    def add_spied(self, what, c_type, items):
        found[c_type] += items
        return add(self, what, c_type, items)

    def view_spied(self, key):
        found["evsnn_view_t"].append(view(self, key))
        return view(self, key)

    def gather_spied(*arguments):
        made = gather(*arguments)
        if "fast" in made:
            found["evsnn_fast_t"].append(made["fast"])
            found["evsnn_source_t"] += made["fast"]["source"]
        return made

    monkeypatch.setattr(Tables, "structs", add_spied)
    monkeypatch.setattr(Arena, "view", view_spied)
    monkeypatch.setattr("firmware_export.text.header.describe_fast", gather_spied)
    for network, options in networks():
        export_header(quantize(network), "net", **options)
    return found


def fits(value: object, field: Field) -> bool:
    """Whether a value can stand for a field."""
    if field.length is not None:
        return len(value) == field.length and all(
            fits(one, Field(field.name, field.type, None)) for one in value
        )
    if field.type in STRUCTS:
        return same_fields(value, field.type)
    if field.type == POINTER:
        return isinstance(value, str)
    if isinstance(value, str):  # a constant's name
        return field.type == "int"
    bits, signed = 8 * BYTES[field.type], not field.type.startswith("u")
    return -(2 ** (bits - 1)) * signed <= int(value) < 2 ** (bits - signed)


def same_fields(item: Mapping, name: str) -> bool:
    """Whether a descriptor has the fields of a structure, in its order, with values that fit."""
    return list(item) == [field.name for field in STRUCTS[name]] and all(
        fits(item[field.name], field) for field in STRUCTS[name]
    )


def test_descriptors_have_the_fields_of_their_structures(monkeypatch):
    found = described(monkeypatch)
    runs = {"evsnn_run_t", "evsnn_run8_t", "evsnn_run32_t"}  # made by the C itself
    assert {name for name, items in found.items() if not items} == runs
    for name, items in found.items():
        for item in items:
            assert same_fields(item, name), (name, item)
    assert same_fields(NO_VIEW, "evsnn_view_t")


def test_a_field_in_the_wrong_place_is_found():
    swapped = dict(reversed(NO_VIEW.items()))
    assert not same_fields(swapped, "evsnn_view_t")
    assert not same_fields(NO_VIEW | {"ring": 1 << 16}, "evsnn_view_t")


def test_the_stated_sizes_are_those_of_the_structures():
    assert {name: layout(name, 4)[0] for name in STRUCT_BYTES} == STRUCT_BYTES
    wide = {
        field.name
        for name in (*STRUCT_BYTES, "evsnn_view_t")
        for field in STRUCTS[name]
        if field.type == "uint32_t"
    }
    assert wide == WIDE_FIELDS


@pytest.mark.parametrize("flags", [(), ("-m32",)])
def test_a_compiler_lays_them_out_so(tmp_path, flags):
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    pointer = 4 if flags else 8
    lines = []
    for name in STRUCTS:
        size, _, offsets = layout(name, pointer)
        lines.append(f"EVSNN_STATIC_ASSERT(sizeof({name}) == {size}, size_of_{name});")
        for field, at in offsets.items():
            lines.append(f"EVSNN_STATIC_ASSERT(offsetof({name}, {field}) == {at}, {name}_{field});")
    (tmp_path / "evsnn_rt.h").write_text(runtime()[0])
    (tmp_path / "m.c").write_text('#include "evsnn_rt.h"\n' + "\n".join(lines))
    command = ["gcc", "-std=c99", "-fsyntax-only", *flags, str(tmp_path / "m.c")]
    done = subprocess.run(command, capture_output=True, text=True)
    if flags and "No such file" in done.stderr:
        pytest.skip("gcc has no headers for -m32")
    assert done.returncode == 0, done.stderr[:2000]


def head_of(part: str) -> tuple[list[str], list[str]]:
    """What a part says that it defines and needs."""
    text = (RUNTIME / part).read_text(encoding="ascii")
    defines, needs = (
        " ".join(re.search(rf"^ \* {word}: (.*)\.$", text, re.MULTILINE)[1].split())
        for word in ("Defines", "Needs")
    )
    return re.findall(r"\b(?:evsnn|EVSNN)_\w+\b(?!\*)", defines), re.findall(r"\w+\.h", needs)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_needs_what_it_says_and_defines_what_it_says(part, tmp_path):
    defines, needs = head_of(part)
    assert PARTS[: PARTS.index(part)] == tuple(p for p in PARTS if PARTS.index(p) < PARTS.index(part))
    assert all(PARTS.index(other) < PARTS.index(part) for other in needs)
    text = (RUNTIME / part).read_text(encoding="ascii")
    body = text.split("Needs:")[1]
    for name in defines:
        assert re.search(rf"\b{name.removesuffix('_')}", body), name
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    alone = joined(tuple(p for p in PARTS if p in needs or p == part))
    names = [name for name in defines if name.startswith("evsnn") and not name.endswith(("_t", "_"))]
    uses = "\n".join(f"(void)(long)&{name};" for name in names)
    (tmp_path / "m.c").write_text(f"{alone}\nvoid use(void);\nvoid use(void) {{\n{uses}\n}}\n")
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-fsyntax-only"]
    done = subprocess.run([*command, str(tmp_path / "m.c")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]


def test_all_parts_are_joined():
    assert sorted(PARTS) == sorted(path.name for path in RUNTIME.iterdir())
    text = runtime()[0]
    assert text.startswith("#ifndef EVSNN_RT_H\n") and text.rstrip().endswith("#endif")


def test_fields_are_written_with_their_names():
    assert initialiser({"a": 1, "b": (2, 3)}) == "{/* a */ 1, /* b */ {2, 3}}"
    assert initialiser({"x": {"a": True}, "y": "NULL"}, 1) == (
        "{\n        /* x */ {/* a */ 1},\n        /* y */ NULL\n    }"
    )
