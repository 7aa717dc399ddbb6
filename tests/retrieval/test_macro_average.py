"""The macro average over languages, against slow computations and against the tests for one group."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from retrieval.statistics import (
    macro_interval,
    macro_mean,
    macro_permutation_test,
    macro_t_test,
    one_group,
    paired_differences,
)

RNG = np.random.default_rng(5)


def groups(*vectors, shared: bool = False):
    return [{f"q{i}" if shared else f"{n}-{i}": float(x) for i, x in enumerate(v)} for n, v in enumerate(vectors)]


SMALL = [RNG.normal(0.4, 1, 3), RNG.normal(0.3, 1, 7)]
LARGE = [RNG.normal(0.1, 1, 400), RNG.normal(0.3, 0.5, 25), RNG.normal(0, 2, 60)]


def test_every_group_weighs_the_same():
    assert macro_mean(groups(*SMALL)) == pytest.approx((SMALL[0].mean() + SMALL[1].mean()) / 2)
    assert macro_mean(groups(*SMALL)) != pytest.approx(np.concatenate(SMALL).mean())


def test_one_group_is_the_usual():
    values = LARGE[0]
    drawn = np.random.default_rng(0).integers(400, size=(2000, 400))
    assert macro_interval(groups(values)) == pytest.approx(np.quantile(values[drawn].mean(1), [0.025, 0.975]))
    assert macro_t_test(groups(values)) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)
    assert macro_mean(one_group(values)) == macro_mean(groups(values)) == pytest.approx(values.mean())
    assert macro_interval(one_group(values)) == macro_interval(groups(values))


@pytest.mark.parametrize("shared", [False, True])
def test_interval_has_the_width_of_theory(shared):
    vectors = LARGE if not shared else [LARGE[0], 2 * LARGE[0] + RNG.normal(0, 1, 400)]
    found = groups(*vectors, shared=shared)
    low, high = macro_interval(found, samples=20000)
    if shared:
        error = np.mean(vectors, axis=0).std(ddof=1) / 20
    else:
        error = np.sqrt(sum(values.var(ddof=1) / len(values) for values in vectors)) / len(vectors)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert (high + low) / 2 == pytest.approx(macro_mean(found), abs=0.1 * error)
    assert macro_interval(found, confidence=0.5)[0] > low


def test_the_same_queries_in_each_group_are_as_many_as_in_one():
    values = LARGE[2]
    found = groups(values, values, values, shared=True)
    assert macro_interval(found) == pytest.approx(macro_interval(groups(values)))
    assert macro_t_test(found) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert macro_permutation_test(found) == macro_permutation_test(groups(values))


def test_some_queries_in_both_groups():
    """The error from the definition: the sum over queries of what each adds, independently."""
    first, second = groups(LARGE[0], LARGE[0][:150] + RNG.normal(0, 0.1, 150), shared=True)
    low, high = macro_interval([first, second], samples=20000)
    both = np.array([first[q] / 800 + second[q] / 300 for q in second])
    alone = np.array([first[q] / 800 for q in first if q not in second])
    error = np.sqrt(150 * both.var(ddof=1) + 250 * alone.var(ddof=1))
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert (high + low) / 2 == pytest.approx(macro_mean([first, second]), abs=0.1 * error)


def test_t_test_of_groups_without_shared_queries():
    error = np.sqrt(sum(values.var(ddof=1) / len(values) for values in LARGE)) / 3
    expected = 2 * stats.t.sf(abs(macro_mean(groups(*LARGE))) / error, df=24)
    assert macro_t_test(groups(*LARGE)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shared", [False, True])
def test_permutations_are_counted(shared):
    found = groups(*SMALL, shared=shared)
    names = sorted({query for values in found for query in values})
    flips = 0
    for signs in itertools.product([1, -1], repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        flipped = [{query: sign[query] * value for query, value in values.items()} for values in found]
        flips += abs(macro_mean(flipped)) >= abs(macro_mean(found)) - 1e-12
    assert macro_permutation_test(found) == pytest.approx(flips / 2 ** len(names), abs=1e-12)


def test_equal_runs():
    zeros = groups(np.zeros(4), np.zeros(9))
    assert macro_t_test(zeros) == macro_permutation_test(zeros) == 1.0
    assert macro_t_test(groups(np.ones(4), np.ones(9))) == 0.0


def test_errors():
    for function in (macro_mean, macro_interval, macro_t_test, macro_permutation_test):
        for wrong in ([], groups([1.0], [])):
            with pytest.raises(ValueError, match="no group of queries, or an empty one"):
                function(wrong)
    with pytest.raises(ValueError, match="at least 2 queries in each group"):
        macro_t_test(groups([1.0, 2.0], [1.0]))


def test_differences_are_of_the_same_query():
    found = paired_differences([{"a": 1.0, "b": 0.5}, {"c": 0.0}], [{"b": 0.25, "a": 1.0}, {"c": 1.0}])
    assert found == [{"a": 0.0, "b": 0.25}, {"c": -1.0}]
