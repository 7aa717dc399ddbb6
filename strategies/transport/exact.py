"""Exact optimal transport: the linear program, by POT's network simplex."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from strategies.transport.problem import Options, Transport, marginal_violation, without_padding


def solve(cost: Tensor, source: Tensor, target: Tensor, _options: Options) -> Transport:
    """Minimise <P, C> over plans with the given marginals, one pair after the other, on the CPU in float64.

    A plan has at most S + T - 1 entries. There is nothing to tune; `strategies.transport.solve` documents the
    arguments. Source: Bonneel et al. 2011, as implemented in POT's ``ot.emd``.
    """
    import ot

    cost = without_padding(cost, source, target)
    plan = torch.zeros(cost.shape, dtype=torch.float64)
    converged = torch.ones(len(cost), dtype=torch.bool)
    problems = zip(cost.cpu().double(), source.cpu().double(), target.cpu().double(), strict=True)
    for index, (costs, a, b) in enumerate(problems):
        rows, columns = a.nonzero()[:, 0], b.nonzero()[:, 0]
        masses = (a[rows] / a.sum()).numpy(), (b[columns] / b.sum()).numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what went wrong is in the log, and the caller warns
            cropped, log = ot.emd(*masses, costs[rows][:, columns].numpy(), log=True)
        plan[index, rows[:, None], columns] = torch.from_numpy(cropped) * a.sum()
        converged[index] = log["warning"] is None
    plan = plan.to(cost)
    return Transport(
        plan=plan,
        value=(plan * cost).sum((1, 2)),
        violation=marginal_violation(plan, source, target),
        iterations=torch.zeros(len(cost), dtype=torch.int64, device=cost.device),
        converged=converged.to(cost.device),
    )
