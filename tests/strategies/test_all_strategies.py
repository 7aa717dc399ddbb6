"""What must hold for every strategy."""

from __future__ import annotations

import dataclasses
import importlib
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from strategies import STRATEGIES
from strategies.base import INFO_PREFIX, DistillationStrategy, Embeddings
from strategies.contrastive import Contrastive
from strategies.cosine import Cosine
from strategies.kl import KL
from strategies.margin_mse import MarginMSE
from strategies.mse import MSE
from strategies.ot import OptimalTransport
from strategies.ot_contrastive import OTContrastive
from strategies.ot_match import OTMatch
from strategies.relational import Relational
from strategies.weighted_sum import WeightedSum

VARIANTS = {
    "ot": [
        OptimalTransport,
        lambda: OptimalTransport(marginals="norm", pooled_weight=0.0),
        lambda: OptimalTransport(marginals="idf", epsilon=0.01),
        lambda: OptimalTransport(solver="exact", pooled_weight=0.0),
        lambda: OptimalTransport(solver="ipot", epsilon=0.5),
        lambda: OptimalTransport(marginal_relaxation=2.0, epsilon=0.01, pooled_weight=0.0),
        lambda: OptimalTransport(mass=0.7),
    ],
    "ot_contrastive": [
        OTContrastive,
        lambda: OTContrastive(marginal_relaxation=2.0, epsilon=0.01, pooled_weight=0.0),
        lambda: OTContrastive(mass=0.7, marginals="idf"),
        lambda: OTContrastive(plan="attention"),
        lambda: OTContrastive(plan="greedy"),
        lambda: OTContrastive(plan="uniform", marginals="norm"),
    ],
    "ot_match": [OTMatch, lambda: OTMatch(warmup_steps=0, symmetric=True, mass=1.0, contrastive_weight=0.5)],
    "mse": [MSE, lambda: MSE("token"), lambda: MSE("token", pooled_weight=0.0)],
    "contrastive": [Contrastive, lambda: Contrastive(learnable=True, symmetric=True)],
    "kl": [KL, lambda: KL(score="maxsim"), lambda: KL(passages="batch"), lambda: KL(passages="listed")],
    "margin_mse": [MarginMSE, lambda: MarginMSE(score="maxsim")],
    "relational": [Relational, lambda: Relational(0.0, angle_weight=1.0, similarity_weight=1.0, pooled_weight=0.0)],
    "cosine": [Cosine],
    "weighted_sum": [
        lambda: WeightedSum({"a": OptimalTransport(marginals="idf"), "b": Contrastive()}, {"a": 2.0}),
    ],
}
every_strategy = pytest.mark.parametrize(
    "build",
    [pytest.param(build, id=f"{name}-{i}") for name, builds in VARIANTS.items() for i, build in enumerate(builds)],
)


@pytest.fixture
def make_side(make_lists):
    """Sides that have all that a strategy may need."""
    return make_lists


def loss_of(terms):
    return sum(value for name, value in terms.items() if not name.startswith(INFO_PREFIX))


def with_gradient(side):
    return dataclasses.replace(side, pooled=side.pooled.requires_grad_(), tokens=side.tokens.requires_grad_())


def test_every_strategy_has_a_variant_here():
    assert VARIANTS.keys() == STRATEGIES.keys()
    for path in STRATEGIES.values():
        module, name = path.rsplit(".", 1)
        assert issubclass(getattr(importlib.import_module(module), name), DistillationStrategy)


def test_the_names_alone_do_not_import_torch():
    code = "import strategies, sys; sys.exit('torch' in sys.modules or not strategies.STRATEGIES)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_strategy
def test_terms_are_finite_scalars_in_float32(build, make_side):
    terms = build()(with_gradient(make_side(seed=1)), make_side(seed=2))
    for name, value in terms.items():
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert value.requires_grad != name.startswith(INFO_PREFIX)


@every_strategy
def test_loss_falls_in_20_gradient_steps(build, make_side):
    strategy, teacher, start = build(), make_side(seed=1), make_side(seed=2)
    pooled, tokens = start.pooled.clone().requires_grad_(), start.tokens.clone().requires_grad_()
    parameters = [pooled, tokens, *strategy.parameters()]
    losses = []
    for _ in range(20):
        student = dataclasses.replace(start, pooled=F.normalize(pooled, dim=-1), tokens=tokens)
        loss = loss_of(strategy(student, teacher))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(2.0 * gradient)
        losses.append(loss.item())
    assert losses[-1] < losses[10] < losses[0]
    assert losses[-1] < 0.9 * losses[0]


