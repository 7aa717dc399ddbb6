"""The native loop of the fused solver: one pair after the other, each in its own length, compiled by Numba.

All numbers are in units of epsilon here. Single precision is typed throughout: a plain literal would make it double.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from strategies.transport.compiled import as_float, compiled
from strategies.transport.fused import FINE, NEWTON_LIMIT

F32 = np.float32
ZERO, ONE, TWO, HALF = F32(0), F32(1), F32(2), F32(0.5)
LOG2E, LOWEST = F32(1.4426950408889634), F32(-80)
SINGLE = F32(FINE)
WINDOW, WARM_WINDOW = 6, 2
"""Iterations from which the rate of convergence is estimated, and the first ones from given potentials."""
LARGEST_OMEGA = F32(1.9)

# As in the torch solver: scalings stay within CLAMP, and leave for the potentials beyond ABSORB; DROP keeps denormal
# numbers out of the products.
CLAMP, ABSORB, DROP, TINY = F32(1e8), F32(1e6), F32(1e-25), F32(1e-30)
SPREAD = F32(20)


@compiled
def exponential(x: Any) -> Any:
    """e^x in single precision for x <= 80, by 2^n p(f), and zero under DROP; without branches, for fast loops."""
    t = max(x, LOWEST) * LOG2E
    n = math.floor(t + HALF)
    f = t - n
    p = F32(1.5403530393381606e-4)
    p = p * f + F32(1.3333558146428443e-3)
    p = p * f + F32(9.618129107628477e-3)
    p = p * f + F32(5.550410866482158e-2)
    p = p * f + F32(2.402265069591007e-1)
    p = p * f + F32(6.931471805599453e-1)
    p = p * f + ONE
    p = p * as_float((np.int32(n) + np.int32(127)) << np.int32(23))
    return p if p > DROP else ZERO


@compiled
def build(cost: Any, f: Any, g: Any, kernel: Any) -> None:
    """Write exp(f + g - cost) into the kernel."""
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            kernel[i, j] = exponential(f[i] + g[j] - cost[i, j])


@compiled
def copy(x: Any, out: Any) -> None:
    """Copy a vector (Numba compiles a loop much faster than the assignment of a slice)."""
    for i in range(x.shape[0]):
        out[i] = x[i]


@compiled
def optimal(marginal: Any, product: Any, pull: Any, share: Any) -> Any:
    """The best scaling for those of the other side."""
    plain = marginal / max(product, TINY)
    if share < ONE:
        plain = pull * plain**share
    return min(plain, CLAMP)


@compiled
def beyond(plain: Any, scaling: Any, omega: Any) -> Any:
    """Over-relaxation: plain * (plain / scaling)^(omega - 1), the power by its first Pade approximant."""
    short = TWO - omega
    return min(plain * (plain * omega + scaling * short) / (plain * short + scaling * omega + TINY), CLAMP)


@compiled
def sweep(kernel: Any, a: Any, u: Any, last: Any, pull: Any, v: Any, column: Any, share: Any, omega: Any) -> Any:
    """Update u from v, four rows at once, and give K' u in the same pass; return the L1 error of the rows before.

    Unbalanced, that error is of the optimality condition, to first order.
    """
    column[:] = ZERO
    error = ZERO
    sums = np.empty(4, np.float32)
    for i in range(0, kernel.shape[0], 4):
        s0 = s1 = s2 = s3 = ZERO
        k0, k1, k2, k3 = kernel[i], kernel[i + 1], kernel[i + 2], kernel[i + 3]
        for j in range(kernel.shape[1]):
            s0 += k0[j] * v[j]
            s1 += k1[j] * v[j]
            s2 += k2[j] * v[j]
            s3 += k3[j] * v[j]
        sums[0], sums[1], sums[2], sums[3] = s0, s1, s2, s3
        for r in range(4):
            plain = optimal(a[i + r], sums[r], pull[i + r], share)
            last[i + r] = u[i + r]
            error += abs(u[i + r] - plain) * sums[r]
            u[i + r] = beyond(plain, u[i + r], omega)
        u0, u1, u2, u3 = u[i], u[i + 1], u[i + 2], u[i + 3]
        for j in range(kernel.shape[1]):
            column[j] += (u0 * k0[j] + u1 * k1[j]) + (u2 * k2[j] + u3 * k3[j])
    return error / share


@compiled
def step_target(b: Any, column: Any, v: Any, pull: Any, share: Any, omega: Any) -> Any:
    """Update v from K' u, and return the L1 error of the columns after it."""
    error = ZERO
    for j in range(b.shape[0]):
        plain = optimal(b[j], column[j], pull[j], share)
        v[j] = beyond(plain, v[j], omega)
        error += abs(v[j] - plain) * column[j]
    return error / share


@compiled
def next_omega(omega: Any, rate: Any) -> Any:
    """The over-relaxation for a violation that fell by this factor per iteration: see the torch solver."""
    if rate > ONE:
        return (ONE + omega) * HALF
    if rate <= omega - ONE:
        return omega
    plain = min((rate + omega - ONE) ** 2 / (rate * omega * omega), ONE)
    return max(omega, min(TWO / (ONE + math.sqrt(ONE - plain)), LARGEST_OMEGA))


