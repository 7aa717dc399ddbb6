"""The native loop of the fused solver: one pair after the other, each in its own length, compiled by Numba.

All numbers are in units of epsilon here. Matrices are C-contiguous float32; they and the vectors are padded to a
multiple of `LANES`: padding has no mass, and kernel entries of zero. Where loops over short rows must vectorise,
indices are unsigned: Numba would otherwise test each for being negative.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from strategies.transport.cpu_vectors import LANES, add_rows, row_sums
from strategies.transport.problem import ABSORB, CLAMP, DROP, FINE, LARGEST_OMEGA, LEAST, NEWTON_LIMIT, TINY

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


# Single precision is typed throughout: a plain number would make all that it touches double. Then the shared constants.
F32: Any = np.float32
ZERO, ONE, TWO, HALF = F32(0), F32(1), F32(2), F32(0.5)
LOG2E, LN2, LOWEST, DROPPED = F32(1.4426950408889634), F32(0.6931471805599453), F32(-80), F32(DROP)
MOST_OMEGA, LARGEST, LARGE, SMALLEST, SMALL = F32(LARGEST_OMEGA), F32(CLAMP), F32(ABSORB), F32(LEAST), F32(TINY)
SINGLE = F32(FINE)

WINDOW = 6  # iterations from which the rate of convergence is estimated
PATIENCE = 60  # iterations before which a pair is not given to Newton steps for its slowness
BLOCK = 4096  # kernel entries that stay in the first cache between the two half-steps, in addition to the vectors
FAR = F32(1e30)  # the cost at padding: its kernel entries are zero

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


@compiled
def build(cost: Array, f: Array, g: Array, kernel: Array) -> None:
    """Write exp(f + g - cost) into the kernel."""
    for i in range(cost.shape[0]):
        price, row = cost[i], kernel[i]
        for j in range(cost.shape[1]):
            row[j] = exponential(f[i] + g[j] - price[j])


@inlined
def scale(marginal: Array, sums: Array, old: Array, new: Array, omega: Any) -> Any:
    """Half an iteration: new scalings from the sums K v or K' u; return the L1 errors with the old and the new ones.

    The best scaling is p = marginal / sums. Over-relaxation goes to p (p / old)^(omega - 1), the power by its first
    Pade approximant; the form below has one division, and is zero at padding.
    """
    before = after = ZERO
    short = TWO - omega
    for i in range(marginal.shape[0]):
        expected, got = marginal[i], old[i] * sums[i]
        below = max(sums[i] * (expected * short + got * omega), SMALLEST)
        new[i] = min(expected * (expected * omega + got * short) / below, LARGEST)
        before += abs(got - expected)
        after += abs(new[i] * sums[i] - expected)
    return before, after


@compiled
def scale_relaxed(marginal: Array, sums: Array, old: Array, new: Array, omega: Any, pull: Array, share: Any) -> Any:
    """The same for unbalanced plans: p = pull (marginal / sums)^share; the errors to first order."""
    before = after = ZERO
    short = TWO - omega
    for i in range(marginal.shape[0]):
        power = share * logarithm(max(marginal[i], SMALLEST) / max(sums[i], SMALL))
        plain = min(pull[i] * exponential(power), LARGEST) if marginal[i] > ZERO else ZERO
        below = max(plain * short + old[i] * omega, SMALLEST)
        new[i] = min(plain * (plain * omega + old[i] * short) / below, LARGEST)
        before += abs(old[i] - plain) * sums[i]
        after += abs(new[i] - plain) * sums[i]
    return before / share, after / share


@inlined
def half_step(marginal: Array, sums: Array, old: Array, new: Array, omega: Any, pull: Array, share: Any) -> Any:
    """`scale` for balanced, `scale_relaxed` for unbalanced plans."""
    if share == ONE:
        return scale(marginal, sums, old, new, omega)
    return scale_relaxed(marginal, sums, old, new, omega, pull, share)


@inlined
def sweep(
    kernel: Array, a: Array, old: Array, new: Array, pull: Array, v: Array, sums: Array, column: Array, share: Any,
    omega: Any,
) -> Any:  # fmt: skip
    """New u from v, and K' u, in one pass over the kernel; return the L1 error of the rows before."""
    height, width = kernel.shape
    block = max(LANES, BLOCK // width // LANES * LANES)
    fill(column, ZERO)
    if height <= block:  # without slices, which cost as much as a short loop
        for i in range(0, height, LANES):
            row_sums(kernel, width, i, v, sums)
        error = half_step(a, sums, old, new, omega, pull, share)[0]
        for i in range(0, height, LANES):
            add_rows(kernel, width, i, new, column)
        return error
    error = ZERO
    for first in range(0, height, block):
        last = min(first + block, height)
        for i in range(first, last, LANES):
            row_sums(kernel, width, i, v, sums)
        part = slice(first, last)
        error += half_step(a[part], sums[part], old[part], new[part], omega, pull[part], share)[0]
        for i in range(first, last, LANES):
            add_rows(kernel, width, i, new, column)
    return error


@inlined
def next_omega(omega: Any, rate: Any) -> Any:
    """The over-relaxation for a violation that fell by this factor per iteration: see the torch solver."""
    if rate > ONE:
        return (ONE + omega) * HALF
    if rate <= omega - ONE:
        return omega
    plain = min((rate + omega - ONE) ** 2 / (rate * omega * omega), ONE)
    return max(omega, min(TWO / (ONE + math.sqrt(ONE - plain)), MOST_OMEGA))


@inlined
def is_large(scaling: Array) -> bool:
    """Whether a scaling or its inverse is beyond LARGE; zeros, which are padding, do not count."""
    count = 0
    for i in range(scaling.shape[0]):
        x = scaling[i]
        count += (x > LARGE) | ((x > ZERO) & (x * LARGE < ONE))
    return count > 0


@compiled
def absorb(potential: Array, scaling: Array, marginal: Array, pull: Array, share: Any) -> None:
    """Move scalings into potentials; pull becomes (marginal / e^potential)^(1 - share), what a KL penalty asks."""
    for i in range(scaling.shape[0]):
        real = marginal[i] > ZERO
        potential[i] += logarithm(scaling[i]) if real and scaling[i] > ZERO else ZERO
        scaling[i] = ONE if real else ZERO
    if share < ONE:
        for i in range(scaling.shape[0]):
            if marginal[i] > ZERO:
                pull[i] = math.exp((ONE - share) * (math.log(marginal[i]) - potential[i]))


@compiled
def start(cost: Array, a: Array, b: Array, f: Array, g: Array) -> None:
    """Potentials that make the largest entry of every row and column of the kernel 1."""
    height, width = cost.shape
    for i in range(0, height, LANES):
        row_minima(cost, i, f)
    for i in range(height):
        f[i] = f[i] if a[i] > ZERO else -FAR
    least = np.full(width, F32(np.inf))
    for i in range(0, height, LANES):
        lower_to_rows(cost, i, f, least)
    for i in range(height):
        f[i] = f[i] if a[i] > ZERO else ZERO
    for j in range(width):
        g[j] = least[j] if b[j] > ZERO else ZERO


@compiled
def promises(error: Any, rate: Any, tolerance: Any, used: int, iterations: int, m: int, k: int) -> bool:
    """Whether Newton steps will be faster than the iterations that are still to come, or those may not be enough."""
    if k > NEWTON_LIMIT:
        return False
    if tolerance < SINGLE:
        return used >= 4 * WINDOW or error < SINGLE
    left = math.log(error / tolerance) / -math.log(min(rate, F32(0.9999)))
    is_slower = left * (0.12 * m * k + 60) > 6 * m * k * (20 + 0.05 * k) + 1e5  # in ns, as measured
    return is_slower or 2 * left > iterations - used


@compiled
def iterate(
    cost: Array, a: Array, b: Array, f: Array, g: Array, kernel: Array, u: Array, v: Array, share: Any, iterations: int,
    tolerance: Any, m: int, k: int,
) -> tuple[int, bool]:  # fmt: skip
    """Scale the kernel until the plan meets the tolerance; return the iterations, and whether Newton should go on."""
    last_u, next_u, sums, pull_u = u, np.empty_like(u), np.empty_like(u), np.ones_like(u)
    last_v, next_v, column, pull_v = v, np.empty_like(v), np.empty_like(v), np.ones_like(v)
    absorb(f, u, a, pull_u, share)
    absorb(g, v, b, pull_v, share)
    build(cost, f, g, kernel)
    omega, first, before, of_target = ONE, ONE, F32(np.inf), F32(np.inf)
    used, reachable = 0, max(tolerance, SINGLE * HALF) if k <= NEWTON_LIMIT else tolerance
    while True:
        of_source = sweep(kernel, a, last_u, next_u, pull_u, last_v, sums, column, share, omega)
        error = max(of_source, of_target)
        if used >= iterations or (error <= reachable and not (is_large(last_u) or is_large(last_v))):
            is_hard = used < iterations and reachable > tolerance
            break
        of_target = half_step(b, column, last_v, next_v, omega, pull_v, share)[1]
        last_u, next_u, last_v, next_v = next_u, last_u, next_v, last_v
        used += 1
        if used % WINDOW == 0:
            if used > WINDOW:
                omega = next_omega(omega, max(error / before, F32(1e-6)) ** (ONE / F32(WINDOW)))
                # What is soon done needs no forecast, which costs as much as an iteration of a short pair.
                if tolerance < SINGLE or used >= PATIENCE or 2 * used > iterations:
                    rate = (error / first) ** (ONE / F32(used - WINDOW))
                    if promises(error, rate, tolerance, used, iterations, m, k):
                        is_hard = True
                        break
            else:
                first = error
            before = error
            if is_large(last_u) or is_large(last_v):
                absorb(f, last_u, a, pull_u, share)
                absorb(g, last_v, b, pull_v, share)
                build(cost, f, g, kernel)
                of_target = F32(np.inf)
    copy(last_u, u)
    copy(last_v, v)
    return used, is_hard
