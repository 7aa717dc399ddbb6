"""The macro average over languages, against slow computations and against the tests for one group."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retrieval.macro_average import macro_interval, macro_mean, macro_permutation_test, macro_t_test
from retrieval.significance import bootstrap_interval, paired_permutation_test, paired_t_test

RNG = np.random.default_rng(5)
SMALL = [RNG.normal(0.4, 1, 3), RNG.normal(0.3, 1, 7)]
LARGE = [RNG.normal(0.1, 1, 400), RNG.normal(0.3, 0.5, 25), RNG.normal(0, 2, 60)]


def test_every_group_weighs_the_same():
    assert macro_mean(SMALL) == pytest.approx((SMALL[0].mean() + SMALL[1].mean()) / 2)
    assert macro_mean(SMALL) != pytest.approx(np.concatenate(SMALL).mean())


def test_one_group_is_the_usual():
    values, zeros = LARGE[0], np.zeros(400)
    assert macro_interval([values]) == bootstrap_interval(values)
    assert macro_t_test([values]) == pytest.approx(paired_t_test(values, zeros), rel=1e-12)
    assert macro_permutation_test([values]) == paired_permutation_test(values, zeros)


def test_interval_has_the_width_of_theory():
    low, high = macro_interval(LARGE, samples=20000)
    error = np.sqrt(sum(values.var(ddof=1) / len(values) for values in LARGE)) / len(LARGE)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert (high + low) / 2 == pytest.approx(macro_mean(LARGE), abs=0.1 * error)
    assert macro_interval(LARGE, confidence=0.5)[0] > low


def test_t_test_of_two_groups_is_welch():
    """The average of x and y is 0 where x and -y have the same mean, which is what Welch's test asks."""
    from scipy.stats import ttest_ind

    expected = ttest_ind(LARGE[0], -LARGE[1], equal_var=False).pvalue
    assert macro_t_test(LARGE[:2]) == pytest.approx(expected, rel=1e-9)


def test_permutations_are_counted():
    flips = 0
    for signs in itertools.product([1, -1], repeat=10):
        first, second = np.array(signs[:3]) * SMALL[0], np.array(signs[3:]) * SMALL[1]
        flips += abs(macro_mean([first, second])) >= abs(macro_mean(SMALL)) - 1e-12
    assert macro_permutation_test(SMALL) == pytest.approx(flips / 2**10, abs=1e-12)


def test_equal_runs():
    zeros = [np.zeros(4), np.zeros(9)]
    assert macro_t_test(zeros) == macro_permutation_test(zeros) == 1.0
    assert macro_t_test([np.ones(4), np.ones(9)]) == 0.0


def test_errors():
    for function in (macro_interval, macro_t_test, macro_permutation_test):
        with pytest.raises(ValueError, match="no group of queries"):
            function([])
    with pytest.raises(ValueError, match="at least 2 queries in each group"):
        macro_t_test([[1.0, 2.0], [1.0]])
    with pytest.raises(ValueError, match="shape"):
        macro_interval([[1.0], []])
