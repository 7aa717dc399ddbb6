from __future__ import annotations

import re

import ir_measures
import numpy as np
import pytest
import torch

from retrieval.metrics import (
    DEFAULT_METRICS,
    Metric,
    evaluate_relevance,
    evaluate_run,
    mean_over_queries,
    parse_metric,
)
from retrieval.relevance import IndexedQrels, relevance_of_rankings
from retrieval.trec import ranked_documents

NAMES = {
    "map": "AP",
    "map@3": "AP@3",
    "map@100": "AP@100",
    "ndcg": "nDCG",
    "ndcg@2": "nDCG@2",
    "ndcg@10": "nDCG@10",
    "mrr": "RR",
    "mrr@1": "RR@1",
    "mrr@10": "RR@10",
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@100": "R@100",
    "precision@1": "P@1",
    "precision@5": "P@5",
    "precision@100": "P@100",
    "success@1": "Success@1",
    "success@5": "Success@5",
    "success@10": "Success@10",
    "map(rel=2)": "AP(rel=2)",
    "map(rel=3)@5": "AP(rel=3)@5",
    "mrr(rel=2)": "RR(rel=2)",
    "recall(rel=2)@5": "R(rel=2)@5",
    "precision(rel=2)@10": "P(rel=2)@10",
    "success(rel=3)@5": "Success(rel=3)@5",
}
IDS = [*(f"d{i}" for i in range(18)), "D1", "d", "10", "9", "é", "ｚ", "\U0001f600"]


def oracle(run, qrels, names=NAMES):
    measures = {ir_measures.parse_measure(name): ours for ours, name in names.items()}
    values = {ours: {} for ours in names}
    for metric in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[metric.measure]][metric.query_id] = metric.value
    return values


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert ours[name].keys() == values.keys(), name
        for query, value in values.items():
            assert ours[name][query] == pytest.approx(value, abs=1e-9), (name, query)


def random_scores(rng, size):
    kind = rng.integers(5)
    if kind == 0:
        return rng.normal(size=size)
    if kind == 1:  # many ties, negative as well
        return rng.integers(-2, 3, size=size).astype(float)
    if kind == 2:  # ties in single precision only
        return 0.5 + rng.integers(0, 4, size=size) * 1e-10
    if kind == 3:  # neighbours in single precision
        return np.float32(0.7) + rng.integers(-2, 3, size=size) * 6e-8
    return rng.choice([1e39, 1e40, -1e300, 0.0, -0.0, 5e-324], size=size)


def random_case(seed):
    """Graded qrels and a run with ties, gaps on both sides, and queries without hits or relevant documents."""
    rng = np.random.default_rng(seed)
    run, qrels = {}, {}
    for i in range(12):
        judged = rng.choice(IDS, size=rng.integers(0, 12), replace=False).tolist()
        grades = rng.integers(0, 4, size=len(judged)) if i % 3 else np.zeros(len(judged), int)
        if rng.random() < 0.85:
            qrels[f"q{i}"] = dict(zip(judged, grades.tolist(), strict=True))
        found = rng.choice(IDS, size=rng.integers(0, len(IDS) + 1), replace=False).tolist()
        if rng.random() < 0.85:
            run[f"q{i}"] = dict(zip(found, random_scores(rng, len(found)).tolist(), strict=True))
    return run, qrels | {"q99": {"d1": 1}}


@pytest.mark.parametrize("seed", range(150))
def test_run_equals_ir_measures(seed):
    run, qrels = random_case(seed)
    assert_equal(evaluate_run(run, qrels, list(NAMES)), oracle(run, qrels))


@pytest.mark.parametrize("seed", range(40))
def test_judged_equals_ir_measures(seed):
    run, qrels = random_case(seed)
    names = {f"judged@{k}": f"Judged@{k}" for k in (1, 3, 10, 100)}
    # ir_measures has no value for a query that is not in the run, or not judged, and fails where nothing is retrieved.
    given = {query: scores for query, scores in run.items() if scores}
    ours, theirs = evaluate_run(run, qrels, list(names)), oracle(given, qrels, names)
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(dict.fromkeys(qrels, 0.0) | values, abs=1e-9), name
    assert evaluate_run(run, qrels, ["map", "judged@3", "ndcg"])["judged@3"] == ours["judged@3"]
    with pytest.raises(ValueError, match="judged@3 needs a run"):
        evaluate_relevance(
            relevance_of_rankings(IndexedQrels.of(qrels, [], IDS), np.zeros((0, 1), int)), ["q"], ["judged@3"]
        )


@pytest.mark.parametrize(
    ("name", "ours"),
    {
        **{theirs: ours for ours, theirs in NAMES.items()},
        "Judged@10": "judged@10", "MAP": "map", "NDCG@5": "ndcg@5", "MRR@10": "mrr@10", "AP(rel=1)": "map",
        "ndcg_cut_10": "ndcg@10", "map_cut_100": "map@100", "P_10": "precision@10", "recip_rank": "mrr",
        "recall_1000": "recall@1000", "success_5": "success@5", "map": "map", "ndcg": "ndcg",
    }.items(),
)  # fmt: skip
def test_names_of_ir_measures_and_trec_eval(name, ours):
    assert str(parse_metric(name)) == ours


