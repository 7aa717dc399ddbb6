"""The native loop of the fused solver: one pair after the other, each in its own length, compiled by Numba.

All numbers are in units of epsilon here. Single precision is typed throughout: a plain literal would make it double.
Matrices and vectors are padded to a multiple of `LANES`: padding has no mass, and kernel entries of zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from strategies.transport.compiled import compiled, inlined
from strategies.transport.cpu_solver import FINE, NEWTON_LIMIT
from strategies.transport.cpu_vectors import (
    LANES,
    add_rows,
    exponent,
    lower_to_rows,
    mantissa,
    power_of_two,
    row_minima,
    row_sums,
)

F32 = np.float32

ZERO, ONE, TWO, HALF = F32(0), F32(1), F32(2), F32(0.5)

LOG2E, LN2, LOWEST = F32(1.4426950408889634), F32(0.6931471805599453), F32(-80)

SINGLE = F32(FINE)

WINDOW, WARM_WINDOW = 6, 2
"""Iterations from which the rate of convergence is estimated, and the first ones from given potentials."""

PATIENCE = 60
"""Iterations before which a pair is not given to Newton steps for its slowness."""

LARGEST_OMEGA = F32(1.9)

BLOCK = 4096
"""Kernel entries that stay in the processor's first cache between the two half-steps, beside the vectors."""

# As in the torch solver: scalings stay within CLAMP, and leave for the potentials beyond ABSORB; DROP keeps denormal
# numbers out of the products.
CLAMP, ABSORB, DROP, TINY, LEAST = F32(1e8), F32(1e6), F32(1e-25), F32(1e-30), F32(1e-37)

SPREAD = F32(20)

FAR = F32(1e30)
"""The cost at padding: its kernel entries are zero."""


@inlined
def exponential(x: Any) -> Any:
    """e^x in single precision for x <= 80, by 2^n p(f), and zero under DROP; without branches, for fast loops."""
    t = max(x, LOWEST) * LOG2E
    n = np.floor(t + HALF)
    f = t - n
    p = F32(1.5403530393381606e-4)
    p = p * f + F32(1.3333558146428443e-3)
    p = p * f + F32(9.618129107628477e-3)
    p = p * f + F32(5.550410866482158e-2)
    p = p * f + F32(2.402265069591007e-1)
    p = p * f + F32(6.931471805599453e-1)
    p = (p * f + ONE) * power_of_two(n)
    return p if p > DROP else ZERO


@inlined
def logarithm(x: Any) -> Any:
    """Natural logarithm in single precision of normal x > 0, by 2 atanh((m - 1) / (m + 1)) of the mantissa m."""
    m = mantissa(x)
    t = (m - ONE) / (m + ONE)
    s = t * t
    p = F32(0.2222222222)
    p = p * s + F32(0.2857142857)
    p = p * s + F32(0.4)
    p = p * s + F32(0.6666666667)
    p = p * s + TWO
    return exponent(x) * LN2 + t * p


@compiled
def build(cost: Any, f: Any, g: Any, kernel: Any) -> None:
    """Write exp(f + g - cost) into the kernel."""
    for i in range(cost.shape[0]):
        price, row = cost[i], kernel[i]
        for j in range(cost.shape[1]):
            row[j] = exponential(f[i] + g[j] - price[j])


@inlined
def fill(x: Any, number: Any) -> None:
    """Set all entries of a vector (Numba compiles a loop much faster than the assignment to a slice)."""
    for i in range(x.shape[0]):
        x[i] = number


@inlined
def copy(x: Any, out: Any) -> None:
    """Copy a vector."""
    for i in range(x.shape[0]):
        out[i] = x[i]


@inlined
def scale(marginal: Any, sums: Any, old: Any, new: Any, omega: Any) -> Any:
    """Half an iteration: new scalings from the sums K v or K' u; return the L1 errors with the old and the new ones.

    The best scaling is p = marginal / sums. Over-relaxation goes to p (p / old)^(omega - 1), the power by its first
    Pade approximant; the form below has one division, and is zero at padding.
    """
    before = after = ZERO
    short = TWO - omega
    for i in range(marginal.shape[0]):
        wanted, got = marginal[i], old[i] * sums[i]
        below = max(sums[i] * (wanted * short + got * omega), LEAST)
        new[i] = min(wanted * (wanted * omega + got * short) / below, CLAMP)
        before += abs(got - wanted)
        after += abs(new[i] * sums[i] - wanted)
    return before, after


