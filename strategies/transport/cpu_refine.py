"""Newton steps on the pairs that iterations in single precision cannot finish; compiled when the first comes up."""

from __future__ import annotations

from typing import Any

import numpy as np

from strategies.transport.compiled import compiled, kept, source_stamp
from strategies.transport.cpu_newton import newton
from strategies.transport.cpu_pairs import crop, finish, normalising_factors, real_tokens, write_potential


@compiled
def refine_pair(
    cost: Any, source: Any, target: Any, normalise: bool, epsilon: float, weight: float, steps: int, tolerance: float,
    plan: Any, f_out: Any, g_out: Any,
) -> tuple[int, float, float]:  # fmt: skip
    """Newton steps from g, and the results; return the steps, <P, C> and the violation."""
    times_a, times_b = normalising_factors(source, target) if normalise else (1.0, 1.0)
    rows, columns = real_tokens(source), real_tokens(target)
    m, k = rows.shape[0], columns.shape[0]
    exact, part = np.empty((m, k)), np.empty((m, k))
    crop(cost, rows, columns, 1 / epsilon, exact)
    a, b, f, g = np.empty(m), np.empty(k), np.empty(m), np.empty(k)
    for i in range(m):
        a[i] = source[rows[i]] * times_a
    for j in range(k):
        b[j], g[j] = target[columns[j]] * times_b, g_out[columns[j]] / epsilon
    if weight == 0:  # masses rounded to single precision do not sum to the same
        b *= a.sum() / b.sum()
    used = newton(exact, a, b, weight, steps, tolerance, f, g, part)
    value, violation = finish(part, exact, a, b, f, g, rows, columns, weight, plan)
    write_potential(f, rows, epsilon, f_out)
    write_potential(g, columns, epsilon, g_out)
    return used, value * epsilon, violation


def _entry(stamp: int) -> Any:
    @kept
    def refine_pairs(
        pairs: Any, cost: Any, source: Any, target: Any, normalise: bool, epsilon: float, weight: float,
        iterations: int, tolerance: float, plan: Any, f: Any, g: Any, used: Any, value: Any, violation: Any,
    ) -> None:  # fmt: skip
        """Go on with these pairs from g, until all their steps together are so many iterations."""
        if stamp < 0:  # see `solve_pairs`
            return
        for pair in pairs:
            steps, value[pair], violation[pair] = refine_pair(
                cost[pair], source[pair], target[pair], normalise, epsilon, weight, iterations - used[pair],
                0.5 * tolerance, plan[pair], f[pair], g[pair],
            )  # fmt: skip
            used[pair] += steps

    return refine_pairs


refine_pairs = _entry(source_stamp())
