from __future__ import annotations

import math
import warnings

import numpy as np
import ot
import pytest
import torch

from strategies.transport import SOLVERS, marginal_violation, solve

ON_CPU = [name for name in SOLVERS if name != "triton"]


def problem(batch=6, sources=7, targets=9, *, skewed=True, dtype=torch.float32):
    """Costs 1 - cosine, masses on random lengths (the first pair is full, the second one token a side)."""
    generator = torch.Generator().manual_seed(0)

    def side(count):
        tokens = torch.nn.functional.normalize(torch.randn(batch, count, 16, generator=generator), dim=-1)
        lengths = torch.randint(1, count + 1, (batch,), generator=generator)
        lengths[0], lengths[1] = count, 1
        mass = torch.rand(batch, count, generator=generator) + 0.1 if skewed else torch.ones(batch, count)
        mass = mass * (torch.arange(count) < lengths[:, None])
        return tokens.to(dtype), (mass / mass.sum(1, keepdim=True)).to(dtype)

    (x, a), (y, b) = side(sources), side(targets)
    return 1 - x @ y.mT, a, b


def cropped(cost, a, b):
    for costs, source, target in zip(cost.double().numpy(), a.double().numpy(), b.double().numpy(), strict=True):
        rows, columns = source > 0, target > 0
        yield costs[rows][:, columns], source[rows] / source.sum(), target[columns] / target.sum(), rows, columns


def pot_exact(cost, a, b):
    return torch.tensor([ot.emd2(s, t, c) for c, s, t, _, _ in cropped(cost, a, b)], dtype=torch.float64)


def pot_sinkhorn(cost, a, b, epsilon):
    plans = torch.zeros(cost.shape, dtype=torch.float64)
    for index, (c, s, t, rows, columns) in enumerate(cropped(cost, a, b)):
        plan = ot.sinkhorn(s, t, c, epsilon, method="sinkhorn_log", numItermax=20_000, stopThr=1e-9)
        plans[index][np.ix_(rows, columns)] = torch.from_numpy(plan)
    return plans


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.05, 0.01])
def test_sinkhorn_gives_the_plan_of_pot_in_float64(epsilon):
    cost, a, b = problem(dtype=torch.float64)
    transport = solve(cost, a, b, epsilon=epsilon, iterations=20_000, tolerance=1e-9)
    wanted = pot_sinkhorn(cost, a, b, epsilon)
    assert transport.converged.all()
    assert torch.allclose(transport.plan, wanted, atol=1e-7)
    assert torch.allclose(transport.value, (wanted * cost).sum((1, 2)), atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01])
def test_sinkhorn_in_float32_is_near_pot_at_the_default_tolerance(epsilon):
    cost, a, b = problem(sources=20, targets=16)
    transport = solve(cost, a, b, epsilon=epsilon)
    wanted = pot_sinkhorn(cost, a, b, epsilon)
    assert transport.plan.dtype == torch.float32
    assert transport.converged.all()
    assert (transport.value - (wanted * cost).sum((1, 2))).abs().max() < 2e-3


@pytest.mark.parametrize("solver", ["exact", "ipot"])
def test_unregularised_solvers_reach_the_linear_program(solver):
    cost, a, b = problem()
    transport = solve(cost, a, b, solver=solver, epsilon=0.5, tolerance=1e-4, iterations=5000)
    assert transport.converged.all()
    assert torch.allclose(transport.value.double(), pot_exact(cost, a, b), atol=1e-5 if solver == "exact" else 2e-4)


def test_exact_plan_is_sparse_and_feasible():
    cost, a, b = problem()
    plan = solve(cost, a, b, solver="exact").plan
    real = (a > 0).sum(1) + (b > 0).sum(1)
    assert ((plan > 0).sum((1, 2)) < real).all()
    assert marginal_violation(plan, a, b).max() < 1e-6


def test_ipot_goes_on_until_the_duality_gap_is_closed():
    cost, a, b = problem()
    transport = solve(cost, a, b, solver="ipot", epsilon=5.0, tolerance=1e-2)  # so soft that the marginals hold at once
    assert transport.converged.all()
    assert (transport.value - pot_exact(cost, a, b)).max() <= 2e-2


