"""The native loop and the torch solver: against the reference, to tight tolerances, on threads."""

from __future__ import annotations

import multiprocessing
from importlib import import_module

import pytest
import torch

from strategies.transport import marginal_violation, solve
from strategies.transport.newton import newton
from strategies.transport.problem import optimal_marginal

FAST = ["fused", "torch"]


def problem(batch=8, sources=20, targets=24, *, seed=0, masses="uniform", dtype=torch.float32):
    """Tokens and their noisy translation in another order, 40 to 100 % of them real; the second pair has one each."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, sources, 32, generator=generator)
    order = torch.randint(sources, (targets,), generator=generator)
    y = 0.6 * x[:, order] + 0.4 * torch.randn(batch, targets, 32, generator=generator)
    x, y = (torch.nn.functional.normalize(side, dim=-1) for side in (x, y))

    def marginal(count):
        mass = torch.ones(batch, count) if masses == "uniform" else 8 * torch.rand(batch, count, generator=generator)
        real = torch.rand(batch, count, generator=generator) < 0.7  # holes, not only a tail
        real[:, 0], real[1] = True, torch.arange(count) == count // 2
        mass = (mass + 0.01) * real
        mass = mass.to(dtype)
        return mass / mass.sum(1, keepdim=True)

    return (1 - x @ y.mT).to(dtype), marginal(sources), marginal(targets)


def assert_optimal(transport, cost, a, b, *, epsilon, relaxation=None, tolerance=1e-8):
    """What makes a plan the one optimum: it is exp((f + g - C) / epsilon), with the marginals that f and g ask for."""
    f, g = transport.potentials
    real = (a > 0)[:, :, None] & (b > 0)[:, None]
    plan = torch.where(real, ((f[:, :, None] + g[:, None] - cost) / epsilon).exp(), 0.0)
    assert (transport.plan - plan).abs().sum((1, 2)).max() <= tolerance
    marginals = (optimal_marginal(mass, by, epsilon, relaxation) for mass, by in ((a, f), (b, g)))
    assert marginal_violation(plan, *marginals).max() <= tolerance


@pytest.mark.parametrize("solver", FAST)
@pytest.mark.parametrize("epsilon", [0.005, 0.02, 0.1, 1.0])
@pytest.mark.parametrize(("sources", "targets", "masses"), [(1, 5, "idf"), (17, 16, "uniform"), (33, 9, "idf")])
def test_plans_are_the_optimum(solver, epsilon, sources, targets, masses):
    cost, a, b = problem(sources=sources, targets=targets, masses=masses)
    exact = [x.double() for x in (cost, a, b)]
    exact[1:] = [x / x.sum(1, keepdim=True) for x in exact[1:]]
    wanted = solve(*exact, solver="torch", epsilon=epsilon, tolerance=1e-9)
    assert_optimal(wanted, *exact, epsilon=epsilon)
    if epsilon >= 0.1:  # plain iterations take thousands of steps at the smaller ones
        reference = solve(*exact, solver="reference", epsilon=epsilon, tolerance=1e-9, iterations=5000)
        assert torch.allclose(wanted.plan, reference.plan, atol=1e-8)
    transport = solve(cost, a, b, solver=solver, epsilon=epsilon, tolerance=1e-3)
    assert wanted.converged.all()
    assert transport.converged.all()
    assert transport.violation.max() <= 1e-3
    assert torch.allclose(
        transport.violation, marginal_violation(transport.plan.double(), *exact[1:]).float(), atol=1e-6
    )
    assert (transport.plan - wanted.plan).abs().sum((1, 2)).max() <= 4e-3
    fine = solve(cost, a, b, solver=solver, epsilon=epsilon, tolerance=1e-6)
    assert (fine.plan - wanted.plan).abs().sum((1, 2)).max() <= 2e-5


@pytest.mark.parametrize("solver", FAST)
@pytest.mark.parametrize("epsilon", [0.01, 0.1])
@pytest.mark.parametrize("count", [16, 64])
def test_a_tight_tolerance_takes_few_steps(solver, epsilon, count):
    cost, a, b = problem(batch=16, sources=count, targets=count)
    transport = solve(cost, a, b, solver=solver, epsilon=epsilon, tolerance=1e-6, iterations=60)
    assert transport.converged.all()
    assert marginal_violation(transport.plan.double(), a.double(), b.double()).max() <= 1.2e-6  # a, b are float32
    assert transport.iterations.max() <= 60


@pytest.mark.parametrize("solver", FAST)
@pytest.mark.parametrize("relaxation", [0.02, 0.5, 50.0])
def test_tight_tolerances_unbalanced(solver, relaxation):
    cost, a, b = problem(masses="idf", dtype=torch.float64)
    options = {"epsilon": 0.02, "relaxation": relaxation}
    near = solve(cost, a, b, solver=solver, tolerance=1e-9, **options)
    assert near.converged.all()
    assert_optimal(near, cost, a, b, **options)


def test_newton_steps_alone_reach_the_optimum():
    """From potentials that know nothing, over costs of a hundred epsilon, with and without penalty."""
    cost, a, b = problem(dtype=torch.float64)
    cost = torch.where((a > 0)[:, :, None] & (b > 0)[:, None, :], cost, 0.0) / 0.01
    for weight in (0.0, 0.1):
        start = torch.zeros_like(b).masked_fill(b == 0, -torch.inf)
        plan, f, g, used = newton(cost, a, b, start, weight=weight, steps=100, tolerance=1e-10)
        assert used.max() < 60
        wanted = torch.where(b > 0, b * ((b.log() - g) * weight).exp(), 0.0)
        assert (plan.sum(1) - wanted).abs().sum(1).max() <= 1e-10
        assert torch.allclose(plan, (f[:, :, None] + g[:, None] - cost).exp())


def test_threads_give_the_plans_of_one(monkeypatch):
    cost, a, b = problem(batch=7)
    alone = solve(cost, a, b, solver="fused")
    monkeypatch.setattr("strategies.transport.cpu_solver.WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(solve(cost, a, b, solver="fused").plan, alone.plan)


def _in_child(queue):
    queue.put(solve(*problem(), solver="fused").plan.sum().item())


def test_a_process_may_fork_after_a_solve(monkeypatch):
    monkeypatch.setattr("strategies.transport.cpu_solver.WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    solve(*problem(), solver="fused")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,), daemon=True)
    child.start()
    assert queue.get(timeout=60) == pytest.approx(8, abs=1e-3)
    child.join(10)


def test_inputs_may_be_strided_or_bfloat16():
    cost, a, b = problem(sources=24, targets=24)
    wanted = solve(cost, a, b, solver="fused")
    strided = cost.mT.contiguous().mT, a.repeat_interleave(2, 1)[:, ::2], b
    assert torch.allclose(solve(*strided, solver="fused").plan, wanted.plan, atol=1e-6)
    rough = solve(cost.bfloat16(), a, b)
    assert rough.plan.dtype == torch.float32
    assert rough.converged.all()


def test_auto_is_the_native_loop_but_for_long_texts_to_tight_tolerances(monkeypatch):
    asked = []
    for name in ("cpu_solver", "torch_solver"):
        module = import_module(f"strategies.transport.{name}")

        def spy(*problem, name=name, original=module.solve, **options):
            asked.append(name)
            return original(*problem, **options)

        monkeypatch.setattr(module, "solve", spy)
    solve(*problem())
    wide = problem(batch=2, targets=600)
    solve(*wide)
    with pytest.warns(UserWarning, match="did not converge"):
        solve(*wide, tolerance=1e-6, iterations=3)
    assert asked == ["cpu_solver", "cpu_solver", "torch_solver"]
