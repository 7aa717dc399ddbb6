from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import retrieval.index.search as module
from retrieval.index.search import score_all, search, search_tokens, to_run
from retrieval.index.tokens import TokenMatrix
from retrieval.metrics import evaluate_relevance, evaluate_run
from retrieval.relevance import IndexedQrels, relevance_of_rankings
from retrieval.trec import ranked_documents

WIDTH = 24


def random_ids(count, seed=0):
    """Ids whose order as strings is neither that of the documents nor that of the numbers in them."""
    return [f"d{i}" for i in np.random.default_rng(seed).permutation(count)]


def some_texts(count, longest, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, longest, WIDTH, generator=generator)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator)
    return tokens, torch.arange(longest) < lengths[:, None]


def brute_force(scores, ids, k):
    """Scores and indices by a plain sort of each row; scores (Q, N)."""
    rows = []
    for row in scores.float().tolist():
        ranked = sorted(range(len(ids)), key=lambda i: (row[i], ids[i]), reverse=True)
        rows.append(ranked[:k])
    indices = torch.tensor(rows)
    return scores.float().gather(1, indices), indices


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("k", [1, 7, 300])
def test_search_equals_brute_force(similarity, k):
    torch.manual_seed(k)
    queries, documents = torch.randn(9, WIDTH), torch.randn(200, WIDTH) * torch.rand(200, 1) * 5
    ids = random_ids(200)
    left, right = queries.double(), documents.double()
    if similarity == "cosine":
        left, right = nn.functional.normalize(left), nn.functional.normalize(right)
    expected_scores, expected = brute_force(left @ right.T, ids, k)
    scores, indices = search(queries, documents, k, ids, similarity=similarity)
    assert scores.dtype == torch.float32
    assert torch.equal(indices, expected)
    longest = float(left.norm(dim=1).max() * right.norm(dim=1).max())
    torch.testing.assert_close(scores, expected_scores, rtol=2e-7, atol=1e-7 * longest)


def test_maxsim_equals_a_loop():
    (queries, query_mask), (documents, document_mask) = some_texts(6, 5, seed=1), some_texts(40, 9, seed=2)
    expected = torch.zeros(6, 40, dtype=torch.float64)
    for q in range(6):
        for d in range(40):
            for token in queries[q][query_mask[q]].double():
                cosines = [
                    float(token @ other / token.norm() / other.norm())
                    for other in documents[d][document_mask[d]].double()
                ]
                expected[q, d] += max(cosines)
    ids = random_ids(40)
    expected_scores, expected_indices = brute_force(expected, ids, 40)
    scores, indices = search_tokens(
        TokenMatrix.from_padded(queries, query_mask), TokenMatrix.from_padded(documents, document_mask), 99, ids
    )
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-6)


def with_weights(tokens, seed=0):
    """The same tokens with weights that sum to one in each text; some count nothing."""
    weights = torch.rand(len(tokens.values), generator=torch.Generator().manual_seed(seed))
    parts = [part / part.sum() for part in (weights * (weights > 0.2) + 1e-3).split(tokens.lengths.tolist())]
    return TokenMatrix(tokens.values, tokens.offsets, torch.cat(parts))


def test_weighted_maxsim_equals_a_loop():
    queries = with_weights(TokenMatrix.from_padded(*some_texts(6, 5, seed=1)))
    documents = TokenMatrix.from_padded(*some_texts(40, 9, seed=2))
    expected = torch.zeros(6, 40, dtype=torch.float64)
    for q, d in itertools.product(range(6), range(40)):
        tokens, weights = (
            each[queries.offsets[q] : queries.offsets[q + 1]] for each in (queries.values, queries.weights)
        )
        others = documents.values[documents.offsets[d] : documents.offsets[d + 1]].double()
        for token, weight in zip(tokens.double(), weights.double(), strict=True):
            expected[q, d] += weight * max(float(token @ other / token.norm() / other.norm()) for other in others)
    ids = random_ids(40)
    expected_scores, expected_indices = brute_force(expected, ids, 40)
    scores, indices = search_tokens(queries, documents, 99, ids)
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=3e-7)
    part = torch.tensor([4, 1])
    torch.testing.assert_close(search_tokens(queries.select(part), documents, 99, ids)[0], scores[part])
    both = TokenMatrix.concatenate([queries.select(torch.tensor([i])) for i in range(6)])
    assert torch.equal(search_tokens(both, documents, 99, ids)[0], scores)