@compiled
def scale_relaxed(marginal: Any, sums: Any, old: Any, new: Any, omega: Any, pull: Any, share: Any) -> Any:
    """The same for unbalanced plans: p = pull (marginal / sums)^share; the errors to first order."""
    before = after = ZERO
    short = TWO - omega
    for i in range(marginal.shape[0]):
        power = share * logarithm(max(marginal[i], LEAST) / max(sums[i], TINY))
        plain = min(pull[i] * exponential(power), CLAMP) if marginal[i] > ZERO else ZERO
        below = max(plain * short + old[i] * omega, LEAST)
        new[i] = min(plain * (plain * omega + old[i] * short) / below, CLAMP)
        before += abs(old[i] - plain) * sums[i]
        after += abs(new[i] - plain) * sums[i]
    return before / share, after / share


@inlined
def half_step(marginal: Any, sums: Any, old: Any, new: Any, omega: Any, pull: Any, share: Any) -> Any:
    """`scale` for balanced, `scale_relaxed` for unbalanced plans."""
    if share == ONE:
        return scale(marginal, sums, old, new, omega)
    return scale_relaxed(marginal, sums, old, new, omega, pull, share)


@inlined
def sweep(
    kernel: Any, a: Any, old: Any, new: Any, pull: Any, v: Any, sums: Any, column: Any, share: Any, omega: Any
) -> Any:
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
    return max(omega, min(TWO / (ONE + math.sqrt(ONE - plain)), LARGEST_OMEGA))


@inlined
def is_large(scaling: Any) -> bool:
    """Whether a scaling or its inverse is beyond ABSORB; zeros, which are padding, do not count."""
    count = 0
    for i in range(scaling.shape[0]):
        x = scaling[i]
        count += (x > ABSORB) | ((x > ZERO) & (x * ABSORB < ONE))
    return count > 0


@compiled
def absorb(potential: Any, scaling: Any, marginal: Any, pull: Any, share: Any) -> None:
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
def start(cost: Any, given: bool, a: Any, b: Any, f: Any, g: Any) -> None:
    """Potentials that make the largest entry of every row and column of the kernel 1, or those of the torch solver."""
    height, width = cost.shape
    for i in range(0, height, LANES):
        row_minima(cost, width, i, g, f)
    for i in range(height):
        f[i] = f[i] if a[i] > ZERO else -FAR
    least = np.full(width, F32(np.inf))
    for i in range(0, height, LANES):
        lower_to_rows(cost, width, i, f, least)
    for i in range(height):
        f[i] = f[i] if a[i] > ZERO else ZERO
    for j in range(width):
        if b[j] > ZERO:
            g[j] = max(g[j], least[j] - SPREAD) if given else least[j]


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
    cost: Any, a: Any, b: Any, f: Any, g: Any, kernel: Any, u: Any, v: Any, share: Any, iterations: int, tolerance: Any,
    m: int, k: int, given: bool,
) -> tuple[int, bool]:  # fmt: skip
    """Scale the kernel until the plan meets the tolerance; return the iterations, and whether Newton should go on."""
    last_u, next_u, sums, pull_u = u, np.empty_like(u), np.empty_like(u), np.ones_like(u)
    last_v, next_v, column, pull_v = v, np.empty_like(v), np.empty_like(v), np.ones_like(v)
    absorb(f, u, a, pull_u, share)
    absorb(g, v, b, pull_v, share)
    build(cost, f, g, kernel)
    omega, before, of_target = ONE, F32(np.inf), F32(np.inf)
    first, begun = ONE, 0
    # Given potentials are near the optimum, where the rate is soon what it will be.
    look = span = WARM_WINDOW if given else WINDOW
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
        if used == look:
            rate = max(error / before, F32(1e-6)) ** (ONE / F32(span))
            if used > span:
                omega = next_omega(omega, rate)
                # What is soon done needs no forecast, which costs as much as an iteration of a short pair.
                if tolerance < SINGLE or used >= PATIENCE or 2 * used > iterations:
                    overall = (error / first) ** (ONE / F32(used - begun))
                    if promises(error, overall, tolerance, used, iterations, m, k):
                        is_hard = True
                        break
                span = WINDOW
            else:
                first, begun = error, used
            before, look = error, used + span
            if is_large(last_u) or is_large(last_v):
                absorb(f, last_u, a, pull_u, share)
                absorb(g, last_v, b, pull_v, share)
                build(cost, f, g, kernel)
                of_target = F32(np.inf)
    copy(last_u, u)
    copy(last_v, v)
    return used, is_hard
