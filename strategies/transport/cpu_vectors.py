"""Products of a matrix with a vector, eight rows at once: the inner loops of the fused solver, written as LLVM vectors.

Left to itself the compiler checks at every call whether the arrays overlap, and adds up the lanes of each row alone;
on matrices of 16 to 128 tokens a side that takes longer than the products. Vectors of eight numbers are one register
with AVX, half of one with AVX-512 and two with NEON: LLVM cuts them as the processor needs it.

Matrices are C-contiguous float32, and their heights and widths multiples of `LANES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8
"""Numbers in a vector, and rows that are worked on together."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)

_INT, _BITS = ir.IntType(64), ir.IntType(32)

_FUSE = ("contract", "nsz")
"""A product and a sum may become one instruction."""

# Which lanes of two vectors a and b (b's count on from a's) go into the two sides of a sum. Three rounds of such sums,
# over eight vectors, four and two, leave the sum of vector r in lane r, and no lane crosses a register half but once.
_NEIGHBOURS = (0, 2, 8, 10, 4, 6, 12, 14), (1, 3, 9, 11, 5, 7, 13, 15)

_HALVES = (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)

Operation = Callable[[Any, Any, Any], Any]


def _add(builder: Any, x: Any, y: Any) -> Any:
    return builder.fadd(x, y, flags=_FUSE)


