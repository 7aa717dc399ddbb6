"""The native loop of the fused solver: one pair after the other, each in its own length, compiled by Numba.

All numbers are in units of epsilon here. Single precision is typed throughout: a plain literal would make it double.
Matrices and vectors are padded to a multiple of `LANES`: padding has no mass, and kernel entries of zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from strategies.transport.cpu_vectors import (
    F32,
    HALF,
    LANES,
    ONE,
    TWO,
    ZERO,
    Array,
    add_rows,
    compiled,
    copy,
    exponential,
    fill,
    inlined,
    logarithm,
    lower_to_rows,
    row_minima,
    row_sums,
)
from strategies.transport.problem import ABSORB, CLAMP, FINE, LARGEST_OMEGA, LEAST, NEWTON_LIMIT, TINY

# The shared constants in single precision: as plain numbers they would make all that they touch double.
MOST_OMEGA, LARGEST, LARGE, SMALLEST, SMALL = F32(LARGEST_OMEGA), F32(CLAMP), F32(ABSORB), F32(LEAST), F32(TINY)
SINGLE = F32(FINE)

WINDOW = 6
"""Iterations from which the rate of convergence is estimated."""

PATIENCE = 60
"""Iterations before which a pair is not given to Newton steps for its slowness."""

BLOCK = 4096
"""Kernel entries that stay in the processor's first cache between the two half-steps, in addition to the vectors."""

FAR = F32(1e30)
"""The cost at padding: its kernel entries are zero."""


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
            row_sums(kernel, i, v, sums)
        error = half_step(a, sums, old, new, omega, pull, share)[0]
        for i in range(0, height, LANES):
            add_rows(kernel, i, new, column)
        return error
    error = ZERO
    for first in range(0, height, block):
        last = min(first + block, height)
        for i in range(first, last, LANES):
            row_sums(kernel, i, v, sums)
        part = slice(first, last)
        error += half_step(a[part], sums[part], old[part], new[part], omega, pull[part], share)[0]
        for i in range(first, last, LANES):
            add_rows(kernel, i, new, column)
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