@compiled
def largest(scaling: Any) -> Any:
    """The largest of x and 1 / x over the scalings; zeros, which are padding, do not count."""
    most = ONE
    for i in range(scaling.shape[0]):
        x = scaling[i]
        if x > ZERO:
            most = max(most, x, ONE / x)
    return most


@compiled
def absorb(potential: Any, scaling: Any, marginal: Any, pull: Any, share: Any) -> None:
    """Move scalings into potentials; pull becomes (marginal / e^potential)^(1 - share), what a KL penalty asks."""
    for i in range(scaling.shape[0]):
        if scaling[i] > ZERO:
            potential[i] += math.log(scaling[i])
        scaling[i] = ONE if marginal[i] > ZERO else ZERO
        if share < ONE and marginal[i] > ZERO:
            pull[i] = math.exp((ONE - share) * (math.log(marginal[i]) - potential[i]))


@compiled
def start(cost: Any, m: int, k: int, given: bool, f: Any, g: Any) -> None:
    """Potentials that make the largest entry of every row and column of the kernel 1, or those of the torch solver."""
    for i in range(m):
        f[i] = np.inf
        for j in range(k):
            f[i] = min(f[i], cost[i, j] - g[j] if given else cost[i, j])
    for j in range(k):
        least = F32(np.inf)
        for i in range(m):
            least = min(least, cost[i, j] - f[i])
        g[j] = max(g[j], least - SPREAD) if given else least


@compiled
def promises(error: Any, rate: Any, tolerance: Any, used: int, m: int, k: int) -> bool:
    """Whether Newton steps will be faster than the iterations that are still to come; costs in ns, as measured."""
    if k > NEWTON_LIMIT:
        return False
    if tolerance < SINGLE:
        return used >= 4 * WINDOW or error < SINGLE
    left = math.log(error / tolerance) / -math.log(min(rate, F32(0.9999)))
    return left * (0.2 * m * k + 200) > 8 * (0.05 * m * k * k + 0.03 * k**3 + 10 * m * k)


@compiled
def iterate(
    cost: Any, a: Any, b: Any, f: Any, g: Any, kernel: Any, u: Any, v: Any, share: Any, iterations: int, tolerance: Any,
    m: int, k: int, given: bool,
) -> tuple[int, bool]:  # fmt: skip
    """Scale the kernel until the plan meets the tolerance; return the iterations, and whether Newton should go on."""
    last, column = np.empty_like(u), np.empty_like(v)
    pull_u, pull_v = np.ones_like(u), np.ones_like(v)
    absorb(f, u, a, pull_u, share)
    absorb(g, v, b, pull_v, share)
    build(cost, f, g, kernel)
    omega, before, of_target = ONE, F32(np.inf), F32(np.inf)
    # Given potentials are near the optimum, where the rate is soon what it will be.
    look = span = WARM_WINDOW if given else WINDOW
    used, reachable = 0, max(tolerance, SINGLE * HALF) if k <= NEWTON_LIMIT else tolerance
    while True:
        of_source = sweep(kernel, a, u, last, pull_u, v, column, share, omega)
        error = max(of_source, of_target)
        if used >= iterations or (error <= reachable and max(largest(last), largest(v)) < ABSORB):
            copy(last, u)
            return used, used < iterations and reachable > tolerance
        of_target = step_target(b, column, v, pull_v, share, omega)
        used += 1
        if used == look:
            rate = max(error / before, F32(1e-6)) ** (ONE / F32(span))
            if used > span:
                omega = next_omega(omega, rate)
                if promises(error, rate, tolerance, used, m, k):
                    return used, True
            before = error
            if used > span:
                span = WINDOW
            look = used + span
            if max(largest(u), largest(v)) >= ABSORB:
                absorb(f, u, a, pull_u, share)
                absorb(g, v, b, pull_v, share)
                build(cost, f, g, kernel)
                of_target = F32(np.inf)


@compiled
def finish(
    part: Any, cost: Any, a: Any, b: Any, f: Any, g: Any, rows: Any, columns: Any, weight: float, plan: Any
) -> tuple[float, float]:
    """Write a pair's plan; return <P, C> in units of epsilon and the violation of the plan as it is written."""
    value = violation = 0.0
    count = columns.shape[0]
    sums = np.zeros(count)
    is_run = columns[count - 1] - columns[0] == count - 1  # as it is where padding is at the end
    for i in range(rows.shape[0]):
        total = earned = 0.0
        own, price = part[i][:count], cost[i][:count]
        if is_run:
            out = plan[rows[i]][columns[0] : columns[0] + count]
            for j in range(count):
                out[j] = own[j]
                moved = float(out[j])
                total += moved
                sums[j] += moved
                earned += moved * price[j]
        else:
            for j in range(count):
                plan[rows[i], columns[j]] = own[j]
                moved = float(plan[rows[i], columns[j]])
                total += moved
                sums[j] += moved
                earned += moved * price[j]
        value += earned
        wanted = a[i] * math.exp(weight * (math.log(a[i]) - f[i])) if weight > 0 else float(a[i])
        violation += abs(total - wanted)
    other = 0.0
    for j in range(columns.shape[0]):
        wanted = b[j] * math.exp(weight * (math.log(b[j]) - g[j])) if weight > 0 else float(b[j])
        other += abs(sums[j] - wanted)
    return value, max(violation, other)
