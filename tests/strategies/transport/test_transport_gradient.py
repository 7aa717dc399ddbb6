from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch

from strategies.base import Embeddings
from strategies.functional import token_cost, token_marginals
from strategies.transport import Transport, solve
from strategies.transport.loss import implicit_weights, transport_loss


@pytest.fixture
def sides(make_side):
    teacher, student = (make_side(batch=5, length=n, seed=n, dtype=torch.float64) for n in (5, 7))
    teacher.tokens.requires_grad_()
    student.tokens.requires_grad_()
    return teacher, student


def solver(teacher, student, **options):
    return partial(solve, source=token_marginals(teacher, "norm"), target=token_marginals(student, "idf"), **options)


def with_plan(plan):
    """A solver that always gives this plan."""
    count = plan.sum((1, 2))
    return lambda cost: Transport(plan, (plan * cost).sum((1, 2)), count, count.long(), count > 0)


def unrolled(cost, source, target, epsilon, iterations):
    """Plans by plain Sinkhorn iterations, differentiated by autograd."""
    kernel = -cost / epsilon
    source, target = source.log(), target.log()
    f, g = torch.zeros_like(source), torch.zeros_like(target)
    for _ in range(iterations):
        f = source - (kernel + g[:, None, :]).logsumexp(2)
        g = target - (kernel + f[:, :, None]).logsumexp(1)
    return (kernel + f[:, :, None] + g[:, None, :]).exp()


def test_gradcheck(sides):
    teacher, student = sides
    plan = solver(teacher, student)(token_cost(teacher, student)).plan

    def loss(x, y):
        return transport_loss(
            dataclasses.replace(teacher, tokens=x), dataclasses.replace(student, tokens=y), with_plan(plan)
        )[0]

    assert torch.autograd.gradcheck(loss, (teacher.tokens, student.tokens))


def test_equals_autograd_with_the_plan_held(sides):
    teacher, student = sides
    loss, transport = transport_loss(teacher, student, solver(teacher, student))
    slow = (transport.plan * token_cost(teacher, student)).sum((1, 2))
    assert torch.allclose(loss, slow)
    weights = torch.arange(1.0, 6, dtype=torch.float64)
    tokens = teacher.tokens, student.tokens
    ours, wanted = (torch.autograd.grad(weights @ values, tokens) for values in (loss, slow))
    for gradient, expected in zip(ours, wanted, strict=True):
        assert torch.allclose(gradient, expected, atol=1e-12)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("padding", [0.0, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_and_precision(make_side, padding, dtype):
    """Padding of any value, long and short and zero vectors, half precision and autocast."""
    teacher, student = make_side(length=5, seed=1), make_side(length=7, seed=2)
    sides = []
    for side in (teacher, student):
        tokens = side.tokens.clone()
        tokens[0, 0] *= 1e12
        tokens[0, 1] *= 1e-9
        tokens[0, 2] = 0
        tokens = tokens.masked_fill(~side.mask[..., None], padding).to(dtype).requires_grad_()
        sides.append(dataclasses.replace(side, tokens=tokens))
    plan = solver(teacher, student)(token_cost(teacher, student)).plan
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = transport_loss(*sides, with_plan(plan))
        ours = torch.autograd.grad(loss.sum(), [side.tokens for side in sides])
    slow = (plan * token_cost(*sides)).sum((1, 2))
    assert torch.allclose(loss, slow, atol=1e-6)
    for side, gradient, wanted in zip(
        sides, ours, torch.autograd.grad(slow.sum(), [side.tokens for side in sides]), strict=True
    ):
        assert gradient.dtype == dtype
        assert (gradient[~side.mask] == 0).all()
        assert torch.allclose(gradient, wanted, atol=1e-6, rtol=1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_implicit_is_the_derivative_of_the_unrolled_iterations(sides, epsilon):
    teacher, student = sides
    options = {"epsilon": epsilon, "tolerance": 1e-10, "iterations": 20000}
    loss, transport = transport_loss(teacher, student, solver(teacher, student, **options), epsilon=epsilon)
    marginals = token_marginals(teacher, "norm"), token_marginals(student, "idf").double()
    slow = []
    for index, (n, m) in enumerate(zip(teacher.mask.sum(1), student.mask.sum(1), strict=True)):
        one, other = (
            Embeddings(
                side.pooled[index : index + 1], side.tokens[index : index + 1, :k], side.mask[index : index + 1, :k]
            )
            for side, k in ((teacher, n), (student, m))
        )
        cost = token_cost(one, other)
        plan = unrolled(
            cost, marginals[0][index : index + 1, :n], marginals[1][index : index + 1, :m], epsilon, int(50 / epsilon)
        )
        slow.append((plan * cost).sum())
    assert torch.allclose(loss, torch.stack(slow), atol=1e-6)
    tokens = teacher.tokens, student.tokens
    ours = torch.autograd.grad(loss.sum(), tokens)
    wanted = torch.autograd.grad(torch.stack(slow).sum(), tokens)
    held = torch.autograd.grad(transport_loss(teacher, student, with_plan(transport.plan))[0].sum(), tokens)
    for gradient, expected, envelope in zip(ours, wanted, held, strict=True):
        assert torch.allclose(gradient, expected, atol=1e-4 * expected.abs().max().item())
        assert not torch.allclose(envelope, expected, atol=1e-2 * expected.abs().max().item())


def test_implicit_of_plans_that_nearly_fall_apart(make_side):
    """Two groups of tokens with no mass between them: the system is singular but for its ridge."""
    cost = torch.ones(1, 4, 4, dtype=torch.float64)
    cost[:, :2, :2], cost[:, 2:, 2:] = torch.rand(2, 2, dtype=torch.float64), torch.rand(2, 2, dtype=torch.float64)
    plan = torch.zeros_like(cost)
    plan[:, :2, :2] = plan[:, 2:, 2:] = 1 / 8
    weights = implicit_weights(plan, cost, 0.1)
    assert weights.isfinite().all()
    assert (weights[plan == 0] == 0).all()
    # A shift of a row or a column of the cost does not change the plan: it changes the value by its mass.
    assert torch.allclose(weights.sum(1), plan.sum(1))
    assert torch.allclose(weights.sum(2), plan.sum(2))


def test_nothing_is_kept_but_tokens_and_one_weight_an_entry(make_side):
    """The same at any number of iterations."""
    teacher, student = make_side(batch=4, length=30, seed=1), make_side(batch=4, length=40, seed=2)
    student.tokens.requires_grad_()
    kept = []

    def note(tensor):
        if tensor.data_ptr() not in (teacher.tokens.data_ptr(), student.tokens.data_ptr()):
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        transport_loss(teacher, student, solver(teacher, student, epsilon=0.02))
    assert sum(kept) == 4 * 30 * 40 + 2 * 4 * (30 + 40)
