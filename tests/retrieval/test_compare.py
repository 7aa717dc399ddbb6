from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import compare as command
from foundations.commands import run_main
from retrieval.metrics import evaluate_run
from retrieval.statistics import holm, macro_interval, one_group
from retrieval.trec import write_qrels, write_run

ROOT = Path(__file__).parents[2]
QUERIES = [f"q{i}" for i in range(80)]


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def compare(capsys):
    """The command in this process: quick. One test below runs it as users do."""

    def run(*arguments):
        try:
            run_main("compare.py", command.compare, [str(argument) for argument in arguments])
            status = 0
        except SystemExit as stop:
            status = stop.code
        return Result(status, *capsys.readouterr())

    return run


def assert_refused(result, message):
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr


def write_folder(folder, rows):
    folder.mkdir()
    (folder / "per_query.json").write_text(json.dumps(rows))
    return folder


def values(rng, gain=0.0):
    return np.clip(np.random.default_rng(0).random(80) * 0.6 + gain + rng.normal(0, 0.05, 80), 0, 1)


@pytest.fixture
def folders(tmp_path):
    """Three runs: mse, ot a little better, bad worse; queries in another order in each file."""
    rng = np.random.default_rng(1)
    made = {}
    for name, gain in (("mse", 0.0), ("ot", 0.02), ("bad", -0.3)):
        metrics = {}
        for metric in ("map", "ndcg@10"):
            row = dict(zip(QUERIES, values(rng, gain).tolist(), strict=True))
            metrics[metric] = {query: row[query] for query in rng.permutation(QUERIES).tolist()}
        undistilled = {"map": dict.fromkeys(QUERIES, 0.05)}
        made[name] = write_folder(tmp_path / name, {"test": metrics, "undistilled": undistilled})
    return made


def test_numbers_are_those_of_scipy(compare, folders, tmp_path):
    result = compare(folders["mse"], folders["ot"], folders["bad"], "--json", tmp_path / "out.json")
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["baseline"] == "mse"
    found = {(one["metric"], one["run"]): one for one in written["comparisons"]}
    assert list(found) == [(metric, run) for metric in ("map", "ndcg@10") for run in ("mse", "ot", "bad")]
    for metric in ("map", "ndcg@10"):
        read = {name: json.loads((folders[name] / "per_query.json").read_text())["test"][metric] for name in folders}
        arrays = {name: np.array([row[query] for query in QUERIES]) for name, row in read.items()}
        p_values = []
        for name, array in arrays.items():
            one = found[metric, name]
            assert one["mean"] == pytest.approx(array.mean())
            assert one["interval"] == pytest.approx(macro_interval(one_group(array)), abs=0.01)
            if name == "mse":
                assert one["difference"] is None
                continue
            test = stats.ttest_rel(array, arrays["mse"])
            p_values.append(test.pvalue)
            assert one["difference"] == pytest.approx((array - arrays["mse"]).mean())
            assert one["t_test"] == pytest.approx(test.pvalue)
            assert one["permutation"] == pytest.approx(max(test.pvalue, 1e-4), abs=0.02)
            low, high = one["difference_interval"]
            assert low < one["difference"] < high
        for kind in ("t_test", "permutation"):
            raw = [found[metric, name][kind] for name in ("ot", "bad")]
            assert [found[metric, name][f"{kind}_holm"] for name in ("ot", "bad")] == pytest.approx(holm(raw), abs=0)


def test_table_has_a_line_for_each_metric_and_run(compare, folders):
    result = compare(folders["mse"], folders["ot"], folders["bad"], "--metrics", "ndcg@10", "map")
    lines = [line for line in result.stdout.splitlines() if "[" in line and "interval" not in line]
    assert [line.split()[0] for line in lines] == ["ndcg@10", "ot", "bad", "map", "ot", "bad"]
    assert "baseline" in lines[0]
    assert re.search(
        r"bad +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] +-0\.\d{3} \[-0\.\d{3}, -0\.\d{3}\] +<0\.001 +<0\.001", lines[2]
    )
    assert "80 queries" in result.stdout
    assert "2 comparisons a metric" in result.stdout
    assert "…" not in result.stdout


def test_baseline_and_rows(compare, folders):
    result = compare(f"{folders['ot']}:undistilled", folders["ot"], "--baseline", folders["ot"])
    assert result.returncode == 0, result.stderr
    assert re.search(r"map +ot:undistilled +0\.050 \[0\.050, 0\.050\] +-0\.", result.stdout)
    assert "difference to ot " in result.stdout
    assert "ndcg@10" not in result.stdout, "the row undistilled has no ndcg@10"


def test_run_files_are_scored_with_the_qrels(compare, tmp_path):
    rng = np.random.default_rng(0)
    qrels = {query: {f"d{i}": 1 for i in rng.integers(20, size=2)} for query in QUERIES}
    runs = {
        name: {
            query: {f"d{i}": float(rng.normal() + bias * (f"d{i}" in qrels[query])) for i in range(20)}
            for query in QUERIES
        }
        for name, bias in (("a", 0.0), ("b", 2.0))
    }
    del runs["a"]["q7"]  # counts as 0, as in trec_eval
    write_qrels(tmp_path / "qrels", qrels)
    for name, run in runs.items():
        write_run(tmp_path / f"{name}.run", run)
    options = ("--qrels", tmp_path / "qrels", "--metrics", "map", "precision@3", "--json", tmp_path / "out.json")
    result = compare(tmp_path / "a.run", tmp_path / "b.run", *options)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "out.json").read_text())["comparisons"]
    assert [(one["metric"], one["run"]) for one in found] == [
        (metric, run) for metric in ("map", "precision@3") for run in ("a.run", "b.run")
    ]
    for one in found:
        per_query = evaluate_run(runs[one["run"][0]], qrels, [one["metric"]])[one["metric"]]
        assert one["mean"] == pytest.approx(np.mean(list(per_query.values())))
        assert one["queries"] == 80


