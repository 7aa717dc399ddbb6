"""The solvers on a real GPU: against the float64 yardstick, under autocast, over a batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from strategies.base import Embeddings
from strategies.ot import OptimalTransport
from strategies.transport import marginal_violation, solve
from strategies.transport.batch import match_batch

pytestmark = pytest.mark.gpu
SOLVERS = ["auto", "torch", "triton"]


def problem(batch=8, length=32, width=24):
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(batch, length, 32, generator=generator)
    y = x[:, torch.randint(length, (width,), generator=generator)] + torch.randn(batch, width, 32, generator=generator)
    masses = []
    for count in (length, width):
        mass = 0.1 + torch.rand(batch, count, generator=generator)
        real = torch.rand(batch, count, generator=generator) < 0.7
        real[:, 0], real[1] = True, torch.arange(count) == count // 2
        masses.append(mass * real / (mass * real).sum(1, keepdim=True))
    cost = 1 - F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT
    cost[~((masses[0] > 0)[:, :, None] & (masses[1] > 0)[:, None, :])] = torch.nan
    return cost, *masses


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("relaxation", [None, 0.5])
@pytest.mark.parametrize("epsilon", [0.3, 0.05, 0.01])
@pytest.mark.parametrize(("length", "width"), [(5, 128), (32, 24), (128, 120)])
def test_plans_are_those_of_the_reference(solver, relaxation, epsilon, length, width):
    cost, a, b = problem(length=length, width=width)
    near = solve(cost.double(), a.double(), b.double(), solver="torch", epsilon=epsilon, relaxation=relaxation,
                 tolerance=1e-9)  # fmt: skip
    found = solve(*(x.cuda() for x in (cost, a, b)), solver=solver, epsilon=epsilon, relaxation=relaxation,
                  iterations=5000)  # fmt: skip
    assert found.converged.all()
    assert (found.plan.cpu() - near.plan).abs().sum((1, 2)).max() < 4e-3
    assert (found.value.cpu() - near.value).abs().max() < 1e-3
    assert (found.plan.cpu()[cost.isnan()] == 0).all()
    if relaxation is None:
        assert torch.allclose(found.violation.cpu(), marginal_violation(found.plan.cpu(), a, b), atol=1e-5)
        assert found.violation.max() <= 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_masses_that_are_none_are_refused(solver):
    cost, a, b = (x.cuda() for x in problem())
    with pytest.raises(ValueError, match="a row of target is no distribution"):
        solve(cost.nan_to_num(), a, 2 * b, solver=solver)
    with pytest.raises(ValueError, match="a row of source is no distribution"):
        solve(cost.nan_to_num(), a.masked_fill(a == a.max(), torch.nan), b, solver=solver)


@pytest.mark.parametrize("options", [{}, {"marginal_relaxation": 0.5}, {"mass": 0.8}])
@pytest.mark.parametrize("epsilon", [0.05, 0.01])
def test_loss_and_gradient_are_those_of_the_cpu(options, epsilon):
    generator = torch.Generator().manual_seed(0)
    sides = [
        Embeddings(
            F.normalize(torch.randn(6, 16, generator=generator), dim=-1),
            torch.randn(6, 20, 16, generator=generator),
            torch.arange(20) < torch.randint(1, 21, (6, 1), generator=generator),
        )
        for _ in range(2)
    ]
    strategy, found = OptimalTransport(epsilon=epsilon, tolerance=1e-4, iterations=5000, **options), {}
    for device in ("cpu", "cuda"):
        tokens = sides[0].tokens.to(device).requires_grad_()
        student, teacher = (
            Embeddings(side.pooled.to(device), side.tokens.to(device), side.mask.to(device)) for side in sides
        )
        student = Embeddings(student.pooled, tokens, student.mask)
        with torch.autocast(device, torch.bfloat16):
            loss = strategy(student, teacher)["ot"]
        (gradient,) = torch.autograd.grad(loss, tokens)
        assert gradient.isfinite().all()
        found[device] = loss.item(), gradient.cpu()
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=2e-3)
    difference = (found["cuda"][1] - found["cpu"][1]).norm() / found["cpu"][1].norm()
    assert difference < 5e-3


def test_a_batch_is_matched_as_on_the_cpu():
    x, y = torch.randn(2, 300, 16, generator=torch.Generator().manual_seed(0))
    own = torch.eye(300, dtype=torch.bool)
    plans = [
        match_batch(x.to(device), y.to(device), mass=0.3, forbidden=own.to(device))[0].cpu()
        for device in ("cpu", "cuda")
    ]
    assert (plans[0] - plans[1]).abs().sum() < 3e-3
    assert (plans[1][own] == 0).all()
