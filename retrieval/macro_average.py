"""Intervals and paired tests for a macro average: the mean over groups of queries, such as languages, of their means.

Every group weighs the same, however many queries it has. Queries of different groups are taken to be independent; where
the languages ask translations of the same queries, the intervals are too narrow. With one group, everything here equals
its namesake in `retrieval.significance`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from retrieval.significance import bootstrap_means, paired_permutation_test


def macro_mean(groups: Sequence[ArrayLike]) -> float:
    """The mean over groups of their means.

    >>> macro_mean([[1.0, 1.0, 1.0], [0.0]])
    0.5
    """
    return float(np.mean([np.mean(np.asarray(values, dtype=np.float64)) for values in groups]))


def macro_interval(
    groups: Sequence[ArrayLike], confidence: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the macro average: queries are drawn with replacement within each group.

    Args:
        groups: values of each group, one a query.
        confidence: between 0 and 1.
        samples: number of resampled sets.
        seed: of the random numbers.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: no group, or as `bootstrap_interval`.
    """
    _check_groups(groups)
    rng = np.random.default_rng(seed)
    means = np.mean([bootstrap_means(values, samples, rng) for values in groups], axis=0)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def macro_t_test(differences: Sequence[ArrayLike]) -> float:
    """Two-sided p-value of a t-test that the macro average of paired differences is 0.

    The variance of the average is the mean of the groups' variances of the mean over the number of groups; its degrees
    of freedom are Welch and Satterthwaite's (Satterthwaite 1946).

    Args:
        differences: one run minus the other at each query, for each group; at least 2 queries a group.

    Returns:
        p; 1 where the runs are equal at every query.

    Raises:
        ValueError: no group, or a group with fewer than 2 queries.
    """
    from scipy.special import stdtr

    _check_groups(differences)
    vectors = [np.asarray(values, dtype=np.float64) for values in differences]
    if min(len(vector) for vector in vectors) < 2:
        raise ValueError("a paired t-test needs at least 2 queries in each group, there is a group with 1")
    if not any(vector.any() for vector in vectors):
        return 1.0
    variances = np.array([vector.var(ddof=1) / len(vector) for vector in vectors])
    total = variances.sum()
    if total == 0:
        return 0.0
    freedom = total**2 / sum(v**2 / (len(vector) - 1) for v, vector in zip(variances, vectors, strict=True))
    statistic = macro_mean(vectors) * len(vectors) / np.sqrt(total)
    return float(2 * stdtr(freedom, -abs(statistic)))


def macro_permutation_test(differences: Sequence[ArrayLike], samples: int = 10000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test on the macro average; see `paired_permutation_test`.

    Args:
        differences: one run minus the other at each query, for each group.
        samples: number of random flips.
        seed: of the random numbers.
    """
    _check_groups(differences)
    vectors = [np.asarray(values, dtype=np.float64) for values in differences]
    longest = max(len(vector) for vector in vectors)
    # The average is a sum over all queries, each weighted by one over the size of its group.
    weighted = np.concatenate([vector * (longest / len(vector)) for vector in vectors])
    return paired_permutation_test(weighted, np.zeros_like(weighted), samples, seed)


def _check_groups(groups: Sequence[ArrayLike]) -> None:
    if not groups:
        raise ValueError("there is no group of queries, expected at least one")
