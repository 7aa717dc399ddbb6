"""The benchmark of size, small: it runs, its bounds hold, and a bound that does not hold is an error."""

from __future__ import annotations

import json

import pytest

from benchmarks import scale

pytest.importorskip("faiss")


@pytest.mark.slow
def test_small(tmp_path, capsys):
    assert scale.main(["--small", "--threads", "1", "--json", str(tmp_path / "rows.json")]) == 0, (
        capsys.readouterr().out
    )
    rows = {row["name"]: row for row in json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))}
    assert all(set(row) == {"name", "ours", "peer", "ratio", "unit"} for row in rows.values())
    assert rows["training input: peak memory"]["ours"] < 1000
    assert rows["search: memory above the start"]["ratio"] < 1
    assert rows["encode: same bytes after a kill"]["ours"] == 1
    assert rows["encode: static student"]["unit"] == "vectors/s"
    assert rows["training input: pairs"]["ours"] > 100


def test_bounds_that_do_not_hold(monkeypatch, capsys, tmp_path):
    parts = {
        "make_pairs": {},
        "training_input": {
            "peak_mb": 1001, "index_mb_per_s": 1, "pairs_per_s": 1, "mb_per_s": 1
        },
        "make_collection": {},
        "search_memory": {"growth_mb": 17},
        "brute_force": {"wrong": 1},
        "against_faiss": {"ours": [1.0], "faiss": [2.0]},
        "approximate": {"documents": 1, "exact": 1, "ivf": {"recall": 0.7, "seconds": 1, "build": 1},
                        "hnsw": {"recall": 0.9, "seconds": 1, "build": 1}},
    }  # fmt: skip
    (tmp_path / "pairs.tsv").touch()
    monkeypatch.setattr(scale, "run_part", lambda name, *_: parts[name])
    report, settings = scale.Report(), scale.SMALL | {"folder": str(tmp_path)}
    scale.measure_input(report, settings)
    scale.measure_search(report, settings)
    assert [failure.split()[0] for failure in report.failures] == ["training", "search", "search", "recall@100"]
    assert capsys.readouterr().out.count("FAILED: ") == 4