def test_negative_grades_are_not_relevant():
    # Not against ir_measures: pytrec_eval does not support them (it writes out of bounds).
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}
    judged = evaluate_run(run, {"q": {"a": -2, "b": 1, "x": -1}}, list(NAMES))
    assert judged == evaluate_run(run, {"q": {"a": 0, "b": 1}}, list(NAMES))


TREC_NAMES = {ours: name for ours, name in NAMES.items() if not ours.startswith("mrr@")}
"""Without those that break ties in another order than trec_eval, which arrays cannot tell."""


def evaluate_rankings(qrels, queries, indices, names=TREC_NAMES):
    relevance = relevance_of_rankings(IndexedQrels.of(qrels, queries, IDS), indices)
    return evaluate_relevance(relevance, list(qrels), list(names))


def as_rankings(run, queries):
    """The run as an array in trec_eval's order, padded, as search gives it."""
    width = max((len(run.get(query, {})) for query in queries), default=0) + 2
    indices = np.full((len(queries), width), -1)
    for row, query in enumerate(queries):
        ranked = ranked_documents(run.get(query, {}))
        indices[row, : len(ranked)] = [IDS.index(document) for document in ranked]
    return indices


@pytest.mark.parametrize("seed", range(60))
def test_rankings_equal_ir_measures(seed):
    run, qrels = random_case(seed)
    qrels["q0"] = {"not in the index": 2, "d1": 1}
    queries = [*run, "without qrels"]
    theirs = oracle(run, qrels)
    ours = evaluate_rankings(qrels, queries, as_rankings(run, queries))
    assert_equal(ours, {name: theirs[name] for name in TREC_NAMES})


def test_rankings_are_taken_in_the_given_order():
    qrels = {"q": {IDS[0]: 1}}
    found = evaluate_rankings(qrels, ["q"], torch.tensor([[1, 0]]), ["mrr@10", "mrr"])
    assert found == {"mrr@10": {"q": 0.5}, "mrr": {"q": 0.5}}


def test_perfect_ranking_with_negative_scores_is_perfect():
    run = {"q": {"a": -0.1, "b": -0.2, "c": -0.3}}
    values = evaluate_run(run, {"q": {"a": 2, "b": 1}}, ["map", "ndcg@10", "mrr@10", "recall@100"])
    assert {value["q"] for value in values.values()} == {1.0}


def test_means_are_over_all_judged_queries():
    run, qrels = random_case(7)
    means = mean_over_queries(evaluate_run(run, qrels, list(NAMES)))
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in NAMES.values()], qrels, run)
    for ours, name in NAMES.items():
        assert means[ours] == pytest.approx(theirs[ir_measures.parse_measure(name)], abs=1e-9), ours


def test_long_rankings_are_searched_in_several_blocks(monkeypatch):
    run, qrels = random_case(3)
    queries = list(run)
    indices = as_rankings(run, queries)
    whole = evaluate_rankings(qrels, queries, indices)
    monkeypatch.setattr("retrieval.relevance._CELLS_PER_BLOCK", 64)
    assert evaluate_rankings(qrels, queries, indices) == whole


def test_parse_metric():
    assert parse_metric("ndcg@10") == Metric("ndcg", 10)
    assert [str(parse_metric(name)) for name in NAMES] == list(NAMES)
    assert parse_metric("map") == Metric("map")
    assert DEFAULT_METRICS == ("map", "ndcg@10", "mrr@10", "recall@100")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndcg(rel=2)@10", "metric 'ndcg(rel=2)@10': ndcg takes no level of relevance"),
        ("map(rel=0)", "unknown metric 'map(rel=0)'"),
        ("map(rel=2", "unknown metric 'map(rel=2'"),
        ("judged", "it needs a cutoff, for example judged@10"),
        ("P", "it needs a cutoff, for example precision@10"),
        ("ndcg_cut_0", "the cutoff after @ must be"),
        ("ncdg@5", "did you mean 'ndcg@5'?"),
        ("dcg@10", "did you mean 'ndcg@10'?"),
        ("prec@5", "did you mean 'precision@5'?"),
        ("recal", "did you mean 'recall@10'?"),
        ("xyzzy", "unknown metric 'xyzzy'; the metrics are map"),
        ("recall", "it needs a cutoff, for example recall@10"),
        ("ndcg@0", "the cutoff after @ must be a whole number from 1"),
        ("ndcg@", "the cutoff after @"),
        ("map@-1", "the cutoff after @"),
        ("map@1.5", "the cutoff after @"),
    ],
)
def test_wrong_names_say_what_is_near(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_metric(name)


def test_wrong_input():
    judgments = IndexedQrels.of({"q": {"a": 1}}, ["other", "q"], ["a"])
    with pytest.raises(ValueError, match="1 rows, but the qrels name row 1"):
        relevance_of_rankings(judgments, np.zeros((1, 3), dtype=int))
    with pytest.raises(ValueError, match="expected integers"):
        relevance_of_rankings(judgments, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="empty"):
        evaluate_run({"q": {"a": 1.0}}, {})
    with pytest.raises(ValueError, match="query 'q': a score is NaN"):
        evaluate_run({"q": {"a": float("nan")}}, {"q": {"a": 1}})
    with pytest.raises(ValueError, match="expected a list of names"):
        evaluate_run({"q": {"a": 1.0}}, {"q": {"a": 1}}, "map")
