"""How a network is stored: it becomes the bytes of a weights file."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from ..errors import WeightsError
from ..network.layers import Layer
from ..network.network import CODINGS, Network, Samples
from ..network.step_parameters import StepParameters
from .hdf5.writer import Writer
from .schema import (
    FIELDS,
    FORMAT_VERSION,
    PARAMETER_GROUPS,
    STEP_PARAMETER_FIELDS,
    checked_classes,
    checked_metadata,
    checked_samples,
    decode_table,
    sha256_of,
)

__all__ = ["image"]


def image(network: Network, storage: str, compress: bool, where: str) -> io.BytesIO:
    """The file in memory, as bytes.

    Raises
    ------
    WeightsError
        If the network holds what a file cannot.
    """
    root: dict[str, object] = {
        "format": "evsnn",
        "format_version": ".".join(map(str, FORMAT_VERSION)),
        "input_shape": network.input_shape,
        "n_steps": network.n_steps,
        "shift": network.shift,
        "readout": network.readout,
        "task": network.task,
    }
    if network.coding != "steps":
        root["coding"] = network.coding
    if network.input_range is not None:
        root["input_range"] = network.input_range
    notes = checked_metadata(network.metadata, where)
    classes = checked_classes(network.classes, where)
    samples = None if network.samples is None else checked_samples(network.samples, network, where)
    writer = Writer()
    writer.attributes(writer.root, root)
    if classes:
        _put(writer, writer.root, "classes", np.array([name.encode() for name in classes]))
    layers = writer.group(writer.root, "layers")
    digits = max(3, len(str(len(network.layers) - 1)))
    names = {layer.name: f"{number:0{digits}d}_{layer.kind}" for number, layer in enumerate(network.layers)}
    for layer in network.layers:
        _put_layer(writer, writer.group(layers, names[layer.name]), layer, storage, compress, where)
    if notes:
        writer.attributes(writer.group(writer.root, "metadata"), notes)
    if samples is not None:
        _put_samples(writer, writer.group(writer.root, "samples"), samples)
    for coding in CODINGS:
        tables = network.parameters_of(coding)
        if tables:
            group = writer.group(writer.root, PARAMETER_GROUPS[coding])
            _put_step_parameters(writer, group, network, names, tables)
    return writer.close()


def _put(
    writer: Writer, group, name: str, array: np.ndarray, *, compress: bool = False, **attributes
) -> None:
    writer.dataset(group, name, array, {"sha256": sha256_of(array), **attributes}, compress=compress)


def _put_layer(writer: Writer, group, layer: Layer, storage: str, compress: bool, where: str) -> None:
    attributes: dict[str, object] = {"kind": layer.kind, "name": layer.name}
    if layer.inputs:
        attributes["inputs"] = layer.inputs
    for name, form in FIELDS[layer.kind].items():
        if form == "weight":
            at = f"{where}: layer {layer.name!r}"
            for part, array in _stored_weight(getattr(layer, name), storage, at).items():
                _put(writer, group, part, array, compress=compress and part == "weight")
    writer.attributes(group, attributes | _put_fields(writer, group, layer, FIELDS[layer.kind]))


def _put_fields(
    writer: Writer, group, owner: Layer | StepParameters, fields: Mapping[str, str]
) -> dict[str, object]:
    """Store the owner's arrays except weights, and return its scalars as attributes."""
    attributes = {}
    for name, form in fields.items():
        value = getattr(owner, name)
        if value is None or form == "weight":
            continue
        if form == "array":
            _put(writer, group, name, value.astype("<f4", copy=False))
        else:
            attributes[name] = int(value) if form == "flag" else value
    return attributes


def _put_step_parameters(
    writer: Writer,
    group,
    network: Network,
    names: Mapping[str, str],
    tables: Mapping[int, Mapping[str, StepParameters]],
) -> None:
    """Store the step or graded parameters; `names` are the names of the layers' groups."""
    for n_steps, table in tables.items():
        stored = writer.group(group, f"{n_steps:05d}")
        for name, step_parameters in table.items():
            entry = writer.group(stored, names[name])
            writer.attributes(
                entry,
                _put_fields(
                    writer, entry, step_parameters, STEP_PARAMETER_FIELDS[network.by_name[name].kind]
                ),
            )


def _stored_weight(weight: np.ndarray, storage: str, where: str) -> dict[str, np.ndarray]:
    """The datasets that a weight becomes.

    An int8 scale is max|w|/127 rounded up to 17 significant bits: each product with a 7-bit integer is
    then exact in float32, and a file that is loaded and saved again is the same.
    """
    if storage == "float32":
        return {"weight": weight.astype("<f4", copy=False)}
    if storage == "float16":
        with np.errstate(over="ignore"):
            half = weight.astype("<f2")
        if not np.isfinite(half).all():
            raise WeightsError(
                "weights do not fit float16",
                where=where,
                got=f"up to {np.abs(weight).max():g}",
                expected="at most 65504",
                hint="use storage='float32'",
            )
        return {"weight": half}
    largest = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1).astype(np.float64)
    mantissa, exponent = np.frexp(largest / 127)
    scale = np.maximum(np.ldexp(np.ceil(np.ldexp(mantissa, 17)), exponent - 17), 2.0**-120)
    scale[largest <= scale / 2] = 1  # all weights of the channel round to 0
    rows = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return {"weight": np.rint(weight / rows).astype("<i1"), "weight_scale": scale.astype("<f4")}


def _put_samples(writer: Writer, group, samples: Samples) -> None:
    coded = _as_codes(samples.images)
    if coded is None:
        _put(writer, group, "images", samples.images, compress=True)
    else:
        codes, scale, offset = coded
        _put(writer, group, "images", codes, compress=True, scale=scale, offset=offset)
    if samples.labels is not None:
        _put(writer, group, "labels", samples.labels)


def _as_codes(images: np.ndarray) -> tuple[np.ndarray, float, float] | None:
    """Images as uint8 codes with a scale and an offset, if these restore every bit; else None."""
    values = np.unique(images.reshape(-1)[: 1 << 16]).astype(np.float64)
    if not 2 <= values.size <= 256:
        return None
    low, high = float(images.min()), float(images.max())
    levels = round((high - low) / float(np.diff(values).min()))
    for scale, offset in ((1 / 255, 0.0), (1.0, 0.0), ((high - low) / min(levels, 255), low)):
        with np.errstate(over="ignore"):
            codes = np.clip(np.rint((images - np.float32(offset)) / np.float32(scale)), 0, 255).astype(
                np.uint8
            )
        if np.array_equal(decode_table(scale, offset)[codes].view(np.uint32), images.view(np.uint32)):
            return codes, scale, offset
    return None
