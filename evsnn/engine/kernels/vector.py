"""The vector type: a numba value that is one wide LLVM vector.

LLVM compiles ``<64 x float>`` to four AVX-512, eight AVX2 or sixteen NEON registers. So one source of a
kernel serves every CPU, and a tile's membranes stay in registers for all time steps.

A `Vectors` object (`selectors`) says which types a kernel works on, and is its first argument; an `Events`
object says how an event is stored. Both carry no data: they select the specialisation.

=========  ===========  ========  ======  ==============================================================
membrane   accumulator  weight    lanes
=========  ===========  ========  ======  ==============================================================
float32    (membrane)   float32   16-64   sums are added directly to the membrane, in the specified order
int16      (membrane)   int8      32-128  likewise; sums may wrap, the compared value is proven not to
int32      int16        int8      32-128  sums of a bounded number of events, which are then widened
int32      (membrane)   int8      16-64   the current of the analog input, whose products are wide
int8       (membrane)   int8      64      counters of max pools, which have no accumulator
=========  ===========  ========  ======  ==============================================================
"""

from __future__ import annotations

from llvmlite import ir
from numba import config
from numba.core import types
from numba.core.extending import intrinsic, models, register_model

from .layout import COPY_BYTES
from .memory import pointer
from .selectors import ELEMENT_BYTES, Events, Vectors

__all__ = [
    "add",
    "add_counts",
    "add_event",
    "add_masked",
    "add_product",
    "begin",
    "behind",
    "negative_mask",
    "copy_events",
    "has_shifts",
    "has_warm_up",
    "event_bytes",
    "graded",
    "leak",
    "undo_reset",
    "load",
    "mask",
    "mask_bytes",
    "maximum",
    "membrane_bytes",
    "merge",
    "pad_events",
    "put_event",
    "put_ids",
    "reset",
    "row_bytes",
    "shift",
    "has_negative_spikes",
    "store",
    "store_mask",
    "net_count",
    "type_of",
    "zero",
]

_ELEMENTS = {
    "float32": ir.FloatType(),
    "int8": ir.IntType(8),
    "int16": ir.IntType(16),
    "int32": ir.IntType(32),
    "bool": ir.IntType(1),
}
_I64 = ir.IntType(64)


class _Selector(types.Type):
    """Type of an argument that carries no data."""

    def __init__(self, selects):
        self.selects = selects
        super().__init__(name=str(selects))


class _VectorsType(_Selector):
    pass


class _EventsType(_Selector):
    pass


for _type in (_VectorsType, _EventsType):
    register_model(_type)(models.OpaqueModel)


def type_of(selector: Vectors | Events) -> _Selector:
    """The numba type of a selector."""
    return (_VectorsType if isinstance(selector, Vectors) else _EventsType)(selector)


class _Vector(types.Type):
    """Type of a vector in registers."""

    def __init__(self, element: str, lanes: int):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"{element} x {lanes}")

    @property
    def llvm(self):
        return ir.VectorType(_ELEMENTS[self.element], self.lanes)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, typ):
        super().__init__(manager, typ, typ.llvm)


class _Halves(types.Type):
    """Type of a vector in registers that is computed half by half.

    A product and a sum of 64 float32 need 16 registers each for membranes and products, and one more for the
    count. NEON has 32, so the compiler would put membranes on the stack. It does not if one half is finished
    before the other is begun.
    """

    def __init__(self, whole: _Vector):
        self.whole, self.half = whole, _Vector(whole.element, whole.lanes // 2)
        super().__init__(name=f"halves of {whole}")

    def split(self, builder, whole):
        """The halves of a whole vector."""
        halves = ir.Constant(ir.LiteralStructType([self.half.llvm] * 2), ir.Undefined)
        for i, first in enumerate((0, self.half.lanes)):
            lanes = ir.Constant(
                ir.VectorType(ir.IntType(32), self.half.lanes), list(range(first, first + self.half.lanes))
            )
            halves = builder.insert_value(
                halves, builder.shuffle_vector(whole, ir.Constant(self.whole.llvm, ir.Undefined), lanes), i
            )
        return halves

    def joined(self, builder, halves):
        """The whole vector."""
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.whole.lanes), list(range(self.whole.lanes)))
        return builder.shuffle_vector(*(builder.extract_value(halves, i) for i in range(2)), lanes)


@register_model(_Halves)
class _HalvesModel(models.PrimitiveModel):
    def __init__(self, manager, typ):
        super().__init__(manager, typ, ir.LiteralStructType([typ.half.llvm] * 2))