@pytest.mark.parametrize("memory_mb", [1, 256])
def test_all_scores_are_those_of_the_search(memory_mb):
    torch.manual_seed(0)
    queries, documents = torch.randn(30, WIDTH), torch.randn(2000, WIDTH)
    tokens, others = (TokenMatrix.from_padded(*some_texts(count, 5, seed=1)) for count in (30, 300))
    for score_of, found, ids in (
        (score_all(queries, documents.split(700), memory_mb), search(queries, documents, 9, random_ids(2000)), 2000),
        (
            score_all(with_weights(tokens), [others], memory_mb),
            search_tokens(with_weights(tokens), others, 9, random_ids(300)),
            300,
        ),
    ):
        assert score_of.shape == (30, ids)
        assert torch.equal(score_of.gather(1, found[1]), found[0])
        assert torch.equal(score_of.topk(9).values, found[0])


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_search_is_the_same_for_all_blocks_bit_for_bit(monkeypatch, similarity):
    torch.manual_seed(0)
    # Copies of documents, and small integers, so that there are ties inside and between blocks.
    base = torch.cat([torch.randn(40, 96), torch.randint(-1, 2, (40, 96)).float(), torch.zeros(1, 96)])
    documents = base[torch.randint(len(base), (150,))]
    queries = torch.cat([torch.randn(20, 96), torch.randint(-1, 2, (20, 96)).float(), torch.zeros(1, 96)])
    ids = random_ids(150)
    for k in (1, 100):
        whole = search(queries, documents, k, ids, similarity=similarity)
        for query_rows, document_rows in [(41, 7), (1, 150), (7, 13), (40, 149)]:
            with monkeypatch.context() as patch:
                patch.setattr("retrieval.index.search._block_rows", lambda *_: (query_rows, document_rows))  # noqa: B023
                scores, indices = search(queries, documents, k, ids, similarity=similarity)
            assert torch.equal(scores, whole[0]), (k, query_rows, document_rows)
            assert torch.equal(indices, whole[1]), (k, query_rows, document_rows)


@pytest.mark.parametrize("weighted", [False, True])
def test_token_search_is_the_same_for_all_blocks_bit_for_bit(monkeypatch, weighted):
    # Short texts of tokens of -1, 0, 1: many cosines are 0, and come out as 1e-17 where the sums are not exact.
    generator = torch.Generator().manual_seed(0)
    queries, documents = (torch.randint(-1, 2, (n, 3, 96), generator=generator).float() for n in (60, 60))
    query_mask, document_mask = (torch.arange(3) < torch.randint(1, 4, (60, 1), generator=generator) for _ in range(2))
    copies = torch.randint(60, (150,), generator=generator)
    query_tokens = TokenMatrix.from_padded(queries, query_mask)
    if weighted:
        query_tokens = with_weights(query_tokens)
    document_tokens = TokenMatrix.from_padded(documents[copies], document_mask[copies])
    ids = random_ids(150)
    whole = search_tokens(query_tokens, document_tokens, 150, ids)
    assert (whole[0][:, 1:] == whole[0][:, :-1]).any(), "the case should have ties"
    original = module._text_blocks
    for limit in (10, 37, 200):
        with monkeypatch.context() as patch:
            patch.setattr(
                "retrieval.index.search._text_blocks",
                lambda lengths, _: original(lengths, limit),  # noqa: B023
            )
            scores, indices = search_tokens(query_tokens, document_tokens, 150, ids)
        assert torch.equal(scores, whole[0]), limit
        assert torch.equal(indices, whole[1]), limit


def test_small_memory_cuts_blocks_and_changes_nothing():
    torch.manual_seed(0)
    queries, documents, ids = torch.randn(500, WIDTH), torch.randn(1000, WIDTH), random_ids(1000)
    small, large = (search(queries, documents, 10, ids, memory_mb=memory) for memory in (1, 256))
    assert torch.equal(small[0], large[0])
    assert torch.equal(small[1], large[1])


def test_copies_are_ranked_by_descending_id_wherever_they_stand():
    torch.manual_seed(1)
    documents = torch.randn(1, 384).expand(50, -1)
    ids = random_ids(50)
    _, indices = search(torch.randn(3, 384), documents, 20, ids)
    for row in indices.tolist():
        assert [ids[i] for i in row] == sorted(ids, reverse=True)[:20]


