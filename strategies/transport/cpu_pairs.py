"""The loop over pairs of the fused solver."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from strategies.transport.compiled import compiled, kept, source_stamp
from strategies.transport.cpu_loop import F32, FAR, ZERO, copy, fill, iterate, logarithm, start
from strategies.transport.cpu_solver import HARD, SOLVED, WRONG
from strategies.transport.cpu_vectors import LANES

NEAR_ONE = 1e-3
"""Masses that are to be normalised sum to one as nearly as this; more is a mistake of the caller."""


@compiled
def real_tokens(marginal: Any) -> Any:
    """Places of the tokens that have mass."""
    places = np.empty(marginal.shape[0], np.int64)
    count = 0
    for i in range(marginal.shape[0]):
        if marginal[i] > 0:
            places[count] = i
            count += 1
    return places[:count]


@compiled
def is_run(places: Any) -> bool:
    """Whether no place is left out between the first and the last, as it is where padding is at the end."""
    count = places.shape[0]
    return bool(places[count - 1] - places[0] == count - 1)


@compiled
def total_mass(marginal: Any) -> float:
    """The sum of the masses, NaN if one of them is no mass."""
    total = 0.0
    for i in range(marginal.shape[0]):
        total += marginal[i] if marginal[i] >= 0 else np.nan
    return total


@compiled
def crop(cost: Any, rows: Any, columns: Any, times: Any, out: Any) -> None:
    """The cost of the real tokens, multiplied, into the upper left corner of an array; FAR into the rest."""
    count, run = columns.shape[0], is_run(columns)
    for i in range(out.shape[0]):
        own = out[i]
        if i >= rows.shape[0]:
            fill(own, FAR)
            continue
        if run:
            given = cost[rows[i]][columns[0] : columns[0] + count]
            for j in range(count):
                own[j] = given[j] * times
        else:
            for j in range(count):
                own[j] = cost[rows[i], columns[j]] * times
        fill(own[count:], FAR)


@compiled
def padded(marginal: Any, places: Any, times: float, length: int) -> Any:
    """The masses at these places, multiplied, then zeros, in single precision."""
    out = np.zeros(length, np.float32)
    for i in range(places.shape[0]):
        out[i] = marginal[places[i]] * times
    return out


@compiled
def scale(kernel: Any, u: Any, v: Any) -> None:
    """The plan, in the place of the kernel."""
    for i in range(kernel.shape[0]):
        row, times = kernel[i], u[i]
        for j in range(kernel.shape[1]):
            row[j] *= times * v[j]


@compiled
def inner_product(x: Any, y: Any) -> float:
    """The sum of the products of two matrices."""
    total = 0.0
    for i in range(x.shape[0]):
        own, other, part = x[i], y[i], x[i, 0] - x[i, 0]
        for j in range(x.shape[1]):
            part += own[j] * other[j]
        total += part
    return total


@compiled
def off(marginal: Any, potential: Any, weight: float, sums: Any, count: int) -> float:
    """The L1 error of the first sums."""
    total = 0.0
    for i in range(count):
        total += abs(sums[i] - wanted_mass(marginal[i], potential[i], weight))
    return total


@compiled
def write_rows(part: Any, rows: Any, columns: Any, plan: Any) -> None:
    """Write a pair's plan where its tokens are, and zeros where there are none."""
    count, run, at = columns.shape[0], is_run(columns), 0
    for row in range(plan.shape[0]):
        out = plan[row]
        if at == rows.shape[0] or rows[at] != row:
            fill(out, 0)
            continue
        own = part[at]
        if run:
            first = columns[0]
            fill(out[:first], 0)
            copy(own[:count], out[first : first + count])
            fill(out[first + count :], 0)
        else:
            fill(out, 0)
            for j in range(count):
                out[columns[j]] = own[j]
        at += 1


@compiled
def wanted_mass(marginal: Any, potential: Any, weight: float) -> float:
    """The sum that the plan must have: see `optimal_marginal`."""
    if weight > 0:
        return float(marginal * math.exp(weight * (math.log(marginal) - potential)))
    return float(marginal)


