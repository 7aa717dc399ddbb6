from __future__ import annotations

import dataclasses

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F

from strategies.base import Embeddings
from strategies.functional import token_cost, token_marginals
from strategies.ot import OptimalTransport
from strategies.transport import solve


def cosine_cost(teacher, student, index):
    x, y = teacher.tokens[index, teacher.mask[index]], student.tokens[index, student.mask[index]]
    return 1 - F.cosine_similarity(x[:, None], y[None], dim=-1)


def test_cost_is_one_minus_cosine_of_teacher_rows_and_student_columns(make_side):
    teacher, student = make_side(length=5, seed=1), make_side(length=7, seed=2)
    cost = token_cost(teacher, student)
    assert cost.shape == (6, 5, 7)
    for index in range(6):
        wanted = cosine_cost(teacher, student, index)
        assert torch.allclose(cost[index, : wanted.shape[0], : wanted.shape[1]], wanted, atol=1e-6)


@pytest.mark.parametrize(("solver", "atol"), [("exact", 1e-5), ("torch", 5e-3)])
def test_loss_is_the_mean_transport_cost_of_pot(solver, atol, make_side):
    teacher, student = make_side(length=5, seed=1), make_side(length=7, seed=2)
    costs = []
    for index in range(6):
        cost = cosine_cost(teacher, student, index).double().numpy()
        a, b = (np.full(n, 1 / n) for n in cost.shape)
        plan = (
            ot.emd(a, b, cost)
            if solver == "exact"
            else ot.sinkhorn(a, b, cost, 0.05, method="sinkhorn_log", numItermax=5000)
        )
        costs.append((plan * cost).sum())
    terms = OptimalTransport(solver=solver, pooled_weight=0.0)(student, teacher)
    assert terms.keys() == {"ot", "info/ot_violation", "info/ot_converged"}
    assert terms["ot"].item() == pytest.approx(np.mean(costs), abs=atol)


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_epsilon_and_tolerance_reach_the_solver(epsilon, make_side):
    teacher, student = make_side(batch=1, seed=1, dtype=torch.float64), make_side(batch=1, seed=2, dtype=torch.float64)
    cost = cosine_cost(teacher, student, 0).numpy()
    plan = ot.sinkhorn([], [], cost, epsilon, method="sinkhorn_log", numItermax=5000, stopThr=1e-10)
    strategy = OptimalTransport(epsilon=epsilon, tolerance=1e-8, pooled_weight=0.0)
    terms = strategy(student, teacher)
    assert terms["ot"].item() == pytest.approx((plan * cost).sum(), abs=1e-7)
    assert terms["info/ot_violation"] <= 1e-8


