"""Damped Newton steps on one pair's dual problem, in float64: the tail where scalings converge slowly.

With the source's potentials f chosen best for those of the target, g, the dual is a concave function of g. Its
gradient is the target's marginal minus the plan's columns, and minus its second derivative is
diag(columns) - P' diag(1 / rows) P (Brauer et al. 2017, arXiv 1710.06635). All numbers are in units of epsilon.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from strategies.transport.cpu_loop import Array, compiled, double_exponential, kept, source_stamp
from strategies.transport.cpu_pairs import (
    Problem,
    Results,
    crop,
    finish,
    normalising_factors,
    real_tokens,
    write_potential,
)
from strategies.transport.problem import HALVINGS, LARGEST_STEP, ROUGH


@compiled
def plan_of(cost: Array, a: Array, g: Array, share: float, f: Array, plan: Array) -> None:
    """The best f for these g, and the plan of both."""
    for i in range(cost.shape[0]):
        price, row, top = cost[i], plan[i], -np.inf
        for j in range(cost.shape[1]):
            top = max(top, g[j] - price[j])
        for j in range(cost.shape[1]):
            row[j] = double_exponential(g[j] - price[j] - top)
        total = 0.0
        for j in range(cost.shape[1]):
            total += row[j]
        f[i] = math.log(a[i]) - share * (top + math.log(total))
        times = math.exp(f[i] + top)
        for j in range(cost.shape[1]):
            row[j] *= times


@compiled
def scale_target(cost: Array, b: Array, f: Array, share: float, g: Array) -> None:
    """The best g for these f: half a Sinkhorn iteration, which also gives columns without any mass theirs."""
    top, total = np.full(b.shape[0], -np.inf), np.zeros(b.shape[0])
    for i in range(cost.shape[0]):
        price = cost[i]
        for j in range(cost.shape[1]):
            top[j] = max(top[j], f[i] - price[j])
    for i in range(cost.shape[0]):
        price = cost[i]
        for j in range(cost.shape[1]):
            total[j] += double_exponential(f[i] - price[j] - top[j])
    for j in range(cost.shape[1]):
        g[j] = math.log(b[j]) - share * (top[j] + math.log(total[j]))


@compiled
def residual(plan: Array, b: Array, g: Array, weight: float, column: Array, expected: Array, error: Array) -> float:
    """The columns' sums, what they should be, and the difference; return its L1 norm."""
    column[:] = 0.0
    for i in range(plan.shape[0]):
        row = plan[i]
        for j in range(plan.shape[1]):
            column[j] += row[j]
    total = 0.0
    for j in range(b.shape[0]):
        expected[j] = b[j] * math.exp(weight * (math.log(b[j]) - g[j])) if weight > 0 else b[j]
        error[j] = expected[j] - column[j]
        total += abs(error[j])
        column[j] = max(column[j], 1e-200)
    return total


@compiled
def value(plan: Array, a: Array, b: Array, f: Array, g: Array, weight: float) -> float:
    """The dual objective, up to a constant."""
    total = 0.0
    for potential, marginal in ((f, a), (g, b)):
        for i in range(marginal.shape[0]):
            if weight > 0:
                total -= marginal[i] * math.exp(weight * (math.log(marginal[i]) - potential[i])) / weight
            else:
                total += marginal[i] * potential[i]
    for i in range(plan.shape[0]):
        row = plan[i]
        for j in range(plan.shape[1]):
            total -= row[j]
    return total


@compiled
def curvature(plan: Array, column: Array, expected: Array, weight: float, ridge: float, matrix: Array) -> None:
    """The lower half of the second derivative, scaled to a diagonal of about one, without its null space."""
    width = plan.shape[1]
    scaled, mass = np.empty((plan.shape[0], width)), 0.0
    for i in range(plan.shape[0]):
        total = 0.0
        for j in range(width):
            total += plan[i, j]
        mass += total
        scale = 1 / math.sqrt(total * (1 + weight))
        for j in range(width):
            scaled[i, j] = plan[i, j] * scale / math.sqrt(column[j])
    for p in range(width):
        for q in range(p + 1):
            # Without penalty, a constant moved from f to g changes nothing.
            matrix[p, q] = math.sqrt(column[p] * column[q]) / mass if weight == 0 else 0.0
    for i in range(plan.shape[0]):
        row = scaled[i]
        for p in range(width):
            if row[p] > 1e-12:
                times = row[p]
                for q in range(p + 1):
                    matrix[p, q] -= times * row[q]
    for p in range(width):
        matrix[p, p] += 1 + weight * expected[p] / column[p] + ridge


