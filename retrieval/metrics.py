"""Retrieval metrics per query, equal to `ir_measures` (trec_eval), in vectorised NumPy.

>>> qrels = {"q1": {"d1": 2, "d4": 1}, "q2": {"d2": 1}}
>>> run = {"q1": {"d1": -0.1, "d2": -0.5, "d3": -0.7, "d4": -0.9}, "q2": {"d1": 0.3, "d2": 0.3}}
>>> per_query = evaluate_run(run, qrels, ["map", "precision@1"])
>>> per_query["precision@1"]
{'q1': 1.0, 'q2': 1.0}
>>> mean_over_queries(per_query)["map"]  # q1: (1/1 + 2/4) / 2; q2: tied, the higher id comes first
0.875
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundations.checks import nearest
from retrieval.collection import Qrels, Run
from retrieval.relevance import Floats, RankedRelevance, relevance_of_run

DEFAULT_METRICS = ("map", "ndcg@10", "mrr@10", "recall@100")
PerQuery = dict[str, dict[str, float]]
"""Metric -> query id -> value."""

SUMMARIES = ("rsum", "median_rank", "upper_bound")
"""What `retrieval.views` makes of several views, of the full ranking, or of the candidates."""
_RANKED = ("map", "ndcg", "mrr", "recall", "precision", "success", "judged")
_FAMILIES = (*_RANKED, *SUMMARIES)
_NEED_CUTOFF = ("recall", "precision", "success", "judged")
_WITHOUT_LEVEL = ("ndcg", "judged", *SUMMARIES)
_IR_MEASURES = {"ap": "map", "p": "precision", "r": "recall", "rr": "mrr"}
_TREC_EVAL = {"map_cut": "map", "ndcg_cut": "ndcg", "recip_rank": "mrr", "P": "precision"}
_ALIASES = {"prec": "precision", "dcg": "ndcg", "hit": "success", "hits": "success"}
_NAME = re.compile(r"(?P<family>[^@()]*)(\(rel=(?P<level>[1-9][0-9]{0,8})\))?(?P<at>@(?P<cutoff>.*))?")
_KNOWN = (
    "map, ndcg, mrr (with @k or without), recall@k, precision@k, success@k, judged@k, with a level of relevance as in "
    "map(rel=2); of images rsum, median_rank, upper_bound"
)


@dataclass(frozen=True)
class Metric:
    """A metric of ranked lists.

    Args:
        family: ``map``, ``ndcg``, ``mrr``, ``recall``, ``precision``, ``success``, ``judged``, or a summary of
            `SUMMARIES`.
        cutoff: only the first documents count; None for the whole list.
        level: the least grade that is relevant.
    """

    family: str
    cutoff: int | None = None
    level: int = 1

    def __str__(self) -> str:
        level = f"(rel={self.level})" if self.level > 1 else ""
        return self.family + level + ("" if self.cutoff is None else f"@{self.cutoff}")


def parse_metric(name: str) -> Metric:
    """The metric that a name such as ``ndcg@10`` means; also as `ir_measures` or trec_eval write it.

    So ``AP(rel=2)``, ``map(rel=2)``, ``P(rel=2)@10``, ``nDCG@10``, ``ndcg_cut_10``, ``P_10``, ``recip_rank`` and
    ``recall_1000`` are names as well; with ``(rel=2)`` grades below 2 are not relevant.

    Definitions are those of trec_eval: a grade above 0 is relevant, nDCG's gain is the grade itself and its
    discount log2(rank + 1), average precision divides by all relevant documents of the query (also with a
    cutoff), precision@k divides by k, success@k is 1 where any of the first k is relevant (the R@k of image-text
    retrieval and of grounding), judged@k the share of the first k (of all, where fewer are retrieved) that have a
    judgment of any grade. ``rsum``, ``median_rank`` and ``upper_bound`` are defined in `retrieval.views`.
    Ties are broken by descending document id. Exceptions, which follow `ir_measures`: ``mrr@k`` breaks ties as the MS
    MARCO script does, by ascending id, and so does ``judged@k``.

    Raises:
        ValueError: no such metric; the message names the nearest one.

    >>> parse_metric("ndcg@10")
    Metric(family='ndcg', cutoff=10, level=1)
    >>> str(parse_metric("P_10")), str(parse_metric("AP(rel=2)"))
    ('precision@10', 'map(rel=2)')
    """
    match = _NAME.fullmatch(re.sub(r"_([0-9]+)$", r"@\1", name))
    family, cutoff, at = (match["family"], match["cutoff"] or "", match["at"]) if match else (name, "", None)
    lower = family.lower()
    family = _TREC_EVAL.get(family) or _IR_MEASURES.get(lower) or (lower if lower in _FAMILIES else family)
    right_cutoff = not at or (family not in SUMMARIES and re.fullmatch(r"[1-9][0-9]*", cutoff) is not None)
    level = int(match["level"] or 1) if match else 1
    if family in _FAMILIES and right_cutoff and (at or family not in _NEED_CUTOFF):
        if level > 1 and family in _WITHOUT_LEVEL:
            raise ValueError(f"metric {name!r}: {family} takes no level of relevance; the metrics are {_KNOWN}")
        return Metric(family, int(cutoff) if at else None, level)
    if family in _FAMILIES:
        if family in SUMMARIES:
            raise ValueError(f"metric {name!r}: {family} has no cutoff; the metrics are {_KNOWN}")
        problem = "the cutoff after @ must be a whole number from 1" if at else "it needs a cutoff"
        raise ValueError(f"metric {name!r}: {problem}, for example {family}@10; the metrics are {_KNOWN}")
    raise ValueError(f"unknown metric {name!r}{_question(family, cutoff)}; the metrics are {_KNOWN}")


def evaluate_run(run: Run, qrels: Qrels, metrics: Sequence[str] = DEFAULT_METRICS) -> PerQuery:
    """Metrics of a run, for each query of the qrels.

    Queries of the qrels that the run lacks, or that have no relevant document, are 0; queries of the run that are
    not in the qrels are left out.

    Args:
        run: query id -> document id -> score; the order of the documents does not matter.
        qrels: query id -> document id -> grade.
        metrics: names, see `parse_metric`.

    Returns:
        Metric -> query id -> value, queries in the order of the qrels.

    Raises:
        ValueError: an unknown metric, a score that is NaN, or empty qrels.
    """
    parsed = _parsed(metrics)
    ranked = [str(metric) for metric in parsed if metric.family != "judged"]
    values = evaluate_relevance(relevance_of_run(run, qrels), list(qrels), ranked)
    for metric in parsed:
        if metric.family == "judged":
            values[str(metric)] = _judged(run, qrels, metric.cutoff or 0)
    return {str(metric): values[str(metric)] for metric in parsed}


def metric_name(name: str) -> str:
    """The project's own name of a metric, behind that of a view; a name that is no metric's stays as it is.

    >>> metric_name("ndcg_cut_10"), metric_name("text_to_image/Success@1"), metric_name("loss")
    ('ndcg@10', 'text_to_image/success@1', 'loss')
    """
    view, slash, metric = name.rpartition("/")
    try:
        return view + slash + str(parse_metric(metric))
    except ValueError:
        return name


def _parsed(metrics: Sequence[str]) -> list[Metric]:
    if isinstance(metrics, str):
        raise ValueError(f"metrics is the string {metrics!r}, expected a list of names")
    return [parse_metric(name) for name in metrics]


def _judged(run: Run, qrels: Qrels, cutoff: int) -> dict[str, float]:
    """The share of the first documents of each query that have a judgment."""
    judged = relevance_of_run(run, {query: dict.fromkeys(grades, 1) for query, grades in qrels.items()})
    count = np.array([min(cutoff, len(run.get(query, ()))) for query in qrels], dtype=np.int64)
    shares = _divide(_sum(judged, _within(judged.msmarco_rank, cutoff)), count)
    return dict(zip(qrels, shares.tolist(), strict=True))


def evaluate_relevance(relevance: RankedRelevance, queries: Sequence[str], metrics: Sequence[str]) -> PerQuery:
    """Metrics of ranked relevant documents for each of the Q queries, whose ids are given in order."""
    if not queries:
        raise ValueError("the qrels are empty: there is no query to score")
    parsed = _parsed(metrics)
    for metric in parsed:
        if metric.family in SUMMARIES:
            raise ValueError(f"{metric} is not a metric of a ranked list: it belongs to a run's evaluation.metrics")
        if metric.family == "judged":
            raise ValueError(f"{metric} needs a run: documents without judgments count in it")
    values = {
        str(metric): _FORMULAS[metric.family](relevance.at_least(metric.level), metric.cutoff).tolist()
        for metric in parsed
    }
    return {metric: dict(zip(queries, column, strict=True)) for metric, column in values.items()}


def mean_over_queries(per_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over its queries; metric -> query id -> value."""
    return {metric: float(np.mean(list(values.values()))) for metric, values in per_query.items()}


