"""The loop over pairs of the fused solver."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from strategies.transport.compiled import compiled, kept, source_stamp
from strategies.transport.fused_loop import F32, TINY, finish, iterate, start
from strategies.transport.fused_newton import newton

FAR = F32(1e30)
"""The cost at padding: its kernel entries are zero."""


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
def crop(cost: Any, rows: Any, columns: Any, epsilon: float, out: Any) -> None:
    """The cost of the real tokens, divided by epsilon, into the upper left corner of an array."""
    count = columns.shape[0]
    is_run = columns[count - 1] - columns[0] == count - 1  # as it is where padding is at the end
    for i in range(rows.shape[0]):
        own = out[i][:count]
        if is_run:
            given = cost[rows[i]][columns[0] : columns[0] + count]
            for j in range(count):
                own[j] = given[j] / epsilon
        else:
            for j in range(count):
                own[j] = cost[rows[i], columns[j]] / epsilon


@compiled
def padded(marginal: Any, places: Any, length: int) -> Any:
    """The masses at these places, then zeros, in single precision."""
    out = np.zeros(length, np.float32)
    for i in range(places.shape[0]):
        out[i] = marginal[places[i]]
    return out


@compiled
def refine(
    cost: Any, source: Any, target: Any, rows: Any, columns: Any, g32: Any, epsilon: float, weight: float,
    steps: int, tolerance: float, plan: Any, f_out: Any, g_out: Any,
) -> tuple[int, float, float]:  # fmt: skip
    """Newton steps from g, and the results; return the steps, <P, C> and the violation."""
    m, k = rows.shape[0], columns.shape[0]
    exact, part = np.empty((m, k)), np.empty((m, k))
    crop(cost, rows, columns, epsilon, exact)
    a, b, f, g = np.empty(m), np.empty(k), np.empty(m), np.empty(k)
    for i in range(m):
        a[i] = source[rows[i]]
    for j in range(k):
        b[j], g[j] = target[columns[j]], g32[j]
    if weight == 0:  # masses rounded to single precision do not sum to the same
        b *= a.sum() / b.sum()
    used = newton(exact, a, b, weight, steps, tolerance, f, g, part)
    value, violation = finish(part, exact, a, b, f, g, rows, columns, weight, plan)
    for i in range(m):
        f_out[rows[i]] = f[i] * epsilon
    for j in range(k):
        g_out[columns[j]] = g[j] * epsilon
    return used, value * epsilon, violation


@compiled
def solve_pair(
    cost: Any, source: Any, target: Any, given: bool, epsilon: float, weight: float, iterations: int,
    tolerance: float, kernel_space: Any, cost_space: Any, plan: Any, f_out: Any, g_out: Any,
) -> tuple[int, float, float]:  # fmt: skip
    """Solve one pair; return iterations, <P, C> and the violation. The spaces are large enough to work in."""
    rows, columns = real_tokens(source), real_tokens(target)
    m, k = rows.shape[0], columns.shape[0]
    height, width = (m + 3) // 4 * 4, (k + 15) // 16 * 16
    costs = cost_space[: height * width].reshape((height, width))
    kernel = kernel_space[: height * width].reshape((height, width))
    for i in range(height):
        for j in range(width):
            costs[i, j] = FAR
    crop(cost, rows, columns, epsilon, costs)
    a, b = padded(source, rows, height), padded(target, columns, width)
    f, g = np.zeros_like(a), np.zeros_like(b)
    if given:
        for j in range(k):
            g[j] = g_out[columns[j]] / epsilon
    start(costs, m, k, given, f, g)
    u, v = (a > 0).astype(np.float32), (b > 0).astype(np.float32)
    share = F32(1 / (1 + weight))
    used, hard = iterate(costs, a, b, f, g, kernel, u, v, share, iterations, F32(tolerance / 3), m, k, given)
    for j in range(k):
        g[j] += math.log(max(v[j], TINY))
    if hard:
        steps, value, violation = refine(
            cost, source, target, rows, columns, g, epsilon, weight, iterations - used, 0.5 * tolerance, plan, f_out,
            g_out,
        )  # fmt: skip
        return used + steps, value, violation
    for i in range(m):
        f[i] += math.log(max(u[i], TINY))
        f_out[rows[i]] = f[i] * epsilon
        for j in range(k):
            kernel[i, j] *= u[i] * v[j]
    for j in range(k):
        g_out[columns[j]] = g[j] * epsilon
    value, violation = finish(kernel, costs, a, b, f, g, rows, columns, weight, plan)
    return used, value * epsilon, violation


def _entry(stamp: int) -> Any:
    @kept
    def solve_pairs(
        first: int, step: int, cost: Any, source: Any, target: Any, given: bool, epsilon: float, weight: float,
        iterations: int, tolerance: float, plan: Any, f: Any, g: Any, used: Any, value: Any, violation: Any,
    ) -> None:  # fmt: skip
        """Solve every step-th pair from the first on. g holds the potentials to start from, if they are given."""
        if stamp < 0:  # never; but what a function closes over is part of the key under which it is kept
            return
        space = (cost.shape[1] + 3) // 4 * 4 * ((cost.shape[2] + 15) // 16 * 16)
        kernel_space, cost_space = np.empty(space, np.float32), np.empty(space, np.float32)
        for pair in range(first, cost.shape[0], step):
            used[pair], value[pair], violation[pair] = solve_pair(
                cost[pair], source[pair], target[pair], given, epsilon, weight, iterations, tolerance,
                kernel_space, cost_space, plan[pair], f[pair], g[pair],
            )  # fmt: skip

    return solve_pairs


solve_pairs = _entry(source_stamp())