@every_strategy
def test_padded_tokens_change_neither_loss_nor_gradient(build, make_side):
    results = []
    for garbage in (0.0, 1e4, math.nan):
        sides = [make_side(seed=1), make_side(seed=2, length=5)]
        for side in sides:
            side.tokens[~side.mask] = garbage
            side.weights[~side.mask] = garbage
        student = with_gradient(sides[0])
        loss = loss_of(build()(student, sides[1]))
        loss.backward()
        gradient = torch.zeros(()) if student.tokens.grad is None else student.tokens.grad
        results.append((loss, gradient, student.pooled.grad))
    for loss, tokens, pooled in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(tokens, results[0][1])
        assert pooled is results[0][2] is None or torch.equal(pooled, results[0][2])


@every_strategy
def test_autocast_to_bfloat16_changes_nothing(build, make_side):
    student, teacher = make_side(seed=1), make_side(seed=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = build()(student, teacher)
    for name, value in build()(student, teacher).items():
        assert torch.equal(terms[name], value), name


@every_strategy
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_read_in_float32(build, dtype, make_side):
    teacher, student = make_side(seed=1, dtype=dtype), with_gradient(make_side(seed=2, dtype=dtype))
    terms = build()(student, teacher)
    full = (
        dataclasses.replace(side, pooled=side.pooled.float(), tokens=side.tokens.float()) for side in (student, teacher)
    )
    for name, value in build()(*full).items():
        assert terms[name].dtype == torch.float32
        assert torch.equal(terms[name], value), name
    loss_of(terms).backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in (student.pooled, student.tokens))


@every_strategy
def test_one_token_texts(build, make_side):
    student, teacher = with_gradient(make_side(length=1, seed=1)), make_side(length=1, seed=2)
    loss = loss_of(build()(student, teacher))
    loss.backward()
    assert loss.isfinite()


@every_strategy
def test_no_gradient_reaches_the_teacher(build, make_side):
    student, teacher = with_gradient(make_side(seed=1)), make_side(seed=2)
    before = (teacher.pooled.clone(), teacher.tokens.clone())
    loss_of(build()(student, teacher)).backward()
    assert teacher.pooled.grad is None
    assert torch.equal(teacher.pooled, before[0])
    assert torch.equal(teacher.tokens, before[1])


@every_strategy
def test_widths_must_agree(build, make_side):
    with pytest.raises(ValueError, match="project the student to 8"):
        build()(make_side(width=4), make_side(width=8))


@every_strategy
def test_whether_the_loss_depends_on_the_pooled_vectors_is_declared(build, make_side):
    strategy, student = build(), with_gradient(make_side(seed=1))
    loss_of(strategy(student, make_side(seed=2))).backward()
    assert strategy.sees_pooled == (student.pooled.grad is not None)


def poor(candidates):
    return Embeddings(candidates.pooled, ids=candidates.ids)


@every_strategy
def test_needs_are_declared(build, make_side):
    strategy, (student, teacher) = build(), (make_side(seed=1), make_side(seed=2))
    if strategy.needs_candidates:
        assert strategy.uses_candidates
        plain = (dataclasses.replace(side, candidates=None) for side in (student, teacher))
        for sides in (plain, (Embeddings(student.pooled), Embeddings(teacher.pooled))):
            with pytest.raises(ValueError, match="needs candidate passages"):
                strategy(*sides)
    bare = [dataclasses.replace(side, tokens=None, candidates=poor(side.candidates)) for side in (student, teacher)]
    if strategy.needs_tokens:
        with pytest.raises(ValueError, match="needs token states"):
            strategy(*bare)
    else:
        strategy(*bare)
    unweighted = [dataclasses.replace(side, weights=None) for side in (student, teacher)]
    if strategy.needs_weights:
        with pytest.raises(ValueError, match="need a weight for each token"):
            strategy(*unweighted)
    else:
        strategy(*unweighted)
