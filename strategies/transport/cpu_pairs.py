"""The loop over pairs of the fused solver: from the cost and masses of a pair to its plan, by `iterate`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from strategies.transport.cpu_loop import (
    F32,
    FAR,
    ZERO,
    Array,
    compiled,
    copy,
    fill,
    iterate,
    kept,
    logarithm,
    source_stamp,
    start,
)
from strategies.transport.cpu_vectors import LANES

SOLVED, HARD, WRONG = 0, 1, 2
"""States of a pair: solved as well as it can be here, left to Newton steps, masses that are no distributions."""

NEAR_ONE = 1e-3
"""Masses that are to be normalised sum to one as nearly as this; more is a mistake of the caller."""


class Problem(NamedTuple):
    """What the loops over pairs are given; float32 or float64."""

    cost: Array  # (B, S, T)
    source: Array  # (B, S)
    target: Array  # (B, T)
    normalise: bool  # whether masses are to sum to about one, and are made to do so exactly
    epsilon: float
    weight: float  # epsilon / rho; 0 for balanced plans
    iterations: int
    tolerance: float


class Results(NamedTuple):
    """Where they write; potentials in units of the cost."""

    plan: Array  # (B, S, T)
    f: Array  # (B, S)
    g: Array  # (B, T)
    iterations: Array  # (B,), int64
    value: Array  # (B,)
    violation: Array  # (B,)
    state: Array  # (B,), int64


@compiled
def real_tokens(marginal: Array) -> Array:
    """Positions of the tokens that have mass."""
    positions = np.empty(marginal.shape[0], np.int64)
    count = 0
    for i in range(marginal.shape[0]):
        if marginal[i] > 0:
            positions[count] = i
            count += 1
    return positions[:count]


@compiled
def is_run(positions: Array) -> bool:
    """Whether no position is left out between the first and the last, as it is where padding is at the end."""
    count = positions.shape[0]
    return bool(positions[count - 1] - positions[0] == count - 1)


@compiled
def total_mass(marginal: Array) -> float:
    """The sum of the masses, NaN if one of them is no mass."""
    total = 0.0
    for i in range(marginal.shape[0]):
        total += marginal[i] if marginal[i] >= 0 else np.nan
    return total


@compiled
def crop(cost: Array, rows: Array, columns: Array, times: Any, out: Array) -> None:
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
def padded(marginal: Array, positions: Array, times: float, length: int) -> Array:
    """The masses at these positions, multiplied, then zeros, in single precision."""
    out = np.zeros(length, np.float32)
    for i in range(positions.shape[0]):
        out[i] = marginal[positions[i]] * times
    return out


@compiled
def scale(kernel: Array, u: Array, v: Array) -> None:
    """The plan, written over the kernel."""
    for i in range(kernel.shape[0]):
        row, times = kernel[i], u[i]
        for j in range(kernel.shape[1]):
            row[j] *= times * v[j]


@compiled
def inner_product(x: Array, y: Array) -> float:
    """The sum of the products of two matrices."""
    total = 0.0
    for i in range(x.shape[0]):
        own, other, part = x[i], y[i], x[i, 0] - x[i, 0]
        for j in range(x.shape[1]):
            part += own[j] * other[j]
        total += part
    return total


@compiled
def off(marginal: Array, potential: Array, weight: float, sums: Array, count: int) -> float:
    """The L1 error of the first sums."""
    total = 0.0
    for i in range(count):
        total += abs(sums[i] - expected_mass(marginal[i], potential[i], weight))
    return total


@compiled
def write_rows(part: Array, rows: Array, columns: Array, plan: Array) -> None:
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
def expected_mass(marginal: Any, potential: Any, weight: float) -> float:
    """The sum that the plan must have: see `optimal_marginal`."""
    if weight > 0:
        return float(marginal * math.exp(weight * (math.log(marginal) - potential)))
    return float(marginal)


@compiled
def finish(
    part: Array, cost: Array, a: Array, b: Array, f: Array, g: Array, rows: Array, columns: Array, problem: Problem,
    pair: int, results: Results,
) -> None:  # fmt: skip
    """Write a pair's plan, its <P, C> and its violation, from numbers in units of epsilon."""
    totals, sums = np.zeros(part.shape[0], part.dtype), np.zeros(part.shape[1], part.dtype)
    for i in range(part.shape[0]):
        row, total = part[i], totals[i]
        for j in range(part.shape[1]):
            total += row[j]
        totals[i] = total
        for j in range(part.shape[1]):
            sums[j] += row[j]
    write_rows(part, rows, columns, results.plan[pair])
    off_rows = off(a, f, problem.weight, totals, rows.shape[0])
    results.violation[pair] = max(off_rows, off(b, g, problem.weight, sums, columns.shape[0]))
    results.value[pair] = inner_product(part, cost) * problem.epsilon


