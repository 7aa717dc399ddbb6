"""kl, margin_mse, cosine, and contrastive over lists, each against a slow loop."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from strategies.base import Embeddings, ListEmbeddings
from strategies.contrastive import Contrastive
from strategies.cosine import Cosine
from strategies.functional import all_scores, list_scores
from strategies.kl import KL
from strategies.margin_mse import MarginMSE
from strategies.mse import MSE
from strategies.weighted_sum import WeightedSum

SCORES = ["pooled", "maxsim"]


def slow_score(query, passage, score):
    """Of two texts, each (pooled, real tokens)."""
    if score == "pooled":
        return query[0] @ passage[0]
    return torch.stack([max(F.cosine_similarity(q, p, dim=0) for p in passage[1]) for q in query[1]]).mean()


def texts_of(side):
    return [(pooled, tokens[mask]) for pooled, tokens, mask in zip(side.pooled, side.tokens, side.mask, strict=True)]


def lists_of(side):
    rows = zip(side.candidates.pooled, side.candidates.tokens, side.candidates.mask, side.listed, strict=True)
    return [[(p[j], t[j][m[j]]) for j in range(len(listed)) if listed[j]] for p, t, m, listed in rows]


def slow_kl(teacher_scores, student_scores):
    p, q = (torch.tensor([float(x) for x in scores]).softmax(0) for scores in (teacher_scores, student_scores))
    return sum(p[j] * math.log(p[j] / q[j]) for j in range(len(p)))


def close(found, wanted):
    assert found.item() == pytest.approx(float(wanted), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_scores_equal_a_slow_loop(score, make_lists):
    student, teacher = make_lists(seed=1), make_lists(seed=2, length=4)
    found = all_scores(student, teacher, score)
    ours, theirs = texts_of(student), texts_of(teacher)
    torch.testing.assert_close(
        found, torch.stack([torch.stack([slow_score(q, p, score) for p in theirs]) for q in ours])
    )
    listed = list_scores(student, teacher.candidates, score)
    for row, (query, passages) in enumerate(zip(ours, lists_of(teacher), strict=True)):
        for column, passage in enumerate(passages):
            close(listed[row, column], slow_score(query, passage, score))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("ids", [None, torch.tensor([4, 4, 1, 2, 4, 2])])
def test_kl_equals_a_slow_loop(score, ids, make_lists):
    teacher, student = make_lists(seed=1, length=4), dataclasses.replace(make_lists(seed=2), ids=ids)
    terms = KL(temperature=0.2, score=score)(student, teacher)
    sources, targets = texts_of(teacher), texts_of(student)
    labels, batch, listed = range(6) if ids is None else ids.tolist(), 0.0, 0.0
    for i in range(6):
        columns = [j for j in range(6) if j == i or labels[j] != labels[i]]
        rows = ([slow_score(side[i], sources[j], score) / 0.2 for j in columns] for side in (sources, targets))
        batch += slow_kl(*rows) / 6
        if len(lists_of(teacher)[i]) > 1:
            sides = ((sources, lists_of(teacher)), (targets, lists_of(student)))
            listed += slow_kl(*([slow_score(s[i], p, score) / 0.2 for p in lists[i]] for s, lists in sides)) / 6
    close(terms["kl"], batch)
    close(terms["kl_listed"], listed)


def test_kl_is_zero_for_a_perfect_student_and_its_parts_can_be_chosen(make_lists):
    teacher, student = make_lists(seed=1), make_lists(seed=2)
    assert all(abs(value) < 1e-6 for name, value in KL()(teacher, teacher).items() if name.startswith("kl"))
    both = KL()(student, teacher)
    plain = Embeddings(student.pooled), Embeddings(teacher.pooled)
    assert (
        KL()(*plain)
        == KL(passages="batch")(student, teacher)
        == {name: both[name] for name in both if name != "kl_listed"}
    )
    assert KL(passages="listed")(student, teacher) == {"kl_listed": both["kl_listed"]}


def test_kl_of_a_low_temperature_is_contrastive(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    kl = KL(temperature=0.01)(student, teacher)
    assert kl["info/teacher_entropy"] < 1e-3
    close(kl["kl"], Contrastive(temperature=0.01)(student, teacher)["contrastive"])


def with_scores(teacher, scores):
    return dataclasses.replace(teacher, scores=scores)


@pytest.mark.parametrize("score", SCORES)
def test_given_scores_that_equal_the_computed_ones_change_nothing(score, make_lists):
    teacher, student = make_lists(seed=1), make_lists(seed=2)
    computed = list_scores(teacher, teacher.candidates, score).masked_fill(~teacher.listed, math.nan)
    given = with_scores(teacher, computed * 7)
    for one, other in (
        (KL(0.1, score=score, passages="listed"), KL(0.1, given_temperature=0.7, score=score, passages="listed")),
        (MarginMSE(score=score), MarginMSE(score=score, given_scale=1 / 7)),
    ):
        name = "kl_listed" if isinstance(one, KL) else "margin_mse"
        close(other(student, given)[name], one(student, teacher)[name])
        assert not torch.isclose(one(student, given)[name], one(student, teacher)[name])


def test_given_scores_count_for_lists_that_have_all_of_them(make_lists):
    teacher, student = make_lists(seed=1), make_lists(seed=2)
    scores = torch.rand(teacher.listed.shape) * 5
    mixed = scores.clone()
    mixed[0, 1] = math.nan
    wanted = list_scores(teacher, teacher.candidates, "pooled")
    wanted[1:] = scores[1:] * 0.05
    found = MarginMSE()(student, with_scores(teacher, mixed))["margin_mse"]
    close(found, MarginMSE(given_scale=1.0)(student, with_scores(teacher, wanted))["margin_mse"])


@pytest.mark.parametrize("score", SCORES)
def test_margin_mse_equals_a_slow_loop(score, make_lists):
    teacher, student = make_lists(seed=1), make_lists(seed=2)
    loss = agree = count = 0
    for i in range(6):
        pairs = zip(*(lists_of(side)[i] for side in (student, teacher)), strict=True)
        rows = [
            [
                slow_score(texts_of(side)[i], passage, score)
                for side, passage in zip((student, teacher), pair, strict=True)
            ]
            for pair in pairs
        ]
        margins = [(rows[0][0] - ours, rows[0][1] - theirs) for ours, theirs in rows[1:]]
        loss += sum((ours - theirs) ** 2 for ours, theirs in margins) / max(1, len(margins)) / 6
        agree += sum(bool(ours > 0) == bool(theirs > 0) for ours, theirs in margins)
        count += len(margins)
    terms = MarginMSE(score=score)(student, teacher)
    close(terms["margin_mse"], loss)
    close(terms["info/margin_agreement"], agree / count)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("build", [KL, MarginMSE, partial(Contrastive, learnable=True)])
def test_what_is_not_listed_counts_for_nothing(build, score, make_lists):
    strategy, teacher, results = build(score=score), make_lists(seed=1), []
    for garbage in (0.0, 1e4):
        student = make_lists(seed=2)
        off = ~student.listed
        pooled = student.candidates.pooled.masked_fill(off[..., None], garbage).requires_grad_()
        tokens = student.candidates.tokens.masked_fill(off[..., None, None], garbage)
        mask = student.candidates.mask & ~off[..., None]
        candidates = dataclasses.replace(student.candidates, pooled=pooled, tokens=tokens.requires_grad_(), mask=mask)
        student.pooled.requires_grad_()
        student.tokens.requires_grad_()
        terms = strategy(dataclasses.replace(student, candidates=candidates), teacher)
        loss = sum(value for name, value in terms.items() if not name.startswith("info"))
        inputs = [student.pooled, student.tokens, pooled, candidates.tokens, *strategy.parameters()]
        results.append((loss, *torch.autograd.grad(loss, inputs, allow_unused=True)))
    for one, other in zip(*results, strict=True):
        assert one is other is None or (one.isfinite().all() and torch.equal(one, other))


def test_gradients_are_those_of_finite_differences(make_lists):
    teacher, student = (make_lists(seed=seed, batch=3, length=3, width=3, dtype=torch.float64) for seed in (1, 2))
    for strategy in (KL(0.5), KL(0.5, score="maxsim"), MarginMSE(), Contrastive(0.5)):

        def loss(pooled, tokens, passages, strategy=strategy):
            candidates = dataclasses.replace(student.candidates, pooled=passages)
            side = dataclasses.replace(student, pooled=pooled, tokens=tokens, candidates=candidates)
            return sum(value for name, value in strategy(side, teacher).items() if not name.startswith("info"))

        inputs = [x.detach().requires_grad_() for x in (student.pooled, student.tokens, student.candidates.pooled)]
        assert torch.autograd.gradcheck(loss, inputs)


def slow_listed_contrastive(student, teacher, temperature, ranked):
    """Every query's choices as a dictionary: the same text is there once for each place where it stands."""
    passages = [
        (int(side_id), vector, row)
        for row in range(6)
        for side_id, vector, listed in zip(
            student.candidates.ids[row], student.candidates.pooled[row], student.listed[row], strict=True
        )
        if listed
    ]
    firsts = {row: next(p for p in passages if p[2] == row) for row in {p[2] for p in passages}}
    source_losses, listed_losses = [], []
    for i, query in enumerate(student.pooled):
        relevant = firsts[i][0] if ranked and i in firsts else None
        keys = student.keys.tolist()
        own = query @ teacher.pooled[i] / temperature
        negatives = [
            query @ teacher.pooled[j] / temperature for j in range(6) if j != i and keys[j] not in (keys[i], relevant)
        ]
        negatives += [query @ v / temperature for id_, v, _ in passages if id_ not in (keys[i], relevant)]
        source_losses.append(torch.logsumexp(torch.stack([own, *negatives]), 0) - own)
        if relevant is not None:
            positive = query @ firsts[i][1] / temperature
            listed_losses.append(torch.logsumexp(torch.stack([positive, *negatives]), 0) - positive)
    return sum(source_losses) / 6, sum(listed_losses) / 6