@compiled
def cholesky_solve(matrix: Array, x: Array) -> None:
    """Solve in place; the lower half of the matrix becomes its factor."""
    n = x.shape[0]
    for p in range(n):
        row = matrix[p]
        for q in range(p + 1):
            other = matrix[q]
            total = row[q]
            for k in range(q):
                total -= row[k] * other[k]
            row[q] = math.sqrt(max(total, 1e-14)) if q == p else total / other[q]
        total = x[p]
        for k in range(p):
            total -= row[k] * x[k]
        x[p] = total / row[p]
    for p in range(n - 1, -1, -1):
        x[p] /= matrix[p, p]
        for k in range(p):
            x[k] -= matrix[p, k] * x[p]


@compiled
def newton(
    cost: Array, a: Array, b: Array, weight: float, steps: int, tolerance: float, f: Array, g: Array, plan: Array
) -> int:
    """Improve g, f and the plan until the columns are right to the tolerance; return the steps made.

    A step is halved until it raises the dual, or lowers the violation by a tenth of what it promised.
    """
    share = 1 / (1 + weight)
    width = b.shape[0]
    column, expected, error = np.empty(width), np.empty(width), np.empty(width)
    new_g, direction, matrix = np.empty(width), np.empty(width), np.empty((width, width))
    length = 0.0
    plan_of(cost, a, g, share, f, plan)
    violation = residual(plan, b, g, weight, column, expected, error)
    for step in range(steps):
        if violation <= tolerance:
            return step
        if length < ROUGH:
            scale_target(cost, b, f, share, g)
            plan_of(cost, a, g, share, f, plan)
            violation = residual(plan, b, g, weight, column, expected, error)
        dual = value(plan, a, b, f, g, weight)
        curvature(plan, column, expected, weight, 0.1 * min(violation, 1.0), matrix)
        for j in range(width):
            column[j] = math.sqrt(column[j])
            error[j] /= column[j]
        slope = 0.0
        for j in range(width):
            direction[j] = error[j]
        cholesky_solve(matrix, direction)
        longest = 0.0
        for j in range(width):
            slope += error[j] * direction[j]
            direction[j] /= column[j]
            longest = max(longest, abs(direction[j]))
        length = min(1.0, LARGEST_STEP / longest) if longest > 0 else 1.0
        before = violation
        for _ in range(HALVINGS):
            for j in range(width):
                new_g[j] = g[j] + length * direction[j]
            plan_of(cost, a, new_g, share, f, plan)
            violation = residual(plan, b, new_g, weight, column, expected, error)
            gain = value(plan, a, b, f, new_g, weight) - dual
            if violation <= (1 - 0.1 * length) * before or gain >= 1e-4 * length * slope:
                break
            length /= 2
        for j in range(width):
            g[j] = new_g[j]
    return steps


@compiled
def refine_pair(problem: Problem, pair: int, results: Results) -> None:
    """Newton steps from the pair's g, until they and its iterations are as many as allowed."""
    source, target, epsilon = problem.source[pair], problem.target[pair], problem.epsilon
    times_a, times_b = normalising_factors(source, target) if problem.normalise else (1.0, 1.0)
    rows, columns = real_tokens(source), real_tokens(target)
    m, k = rows.shape[0], columns.shape[0]
    cost, plan = np.empty((m, k)), np.empty((m, k))
    crop(problem.cost[pair], rows, columns, 1 / epsilon, cost)
    a, b, f, g = np.empty(m), np.empty(k), np.empty(m), np.empty(k)
    for i in range(m):
        a[i] = source[rows[i]] * times_a
    for j in range(k):
        b[j], g[j] = target[columns[j]] * times_b, results.g[pair, columns[j]] / epsilon
    if problem.weight == 0:  # masses rounded to single precision do not sum to the same
        b *= a.sum() / b.sum()
    left = problem.iterations - results.iterations[pair]
    results.iterations[pair] += newton(cost, a, b, problem.weight, left, 0.5 * problem.tolerance, f, g, plan)
    finish(plan, cost, a, b, f, g, rows, columns, problem, pair, results)
    write_potential(f, rows, epsilon, results.f[pair])
    write_potential(g, columns, epsilon, results.g[pair])


def _entry(stamp: int) -> Any:
    @kept
    def refine_pairs(pairs: Array, problem: Problem, results: Results) -> None:
        """Go on with these pairs; compiled when the first comes up."""
        if stamp < 0:  # never: see `source_stamp`
            return
        for pair in pairs:
            refine_pair(problem, pair, results)

    return refine_pairs


refine_pairs = _entry(source_stamp())
