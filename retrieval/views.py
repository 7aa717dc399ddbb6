"""Several ways to score the same encoded texts: per-view metrics, and the summaries of image-text retrieval.

With five captions an image, ``success@k`` of the view ``text_to_image`` is the share of captions whose image is among
the first k, and of ``image_to_text`` the share of images with at least one of its captions there: the field's R@k.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from foundations.errors import InputError
from retrieval.collection import Collection, Run, View
from retrieval.metrics import SUMMARIES, PerQuery, evaluate_run, mean_over_queries, parse_metric
from retrieval.results import Result

RSUM_CUTOFFS = ("success@1", "success@5", "success@10")
Ranks = dict[str, float]
"""Query id -> rank of the best relevant document, from 1; where none is ranked, the rank behind all others."""


def views_of(collection: Collection) -> tuple[View, ...]:
    """The views of a collection; one without a name where it has none."""
    return collection.views or (View("", collection.qrels),)


def check_metrics(metrics: Sequence[str], collection: Collection) -> None:
    """Look whether a collection can be scored by some metrics.

    Raises:
        InputError: ``rsum`` of a collection without views, or ``upper_bound`` where no view has candidates.
    """
    if "rsum" in metrics and not collection.views:
        raise InputError(f"rsum adds up views, such as text_to_image; the collection {collection.name!r} has none")
    if "upper_bound" in metrics and all(view.candidates is None for view in collection.views):
        raise InputError(f"upper_bound is of candidates; no view of the collection {collection.name!r} has any")


def check_views(collection: Collection) -> None:
    """Look whether the views of a collection name what it holds.

    Raises:
        ValueError: an unknown id, candidates of a transposed view, nothing relevant, or a name that is used twice or
            cannot stand before a metric.
    """
    names = [view.name for view in collection.views]
    for view in collection.views:
        where = f"the collection {collection.name!r}, view {view.name!r}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", view.name) or view.name == "maxsim" or names.count(view.name) > 1:
            raise ValueError(f"{where}: expected a name of its own of small letters, digits and _; not maxsim")
        if view.transposed and view.candidates is not None:
            raise ValueError(f"{where}: a transposed view has no candidates")
        queries, documents = collection.queries, collection.documents
        if view.transposed:
            queries, documents = documents, queries
        if not any(grade > 0 for grades in view.qrels.values() for grade in grades.values()):
            raise ValueError(f"{where} has no relevant document, expected at least one")
        for ids, known in (
            (view.qrels, queries),
            (chain.from_iterable(view.qrels.values()), documents),
            (chain.from_iterable((view.candidates or {}).values()), documents),
            (view.groups, queries),
        ):
            unknown = next((name for name in ids if name not in known), None)
            if unknown is not None:
                raise ValueError(f"{where} names {unknown!r}, which the collection does not have")


def score_views(
    collection: Collection,
    runs: Mapping[str, Run],
    metrics: Sequence[str],
    ranks: Callable[[View], Ranks],
) -> Result:
    """Score the ranked lists of all views.

    ``rsum`` is 100 times the sum over the views of success@1, 5 and 10, so at most 600 for two views. Its value of an
    image holds the image's own successes and those of its captions, weighed so that the mean over images is the sum.
    ``median_rank`` is that of the best relevant document in the full ranking, of each view. ``upper_bound`` is the
    share of queries with a relevant candidate, of each view that has candidates.

    Args:
        collection: gives the views.
        runs: name of the view -> its ranked lists.
        metrics: names, see `retrieval.metrics.parse_metric`.
        ranks: gives the full ranks of a view; asked only for ``median_rank``.

    Returns:
        Metrics named ``<view>/<metric>`` and, of a group, ``<view>/<group>/<metric>``, in the order of the metrics; the
        values of ``rsum`` are by image (document).
    """
    views = views_of(collection)
    names = list(dict.fromkeys(map(str, map(parse_metric, metrics))))
    listed = [name for name in names if name not in SUMMARIES]
    needed = list(dict.fromkeys([*listed, *(RSUM_CUTOFFS if "rsum" in names else ())]))
    values = {view.name: evaluate_run(runs.get(view.name, {}), view.qrels, needed) for view in views}
    medians: dict[str, float] = {}
    per_query: PerQuery = {}
    for metric in names:
        if metric == "rsum":
            per_query["rsum"] = _rsum(views, values)
        for view in views if metric != "rsum" else ():
            if metric == "median_rank":
                medians |= {
                    name: float(np.median(list(ranked.values()))) for name, ranked in _named(view, metric, ranks(view))
                }
            elif metric != "upper_bound":
                per_query |= dict(_named(view, metric, values[view.name][metric]))
            elif view.candidates is not None:
                per_query |= dict(_named(view, metric, _upper_bound(view)))
    return Result(mean_over_queries(per_query) | medians, per_query)


def with_plain(metric: str, means: Mapping[str, float], collection: Collection) -> dict[str, float]:
    """The means, and one metric without the name of a view: the mean over the views, to choose checkpoints by."""
    names = [f"{view.name}/{metric}" for view in collection.views if f"{view.name}/{metric}" in means]
    plain = {metric: float(np.mean([means[name] for name in names]))} if names and metric not in means else {}
    return plain | dict(means)


def _named(view: View, metric: str, values: Mapping[str, float]) -> Iterator[tuple[str, dict[str, float]]]:
    """The name and the values of a metric: of all queries, then of each group."""
    prefix = f"{view.name}/" if view.name else ""
    yield prefix + metric, dict(values)
    members: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        groups = view.groups.get(name, ())
        for group in (groups,) if isinstance(groups, str) else groups:
            members.setdefault(group, {})[name] = value
    for group in sorted(members):
        yield f"{prefix}{group}/{metric}", members[group]


def _upper_bound(view: View) -> dict[str, float]:
    """Whether anything relevant is among the candidates."""
    assert view.candidates is not None
    return {
        name: float(any(grades.get(candidate, 0) > 0 for candidate in view.candidates.get(name, ())))
        for name, grades in view.qrels.items()
    }


def _rsum(views: Sequence[View], values: Mapping[str, PerQuery]) -> dict[str, float]:
    """What each document adds to the rsum; the mean is the rsum."""
    totals: list[dict[str, float]] = []
    for view in views:
        total: dict[str, float] = {}
        for name, grades in view.qrels.items():
            owner = name if view.transposed else next((each for each, grade in grades.items() if grade > 0), name)
            total[owner] = total.get(owner, 0.0) + sum(values[view.name][metric][name] for metric in RSUM_CUTOFFS)
        totals.append(total)
    owners = list(dict.fromkeys(owner for total in totals for owner in total))
    weights = [100 * len(owners) / len(view.qrels) for view in views]
    return {
        owner: sum(weight * total.get(owner, 0.0) for weight, total in zip(weights, totals, strict=True))
        for owner in owners
    }