def _least(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", x, y), x, y)


def _address(builder: Any, data: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _load(builder: Any, data: Any, index: Any) -> Any:
    return builder.load(_address(builder, data, index), align=4)


def _store(builder: Any, value: Any, data: Any, index: Any) -> None:
    builder.store(value, _address(builder, data, index), align=4)


def _lanes(places: tuple[int, ...]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))


def _fold(builder: Any, vectors: list[Any], operation: Operation) -> Any:
    """Eight vectors become one, whose lane r is vector r reduced by the operation."""
    for left, right in (_NEIGHBOURS, _NEIGHBOURS, _HALVES):
        vectors = [
            operation(builder, *(builder.shuffle_vector(x, y, _lanes(side)) for side in (left, right)))
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
    kinds = [signature.args[place] for place in (0, 3, 4)]
    arrays = [
        context.make_array(kind)(context, builder, value).data
        for kind, value in zip(kinds, [matrix, *vectors], strict=True)
    ]
    rows = [
        builder.gep(arrays[0], [builder.mul(builder.add(first, ir.Constant(_INT, row)), width)]) for row in range(LANES)
    ]
    return rows, first, width, arrays[1], arrays[2]


def _reduction(start: float, term: Operation, operation: Operation) -> Any:
    """out[first + r] = the reduction over j of term(matrix[first + r, j], vector[j]), for eight rows r."""

    def typed(_typing: Any, matrix: Any, width: Any, first: Any, vector: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rows, at, length, data, written = _parts(context, builder, signature, arguments)
            first_lanes = ir.Constant(_VECTOR, [start] * LANES)
            alloca: Any = cgutils.alloca_once_value
            reduced = [alloca(builder, first_lanes) for _ in rows]
            with cgutils.for_range(builder, builder.udiv(length, ir.Constant(_INT, LANES))) as loop:
                place = builder.mul(loop.index, ir.Constant(_INT, LANES))
                other = _load(builder, data, place)
                for row, so_far in zip(rows, reduced, strict=True):
                    new = term(builder, _load(builder, row, place), other)
                    builder.store(operation(builder, builder.load(so_far), new), so_far)
            _store(builder, _fold(builder, [builder.load(each) for each in reduced], operation), written, at)
            return context.get_dummy_value()

        return types.none(matrix, width, first, vector, out), generate

    return intrinsic(typed)


def _accumulation(term: Operation, operation: Operation) -> Any:
    """out[j] = operation(out[j], the operation over eight rows r of term(matrix[first + r, j], vector[first + r]))."""

    def typed(_typing: Any, matrix: Any, width: Any, first: Any, vector: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rows, at, length, data, written = _parts(context, builder, signature, arguments)
            others = [
                _splat(builder, builder.load(builder.gep(data, [builder.add(at, ir.Constant(_INT, row))])))
                for row in range(LANES)
            ]
            with cgutils.for_range(builder, builder.udiv(length, ir.Constant(_INT, LANES))) as loop:
                place = builder.mul(loop.index, ir.Constant(_INT, LANES))
                so_far = [_load(builder, written, place)]
                for row, other in zip(rows, others, strict=True):
                    new = term(builder, _load(builder, row, place), other)
                    # Two chains, since each operation waits for the one before it.
                    so_far = [*so_far[1:], operation(builder, so_far[0], new)] if len(so_far) > 1 else [*so_far, new]
                _store(builder, operation(builder, *so_far), written, place)
            return context.get_dummy_value()

        return types.none(matrix, width, first, vector, out), generate

    return intrinsic(typed)


def _number(code: Callable[[Any, Any], Any], kind: Any = types.float32) -> Any:
    """An intrinsic from a number to one of its kind, of few enough bits in between that loops over it vectorise."""

    def typed(_typing: Any, _x: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return code(builder, arguments[0])

        return kind(kind), generate

    return intrinsic(typed)


def _exponent(builder: Any, x: Any) -> Any:
    """The n for which x / 2^n is between sqrt(1/2) and sqrt(2), as an int32."""
    above = builder.sub(builder.bitcast(x, _BITS), ir.Constant(_BITS, 0x3F3504F3))
    return builder.ashr(above, ir.Constant(_BITS, 23))


def _mantissa(builder: Any, x: Any) -> Any:
    raised = builder.shl(_exponent(builder, x), ir.Constant(_BITS, 23))
    return builder.bitcast(builder.sub(builder.bitcast(x, _BITS), raised), ir.FloatType())


def _power_of_two(builder: Any, x: Any) -> Any:
    raised = builder.add(builder.fptosi(x, _BITS), ir.Constant(_BITS, 127))
    return builder.bitcast(builder.shl(raised, ir.Constant(_BITS, 23)), ir.FloatType())


def _double_power_of_two(builder: Any, x: Any) -> Any:
    raised = builder.zext(builder.add(builder.fptosi(x, _BITS), ir.Constant(_BITS, 1023)), _INT)
    return builder.bitcast(builder.shl(raised, ir.Constant(_INT, 52)), ir.DoubleType())


def _product(builder: Any, x: Any, y: Any) -> Any:
    return builder.fmul(x, y, flags=_FUSE)


def _difference(builder: Any, x: Any, y: Any) -> Any:
    return builder.fsub(x, y)


row_sums: Any = _reduction(0.0, _product, _add)
"""row_sums(matrix, width, first, vector, out): out[first + r] = sum_j matrix[first + r, j] vector[j]."""

row_minima: Any = _reduction(float("inf"), _difference, _least)
"""row_minima(matrix, width, first, vector, out): out[first + r] = min_j matrix[first + r, j] - vector[j]."""

add_rows: Any = _accumulation(_product, _add)
"""add_rows(matrix, width, first, vector, out): out[j] += sum_r matrix[first + r, j] vector[first + r]."""

lower_to_rows: Any = _accumulation(_difference, _least)
"""lower_to_rows(...): out[j] = the least of out[j] and all matrix[first + r, j] - vector[first + r]."""

power_of_two: Any = _number(_power_of_two)
"""2^n for whole n between -126 and 127."""

double_power_of_two: Any = _number(_double_power_of_two, types.float64)
"""2^n for whole n between -1022 and 1023, in float64."""

exponent: Any = _number(lambda builder, x: builder.sitofp(_exponent(builder, x), ir.FloatType()))
"""The n for which x / 2^n is between sqrt(1/2) and sqrt(2), of normal x > 0."""

mantissa: Any = _number(_mantissa)
"""x / 2^n for that n."""