def test_ipot_makes_the_steps_of_the_published_loop():
    cost, a, b = problem(batch=3, dtype=torch.float64)
    with pytest.warns(UserWarning, match="did not converge"):
        plan = solve(cost, a, b, solver="ipot", epsilon=0.1, iterations=7, tolerance=1e-9).plan
    for index, (c, s, t, rows, columns) in enumerate(cropped(cost, a, b)):
        gamma, sigma = np.ones_like(c), np.ones_like(t) / len(t)
        for _ in range(7):
            q = np.exp(-c / 0.1) * gamma
            delta = s / (q @ sigma)
            sigma = t / (q.T @ delta)
            gamma = delta[:, None] * q * sigma
        assert np.allclose(plan[index].numpy()[np.ix_(rows, columns)], gamma, atol=1e-12)


@pytest.mark.parametrize("epsilon", [0.2, 0.05, 0.01])
def test_sinkhorn_value_lies_between_exact_and_the_entropic_bound(epsilon):
    cost, a, b = problem(sources=16, targets=16, dtype=torch.float64)
    exact = pot_exact(cost, a, b)
    value = solve(cost, a, b, epsilon=epsilon, tolerance=1e-8, iterations=20_000).value
    # <P_eps, C> - eps H(P_eps) <= <P*, C> - eps H(P*), and 0 <= H(P*), H(P_eps) <= H(a) + H(b)
    entropy = sum(torch.special.entr(marginal).sum(1) for marginal in (a, b))
    assert (value >= exact - 1e-7).all()
    assert (value <= exact + epsilon * entropy + 1e-7).all()


@pytest.mark.parametrize("solver", ON_CPU)
def test_padding_carries_no_mass_and_is_not_read(solver):
    cost, a, b = problem()
    padding = ~((a > 0)[:, :, None] & (b > 0)[:, None, :])
    plan = solve(cost, a, b, solver=solver, epsilon=0.5).plan
    assert (plan[padding] == 0).all()
    assert marginal_violation(plan, a, b).max() < 2e-3
    for garbage in (math.nan, math.inf, -1e30):
        again = solve(cost.masked_fill(padding, garbage), a, b, solver=solver, epsilon=0.5)
        assert torch.equal(again.plan, plan)
        assert again.value.isfinite().all()


@pytest.mark.parametrize("solver", ON_CPU)
def test_more_padding_does_not_change_the_plan(solver):
    cost, a, b = problem()
    wide = torch.nn.functional.pad(cost, (0, 5, 0, 3), value=7.0)
    a_wide, b_wide = torch.nn.functional.pad(a, (0, 3)), torch.nn.functional.pad(b, (0, 5))
    plan = solve(wide, a_wide, b_wide, solver=solver, epsilon=0.5).plan
    assert torch.allclose(plan[:, :-3, :-5], solve(cost, a, b, solver=solver, epsilon=0.5).plan, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.005, 0.05, 1.0])
@pytest.mark.parametrize("kind", ["random", "constant", "clusters", "diagonal", "far"])
def test_sinkhorn_is_finite_and_converges_at_any_epsilon(kind, epsilon):
    cost, a, b = problem(skewed=False, sources=12, targets=12)
    if kind == "constant":
        cost = torch.full_like(cost, 1.3)
    elif kind == "clusters":
        cost = 2.0 * ((torch.arange(12) % 2)[:, None] != (torch.arange(12) % 3 > 0)).float().expand_as(cost)
    elif kind == "diagonal":
        cost = 1 - torch.eye(12).expand_as(cost)
    elif kind == "far":  # the last source is far from all: every entry of its row underflows
        cost = cost.clone()
        cost[:, -1] = 2.0
        cost[:, :-1] *= 0.01
    transport = solve(cost, a, b, epsilon=epsilon, iterations=20_000)
    assert transport.plan.isfinite().all()
    assert (transport.plan >= 0).all()
    assert transport.converged.all()
    # Large scalings were absorbed, not cut: the plan is still the optimum.
    exact = pot_exact(cost, a, b)
    bound = exact + epsilon * sum(torch.special.entr(marginal).sum(1) for marginal in (a, b))
    assert (exact - 2e-3 <= transport.value).all()
    assert (transport.value <= bound + 2e-3).all()


