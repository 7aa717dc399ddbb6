from __future__ import annotations

from retrieval.table import metrics_table, plain_table, print_table


def test_metrics_table(capsys):
    rows = {
        "undistilled": {"map": {"q1": 0.1, "q2": 0.3}, "ndcg@10": {"q1": 0.0, "q2": 1.0}},
        "distilled": {"map": {"q1": 0.5, "q2": 0.5}},
    }
    print_table(metrics_table(rows, title="starter, sw"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["starter,", "sw"] in lines
    assert ["undistilled", "0.200", "[0.100,", "0.300]", "0.500", "[0.000,", "1.000]"] in lines
    assert ["distilled", "0.500", "[0.500,", "0.500]", "-"] in lines


def test_wide_tables_and_brackets_are_printed_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = plain_table("run", "value")
    table.add_row("runs/[red]" + "x" * 150, "0.5")
    print_table(table)
    out = capsys.readouterr().out
    assert any("runs/[red]" + "x" * 150 in line and "0.5" in line for line in out.splitlines())
