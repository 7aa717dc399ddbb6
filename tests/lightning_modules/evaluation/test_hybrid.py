"""The hybrid score and the weights of query tokens, in evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import zscore

from foundations.errors import InputError
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation import hybrid as hybrids
from lightning_modules.evaluation.callback import RetrievalEvaluation
from lightning_modules.evaluation.encoding import EncodedTexts, StudentEncoder, encode
from lightning_modules.evaluation.hybrid import GRID, Hybrid, try_weights
from lightning_modules.students.transformer import TransformerEncoder
from lightning_modules.teachers.online import OnlineTeacher
from retrieval.collection import Collection
from retrieval.index.bm25 import BM25
from retrieval.metrics import evaluate_run, mean_over_queries
from strategies.mse import MSE

QUERIES = {"q1": "cat paka", "q2": "maji ni water", "q3": "jua kubwa", "q4": "my rafiki my friend"}
DOCUMENTS = {f"d{i}": text for i, text in enumerate(["the cat", "water", "the big red sun", "my friend", "good cat"])}
QRELS = {"q1": {"d0": 1}, "q2": {"d1": 2, "d4": 1}, "q3": {"d2": 1}, "q4": {"d3": 0, "d0": 1}}
TEST = Collection("test", QUERIES, DOCUMENTS, QRELS)
WEIGHTS = {"pooled": 0.7, "maxsim": 0.4, "bm25": 0.2}


@pytest.fixture
def module(tiny_bert, tiny_unigram) -> DistillationModule:
    student = TransformerEncoder(tiny_unigram, max_length=32)
    module = DistillationModule(student, OnlineTeacher(tiny_bert, max_length=32), MSE(), score="maxsim").eval()
    module.student.fit_idf([*QUERIES.values(), "ni", "ni jua"])
    module.teacher.fit_idf([*DOCUMENTS.values(), "cat", "cat"])
    return module


def token_scores(module, kind: str) -> dict[str, dict[str, float]]:
    """Weighted MaxSim of the student's queries with the teacher's documents, by loops."""
    scores: dict[str, dict[str, float]] = {}
    for query, text in QUERIES.items():
        with torch.no_grad():
            asking = module([text], tokens=True)
        states, idf = asking.tokens[0][asking.mask[0]], asking.weights[0][asking.mask[0]]
        weights = {"uniform": torch.full_like(idf, 1 / len(idf)), "norm": states.norm(dim=1), "idf": idf}[kind]
        scores[query] = {}
        for document, other in DOCUMENTS.items():
            found = module.teacher.encode([other], tokens=True)
            tokens = found.tokens[0][found.mask[0]]
            best = [max(float(torch.cosine_similarity(q, d, dim=0)) for d in tokens) for q in states]
            scores[query][document] = float(weights @ torch.tensor(best) / weights.sum())
    return scores


@pytest.mark.parametrize("kind", ["uniform", "norm", "idf"])
def test_tokens_of_queries_count_by_their_weight(module, evaluate, kind):
    callback = RetrievalEvaluation(["map"], token_weights=kind)
    evaluate(callback, module, TEST)
    found = callback.results["test"].runs["maxsim"]
    for query, scores in token_scores(module, kind).items():
        count = 1
        if kind == "uniform":  # the sum, as ColBERT has it
            count = int(module([QUERIES[query]], tokens=True).mask.sum())
        assert found[query] == pytest.approx({name: score * count for name, score in scores.items()}, abs=2e-3)
    assert callback.results["undistilled"].runs["maxsim"] != found


def test_hybrid_is_the_sum_of_standardised_scores_over_all_documents(module, evaluate, tmp_path):
    callback = RetrievalEvaluation(["map"], k=3)
    callback.large.folder = tmp_path
    (tmp_path / "hybrid.json").write_text(
        '{"weights": {"pooled": 0.7, "maxsim": 0.4, "bm25": 0.2}, "token_weights": "idf"}'
    )
    module.score = "hybrid"
    evaluate(callback, module, TEST)
    tokens, lexical = token_scores(module, "idf"), BM25(DOCUMENTS).search(QUERIES, 99)
    result = callback.results["test"]
    assert list(result.runs) == ["hybrid"]
    full: dict[str, dict[str, float]] = {}
    for query, text in QUERIES.items():
        with torch.no_grad():
            pooled = [
                float(module([text]).pooled @ module.teacher.encode([each]).pooled.T) for each in DOCUMENTS.values()
            ]
        words = [lexical.get(query, {}).get(name, 0.0) for name in DOCUMENTS]
        parts = zip(WEIGHTS.values(), (pooled, list(tokens[query].values()), words), strict=True)
        total = sum(weight * np.nan_to_num(zscore(np.array(each))) for weight, each in parts)
        full[query] = dict(zip(DOCUMENTS, total.tolist(), strict=True))
        best = sorted(DOCUMENTS, key=full[query].__getitem__, reverse=True)[:3]
        assert result.runs["hybrid"][query] == pytest.approx({name: full[query][name] for name in best}, abs=1e-2)
    assert not np.allclose(zscore(words), 0), "BM25 should say something"
    first = {query: dict(sorted(scores.items(), key=lambda item: -item[1])[:3]) for query, scores in full.items()}
    assert result.per_query == evaluate_run(first, QRELS, ["map"])


def test_hybrid_does_not_depend_on_the_blocks(module, monkeypatch):
    engine = BM25(dict(reversed(DOCUMENTS.items())))  # in another order than the vectors
    queries = encode(StudentEncoder(module), QUERIES, "queries", tokens=True, token_weights="norm")
    documents = encode(module.teacher, DOCUMENTS, "documents", tokens=True)
    whole = Hybrid(engine, QUERIES).search(queries, documents, 4)
    for cells in (5, 10, 15):
        monkeypatch.setattr(hybrids, "_CELLS", cells)
        scores, indices = Hybrid(engine, QUERIES).search(queries, documents, 4)
        assert torch.equal(scores, whole[0])
        assert torch.equal(indices, whole[1])
    pooled = Hybrid(engine, QUERIES, {"pooled": 1.0}).search(queries, documents, 5)[1]
    assert torch.equal(pooled, (queries.pooled @ documents.pooled.T).argsort(descending=True))
    plain = [EncodedTexts(each.ids, each.pooled, None) for each in (queries, documents)]
    alone = Hybrid(engine, QUERIES, {"pooled": 1.0, "bm25": 0.15}).search(queries, documents, 4)
    assert torch.equal(Hybrid(engine, QUERIES).search(*plain, 4)[0], alone[0]), "no tokens, no MaxSim"


def test_weights_are_chosen_by_the_mean_of_the_collections(module, evaluate, tmp_path):
    second = Collection("dev/so", {"q": "the water"}, DOCUMENTS, {"q": {"d4": 1}})
    first = Collection("dev/sw", QUERIES, DOCUMENTS, QRELS)
    trials = try_weights(module, [first, second], "map", 10, "norm")
    assert [weights for weights, _ in trials] != GRID
    assert sorted(map(str, (weights for weights, _ in trials))) == sorted(map(str, GRID))
    values = [value for _, value in trials]
    assert values == sorted(values, reverse=True)
    module.score = "hybrid"
    for weights, value in (trials[0], trials[-1]):
        callback = RetrievalEvaluation(["map"], token_weights="norm")
        callback.large.folder = tmp_path
        content = f'{{"weights": {weights}, "token_weights": "norm"}}'.replace("'", '"')
        (tmp_path / "hybrid.json").write_text(content)
        logged = evaluate(callback, module, first, second, test=False)
        assert logged["dev/map"] == pytest.approx(value, abs=1e-6)
    expected = mean_over_queries(callback.results["dev/so"].per_query)["map"]
    assert logged["dev/so/map"] == pytest.approx(expected)


def test_what_cannot_be_scored_is_refused(module, evaluate, tmp_path):
    module.score = "hybrid"
    images = Collection("test", QUERIES, {"d0": "image:///nowhere.png"}, {"q1": {"d0": 1}})
    with pytest.raises(InputError, match="score is hybrid, but the collection 'test' has images"):
        RetrievalEvaluation().check({"test": images}, "hybrid")
    with pytest.raises(InputError, match=r"has 5 documents, and score hybrid needs all of them.*shard_texts above 4"):
        RetrievalEvaluation(shard_texts=4).check({"test": TEST}, "hybrid")
    RetrievalEvaluation(shard_texts=4).check({"test": TEST})
    with pytest.raises(ValueError, match="token_weights is 'tfidf', expected one of uniform, norm, idf"):
        RetrievalEvaluation(token_weights="tfidf")
    (tmp_path / "hybrid.json").write_text('{"weights": {"pooled": 1}, "token_weights": "norm"}')
    callback = RetrievalEvaluation()
    callback.large.folder = tmp_path
    with pytest.raises(InputError, match=r"hybrid\.json: expected weights and token_weights"):
        evaluate(callback, module, TEST)


def test_weights_that_nobody_counted(module, evaluate):
    module.student.idf = torch.empty(0)
    with pytest.raises(InputError, match="token_weights is idf, but the checkpoint holds no IDF"):
        evaluate(RetrievalEvaluation(token_weights="idf"), module, TEST)


def test_rows_of_bm25_and_of_both(module, evaluate):
    english = Collection("english", dict.fromkeys(QUERIES, "the cat"), DOCUMENTS, QRELS, "teacher")
    module.score = "pooled"
    callback = RetrievalEvaluation(["map", "success@1", "median_rank"], k=4)
    evaluate(callback, module, TEST, english)
    results = callback.results
    assert set(results) == {"test", "undistilled", "teacher", "bm25", "hybrid", "bm25_english"}
    for row, texts in (("bm25", QUERIES), ("bm25_english", english.queries)):
        run = BM25(DOCUMENTS).search(texts, 4)
        assert results[row].runs == {row: run}
        assert results[row].per_query == evaluate_run(run, QRELS, ["map", "success@1"])
    queries = encode(StudentEncoder(module), QUERIES, "queries", tokens=False)
    documents = encode(module.teacher, DOCUMENTS, "documents", tokens=False)
    cosines = (queries.pooled @ documents.pooled.T).double().numpy()
    words = BM25(DOCUMENTS).score_all([QUERIES[name] for name in queries.ids]).double().numpy()
    total = zscore(cosines, axis=1) + 0.15 * np.nan_to_num(zscore(words, axis=1))
    for row, name in enumerate(queries.ids):
        best = np.argsort(-total[row])[:4]
        expected = {documents.ids[i]: total[row][i] for i in best}
        assert results["hybrid"].runs["hybrid"][name] == pytest.approx(expected, abs=1e-4)
    found = results["hybrid"].runs["hybrid"]
    assert results["hybrid"].per_query == evaluate_run(found, QRELS, ["map", "success@1"])


def test_where_there_are_no_rows_of_bm25(module, evaluate):
    module.score = "pooled"
    silent = [RetrievalEvaluation(["map"], bm25=False), RetrievalEvaluation(["median_rank"])]
    for callback in silent:
        evaluate(callback, module, TEST)
        assert set(callback.results) == {"test", "undistilled"}
    callback = RetrievalEvaluation(["map"])
    with pytest.warns(UserWarning, match="no rows of BM25: the documents hold no word"):
        evaluate(callback, module, Collection("test", QUERIES, {"d0": "!", "d1": "?"}, {"q1": {"d0": 1}}))
    assert set(callback.results) == {"test", "undistilled"}
    module.score = "hybrid"
    callback = RetrievalEvaluation(["map"])
    evaluate(callback, module, TEST)
    assert set(callback.results) == {"test", "undistilled", "bm25"}, "the student's own row is the hybrid"