def test_pooled_term_is_the_squared_distance_and_has_its_weight(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    wanted = sum(((s - t) ** 2).sum() for s, t in zip(student.pooled, teacher.pooled, strict=True)) / 6
    assert torch.isclose(OptimalTransport()(student, teacher)["pooled"], wanted)
    assert torch.isclose(OptimalTransport(pooled_weight=0.25)(student, teacher)["pooled"], wanted / 4)
    cosines = F.cosine_similarity(student.pooled, teacher.pooled)
    assert torch.isclose(wanted, 2 * (1 - cosines).mean())


def test_gradient_is_the_envelope(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    student.tokens.requires_grad_()
    strategy = OptimalTransport(pooled_weight=0.0)
    (gradient,) = torch.autograd.grad(strategy(student, teacher)["ot"], student.tokens)
    marginals = token_marginals(teacher, "uniform"), token_marginals(student, "uniform")
    plan = solve(token_cost(teacher, student), *marginals, tolerance=strategy.tolerance).plan
    cosines = F.cosine_similarity(teacher.tokens[:, :, None], student.tokens[:, None], dim=-1)
    (wanted,) = torch.autograd.grad((plan.detach() * (1 - cosines)).sum() / 6, student.tokens)
    assert torch.allclose(gradient, wanted, atol=1e-6)


def test_implicit_gradient_is_that_of_the_loss_itself(make_side):
    """By finite differences, which the envelope does not match."""
    teacher, student = (make_side(batch=3, length=5, seed=seed, dtype=torch.float64) for seed in (1, 2))
    step = torch.randn(student.tokens.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-5
    slopes = {}
    for gradient in ("envelope", "implicit"):
        strategy = OptimalTransport(gradient=gradient, pooled_weight=0.0, tolerance=1e-10, iterations=20000)
        tokens = student.tokens.clone().requires_grad_()
        (found,) = torch.autograd.grad(strategy(dataclasses.replace(student, tokens=tokens), teacher)["ot"], tokens)
        slopes[gradient] = (found * step).sum().item()
    ahead, behind = (
        strategy(dataclasses.replace(student, tokens=student.tokens + sign * step), teacher)["ot"].item()
        for sign in (1, -1)
    )
    assert slopes["implicit"] == pytest.approx((ahead - behind) / 2, rel=1e-3)
    assert slopes["envelope"] != pytest.approx((ahead - behind) / 2, rel=1e-2)


def test_plan_is_the_derivative_of_the_entropic_value(make_side):
    """What the envelope theorem says, by finite differences of <P, C> - epsilon H(P)."""
    teacher, student = (make_side(batch=1, length=4, seed=seed, dtype=torch.float64) for seed in (1, 2))
    cost = token_cost(teacher, student)
    marginals = token_marginals(teacher, "norm"), token_marginals(student, "norm")

    def solved(cost):
        return solve(cost, *marginals, epsilon=0.1, tolerance=1e-12, iterations=5000)

    def value(cost):
        transport = solved(cost)
        return transport.value.sum() - 0.1 * torch.special.entr(transport.plan).sum()

    plan = solved(cost).plan
    for entry in ((0, 0, 0), (0, 1, 3), (0, 3, 2)):
        step = torch.zeros_like(cost)
        step[entry] = 1e-5
        assert torch.isclose((value(cost + step) - value(cost - step)) / 2e-5, plan[entry], atol=1e-6)


def test_marginals(make_side):
    side = make_side()
    uniform, norm, idf = (token_marginals(side, kind) for kind in ("uniform", "norm", "idf"))
    for marginal in (uniform, norm, idf):
        assert (marginal[~side.mask] == 0).all()
        assert torch.allclose(marginal.sum(1), torch.ones(6))
    text = side.mask[0]
    assert torch.allclose(uniform[0, text], torch.tensor(1 / 7))
    lengths = torch.tensor([vector.norm() for vector in side.tokens[0]])
    assert torch.allclose(norm[0], lengths / lengths.sum())
    assert torch.allclose(idf[0], side.weights[0] / side.weights[0].sum())


def test_marginals_reach_both_sides(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    strategy = OptimalTransport(marginals="idf", pooled_weight=0.0)
    before = strategy(student, teacher)["ot"]
    for side in (teacher, student):
        side.weights[0, 0] *= 10
        after = strategy(student, teacher)["ot"]
        assert not torch.isclose(before, after, atol=1e-4)
        before = after


def test_a_text_of_zero_vectors_is_uniform_under_norm(make_side):
    side = make_side()
    silent = dataclasses.replace(side, tokens=torch.zeros_like(side.tokens))
    assert torch.equal(token_marginals(silent, "norm"), token_marginals(side, "uniform"))
    student = dataclasses.replace(silent, tokens=silent.tokens.requires_grad_())
    OptimalTransport(marginals="norm")(student, make_side(seed=2))["ot"].backward()
    assert student.tokens.grad.isfinite().all()


def test_diagnostics_tell_what_the_solver_did(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    good = OptimalTransport()(student, teacher)
    assert good["info/ot_converged"] == 1
    marginals = token_marginals(teacher, "uniform"), token_marginals(student, "uniform")
    violation = solve(token_cost(teacher, student), *marginals, tolerance=1e-2).violation.max()
    assert torch.isclose(good["info/ot_violation"], violation, rtol=1e-3)
    with pytest.warns(UserWarning, match="did not converge"):
        bad = OptimalTransport(epsilon=0.01, iterations=1)(student, teacher)
    assert 0 < bad["info/ot_converged"] < 1  # the one-token pair has converged
    assert bad["info/ot_violation"] > 1e-2


def test_epsilon_of_a_hundredth_is_finite_under_autocast():
    torch.manual_seed(0)
    tokens = torch.randn(4, 9, 16).bfloat16().requires_grad_()
    mask = torch.ones(4, 9, dtype=torch.bool)
    side = Embeddings(F.normalize(torch.randn(4, 16), dim=-1), tokens, mask)
    other = Embeddings(side.pooled, -side.tokens.detach().flip(1) * 1e3, mask)  # costs up to 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = OptimalTransport(epsilon=0.01)(side, other)["ot"]
    loss.backward()
    assert loss.isfinite()
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"marginals": "unifrom"}, "did you mean 'uniform'"),
        ({"solver": "refrence"}, "did you mean 'reference'"),
        ({"epsilon": 0}, r"epsilon is .*, expected a number above 0"),
        ({"iterations": 0}, r"iterations is .*, expected a number above 0"),
        ({"tolerance": 0.0}, r"tolerance is .*, expected a number above 0"),
        ({"pooled_weight": -1.0}, r"pooled_weight is .*, expected at least 0"),
        ({"gradient": "implict"}, "did you mean 'implicit'"),
        ({"gradient": "implicit", "solver": "exact"}, "soft plan"),
        ({"pooled_weight": float("nan")}, r"pooled_weight is .*, expected at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        OptimalTransport(**options)
