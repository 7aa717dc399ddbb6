"""Products of a matrix with a vector, eight rows at once: the inner loops of the fused solver, written as LLVM vectors.

As plain loops the compiler checks at every call whether the arrays overlap, and adds up the lanes of each row alone,
which takes 1.1 to 1.4 times as long on matrices of 16 to 128 tokens a side. Vectors of eight numbers are one register
with AVX, half of one with AVX-512 and two with NEON: LLVM cuts them as the processor needs it.

Matrices are C-contiguous float32, and their heights and widths multiples of `LANES`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8
"""Numbers in a vector, and rows that are worked on together."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT = ir.IntType(64)
_FUSE = ("contract", "nsz")
"""A product and a sum may become one instruction."""

# Which lanes of two vectors a and b (b's count on from a's) go into the two sides of a sum. Three rounds of such sums,
# over eight vectors, four and two, leave the sum of vector r in lane r, and no lane crosses a register half but once.
_NEIGHBOURS = (0, 2, 8, 10, 4, 6, 12, 14), (1, 3, 9, 11, 5, 7, 13, 15)
_HALVES = (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)


def _add(builder: Any, x: Any, y: Any) -> Any:
    return builder.fadd(x, y, flags=_FUSE)


def _address(builder: Any, data: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _load(builder: Any, data: Any, index: Any) -> Any:
    return builder.load(_address(builder, data, index), align=4)


def _store(builder: Any, value: Any, data: Any, index: Any) -> None:
    builder.store(value, _address(builder, data, index), align=4)


def _lanes(positions: tuple[int, ...]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(positions)), list(positions))


def _fold(builder: Any, vectors: list[Any]) -> Any:
    """Eight vectors become one, whose lane r is the sum of vector r."""
    for left, right in (_NEIGHBOURS, _NEIGHBOURS, _HALVES):
        vectors = [
            _add(builder, *(builder.shuffle_vector(x, y, _lanes(side)) for side in (left, right)))
            for x, y in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def _splat(builder: Any, number: Any) -> Any:
    """A vector of equal lanes."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, _lanes((0,) * LANES))


def _parts(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[list[Any], Any, Any, Any, Any]:
    """The addresses of eight rows, the first row's number, the width, and the data of the two vectors."""
    matrix, width, first, *vectors = arguments
    kinds = [signature.args[number] for number in (0, 3, 4)]
    arrays = [
        context.make_array(kind)(context, builder, value).data
        for kind, value in zip(kinds, [matrix, *vectors], strict=True)
    ]
    rows = [
        builder.gep(arrays[0], [builder.mul(builder.add(first, ir.Constant(_INT, row)), width)]) for row in range(LANES)
    ]
    return rows, first, width, arrays[1], arrays[2]


def _row_sums(_typing: Any, matrix: Any, width: Any, first: Any, vector: Any, out: Any) -> Any:
    """out[first + r] = sum_j matrix[first + r, j] vector[j], for eight rows r."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, start, length, data, written = _parts(context, builder, signature, arguments)
        alloca: Any = cgutils.alloca_once_value
        sums = [alloca(builder, ir.Constant(_VECTOR, [0.0] * LANES)) for _ in rows]
        with cgutils.for_range(builder, builder.udiv(length, ir.Constant(_INT, LANES))) as loop:
            index = builder.mul(loop.index, ir.Constant(_INT, LANES))
            factor = _load(builder, data, index)
            for row, total in zip(rows, sums, strict=True):
                term = builder.fmul(_load(builder, row, index), factor, flags=_FUSE)
                builder.store(_add(builder, builder.load(total), term), total)
        _store(builder, _fold(builder, [builder.load(total) for total in sums]), written, start)
        return context.get_dummy_value()

    return types.none(matrix, width, first, vector, out), generate


def _add_rows(_typing: Any, matrix: Any, width: Any, first: Any, vector: Any, out: Any) -> Any:
    """out[j] += sum_r matrix[first + r, j] vector[first + r], over eight rows r."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, start, length, data, written = _parts(context, builder, signature, arguments)
        factors = [
            _splat(builder, builder.load(builder.gep(data, [builder.add(start, ir.Constant(_INT, row))])))
            for row in range(LANES)
        ]
        with cgutils.for_range(builder, builder.udiv(length, ir.Constant(_INT, LANES))) as loop:
            index = builder.mul(loop.index, ir.Constant(_INT, LANES))
            sums = [_load(builder, written, index)]
            for row, factor in zip(rows, factors, strict=True):
                term = builder.fmul(_load(builder, row, index), factor, flags=_FUSE)
                # Two chains, since each sum waits for the one before it.
                sums = [*sums[1:], _add(builder, sums[0], term)] if len(sums) > 1 else [*sums, term]
            _store(builder, _add(builder, *sums), written, index)
        return context.get_dummy_value()

    return types.none(matrix, width, first, vector, out), generate


row_sums: Any = intrinsic(_row_sums)
add_rows: Any = intrinsic(_add_rows)
