"""Unbalanced and partial plans, by every solver that has them."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from strategies.transport import SOLVERS, solve

ENTROPIC = [name for name in SOLVERS if name not in ("exact", "ipot", "triton")]
ON_CPU = [name for name in SOLVERS if name != "triton"]


def problem(batch=5, sources=9, targets=12, *, seed=0, dtype=torch.float64):
    """Costs 1 - cosine, skewed masses on random lengths (the first pair is full, the second one token a side)."""
    generator = torch.Generator().manual_seed(seed)

    def side(count):
        tokens = torch.nn.functional.normalize(torch.randn(batch, count, 8, generator=generator), dim=-1)
        lengths = torch.randint(2, count + 1, (batch,), generator=generator)
        lengths[0], lengths[1] = count, 1
        mass = (torch.rand(batch, count, generator=generator) + 0.1) * (torch.arange(count) < lengths[:, None])
        return tokens.to(dtype), (mass / mass.sum(1, keepdim=True)).to(dtype)

    (x, a), (y, b) = side(sources), side(targets)
    return 1 - x @ y.mT, a, b


def each(cost, a, b, solved):
    """A plan for each pair, by a function of the cropped problem."""
    plans = torch.zeros(cost.shape, dtype=torch.float64)
    for index, (c, s, t) in enumerate(zip(*(x.double().numpy() for x in (cost, a, b)), strict=True)):
        rows, columns = s > 0, t > 0
        plan = solved(s[rows], t[columns], c[rows][:, columns])
        plans[index][np.ix_(rows, columns)] = torch.from_numpy(plan)
    return plans


@pytest.mark.parametrize("solver", ENTROPIC)
@pytest.mark.parametrize(("epsilon", "rho"), [(0.05, 0.1), (0.05, 1.0), (0.5, 0.05), (0.02, 5.0)])
def test_unbalanced_plans_are_those_of_pot(solver, epsilon, rho):
    cost, a, b = problem()
    wanted = each(
        cost, a, b, lambda s, t, c: ot.sinkhorn_unbalanced(s, t, c, epsilon, rho, numItermax=3000, stopThr=1e-11)
    )
    plan = solve(cost, a, b, solver=solver, epsilon=epsilon, relaxation=rho, tolerance=1e-8, iterations=20_000)
    assert plan.converged.all()
    assert torch.allclose(plan.plan, wanted, atol=1e-7)
    single = solve(
        cost.float(), a, b, solver=solver, epsilon=epsilon, relaxation=rho, tolerance=1e-5, iterations=20_000
    )
    assert (single.plan - wanted).abs().sum((1, 2)).max() < 1e-3
    assert (single.plan - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("solver", ENTROPIC)
def test_unbalanced_becomes_balanced_as_its_penalty_grows(solver):
    cost, a, b = problem()
    masses = [
        solve(cost, a, b, solver=solver, relaxation=rho, tolerance=1e-6, iterations=5000).plan.sum((1, 2))
        for rho in (0.1, 1.0, 100.0)
    ]
    assert (masses[0] <= masses[1]).all()
    assert torch.allclose(masses[2], torch.ones_like(masses[2]), atol=1e-2)


@pytest.mark.parametrize("solver", ENTROPIC)
@pytest.mark.parametrize("mass", [0.3, 0.9])
def test_partial_plans_solve_the_problem_with_slack_by_pot(solver, mass):
    cost, a, b = problem()

    def by_pot(s, t, c):
        wide = np.pad(c, ((0, 1), (0, 1)))
        wide[-1, -1] = 1e3
        s, t = np.append(s, 1 - mass), np.append(t, 1 - mass)
        return ot.sinkhorn(s, t, wide, 0.05, method="sinkhorn_log", numItermax=1000, stopThr=1e-8)[:-1, :-1]

    transport = solve(cost, a, b, solver=solver, mass=mass, tolerance=1e-8, iterations=20_000)
    assert transport.converged.all()
    assert torch.allclose(transport.plan, each(cost, a, b, by_pot), atol=1e-6)
    assert torch.allclose(transport.value, (transport.plan * cost).sum((1, 2)))


@pytest.mark.parametrize("solver", ON_CPU)
@pytest.mark.parametrize("mass", [0.2, 0.7])
def test_partial_plans_move_the_mass_and_no_more_than_there_is(solver, mass):
    cost, a, b = problem(dtype=torch.float32)
    exact = each(cost, a, b, lambda s, t, c: ot.partial.partial_wasserstein(s, t, c, m=mass))
    epsilon = 0.5 if solver == "ipot" else 0.005
    transport = solve(cost, a, b, solver=solver, mass=mass, epsilon=epsilon, iterations=20_000)
    assert torch.allclose(transport.plan.sum((1, 2)), torch.full((5,), mass), atol=2e-3)
    assert (transport.plan.sum(2) - a).max() < 1e-3
    assert (transport.plan.sum(1) - b).max() < 1e-3
    assert torch.allclose(transport.value.double(), (exact * cost).sum((1, 2)), atol=2e-2)


@pytest.mark.parametrize("solver", ON_CPU)
def test_all_the_mass_is_balanced(solver):
    cost, a, b = problem(dtype=torch.float32)
    wanted = solve(cost, a, b, solver=solver, epsilon=0.5)
    assert torch.equal(solve(cost, a, b, solver=solver, epsilon=0.5, mass=1.0).plan, wanted.plan)


@pytest.mark.parametrize("solver", ENTROPIC)
@pytest.mark.parametrize("options", [{}, {"relaxation": 0.3}, {"mass": 0.6}], ids=["balanced", "unbalanced", "partial"])
def test_potentials_give_the_plan(solver, options):
    cost, a, b = problem(sources=30, targets=24)
    options = {"solver": solver, "epsilon": 0.02, "tolerance": 1e-5, "iterations": 20_000, **options}
    transport = solve(cost, a, b, **options)
    f, g = transport.potentials
    if "relaxation" not in options:
        plan = ((f[:, :, None] + g[:, None] - cost) / 0.02).exp() * (a > 0)[:, :, None] * (b > 0)[:, None]
        assert torch.allclose(plan, transport.plan, atol=1e-6)
    assert f.isfinite().all()
    assert g.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relaxation": 0.0}, r"relaxation is .*, expected a number above 0"),
        ({"mass": 0.0}, "mass is 0.0, expected a number above 0 and at most 1"),
        ({"mass": 1.5}, "at most 1"),
        ({"mass": 0.5, "relaxation": 1.0}, "both given, expected one"),
        ({"solver": "exact", "relaxation": 1.0}, "'exact', which has no relaxation, expected one of auto, "),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        solve(*problem(), **options)