@compiled
def write_potential(potential: Array, positions: Array, epsilon: float, out: Array) -> None:
    """The potential in units of the cost, zero at padding."""
    fill(out, 0)
    for i in range(positions.shape[0]):
        out[positions[i]] = potential[i] * epsilon


@compiled
def normalising_factors(source: Array, target: Array) -> tuple[float, float]:
    """What makes the masses sum to one; zeros if they are no distributions."""
    of_source, of_target = total_mass(source), total_mass(target)
    if abs(of_source - 1) < NEAR_ONE and abs(of_target - 1) < NEAR_ONE:
        return 1 / of_source, 1 / of_target
    return 0.0, 0.0


@compiled
def solve_pair(problem: Problem, pair: int, results: Results, kernel_space: Array, cost_space: Array) -> int:
    """Solve one pair, in spaces that are large enough, and write its results; return its state."""
    source, target, epsilon = problem.source[pair], problem.target[pair], problem.epsilon
    times_a, times_b = normalising_factors(source, target) if problem.normalise else (1.0, 1.0)
    if times_a == 0:
        return WRONG
    rows, columns = real_tokens(source), real_tokens(target)
    m, k = rows.shape[0], columns.shape[0]
    height, width = (m + LANES - 1) // LANES * LANES, (k + LANES - 1) // LANES * LANES
    cost = cost_space[: height * width].reshape((height, width))
    kernel = kernel_space[: height * width].reshape((height, width))
    crop(problem.cost[pair], rows, columns, F32(1 / epsilon), cost)
    a, b = padded(source, rows, times_a, height), padded(target, columns, times_b, width)
    f, g, u, v = np.zeros_like(a), np.zeros_like(b), np.ones_like(a), np.ones_like(b)
    start(cost, a, b, f, g)
    share, tolerance = F32(1 / (1 + problem.weight)), F32(problem.tolerance / 3)
    used, hard = iterate(cost, a, b, f, g, kernel, u, v, share, problem.iterations, tolerance, m, k)
    results.iterations[pair] = used
    for j in range(k):
        g[j] += logarithm(v[j]) if v[j] > ZERO else ZERO
    write_potential(g, columns, epsilon, results.g[pair])
    if hard:
        return HARD
    for i in range(m):
        f[i] += logarithm(u[i]) if u[i] > ZERO else ZERO
    write_potential(f, rows, epsilon, results.f[pair])
    scale(kernel, u, v)
    finish(kernel, cost, a, b, f, g, rows, columns, problem, pair, results)
    return SOLVED


def _entry(stamp: int) -> Any:
    @kept
    def solve_pairs(pairs: Array, problem: Problem, results: Results) -> None:
        """Solve these pairs; those whose state is HARD then need `refine_pairs`, which goes on from the g written."""
        if stamp < 0:  # never: see `source_stamp`
            return
        _, longest, widest = problem.cost.shape
        space = (longest + LANES - 1) // LANES * LANES * ((widest + LANES - 1) // LANES * LANES)
        kernel_space, cost_space = np.empty(space, np.float32), np.empty(space, np.float32)
        for pair in pairs:
            results.state[pair] = solve_pair(problem, pair, results, kernel_space, cost_space)

    return solve_pairs


solve_pairs = _entry(source_stamp())
