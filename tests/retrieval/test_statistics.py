from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from retrieval.statistics import holm, macro_interval, macro_permutation_test, macro_t_test, one_group


def bootstrap_interval(values, *args, **options):
    return macro_interval(one_group(values), *args, **options)


def paired_t_test(first, second):
    return macro_t_test(one_group(np.subtract(first, second)))


def paired_permutation_test(first, second, **options):
    return macro_permutation_test(one_group(np.subtract(first, second)), **options)


def mean_difference(first, second, axis):
    return np.mean(first - second, axis=axis)


@pytest.mark.parametrize("seed", range(20))
def test_t_test_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    first = rng.random(rng.integers(2, 200))
    second = first + rng.normal(0.02, 0.1, size=len(first))
    assert paired_t_test(first, second) == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9, abs=1e-300)
    assert paired_t_test(first, second) == paired_t_test(second, first)


@pytest.mark.parametrize("size", [1, 2, 5, 9, 12])
def test_permutation_test_is_exact_for_few_queries(size):
    rng = np.random.default_rng(size)
    for _ in range(4):
        # Tenths, as reciprocal ranks have: many flips give the same mean, up to rounding.
        first, second = rng.integers(0, 4, (2, size)) / 10
        difference = first - second
        flips = [np.dot(signs, difference) for signs in itertools.product([1, -1], repeat=size)]
        expected = np.mean([abs(flip) >= abs(difference.sum()) - 1e-9 for flip in flips])
        assert paired_permutation_test(first, second) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_permutation_test_is_near_scipy(seed):
    rng = np.random.default_rng(seed)
    first = rng.random(60)
    second = first + rng.normal(0.02, 0.1, size=60)
    theirs = stats.permutation_test(
        (first, second), mean_difference, permutation_type="samples", n_resamples=20000, vectorized=True, rng=seed
    ).pvalue
    ours = paired_permutation_test(first, second, samples=20000, seed=seed)
    assert ours == pytest.approx(theirs, abs=0.015)
    assert ours == paired_permutation_test(first, second, samples=20000, seed=seed)
    assert ours == pytest.approx(paired_permutation_test(second, first, samples=20000, seed=seed), abs=1e-12)


def test_permutation_test_never_gives_zero():
    assert paired_permutation_test(np.ones(100), np.zeros(100), samples=99) == 1 / 100
    assert paired_permutation_test(np.ones(4), np.zeros(4)) == 2 / 16


@pytest.mark.parametrize("test", [paired_t_test, paired_permutation_test])
def test_p_values_are_uniform_when_there_is_no_difference(test):
    rng = np.random.default_rng(0)
    p = [test(*rng.normal(size=(2, 20))) for _ in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_equal_runs_do_not_differ():
    values = np.random.default_rng(0).random(40)
    assert paired_t_test(values, values) == 1.0
    assert paired_permutation_test(values, values) == 1.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bootstrap_interval_is_near_scipy(seed, confidence):
    values = np.random.default_rng(seed).beta(0.3, 0.7, size=300)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=4000, method="percentile", rng=seed
    ).confidence_interval
    low, high = bootstrap_interval(values, confidence, samples=4000, seed=seed + 100)
    assert low == pytest.approx(theirs.low, abs=0.003)
    assert high == pytest.approx(theirs.high, abs=0.003)
    assert (low, high) == bootstrap_interval(values, confidence, samples=4000, seed=seed + 100)
    assert (low, high) != bootstrap_interval(values, confidence, samples=4000, seed=seed + 101)


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.exponential(size=100), 0.9, 500, seed) for seed in range(200)]
    covered = np.mean([low <= 1 <= high for low, high in intervals])
    assert 0.84 <= covered <= 0.95


def test_blocks_of_samples_make_up_the_number_asked(monkeypatch):
    values = np.random.default_rng(0).random(100)
    monkeypatch.setattr("retrieval.statistics._CELLS_PER_BLOCK", 700)
    low, high = bootstrap_interval(values, samples=3001)
    monkeypatch.undo()
    whole = bootstrap_interval(values, samples=3001)
    assert (low, high) == pytest.approx(whole, abs=0.005)
    monkeypatch.setattr("retrieval.statistics._CELLS_PER_BLOCK", 700)
    assert paired_permutation_test(values + 1, values, samples=99) == 1 / 100


def slow_holm(p_values):
    """Holm 1979, word by word: reject the smallest while it is at most alpha / (number left)."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return corrected


def test_holm_equals_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = np.round(rng.random(rng.integers(1, 9)) ** 3, 2).tolist()
        assert holm(p) == pytest.approx(slow_holm(p))
    assert holm([]) == []
    assert holm([0.02]) == [0.02]


def test_wrong_input():
    with pytest.raises(ValueError, match="at least 2 queries"):
        paired_t_test([1], [2])
    with pytest.raises(ValueError, match="at least one query"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="not finite"):
        paired_permutation_test([1.0, float("nan")], [1.0, 2.0])
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap_interval([1.0], confidence=95)
    with pytest.raises(ValueError, match="samples is 0"):
        paired_permutation_test([1.0], [1.0], samples=0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, float("nan")])