def _average_precision(relevance: RankedRelevance, cutoff: int | None) -> Floats:
    first = np.searchsorted(relevance.query, relevance.query, side="left")
    precision = (np.arange(len(relevance.query)) - first + 1) / relevance.rank
    return _divide(_sum(relevance, _within(relevance.rank, cutoff) * precision), _relevant(relevance))


def _ndcg(relevance: RankedRelevance, cutoff: int | None) -> Floats:
    query = relevance.relevant_query
    ideal_rank = np.arange(len(query)) - np.searchsorted(query, query, side="left") + 1
    gain = _within(relevance.rank, cutoff) * relevance.grade / np.log2(relevance.rank + 1)
    ideal = _within(ideal_rank, cutoff) * relevance.relevant_grade / np.log2(ideal_rank + 1)
    return _divide(_sum(relevance, gain), np.asarray(np.bincount(query, ideal, relevance.queries), dtype=np.float64))


def _reciprocal_rank(relevance: RankedRelevance, cutoff: int | None) -> Floats:
    rank = relevance.rank if cutoff is None else relevance.msmarco_rank
    best = np.zeros(relevance.queries)
    np.maximum.at(best, relevance.query, _within(rank, cutoff) / rank)
    return best


def _recall(relevance: RankedRelevance, cutoff: int | None) -> Floats:
    return _divide(_sum(relevance, _within(relevance.rank, cutoff)), _relevant(relevance))


