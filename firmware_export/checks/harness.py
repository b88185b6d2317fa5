"""A C program that runs an exported network on given inputs and prints what came out: one text for computers
and emulators.
"""

from __future__ import annotations

import numpy as np

from ..memory.arena import Arena
from ..program.views import Key
from ..text.ctext import array, c_type, fitted, initialiser
from ..text.header import Export

__all__ = ["harness", "outputs_in", "samples_of", "traced_keys"]

_MAIN = """
static void write_number(int32_t value) {{
    char text[13];
    uint32_t rest = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    int i = 12;
    text[i] = 0;
    do {{
        text[--i] = (char)('0' + rest % 10u);
        rest /= 10u;
    }} while (rest);
    if (value < 0) {{ text[--i] = '-'; }}
    machine_write(text + i);
}}

static {name}_ctx_t ctx;
{input}
int main(void) {{
    uint32_t sample, i;
    machine_write("bytes ");
    write_number((int32_t)sizeof ctx);
    machine_write("\\n");
    for (sample = 0; sample < {n}u; sample++) {{
        int status = {name}_init(&ctx);
{fill}
        machine_begin();
{run}
        machine_end();
        machine_write("status ");
        write_number(status);
{predict}        machine_write(" outputs");
        for (i = 0; i < {n_outputs}u; i++) {{
            machine_write(" ");
            write_number({name}_output(&ctx, i));
        }}
        machine_write("\\n");
    }}
{report}    machine_exit(0);
    return 0;
}}
"""


_TRACE = """
static uint32_t trace_sums[{n}];

/* Spikes of a row of a stage, each count times a number made of its step and place:
   what the layer has sent, whatever the order. */
static void trace(uint8_t *arena, uint32_t stage, uint32_t row, uint32_t step, uint32_t by_step) {{
    static const struct {{
        uint32_t stage, channels;
        evsnn_view_t view;
    }} views[{n}] = {{{views}}};
    uint32_t i, t, x, c;
    for (i = 0; i < {n}u; i++) {{
        const evsnn_view_t *view = &views[i].view;
        if (views[i].stage != stage) {{ continue; }}
        for (t = 0; t < (by_step ? 1u : step); t++) {{
            for (x = 0; x < view->width; x++) {{
                const uint8_t *p = evsnn_row(arena, view, row) + t * view->step_bytes
                    + (x + view->left) * view->words * (view->word_bits / 8u);
                for (c = 0; c < views[i].channels; c++) {{
                    uint32_t bit = c * view->field_bits;
                    uint32_t word = evsnn_word(p, bit / view->word_bits, view->word_bits);
                    uint32_t count = (word << (bit % view->word_bits)) >> (32u - view->field_bits);
                    uint32_t at = (by_step ? step - 1u : t) * 0x9E3779B1u ^ row * 0x85EBCA77u
                        ^ x * 0xC2B2AE3Du ^ c * 0x27D4EB2Fu;
                    trace_sums[i] += count * (at | 1u);
                }}
            }}
        }}
    }}
}}
"""
_PREDICT = """        machine_write(" class ");
        write_number({name}_predict(&ctx));
"""
_REPORT = """    for (i = 0; i < {n}u; i++) {{
        machine_write("trace ");
        write_number((int32_t)(trace_sums[i] >> 1));
        machine_write("\\n");
    }}
"""


def traced_keys(export: Export) -> list[tuple[int, Key]]:
    """The views that a trace sums up, each with its stage."""
    return [(i, key) for i, stage in enumerate(export.program.stages) for key in stage.writes]


