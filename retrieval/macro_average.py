"""Intervals and paired tests for a macro average: the mean over groups of queries, such as languages, of their means.

Every group weighs the same, however many queries it has. Queries with the same id in several groups are taken to be one
query, as in collections whose languages ask translations of the same queries: they are drawn, or flipped, together.
With one group, everything here equals its namesake in `retrieval.significance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retrieval.significance import Floats, bootstrap_means, paired_permutation_test

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
