"""The benchmark on real text: its own scoring equals the product's, and its tables say what the cells gave."""

import ir_measures
import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from benchmarks.cells import build
from benchmarks.real_text_cell import average_precision, token_scores
from benchmarks.real_text_report import Table
from retrieval.collection import Collection
from retrieval.index.search import search_tokens
from retrieval.index.tokens import TokenMatrix


def _texts(generator, count, weighted):
    lengths = torch.randint(1, 6, (count,), generator=generator)
    kinds = torch.nn.functional.normalize(torch.randn(7, 8, generator=generator), dim=1)  # few, so that tokens repeat
    values = kinds[torch.randint(0, 7, (int(lengths.sum()),), generator=generator)]
    weights = torch.rand(len(values), generator=generator) + 0.1 if weighted else None
    return TokenMatrix(values, torch.cat([torch.zeros(1), lengths.cumsum(0)]).long(), weights)


def test_token_scores_are_those_of_the_search():
    generator = torch.Generator().manual_seed(3)
    queries, documents = _texts(generator, 5, True), _texts(generator, 9, False)
    uniform, weighted = token_scores(queries, documents)
    names = [f"d{number}" for number in range(9)]
    for ours, asked, scale in (
        (weighted, queries, torch.ones(5)),
        (uniform, TokenMatrix(queries.values, queries.offsets), queries.lengths),
    ):
        scores, places = search_tokens(asked, documents, 9, names)
        torch.testing.assert_close(ours.gather(1, places) * scale[:, None], scores, atol=1e-5, rtol=0)


def test_average_precision_is_that_of_ir_measures():
    generator = torch.Generator().manual_seed(4)
    queries, documents = ([f"{kind}{number}" for number in range(size)] for kind, size in (("q", 6), ("d", 40)))
    qrels = {query: {documents[7 * at % 40]: 1, documents[(11 * at + 3) % 40]: 1} for at, query in enumerate(queries)}
    scores = torch.randn(6, 40, generator=generator)
    collection = Collection("test", dict.fromkeys(queries, ""), dict.fromkeys(documents, ""), qrels)
    run = {
        query: dict(zip(sorted(documents), row, strict=True))
        for query, row in zip(queries, scores.tolist(), strict=True)
    }
    expected = {each.query_id: each.value for each in ir_measures.iter_calc([ir_measures.AP], qrels, run)}
    assert average_precision(scores, collection) == pytest.approx(expected, abs=1e-6)
    above = {query: {key: score for key, score in found.items() if score > 0.5} for query, found in run.items()}
    expected = dict.fromkeys(queries, 0.0) | {
        each.query_id: each.value for each in ir_measures.iter_calc([ir_measures.AP], qrels, above)
    }
    assert average_precision(scores, collection, above=0.5) == pytest.approx(expected, abs=1e-6)


def test_a_table_averages_seeds_then_questions_then_languages():
    random = np.random.default_rng(5)
    queries = {"swa": ["a", "b", "c"], "ibo": ["d", "e"]}

    def values(language):
        return dict(zip(queries[language], random.random(len(queries[language])).tolist(), strict=True))

    baselines = [
        {"language": language, "map": {
            "undistilled": {"pooled": values(language)}, "undistilled, whitened": {"pooled": values(language)},
            "teacher on English": {"pooled": values(language)},
            "BM25, questions as they are": {"bm25": values(language)},
            "BM25, human translations": {"bm25": values(language)},
        }}
        for language in queries
    ]  # fmt: skip
    results = [
        {
            "cell": {"row": row, "space": "plain", "language": language, "seed": seed},
            "map": {"pooled": values(language)},
        }
        for row in ("mse", "ot")
        for language in queries
        for seed in (0, 1)
    ]
    table = Table(results, baselines, "pooled")

    def mean(row, language):
        seeds = [r["map"]["pooled"] for r in results if (r["cell"]["row"], r["cell"]["language"]) == (row, language)]
        return {query: np.mean([seed[query] for seed in seeds]) for query in queries[language]}

    line = next(line for line in table.lines() if line.startswith("| `ot` |"))
    by_language = {language: np.mean(list(mean("ot", language).values())) for language in queries}
    cells = [cell.strip() for cell in line.split("|")[2:5]]
    assert cells[:2] == [f"{by_language[language]:.3f}" for language in queries]
    assert cells[2].startswith(f"{np.mean(list(by_language.values())):.3f} [")
    assert table.seeds == {("mse", "plain"): 2, ("ot", "plain"): 2}
    # One language: the test is Student's.
    only = Table([r for r in results if r["cell"]["language"] == "swa"], baselines[:1], "pooled")
    p = ttest_rel(list(mean("ot", "swa").values()), list(mean("mse", "swa").values())).pvalue
    assert f"p {'<0.001' if p < 0.001 else f'{p:.3f}'}" in only.compare(("ot", "plain"), ("mse", "plain"))


def test_options_with_a_class_path_are_built():
    mse = {"class_path": "strategies.mse.MSE", "init_args": {"pooled_weight": 2.0}}
    built = build(("strategies.weighted_sum.WeightedSum", {"strategies": {"mse": mse}, "weights": {"mse": 0.5}}))
    assert built.weights == {"mse": 0.5}
    assert built.strategies["mse"].pooled_weight == 2.0
