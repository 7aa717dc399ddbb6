"""What the native loops of the fused solver are made of: how they are compiled, and their innermost loops.

Matrices are C-contiguous float32, and their heights and widths multiples of `LANES`. Products with a vector take eight
rows at once, in eight sums that do not wait for each other. Indices are unsigned: Numba would otherwise test each for
being negative, and the loops over short rows would not vectorise.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from strategies.transport.problem import DROP

Array: TypeAlias = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

# Sums may be reordered, so that they vectorise; infinities and NaN keep their meaning.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}


def compiled(function: F) -> F:
    """Compile a function as a part of those that call it."""
    wrapper: F = numba.njit(**OPTIONS)(function)
    return wrapper


def inlined(function: F) -> F:
    """Compile a function into those that call it: a call with many arrays takes longer than a short loop."""
    wrapper: F = numba.njit(forceinline=True, **OPTIONS)(function)
    return wrapper


def kept(function: F) -> F:
    """Compile a function at its first call, and keep the machine code on disk if there is a place for it."""
    try:
        wrapper: F = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither the folder of the function's file nor the user's cache can be written
        return compiled(function)
    return wrapper


def source_stamp() -> int:
    """A number that changes with the source of the native loops.

    Numba compiles again when the file of a function changes, but not when that of a function that it calls does. What
    a function closes over is part of the key under which it is kept: so the entry points close over this number.
    """
    files = [*sorted(Path(__file__).parent.glob("cpu_*.py")), Path(__file__).with_name("problem.py")]
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


# Single precision is typed throughout: a plain literal would make it double.
F32: Any = np.float32
ZERO, ONE, TWO, HALF = F32(0), F32(1), F32(2), F32(0.5)
LOG2E, LN2, LOWEST, DROPPED = F32(1.4426950408889634), F32(0.6931471805599453), F32(-80), F32(DROP)

LANES = 8
"""Rows that are worked on together."""

_1, _2, _3, _4, _5, _6, _7 = (np.uintp(row) for row in range(1, LANES))


@inlined
def exponential(x: Any) -> Any:
    """e^x in single precision for x <= 80, by 2^n p(f), and zero below DROP; without branches, for fast loops."""
    t = max(x, LOWEST) * LOG2E
    n = np.floor(t + HALF)
    f = t - n
    p = F32(1.5403530393381606e-4)
    p = p * f + F32(1.3333558146428443e-3)
    p = p * f + F32(9.618129107628477e-3)
    p = p * f + F32(5.550410866482158e-2)
    p = p * f + F32(2.402265069591007e-1)
    p = p * f + F32(6.931471805599453e-1)
    p = (p * f + ONE) * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return p if p > DROPPED else ZERO


@inlined
def logarithm(x: Any) -> Any:
    """Natural logarithm in single precision of normal x > 0, by 2 atanh((m - 1) / (m + 1)) of the mantissa m."""
    bits = F32(x).view(np.int32)
    n = (bits - np.int32(0x3F3504F3)) >> np.int32(23)  # x / 2^n is between sqrt(1/2) and sqrt(2)
    m = np.int32(bits - (n << np.int32(23))).view(np.float32)
    t = (m - ONE) / (m + ONE)
    s = t * t
    p = F32(0.2222222222)
    p = p * s + F32(0.2857142857)
    p = p * s + F32(0.4)
    p = p * s + F32(0.6666666667)
    p = p * s + TWO
    return F32(n) * LN2 + t * p


@inlined
def double_exponential(x: Any) -> Any:
    """e^x in float64 for x <= 700, zero below 1e-300: 2^n times a series, without branches, for fast loops."""
    t = max(x, -690.0) * 1.4426950408889634
    n = np.floor(t + 0.5)
    r = (t - n) * 0.6931471805599453
    p = 1 / 479001600.0
    p = p * r + 1 / 39916800.0
    p = p * r + 1 / 3628800.0
    p = p * r + 1 / 362880.0
    p = p * r + 1 / 40320.0
    p = p * r + 1 / 5040.0
    p = p * r + 1 / 720.0
    p = p * r + 1 / 120.0
    p = p * r + 1 / 24.0
    p = p * r + 1 / 6.0
    p = ((p * r + 0.5) * r + 1.0) * r + 1.0
    return p * np.int64((np.int64(n) + np.int64(1023)) << np.int64(52)).view(np.float64) if x > -690.0 else 0.0


@inlined
def fill(x: Array, number: Any) -> None:
    """Set all entries of a vector (Numba compiles a loop much faster than the assignment to a slice)."""
    for i in range(x.shape[0]):
        x[i] = number


@inlined
def copy(x: Array, out: Array) -> None:
    """Copy a vector."""
    for i in range(x.shape[0]):
        out[i] = x[i]


@inlined
def row_sums(matrix: Array, first: int, vector: Array, out: Array) -> None:
    """out[first + r] = sum_j matrix[first + r, j] vector[j], for eight rows r."""
    i = np.uintp(first)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = ZERO
    for j in range(np.uintp(matrix.shape[1])):
        x = vector[j]
        s0 += matrix[i, j] * x
        s1 += matrix[i + _1, j] * x
        s2 += matrix[i + _2, j] * x
        s3 += matrix[i + _3, j] * x
        s4 += matrix[i + _4, j] * x
        s5 += matrix[i + _5, j] * x
        s6 += matrix[i + _6, j] * x
        s7 += matrix[i + _7, j] * x
    out[i], out[i + _1], out[i + _2], out[i + _3] = s0, s1, s2, s3
    out[i + _4], out[i + _5], out[i + _6], out[i + _7] = s4, s5, s6, s7


@inlined
def add_rows(matrix: Array, first: int, vector: Array, out: Array) -> None:
    """out[j] += sum_r matrix[first + r, j] vector[first + r], over eight rows r."""
    i = np.uintp(first)
    x0, x1, x2, x3 = vector[i], vector[i + _1], vector[i + _2], vector[i + _3]
    x4, x5, x6, x7 = vector[i + _4], vector[i + _5], vector[i + _6], vector[i + _7]
    for j in range(np.uintp(matrix.shape[1])):
        low = (matrix[i, j] * x0 + matrix[i + _1, j] * x1) + (matrix[i + _2, j] * x2 + matrix[i + _3, j] * x3)
        high = (matrix[i + _4, j] * x4 + matrix[i + _5, j] * x5) + (matrix[i + _6, j] * x6 + matrix[i + _7, j] * x7)
        out[j] += low + high


@inlined
def lesser(x: Any, y: Any) -> Any:
    """The lesser of two numbers, without the care for NaN that keeps `min` from being vectorised."""
    return y if y < x else x


@inlined
def row_minima(matrix: Array, first: int, out: Array) -> None:
    """out[first + r] = min_j matrix[first + r, j], for eight rows r."""
    i = np.uintp(first)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = F32(np.inf)
    for j in range(np.uintp(matrix.shape[1])):
        s0, s1 = lesser(s0, matrix[i, j]), lesser(s1, matrix[i + _1, j])
        s2, s3 = lesser(s2, matrix[i + _2, j]), lesser(s3, matrix[i + _3, j])
        s4, s5 = lesser(s4, matrix[i + _4, j]), lesser(s5, matrix[i + _5, j])
        s6, s7 = lesser(s6, matrix[i + _6, j]), lesser(s7, matrix[i + _7, j])
    out[i], out[i + _1], out[i + _2], out[i + _3] = s0, s1, s2, s3
    out[i + _4], out[i + _5], out[i + _6], out[i + _7] = s4, s5, s6, s7


@inlined
def lower_to_rows(matrix: Array, first: int, vector: Array, out: Array) -> None:
    """out[j] = the least of out[j] and all matrix[first + r, j] - vector[first + r], over eight rows r."""
    i = np.uintp(first)
    x0, x1, x2, x3 = vector[i], vector[i + _1], vector[i + _2], vector[i + _3]
    x4, x5, x6, x7 = vector[i + _4], vector[i + _5], vector[i + _6], vector[i + _7]
    for j in range(np.uintp(matrix.shape[1])):
        p = lesser(lesser(matrix[i, j] - x0, matrix[i + _1, j] - x1), matrix[i + _2, j] - x2)
        q = lesser(lesser(matrix[i + _3, j] - x3, matrix[i + _4, j] - x4), matrix[i + _5, j] - x5)
        out[j] = lesser(lesser(out[j], lesser(p, q)), lesser(matrix[i + _6, j] - x6, matrix[i + _7, j] - x7))
