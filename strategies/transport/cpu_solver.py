"""Entropic transport on the CPU by a native loop over pairs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Timer
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strategies.transport.cpu_loop import Array
from strategies.transport.cpu_pairs import WRONG, Problem, Results, solve_pairs
from strategies.transport.problem import Options, Transport, check_marginals

_LOG = logging.getLogger(__name__)

WORTH_A_THREAD = 2**18
"""Cost entries for which starting another thread is worth its while."""


def solve(cost: Tensor, source: Tensor, target: Tensor, options: Options, normalise: bool = False) -> Transport:
    """Balanced and unbalanced entropic transport, each pair in its own length and for its own number of iterations.

    Over-relaxed Sinkhorn iterations in single precision on the kernel, whose scalings move into potentials when they
    become large (as the torch solver does), then, for pairs that converge slowly or tolerances beyond single
    precision, Newton steps on the dual in float64. The first call compiles the loop, which takes some seconds; the
    machine code is kept on disk. `strategies.transport.solve` documents the arguments.

    With ``normalise`` the masses are checked, and made to sum to one. Threads are as many as torch has, and do not
    outlive the call, so that processes may fork at any other time.
    """
    if cost.device.type != "cpu":
        raise ValueError(f"solver fused runs on the CPU, and the cost is on {cost.device}: take solver auto")
    batch = len(cost)
    # NumPy's arrays, since each call of torch takes longer than the transport of a short pair.
    costs, a, b = (x.detach().contiguous().numpy() for x in (cost, source.to(cost), target.to(cost)))
    numbers = float(options.epsilon), options.weight, int(options.iterations), float(options.tolerance)
    problem = Problem(costs, a, b, normalise, *numbers)
    plan, f, g = (np.empty(x.shape, x.dtype) for x in (costs, a, b))
    used, state = np.zeros((2, batch), np.int64)
    value, violation = np.zeros((2, batch), costs.dtype)
    results = Results(plan, f, g, used, value, violation, state)
    _run("solve_pairs", np.arange(batch), problem, results)
    if state.any():
        if (state == WRONG).any():
            check_marginals(source, target)
        _run("refine_pairs", np.flatnonzero(state), problem, results)
    tensor = torch.from_numpy
    converged, potentials = tensor(violation <= options.tolerance), (tensor(f), tensor(g))
    return Transport(tensor(plan), tensor(value), tensor(violation), tensor(used), converged, potentials)


def _run(name: str, pairs: Array, problem: Problem, results: Results) -> None:
    """Run a native loop over these pairs, on as many threads as are worth it."""
    loop, entries = _compiled(name, problem.cost.dtype), problem.cost[:1].size
    threads = max(1, min(torch.get_num_threads(), len(pairs), len(pairs) * entries // WORTH_A_THREAD))
    if threads == 1:
        loop(pairs, problem, results)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(loop, pairs[n::threads].copy(), problem, results) for n in range(threads)]:
            done.result()


@cache
def _compiled(name: str, dtype: np.dtype[Any]) -> Callable[[Array, Problem, Results], None]:
    """A native loop, ready for numbers of this type; says what it does if that takes long."""
    notice = Timer(5.0, _LOG.warning, ["compiling the transport solver: once, some tens of seconds"])
    notice.daemon = True
    notice.start()
    try:
        if name == "solve_pairs":
            loop = solve_pairs
        else:  # needed, and compiled, only for what the first leaves
            from strategies.transport.cpu_newton import refine_pairs as loop
        matrices, rows, numbers = (np.empty((0,) * axes, dtype) for axes in (3, 2, 1))
        counts = np.zeros(0, np.int64)
        problem = Problem(matrices, rows, rows, False, 1.0, 0.0, 1, 1.0)
        loop(counts, problem, Results(matrices, rows, rows, counts, numbers, numbers, counts))
    finally:
        notice.cancel()
    return loop  # type: ignore[no-any-return]
