from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from strategies.contrastive import Contrastive
from strategies.functional import maxsim, unit_tokens


def slow_maxsim(queries, documents):
    """Token by token, of one text with another, padding cut off."""
    table = []
    for query, query_mask in zip(queries.tokens, queries.mask, strict=True):
        row = []
        for document, mask in zip(documents.tokens, documents.mask, strict=True):
            best = [max(torch.cosine_similarity(q, d, dim=0) for d in document[mask]) for q in query[query_mask]]
            row.append(sum(best) / len(best))
        table.append(torch.stack(row))
    return torch.stack(table)


def inputs(queries, documents):
    return unit_tokens(queries), queries.mask, unit_tokens(documents), documents.mask


def test_equals_a_slow_loop(make_side):
    queries, documents = make_side(4, length=3, seed=1), make_side(5, length=6, seed=2)
    torch.testing.assert_close(maxsim(*inputs(queries, documents)), slow_maxsim(queries, documents))


def test_padding_counts_for_nothing(make_side):
    queries, documents = make_side(seed=1), make_side(seed=2)
    wanted = maxsim(*inputs(queries, documents))
    for side in (queries, documents):
        side.tokens[~side.mask] = torch.nan
    assert torch.equal(maxsim(*inputs(queries, documents)), wanted)
    # All real cosines are below those of padding as a zero vector here.
    negative = torch.full((1, 2, 1), -1.0)
    mask = torch.tensor([[True, False]])
    assert maxsim(-negative, mask, negative * mask[..., None], mask).item() == -1


def test_blocks_give_the_same_scores_and_gradients_in_less_memory(make_side):
    queries, documents = make_side(16, length=12, width=4, seed=1), make_side(17, length=12, width=4, seed=2)
    weights = torch.randn(16, 17, generator=torch.Generator().manual_seed(0))
    found, sizes = [], []
    for memory_mb in (256, 0.01):
        tokens = [side.tokens.clone().requires_grad_() for side in (queries, documents)]
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x) or x, lambda x: x):
            unit = [torch.nn.functional.normalize(token, dim=-1) for token in tokens]
            scores = maxsim(unit[0], queries.mask, unit[1], documents.mask, memory_mb)
        sizes.append(sum(x.numel() for x in kept))
        found.append((scores, *torch.autograd.grad((scores * weights).sum(), tokens)))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("query", ["target", "source"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_side_that_asks(make_side, query, symmetric):
    student, teacher = make_side(length=3, seed=1), make_side(length=6, seed=2)
    asking, asked = (student, teacher) if query == "target" else (teacher, student)
    for score, table in (("maxsim", slow_maxsim(asking, asked)), ("pooled", asking.pooled @ asked.pooled.T)):
        logits = table / 0.1
        wanted = -logits.log_softmax(1).diagonal().mean()
        if symmetric:
            wanted = (wanted - logits.log_softmax(0).diagonal().mean()) / 2
        strategy = Contrastive(temperature=0.1, symmetric=symmetric, score=score, query=query)
        torch.testing.assert_close(strategy(student, teacher)["contrastive"], wanted)
        assert strategy.needs_tokens == (score == "maxsim")


def weighted_maxsim(queries, documents, kind):
    """The weighted mean, token by token, from the states as they are."""
    table = []
    for states, query_mask, idf in zip(queries.tokens, queries.mask, queries.weights, strict=True):
        weights = states[query_mask].norm(dim=1) if kind == "norm" else idf[query_mask]
        row = []
        for document, mask in zip(documents.tokens, documents.mask, strict=True):
            best = [max(torch.cosine_similarity(q, d, dim=0) for d in document[mask]) for q in states[query_mask]]
            row.append((weights * torch.stack(best)).sum() / weights.sum())
        table.append(torch.stack(row))
    return torch.stack(table)


@pytest.mark.parametrize("kind", ["norm", "idf"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_tokens_of_the_query_that_weigh_differently(make_side, kind, symmetric):
    student, teacher = (
        replace(side, tokens=side.tokens.requires_grad_(), weights=torch.rand(side.mask.shape) + 0.1)
        for side in (make_side(length=3, seed=1), make_side(length=6, seed=2))
    )
    logits = weighted_maxsim(student, teacher, kind) / 0.1
    wanted = -logits.log_softmax(1).diagonal().mean()
    if symmetric:
        wanted = (wanted - logits.log_softmax(0).diagonal().mean()) / 2
    strategy = Contrastive(temperature=0.1, symmetric=symmetric, score="maxsim", token_weights=kind)
    loss = strategy(student, teacher)["contrastive"]
    torch.testing.assert_close(loss, wanted)
    for found, expected in zip(*(torch.autograd.grad(each, student.tokens) for each in (loss, wanted)), strict=True):
        torch.testing.assert_close(found, expected)
    assert strategy.needs_weights == (kind == "idf")


def test_half_precision_is_not_used_under_autocast(make_side):
    student, teacher = make_side(seed=1), make_side(seed=2)
    strategy = Contrastive(score="maxsim")
    wanted = strategy(student, teacher)["contrastive"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(strategy(student, teacher)["contrastive"], wanted)


def test_wrong_options():
    with pytest.raises(ValueError, match="score is 'maxsum', expected one of pooled, maxsim, did you mean 'maxsim'"):
        Contrastive(score="maxsum")
    with pytest.raises(ValueError, match=r"query is .*, expected one of target, source"):
        Contrastive(query="document")
    with pytest.raises(ValueError, match="token_weights is 'norm', expected one of uniform"):
        Contrastive(token_weights="norm")