def test_different_queries_are_counted(compare, folders, tmp_path):
    fewer = dict.fromkeys(QUERIES[3:], 0.1) | {"other": 0.1}
    other = write_folder(tmp_path / "fewer", {"test": {"map": fewer}})
    result = compare(folders["mse"], other)
    assert_refused(result, "3 of the 80 queries of mse are missing in fewer, which has 1 others (e.g. '")


def test_one_run_twice_and_unknown_baseline(compare, folders):
    assert_refused(compare(folders["ot"], f"{folders['ot']}/"), "is given twice")
    assert_refused(compare(folders["ot"]), "expected at least two to compare")
    result = compare(folders["ot"], folders["mse"], "--baseline", "bad")
    assert_refused(result, f"--baseline is bad, expected one of the runs, {folders['ot']}, {folders['mse']}")


def test_wrong_metrics_and_rows(compare, folders, tmp_path):
    result = compare(folders["mse"], folders["ot"], "--metrics", "ncdg@10", "--json", tmp_path / "out.json")
    assert_refused(result, "mse has no metric 'ncdg@10', did you mean 'ndcg@10'? There is map, ndcg@10")
    assert not (tmp_path / "out.json").exists()
    result = compare(f"{folders['ot']}:undestilled", folders["ot"])
    assert_refused(result, "there is no row 'undestilled', did you mean 'undistilled'? There is test, undistilled")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"test": {"map": \n{"q0": 0.1,}}}', "per_query.json:2: invalid JSON"),
        ('{"test": {"map": {"q0": NaN}}}', "query 'q0': found nan, expected a finite number"),
        ('{"test": {"map": {"q0": "high"}}}', "query 'q0': found 'high', expected a finite number"),
        ('{"test": {"map": 0.5}}', "row 'test', metric 'map': expected an object {query id: value}"),
        ('{"test": 0.5}', "row 'test': expected an object"),
        ("[1]", "expected an object {row:"),
        ("{}", "there is no row 'test'"),
        ('{"test": {}}', "the runs have no metric in common"),
    ],
)
def test_wrong_run_folders(compare, folders, text, message):
    (folders["ot"] / "per_query.json").write_text(text)
    assert_refused(compare(folders["mse"], folders["ot"]), message)


def test_wrong_paths(compare, folders, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(compare(folders["ot"], tmp_path / "empty"), "empty: there is no per_query.json in it")
    assert_refused(compare(folders["ot"], tmp_path / "none"), "none: no such run")
    (tmp_path / "a.run").write_text("q0 Q0 d 1 0.5\n")
    assert_refused(compare(folders["ot"], tmp_path / "a.run"), "needs --qrels FILE")
    write_qrels(tmp_path / "qrels", {"x": {"d": 1}})
    result = compare(folders["ot"], tmp_path / "a.run", "--qrels", tmp_path / "qrels")
    assert_refused(result, "a.run:1: found 5 columns, expected 6")
    write_run(tmp_path / "a.run", {"q0": {"d": 1.0}})
    result = compare(folders["ot"], tmp_path / "a.run", "--qrels", tmp_path / "qrels")
    assert_refused(result, "none of its 1 queries is in the qrels")


def test_missing_queries_are_said_and_metrics_may_have_other_names(compare, tmp_path):
    for name in ("a.run", "b.run"):
        write_run(tmp_path / name, {"q0": {"d": 1.0}, "q1": {"d": 1.0}})
    write_qrels(tmp_path / "qrels", {f"q{i}": {"d": 2} for i in range(3)})
    options = ("--qrels", tmp_path / "qrels", "--metrics", "ndcg_cut_10", "P(rel=2)@1")
    with pytest.warns(UserWarning, match="1 of the 3 judged queries are not in the run and count as 0"):
        result = compare(tmp_path / "a.run", tmp_path / "b.run", *options)
    assert result.returncode == 0
    assert "ndcg@10" in result.stdout
    assert "precision(rel=2)@1" in result.stdout


def test_the_script_exits_with_2_and_one_line_or_with_a_table(folders):
    script = [sys.executable, "compare.py", str(folders["mse"])]
    good = subprocess.run([*script, str(folders["ot"])], capture_output=True, text=True, check=False, cwd=ROOT)
    assert good.returncode == 0
    assert good.stderr == ""
    assert "difference to mse" in good.stdout
    assert "1 comparison a metric" in good.stdout
    assert_refused(
        subprocess.run([*script, "none"], capture_output=True, text=True, check=False, cwd=ROOT), "no such run"
    )


def test_the_command_imports_nothing_heavy():
    script = (
        "import sys, compare; sys.argv[1:] = ['--help']\n"
        "try: compare.main()\n"
        "finally: print(sorted({'torch', 'numpy', 'scipy', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.endswith("\n[]\n")
    script = "import sys, retrieval.compare; print('torch' in sys.modules, 'scipy.stats' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "False False\n"
