"""Entropic transport on the CPU by a native loop over pairs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from threading import Timer
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strategies.transport.problem import Potentials, Transport, check_marginals, start_potential

_LOG = logging.getLogger(__name__)

NEWTON_LIMIT = 512
"""No Newton steps for more target tokens: their work grows with the cube."""

FINE = 3e-5
"""Tolerances under this are beyond single precision, and left to Newton steps."""

HALVINGS = 12
"""A Newton step that does not help is halved this often."""

ROUGH = 0.1
"""After a step shorter than this share of Newton's, half a Sinkhorn iteration comes before the next."""

LONGEST = 8.0
"""No potential changes by more than this, in units of epsilon, in one Newton step."""

SOLVED, HARD, WRONG = 0, 1, 2
"""States of a pair: solved as well as it can be here, left to Newton steps, masses that are no distributions."""

WORTH_A_THREAD = 2**18
"""Cost entries for which starting another thread is worth its while."""


def solve(
    cost: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    epsilon: float,
    iterations: int,
    tolerance: float,
    relaxation: float | None = None,
    potentials: Potentials | None = None,
    normalise: bool = False,
) -> Transport:
    """Balanced and unbalanced entropic transport, each pair in its own length and for its own number of iterations.

    Over-relaxed Sinkhorn iterations in single precision on the kernel, whose scalings move into potentials when they
    become large (as the torch solver does), then, for pairs that converge slowly or tolerances beyond single
    precision, Newton steps on the dual in float64. The first call compiles the loop, which takes some seconds; the
    machine code is kept on disk. `strategies.transport.solve` documents the arguments.

    Threads are as many as torch has, and do not outlive the call, so that processes may fork at any other time.

    Args:
        cost: (B, S, T), float32 or float64, without gradient.
        source: (B, S).
        target: (B, T).
        epsilon: strength of the entropy.
        iterations: the most iterations.
        tolerance: largest L1 error of the marginals.
        relaxation: weight of the marginals' KL divergence; None holds them.
        potentials: to start from.
        normalise: check that masses sum to about one, and make them do so exactly; else they are taken as they are.

    Raises:
        ValueError: tensors that are not on the CPU, or masses that are not distributions.
    """
    if cost.device.type != "cpu":
        raise ValueError(f"solver fused runs on the CPU, and the cost is on {cost.device}: take solver auto")
    batch, exact = len(cost), cost.dtype == torch.float64
    # NumPy's arrays, since each call of torch takes longer than the transport of a short pair.
    arrays: list[Any] = [x.detach().contiguous().numpy() for x in (cost, source.to(cost), target.to(cost))]
    plan, f, g = (np.empty(x.shape, x.dtype) for x in arrays)
    if potentials is not None:
        g = start_potential(potentials[1], cost.masked_fill(~cost.isfinite(), 0.0)).numpy()
    used, state = np.zeros((2, batch), np.int64)
    value, violation = np.zeros((2, batch), np.float64 if exact else np.float32)
    weight = 0.0 if relaxation is None else epsilon / relaxation
    numbers = float(epsilon), weight, int(iterations), float(tolerance)
    results = plan, f, g, used, value, violation
    at_once = cost.numel() // max(1, batch)
    _run(
        "solve_pairs", np.arange(batch), at_once, *arrays, normalise, potentials is not None, *numbers, *results, state
    )
    if state.any():
        if (state == WRONG).any():
            check_marginals(source, target)
        _run("refine_pairs", np.flatnonzero(state), at_once, *arrays, normalise, *numbers, *results)
    tensor = torch.from_numpy
    return Transport(
        plan=tensor(plan),
        value=tensor(value),
        violation=tensor(violation),
        iterations=tensor(used),
        converged=tensor(violation <= tolerance),
        potentials=(tensor(f), tensor(g)),
    )


def _run(name: str, pairs: Any, entries: int, *arguments: Any) -> None:
    """Run a native loop over these pairs, of so many cost entries each, on as many threads as are worth it."""
    loop = _compiled(name, arguments[0].dtype)
    threads = max(1, min(torch.get_num_threads(), len(pairs), len(pairs) * entries // WORTH_A_THREAD))
    if threads == 1:
        loop(pairs, *arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(loop, pairs[n::threads].copy(), *arguments) for n in range(threads)]:
            done.result()


@cache
def _compiled(name: str, dtype: Any) -> Callable[..., None]:
    """A native loop, ready for numbers of this type; says what it does if that takes long."""
    notice = Timer(5.0, _LOG.warning, ["compiling the transport solver: once, some tens of seconds"])
    notice.daemon = True
    notice.start()
    try:
        loop: Callable[..., None] = getattr(import_module(_MODULES[name]), name)
        cost, source, value = (np.empty((0,) * axes, dtype) for axes in (3, 2, 1))
        whole, given = np.zeros(0, np.int64), (False,) if name == "solve_pairs" else ()
        problem = whole, cost, source, source, False, *given, 1.0, 0.0, 1, 1.0
        loop(*problem, cost, source, source, whole, value, value, *([whole] if given else []))
    finally:
        notice.cancel()
    return loop


_MODULES = {
    "solve_pairs": "strategies.transport.cpu_pairs",
    "refine_pairs": "strategies.transport.cpu_refine",
}
"""Where the native loops are; the second is needed, and compiled, only for what the first leaves."""
