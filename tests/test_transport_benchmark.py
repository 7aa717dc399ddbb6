"""The transport benchmark, small: every part gives its rows, and the page and the plot can be written."""

from __future__ import annotations

import json
import math

import pytest
import torch

from benchmarks import timing, transport
from benchmarks.transport_problems import States

pytest.importorskip("ot")


@pytest.mark.slow
def test_quick(tmp_path, monkeypatch, capsys):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n<!-- begin: written by {transport.COMMAND} -->\n<!-- end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(transport, "PAGE", page)
    assert transport.main(["--quick", "--json", str(tmp_path / "rows.json"), "--write-docs"]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert all({"name", "ours", "peer", "ratio", "unit", "target", "met"} <= set(row) for row in rows)
    assert all(math.isfinite(row["ours"]) for row in rows)
    found = {row["name"]: row for row in rows}
    assert len(found) == len(rows)
    for name in ("default: largest violation, all sizes", "torch: largest violation, all sizes"):
        assert found[name]["met"]
    assert found["default: error of the gradient at tolerance 0.01"]["met"]
    assert found["default: peak memory at 50 iterations"]["ratio"] > 10
    times = found["default against POT solve_batch, log: B 4, n 16"]
    assert times["interval"][0] <= times["ratio"] <= times["interval"][1]
    assert times["ratio"] == pytest.approx(times["peer"] / times["ours"])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "| torch against POT ot.emd loop: B 4, n 8 |" in text
    assert (tmp_path / "images" / "transport.png").stat().st_size > 1000
    assert "targets not met" in capsys.readouterr().err


def test_interleaved_runs_all_in_turn_and_does_not_count_the_first_round():
    calls, ticks = [], iter(range(100))
    methods = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = timing.interleaved(methods, 4, clock=lambda: float(next(ticks)))
    assert calls == ["a", "b"] * 5
    assert times == {"a": [1000.0] * 4, "b": [1000.0] * 4}
    assert len(timing.interleaved(methods, 50, budget=0.0)["a"]) == 3


def test_ratio_and_its_interval():
    ratio, low, high = timing.ratio_interval([1.0, 2.0, 3.0], [12.0, 20.0, 36.0])
    assert ratio == 10
    assert low <= 10 <= high
    assert low < high


def test_problems_have_the_lengths_and_no_mass_at_padding():
    problem = States(20, 10, None).problem(20, 10)
    assert min(min(pair) for pair in problem.lengths) >= 4
    assert max(max(pair) for pair in problem.lengths) == 10
    for marginal, count in zip(problem.marginals, zip(*problem.lengths, strict=True), strict=True):
        assert torch.equal((marginal > 0).sum(1), torch.tensor(count))
    index, (n, m) = 3, problem.lengths[3]
    cosines = torch.nn.functional.cosine_similarity(
        problem.teacher.tokens[index, :n, None], problem.student.tokens[index, None, :m], dim=-1
    )
    assert torch.allclose(problem.cost[index, :n, :m], 1 - cosines, atol=1e-5)
