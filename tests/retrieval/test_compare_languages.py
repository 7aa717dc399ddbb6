"""compare.py on runs of several languages: each language, their average, one correction over all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foundations.errors import InputError
from retrieval.compare import compare_runs, comparison_note, load_runs
from retrieval.statistics import holm, macro_t_test, one_group

QUERIES = {"sw": 40, "so": 9}


def values(seed: int, shift: float = 0.0) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    rng = np.random.default_rng(seed)
    return {
        language: {"test": {"map": {f"q{i}": float(shift + rng.random()) for i in range(count)}}}
        for language, count in QUERIES.items()
    }


@pytest.fixture
def folders(tmp_path):
    for name, content in (("a", values(0)), ("b", values(1, 0.2)), ("c", values(2, 0.02))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "per_query.json").write_text(json.dumps({"languages": content}))
    return tmp_path


def test_each_language_and_the_average(folders):
    found = compare_runs(load_runs([str(folders / name) for name in "abc"]))
    assert [(one.language, one.run) for one in found] == [(g, r) for g in ("sw", "so", "average") for r in "abc"]
    a, b = values(0), values(1, 0.2)
    means = {g: np.mean(list(b[g]["test"]["map"].values())) for g in QUERIES}
    assert [one.mean for one in found if one.run == "b"] == pytest.approx([*means.values(), sum(means.values()) / 2])
    assert [one.queries for one in found if one.run == "b"] == [40, 9, 49]
    first = next(one for one in found if one.run == "b")
    x, y = (list(each["sw"]["test"]["map"].values()) for each in (b, a))
    assert first.t_test == pytest.approx(macro_t_test(one_group(np.subtract(x, y))))
    tested = [one for one in found if one.t_test is not None]
    assert len(tested) == 6
    assert [one.t_test_holm for one in tested] == holm([one.t_test for one in tested])
    assert [one.permutation_holm for one in tested] == holm([one.permutation for one in tested])
    average = found[-2]
    assert average.interval[0] < average.mean < average.interval[1]
    assert average.t_test < first.t_test  # both languages are better in b
    assert "49 queries" in comparison_note(found)
    assert "over 6 comparisons a metric" in comparison_note(found)


def test_a_language_by_name_against_a_run_of_that_language(folders, script):
    (folders / "single").mkdir()
    (folders / "single" / "per_query.json").write_text(json.dumps(values(3)["sw"]))
    done = script("compare.py", folders / "single", f"{folders / 'b'}:test/sw", "--json", folders / "out.json")
    assert done.status == 0, done.err
    assert "language" not in done.out
    assert " b:test/sw " in done.out
    content = json.loads((folders / "out.json").read_text())["comparisons"]
    assert [(one["queries"], one["language"]) for one in content] == [(40, None), (40, None)]


def test_the_table_has_a_line_for_each(folders, script):
    done = script("compare.py", folders / "a", folders / "b")
    assert done.status == 0, done.err
    lines = [line.split() for line in done.out.splitlines() if " a " in f" {line} " or " b " in f" {line} "]
    assert lines[1][:3] == ["map", "sw", "a"]
    assert sum(word in line for line in lines for word in ("sw", "so", "average")) == 3


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("single", "the runs have different languages: a has sw, so, single has a single language; name one"),
        ("fewer", "the runs have different languages: a has sw, so, fewer has sw"),
        ("b:test/mr", "there is no language 'mr': there is sw, so"),
        ("b:tset", "sw, there is no row 'tset', did you mean 'test'?"),
        ("single:test/sw", "there is no language 'sw'; the run has a single one"),
        ("queries", "the runs have different queries in so: 1 of the 9 queries of a are missing in queries"),
        ("one", "one has no metric 'map': there is mrr"),
        ("broken", '"languages": expected an object {language: {row: {metric: {query id: value}}}}'),
        ("nan", "so, test, map, query 'q0': found 'x', expected a finite number"),
    ],
)
def test_errors(folders, second, message):
    single, fewer, queries, one, nan = (values(5) for _ in range(5))
    del fewer["so"], queries["so"]["test"]["map"]["q3"]
    one["sw"]["test"] = {"mrr": one["sw"]["test"]["map"]}
    nan["so"]["test"]["map"]["q0"] = "x"
    contents = {"single": single["sw"], "broken": {"languages": [1]}} | {
        name: {"languages": each} for name, each in (("fewer", fewer), ("queries", queries), ("one", one), ("nan", nan))
    }
    for name, content in contents.items():
        (folders / name).mkdir()
        (folders / name / "per_query.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        compare_runs(load_runs([str(folders / "a"), str(folders / second)]), ["map"])
    assert message in str(error.value)
