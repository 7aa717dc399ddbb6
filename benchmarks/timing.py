"""Times of several methods, measured in turn, and their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def interleaved(
    methods: Mapping[str, Callable[[], Any]],
    rounds: int,
    budget: float = float("inf"),
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Run each method once a round, after one round that is not counted, so that all see the same machine.

    Args:
        methods: what to run, by name.
        rounds: how often, at most.
        budget: seconds of all rounds together; at least three are made.
        clock: the processor's time of this process, or another clock.

    Returns:
        For each method its time in each round, in milliseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in methods}
    started = time.perf_counter()
    for count in range(rounds + 1):
        if count > 3 and time.perf_counter() - started > budget:
            break
        for name, method in methods.items():
            before = clock()
            method()
            if count:
                times[name].append((clock() - before) * 1e3)
    return times


def ratio_interval(ours: list[float], peers: list[float], samples: int = 2000) -> tuple[float, float, float]:
    """The peer's median time over ours, and its 95 % interval by bootstrap over rounds.

    Args:
        ours: times in each round.
        peers: times in the same rounds.
        samples: bootstrap samples.

    Returns:
        Ratio (above 1 we are faster), lower and upper end.
    """
    ours_array, peers_array = np.array(ours), np.array(peers)
    drawn = np.random.default_rng(0).integers(len(ours), size=(samples, len(ours)))
    ratios = np.median(peers_array[drawn], axis=1) / np.median(ours_array[drawn], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return statistics.median(peers) / statistics.median(ours), float(low), float(high)


def crossed_interval(values: Any, samples: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over seeds and queries, both of which are drawn with replacement.

    Args:
        values: one value for each seed and query; (S, Q). With one seed only the queries are drawn.
        samples: bootstrap samples.

    Returns:
        Lower and upper end.
    """
    array, rng = np.asarray(values, dtype=np.float64), np.random.default_rng(0)
    seeds, queries = array.shape
    means = [
        array[rng.integers(seeds, size=seeds)].mean(0)[rng.integers(queries, size=queries)].mean()
        for _ in range(samples)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
