"""``model.onnx`` -> `Graph`.

The nodes of the file are visited once, in order. What does not depend on the network's input is computed at
once (`constants`). Older forms of operators become the newest (`upgrade`). Each remaining operator has to
pass its rule (`admission`), and is then run on one sample of zeros, which gives the shapes.

Constants that depend on the size of the batch (a Reshape to ``[x.shape[0], -1]``) are computed for two sizes.
A rule can then check that the batch stays what it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ModelError
from ...text import printable
from .admission import RULES, Call, NotLinearError, Tensor, check_size
from .boundary import find_input, find_outputs, nodes_to
from .constants import FOLDERS, fold
from .expansion import EXPANSIONS, Expanded
from .graph import Graph, Node
from .masks import COMPARISONS, Mask, masked
from .model_file import FLOATS, ModelFile, attributes_of, open_model, tensor
from .operators import OPERATORS, PRODUCTS
from .postprocessing import PostProcessing
from .quantised import DEQUANTIZE, QUANTIZE, activation_limits, stored_limits
from .refusals import refusal, worst
from .signals import SLIDING, on_map
from .upgrade import upgrade

if TYPE_CHECKING:
    import onnx

__all__ = ["MAX_WEIGHT_BYTES", "import_onnx"]

MAX_WEIGHT_BYTES = 4 << 30
"""Most bytes of all constants together."""
MAX_PRODUCTS = 1 << 38
"""Most multiplications of all operators together on one sample."""
MAX_WORK = 1 << 31
"""Most numbers that operators may read and write while a model is read, see `_Import._spend`; for each byte
that the model stores `WORK_PER_BYTE` more.
"""
WORK_PER_BYTE = 256
FOLDED = 8
"""What a number that is folded counts: it is computed, and may be a power or a quotient."""
_MISUSED = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    MemoryError,
)


def import_onnx(
    source: str | PurePath | bytes | onnx.ModelProto, *, output: str | Sequence[str] | None = None
) -> Graph:
    """Read a network from an ONNX model.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        Files are not trusted. Data outside the file is read from the model's own folder only, and only if a
        path is given.
    output : str or sequence of str, optional
        The tensors to end at. None: all outputs of floats, without operators at the end that only move values
        or bring them to a range.

    Returns
    -------
    Graph
        Every operator in its newest form and as `evsnn.conversion.onnx.admission` leaves it.

    Raises
    ------
    ModelError
        If it is not an ONNX model, is damaged, or holds what cannot be converted.
    MissingExtraError
        If the onnx package is not installed.
    """
    file = open_model(source)
    with np.errstate(all="ignore"):
        return _Import(file, output).graph()


class _Import:
    """One walk over a file's nodes."""

    def __init__(self, file: ModelFile, output: str | Sequence[str] | None):
        self.file = file
        self.notes: list[str] = []
        self.constants: dict[str, tuple[np.ndarray, ...]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.renamed: dict[str, str] = {}
        self.masks: dict[str, Mask] = {}
        self.integers: dict[str, str] = {}  # quantised tensors, and what they are as floats
        self.maps: dict[str, str] = {}  # signals (channels, length), and their forms as maps of height 1
        self.nodes: list[Node] = []
        self.n_bytes = self.stored_bytes = self.work = self.products = 0
        self.taken = {name for node in file.graph.node for name in (*node.input, *node.output)}
        self.outputs, self.left = find_outputs(file, output, self.notes)
        nodes = _named(nodes_to(file, self.outputs.values()))
        stored = {proto.name for proto in file.graph.initializer}
        given = {value.name for value in file.graph.input} - stored
        self.post = PostProcessing(list(nodes.values()), given, self.outputs.values())
        places = {id(node): name for name, node in nodes.items()}
        error = worst(
            [node for node in nodes.values() if self._is_unknown(node)],
            lambda node: self._where(places[id(node)], node),
            self.post,
        )
        if error:
            raise error
        for name, node in nodes.items():
            if self.post.is_norm_of_the_batch(node):
                raise ModelError(
                    "is a batch norm without statistics of its own: it takes those of the batch",
                    where=self._where(name, node),
                    hint="train it with track_running_stats=True, and call model.eval() before the export",
                )
        read = {name for node in nodes.values() for name in node.input}
        self._read_initializers(read)
        self.input, shape, self.batches = find_input(file, read, self.notes)
        self.single = {self.input} if not self.batches else set()  # tensors that have no axis of a batch
        self.batches = self.batches or (1,)
        self.shapes[self.input] = shape
        self._walk(nodes)

    def graph(self) -> Graph:
        """The graph that was read."""
        outputs = {name: self._name(tensor) for name, tensor in self.outputs.items()}
        for name, output in outputs.items():
            if output == self.input:
                raise ModelError("holds no operator that does anything", where=self.file.name)
            if output not in self.shapes:
                raise ModelError(
                    "its output does not depend on its input", where=self.file.name, got=repr(name)[:80]
                )
        needed: set[str] = set(outputs.values())
        nodes: list[Node] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                nodes.append(node)
        constants = {name: values[0] for name, values in self.constants.items() if name in needed}
        shapes = {name: shape for name, shape in self.shapes.items() if name in needed}
        return Graph(
            self.file.name,
            self.file.opset,
            self.input,
            outputs,
            tuple(nodes[::-1]),
            constants,
            shapes,
            tuple(self.notes),
            self.left,
        )

    def _error(self, what: str, **details) -> ModelError:
        return ModelError(what, where=self.file.name, **details)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _name(self, name: str) -> str:
        """A tensor's name without the operators that change nothing."""
        return self.renamed.get(name, name)

    def _whole_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor with its batch axis, which is 0 if it depends on the network's input."""
        if name in self.shapes:
            return (0, *self.shapes[name])
        return self.constants[name][0].shape if name in self.constants else None

    def _is_unknown(self, node: onnx.NodeProto) -> bool:
        """Whether an operator is not converted, whatever its attributes and shapes are."""
        op, known = node.op_type, _KNOWN.get(node.domain, ())
        folded = op in _FOLDED and self.post.moving.intersection(node.input)
        return op not in known or bool(folded) or self.post.computes_with_softmax(node)

    def _where(self, name: str, node: onnx.NodeProto) -> str:
        """A node's place, for messages."""
        return printable(f"{self.file.name}:/{name.lstrip('/')[:80]} ({node.op_type[:40]})")

    def _read_initializers(self, read: Set[str]) -> None:
        """The stored tensors among those that are `read`."""
        if self.file.graph.sparse_initializer:
            raise self._error(
                "holds sparse weights, which are not read",
                got=repr(self.file.graph.sparse_initializer[0].values.name)[:80],
                hint="export dense weights",
            )
        for proto in self.file.graph.initializer:
            if proto.name in self.constants:
                raise self._error("is damaged: two tensors have one name", got=repr(proto.name)[:80])
            if proto.name in read:
                values = tensor(
                    proto, self.file.folder, self.file.name, most_bytes=MAX_WEIGHT_BYTES - self.n_bytes
                )
                self.stored_bytes += values.nbytes
                self._keep(proto.name, (values,), proto.data_type)

    def _keep(self, name: str, values: tuple[np.ndarray, ...], data_type: int = 1) -> None:
        """Store a constant: one array, or one for each batch size."""
        if len(values) > 1 and all(np.array_equal(value, values[0]) for value in values):
            values = values[:1]
        self.n_bytes += sum(value.nbytes for value in values)
        if self.n_bytes > MAX_WEIGHT_BYTES:
            raise self._error("has too many weights", expected=f"at most {MAX_WEIGHT_BYTES >> 30} GiB")
        if data_type != 1 and data_type in FLOATS:
            self._note(f"weights of {FLOATS[data_type]} are read as float32")
        self.constants[name] = values

    def _spend(self, work: int) -> None:
        """Count numbers that are read or written, and refuse too many: small files can ask for days."""
        self.work += work
        most = MAX_WORK + WORK_PER_BYTE * self.stored_bytes
        if self.work > most:
            raise ModelError(
                "reading the model takes too much work: its tensors up to here are too many and too large",
                got=f"{self.work} numbers",
                expected=f"at most {most}",
                hint="simplify the model before, for example with onnxsim, or use a smaller input",
            )

    def _add(self, name: str, value: np.ndarray) -> str:
        """Store a constant that is not in the file, and return its unique name, which is like `name`."""
        name = self._free(name)
        self._keep(name, (value,))
        return name

    def _misuse(self, proto: onnx.NodeProto, error: Exception) -> str:
        """What is wrong with an operator that NumPy refuses."""
        if isinstance(error, KeyError):
            return printable(f"no attribute {error}"[:120])
        shapes = [self._whole_shape(self._name(name)) for name in proto.input if name]
        if (
            isinstance(error, ValueError)
            and proto.op_type not in _INTEGERS
            and len(shapes) > 1
            and None not in shapes
        ):
            words = ", ".join(f"({', '.join(str(n or 'N') for n in shape or ())})" for shape in shapes[:6])
            return f"inputs of shapes that do not fit each other: {words}"
        return printable(f"{type(error).__name__}: {error}"[:120])

    def _free(self, name: str) -> str:
        """A name like `name` that no tensor has."""
        while name in self.taken:
            name += "'"
        self.taken.add(name)
        return name

    def _walk(self, nodes: dict[str, onnx.NodeProto]) -> None:
        for name, proto in nodes.items():
            where = self._where(name, proto)
            try:
                self._take(name, proto, where)
            except NotLinearError as error:
                hint = self.post.hint([proto]) or error.hint
                raise ModelError(
                    error.what, where=where, got=error.got, expected=error.expected, hint=hint
                ) from error
            except ModelError as error:
                raise (error.at(where) if error.where is None else error) from error.__cause__
            except _MISUSED as error:
                raise ModelError(
                    "cannot be computed",
                    where=where,
                    got=self._misuse(proto, error),
                    hint="is the model valid? onnx.checker.check_model tells",
                ) from error

    def _take(self, name: str, proto: onnx.NodeProto, where: str) -> None:
        """Take one node: it is a constant, an operator that changes nothing, or an operator of the graph."""
        op = proto.op_type
        attributes = attributes_of(proto, self.file.folder, where)
        if op == "Constant":
            return self._keep(proto.output[0], (_constant(attributes),))
        inputs = [self._name(n) for n in proto.input]
        for n in filter(None, inputs):
            if not any(n in known for known in (self.constants, self.shapes, self.masks, self.integers)):
                what = "reads a tensor that is not the first output of an earlier operator"
                raise ModelError(
                    what, got=repr(n)[:80], hint="masks, indices and statistics are not converted"
                )
        if self.single.intersection(inputs) and self._take_single(name, op, proto.output[0], inputs):
            return None
        self._check_integers(op, inputs)
        shape = self.shapes.get(inputs[0]) if inputs else None
        whole = self._whole_shape(inputs[0]) if inputs else None
        attributes, moved = upgrade(
            op,
            attributes,
            self.file.opset,
            None if whole is None else len(whole),
            whole,
            sum(map(bool, proto.output)),
        )
        for position, value in moved.items():
            inputs += [""] * (position + 1 - len(inputs))
            inputs[position] = self._add(f"{name}/{position}", value)
        if op in ("Shape", "Size") and shape is not None:
            return self._keep(
                proto.output[0],
                tuple(
                    fold(op, [np.broadcast_to(np.float32(0), (n, *shape))], attributes) for n in self.batches
                ),
            )
        if op == QUANTIZE:
            limits = stored_limits(self._stored_type(proto.input[2:3]) or attributes.get("output_dtype", 0))
            if inputs and inputs[0] in self.shapes:
                return self._quantize(name, proto.output[0], inputs, limits)
            attributes = attributes | {"limits": limits}
        if any(n in self.integers for n in inputs):
            return self._dequantize(op, proto.output[0], inputs)
        if all(n in self.constants for n in filter(None, inputs)):
            if op == DEQUANTIZE:
                self._note("quantised weights are read as the float32 numbers that they stand for")
            return self._fold(proto, op, inputs, attributes)
        if op in COMPARISONS or any(n in self.masks for n in inputs):
            return self._mask(name, op, proto.output[0], inputs, attributes)
        if op in _PASSED:
            return self._pass(proto, op, inputs, attributes)
        moving = [n for n in inputs if n in self.shapes]
        if op in EXPANSIONS and op in RULES and len(moving) > 1:
            inputs = [*moving, *(n for n in inputs if n not in self.shapes)]
        if op in EXPANSIONS and (op not in RULES or len(moving) > 1):
            return self._expand(name, op, proto.output, inputs, attributes)
        if op not in RULES:
            raise refusal(op, "")
        return self._step(name, op, proto.output[0], inputs, attributes)

    def _take_single(self, name: str, op: str, output: str, inputs: list[str]) -> bool:
        """Take a node that reads a tensor without a batch; return whether nothing is left to do.

        What works element by element, and products with a matrix, are the same with a batch before them.
        """
        shape = self.shapes.get(inputs[0], ())
        first = self.constants.get(inputs[1], (np.zeros(0),))[0].ravel() if len(inputs) > 1 else np.zeros(0)
        if op == "Reshape" and first[:1].tolist() in ([1], [-1]):
            return False  # its one sample becomes a batch
        if op == "Unsqueeze" and first.tolist() == [0]:
            whole = self._add(f"{name}/shape", np.array([-1, *shape], np.int64))
            self._operator(name, "Reshape", output, [inputs[0], whole], {})
            return True
        if op not in _ALIKE:
            raise ModelError(
                "reads a tensor without an axis for the batch",
                got=f"shape {shape}",
                expected="(N, ...)",
                hint="export the model with a batch: an input of (N, features)",
            )
        self.single.add(output)
        if op == "MatMul" and inputs[0] in self.constants and self.constants[inputs[0]][0].ndim == 2:
            turned = self._add(f"{inputs[0]}/turned", np.ascontiguousarray(self.constants[inputs[0]][0].T))
            self._operator(name, op, output, [inputs[1], turned], {})
            return True
        return False

    def _step(self, name: str, op: str, output: str, inputs: list[str], attributes: dict) -> None:
        """Take an operator that has a rule."""
        if op in SLIDING and inputs and len(self.shapes.get(inputs[0], ())) == 2:
            return self._on_signal(name, op, output, inputs, attributes)
        return self._operator(name, op, output, inputs, attributes)

    def _expand(
        self, name: str, op: str, outputs: Sequence[str], inputs: list[str], attributes: dict
    ) -> None:
        """Take an operator that others stand for."""
        if not inputs or inputs[0] not in self.shapes:
            raise ModelError("its first input must depend on the network's input")
        known = [self.constants[n][0] if len(self.constants.get(n, ())) == 1 else None for n in inputs]
        node = Expanded(
            op,
            attributes,
            inputs,
            outputs,
            self.shapes[inputs[0]],
            known,
            self.file.opset,
            lambda value: self._add(f"{name}/constant", value),
            lambda: self._free(f"{name}/part"),
        )
        steps = EXPANSIONS[op](node)
        for number, step in enumerate(steps, start=1):
            own = name if len(steps) == 1 else f"{name}/{number}"
            self._step(own, step.op, step.output, list(step.inputs), dict(step.attributes))

    def _stored_type(self, names: Sequence[str]) -> int:
        """The data type in which the file stores a constant; 0 if it is absent or not stored as such."""
        for name in filter(None, names):
            stored = [proto for proto in self.file.graph.initializer if proto.name == name]
            stored += [
                attribute.t
                for node in self.file.graph.node
                if name in node.output
                for attribute in node.attribute
                if attribute.name == "value"
            ]
            return stored[0].data_type if stored else 0
        return 0

    def _quantize(self, name: str, output: str, inputs: list[str], limits: tuple[int, int]) -> None:
        """Take a QuantizeLinear of activations, whose rounding is left out."""
        scale, zero = (
            self.constants[n][0] if n in self.constants else None for n in (*inputs[1:3], "", "")[:2]
        )
        kept = activation_limits(scale, zero, limits)
        self._note("quantised activations are read as floats: they keep their limits and are not rounded")
        if kept is None:
            self.integers[output] = inputs[0]
            return
        self.integers[output] = self._free(f"{output}/float")
        low, high = (self._add(f"{name}/limit", np.float32(limit)) for limit in kept)
        self._operator(name, "Clip", self.integers[output], [inputs[0], low, high], {})

    def _dequantize(self, op: str, output: str, inputs: list[str]) -> None:
        """Take a DequantizeLinear of activations, or what moves their integers."""
        if op != DEQUANTIZE:
            raise ModelError(
                "computes with quantised integers",
                expected=f"a {DEQUANTIZE} before it",
                hint="quantise with the QDQ format, or export the float model",
            )
        self.renamed[output] = self.integers[inputs[0]]

    def _mask(self, name: str, op: str, output: str, inputs: list[str], attributes: dict) -> None:
        """Take a comparison with 0, or what is made of one; only ReLUs come of it."""
        given = [
            self.masks[n] if n in self.masks else n if n in self.shapes else self.constants[n][0]
            for n in inputs
        ]
        made = masked(op, given)
        if isinstance(made, Mask):
            self.masks[output] = made
        else:
            self._operator(name, "Relu", output, [made], {})

    def _check_integers(self, op: str, inputs: list[str]) -> None:
        """Refuse axes, sizes and pads that are no integers: they would be cut to others."""
        for position in _INTEGERS.get(op, ()):
            for value in self.constants.get(inputs[position], ()) if position < len(inputs) else ():
                if value.dtype.kind != "i":
                    raise ModelError(
                        f"its input {position + 1} must be integers", got=value.dtype, expected="int64"
                    )

    def _fold(self, proto: onnx.NodeProto, op: str, inputs: list[str], attributes: dict) -> None:
        """Compute a constant; for each size of the batch if it depends on that."""
        operands = [self.constants.get(n) for n in inputs]
        n = max((len(values) for values in operands if values), default=1)
        n_read = n * sum(values[0].size for values in operands if values)
        if op in PRODUCTS:
            shape, n_products = PRODUCTS[op](*(v[0] if v else None for v in operands), **attributes)
            n_read += n * n_products * math.prod(shape)
        self._spend(FOLDED * n_read)
        if op == "Dropout":
            self._check_dropout(inputs)
            op, operands, attributes = "Identity", operands[:1], {}
        results = tuple(
            fold(op, [values[i % len(values)] if values else None for values in operands], attributes)
            for i in range(n)
        )
        self._spend(FOLDED * sum(result.size for result in results))
        self._keep(proto.output[0], results)

    def _pass(self, proto: onnx.NodeProto, op: str, inputs: list[str], attributes: dict) -> None:
        """Take an operator that changes nothing: its output is its input with another name."""
        if op == "CastLike" and inputs[0] in self.constants:  # like the network's tensors, which are float32
            self._keep(
                proto.output[0],
                tuple(fold("Cast", [value], {"to": 1}) for value in self.constants[inputs[0]]),
            )
            return
        if inputs[0] not in self.shapes:
            raise ModelError("its first input must depend on the network's input")
        if op == "Cast" and attributes.get("to") not in FLOATS:
            raise ModelError(
                "casts to a type that is not a float",
                got=f"type {attributes.get('to')}",
                hint="quantised models are not read: export the float model",
            )
        if op == "Dropout":
            self._check_dropout(inputs)
        self.renamed[proto.output[0]] = inputs[0]

    def _check_dropout(self, inputs: list[str]) -> None:
        """Refuse a dropout that drops: opset 12 and later say so by an input, older ones never."""
        training, ratio = (inputs[i] if i < len(inputs) else "" for i in (2, 1))
        drops = training and any(v.any() for v in self.constants.get(training, (np.True_,)))
        if drops and (not ratio or any(v.any() for v in self.constants.get(ratio, (np.True_,)))):
            raise ModelError("is a dropout in training mode", hint="call model.eval() before the export")

    def _on_signal(self, name: str, op: str, output: str, inputs: list[str], attributes: dict) -> None:
        """Take an operator on a signal (channels, length) as one on a map of height 1."""
        signal, axis = inputs[0], self._add(f"{name}/axis", np.array([2], np.int64))
        if signal not in self.maps:
            self.maps[signal] = self._free(f"{signal}/map")
            self._operator(f"{name}/map", "Unsqueeze", self.maps[signal], [signal, axis], {})
        attributes, changed = on_map(op, attributes, [self.constants.get(n, (None,))[0] for n in inputs])
        inputs = [self.maps[signal], *inputs[1:]]
        for position, value in changed.items():
            inputs[position] = "" if value is None else self._add(f"{name}/{position}", value)
        self.maps[output] = self._free(f"{output}/map")
        self._operator(name, op, self.maps[output], inputs, attributes)
        self._operator(f"{name}/signal", "Squeeze", output, [self.maps[output], axis], {})

    def _operator(self, name: str, op: str, output: str, inputs: list[str], attributes: dict) -> None:
        """Take an operator that depends on the network's input: apply its rule, then find its shape."""
        needed = _NEEDED.get(op, 1)
        if len(inputs) < needed or not all(inputs[:needed]):
            raise ModelError(
                "lacks an input", got=[repr(n)[:40] for n in inputs], expected=f"at least {needed}"
            )
        tensors = [Tensor(self.shapes.get(n), self.constants.get(n, ())) if n else None for n in inputs]
        for n in filter(None, inputs):
            for value in self.constants.get(n, ()):
                self._spend(value.size)
                wrong = np.isnan(value) if op in ("Clip", "Min", "Max") else ~np.isfinite(value)
                if wrong.any():
                    raise ModelError(
                        "its weights hold NaN or infinity",
                        got=f"{int(wrong.sum())} in {n!r:.60}",
                        expected="finite float32 values",
                        hint="train or export again",
                    )
        call = Call(op, attributes, tensors, self.batches, {})
        RULES[op](call)
        inputs += [""] * (len(call.tensors) - len(inputs))
        for position, constant in call.replaced.items():
            inputs[position] = "" if constant is None else self._add(f"{name}/{position}", constant)
        while not inputs[-1]:
            inputs.pop()
        operands = [
            (
                self.constants[n][0]
                if n in self.constants
                else np.zeros((1, *self.shapes[n]), np.float32)
                if n
                else None
            )
            for n in inputs
        ]
        dtype, shape = self._result(op, operands, call.attributes)
        if dtype != np.float32 or len(shape) < 1 or shape[0] != 1:
            raise ModelError("mixes the samples of a batch or types", got=f"{dtype} {shape}")
        check_size(shape[1:])
        self.shapes[output] = shape[1:]
        self.nodes.append(Node(name, op, tuple(inputs), (output,), call.attributes))

    def _result(
        self, op: str, operands: list[np.ndarray | None], attributes: dict
    ) -> tuple[np.dtype, tuple[int, ...]]:
        """Type and shape of what an operator makes of one sample; only products are not computed for it."""
        if op in PRODUCTS:
            shape, n_products = PRODUCTS[op](*operands, **attributes)
            self.products += n_products * math.prod(shape)
            if self.products > MAX_PRODUCTS:
                raise ModelError(
                    "takes too many operations, with those before it",
                    got=f"{self.products} products for one sample",
                    expected=f"at most {MAX_PRODUCTS}",
                )
            return np.result_type(*(values for values in operands if values is not None)), shape
        passes = max(_PASSES, sum(attributes.get("kernel_shape", ())))
        self._spend(passes * sum(values.size for values in operands if values is not None))
        result = OPERATORS[op](*operands, **attributes)
        self._spend(_PASSES * result.size)
        return result.dtype, result.shape


_PASSES = 3
"""How often an operator goes over its numbers: a batch norm makes three of each; a pool more."""
_INTEGERS = dict.fromkeys(
    (
        "Expand",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Squeeze",
        "Tile",
        "Unsqueeze",
    ),
    (1,),
) | {"ConstantOfShape": (0,), "Pad": (1, 3), "Slice": (1, 2, 3, 4)}
"""Inputs that are axes, sizes, pads or places, by operator."""
_ALIKE = frozenset(
    {
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Div",
        "Dropout",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "MatMul",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "PRelu",
        "Relu",
        "Sub",
        "Sum",
    }
)
"""Operators that do the same with an axis of a batch before the others."""
_PASSED = ("Cast", "CastLike", "Dropout", "Identity")
_OF_MASKS = ("And", "Equal", "Not", "Or", "Where")
_OF_SHAPES = ("Shape", "Size")
_STANDARD = {"Constant", DEQUANTIZE, QUANTIZE, *_PASSED, *FOLDERS, *RULES, *EXPANSIONS, *COMPARISONS} - {
    "Scaler"
}
_FOLDED = {*FOLDERS} - {
    *RULES,
    *EXPANSIONS,
    *COMPARISONS,
    *_PASSED,
    *_OF_MASKS,
    DEQUANTIZE,
    QUANTIZE,
    *_OF_SHAPES,
}
"""Operators of constants alone."""
_KNOWN = {
    "": _STANDARD,
    "ai.onnx": _STANDARD,
    "ai.onnx.ml": {"Scaler"},
    "com.microsoft": {DEQUANTIZE, QUANTIZE},
}
_NEEDED = {
    "Conv": 2,
    "Gemm": 2,
    "MatMul": 2,
    "BatchNormalization": 5,
    "PRelu": 2,
    "Reshape": 2,
    "Unsqueeze": 2,
    "Pad": 2,
}


def _named(nodes: list[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """Nodes by their names, which are made unique and printable."""
    named: dict = {}
    for i, node in enumerate(nodes):
        name = printable(node.name) or f"{node.op_type}_{i}"
        while name in named:
            name = f"{name}_{i}"
        named[name] = node
    return named


def _constant(attributes: dict) -> np.ndarray:
    """The value of a Constant node."""
    if len(attributes) != 1:
        raise ModelError("has not one value", got=sorted(attributes))
    ((name, value),) = attributes.items()
    if name == "value":
        return value
    if name in ("value_float", "value_floats", "value_int", "value_ints"):
        return np.array(value, np.float32 if "float" in name else np.int64)
    raise ModelError("holds a constant that is not a tensor of numbers", got=repr(name)[:40])
