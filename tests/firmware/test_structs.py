"""The structures of the C runtime and the descriptors that Python fills: the same fields, in one order, of
one size; and the runtime's parts need what they say they need.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from firmware_networks import cnn, residual

from evsnn import IF, AvgPool2d, Conv2d, Flatten, Input, Linear, MaxPool2d, Network, Readout, RunError
from evsnn.circuit.quantized import quantize
from firmware_export.memory.arena import NO_VIEW
from firmware_export.text.ctext import fitted, initialiser, literal
from firmware_export.text.header import export_header
from firmware_export.text.runtime import PARTS, RUNTIME, joined, runtime
from firmware_export.text.structs import INTEGERS, POINTER, layout, limits, structs
from firmware_export.text.tables import Tables

STRUCTS = structs()


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


def test_exports_fill_every_structure():
    text = "".join(export_header(quantize(network), "net", **options).text for network, options in networks())
    made = {"evsnn_run_t", "evsnn_run8_t", "evsnn_run32_t"}  # by the C itself
    inside = {"evsnn_source_t"}  # of evsnn_fast_t
    assert set(re.findall(r"static const (evsnn_\w+_t) ", text)) == set(STRUCTS) - made - inside


def zeros(struct: str) -> dict:
    """A structure of zeros."""
    values = {}
    for field in STRUCTS[struct]:
        one = "NULL" if field.type == POINTER else 0 if field.type in INTEGERS else zeros(field.type)
        values[field.name] = one if field.length is None else (one,) * field.length
    return values


@pytest.mark.parametrize("struct", STRUCTS)
def test_a_number_that_its_field_cannot_hold_is_refused(struct):
    initialiser(struct, zeros(struct))
    for field in STRUCTS[struct]:
        if field.type not in INTEGERS:
            continue
        low, high = limits(field.type)
        for value, fits in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
            item = value if field.length is None else (0,) * (field.length - 1) + (value,)
            if fits:
                initialiser(struct, zeros(struct) | {field.name: item})
                continue
            message = (
                f"{struct}.{field.name}: a number .* got {value}, expected {low} to {high}, the range of"
            )
            with pytest.raises(RunError, match=re.escape(message).replace(re.escape(".*"), ".*")):
                initialiser(struct, zeros(struct) | {field.name: item})


@pytest.mark.parametrize("change", [{"ring": "NULL"}, {"more": 1}])
def test_a_structure_has_the_fields_of_its_c(change):
    with pytest.raises((KeyError, TypeError)):
        initialiser("evsnn_view_t", NO_VIEW | change)
    with pytest.raises(KeyError):
        initialiser("evsnn_view_t", dict(reversed(NO_VIEW.items())))
    with pytest.raises(KeyError):
        initialiser("evsnn_pool_t", zeros("evsnn_pool_t") | {"kernel": (1, 1, 1)})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_a_number_that_its_table_cannot_hold_is_refused(dtype):
    ends = np.iinfo(dtype)
    values = np.array([ends.min, ends.max], np.int64)
    assert np.array_equal(fitted(values, dtype, "net_s0_w"), values)
    for wrong in ([ends.min - 1, 0], [0, ends.max + 1]):
        with pytest.raises(RunError, match="net_s0_w: a number does not fit the generated C: got"):
            Tables("net").array("s0_w", np.array(wrong, np.int64), dtype)


def test_a_number_in_the_code_has_32_bits():
    assert [literal(value) for value in (-(2**31), 2**32 - 1, 0.5, "x")] == [-(2**31), 2**32 - 1, 0.5, "x"]
    for value in (-(2**31) - 1, 2**32, np.int64(2**40)):
        with pytest.raises(RunError, match="does not fit the generated C"):
            literal(value)


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
    short = {"word_bits": 8, "field_bits": 1, "positions": -3, "words": 1, "rows": 0, "step_bytes": 0}
    text = initialiser("evsnn_source_t", short | {"at_once": 1, "negative": -(2**31)}, 1)
    assert text.startswith(
        "{\n        /* word_bits */ 8,\n        /* field_bits */ 1,\n        /* positions */ -3,"
    )
    assert text.endswith("/* negative */ (-2147483647 - 1)\n    }")
    assert initialiser("evsnn_run_t", {"p": "NULL", "w": "net_w"}) == "{/* p */ NULL, /* w */ net_w}"
    assert "/* kernel */ {2, 3}," in initialiser("evsnn_pool_t", zeros("evsnn_pool_t") | {"kernel": (2, 3)})