@pytest.mark.parametrize("ranked", [True, False])
def test_contrastive_over_lists_equals_a_slow_loop(ranked, make_lists):
    teacher, student = make_lists(seed=1), make_lists(seed=2)
    ids = student.candidates.ids.clone()
    ids[4, 1] = ids[0, 0]  # what is relevant for pair 0 is listed for pair 4 too
    ids[5, 0] = 3  # the source of pair 3 is listed for pair 5
    ids[3, 0] = 3  # and is relevant for pair 3 itself
    student = dataclasses.replace(
        student, ids=torch.arange(6), candidates=dataclasses.replace(student.candidates, ids=ids)
    )
    terms = Contrastive(0.2, listed="ranked" if ranked else "negatives")(student, teacher)
    wanted = slow_listed_contrastive(student, teacher, 0.2, ranked)
    close(terms["contrastive"], wanted[0])
    assert ("contrastive_listed" in terms) == ranked
    if ranked:
        close(terms["contrastive_listed"], wanted[1])
    off = Contrastive(0.2, listed="off")
    assert not off.uses_candidates
    assert off(student, teacher) == Contrastive(0.2)(*(Embeddings(side.pooled) for side in (student, teacher)))


def test_candidates_need_ids_to_be_negatives(make_lists):
    side = make_lists()
    nameless = dataclasses.replace(side, candidates=dataclasses.replace(side.candidates, ids=None))
    with pytest.raises(ValueError, match="candidates need ids"):
        Contrastive()(nameless, nameless)


