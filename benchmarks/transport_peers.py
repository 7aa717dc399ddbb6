"""The solvers of other people that the transport benchmark compares with, each used as well as it can be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.transport_problems import Costs, Problem
from strategies.transport import marginal_violation

LADDER = [10 ** (-step / 8) for step in range(16, 49)]
"""Tolerances of a peer, 1e-2 to 1e-6: it gets the loosest one with which its plan is good enough."""


def emd_loop(problem: Problem | Costs, **options: Any) -> Tensor:
    """Exact plans by POT's linear program, one cropped matrix after the other."""
    cost = problem.cost.numpy()
    source, target = (marginal.double().numpy() for marginal in problem.marginals)
    plan = np.zeros_like(cost)
    for index, (n, m) in enumerate(problem.lengths):
        a, b = source[index, :n], target[index, :m]
        matrix = cost[index, :n, :m].astype(np.float64)
        plan[index, :n, :m] = ot.emd(a / a.sum(), b / b.sum(), matrix, **options)
    return torch.from_numpy(plan)


def batched(problem: Problem | Costs, method: str, tol: float, epsilon: float = 0.05, double: bool = False) -> Tensor:
    """Plans by POT's batch solver, ``log_sinkhorn`` or ``sinkhorn``, detached."""
    cost, (a, b) = problem.cost, problem.marginals
    if double:
        cost, a, b = cost.double(), a.double(), b.double()
    # Its scalings start on the default device, whatever the cost's.
    with warnings.catch_warnings(), torch.no_grad(), torch.device(cost.device):
        warnings.simplefilter("ignore")
        plan: Tensor = ot.solve_batch(
            cost, reg=epsilon, a=a, b=b, max_iter=100_000, tol=tol, method=method, grad="detach"
        ).plan
    return plan


def default_loss(problem: Problem, tol: float, max_iter: int = 1000, epsilon: float = 0.05) -> Tensor:
    """A loss with POT's default gradient, ``envelope``, for student states that need one."""
    sides = problem.student, problem.teacher
    student, teacher = (F.normalize(side.require_tokens()[0], dim=-1, eps=1e-6) for side in sides)
    cost = 1 - teacher @ student.mT
    a, b = problem.marginals
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value: Tensor = ot.solve_batch(cost, reg=epsilon, a=a, b=b, max_iter=max_iter, tol=tol).value
    return value.mean()


def unbalanced_loop(problem: Problem, relaxation: float, tol: float, epsilon: float = 0.05) -> Tensor:
    """Unbalanced plans by POT, one cropped matrix after the other."""
    cost = problem.cost.double().numpy()
    source, target = (marginal.double().numpy() for marginal in problem.marginals)
    plan = np.zeros(cost.shape)
    for index, (n, m) in enumerate(problem.lengths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan[index, :n, :m] = ot.sinkhorn_unbalanced(
                source[index, :n], target[index, :m], cost[index, :n, :m], epsilon, relaxation,
                reg_type="kl", stopThr=tol, numItermax=100_000,
            )  # fmt: skip
    return torch.from_numpy(plan)


def one_problem(cost: Tensor, tol: float, epsilon: float = 0.05) -> Tensor:
    """The plan of one large problem with uniform masses, by POT's NumPy solver; (n, n)."""
    mass = np.full(len(cost), 1 / len(cost))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = ot.sinkhorn(mass, mass, cost.double().numpy(), epsilon, stopThr=tol, numItermax=100_000)
    return torch.from_numpy(plan)


def off_uniform(plan: Tensor) -> float:
    """The L1 error of the marginals of such a plan."""
    return max(float((plan.sum(axis) - 1 / len(plan)).abs().sum()) for axis in (0, 1))


def violation(plan: Tensor, problem: Problem | Costs) -> float:
    """The largest L1 error of a marginal, over the batch, in float64."""
    source, target = (marginal.double() for marginal in problem.marginals)
    return float(marginal_violation(plan.double(), source, target).max())


def loosest(good: Callable[[float], Any]) -> float:
    """The loosest tolerance of the ladder that is good, else the tightest."""
    low, high = 0, len(LADDER) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(LADDER[middle]) else (middle + 1, high)
    return LADDER[low]
