"""``ot`` with less mass than all: unbalanced and partial."""

from __future__ import annotations

import dataclasses
import math

import ot
import pytest
import torch
import torch.nn.functional as F

from strategies.base import Embeddings
from strategies.functional import token_cost, token_marginals
from strategies.ot import OptimalTransport
from strategies.transport import solve

OPTIONS = [{"marginal_relaxation": 0.3}, {"mass": 0.6}]
relaxed = pytest.mark.parametrize("options", OPTIONS, ids=["unbalanced", "partial"])


def clean_and_wrong(seed=0):
    """Two pairs of the same teacher text: the student's tokens are nearly its own, and those of another text."""
    generator = torch.Generator().manual_seed(seed)
    text, other = torch.randn(2, 1, 6, 32, generator=generator)
    mask = torch.ones(2, 6, dtype=torch.bool)
    teacher = Embeddings(F.normalize(text.mean(1), dim=-1).expand(2, -1), text.expand(2, -1, -1), mask)
    tokens = torch.cat([text.flip(1) + 0.3 * torch.randn(1, 6, 32, generator=generator), other])
    return Embeddings(F.normalize(tokens.mean(1), dim=-1), tokens.requires_grad_(), mask), teacher


def plan_of(strategy, student, teacher):
    marginals = (token_marginals(side, "uniform") for side in (teacher, student))
    options = {"relaxation": strategy.marginal_relaxation, "mass": strategy.mass}
    cost = token_cost(teacher, student)
    return cost, solve(cost, *marginals, epsilon=strategy.epsilon, tolerance=strategy.tolerance, **options).plan


def test_a_wrong_pair_moves_less_mass_and_has_a_smaller_gradient():
    student, teacher = clean_and_wrong()
    strategy = OptimalTransport(marginal_relaxation=0.2, epsilon=0.01, tolerance=1e-4, pooled_weight=0.0)
    _, plan = plan_of(strategy, student, teacher)
    clean, wrong = plan.sum((1, 2)).tolist()
    assert clean > 0.7
    assert wrong < 0.2

    def size(strategy, index):
        pair = [dataclasses.replace(s, pooled=s.pooled[[index]], tokens=s.tokens[[index]], mask=s.mask[[index]])
                for s in (student, teacher)]  # fmt: skip
        return torch.autograd.grad(strategy(*pair)["ot"], student.tokens)[0].norm()

    balanced = OptimalTransport(epsilon=0.01, pooled_weight=0.0)
    assert size(balanced, 1) > size(balanced, 0)  # without it, the wrong pair has the larger one
    assert size(strategy, 1) < 0.3 * size(balanced, 1)
    assert size(strategy, 0) > 0.7 * size(balanced, 0)


def test_the_pooled_term_of_a_pair_counts_by_its_moved_mass():
    student, teacher = clean_and_wrong()
    strategy = OptimalTransport(marginal_relaxation=0.2, tolerance=1e-4, pooled_weight=0.5)
    mass = plan_of(strategy, student, teacher)[1].sum((1, 2))
    distances = (student.pooled - teacher.pooled).square().sum(1)
    terms = strategy(student, teacher)
    assert torch.isclose(terms["pooled"], 0.5 * (mass * distances).mean())
    assert torch.isclose(terms["info/ot_mass"], mass.mean())


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_the_unbalanced_loss_is_that_of_pot_with_its_divergences(rho, make_side):
    teacher, student = (make_side(seed=seed, dtype=torch.float64) for seed in (1, 2))
    wanted = []
    for index in range(6):
        x, y = teacher.tokens[index, teacher.mask[index]], student.tokens[index, student.mask[index]]
        cost = 1 - F.cosine_similarity(x[:, None], y[None], dim=-1)
        a, b = (torch.full((n,), 1 / n, dtype=torch.float64) for n in cost.shape)
        plan = ot.unbalanced.sinkhorn_stabilized_unbalanced(
            a, b, cost, 0.05, rho, numItermax=20_000, stopThr=1e-12, c=a[:, None] * b[None]
        )
        value = (plan * cost).sum()
        for p, q in ((plan.sum(1), a), (plan.sum(0), b)):
            value = value + rho * ((p * (p / q).log()).sum() - p.sum() + q.sum())
        wanted.append(value.item())
    strategy = OptimalTransport(marginal_relaxation=rho, tolerance=1e-8, iterations=20_000, pooled_weight=0.0)
    assert strategy(student, teacher)["ot"].item() == pytest.approx(sum(wanted) / 6, abs=1e-6)