def test_order_of_ties_is_that_of_the_metrics():
    torch.manual_seed(2)
    documents = torch.randint(-1, 2, (60, 4)).float()
    queries = torch.randint(-1, 2, (30, 4)).float()
    ids, names = random_ids(60), [f"q{i}" for i in range(30)]
    scores, indices = search(queries, documents, 60, ids, similarity="dot")
    run = to_run(scores, indices, names, ids)
    assert all([ids[i] for i in row] == ranked_documents(run[name]) for name, row in zip(names, indices, strict=True))

    rng = np.random.default_rng(0)
    qrels = {name: {ids[i]: 1 for i in rng.integers(60, size=3)} for name in names}
    metrics = ["map", "ndcg@10", "mrr", "recall@5", "precision@5"]
    by_run = evaluate_run(run, qrels, metrics)
    relevance = relevance_of_rankings(IndexedQrels.of(qrels, names, ids), indices)
    assert evaluate_relevance(relevance, names, metrics) == by_run


def test_half_precision_and_autocast_do_not_lower_the_precision():
    torch.manual_seed(3)
    queries, documents, ids = torch.randn(5, WIDTH).bfloat16(), torch.randn(30, WIDTH).bfloat16(), random_ids(30)
    expected = search(queries.float(), documents.float(), 30, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, indices = search(queries, documents, 30, ids)
    assert torch.equal(scores, expected[0])
    assert torch.equal(indices, expected[1])


def test_a_long_search_shows_a_bar_on_stderr(monkeypatch, capfd):
    monkeypatch.setattr("foundations.progress.time.monotonic", iter(range(0, 10**6, 60)).__next__)
    search(torch.randn(3, WIDTH), torch.randn(9, WIDTH), 2, random_ids(9))
    assert capfd.readouterr() == ("", "search: 100%, 60 s so far\n"), "a line where stderr is no terminal"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    search(torch.randn(3, WIDTH), torch.randn(9, WIDTH), 2, random_ids(9), progress=False)
    assert capfd.readouterr() == ("", "")
    search(torch.randn(3, WIDTH), torch.randn(9, WIDTH), 2, random_ids(9))
    out, err = capfd.readouterr()
    assert out == ""
    assert "search" in err


def test_wrong_input():
    queries, documents, ids = torch.randn(2, WIDTH), torch.randn(3, WIDTH), ["a", "b", "c"]
    with pytest.raises(ValueError, match="of the same width"):
        search(queries, documents[:, 1:], 1, ids)
    with pytest.raises(ValueError, match="2 document ids for 3 documents"):
        search(queries, documents, 1, ids[:2])
    with pytest.raises(ValueError, match="document id 'a' appears twice"):
        search(queries, documents, 1, ["a", "b", "a"])
    with pytest.raises(ValueError, match="k is 0"):
        search(queries, documents, 0, ids)
    with pytest.raises(ValueError, match="similarity is 'l2', expected one of cosine, dot"):
        search(queries, documents, 1, ids, similarity="l2")
    documents[1, 3] = float("nan")
    with pytest.raises(ValueError, match="the vector of document 1 is not finite"):
        search(queries, documents, 1, ids)


def test_token_matrix():
    tokens, mask = some_texts(7, 4, seed=0)
    mask[2] = torch.tensor([False, True, False, True])  # real tokens need not come first
    matrix = TokenMatrix.from_padded(tokens, mask)
    parts = [TokenMatrix.from_padded(tokens[some], mask[some]) for some in (slice(0, 3), slice(3, 7))]
    joined = TokenMatrix.concatenate(parts)
    assert torch.equal(joined.values, matrix.values)
    assert torch.equal(joined.offsets, matrix.offsets)
    chosen = matrix.select(torch.tensor([5, 2, 2]))
    weights = torch.rand(mask.shape)
    assert torch.equal(TokenMatrix.from_padded(tokens, mask, weights).weights, weights[mask])
    assert torch.equal(chosen.values, torch.cat([tokens[i][mask[i]] for i in (5, 2, 2)]))
    assert chosen.lengths.tolist() == [int(mask[i].sum()) for i in (5, 2, 2)]
    mask[4] = False
    with pytest.raises(ValueError, match="text 4 has no token"):
        TokenMatrix.from_padded(tokens, mask)
    with pytest.raises(ValueError, match="expected \\(N, T, D\\) and \\(N, T\\)"):
        TokenMatrix.from_padded(tokens, mask[:, 1:])
    with pytest.raises(ValueError, match=r"\(1,\) weights for 4 tokens"):
        TokenMatrix(tokens[0], torch.tensor([0, 4]), torch.ones(1))
    with pytest.raises(ValueError, match="from 0 to the number of tokens"):
        TokenMatrix(tokens[0], torch.tensor([0, 3]))
