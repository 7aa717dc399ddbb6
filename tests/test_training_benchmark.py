from __future__ import annotations

import json

import pytest

from benchmarks import hardware, pages, training
from benchmarks.timing import crossed_interval

SECONDS = {training.PEER: [10.0, 20.0, 40.0], "--strategy mse": [5.0, 8.0, 10.0]}
RATES = {name: 0.001 * (number + 1) for number, name in enumerate(training.SIDES)}


@pytest.fixture
def settings(tmp_path) -> dict:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.tsv").write_text("water\tmaji\n" * 650, encoding="utf-8")
    own = {"queries": 30, "depth": 12, "turns": 3, "epochs": 2, "inputs": str(tmp_path)}
    return training.FULL | own


@pytest.fixture
def runs(monkeypatch) -> list:
    runs = []

    def run_side(name: str, settings: dict, seed: int) -> dict:
        runs.append((name, settings["lr"], seed))
        value = SECONDS.get(name, [1.0, 1.0, 1.0])[seed % 3]
        precision = {"q1": 0.25 + settings["lr"], "q2": 0.5}
        times = {"all": value, "loop": value / 2, "all_cpu": value, "loop_cpu": value / 2}
        return times | {"dev": precision, "test": precision}

    monkeypatch.setattr(training, "run_side", run_side)
    monkeypatch.setattr(training, "has_bfloat16", lambda: True)
    return runs


def test_metrics_are_compared_on_the_same_rankings(settings):
    (row,) = training.measure_metrics(settings)  # it ends the process where the two differ
    assert row["unit"] == "queries/s"
    assert row["lowest"] <= row["ratio"] <= row["highest"]
    assert row["met"] is (row["ratio"] >= training.METRICS_TARGET)


def test_ratios_are_taken_turn_by_turn(settings, runs):
    rows = {row["name"]: row for row in training.measure_training(settings, RATES)}
    row = rows["--strategy mse: end to end"]
    assert (row["lowest"], row["ratio"], row["highest"]) == (2.0, 2.5, 4.0)
    assert row["ours"] == 1280 / 8
    assert row["target"] == 2.0
    assert row["met"] is True
    # One epoch in its one second of steps, against two epochs in five, ten and twenty.
    assert rows["sentence-transformers, bf16: steps alone"]["ours"] == 640 / 0.5
    assert "sentence-transformers, bf16: end to end" not in rows
    table = training.markdown(list(rows.values()), "about")
    assert "| --strategy mse: end to end | 160 | 64 pairs/s | 2.50 (2.00, 4.00) | 2 (met) |" in table
    assert [run for run in runs if run[2] == 0][:2] == [(training.PEER, 0.001, 0), ("--strategy mse", 0.002, 0)]


def test_quality_is_compared_query_by_query(settings, runs):
    rows = {row["name"]: row for row in training.measure_quality(settings, RATES, jobs=2)}
    row = rows[f"--strategy mse: dev MAP against {training.PEER}"]
    assert row["difference"] == pytest.approx(0.0005)  # the rates differ by 0.001, and one query of two shows it
    assert row["lowest"] == 0  # where only the other query was drawn
    assert row["highest"] == pytest.approx(0.001)
    assert row["met"] is True
    worse = training._quality("name", *[[{"dev": {"q1": value, "q2": value}}] for value in (0.1, 0.2)], "dev")
    assert worse["met"] is False
    assert "-0.1000 (-0.1000, -0.1000) | as good (not met)" in training.markdown([worse], "about")


def test_each_side_gets_its_best_rate(settings, runs):
    found = training.tune(settings, jobs=2)
    assert set(found["rates"].values()) == {max(training.GRID)}
    assert {seed for _, _, seed in runs} == {training.TUNING_SEED}
    assert len(runs) == len(training.SIDES) * len(training.GRID)
    rates = {training.PEER: 1.0, training.UNIT: 2.0, "--strategy mse": 3.0}
    assert training.rate_of("sentence-transformers, bf16", rates) == 1.0
    assert training.rate_of(training.UNIT, rates) == 2.0
    assert training.rate_of("--strategy mse, whole vocabulary", rates) == 3.0


def test_an_interval_over_seeds_is_wider_where_they_differ():
    same, other = [[0.1, 0.2, 0.3, 0.4]] * 3, [[0.0, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5]]
    (low, high), (lower, higher) = crossed_interval(same), crossed_interval(other)
    assert lower < low < 0.25 < high < higher


def test_a_side_that_fails_ends_the_benchmark(settings, monkeypatch):
    monkeypatch.setitem(training.SIDES, "broken", ("no_such_side", {}))
    with pytest.raises(SystemExit, match="broken failed"):
        training.run_side("broken", settings, 0)


def test_results_from_elsewhere_are_written_into_the_page(tmp_path, monkeypatch):
    cell = {"step": 0.5, "busy": 0.25, "memory": 2**31, "waits": 1.5, "phases": {"data": 0.1, "student": 0.2}}
    rows = [group[0] | cell for group in hardware.GROUPS]
    page = tmp_path / "page.md"
    page.write_text(f"<!-- begin: written by {hardware.COMMAND} -->\n{pages.END}\nrest", encoding="utf-8")
    monkeypatch.setattr(hardware, "PAGE", page)
    (tmp_path / "results.json").write_text(json.dumps({"about": "One GPU.", "rows": rows}))
    monkeypatch.setattr("sys.argv", ["hardware", "--render", str(tmp_path / "results.json")])
    hardware.main()
    text = page.read_text(encoding="utf-8")
    assert "| 12 x 384 | 64 | `mse` | 32-true | single | 128 | 2.0 | 2.0 | 50% | 1.5 |" in text
    assert "| 12 x 384 | 64 | `mse` | 32-true | single | 500.0 | 100.0 | 200.0 | 200.0 |" in text
    assert "One GPU." in text
    assert text.endswith("rest")
    named = {row["name"] for row in hardware.figures(rows)}
    assert "12 x 384, batch 256, ot, bf16-mixed, fsdp: peak memory" in named


def test_a_kept_result_is_not_measured_again(settings, tmp_path, monkeypatch):
    calls = []

    def run(command, **options):
        calls.append(command)
        return type("Done", (), {"returncode": 0, "stdout": 'noise\n{"all": 1.5}', "stderr": ""})

    monkeypatch.setattr(pages.subprocess, "run", run)
    own = settings | {"keep": str(tmp_path / "kept"), "lr": 0.001}
    for seed, expected in ((0, 1), (0, 1), (1, 2)):
        assert training.run_side(training.PEER, own, seed) == {"all": 1.5}
        assert len(calls) == expected
    training.run_side(training.PEER, own | {"lr": 0.003}, 0)
    assert len(calls) == 3
    training.run_side(training.PEER, own | {"keep": None}, 0)
    assert len(calls) == 4
