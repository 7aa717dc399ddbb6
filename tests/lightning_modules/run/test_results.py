"""What a run says of its results."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from foundations.errors import InputError
from lightning_modules.run.results import against_plain
from retrieval.results import from_json
from retrieval.table import format_p


def rows(**means: float):
    """Values of 40 queries around some means."""
    rng = np.random.default_rng(0)
    return {
        row: {"map": {f"q{i}": float(value) for i, value in enumerate(rng.normal(mean, 0.05, 40))}}
        for row, mean in means.items()
    }


def test_results_that_are_no_object():
    with pytest.raises(InputError, match="the results of a run are a list, expected a JSON object"):
        from_json([1])


def test_the_best_row_without_training_is_the_one_to_beat():
    grouped = {"": rows(undistilled=0.2, bm25=0.4, test=0.42, hybrid=0.6, teacher=0.9)}
    values = {row: list(metrics["map"].values()) for row, metrics in grouped[""].items()}
    first, *others = against_plain(grouped)
    p = {row: ttest_rel(values[row], values["bm25"]).pvalue for row in ("test", "hybrid")}
    assert p["hybrid"] < p["test"]
    gain = np.mean(values["test"]) - np.mean(values["bm25"])
    holm = max(p["test"], 2 * p["hybrid"])
    assert first.startswith(f"against BM25 as it is, the best row without training: distilled student {gain:+.3f} (p ")
    both = np.mean(values["hybrid"]) - np.mean(values["bm25"])
    assert f"distilled student {gain:+.3f} (p = {format_p(holm)}), student + BM25 {both:+.3f} (p <0.001)" in first
    assert (others == []) == (max(p["test"], 2 * ttest_rel(values["test"], values["undistilled"]).pvalue) < 0.05)


@pytest.mark.parametrize(
    ("means", "behind"),
    [
        ({"undistilled": 0.2, "bm25": 0.4, "test": 0.3, "hybrid": 0.6}, "BM25 as it is"),
        ({"undistilled": 0.5, "bm25": 0.1, "test": 0.3}, "undistilled teacher"),
        ({"undistilled": 0.5, "bm25": 0.5, "test": 0.3}, "undistilled teacher and BM25 as it is"),
        ({"bm25": 0.5, "test": 0.3}, "BM25 as it is"),
        ({"undistilled": 0.2, "bm25": 0.2, "test": 0.8}, None),
    ],
)
def test_a_student_that_is_behind_is_told_what_to_try(means, behind):
    lines = against_plain({"": rows(**means)})
    assert len(lines) == 1 + (behind is not None)
    if behind is not None:
        assert lines[1].startswith(f"The student is not significantly ahead of {behind}: let it read the documents")


def test_without_bm25_or_with_one_query_there_is_nothing_to_say():
    assert against_plain({"": rows(undistilled=0.2, test=0.4)}) == []
    one = {row: {"map": {"q": 0.5}} for row in ("undistilled", "bm25", "test")}
    assert against_plain({"": one}) == []
    languages = {"sw": rows(undistilled=0.2, bm25=0.1, test=0.5), "so": rows(undistilled=0.2, test=0.5)}
    assert against_plain(languages) == [], "one language has no BM25"
