"""Means over queries with intervals and paired tests, also of several groups of queries that all weigh the same.

Values are one number a query, e.g. its average precision; differences are those of the same query in two runs. The
macro average over groups, such as the languages of a run, is the mean of their means: of one group, the plain mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from foundations.checks import check_number
from retrieval.relevance import Floats

Groups = Sequence[Mapping[str, float]]
"""Query id -> value, for each group."""

_EXACT_QUERIES = 12
_CELLS_PER_BLOCK = 1 << 22


def one_group(values: ArrayLike) -> Groups:
    """Values without ids as the only group; (Q,)."""
    return [dict(zip(map(str, range(np.size(values))), np.ravel(values).tolist(), strict=True))]


def paired_differences(first: Groups, second: Groups) -> Groups:
    """The first run minus the second, for each query of each group; both have the same ones."""
    return [
        {query: value - theirs[query] for query, value in ours.items()}
        for ours, theirs in zip(first, second, strict=True)
    ]


def macro_mean(groups: Groups) -> float:
    """The mean over groups of their means.

    Raises:
        ValueError: no group, an empty one, or values that are not finite.

    >>> macro_mean([{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 0.0}])
    0.5
    """
    return float(np.mean([values.mean() for values in _arrays(groups)]))


def macro_interval(groups: Groups, confidence: float = 0.95, samples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the macro average (Efron & Tibshirani 1993, chapter 13).

    Queries are drawn with replacement among those that the same groups have: within each group where the groups have
    different queries, once for all groups where they have the same ones. The interval holds the middle `confidence` of
    the averages.

    Args:
        groups: query id -> value, for each group.
        confidence: between 0 and 1.
        samples: number of resampled sets.
        seed: of the random numbers; the same one gives the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: as `macro_mean`, or an option out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1, e.g. 0.95")
    check_number("samples", samples, least=1)
    rng = np.random.default_rng(seed)
    means = np.zeros(samples)
    for stratum in _strata(groups):
        step = max(1, _CELLS_PER_BLOCK // len(stratum))
        for start in range(0, samples, step):
            size = min(step, samples - start)
            drawn = rng.integers(len(stratum), size=(size, len(stratum)))
            means[start : start + size] += stratum[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def macro_t_test(differences: Groups) -> float:
    """Two-sided p-value of a t-test that the macro average of paired differences is 0: of one group, Student's.

    The variance is the sum of squares over queries of what each adds to the average beyond the means of its groups; the
    degrees of freedom are those of the smallest group, which is on the safe side.

    Args:
        differences: query id -> one run minus the other, for each group; at least 2 queries a group.

    Returns:
        p; 1 where the runs are equal at every query.

    Raises:
        ValueError: as `macro_mean`, or a group with fewer than 2 queries.
    """
    from scipy.special import stdtr

    arrays = _arrays(differences)
    smallest = min(map(len, arrays))
    if smallest < 2:
        raise ValueError("a paired t-test needs at least 2 queries in each group, there is a group with 1")
    if not any(values.any() for values in arrays):
        return 1.0
    factors = [1 / (len(arrays) * np.sqrt(len(values) * (len(values) - 1))) for values in arrays]
    scaled = [(values - values.mean()) * factor for values, factor in zip(arrays, factors, strict=True)]
    beyond = _added(differences, scaled)
    variance = float(np.sum(np.square(beyond)))
    if variance == 0:
        return 0.0
    return float(2 * stdtr(smallest - 1, -abs(macro_mean(differences)) / np.sqrt(variance)))


def macro_permutation_test(differences: Groups, samples: int = 10000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test on the macro average (Fisher; Smucker et al. 2007).

    Under the null hypothesis the two runs are exchangeable at each query, so the sign of its difference is a coin
    toss: p is the share of sign flips whose average is at least as far from 0 as the observed one. Up to 12 queries
    all flips are counted, and p is exact; above, `samples` random flips and the observed one.

    Args:
        differences: query id -> one run minus the other, for each group.
        samples: number of random flips; p is at least 1 / (samples + 1).
        seed: of the random numbers.

    Returns:
        p; 1 where the runs are equal at every query.

    Raises:
        ValueError: as `macro_mean`, or samples below 1.
    """
    check_number("samples", samples, least=1)
    arrays = _arrays(differences)
    # The average is a sum over queries; each counts by one over the size of its group.
    longest = max(map(len, arrays))
    difference = _added(differences, [values * (longest / len(values)) for values in arrays])
    # Flips that equal the observed difference must count, also where rounding makes them a little smaller.
    threshold = abs(difference.sum()) - 1e-12 * np.abs(difference).sum()
    queries = len(difference)
    if queries <= _EXACT_QUERIES:
        flips = 1 - 2 * (np.arange(2**queries)[:, None] >> np.arange(queries) & 1)
        return float(np.mean(np.abs(flips @ difference) >= threshold))
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS_PER_BLOCK // queries)
    extreme = 0
    for start in range(0, samples, step):
        flipped = rng.integers(2, size=(min(step, samples - start), queries), dtype=np.int8)
        # sum of flipped signs = total - 2 * (sum of the flipped ones)
        sums = difference.sum() - 2 * (flipped @ difference)
        extreme += int(np.sum(np.abs(sums) >= threshold))
    return (extreme + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected so that any false finding at all has the stated chance.

    Holm's step-down method (Holm 1979): the i-th smallest of m is multiplied by m - i + 1, at most 1, and never
    below the one before it.

    Args:
        p_values: one a comparison, between 0 and 1.

    Returns:
        Corrected values, in the same order.

    Raises:
        ValueError: a value is not between 0 and 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p-values are {list(p_values)}, expected numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return [float(value) for value in corrected]


def _arrays(groups: Groups) -> list[Floats]:
    """The values of each group, (Q,), checked."""
    if not groups or not all(groups):
        raise ValueError("there is no group of queries, or an empty one: expected at least one query in each")
    arrays = [np.array(list(values.values()), dtype=np.float64) for values in groups]
    if not all(np.isfinite(values).all() for values in arrays):
        raise ValueError("the values hold some that are not finite, expected one finite number a query")
    return arrays


def _added(groups: Groups, terms: Sequence[Floats]) -> Floats:
    """The sum of each query's terms over the groups that have it; terms are in the order of the groups' queries."""
    total: dict[str, float] = {}
    for values, added in zip(groups, terms, strict=True):
        for query, term in zip(values, added.tolist(), strict=True):
            total[query] = total.get(query, 0.0) + term
    return np.array(list(total.values()))


def _strata(groups: Groups) -> list[Floats]:
    """Queries by the groups that have them: the macro average is the sum of the means of the strata."""
    _arrays(groups)
    queries: dict[tuple[int, ...], list[str]] = {}
    for query in dict.fromkeys(chain.from_iterable(groups)):
        members = tuple(number for number, values in enumerate(groups) if query in values)
        queries.setdefault(members, []).append(query)
    strata = []
    for members, names in queries.items():
        shares = [len(names) / (len(groups[number]) * len(groups)) for number in members]
        values = [[groups[number][name] for name in names] for number in members]
        strata.append(np.array(shares) @ np.array(values, dtype=np.float64))
    return strata