def samples_of(export: Export, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs as the program holds them: the values of all samples, or the (t, x, y, p) of events and the
    first of each step.
    """
    network = export.program.network
    if network.circuit.analog:
        return {"samples": fitted(inputs, np.uint8 if network.input_low >= 0 else np.int16, "samples")}
    events = np.argwhere(inputs)  # sample, step, channel, y, x
    places = np.vstack([events[:, [1, 4, 3, 2]], [[0, 0, 0, 0]]])
    first = np.searchsorted(
        events[:, 0] * network.n_steps + events[:, 1], np.arange(len(inputs) * network.n_steps + 1)
    )
    return {
        "places": fitted(places, np.uint16 if places.max() < 1 << 16 else np.uint32, "places"),
        "first": fitted(first, np.uint32, "first"),
    }


def harness(export: Export, inputs: np.ndarray, trace: bool = False) -> str:
    """The program, as C99 and C++11.

    Parameters
    ----------
    export : Export
    inputs : (n, channels, height, width) integer, or (n, n_steps, channels, height, width) bool for events
    trace : bool
        Whether to sum up all spikes that a view keeps, too.
    """
    name, program = export.name, export.program
    network = program.network
    keys = traced_keys(export) if trace else []
    text = '#include "machine.h"\n#include "evsnn_rt.h"\n'
    if keys:
        text += (
            "static void trace(uint8_t *arena, uint32_t stage, uint32_t row, uint32_t step, uint32_t"
            " by_step);\n"
        )
        text += f"#define {name.upper()}_LAYER_BEGIN(layer) ((void)0)\n"
        text += (
            f"#define {name.upper()}_LAYER_END(layer) trace((uint8_t *)ctx->arena, stage, row, ctx->step,"
            f" {int(program.by_step)}u)\n"
        )
    text += f'#include "{name}.h"\n\n'
    if keys:
        arena = Arena(program)
        views = ", ".join(
            f"{{{i}, {program.views[key].shape[0]}, {initialiser('evsnn_view_t', arena.view(key))}}}"
            for i, key in keys
        )
        text += _TRACE.format(n=len(keys), views=views)
    constants = samples_of(export, inputs)
    text += "".join(array(what, values) for what, values in constants.items())
    if network.circuit.analog:
        kind = c_type(constants["samples"].dtype)
        read = (
            f"({kind})EVSNN_{'U8' if kind == 'uint8_t' else 'U16'}(samples + sample *"
            f" {name.upper()}_INPUT_LENGTH + i)"
        )
        declared = f"static {kind} input[{name.upper()}_INPUT_LENGTH];\n"
        fill = f"        for (i = 0; i < {name.upper()}_INPUT_LENGTH; i++) {{ input[i] = {read}; }}\n"
        fill += f"        status |= {name}_set_input(&ctx, input, {name.upper()}_INPUT_LENGTH);"
        run = f"        status |= {name}_run(&ctx, {name.upper()}_N_STEPS);"
    else:
        declared = ""
        bits = 8 * constants["places"].itemsize
        place = ", ".join(f"EVSNN_U{bits}(places + 4 * i + {field})" for field in range(program.by_step, 4))
        push = f"status |= {name}_push_event(&ctx, {place});"
        if program.by_step:
            fill = "        uint32_t t;"
            run = (
                f"        for (t = sample * {network.n_steps}u; t < (sample + 1) * {network.n_steps}u; t++)"
                " {\n            for (i = EVSNN_U32(first + t); i < EVSNN_U32(first + t + 1); i++) {"
                f" {push} }}\n            status |= {name}_step(&ctx);\n        }}"
            )
        else:
            fill = (
                f"        for (i = EVSNN_U32(first + sample * {network.n_steps}u); i < EVSNN_U32(first +"
                f" (sample + 1) * {network.n_steps}u); i++) {{ {push} }}"
            )
            run = f"        status |= {name}_run(&ctx, {name.upper()}_N_STEPS);"
    report = _REPORT.format(n=len(keys)) if keys else ""
    predict = _PREDICT.format(name=name) if program.classifies else ""
    return text + _MAIN.format(
        name=name,
        report=report,
        input=declared,
        n=len(inputs),
        fill=fill,
        run=run,
        predict=predict,
        n_outputs=program.n_outputs,
    )


def outputs_in(text: str) -> tuple[np.ndarray | None, np.ndarray]:
    """What a program printed.

    Returns
    -------
    classes : (n,) int64, optional
        None if it predicts none.
    outputs : (n, n_outputs) int64

    Raises
    ------
    ValueError
        If a call failed.
    """
    rows = [line.split() for line in text.splitlines() if line.startswith("status ") and " outputs" in line]
    failed = [row for row in rows if row[1] != "0"]
    if failed or not rows:
        raise ValueError(f"the program failed: {' '.join(failed[0][:4]) if failed else text[-200:]!r}")
    at = rows[0].index("outputs") + 1
    classes = np.array([int(row[3]) for row in rows]) if "class" in rows[0] else None
    return classes, np.array([[int(v) for v in row[at:]] for row in rows])
