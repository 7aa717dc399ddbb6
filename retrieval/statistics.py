"""Intervals and paired tests over queries.

Values are one number a query, e.g. its average precision. Pairs are the same query in two runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_EXACT_QUERIES = 12

_CELLS_PER_BLOCK = 1 << 22


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over queries (Efron & Tibshirani 1993, chapter 13).

    Queries are drawn with replacement; the interval holds the middle `confidence` of the means. The same seed
    gives the same interval.

    Args:
        values: one value a query; (Q,).
        confidence: between 0 and 1.
        samples: number of resampled sets.
        seed: of the random numbers.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: no values, values that are not finite, or options out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number between 0 and 1, e.g. 0.95")
    means = bootstrap_means(values, samples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_means(values: ArrayLike, samples: int, rng: np.random.Generator) -> Floats:
    """Means of resampled queries.

    Args:
        values: one value a query; (Q,).
        samples: number of resampled sets (S).
        rng: gives the random numbers.

    Returns:
        (S,).

    Raises:
        ValueError: no values, values that are not finite, or samples below 1.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1")
    drawn = _vector(values, "values")
    means = np.empty(samples)
    step = max(1, _CELLS_PER_BLOCK // len(drawn))
    for start in range(0, samples, step):
        size = min(step, samples - start)
        means[start : start + size] = drawn[rng.integers(len(drawn), size=(size, len(drawn)))].mean(axis=1)
    return means


def paired_t_test(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided p-value of Student's paired t-test.

    Args:
        first: values of one run; (Q,), at least 2.
        second: values of the other run for the same queries; (Q,).

    Returns:
        p; 1 where the runs are equal at every query.

    Raises:
        ValueError: different lengths, fewer than 2 queries, or values that are not finite.
    """
    from scipy.special import stdtr

    difference = _differences(first, second)
    if len(difference) < 2:
        raise ValueError("a paired t-test needs at least 2 queries, there is 1")
    if not difference.any():
        return 1.0
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    if error == 0:
        return 0.0
    return float(2 * stdtr(len(difference) - 1, -abs(difference.mean()) / error))


def paired_permutation_test(first: ArrayLike, second: ArrayLike, samples: int = 10000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test (Fisher; Smucker et al. 2007).

    Under the null hypothesis the two runs are exchangeable at each query, so the sign of each difference is a coin
    toss: p is the share of sign flips whose mean difference is at least as far from 0 as the observed one.
    Up to 12 queries all flips are counted, and p is exact; above, `samples` random flips and the observed one.

    Args:
        first: values of one run; (Q,).
        second: values of the other run for the same queries; (Q,).
        samples: number of random flips; p is at least 1 / (samples + 1).
        seed: of the random numbers.

    Returns:
        p; 1 where the runs are equal at every query.

    Raises:
        ValueError: different lengths, no queries, values that are not finite, or samples below 1.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}, expected at least 1")
    difference = _differences(first, second)
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


def _differences(first: ArrayLike, second: ArrayLike) -> Floats:
    one, other = _vector(first, "first"), _vector(second, "second")
    if len(one) != len(other):
        raise ValueError(f"the runs have {len(one)} and {len(other)} values: a paired test needs the same queries")
    return one - other


def _vector(values: ArrayLike, name: str) -> Floats:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or len(vector) == 0:
        raise ValueError(f"{name} has shape {vector.shape}, expected one value a query (Q,), at least one query")
    if not np.isfinite(vector).all():
        raise ValueError(f"{name} holds values that are not finite")
    return vector


Groups = Sequence[Mapping[str, float]]
"""Query id -> value, for each group."""


def macro_mean(groups: Groups) -> float:
    """The mean over groups of their means.

    >>> macro_mean([{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 0.0}])
    0.5
    """
    _check_groups(groups)
    return float(np.mean([np.mean(list(values.values())) for values in groups]))


def macro_interval(groups: Groups, confidence: float = 0.95, samples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the macro average.

    Queries are drawn with replacement among those that the same groups have: within each group where the groups have
    different queries, once for all groups where they have the same ones.

    Args:
        groups: query id -> value, for each group.
        confidence: between 0 and 1.
        samples: number of resampled sets.
        seed: of the random numbers.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: no group, an empty one, or values that are not finite.
    """
    _check_groups(groups)
    rng = np.random.default_rng(seed)
    means = np.sum([bootstrap_means(stratum, samples, rng) for stratum in _strata(groups)], axis=0)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def macro_t_test(differences: Groups) -> float:
    """Two-sided p-value of a t-test that the macro average of paired differences is 0.

    The variance is the sum of squares over queries of what each adds to the average beyond the means of its groups; the
    degrees of freedom are those of the smallest group, which is on the safe side.

    Args:
        differences: query id -> one run minus the other, for each group; at least 2 queries a group.

    Returns:
        p; 1 where the runs are equal at every query.

    Raises:
        ValueError: no group, or a group with fewer than 2 queries.
    """
    from scipy.special import stdtr

    _check_groups(differences)
    smallest = min(map(len, differences))
    if smallest < 2:
        raise ValueError("a paired t-test needs at least 2 queries in each group, there is a group with 1")
    if not any(any(values.values()) for values in differences):
        return 1.0
    beyond: dict[str, float] = {}
    for values in differences:
        count, mean = len(values), float(np.mean(list(values.values())))
        factor = 1 / (len(differences) * np.sqrt(count * (count - 1)))
        for query, value in values.items():
            beyond[query] = beyond.get(query, 0.0) + (value - mean) * factor
    variance = float(np.sum(np.square(list(beyond.values()))))
    if variance == 0:
        return 0.0
    return float(2 * stdtr(smallest - 1, -abs(macro_mean(differences)) / np.sqrt(variance)))


def macro_permutation_test(differences: Groups, samples: int = 10000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test on the macro average; see `paired_permutation_test`.

    Args:
        differences: query id -> one run minus the other, for each group.
        samples: number of random flips.
        seed: of the random numbers.
    """
    _check_groups(differences)
    longest = max(map(len, differences))
    # The average is a sum over queries; each counts by one over the size of its group.
    added: dict[str, float] = {}
    for values in differences:
        for query, value in values.items():
            added[query] = added.get(query, 0.0) + value * (longest / len(values))
    vector = np.array(list(added.values()))
    return paired_permutation_test(vector, np.zeros_like(vector), samples, seed)


def _strata(groups: Groups) -> list[Floats]:
    """Queries by the groups that have them: the macro average is the sum of the means of the strata."""
    owners: dict[str, list[int]] = {}
    for number, values in enumerate(groups):
        for query in values:
            owners.setdefault(query, []).append(number)
    queries: dict[tuple[int, ...], list[str]] = {}
    for query, numbers in owners.items():
        queries.setdefault(tuple(numbers), []).append(query)
    strata = []
    for numbers_, names in queries.items():
        shares = [len(names) / (len(groups[number]) * len(groups)) for number in numbers_]
        values_ = [[groups[number][name] for name in names] for number in numbers_]
        strata.append(np.array(shares) @ np.array(values_, dtype=np.float64))
    return strata


def _check_groups(groups: Groups) -> None:
    if not groups or not all(groups):
        raise ValueError("there is no group of queries, or an empty one: expected at least one query in each")