@pytest.mark.parametrize(("count", "epsilon"), [(8, 0.001), (8, 0.005), (64, 0.02)])
def test_sinkhorn_converges_with_masses_of_very_different_size(count, epsilon):
    """Where scalings become huge, and over-relaxation without its brake oscillates."""
    torch.manual_seed(1)
    cost = 2 * torch.rand(32, count, count)
    a, b = (4 * torch.randn(2, 32, count)).softmax(2)
    transport = solve(cost, a, b, epsilon=epsilon, iterations=2000)
    assert transport.plan.isfinite().all()
    assert transport.converged.all()
    assert (transport.value >= pot_exact(cost, a, b) - 2e-3).all()


def test_one_token_on_a_side_moves_everything():
    cost = torch.tensor([[[0.5, 1.5, 0.1]]])
    target = torch.tensor([[0.2, 0.3, 0.5]])
    for solver in ON_CPU:
        assert torch.allclose(solve(cost, torch.ones(1, 1), target, solver=solver).plan[0], target)


def test_pairs_do_not_influence_each_other():
    cost, a, b = problem(batch=5)
    together = solve(cost, a, b, epsilon=0.02, tolerance=1e-5)
    for index in range(5):
        alone = solve(cost[index : index + 1], a[index : index + 1], b[index : index + 1], epsilon=0.02, tolerance=1e-5)
        assert torch.allclose(together.plan[index], alone.plan[0], atol=1e-5)


def test_batches_beyond_a_chunk_are_solved_in_order(monkeypatch):
    cost, a, b = problem()
    whole = solve(cost, a, b, solver="torch")
    monkeypatch.setattr("strategies.transport.torch_solver.CPU_GROUP", 3 * cost[0].numel())
    assert torch.allclose(solve(cost, a, b, solver="torch").plan, whole.plan, atol=1e-5)


def test_over_relaxation_saves_iterations(monkeypatch):
    cost, a, b = problem(sources=24, targets=24)
    fast = solve(cost, a, b, solver="torch", epsilon=0.01, iterations=20_000).iterations.max()
    monkeypatch.setattr("strategies.transport.torch_solver.LARGEST_OMEGA", 1.0)
    assert fast < solve(cost, a, b, solver="torch", epsilon=0.01, iterations=20_000).iterations.max() / 2


def test_stops_at_the_tolerance_and_reports_its_work():
    cost, a, b = problem()
    loose, tight = solve(cost, a, b, tolerance=0.1), solve(cost, a, b, tolerance=1e-4)
    assert loose.violation.max() <= 0.1
    assert tight.violation.max() <= 1e-4
    assert loose.iterations.sum() < tight.iterations.sum()
    assert torch.allclose(tight.violation, marginal_violation(tight.plan, a, b), atol=1e-6)


@pytest.mark.parametrize("solver", ["torch", "reference", "ipot"])
def test_too_few_iterations_warn_and_do_not_raise(solver):
    cost, a, b = problem()
    with pytest.warns(UserWarning, match="did not converge"):
        transport = solve(cost, a, b, solver=solver, epsilon=0.01, iterations=3, tolerance=1e-5)
    assert not transport.converged.all()
    assert transport.converged[1]  # one token a side: there is only one plan
    assert transport.iterations.max() == 3
    assert transport.plan.isfinite().all()


def test_convergence_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(*problem())


@pytest.mark.parametrize("solver", ON_CPU)
def test_half_precision_and_autocast_are_solved_in_float32(solver):
    cost, a, b = problem()
    wanted = solve(cost.half().float(), a, b, solver=solver, epsilon=0.5).plan
    with torch.autocast("cpu", dtype=torch.bfloat16):
        transport = solve(cost.half(), a, b, solver=solver, epsilon=0.5)
    assert transport.plan.dtype == torch.float32
    assert torch.equal(transport.plan, wanted)


def test_no_gradient():
    cost, a, b = problem()
    assert not solve(cost.requires_grad_(), a, b).plan.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "refrence"}, "did you mean 'reference'"),
        ({"epsilon": 0.0}, r"epsilon is .*, expected a number above 0"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"iterations": 0}, r"iterations is .*, expected a number above 0"),
        ({"tolerance": -1.0}, r"tolerance is .*, expected a number above 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        solve(*problem(), **options)


def test_wrong_problems():
    cost, a, b = problem()
    with pytest.raises(ValueError, match=r"\(B, S, T\)"):
        solve(cost, b, a)
    with pytest.raises(ValueError, match="a row of source is no"):
        solve(cost, a * 2, b)
    with pytest.raises(ValueError, match="a row of target is no"):
        solve(cost, a, b * math.nan)
