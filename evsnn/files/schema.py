"""What a weights file may hold, both when it is read and when it is written: docs/format.md as data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from ..errors import WeightsError
from ..network.network import Network, Samples
from ..network.step_parameters import STEP_FIELDS
from ..text import shown
from .gate import MAX_TEXT_BYTES
from .hdf5.objects import MAX_ATTRIBUTES

__all__ = [
    "FIELDS",
    "FORMAT_VERSION",
    "FORMS",
    "LABEL_TYPES",
    "PARAMETER_GROUPS",
    "RENAMED",
    "REQUIRED",
    "STORAGES",
    "STEP_PARAMETER_FIELDS",
    "checked_classes",
    "checked_metadata",
    "checked_samples",
    "decode_table",
    "sha256_of",
]

FORMAT_VERSION = (1, 0)
STORAGES = ("float32", "float16", "int8")
MAX_METADATA_BYTES = 16_000  # a text

# Fields of each kind of layer: attributes by their form, datasets as "weight" or "array". A field that
# is absent takes the default of its class; those of `REQUIRED` must be present.
FIELDS: Mapping[str, Mapping[str, str]] = {
    "input": {"encoding": "text", "source_shape": "integers", "source_axes": "integers"},
    "conv2d": {
        "weight": "weight",
        "bias": "array",
        "stride": "integers",
        "padding": "integers",
        "dilation": "integers",
        "groups": "integer",
    },
    "linear": {"weight": "weight", "bias": "array"},
    "avgpool2d": {"kernel": "integers", "stride": "integers", "padding": "integers"},
    "maxpool2d": {"kernel": "integers", "stride": "integers", "padding": "integers"},
    "flatten": {},
    "add": {},
    "concat": {},
    "if": {
        "v_threshold": "array",
        "v_init": "array",
        "leak": "real",
        "shift": "flag",
        "negative_threshold": "real",
        "warm_up_steps": "integer",
        "negative_slope": "array",
        "levels": "integer",
    },
    "readout": {},
}
REQUIRED = ("weight", "v_threshold")
PARAMETER_GROUPS = {"steps": "step_parameters", "graded": "graded_parameters"}
STEP_PARAMETER_FIELDS = {
    kind: {name: FIELDS[kind][name] for name in names} for kind, names in STEP_FIELDS.items()
}  # all may be absent
RENAMED = MappingProxyType(
    {"signed": "negative_threshold", "delay": "warm_up_steps", "tables": "step_parameters"}
)
"""Names of attributes and groups in files from before the release of format 1, and their names now."""

FORMS = {  # what an attribute may be, in words and as a test
    "text": ("a string", lambda v: isinstance(v, str)),
    "texts": ("a list of strings", lambda v: isinstance(v, tuple) and all(isinstance(x, str) for x in v)),
    "integer": ("an integer", lambda v: isinstance(v, int)),
    "integers": ("a list of integers", lambda v: isinstance(v, tuple) and all(isinstance(x, int) for x in v)),
    "flag": ("0 or 1", lambda v: isinstance(v, int) and v in (0, 1)),
    "real": ("a number", lambda v: isinstance(v, (int, float))),
    "reals": (
        "a list of numbers",
        lambda v: isinstance(v, tuple) and all(isinstance(x, (int, float)) for x in v),
    ),
    "scalar": ("a string or a number", lambda v: not isinstance(v, tuple)),
}
LABEL_TYPES = ("<i8", "<i4", "<i2", "|i1", "|u1")


def sha256_of(values: np.ndarray) -> str:
    """SHA-256 of the values' bytes, C-ordered and little-endian, in hexadecimal."""
    return hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest()


def decode_table(scale: float, offset: float) -> np.ndarray:
    """The values of the 256 codes: computed in float64, rounded once to float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (np.arange(256) * np.float64(scale) + np.float64(offset)).astype("<f4")


def checked_classes(names: Iterable[str], where: str) -> tuple[str, ...]:
    names = tuple(names)
    for name in names:
        if not name.isprintable() or len(name.encode()) > MAX_TEXT_BYTES:
            raise WeightsError(
                "the name of a class is not usable",
                where=where,
                got=shown(repr(name), 80),
                expected=f"printable, at most {MAX_TEXT_BYTES} bytes",
            )
    return names


def checked_metadata(metadata: Mapping[str, object], where: str) -> dict[str, str | int | float]:
    """Metadata in plain types, sorted, or a `WeightsError`."""
    notes: dict[str, str | int | float] = {}
    plain: str | int | float
    for key, value in sorted(metadata.items(), key=lambda item: str(item[0])):
        if not (isinstance(key, str) and key.isprintable() and 1 <= len(key.encode()) <= 128):
            raise WeightsError(
                "a metadata key is not usable",
                where=where,
                got=shown(repr(key), 80),
                expected="a printable string of 1 to 128 bytes",
            )
        if isinstance(value, str):
            plain = str(value)
            fits = len(plain.encode("utf-8", "replace")) <= MAX_METADATA_BYTES and all(
                c.isprintable() or c in "\n\t" for c in plain
            )
        elif isinstance(value, (int, np.integer)):
            plain = int(value)
            fits = -(1 << 63) <= plain < 1 << 63
        else:
            plain = float(value) if isinstance(value, (float, np.floating)) else 0.0
            fits = isinstance(value, (float, np.floating))
        if not fits:
            expected = (
                f"printable text of at most {MAX_METADATA_BYTES} bytes, an integer of 64 bits or a float"
            )
            raise WeightsError(
                f"metadata {key!r} is not usable", where=where, got=shown(repr(value), 80), expected=expected
            )
        notes[key] = plain
    if len(notes) > MAX_ATTRIBUTES:
        raise WeightsError(
            "there is too much metadata",
            where=where,
            got=f"{len(notes)} entries",
            expected=f"at most {MAX_ATTRIBUTES}",
        )
    return notes


def checked_samples(samples: Samples, network: Network, where: str) -> Samples:
    """Samples that fit the network, as float32 and int64, or a `WeightsError`."""
    try:
        images = np.ascontiguousarray(samples.images, dtype="<f4")
        labels = None if samples.labels is None else np.ascontiguousarray(samples.labels, dtype="<i8")
    except (TypeError, ValueError) as error:
        raise WeightsError("samples are not numbers", where=where) from error
    shape = network.input_shape
    steps = 1 if network.input.encoding == "events" else 0  # (n, n_steps, *input_shape)
    if images.ndim != 1 + steps + len(shape) or images.shape[1 + steps :] != shape or not images.size:
        expected = f"(n, {'n_steps, ' * steps}{', '.join(map(str, shape))})"
        raise WeightsError(
            "images do not fit the network", where=where, got=f"shape {images.shape}", expected=expected
        )
    if not np.isfinite(images).all():
        raise WeightsError("images hold NaN or infinity", where=where)
    if labels is not None and network.task != "classify":
        raise WeightsError(
            "labels are for networks that classify",
            where=where,
            got=f"task '{network.task}'",
            expected="images alone",
        )
    if labels is not None and labels.shape != images.shape[:1]:
        raise WeightsError(
            "labels and images do not fit",
            where=where,
            got=f"labels of shape {labels.shape}",
            expected=f"({images.shape[0]},)",
        )
    if labels is not None and not ((labels >= 0) & (labels < network.n_classes)).all():
        raise WeightsError(
            "a label is not a class",
            where=where,
            got=f"{labels.min()} to {labels.max()}",
            expected=f"0 to {network.n_classes - 1}",
        )
    return Samples(images, labels)
