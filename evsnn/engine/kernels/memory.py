"""Loads, stores and bit operations on raw addresses (int64), for kernels."""

from __future__ import annotations

from llvmlite import ir
from numba import config
from numba.core import cgutils, types
from numba.core.extending import intrinsic

__all__ = [
    "load_i32",
    "load_i64",
    "load_u64",
    "pop_count",
    "prefetch",
    "store_i32",
    "store_i64",
    "store_u64",
    "trailing_zeros",
]

_I64 = ir.IntType(64)


def pointer(builder, address, llvm_type):
    """`address` as a pointer to `llvm_type`."""
    return builder.inttoptr(address, llvm_type.as_pointer())


def _load(bits: int, result):
    llvm_type = ir.IntType(bits)

    def load(context, address):
        def generate(context, builder, signature, args):
            value = builder.load(pointer(builder, args[0], llvm_type), align=bits // 8)
            return value if bits == 64 else builder.sext(value, _I64)

        return result(types.int64), generate

    return intrinsic(load)


def _store(bits: int, value_type):
    llvm_type = ir.IntType(bits)

    def store(context, address, value):
        def generate(context, builder, signature, args):
            value = args[1] if bits == 64 else builder.trunc(args[1], llvm_type)
            builder.store(value, pointer(builder, args[0], llvm_type), align=bits // 8)
            return context.get_dummy_value()

        return types.void(types.int64, value_type), generate

    return intrinsic(store)


load_i32 = _load(32, types.int64)
load_i64 = _load(64, types.int64)
load_u64 = _load(64, types.uint64)
store_i32 = _store(32, types.int64)
store_i64 = _store(64, types.int64)
store_u64 = _store(64, types.uint64)


@intrinsic
def prefetch(context, address):
    """Fetch the cache line at `address`, which will be read soon."""

    def generate(context, builder, signature, args):
        i32 = ir.IntType(32)
        line = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [line.type, i32, i32, i32]), "llvm.prefetch.p0"
        )
        builder.call(function, [line, i32(0), i32(2), i32(1)])  # a read, into the second-level cache, of data
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def trailing_zeros(context, word):
    """Index of the lowest set bit of a uint64 that is not 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def pop_count(context, word):
    """Number of set bits of a uint64."""

    def generate(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


if config.DISABLE_JIT:
    from .interpreted import (
        load_i32,
        load_i64,
        load_u64,
        pop_count,
        prefetch,
        store_i32,
        store_i64,
        store_u64,
        trailing_zeros,
    )