def test_cosine_is_half_of_mse_for_unit_vectors(make_side):
    teacher, student = make_side(seed=1), make_side(seed=2)
    losses = []
    for strategy, name in ((Cosine(), "cosine"), (MSE(), "pooled")):
        raw = student.pooled.clone().requires_grad_()
        loss = strategy(Embeddings(F.normalize(raw, dim=1)), teacher)[name]
        losses.append((loss, *torch.autograd.grad(loss, raw)))
    torch.testing.assert_close(2 * losses[0][0], losses[1][0])
    torch.testing.assert_close(2 * losses[0][1], losses[1][1])
    close(Cosine()(Embeddings(3 * student.pooled), teacher)["cosine"], losses[0][0])  # any length


def test_a_mixture_needs_and_uses_what_its_parts_do(make_lists):
    assert WeightedSum({"a": MSE(), "b": MarginMSE()}).needs_candidates
    mixture = WeightedSum({"a": MSE(), "b": KL()})
    assert (mixture.needs_candidates, mixture.uses_candidates, mixture.uses_scores) == (False, True, True)
    assert not WeightedSum({"a": MSE()}).uses_candidates
    terms = mixture(make_lists(seed=2), make_lists(seed=1))
    assert {"b/kl", "b/kl_listed"} < terms.keys()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KL(temperature=0.0), r"temperature is .*, expected a number above 0"),
        (lambda: KL(given_temperature=-1.0), r"given_temperature is .*, expected a number above 0"),
        (lambda: KL(score="maxsum"), "did you mean 'maxsim'"),
        (lambda: KL(passages="lists"), "did you mean 'listed'"),
        (lambda: MarginMSE(given_scale=0.0), r"given_scale is .*, expected a number above 0"),
        (lambda: MarginMSE(score="max"), "score is 'max', expected one of"),
        (lambda: Contrastive(listed="rank"), "did you mean 'ranked'"),
    ],
)
def test_wrong_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_lists_without_candidates_are_refused():
    side = ListEmbeddings(torch.eye(2))
    with pytest.raises(ValueError, match="needs candidate passages"):
        side.require_candidates()