def test_the_worst_pair_costs_about_twice_the_relaxation():
    mask = torch.ones(1, 4, dtype=torch.bool)
    tokens = torch.ones(1, 4, 8)
    teacher, student = (Embeddings(torch.ones(1, 8), sign * tokens, mask) for sign in (1, -1))  # cost 2 everywhere
    strategy = OptimalTransport(marginal_relaxation=0.1, pooled_weight=0.0, tolerance=1e-5)
    terms = strategy(student, teacher)
    assert terms["ot"].item() == pytest.approx(0.2, rel=1e-2)
    assert terms["info/ot_mass"].item() == pytest.approx(math.exp(-2 / (2 * 0.1 + 0.05)), rel=1e-2)


@relaxed
def test_gradient_is_the_plan_and_cost_alone(options, make_side):
    """The envelope: nothing flows through the plan, the divergences, or the weights of the pooled term."""
    teacher, student = make_side(seed=1), make_side(seed=2)
    tokens = student.tokens.requires_grad_()
    strategy = OptimalTransport(**options, tolerance=1e-5, iterations=20_000)
    cost, plan = plan_of(strategy, student, teacher)
    (wanted,) = torch.autograd.grad((plan * cost).sum() / 6, tokens)
    (gradient,) = torch.autograd.grad(sum(v for k, v in strategy(student, teacher).items() if "/" not in k), tokens)
    assert torch.allclose(gradient, wanted, atol=1e-6)


def test_the_plan_is_the_derivative_of_the_whole_unbalanced_objective(make_side):
    teacher, student = (make_side(batch=1, length=4, seed=seed, dtype=torch.float64) for seed in (1, 2))
    cost = token_cost(teacher, student)
    a, b = token_marginals(teacher, "norm"), token_marginals(student, "norm")

    def value(cost):
        plan = solve(cost, a, b, epsilon=0.1, relaxation=0.3, tolerance=1e-12, iterations=20_000).plan
        reference = a[:, :, None] * b[:, None]
        divergences = ((plan, reference, 0.1), (plan.sum(2), a, 0.3), (plan.sum(1), b, 0.3))
        return (plan * cost).sum() + sum(w * (torch.xlogy(p, p / q) - p + q).sum() for p, q, w in divergences), plan

    plan = value(cost)[1]
    for entry in ((0, 0, 0), (0, 1, 3), (0, 3, 2)):
        step = torch.zeros_like(cost)
        step[entry] = 1e-5
        assert torch.isclose((value(cost + step)[0] - value(cost - step)[0]) / 2e-5, plan[entry], atol=1e-6)


@pytest.mark.parametrize("solver", ["torch", "exact"])
def test_partial_transport_moves_the_cheapest_share(solver, make_side):
    teacher, student = make_side(batch=1, seed=1), make_side(batch=1, seed=2)
    terms = OptimalTransport(solver=solver, epsilon=0.01, mass=0.3, tolerance=1e-4, iterations=20_000)(student, teacher)
    assert terms["info/ot_mass"].item() == pytest.approx(0.3, abs=1e-3)
    cost = token_cost(teacher, student)[0].double().numpy()
    a = b = torch.full((7,), 1 / 7, dtype=torch.float64).numpy()
    wanted = (ot.partial.partial_wasserstein(a, b, cost, m=0.3) * cost).sum()
    assert terms["ot"].item() == pytest.approx(wanted, abs=1e-4 if solver == "exact" else 5e-3)


def test_all_mass_is_balanced(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    assert OptimalTransport(mass=1.0)(student, teacher) == OptimalTransport()(student, teacher)


@relaxed
def test_finite_in_bfloat16_autocast_at_a_small_epsilon(options):
    student, teacher = clean_and_wrong()
    far = dataclasses.replace(teacher, tokens=-1e3 * teacher.tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = OptimalTransport(**options, epsilon=0.01)(dataclasses.replace(student, tokens=student.tokens * 1), far)
    terms["ot"].backward()
    assert all(value.isfinite() for value in terms.values())
    assert student.tokens.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"marginal_relaxation": 0.1, "mass": 0.5}, "not both"),
        ({"marginal_relaxation": 0.0}, r"marginal_relaxation is .*, expected a number above 0"),
        ({"marginal_relaxation": 0.1, "solver": "exact"}, "solver exact has no marginal_relaxation"),
        ({"mass": 0.0}, "mass is 0.0, expected a number above 0 and at most 1"),
        ({"mass": 1.5}, "mass is 1.5, expected a number above 0 and at most 1"),
        ({"mass": 0.5, "gradient": "implicit"}, "for balanced plans"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        OptimalTransport(**options)
