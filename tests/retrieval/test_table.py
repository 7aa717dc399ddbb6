from __future__ import annotations

from retrieval.table import plain_table, print_table, results_table


def test_metrics_table(capsys):
    rows = {
        "undistilled": {"map": {"q1": 0.1, "q2": 0.3}, "ndcg@10": {"q1": 0.0, "q2": 1.0}},
        "test": {"map": {"q1": 0.5, "q2": 0.5}, "ndcg@10": {"q1": 0.0, "q2": 1.0}},
        "teacher": {"map": {"q1": 0.5, "q2": 0.5}},
    }
    print_table(results_table({"": rows}, "starter, sw"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["starter,", "sw"] in lines
    assert ["undistilled", "teacher", "0.200", "[0.100,", "0.300]", "0.500", "[0.000,", "1.000]"] in lines
    assert ["teacher", "on", "English", "0.500", "[0.500,", "0.500]", "-"] in lines


def test_wide_tables_and_brackets_are_printed_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_table(plain_table(["run", "value"], [["runs/[red]" + "x" * 150, "0.5"]]))
    out = capsys.readouterr().out
    assert any("runs/[red]" + "x" * 150 in line and "0.5" in line for line in out.splitlines())


def test_names_of_groups_stand_once_and_groups_are_parted(capsys):
    def shown(columns, lines, labels):
        print_table(plain_table(columns, lines, labels=labels))
        return [line.split() for line in capsys.readouterr().out.splitlines()][3:]

    lines = [("map", "sw", "a"), ("map", "sw", "b"), ("map", "so", "a"), ("mrr", "so", "a")]
    found = shown(["metric", "language", "run"], lines, 2)
    assert found == [["map", "sw", "a"], ["b"], ["so", "a"], [], ["mrr", "so", "a"], []]
    assert shown(["metric", "run"], [("map", "a"), ("mrr", "b")], 1) == [["map", "a"], ["mrr", "b"], []]
