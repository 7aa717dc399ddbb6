"""Entropic transport on the CPU by a native loop over pairs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Timer
from typing import Any

import torch
from torch import Tensor

from strategies.transport.problem import Potentials, Transport, start_potential

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
) -> Transport:
    """Balanced and unbalanced entropic transport, each pair in its own length and for its own number of iterations.

    Over-relaxed Sinkhorn iterations in single precision on the kernel, whose scalings move into potentials when they
    become large (as the torch solver does), then, for pairs that converge slowly or tolerances beyond single
    precision, Newton steps on the dual in float64. The first call compiles the loop, which takes some seconds; the
    machine code is kept on disk. `strategies.transport.solve` documents the arguments.

    Threads are as many as torch has, and do not outlive the call, so that processes may fork at any other time.

    Raises:
        ValueError: tensors that are not on the CPU.
    """
    if cost.device.type != "cpu":
        raise ValueError(f"solver fused runs on the CPU, and the cost is on {cost.device}: take solver auto")
    solve_pairs = _compiled(cost.dtype)
    batch = len(cost)
    plan = torch.zeros(cost.shape, dtype=cost.dtype)
    f, g = torch.zeros(source.shape, dtype=cost.dtype), torch.zeros(target.shape, dtype=cost.dtype)
    if potentials is not None:
        g = start_potential(potentials[1], cost.masked_fill(~cost.isfinite(), 0.0))
    used, value, violation = torch.empty(batch, dtype=torch.int64), *torch.empty(2, batch, dtype=cost.dtype)
    arrays: list[Any] = [x.detach().contiguous().numpy() for x in (cost, source, target)]
    results: list[Any] = [x.numpy() for x in (plan, f, g, used, value, violation)]
    weight = 0.0 if relaxation is None else epsilon / relaxation
    options: tuple[Any, ...] = potentials is not None, float(epsilon), weight, int(iterations), float(tolerance)
    threads = max(1, min(torch.get_num_threads(), batch, cost.numel() // WORTH_A_THREAD))
    if threads == 1:
        solve_pairs(0, 1, *arrays, *options, *results)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(solve_pairs, n, threads, *arrays, *options, *results) for n in range(threads)]:
                done.result()
    return Transport(plan, value, violation, used, violation <= tolerance, (f, g))


@cache
def _compiled(dtype: torch.dtype) -> Callable[..., None]:
    """The native loop, ready for numbers of this type; says what it does if that takes long."""
    notice = Timer(5.0, _LOG.warning, ["compiling the transport solver: once, some tens of seconds"])
    notice.daemon = True
    notice.start()
    try:
        from strategies.transport.fused_pairs import solve_pairs

        empty: list[Any] = [torch.empty(shape, dtype=dtype).numpy() for shape in _EMPTY]
        cost, source, target, value, violation = empty
        used = torch.empty(0, dtype=torch.int64).numpy()
        options = False, 1.0, 0.0, 1, 1.0
        solve_pairs(0, 1, cost, source, target, *options, cost, source, target, used, value, violation)
    finally:
        notice.cancel()
    run: Callable[..., None] = solve_pairs
    return run


_EMPTY = (0, 1, 1), (0, 1), (0, 1), (0,), (0,)
"""Shapes of a batch of no pairs."""
