from __future__ import annotations

import pytest

from benchmarks import training

SETTINGS = training.FULL | {"queries": 30, "depth": 12, "turns": 3, "pairs": 640, "epochs": 2}


def test_metrics_are_compared_on_the_same_rankings():
    (row,) = training.measure_metrics(SETTINGS)  # it ends the process where the two differ
    assert row["unit"] == "queries/s"
    assert row["lowest"] <= row["ratio"] <= row["highest"]
    assert row["met"] is (row["ratio"] >= training.METRICS_TARGET)


def test_ratios_are_taken_turn_by_turn(monkeypatch):
    seconds = {"sentence-transformers": [10.0, 20.0, 40.0], "--strategy mse": [5.0, 8.0, 10.0]}

    def run_side(name: str, settings: dict, seed: int) -> dict[str, float]:
        value = seconds.get(name, [1.0, 1.0, 1.0])[seed]
        return {"all": value, "loop": value / 2, "dev": 0.25}

    monkeypatch.setattr(training, "run_side", run_side)
    rows = {row["name"]: row for row in training.measure_training(SETTINGS)}
    row = rows["--strategy mse: end to end"]
    assert (row["lowest"], row["ratio"], row["highest"]) == (2.0, 2.5, 4.0)
    assert row["ours"] == 1280 / 8
    assert row["target"] == 2.0
    assert row["met"] is True
    assert rows["--strategy mse: dev MAP"]["ratio"] == 1.0
    assert "| --strategy mse: end to end | 160 | 64 pairs/s | 2.50 (2.00, 4.00) | 2 (met) |" in training.markdown(
        list(rows.values()), SETTINGS
    )


def test_a_side_that_fails_ends_the_benchmark(monkeypatch):
    monkeypatch.setitem(training.SIDES, "broken", ("no_such_side", {}))
    with pytest.raises(SystemExit, match="broken failed"):
        training.run_side("broken", SETTINGS, 0)