def _precision(relevance: RankedRelevance, cutoff: int | None) -> Floats:
    assert cutoff is not None, "parse_metric asks for a cutoff"
    return _sum(relevance, _within(relevance.rank, cutoff)) / cutoff


def _success(relevance: RankedRelevance, cutoff: int | None) -> Floats:
    best = np.zeros(relevance.queries)
    np.maximum.at(best, relevance.query, _within(relevance.rank, cutoff))
    return best


_FORMULAS = {"map": _average_precision, "ndcg": _ndcg, "mrr": _reciprocal_rank, "recall": _recall,
             "precision": _precision, "success": _success}  # fmt: skip


def _within(rank: NDArray[np.int64], cutoff: int | None) -> NDArray[np.bool_]:
    return np.ones(len(rank), dtype=bool) if cutoff is None else rank <= cutoff


def _sum(relevance: RankedRelevance, values: NDArray[np.float64 | np.bool_]) -> Floats:
    """Sum of a value of the retrieved relevant documents, for each query; (Q,)."""
    return np.asarray(np.bincount(relevance.query, values.astype(np.float64), relevance.queries), dtype=np.float64)


def _relevant(relevance: RankedRelevance) -> NDArray[np.int64]:
    """Number of relevant documents of each query, retrieved or not; (Q,)."""
    return np.bincount(relevance.relevant_query, minlength=relevance.queries).astype(np.int64)


def _divide(total: Floats, count: NDArray[np.float64 | np.int64]) -> Floats:
    """Quotients, 0 where a query has nothing to divide by."""
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def _question(family: str, cutoff: str) -> str:
    """Which metric an unknown name may mean; empty where none is near."""
    lower = family.lower()
    names = [_ALIASES[lower]] if lower in _ALIASES else nearest(lower, _FAMILIES, 1)
    if not names:
        return ""
    cutoff = cutoff or ("10" if names[0] in _NEED_CUTOFF else "")
    return f", did you mean {names[0] + ('@' + cutoff if cutoff else '')!r}?"