@compiled
def finish(
    part: Any, cost: Any, a: Any, b: Any, f: Any, g: Any, rows: Any, columns: Any, weight: float, plan: Any
) -> tuple[float, float]:  # fmt: skip
    """Write a pair's plan; return <P, C> in units of epsilon and its violation."""
    totals, sums = np.zeros(part.shape[0], part.dtype), np.zeros(part.shape[1], part.dtype)
    for i in range(part.shape[0]):
        row, total = part[i], totals[i]
        for j in range(part.shape[1]):
            total += row[j]
        totals[i] = total
        for j in range(part.shape[1]):
            sums[j] += row[j]
    write_rows(part, rows, columns, plan)
    violation = max(off(a, f, weight, totals, rows.shape[0]), off(b, g, weight, sums, columns.shape[0]))
    return inner_product(part, cost), violation


@compiled
def write_potential(potential: Any, places: Any, epsilon: float, out: Any) -> None:
    """The potential in units of the cost, zero at padding."""
    fill(out, 0)
    for i in range(places.shape[0]):
        out[places[i]] = potential[i] * epsilon


@compiled
def normalising_factors(source: Any, target: Any) -> tuple[float, float]:
    """What makes the masses sum to one; zeros if they are no distributions."""
    of_source, of_target = total_mass(source), total_mass(target)
    if abs(of_source - 1) < NEAR_ONE and abs(of_target - 1) < NEAR_ONE:
        return 1 / of_source, 1 / of_target
    return 0.0, 0.0


@compiled
def solve_pair(
    cost: Any, source: Any, target: Any, normalise: bool, given: bool, epsilon: float, weight: float, iterations: int,
    tolerance: float, kernel_space: Any, cost_space: Any, plan: Any, f_out: Any, g_out: Any,
) -> tuple[int, float, float, int]:  # fmt: skip
    """Solve one pair, in spaces that are large enough; return iterations, <P, C>, the violation, and what remains."""
    times_a, times_b = normalising_factors(source, target) if normalise else (1.0, 1.0)
    if times_a == 0:
        return 0, 0.0, 0.0, WRONG
    rows, columns = real_tokens(source), real_tokens(target)
    m, k = rows.shape[0], columns.shape[0]
    height, width = (m + LANES - 1) // LANES * LANES, (k + LANES - 1) // LANES * LANES
    costs = cost_space[: height * width].reshape((height, width))
    kernel = kernel_space[: height * width].reshape((height, width))
    crop(cost, rows, columns, F32(1 / epsilon), costs)
    a, b = padded(source, rows, times_a, height), padded(target, columns, times_b, width)
    f, g, u, v = np.zeros_like(a), np.zeros_like(b), np.ones_like(a), np.ones_like(b)
    if given:
        for j in range(k):
            g[j] = g_out[columns[j]] / epsilon
    start(costs, given, a, b, f, g)
    share = F32(1 / (1 + weight))
    used, hard = iterate(costs, a, b, f, g, kernel, u, v, share, iterations, F32(tolerance / 3), m, k, given)
    for j in range(k):
        g[j] += logarithm(v[j]) if v[j] > ZERO else ZERO
    write_potential(g, columns, epsilon, g_out)
    if hard:
        return used, 0.0, np.inf, HARD
    for i in range(m):
        f[i] += logarithm(u[i]) if u[i] > ZERO else ZERO
    write_potential(f, rows, epsilon, f_out)
    scale(kernel, u, v)
    value, violation = finish(kernel, costs, a, b, f, g, rows, columns, weight, plan)
    return used, value * epsilon, violation, SOLVED


def _entry(stamp: int) -> Any:
    @kept
    def solve_pairs(
        pairs: Any, cost: Any, source: Any, target: Any, normalise: bool, given: bool, epsilon: float, weight: float,
        iterations: int, tolerance: float, plan: Any, f: Any, g: Any, used: Any, value: Any, violation: Any, state: Any,
    ) -> None:  # fmt: skip
        """Solve these pairs; those whose state is HARD then need `refine_pairs`, which goes on from the g written here.

        g holds the potentials to start from, if they are given.
        """
        if stamp < 0:  # never; but what a function closes over is part of the key under which it is kept
            return
        space = (cost.shape[1] + LANES - 1) // LANES * LANES * ((cost.shape[2] + LANES - 1) // LANES * LANES)
        kernel_space, cost_space = np.empty(space, np.float32), np.empty(space, np.float32)
        for pair in pairs:
            used[pair], value[pair], violation[pair], state[pair] = solve_pair(
                cost[pair], source[pair], target[pair], normalise, given, epsilon, weight, iterations, tolerance,
                kernel_space, cost_space, plan[pair], f[pair], g[pair],
            )  # fmt: skip

    return solve_pairs


solve_pairs = _entry(source_stamp())