def _membrane(vectors: _VectorsType) -> _Vector:
    return _Vector(vectors.selects.membrane, vectors.selects.lanes)


def _accumulator(vectors: _VectorsType) -> _Vector:
    return _Vector(vectors.selects.accumulator, vectors.selects.lanes)


def _load(builder, address, vector: _Vector):
    return builder.load(pointer(builder, address, vector.llvm), align=ELEMENT_BYTES[vector.element])


def _sum(builder, vector: _Vector, a, b):
    return builder.fadd(a, b) if vector.element == "float32" else builder.add(a, b)


def _lanes(builder, word, lanes: int):
    """The bits of a mask as a vector of booleans, one per lane.

    Each byte is copied eight times, and each copy is tested for one bit; a bitcast would become scalar code
    on ARM.
    """
    n_bytes, copies = ir.VectorType(ir.IntType(8), lanes // 8), ir.VectorType(ir.IntType(8), lanes)
    parts = builder.bitcast(word, n_bytes)
    index = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [lane // 8 for lane in range(lanes)])
    spread = builder.shuffle_vector(parts, ir.Constant(n_bytes, ir.Undefined), index)
    bit = ir.Constant(copies, [1 << lane % 8 for lane in range(lanes)])
    return builder.icmp_unsigned("!=", builder.and_(spread, bit), ir.Constant(copies, None))


def _splat(builder, scalar, vector: _Vector):
    lanes = ir.VectorType(ir.IntType(32), vector.lanes)
    one = builder.insert_element(
        ir.Constant(vector.llvm, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
    )
    return builder.shuffle_vector(one, ir.Constant(vector.llvm, ir.Undefined), ir.Constant(lanes, None))


def _row(builder, address, vectors: Vectors):
    """A row of weights, as accumulators."""
    row = _load(builder, address, _Vector(vectors.weight, vectors.lanes))
    return (
        row
        if vectors.weight == vectors.accumulator
        else builder.sext(row, _Vector(vectors.accumulator, vectors.lanes).llvm)
    )


def _constant(of):
    """An intrinsic that is a constant of the specialisation."""

    def constant(context, selector):
        value = int(of(selector.selects))

        def generate(context, builder, signature, args):
            return ir.Constant(_I64, value)

        return types.int64(selector), generate

    return intrinsic(constant)


membrane_bytes = _constant(lambda vectors: vectors.membrane_bytes)
row_bytes = _constant(lambda vectors: vectors.row_bytes)
mask_bytes = _constant(lambda vectors: vectors.lanes // 8)
has_negative_spikes = _constant(lambda vectors: vectors.has_negative_spikes)
has_warm_up = _constant(lambda vectors: vectors.has_warm_up)
has_shifts = _constant(lambda vectors: vectors.has_shifts)
event_bytes = _constant(lambda vectors: vectors.bytes)
graded = _constant(lambda vectors: vectors.graded)


@intrinsic
def zero(context, vectors):
    """A vector of zero membranes."""
    result = _membrane(vectors)

    def generate(context, builder, signature, args):
        return ir.Constant(result.llvm, None)

    return result(vectors), generate


@intrinsic
def load(context, vectors, address):
    """Membranes from memory."""
    result = _membrane(vectors)

    def generate(context, builder, signature, args):
        return _load(builder, args[1], result)

    return result(vectors, types.int64), generate


@intrinsic
def store(context, vectors, address, v):
    """Membranes to memory."""

    def generate(context, builder, signature, args):
        builder.store(args[2], pointer(builder, args[1], v.llvm), align=ELEMENT_BYTES[v.element])
        return context.get_dummy_value()

    return types.void(vectors, types.int64, v), generate


@intrinsic
def add(context, vectors, v, u):
    """v + u."""

    def generate(context, builder, signature, args):
        return _sum(builder, v, args[1], args[2])

    return v(vectors, v, u), generate


@intrinsic
def maximum(context, vectors, v, u):
    """The larger of two integers, lane by lane."""

    def generate(context, builder, signature, args):
        return builder.select(builder.icmp_signed(">", args[1], args[2]), args[1], args[2])

    return v(vectors, v, u), generate


def _counts(vectors: _VectorsType) -> _Vector:
    return _Vector("int16", vectors.selects.lanes)


@intrinsic
def behind(context, vectors, counts_address, largest_address, limit):
    """How far counts of 16 bits, modulo 2^16, are behind the largest: integers from -`limit` to 0."""
    result, counts = _membrane(vectors), _counts(vectors)

    def generate(context, builder, signature, args):
        gap = builder.sub(_load(builder, args[2], counts), _load(builder, args[1], counts))
        most = _splat(builder, builder.trunc(args[3], counts.llvm.element), counts)
        gap = builder.select(builder.icmp_unsigned("<", gap, most), gap, most)
        if result.element == "int32":
            gap = builder.zext(gap, result.llvm)
        elif result.element == "int8":
            gap = builder.trunc(gap, result.llvm)
        return builder.neg(gap)

    return result(vectors, types.int64, types.int64, types.int64), generate


@intrinsic
def add_counts(context, vectors, address, v):
    """Add integers to counts of 16 bits at `address`, modulo 2^16."""
    counts = _counts(vectors)

    def generate(context, builder, signature, args):
        more = args[2]
        if v.element == "int32":
            more = builder.trunc(more, counts.llvm)
        elif v.element == "int8":
            more = builder.sext(more, counts.llvm)
        total = builder.add(_load(builder, args[1], counts), more)
        builder.store(total, pointer(builder, args[1], counts.llvm), align=ELEMENT_BYTES[counts.element])
        return context.get_dummy_value()

    return types.void(vectors, types.int64, v), generate


def _sums(vectors: _VectorsType, events: _EventsType) -> _Vector | _Halves:
    """Type of the sums within a step."""
    accumulator = _accumulator(vectors)
    halved = (
        events.selects.graded
        and vectors.selects.in_membrane
        and accumulator.element == "float32"
        and accumulator.lanes == 64
    )
    return _Halves(accumulator) if halved else accumulator


@intrinsic
def begin(context, vectors, events, v):
    """The sum that a step starts from: the membrane itself, or zero if the accumulator is narrower."""
    result = _sums(vectors, events)
    in_membrane = vectors.selects.in_membrane

    def generate(context, builder, signature, args):
        if isinstance(result, _Halves):
            return result.split(builder, args[2])
        return args[2] if in_membrane else ir.Constant(result.llvm, None)

    return result(vectors, events, v), generate


@intrinsic
def merge(context, vectors, v, s):
    """The membrane after a sum that `begin` began."""
    in_membrane = vectors.selects.in_membrane

    def generate(context, builder, signature, args):
        if isinstance(s, _Halves):
            return s.joined(builder, args[2])
        return args[2] if in_membrane else builder.add(args[1], builder.sext(args[2], v.llvm))

    return v(vectors, v, s), generate


def _count(builder, events: Events, address, vector: _Vector):
    """The count of a graded event in every lane."""
    bits = 8 * events.bytes
    above = ir.Constant(_I64, events.id_bits // 8)
    if events.count == "float32" and events.id_bits == 16:  # the lower half of the word is the id
        word = _Vector("int32", vector.lanes)
        lanes = _splat(
            builder, builder.load(pointer(builder, address, ir.IntType(bits)), align=bits // 8), word
        )
        return builder.bitcast(
            builder.and_(lanes, ir.Constant(word.llvm, [0xFFFF0000 - (1 << 32)] * vector.lanes)), vector.llvm
        )
    stored = ir.FloatType() if events.count == "float32" else ir.IntType(events.id_bits)
    count = builder.load(pointer(builder, builder.add(address, above), stored), align=events.id_bits // 8)
    if events.count == "integer":
        element = _ELEMENTS[vector.element]
        count = (
            builder.trunc(count, element)
            if element.width < events.id_bits
            else builder.zext(count, element)
            if element.width > events.id_bits
            else count
        )
    return _splat(builder, count, vector)


def _add_product_in_halves(builder, events: Events, s: _Halves, sums, row_address, event_address):
    """Halves + count * row."""
    half_bytes = ir.Constant(_I64, s.half.lanes * ELEMENT_BYTES[s.half.element])
    count = _count(builder, events, event_address, s.half)
    for i in range(2):
        product = builder.fmul(count, _load(builder, row_address, s.half))
        sums = builder.insert_value(sums, builder.fadd(builder.extract_value(sums, i), product), i)
        row_address = builder.add(row_address, half_bytes)
    return sums


@intrinsic
def add_event(context, vectors, events, s, weights, address):
    """s + the weight row of the event at `address`; for graded events s + count * row, never fused."""
    spec, stored = vectors.selects, events.selects

    def generate(context, builder, signature, args):
        number = builder.load(
            pointer(builder, args[4], ir.IntType(stored.id_bits)), align=stored.id_bits // 8
        )
        row_bytes = ir.Constant(_I64, spec.row_bytes)
        address = builder.add(args[3], builder.mul(builder.zext(number, _I64), row_bytes))
        if isinstance(s, _Halves):
            return _add_product_in_halves(builder, stored, s, args[2], address, args[4])
        row = _row(builder, address, spec)
        if stored.graded:
            row = (builder.fmul if s.element == "float32" else builder.mul)(
                _count(builder, stored, args[4], s), row
            )
        return _sum(builder, s, args[2], row)

    return s(vectors, events, s, types.int64, types.int64), generate


@intrinsic
def add_product(context, vectors, v, value_address, row_address):
    """v + value * row, with a value of the membrane's element in memory: one product, one sum."""
    spec = vectors.selects
    if not spec.in_membrane:
        raise TypeError("add_product needs vectors without an accumulator of their own")

    def generate(context, builder, signature, args):
        value = builder.load(pointer(builder, args[2], _ELEMENTS[v.element]), align=ELEMENT_BYTES[v.element])
        row = _row(builder, args[3], spec)
        product = (builder.fmul if v.element == "float32" else builder.mul)(_splat(builder, value, v), row)
        return _sum(builder, v, args[1], product)

    return v(vectors, v, types.int64, types.int64), generate


@intrinsic
def add_masked(context, vectors, v, mask_address, weight_address):
    """v + weight in the lanes whose bit is set in the mask at `mask_address`; weights are membranes."""
    bits = ir.IntType(vectors.selects.lanes)

    def generate(context, builder, signature, args):
        word = builder.load(pointer(builder, args[2], bits), align=1)
        return builder.select(
            _lanes(builder, word, v.lanes), _sum(builder, v, args[1], _load(builder, args[3], v)), args[1]
        )

    return v(vectors, v, types.int64, types.int64), generate


@intrinsic
def mask(context, vectors, v, threshold):
    """The lanes with v >= threshold."""
    result = _Vector("bool", v.lanes)

    def generate(context, builder, signature, args):
        if v.element == "float32":
            return builder.fcmp_ordered(">=", args[1], args[2])
        return builder.icmp_signed(">=", args[1], args[2])

    return result(vectors, v, threshold), generate


@intrinsic
def store_mask(context, vectors, address, fired):
    """Store a mask as lanes / 8 bytes, with lane 0 in bit 0."""
    bits = ir.IntType(vectors.selects.lanes)

    def generate(context, builder, signature, args):
        builder.store(builder.bitcast(args[2], bits), pointer(builder, args[1], bits), align=1)
        return context.get_dummy_value()

    return types.void(vectors, types.int64, fired), generate


@intrinsic
def reset(context, vectors, v, threshold, fired):
    """v - threshold in the lanes that fired."""

    def generate(context, builder, signature, args):
        less = (builder.fsub if v.element == "float32" else builder.sub)(args[1], args[2])
        return builder.select(args[3], less, args[1])

    return v(vectors, v, threshold, fired), generate


@intrinsic
def negative_mask(context, vectors, v, bound, n):
    """The lanes with v < bound and n > 0."""
    result = _Vector("bool", v.lanes)

    def generate(context, builder, signature, args):
        compare = builder.fcmp_ordered if v.element == "float32" else builder.icmp_signed
        return builder.and_(compare("<", args[1], args[2]), compare(">", args[3], ir.Constant(v.llvm, None)))

    return result(vectors, v, bound, n), generate


@intrinsic
def net_count(context, vectors, n, fired, below):
    """n + 1 in the lanes that fired, n - 1 in the lanes that send a negative spike."""

    def generate(context, builder, signature, args):
        if n.element == "float32":
            more, less = (
                _sum(builder, n, args[1], ir.Constant(n.llvm, [step] * n.lanes)) for step in (1.0, -1.0)
            )
            return builder.select(args[2], more, builder.select(args[3], less, args[1]))
        return builder.add(builder.sub(args[1], builder.sext(args[2], n.llvm)), builder.sext(args[3], n.llvm))

    return n(vectors, n, fired, below), generate


@intrinsic
def undo_reset(context, vectors, v, threshold, below):
    """v + threshold in the lanes that send a negative spike."""

    def generate(context, builder, signature, args):
        return builder.select(args[3], _sum(builder, v, args[1], args[2]), args[1])

    return v(vectors, v, threshold, below), generate


@intrinsic
def leak(context, vectors, v, factor):
    """The membrane after the leak: v * factor + 0.0, or v - (v >> factor) for integers."""

    def generate(context, builder, signature, args):
        if v.element == "float32":  # + 0.0: a membrane is never -0.0
            return builder.fadd(builder.fmul(args[1], args[2]), ir.Constant(v.llvm, [0.0] * v.lanes))
        return builder.sub(args[1], builder.ashr(args[1], args[2]))

    return v(vectors, v, factor), generate


@intrinsic
def shift(context, vectors, v, right, left):
    """v >> right << left for integers; floats stay."""

    def generate(context, builder, signature, args):
        if v.element == "float32":
            return args[1]
        return builder.shl(builder.ashr(args[1], args[2]), args[3])

    return v(vectors, v, right, left), generate


def _id_lanes(spec: Events):
    """The ids of events in `COPY_BYTES` as a vector type, and 1 for each lane that is an id (not a count)."""
    n = 8 * COPY_BYTES // spec.id_bits
    return ir.VectorType(ir.IntType(spec.id_bits), n), [
        int(not spec.graded or lane % 2 == 0) for lane in range(n)
    ]


@intrinsic
def copy_events(context, events, source, target, offset):
    """Copy `COPY_BYTES` of events, with `offset` added to their ids, modulo their width."""
    spec = events.selects

    def generate(context, builder, signature, args):
        lanes, is_id = _id_lanes(spec)
        numbers = _Vector(f"int{spec.id_bits}", len(is_id))
        offsets = _splat(builder, builder.trunc(args[3], lanes.element), numbers)
        if spec.graded:
            offsets = builder.mul(offsets, ir.Constant(lanes, is_id))
        copied = builder.add(builder.load(pointer(builder, args[1], lanes), align=spec.bytes), offsets)
        builder.store(copied, pointer(builder, args[2], lanes), align=spec.bytes)
        return context.get_dummy_value()

    return types.void(events, types.int64, types.int64, types.int64), generate


@intrinsic
def pad_events(context, events, target, number):
    """Write `COPY_BYTES` of events with one id and, if they are graded, with count 0."""
    spec = events.selects

    def generate(context, builder, signature, args):
        lanes, is_id = _id_lanes(spec)
        numbers = _splat(
            builder, builder.trunc(args[2], lanes.element), _Vector(f"int{spec.id_bits}", len(is_id))
        )
        if spec.graded:
            numbers = builder.mul(numbers, ir.Constant(lanes, is_id))
        builder.store(numbers, pointer(builder, args[1], lanes), align=spec.bytes)
        return context.get_dummy_value()

    return types.void(events, types.int64, types.int64), generate


@intrinsic
def put_ids(context, events, target, positions, number):
    """Write eight events (not graded): `number` plus each byte of `positions`."""
    spec = events.selects

    def generate(context, builder, signature, args):
        lanes = _Vector(f"int{spec.id_bits}", 8)
        offsets = builder.zext(builder.bitcast(args[2], ir.VectorType(ir.IntType(8), 8)), lanes.llvm)
        ids = builder.add(offsets, _splat(builder, builder.trunc(args[3], lanes.llvm.element), lanes))
        builder.store(ids, pointer(builder, args[1], lanes.llvm), align=spec.bytes)
        return context.get_dummy_value()

    return types.void(events, types.int64, types.uint64, types.int64), generate


@intrinsic
def put_event(context, events, address, number, count):
    """Write an event."""
    spec = events.selects

    def generate(context, builder, signature, args):
        stored, value, count = ir.IntType(8 * spec.bytes), args[2], args[3]
        if spec.count == "float32":
            word = builder.bitcast(builder.sitofp(count, ir.FloatType()), ir.IntType(32))
            count = builder.zext(
                (
                    builder.lshr(word, ir.Constant(ir.IntType(32), 32 - spec.id_bits))
                    if spec.id_bits < 32
                    else word
                ),
                _I64,
            )
        if spec.graded:
            value = builder.or_(value, builder.shl(count, ir.Constant(_I64, spec.id_bits)))
        builder.store(
            value if spec.bytes == 8 else builder.trunc(value, stored),
            pointer(builder, args[1], stored),
            align=spec.bytes,
        )
        return context.get_dummy_value()

    return types.void(events, types.int64, types.int64, types.int64), generate


if config.DISABLE_JIT:
    from .interpreted import (
        add,
        add_counts,
        add_event,
        add_masked,
        add_product,
        begin,
        behind,
        copy_events,
        event_bytes,
        graded,
        has_negative_spikes,
        has_shifts,
        has_warm_up,
        leak,
        load,
        mask,
        mask_bytes,
        maximum,
        membrane_bytes,
        merge,
        negative_mask,
        net_count,
        pad_events,
        put_event,
        put_ids,
        reset,
        row_bytes,
        shift,
        store,
        store_mask,
        undo_reset,
        zero,
    )
