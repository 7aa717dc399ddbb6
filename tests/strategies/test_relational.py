from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from strategies.base import Embeddings
from strategies.relational import Relational


def huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def slow_distance(x, t):
    def distances(v):
        return {(i, j): float((v[i] - v[j]).norm()) for i in range(len(v)) for j in range(len(v)) if i != j}

    ours, theirs = distances(x), distances(t)
    means = [sum(d.values()) / len(d) for d in (ours, theirs)]
    return sum(huber(ours[p] / means[0] - theirs[p] / means[1]) for p in ours) / len(ours)


def slow_angle(x, t):
    def angle(v, i, j, k):
        return float(F.cosine_similarity(v[i] - v[j], v[k] - v[j], dim=0))

    n = range(len(x))
    triples = [(i, j, k) for i in n for j in n for k in n if len({i, j, k}) == 3]
    return sum(huber(angle(x, *c) - angle(t, *c)) for c in triples) / len(triples)


def slow_similarity(x, t):
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
    return sum(float(x[i] @ x[j] - t[i] @ t[j]) ** 2 for i, j in pairs) / len(pairs)


def test_equals_slow_loops(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    terms = Relational(2.0, 3.0, 0.5, 4.0)(student, teacher)
    x, t = student.pooled, teacher.pooled
    wanted = {
        "distance": 2 * slow_distance(x, t),
        "angle": 3 * slow_angle(x, t),
        "similarity": slow_similarity(x, t) / 2,
    }
    wanted["pooled"] = 4 * float((x - t).square().sum(1).mean())
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(wanted, rel=1e-4)


def test_a_rotation_of_all_students_changes_only_the_pooled_term(make_side):
    teacher = make_side(seed=1)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    terms = Relational(angle_weight=1.0, similarity_weight=1.0)(Embeddings(teacher.pooled @ rotation), teacher)
    for name in ("distance", "angle", "similarity"):
        assert terms[name].abs() < 1e-6, name
    assert terms["pooled"] > 0.5


def test_equal_texts_have_finite_gradients(make_side):
    teacher = Embeddings(make_side(seed=1).pooled[[0, 1, 1, 2]])
    student = make_side(seed=2).pooled[[0, 1, 1, 1]].requires_grad_()
    terms = Relational(angle_weight=1.0, similarity_weight=1.0)(Embeddings(student), teacher)
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("rows", [1, 2])
def test_small_batches(rows, make_side):
    teacher, student = (Embeddings(make_side(seed=seed).pooled[:rows].requires_grad_()) for seed in (1, 2))
    terms = Relational(angle_weight=1.0, similarity_weight=1.0)(student, teacher)
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values())
    assert student.pooled.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences(make_side):
    teacher, student = (make_side(batch=4, width=3, seed=seed, dtype=torch.float64) for seed in (1, 2))
    strategy = Relational(angle_weight=1.0, similarity_weight=1.0)
    loss = lambda pooled: sum(strategy(Embeddings(pooled), teacher).values())  # noqa: E731
    assert torch.autograd.gradcheck(loss, [student.pooled.requires_grad_()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance_weight": -1.0}, r"distance_weight is .*, expected at least 0"),
        ({"pooled_weight": math.nan}, r"pooled_weight is .*, expected at least 0"),
        ({"distance_weight": 0.0}, "are all 0: use strategy mse"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        Relational(**options)
